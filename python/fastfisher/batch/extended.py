"""Double-double answers with proven bounds, of matrices, (hi, lo) pairs or scores."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops import batch_of, numpy_batch
from fastfisher._ops.types import Array
from fastfisher.batch.solution import BatchSolution

__all__ = ["PRECISIONS", "Scores", "Source", "source", "unextended"]

PRECISIONS = ("double", "extended")


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores in the place of the matrices that they would make, for ``precision="extended"``.

    F = Σ s sᵀ (over n for the mean) is summed in double-double. Past a condition number of 10¹⁶ a
    float64 F has already lost what no arithmetic brings back; the scores have not.

    Parameters
    ----------
    scores : array (B, n, p), float64
        n score vectors of each item.
    reduction : {"mean", "sum"}
        Divide by n, or not.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> S = np.vander(np.linspace(0.0, 1.0, 12))[None]  # F has condition number 3e15
    >>> solution = ff.batch.solve(ff.batch.Scores(S), np.ones((1, 12)), precision="extended")
    >>> bool(solution.error_bound[0] < 1e-9)
    True
    >>> scores = ff.batch.Scores(S, reduction="sum")
    >>> scores.scores.shape, scores.reduction
    ((1, 12, 12), 'sum')
    """

    scores: Any
    reduction: str = "mean"


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What the core takes: matrices or scores, and the low parts of matrices."""

    matrix: Array
    lo: Array | None
    scores: bool
    mean: bool

    def extend(self, count: int) -> "Source":
        """Return as many items, if there is one."""
        if len(self.matrix) == count:
            return self
        matrix = np.broadcast_to(self.matrix, (count, *self.matrix.shape[1:]))
        lo = None if self.lo is None else np.broadcast_to(self.lo, (count, *self.lo.shape[1:]))
        return Source(matrix, lo, self.scores, self.mean)

    def answer(self, rhs: Array | None, used: Array, shift: Array, threads: int) -> BatchSolution:
        """Return the double-double answers and their bounds."""
        value, status, rcond, bound = numpy_batch.extended(
            self.matrix, self.lo, self.scores, self.mean, shift, rhs, threads
        )
        return BatchSolution(value, status, rcond, used, error_bound=bound)


def source(F: Any) -> Source:
    """Return what `F` stands for: an array, a pair (hi, lo), or Scores."""
    if isinstance(F, Scores):
        mean = _check.reduction(F.reduction) == "mean"
        matrix = _doubles("scores", F.scores)
        if matrix.shape[2] == 0 or (mean and matrix.shape[1] == 0):
            raise ValueError(
                f"scores: expected at least one sample and parameter, got shape {matrix.shape}. "
                "The mean over no samples is not defined."
            )
        return Source(matrix, None, True, mean)
    if not isinstance(F, tuple):
        return Source(_square("F", F), None, False, False)
    if len(F) != 2:
        raise ValueError(
            f"F: expected a pair (hi, lo), got {len(F)} arrays. Stack the items in one array."
        )
    hi, lo = _square("hi", F[0]), _square("lo", F[1])
    if hi.shape != lo.shape:
        raise ValueError(
            f"lo: expected the shape {hi.shape} of hi, got {lo.shape}. Their sum is F."
        )
    return Source(hi, lo, False, False)


def unextended(F: Any) -> Any:
    """Return `F` if it is meant for double precision, else raise."""
    if isinstance(F, Scores | tuple):
        kind = "Scores" if isinstance(F, Scores) else "a tuple"
        raise TypeError(
            f"F: expected an array with precision='double', got {kind}. "
            "Pairs (hi, lo) and Scores are for precision='extended'."
        )
    return F


def _doubles(name: str, value: Any) -> Array:
    ops = batch_of(value)
    if ops is not numpy_batch:
        ops.extended()
    array = numpy_batch.to_array(name, value)
    if array.ndim != 3:
        raise ValueError(
            f"{name}: expected a 3-D array, one item along the first axis, got shape "
            f"{array.shape}. A single item is {name}[None]."
        )
    return array.astype(np.float64, copy=False)


def _square(name: str, value: Any) -> Array:
    array = _doubles(name, value)
    if array.shape[1] != array.shape[2] or array.shape[1] == 0:
        raise ValueError(
            f"{name}: expected square matrices (B, p, p) with p ≥ 1, got shape {array.shape}. "
            "Scores (B, n, p) are given as Scores(S)."
        )
    return array
