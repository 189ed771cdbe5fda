"""What a solve returns: the answer, and what happened on the way."""

from dataclasses import dataclass
from typing import Any

from fastfisher._status import Status

__all__ = ["Solution", "Status"]


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The solution of (F + damping) x = g and how it was found.

    Attributes
    ----------
    value : array
        x, of the shape of the right-hand side.
    status : Status
        ``SUCCESS``, or what was done or happened instead.
    residual : float or None
        ‖g − (F + damping) x‖ / ‖g‖ in the 2-norm, computed from x; the worst column of several.
        After ``TRUNCATED`` by an eigenvalue cut-off it holds the part of g that was cut off.
    damping_used : float or array
        What was added to the diagonal: a number, or one number per parameter.
    method : str
        The solver that gave the value, also when ``"auto"`` or `on_failure` chose it.
    iterations : int
        Iterations of the slowest column; refinements in mixed precision; 0 for a direct method.
    rcond : float or None
        Estimate of 1 / κ₁ of the matrix that was factored, or 1 / κ₂ where its eigenvalues are
        known; None where nothing was.
    rank : int or None
        Eigenvalues kept by ``on_failure="pinv"`` or a cut-off of the solver, singular values by
        ``QR(rank_revealing=True)``; None otherwise.
    message : str
        The same in words, or why a fallback was taken; empty after plain success.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> solution = ff.solve(np.diag([1.0, 3.0]), np.ones(2), damping=1.0)
    >>> solution.value, solution.status.name, solution.method
    (array([0.5 , 0.25]), 'SUCCESS', 'cholesky')
    >>> solution.residual < 1e-15, solution.damping_used, solution.iterations, solution.message
    (True, 1.0, 0, '')
    >>> round(solution.rcond, 6), solution.rank
    (0.5, None)
    """

    value: Any
    status: Status
    residual: float | None
    damping_used: Any
    method: str
    iterations: int = 0
    rcond: float | None = None
    rank: int | None = None
    message: str = ""
