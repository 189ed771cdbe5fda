"""fastfisher: scores in, Fisher out, solved at the speed of the machine."""

from fastfisher import batch
from fastfisher._native import get_num_threads, set_num_threads, show_config
from fastfisher._persist import load
from fastfisher._version import __version__
from fastfisher.errors import (
    ConvergenceError,
    FileFormatError,
    FisherError,
    MemoryLimitError,
    NonFiniteError,
    NotPositiveDefiniteError,
)
from fastfisher.fisher import DenseFisher, DiagonalFisher, Fisher, ScoreFisher
from fastfisher.functions import (
    empirical_fisher,
    fisher_diagonal,
    fvp,
    gram,
    natural_gradient,
    solve,
)
from fastfisher.solvers import CG, Cholesky, Dual, Solution, Status

__all__ = [
    "CG",
    "Cholesky",
    "ConvergenceError",
    "DenseFisher",
    "DiagonalFisher",
    "Dual",
    "FileFormatError",
    "Fisher",
    "FisherError",
    "MemoryLimitError",
    "NonFiniteError",
    "NotPositiveDefiniteError",
    "ScoreFisher",
    "Solution",
    "Status",
    "__version__",
    "batch",
    "empirical_fisher",
    "fisher_diagonal",
    "fvp",
    "get_num_threads",
    "gram",
    "load",
    "natural_gradient",
    "set_num_threads",
    "show_config",
    "solve",
]
