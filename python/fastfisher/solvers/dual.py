"""Dual: solve with the n × n Gram matrix of the scores instead of the p × p Fisher."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastfisher import _check
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

    Needs a representation that holds its scores, and a positive damping, by which it divides, or an
    eigenvalue cut-off. A damping at which the answer to a general right-hand side would have no
    correct digit, eps · tr F, is refused.

    Parameters
    ----------
    rtol : float, optional
        Leave out eigenvalues of F + λI that are not above `rtol` times the largest: 0 … 1, and no
        less than their rounding, n · eps. With this or `rtol_smooth` the Gram matrix is decomposed,
        x is f(F + λI) g with f(w) = 1/w where w was kept, and λ may be 0.
    rtol_smooth : float, optional
        Let the inverse fade where w falls below s = `rtol_smooth` times the largest eigenvalue:
        f(w) = 1 / (w (1 + (s/w)⁶)).

    Notes
    -----
    With a cut-off ``Solution.rank`` is the number of eigenvalues of F + λI that were neither left
    out nor faded by more than half, and the status is ``TRUNCATED`` where those are not all p.
    Directions outside the row space have the eigenvalue λ: they are cut off with λ, and with λ = 0.

    References
    ----------
    A. Chen and M. Heyl, "Empowering deep neural quantum states through efficient optimization",
    Nat. Phys. 20 (2024) 1476 (the dual as minSR).
    M. Schmitt and M. Heyl, "Quantum many-body dynamics in two dimensions with artificial neural
    networks", Phys. Rev. Lett. 125 (2020) 100503 (the smooth cut-off).

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> scores = np.array([[1.0, 0.0, 1.0]])
    >>> ff.solve(ff.ScoreFisher(scores), np.ones(3), damping=1.0, solver=ff.Dual()).value.round(3)
    array([0.333, 1.   , 0.333])

    The pseudo-inverse, for which no damping is needed:

    >>> solution = ff.solve(ff.ScoreFisher(scores), np.ones(3), solver=ff.Dual(rtol=1e-12))
    >>> solution.value.round(3), solution.rank, solution.status.name
    (array([0.5, 0. , 0.5]), 1, 'TRUNCATED')
    >>> ff.ScoreFisher(scores).factor(damping=1.0, solver=ff.Dual()).method
    'dual'
    >>> path = ff.ScoreFisher(scores).solve_path(np.ones(3), [1.0, 2.0], solver=ff.Dual())
    >>> path.value.shape, ff.Dual(rtol_smooth=1e-6).rtol_smooth
    ((2, 3), 1e-06)
    """

    rtol: float | None = None
    rtol_smooth: float | None = None

    def __post_init__(self) -> None:
        for name in ("rtol", "rtol_smooth"):
            given = getattr(self, name)
            if given is not None and not _check.cut(name, given) < 1.0:
                raise ValueError(
                    f"{name}: expected less than 1, got {given}. It is relative to the largest "
                    "eigenvalue."
                )

    @property
    def _cuts(self) -> bool:
        return self.rtol is not None or self.rtol_smooth is not None

    def solve(
        self, fisher: "Fisher", rhs: Any, shift: Any, *, threads: int = 0, diagnose: bool = True
    ) -> Solution:
        """Solve (F + shift) x = rhs; see `fastfisher.solvers` for the arguments."""
        if self._cuts:
            found: Solution = self._cut_off(fisher, rhs, [shift], threads, diagnose)[0]
            return found
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
        if self._cuts:
            raise ValueError(
                "solver: expected Dual() for a factor, got an eigenvalue cut-off. What was cut off "
                "has no inverse: add damping, or use ff.solve."
            )
        return fisher._dual_factor(shift, threads=threads)

    def solve_path(
        self, fisher: "Fisher", rhs: Any, shifts: list[float], *, threads: int = 0
    ) -> list[Outcome]:
        """Solve (F + shift) x = rhs for every shift from one Gram matrix.

        The scores are read once for the products with all solutions together.
        """
        if self._cuts:
            return self._cut_off(fisher, rhs, shifts, threads, diagnose=True)
        if fisher._scores_held is None:
            fisher._dual_factor(0.0)  # says what to use instead
        scores: Any = fisher
        given = scores._dual_rhs(rhs, threads)
        gram, inner = scores._gram_triangle(threads), scores._dual_inner(given, threads)
        inners = [inner[:, :0]]
        size = scores._scale * float(gram.diagonal().sum(dtype="float64"))

        def attempt(shift: float) -> Solution:
            scores._refuse_singular(shift)
            if given is not None:
                scores._refuse_cancelled(shift, size)
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
        X = scores._from_dual(
            given, fisher._ops.xp.concat(inners, axis=1), shifts_of(found), threads
        )
        rhs = fisher._mean_score(threads) if rhs is None else rhs
        return with_values(fisher, rhs, found, X, threads)

    def _cut_off(
        self, fisher: "Fisher", rhs: Any, shifts: list[Any], threads: int, diagnose: bool
    ) -> list[Any]:
        """Return a Solution for every shift, f(F + shift) rhs, by one decomposition in all."""
        if fisher._scores_held is None:
            fisher._dual_factor(0.0)  # says what to use instead
        if not all(isinstance(shift, float) for shift in shifts):
            raise ValueError(
                "damping: expected a number with an eigenvalue cut-off, got a vector. Give Dual() "
                "no rtol and no rtol_smooth: a positive vector needs none."
            )
        scores: Any = fisher
        params = fisher.shape[0]
        X, ranks = scores._truncated(
            rhs, shifts, self.rtol or 0.0, self.rtol_smooth or 0.0, threads
        )
        found: list[Outcome] = [
            Solution(
                value=X,
                status=Status.SUCCESS if rank == params else Status.TRUNCATED,
                residual=None,
                damping_used=shift,
                method="dual+cutoff",
                rank=rank,
                message="" if rank == params else f"{rank} of {params} eigenvalues were kept",
            )
            for shift, rank in zip(shifts, ranks, strict=True)
        ]
        if not diagnose:
            return found  # of one shift
        rhs = fisher._mean_score(threads) if rhs is None else rhs
        return with_values(fisher, rhs, found, X, threads)
