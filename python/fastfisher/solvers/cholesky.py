"""Cholesky: factor the damped matrix, then two triangular solves."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastfisher.solvers.outcome import Outcome, one_by_one, outcomes
from fastfisher.solvers.solution import Solution, Status

if TYPE_CHECKING:
    from fastfisher.fisher.protocol import Fisher

__all__ = ["Cholesky"]


@dataclass(frozen=True, slots=True)
class Cholesky:
    """Solve by the blocked Cholesky factorisation of F + damping, p³/3 multiplications.

    Equivalent to ``scipy.linalg.cho_solve(scipy.linalg.cho_factor(F + D), g)``, in half the memory.
    A `ScoreFisher` is accumulated first and factored in the same memory.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> ff.solve(F, np.array([3.0, 3.0]), solver=ff.Cholesky()).value
    array([1., 1.])
    """

    def solve(
        self, fisher: "Fisher", rhs: Any, shift: Any, *, threads: int = 0, diagnose: bool = True
    ) -> Solution:
        """Solve (F + shift) x = rhs; see `fastfisher.solvers` for the arguments."""
        if rhs is None:
            rhs = fisher._mean_score(threads)
        factor = fisher._matrix_factor(shift, threads=threads, with_norm=diagnose)
        value = factor.solve_columns(rhs)
        residual = fisher._residual(rhs, value, shift, threads) if diagnose else None
        return Solution(
            value=value,
            status=Status.SUCCESS,
            residual=residual,
            damping_used=shift,
            method="cholesky",
            rcond=factor.rcond if diagnose else None,
        )

    def solve_path(
        self, fisher: "Fisher", rhs: Any, shifts: list[float], *, threads: int = 0
    ) -> list[Outcome]:
        """Solve (F + shift) x = rhs for every shift: F is summed once, and factored for each."""
        if fisher._matrix_rows == 1:
            return one_by_one(self, fisher, rhs, shifts, threads)
        with fisher._borrowed_triangle(threads) as (triangle, scale):

            def attempt(shift: float) -> Solution:
                factor = triangle.copy().cholesky(scale, shift, threads=threads)
                value = factor.solve(rhs, threads)
                product = triangle.product(value, scale, threads) + shift * value
                return Solution(
                    value=value,
                    status=Status.SUCCESS,
                    residual=fisher._ops.worst_residual(rhs, product),
                    damping_used=shift,
                    method="cholesky",
                    rcond=factor.rcond(threads),
                )

            return outcomes(attempt, shifts)
