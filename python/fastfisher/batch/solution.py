"""What a batch returns: the answers, and what happened to each item on the way."""

from dataclasses import dataclass
from typing import Any

__all__ = ["BatchSolution"]


@dataclass(frozen=True, slots=True, eq=False)
class BatchSolution:
    """The answers of a batch, item by item.

    Attributes
    ----------
    value : array
        What was asked for, first axis the item; NaN where an item has no answer.
    status : int8 array (B,)
        A ``Status`` for each item: ``SUCCESS``, ``NOT_POSITIVE_DEFINITE``, ``NON_FINITE`` (of
        matrix, right-hand side or answer), ``SHIFTED`` or ``TRUNCATED``.
    rcond : array (B,)
        1 / (‖A‖₁ ‖A⁻¹e‖_∞) of the equilibrated damped matrix A (its rows and columns scaled by
        powers of two to a diagonal from 1 to 4), with a vector e of ±1 that is chosen on the way
        for a large A⁻¹e. But for rounding never below 1/κ₁(A), and seldom above three times that.
        0 where A is not positive definite, NaN where it is not finite.
    damping_used : array (B,) or (B, p)
        What was added to the diagonal, the shift of ``on_failure="shift"`` included.
    error_bound : array (B,) or None
        With ``precision="extended"`` a proven bound of the relative error; see `solve`.
    rank : int array (B,) or None
        With ``on_failure="pinv"`` the eigenvalues that were kept.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = np.array([[[2.0, 0.0], [0.0, 4.0]], [[1.0, 2.0], [2.0, 1.0]]])
    >>> solution = ff.batch.inverse_diagonal(F, on_failure="nan")
    >>> solution.value
    array([[0.5 , 0.25],
           [ nan,  nan]])
    >>> [ff.Status(s).name for s in solution.status]
    ['SUCCESS', 'NOT_POSITIVE_DEFINITE']
    >>> solution.rcond, solution.damping_used
    (array([0.5, 0. ]), array([0., 0.]))
    >>> ff.batch.inverse(F, on_failure="pinv").rank
    array([2, 1])
    >>> proved = ff.batch.inverse(F, on_failure="nan", precision="extended")
    >>> bool(proved.error_bound[0] < 1e-15)
    True
    """

    value: Any
    status: Any
    rcond: Any
    damping_used: Any
    error_bound: Any = None
    rank: Any = None
