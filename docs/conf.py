"""How the documentation is built."""

from fastfisher._version import __version__

project = "fastfisher"
author = "fastfisher contributors"
copyright = "2026, fastfisher contributors"
version = release = __version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
myst_enable_extensions = ["amsmath", "dollarmath"]
exclude_patterns = ["_build"]
suppress_warnings = ["autosummary"]  # it writes no pages here
numpydoc_show_class_members = False
autodoc_typehints = "none"
html_theme = "pydata_sphinx_theme"
html_title = f"fastfisher {__version__}"
