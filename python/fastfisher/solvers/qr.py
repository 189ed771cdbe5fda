"""QR: solve by the orthogonal factorisation of the scores, which never squares their condition."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastfisher import _check
from fastfisher.errors import NonFiniteError
from fastfisher.solvers.outcome import Outcome, outcomes, with_values
from fastfisher.solvers.solution import Solution, Status

if TYPE_CHECKING:
    from fastfisher.fisher.factor import Factor
    from fastfisher.fisher.protocol import Fisher

__all__ = ["QR"]

# In eps. The diagonal entry that should be zero was up to 5 eps after 10⁵ rows, for any p.
_LEAST = 32


@dataclass(frozen=True, slots=True)
class QR:
    """Solve by the Householder QR factorisation of the scores: F + damping = Rᵀ R, never formed.

    Equivalent to ``R = np.linalg.qr(U, mode="r")``, U = √(w/Σw) S, and two triangular solves. With
    κ the condition number of the scores, that of F is κ²: Cholesky of F fails from κ ≈ 10⁸ on and
    leaves no digit of a covariance, QR goes on to κ ≈ 10¹⁶. Damping enters as rows √λ I below R, so
    it is not squared either. ``natural_gradient`` with `grad` None solves the least-squares problem
    min ‖U x − √(w/Σw)‖ itself, x = R⁻¹ Qᵀ √(w/Σw), whose error grows with κ alone, and
    ``ScoreFisher.least_squares`` that of any targets. A general right-hand side takes R⁻¹ R⁻ᵀ g,
    with an error of κ ‖F⁻¹‖‖g‖: where x is far smaller than ‖F⁻¹‖‖g‖ that is κ² ‖x‖ again.

    Needs a `ScoreFisher` or a `SquareRootFisher`: a matrix has lost these digits already.

    Parameters
    ----------
    rank_revealing : bool
        Decompose R by its singular values, drop those not above `rank_tol` times the largest, and
        give the solution of minimum norm: of the equations that are left, the x of least ‖x‖. The
        status is ``TRUNCATED`` if any were dropped, and ``Solution.rank`` is how many were kept.
    rank_tol : float, optional
        Relative size up to which R counts as rounding; default max(p, 32) eps. Without
        `rank_revealing` a diagonal entry of R up to `rank_tol` times the norm of its column raises
        `NotPositiveDefiniteError`.

    Notes
    -----
    2 n p² multiplications and half a matrix; no copy of the scores. Same bits for any number of
    threads. Scores whose squares underflow are no different from others, but there is no F then to
    give an rcond: it is NaN.

    References
    ----------
    J. Demmel, L. Grigori, M. Hoemmen and J. Langou, "Communication-optimal parallel and sequential
    QR and LU factorizations", SIAM J. Sci. Comput. 34 (2012) A206.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> tiny = 2.0**-30  # its square is lost beside 1
    >>> scores = np.array([[0.5, 0.5], [0.5 + tiny, 0.5 - tiny]])
    >>> ff.natural_gradient(scores, damping=0.0, solver=ff.QR()).round(6)
    array([1., 1.])
    >>> twice = ff.ScoreFisher(np.array([[1.0, 1.0], [2.0, 2.0]]), reduction="sum")
    >>> solution = ff.solve(twice, np.ones(2), solver=ff.QR(rank_revealing=True))
    >>> solution.value.round(12), solution.status.name, solution.rank
    (array([0.1, 0.1]), 'TRUNCATED', 1)
    >>> ff.ScoreFisher(scores).factor(solver=ff.QR()).method, ff.QR(rank_tol=1e-12).rank_tol
    ('qr', 1e-12)
    >>> ff.ScoreFisher(scores).solve_path(np.ones(2), [0.1, 1.0], solver=ff.QR()).value.shape
    (2, 2)
    """

    rank_revealing: bool = False
    rank_tol: float | None = None

    def __post_init__(self) -> None:
        _check.flag("rank_revealing", self.rank_revealing)
        if self.rank_tol is not None and _check.cut("rank_tol", self.rank_tol) >= 1.0:
            raise ValueError(
                f"rank_tol: expected less than 1, got {self.rank_tol}. It is relative to the "
                "largest singular value, or to the norm of a column."
            )

    def solve(
        self, fisher: "Fisher", rhs: Any, shift: Any, *, threads: int = 0, diagnose: bool = True
    ) -> Solution:
        """Solve (F + shift) x = rhs; see `fastfisher.solvers` for the arguments."""
        b = fisher._row_space_scale if rhs is None else None
        if rhs is None and (diagnose or b is None):
            rhs = fisher._mean_score(threads)
        root = fisher._square_root(threads, with_root=b is not None)
        root.damp(fisher._scale, shift, threads)
        z = None if b is None else root.split() * (b / fisher._scale)
        if self.rank_revealing:
            spectrum = _Spectrum(fisher, root)
            told = spectrum.told(0.0, self._tolerance(fisher))
            rank = told["rank"]
            value = spectrum.solve(rhs, 0.0, rank) if z is None else spectrum.solve_root(z, rank)
        else:
            factor = root.factor(self._tolerance(fisher), threads=threads, with_norm=diagnose)
            told = {"rcond": factor.rcond(threads) if diagnose else None}
            if z is None:
                value = factor.solve(rhs, threads)
            else:
                value = factor.half_solve(z, transposed=True, threads=threads)
        return Solution(
            value=value,
            residual=fisher._residual(rhs, value, shift, threads) if diagnose else None,
            damping_used=shift,
            method="qr",
            **{"status": Status.SUCCESS, **told},
        )

    def solve_path(
        self, fisher: "Fisher", rhs: Any, shifts: list[float], *, threads: int = 0
    ) -> list[Outcome]:
        """Solve (F + shift) x = rhs for every shift: the scores are factored once.

        Each damping is then absorbed by a copy of R, 2p³/3 multiplications, or added to the squares
        of the singular values where those are asked for.
        """
        b = fisher._row_space_scale if rhs is None else None
        if rhs is None:
            rhs = fisher._mean_score(threads)
        root = fisher._square_root(threads, with_root=b is not None)
        tolerance, unit = self._tolerance(fisher), None if b is None else b / fisher._scale
        spectrum, z = None, None
        if self.rank_revealing:
            root.damp(fisher._scale, 0.0, threads)
            z = None if unit is None else root.split() * unit
            spectrum = _Spectrum(fisher, root)
        values = [rhs[:, :0]]

        def attempt(shift: float) -> Solution:
            if spectrum is not None:
                told = spectrum.told(shift, tolerance)
                rank = told["rank"]
                values.append(
                    spectrum.solve(rhs, shift, rank)
                    if z is None
                    else spectrum.solve_root(z, rank, shift)
                )
            else:
                own = root.copy()
                own.damp(fisher._scale, shift, threads)
                head = None if unit is None else own.split() * unit
                factor = own.factor(tolerance, threads=threads)
                told = {"rcond": factor.rcond(threads)}
                values.append(
                    factor.solve(rhs, threads)
                    if head is None
                    else factor.half_solve(head, transposed=True, threads=threads)
                )
            return Solution(
                value=None,
                residual=None,
                damping_used=shift,
                method="qr",
                **{"status": Status.SUCCESS, **told},
            )

        found = outcomes(attempt, shifts)
        return with_values(fisher, rhs, found, fisher._ops.xp.concat(values, axis=1), threads)

    def factor(self, fisher: "Fisher", shift: Any, *, threads: int = 0) -> "Factor":
        """Return the factor R of F + shift."""
        if self.rank_revealing:
            raise ValueError(
                "solver: expected QR() for a factor, got QR(rank_revealing=True). What was dropped "
                "has no inverse: add damping, or use ff.solve."
            )
        return fisher._root_factor(shift, self._tolerance(fisher), threads)

    def _tolerance(self, fisher: "Fisher") -> float:
        if self.rank_tol is not None:
            return self.rank_tol
        return max(fisher.shape[0], _LEAST) * float(np.finfo(fisher.dtype).eps)


class _Spectrum:
    """The singular values of R = P diag(s) Qᴴ, so F = Q diag(s²) Qᴴ."""

    def __init__(self, fisher: "Fisher", root: Any) -> None:
        fisher._guard_matrix(6)
        R = root.dense()
        if not fisher._ops.all_finite(R):
            raise NonFiniteError(
                "fisher: expected a finite R, got NaN or infinity. Look for them in the scores."
            )
        self._xp = fisher._ops.xp
        self._P, self._s, self._Qh = self._xp.linalg.svd(R, full_matrices=False)

    def told(self, shift: float, tolerance: float) -> dict[str, Any]:
        """Return status, rank, rcond and message of the system s² + shift."""
        s, params = self._xp.hypot(self._s, math.sqrt(shift)), self._s.shape[0]
        rank = int((s > tolerance * s[0]).sum())
        told: dict[str, Any] = {
            "rank": rank,
            "rcond": float(s[-1] / s[0]) ** 2 if s[0] > 0 else 0.0,
        }
        if rank < params:
            told["status"] = Status.TRUNCATED
            told["message"] = f"rank {rank} of {params}: the solution of minimum norm"
        return told

    def solve(self, rhs: Any, shift: float, rank: int) -> Any:
        """Return Q (s² + shift)⁻¹ Qᴴ rhs, of minimum norm where `rank` is less than p."""
        s, Qh = self._xp.hypot(self._s, math.sqrt(shift))[:rank, None], self._Qh[:rank]
        return Qh.conj().T @ ((Qh @ rhs) / s / s)  # not by s², which underflows

    def solve_root(self, z: Any, rank: int, shift: float = 0.0) -> Any:
        """Return (RᴴR + shift)⁻¹ Rᴴ z, which is R⁻¹ z without a shift, or its minimum norm."""
        s, Qh = self._s[:rank, None], self._Qh[:rank]
        inner = self._P[:, :rank].conj().T @ z
        return Qh.conj().T @ (inner / (s + s.dtype.type(shift) / s))
