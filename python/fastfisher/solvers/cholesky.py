"""Cholesky: factor the damped matrix, then two triangular solves."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fastfisher import _memory
from fastfisher.solvers.mixed import solve_mixed
from fastfisher.solvers.outcome import Outcome, one_by_one, outcomes
from fastfisher.solvers.solution import Solution, Status

if TYPE_CHECKING:
    from fastfisher.fisher.factor import Factor
    from fastfisher.fisher.protocol import Fisher

__all__ = ["Cholesky"]


@dataclass(frozen=True, slots=True)
class Cholesky:
    """Solve by the blocked Cholesky factorisation of F + damping, p³/3 multiplications.

    Equivalent to ``scipy.linalg.cho_solve(scipy.linalg.cho_factor(F + D), g)``, in half the memory.
    A `ScoreFisher` is accumulated first and factored in the same memory.

    Parameters
    ----------
    precision : {"working", "mixed"}
        ``"mixed"`` factors a float64 matrix in float32 (complex128 in complex64), twice as fast,
        and refines x in float64 to the accuracy of a float64 solve. Where the float32 factor does
        not exist, its reciprocal condition is not above 8 √p eps32, or a refinement gains too
        little, the float64 factor is taken after all, and ``Solution.message`` says why.
        ``Solution.method`` is ``"cholesky-mixed"`` or ``"cholesky"``, ``iterations`` the number of
        refinements.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> ff.solve(F, np.array([3.0, 3.0]), solver=ff.Cholesky()).value
    array([1., 1.])
    >>> ff.solve(F, np.array([3.0, 3.0]), solver=ff.Cholesky(precision="mixed")).method
    'cholesky-mixed'
    >>> G = ff.DenseFisher.from_matrix(F)
    >>> G.factor(solver=ff.Cholesky()).method, G.solve_path([1.0, 1.0], [0.0, 1.0]).method
    ('cholesky', 'cholesky')
    """

    precision: Literal["working", "mixed"] = "working"

    def __post_init__(self) -> None:
        if self.precision not in ("working", "mixed"):
            raise ValueError(
                f"precision: expected 'working' or 'mixed', got {self.precision!r}. "
                "'mixed' factors float64 matrices in float32."
            )

    def solve(
        self, fisher: "Fisher", rhs: Any, shift: Any, *, threads: int = 0, diagnose: bool = True
    ) -> Solution:
        """Solve (F + shift) x = rhs; see `fastfisher.solvers` for the arguments."""
        if rhs is None:
            rhs = fisher._mean_score(threads)
        if self._narrows(fisher):
            with fisher._borrowed_triangle(threads) as (triangle, scale):
                return self._solve_triangle(fisher, triangle, scale, rhs, shift, threads)
        factor = fisher._matrix_factor(shift, threads=threads, with_norm=diagnose)
        value = factor.solve_columns(rhs)
        residual = fisher._residual(rhs, value, shift, threads) if diagnose else None
        return Solution(
            value=value,
            status=Status.SUCCESS,
            residual=residual,
            damping_used=shift,
            method=factor.method,
            rcond=factor.rcond if diagnose else None,
            message=self._unmixed(self._nothing_narrower(fisher)),
        )

    def solve_path(
        self, fisher: "Fisher", rhs: Any, shifts: list[float], *, threads: int = 0
    ) -> list[Outcome]:
        """Solve (F + shift) x = rhs for every shift: F is summed once, and factored for each."""
        if fisher._composition:
            return one_by_one(self, fisher, rhs, shifts, threads)
        if rhs is None:
            rhs = fisher._mean_score(threads)
        with fisher._borrowed_triangle(threads) as (triangle, scale):
            return outcomes(
                lambda shift: self._solve_triangle(fisher, triangle, scale, rhs, shift, threads),
                shifts,
            )

    def factor(self, fisher: "Fisher", shift: Any, *, threads: int = 0) -> "Factor":
        """Return the Cholesky factor of F + shift."""
        return fisher._matrix_factor(shift, threads=threads)

    def _narrows(self, fisher: "Fisher") -> bool:
        """Tell whether there is a matrix to factor in a narrower dtype."""
        return self.precision == "mixed" and not self._nothing_narrower(fisher)

    def _nothing_narrower(self, fisher: "Fisher") -> str:
        """Return in words why no dtype is narrower, "" where one is."""
        if fisher._composition:
            return fisher._composition
        if fisher._matrix_rows == 1:
            return "a diagonal"
        return "" if fisher.dtype.char in "dD" else f"a {fisher.dtype} matrix"

    def _unmixed(self, why: str) -> str:
        return f"factored in the working precision: {why}" if self.precision == "mixed" else ""

    def _solve_triangle(
        self, fisher: "Fisher", triangle: Any, scale: float, rhs: Any, shift: Any, threads: int
    ) -> Solution:
        """Solve (scale · T + shift) x = rhs, leaving T as it is."""
        _memory.guard(
            fisher._ops.Triangle.bytes_for(triangle.size, fisher.dtype),
            "a factor beside the matrix",
            "Use solver=CG(), which needs none.",
            fisher._ops,
        )
        why = self._nothing_narrower(fisher)
        if self._narrows(fisher):
            found = solve_mixed(fisher, triangle, scale, rhs, shift, threads)
            if isinstance(found, Solution):
                return found
            why = found
        factor = triangle.copy().cholesky(scale, shift, threads=threads)
        value = factor.solve(rhs, threads)
        product = triangle.product(value, scale, threads) + fisher._times(shift, value)
        return Solution(
            value=value,
            status=Status.SUCCESS,
            residual=fisher._ops.worst_residual(rhs, product),
            damping_used=shift,
            method="cholesky",
            rcond=factor.rcond(threads),
            message=self._unmixed(why),
        )
