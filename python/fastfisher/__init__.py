"""fastfisher: scores in, Fisher out, solved at the speed of the machine."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from fastfisher.fisher import (
    Conv2dLayer,
    DenseFisher,
    DiagonalFisher,
    Fisher,
    LayerFisher,
    LinearLayer,
    ScoreFisher,
    chunks,
)
from fastfisher.functions import (
    empirical_fisher,
    fisher_diagonal,
    fvp,
    gram,
    natural_gradient,
    solve,
)
from fastfisher.path import solve_path
from fastfisher.solvers import (
    CG,
    BlockJacobi,
    Cholesky,
    Dual,
    Eigh,
    Nystrom,
    PathSolution,
    Solution,
    Status,
)

if TYPE_CHECKING:
    from fastfisher import batch

__all__ = [
    "CG",
    "BlockJacobi",
    "Cholesky",
    "Conv2dLayer",
    "ConvergenceError",
    "DenseFisher",
    "DiagonalFisher",
    "Dual",
    "Eigh",
    "FileFormatError",
    "Fisher",
    "FisherError",
    "LayerFisher",
    "LinearLayer",
    "MemoryLimitError",
    "NonFiniteError",
    "NotPositiveDefiniteError",
    "Nystrom",
    "PathSolution",
    "ScoreFisher",
    "Solution",
    "Status",
    "__version__",
    "batch",
    "chunks",
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
    "solve_path",
]


def __getattr__(name: str) -> Any:
    """Import `batch` when it is first asked for: that saves the others 5 ms."""
    if name == "batch":
        return import_module("fastfisher.batch")
    raise AttributeError(f"module 'fastfisher' has no attribute {name!r}")
