"""Dual: solve with the n × n Gram matrix of the scores instead of the p × p Fisher."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastfisher.solvers.outcome import Outcome, outcomes, shifts_of, with_values
from fastfisher.solvers.solution import Solution, Status

if TYPE_CHECKING:
    from fastfisher.fisher.factor import Factor
    from fastfisher.fisher.protocol import Fisher

__all__ = ["Dual"]


@dataclass(frozen=True, slots=True)
class Dual:
    """Solve through the Gram matrix, for n < p: n² p + n³/3 multiplications, and no p².

    For a general right-hand side, with U = W½ S and c = 1/Σw (Woodbury's identity),
    (c UᴴU + λI)⁻¹ g = (g − c Uᴴ (c UUᴴ + λI)⁻¹ U g) / λ, which loses digits by ‖F‖/λ when g lies in
    the row space of the scores. The mean score lies there, and has a formula without that loss:
    Uᴴ (c UUᴴ + λI)⁻¹ √w / Σw; ``natural_gradient`` uses it when `grad` is None. A vector damping D
    scales the columns of the scores by D^-½ first, which takes a copy of them.

    Needs a `ScoreFisher` and a positive damping: with n < p the Fisher alone is singular.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> scores = np.array([[1.0, 0.0, 1.0]])
    >>> ff.solve(ff.ScoreFisher(scores), np.ones(3), damping=1.0, solver=ff.Dual()).value.round(3)
    array([0.333, 1.   , 0.333])
    """

    def solve(
        self, fisher: "Fisher", rhs: Any, shift: Any, *, threads: int = 0, diagnose: bool = True
    ) -> Solution:
        """Solve (F + shift) x = rhs; see `fastfisher.solvers` for the arguments."""
        factor = fisher._dual_factor(shift, threads=threads, with_norm=diagnose)
        if rhs is None:
            value = factor.solve_mean_score()
            rhs = fisher._mean_score(threads) if diagnose else None
        else:
            value = factor.solve_columns(rhs)
        return Solution(
            value=value,
            status=Status.SUCCESS,
            residual=fisher._residual(rhs, value, shift, threads) if diagnose else None,
            damping_used=shift,
            method="dual",
            rcond=factor.rcond if diagnose else None,
        )

    def factor(self, fisher: "Fisher", shift: Any, *, threads: int = 0) -> "Factor":
        """Return the factor of the dual system of F + shift."""
        return fisher._dual_factor(shift, threads=threads)

    def solve_path(
        self, fisher: "Fisher", rhs: Any, shifts: list[float], *, threads: int = 0
    ) -> list[Outcome]:
        """Solve (F + shift) x = rhs for every shift from one Gram matrix.

        The scores are read once for the products with all solutions together.
        """
        if fisher._scores_held is None:
            fisher._dual_factor(0.0)  # says what to use instead
        scores: Any = fisher
        gram, inner = scores._gram_triangle(threads), scores._rooted_dot(rhs, threads)
        inners = [inner[:, :0]]

        def attempt(shift: float) -> Solution:
            scores._refuse_singular(shift)
            factor = gram.copy().cholesky(scores._scale, shift, threads=threads)
            inners.append(factor.solve(inner, threads))
            return Solution(
                value=None,
                status=Status.SUCCESS,
                residual=None,
                damping_used=shift,
                method="dual",
                rcond=factor.rcond(threads),
            )

        found = outcomes(attempt, shifts)
        X = scores._from_dual(rhs, fisher._ops.xp.hstack(inners), shifts_of(found), threads)
        return with_values(fisher, rhs, found, X, threads)
