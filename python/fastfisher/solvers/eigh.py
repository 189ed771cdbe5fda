"""Eigh: the eigendecomposition of F, after which every further damping is a product."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastfisher.errors import FisherError, NotPositiveDefiniteError
from fastfisher.solvers.outcome import Outcome, outcomes, shifts_of, with_values
from fastfisher.solvers.solution import Solution, Status

if TYPE_CHECKING:
    from fastfisher.fisher.protocol import Fisher

__all__ = ["Eigh"]


@dataclass(frozen=True, slots=True)
class Eigh:
    """Solve by the eigendecomposition F = Q diag(w) Qᴴ, for paths of very many dampings.

    Equivalent to ``Q @ ((Q.conj().T @ g) / (w + damping))`` with ``w, Q = np.linalg.eigh(F)``. Of a
    `ScoreFisher` with n < p the n × n Gram matrix is decomposed instead. One decomposition takes
    as long as a hundred Cholesky factorisations, but serves every damping: p² multiplications each.

    An eigenvalue of F + damping that is not above p · eps times the largest raises
    `NotPositiveDefiniteError`.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> ff.solve(F, np.array([3.0, 3.0]), solver=ff.Eigh()).value.round(12)
    array([1., 1.])
    >>> path = ff.DenseFisher.from_matrix(F).solve_path([3.0, 3.0], [0.0, 1.0], solver=ff.Eigh())
    >>> path.value.round(12)
    array([[1.  , 1.  ],
           [0.75, 0.75]])
    """

    def solve(
        self, fisher: "Fisher", rhs: Any, shift: Any, *, threads: int = 0, diagnose: bool = True
    ) -> Solution:
        """Solve (F + shift) x = rhs; see `fastfisher.solvers` for the arguments."""
        if rhs is None and isinstance(shift, float):  # the dual has a formula for the mean score
            found = self.solve_path(fisher, None, [shift], threads=threads)[0]
            if isinstance(found, FisherError):
                raise found
            return found
        if rhs is None:
            rhs = fisher._mean_score(threads)
        value, _ = fisher._spectral_power(rhs, -1.0, shift, truncate=False)
        return Solution(
            value=value,
            status=Status.SUCCESS,
            residual=fisher._residual(rhs, value, shift, threads) if diagnose else None,
            damping_used=shift,
            method="eigh",
        )

    def solve_path(
        self, fisher: "Fisher", rhs: Any, shifts: list[float], *, threads: int = 0
    ) -> list[Outcome]:
        """Solve (F + shift) x = rhs for every shift by one decomposition."""
        values, least, solve = fisher._spectral_solver(rhs, threads)
        if rhs is None:
            rhs = fisher._mean_score(threads)
        largest = float(values[-1])
        rows = min(values.shape[0], fisher._matrix_rows)
        rounding = rows * float(np.finfo(values.dtype).eps)

        def attempt(shift: float) -> Solution:
            if not least + shift > rounding * (abs(largest) + shift):
                raise NotPositiveDefiniteError(
                    "fisher: expected a positive definite F + damping, got the eigenvalue "
                    f"{least + shift:.3g} beside {largest + shift:.3g}. Add damping.",
                    value=least + shift,
                )
            return Solution(
                value=None,
                status=Status.SUCCESS,
                residual=None,
                damping_used=shift,
                method="eigh",
                rcond=(least + shift) / (largest + shift),
            )

        found = outcomes(attempt, shifts)
        return with_values(fisher, rhs, found, solve(shifts_of(found)), threads)
