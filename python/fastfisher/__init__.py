"""fastfisher: scores in, Fisher out, solved at the speed of the machine."""

from importlib import import_module
from sys import modules
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
    BlockDiagonalFisher,
    Conv2dLayer,
    DenseFisher,
    DiagonalFisher,
    Fisher,
    KroneckerFisher,
    LayerFisher,
    LinearLayer,
    LowRankFisher,
    ScoreFisher,
    SquareRootFisher,
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
    QR,
    BlockJacobi,
    Cholesky,
    Dual,
    Eigh,
    Nystrom,
    PathSolution,
    Solution,
    Status,
)
from fastfisher.solvers.spring import Spring

if TYPE_CHECKING:
    from fastfisher import batch, distributed, families
    from fastfisher.applications.bounds import (
        add_prior,
        condition_on,
        cramer_rao_bound,
        marginalize,
        reparametrize,
    )
    from fastfisher.applications.continual import ElasticWeightConsolidation, ewc_penalty
    from fastfisher.applications.descent import (
        Adam,
        AdamState,
        DescentRecord,
        DescentResult,
        DescentState,
        natural_gradient_descent,
    )
    from fastfisher.applications.evolution import (
        SNES,
        XNES,
        EvolutionRecord,
        EvolutionResult,
    )
    from fastfisher.applications.inference import (
        ChiSquaredTest,
        ScoreTests,
        kl_quadratic,
        laplace_sample,
        opg_covariance,
        sandwich_covariance,
        score_covariance,
        score_test,
        score_tests,
        wald_test,
    )
    from fastfisher.applications.least_squares import (
        LeastSquaresRecord,
        LeastSquaresResult,
        LeastSquaresState,
        gauss_newton,
        levenberg_marquardt,
    )
    from fastfisher.applications.trust_region import TRPOStep, trpo_step, trust_region_step
    from fastfisher.families import (
        Bernoulli,
        Binomial,
        Categorical,
        Exponential,
        Gaussian,
        MultivariateGaussian,
        Poisson,
        exact_fisher,
        monte_carlo_fisher,
        output_fisher,
    )

__all__ = [
    "CG",
    "QR",
    "SNES",
    "XNES",
    "Adam",
    "AdamState",
    "Bernoulli",
    "Binomial",
    "BlockDiagonalFisher",
    "BlockJacobi",
    "Categorical",
    "ChiSquaredTest",
    "Cholesky",
    "Conv2dLayer",
    "ConvergenceError",
    "DenseFisher",
    "DescentRecord",
    "DescentResult",
    "DescentState",
    "DiagonalFisher",
    "Dual",
    "Eigh",
    "ElasticWeightConsolidation",
    "EvolutionRecord",
    "EvolutionResult",
    "Exponential",
    "FileFormatError",
    "Fisher",
    "FisherError",
    "Gaussian",
    "KroneckerFisher",
    "LayerFisher",
    "LeastSquaresRecord",
    "LeastSquaresResult",
    "LeastSquaresState",
    "LinearLayer",
    "LowRankFisher",
    "MemoryLimitError",
    "MultivariateGaussian",
    "NonFiniteError",
    "NotPositiveDefiniteError",
    "Nystrom",
    "PathSolution",
    "Poisson",
    "ScoreFisher",
    "ScoreTests",
    "Solution",
    "Spring",
    "SquareRootFisher",
    "Status",
    "TRPOStep",
    "__version__",
    "add_prior",
    "batch",
    "chunks",
    "condition_on",
    "cramer_rao_bound",
    "distributed",
    "empirical_fisher",
    "ewc_penalty",
    "exact_fisher",
    "families",
    "fisher_diagonal",
    "fvp",
    "gauss_newton",
    "get_num_threads",
    "gram",
    "kl_quadratic",
    "laplace_sample",
    "levenberg_marquardt",
    "load",
    "marginalize",
    "monte_carlo_fisher",
    "natural_gradient",
    "natural_gradient_descent",
    "opg_covariance",
    "output_fisher",
    "reparametrize",
    "sandwich_covariance",
    "score_covariance",
    "score_test",
    "score_tests",
    "set_num_threads",
    "show_config",
    "solve",
    "solve_path",
    "trpo_step",
    "trust_region_step",
    "wald_test",
]


# Modules that are imported when a name of theirs is first asked for: that saves the others time.
_LATER = {
    "applications.bounds": (
        "add_prior",
        "condition_on",
        "cramer_rao_bound",
        "marginalize",
        "reparametrize",
    ),
    "applications.continual": ("ElasticWeightConsolidation", "ewc_penalty"),
    "applications.descent": (
        "Adam",
        "AdamState",
        "DescentRecord",
        "DescentResult",
        "DescentState",
        "natural_gradient_descent",
    ),
    "applications.evolution": ("SNES", "XNES", "EvolutionRecord", "EvolutionResult"),
    "applications.inference": (
        "ChiSquaredTest",
        "ScoreTests",
        "kl_quadratic",
        "laplace_sample",
        "opg_covariance",
        "sandwich_covariance",
        "score_covariance",
        "score_test",
        "score_tests",
        "wald_test",
    ),
    "applications.least_squares": (
        "LeastSquaresRecord",
        "LeastSquaresResult",
        "LeastSquaresState",
        "gauss_newton",
        "levenberg_marquardt",
    ),
    "applications.trust_region": ("TRPOStep", "trpo_step", "trust_region_step"),
    "batch": ("batch",),
    "distributed": ("distributed",),
    "families": (
        "families",
        "Bernoulli",
        "Binomial",
        "Categorical",
        "Exponential",
        "Gaussian",
        "MultivariateGaussian",
        "Poisson",
        "exact_fisher",
        "monte_carlo_fisher",
        "output_fisher",
    ),
}


def __getattr__(name: str) -> Any:
    """Import the module that has this name when it is first asked for."""
    for module, names in _LATER.items():
        if name in names:
            found = import_module(f"fastfisher.{module}")
            return found if name == module else getattr(found, name)
    raise AttributeError(
        f"module 'fastfisher' has no attribute {name!r}", name=name, obj=modules[__name__]
    )


def __dir__() -> list[str]:
    """Return all names, those that are imported later too, for completion at a prompt."""
    return sorted({*globals(), *__all__})
