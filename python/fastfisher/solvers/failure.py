"""What to do when F + damping cannot be solved: raise, NaN, shift or pinv, always reported."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fastfisher.errors import (
    ConvergenceError,
    FisherError,
    MemoryLimitError,
    NonFiniteError,
    NotPositiveDefiniteError,
)
from fastfisher.solvers.outcome import finite
from fastfisher.solvers.solution import Solution, Status

if TYPE_CHECKING:
    from fastfisher.fisher.protocol import Fisher

__all__ = ["POLICIES", "recover", "smallest_damping", "unsolved"]

POLICIES = ("raise", "nan", "shift", "pinv")
T = TypeVar("T")


def recover(
    policy: str,
    error: FisherError,
    solver: Any,
    fisher: "Fisher",
    rhs: Any,
    shift: Any,
    threads: int,
) -> Solution:
    """Return the Solution that `policy` makes of `error`, or raise it.

    ``"shift"`` and ``"pinv"`` cure a matrix that is not positive definite and nothing else: NaN
    input and a slow iteration still raise. Want of memory always does.
    """
    if policy == "nan" and not isinstance(error, MemoryLimitError):
        columns = 1 if rhs is None else rhs.shape[1]
        nothing = fisher._ops.xp.full((fisher.shape[0], columns), math.nan, dtype=fisher.dtype)
        return unsolved(error, nothing, shift)
    if not isinstance(error, NotPositiveDefiniteError):
        raise error
    if policy == "pinv":
        rhs = fisher._mean_score(threads) if rhs is None else rhs
        return finite(fisher, _truncated(fisher, rhs, shift, threads))

    def attempt(extra: float) -> Solution:
        return finite(fisher, solver.solve(fisher, rhs, shift + extra, threads=threads))

    if policy == "shift":
        extra, solution = smallest_damping(fisher, attempt)
        return replace(
            solution,
            status=Status.SHIFTED,
            method=f"{solution.method}+shift",
            message=f"not positive definite: {extra:.3g} was added to every diagonal entry",
        )
    if error.pivot is not None:  # a direct method, whose answer comes in a known time
        raise error.with_damping(smallest_damping(fisher, attempt)[0]) from None
    raise error


def smallest_damping(fisher: "Fisher", attempt: Callable[[float], T]) -> tuple[float, T]:
    """Return the first rung μ of a doubling ladder at which `attempt(μ)` works, and its result.

    The rungs are μ_j = 2ʲ · eps · b, j = 0, 1, …, with b an upper bound of the largest absolute
    eigenvalue (‖F‖₁, or the trace where F is given by its scores), so a rung below 4 b always
    works. They are found by galloping and bisection, in at most a dozen factorisations. Where
    answers lose digits by b / μ, as in the dual, they begin at √eps · b, which leaves half. An F
    that is zero has no scale of which eps would be small: its first rung is 1.
    """
    bound, info = fisher._eigenvalue_bound(), np.finfo(fisher.dtype)
    eps = math.sqrt(info.eps) if fisher._cancels else float(info.eps)
    first = max(eps * bound, float(info.tiny)) if bound else 1.0
    if not math.isfinite(first):
        raise NonFiniteError(
            f"fisher: expected finite values, got a norm of {bound}. Look for overflow."
        )

    def rung(j: int) -> tuple[float, T] | None:
        try:
            return first * 2.0**j, attempt(first * 2.0**j)
        except (NotPositiveDefiniteError, ConvergenceError, NonFiniteError):
            return None  # or the solution overflows, as that of a tiny pivot does

    low, high = -1, 0
    while (found := rung(high)) is None:
        low, high = high, 2 * high + 1
        if high > 2**10:
            raise NonFiniteError(
                "fisher: expected a matrix that damping makes positive definite, got one that "
                "none does. Look for overflow."
            )
    while high - low > 1:
        middle = (low + high) // 2
        better = rung(middle)
        if better is None:
            low = middle
        else:
            high, found = middle, better
    return found


def unsolved(error: FisherError, nothing: Any, shift: Any) -> Solution:
    """Return the Solution that says the same as `error`, with `nothing` for a value."""
    last = error.solution if isinstance(error.solution, Solution) else None
    status = Status.NOT_POSITIVE_DEFINITE
    if isinstance(error, NonFiniteError):
        status = Status.NON_FINITE
    return Solution(
        value=nothing,
        status=status if last is None else last.status,
        residual=None,
        damping_used=shift,
        method="none",
        iterations=0 if last is None else last.iterations,
        message=str(error),
    )


def _truncated(fisher: "Fisher", rhs: Any, shift: Any, threads: int) -> Solution:
    value, rank = fisher._spectral_power(rhs, -1.0, shift, truncate=True)
    return Solution(
        value=value,
        status=Status.TRUNCATED,
        residual=fisher._residual(rhs, value, shift, threads),
        damping_used=shift,
        method="eigh+pinv",
        rank=rank,
        message=f"not positive definite: {rank} of {fisher.shape[0]} eigenvalues were kept",
    )
