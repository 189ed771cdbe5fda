"""Every public function beside the best NumPy or SciPy line: ``python -m bench``."""
