"""Total information: what all samples say together, of a Fisher or a plain matrix."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec

import numpy as np

from fastfisher._ops import ops_of
from fastfisher._range import OutOfRangeError
from fastfisher.errors import NonFiniteError, NotPositiveDefiniteError
from fastfisher.fisher.protocol import Fisher
from fastfisher.functions import as_fisher

__all__ = ["advised", "as_total", "finite", "precisions"]

_P = ParamSpec("_P")


def as_total(fisher: Any) -> tuple[Fisher, float]:
    """Return F and c with c F the total information: nothing is copied or formed.

    A mean-reduced Fisher contributes its weight sum times F, one of sums itself; a plain matrix is
    taken as total, and its lower triangle is read. Then (c F)⁻¹ g is ``F.factor().solve(g) / c``.
    """
    F = as_fisher(fisher)
    return F, 1.0 if F.reduction == "sum" else F.weight_sum


def precisions(F: Fisher, prior: Any) -> Any:
    """Return the precisions of a prior, a number or (p,), finite and not negative.

    They are total, so ``F._scale`` times them is the damping of F that they are.
    """
    if isinstance(prior, Fisher) or np.ndim(prior) > 1:
        found = type(prior).__name__ if isinstance(prior, Fisher) else f"shape {np.shape(prior)}"
        raise ValueError(
            f"prior: expected a number or shape ({F.shape[0]},), got {found}. "
            "add_prior takes matrices."
        )
    array = F._ops.to_vector("prior", prior, np.dtype(np.float64))
    if array.ndim == 1 and array.shape[0] != F.shape[0]:
        raise ValueError(
            f"prior: expected a number or shape ({F.shape[0]},), got shape {array.shape}. "
            "Give 0 to parameters without a prior."
        )
    if not bool(((array >= 0.0) & (array < np.inf)).all()):
        raise ValueError(
            f"prior: expected precisions that are finite and not negative, got {prior}. "
            "A precision is 1/σ², 0 without a prior; condition_on takes out what is known."
        )
    return array


@contextmanager
def advised(total: float) -> Iterator[None]:
    """Say of singular information, in the numbers of the total, what can be done about it."""
    try:
        yield
    except NotPositiveDefiniteError as error:
        prior = None if error.damping is None else total * error.damping
        precision = "" if prior is None else f", of precision {prior:.3g}"
        raise NotPositiveDefiniteError(
            f"{error} Damping here is a prior{precision}; or leave out what is not determined with "
            "condition_on, or reparametrize to what is.",
            pivot=error.pivot,
            value=None if error.value is None else total * error.value,
            damping=prior,
        ) from error


def finite(function: Callable[_P, Any]) -> Callable[_P, Any]:
    """Refuse an answer, an array or a list of them, that holds NaN or infinity; warn of nothing."""

    @wraps(function)
    def answer(*args: _P.args, **kwargs: _P.kwargs) -> Any:
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                value = function(*args, **kwargs)
            parts = value if isinstance(value, list) else [value]
            if all(ops_of(part).all_finite(part) for part in parts):
                return value
            cause = None
        except OutOfRangeError as error:
            cause = error
        raise NonFiniteError(
            f"{function.__name__}: expected a finite answer, got NaN or infinity. Look for it "
            "in F; if it is not there, choose units that bring F nearer to 1, or take float64."
        ) from cause

    return answer
