"""The empirical Fishers of a batch of score arrays."""

from typing import Any

import numpy as np

from fastfisher import _check, _memory
from fastfisher._ops import batch_of, ops_of
from fastfisher._ops.border import takes_tensors
from fastfisher._ops.types import Array

__all__ = ["empirical_fisher"]


@takes_tensors
def empirical_fisher(
    scores: Any,
    *,
    weights: Any = None,
    center: bool = False,
    reduction: str = "mean",
    dtype: Any = None,
    n_threads: int | None = None,
) -> Any:
    """Return the empirical Fisher F = Σ w s sᵀ / Σ w of every item of a batch.

    Equivalent to ``np.einsum("bni,bnj->bij", scores, scores) / n``, or with weights
    ``np.einsum("bn,bni,bnj->bij", weights, scores, scores) / weights.sum(-1)[:, None, None]``.

    Parameters
    ----------
    scores : array (B, n, p), float64 or float32
        n score vectors of each item; any strides.
    weights : array (B, n) or (n,), optional
        Finite, not negative, not all zero in any item.
    center : bool
        Subtract each item's (weighted) mean score.
    reduction : {"mean", "sum"}
        Divide by Σw (n without weights), or not.
    dtype : dtype, optional
        To sum and return in, no narrower than the scores; default theirs.
    n_threads : int, optional
        For this call; the result has the same bits for any number.

    Returns
    -------
    array (B, p, p), symmetric
        Scores that are not finite, or overflow, pass into their own item, where `solve` finds them.

    Raises
    ------
    MemoryLimitError
        If B p² numbers will not fit.
    TypeError, ValueError
        For arguments of the wrong kind or shape, or a mean over no samples.

    Notes
    -----
    n p² multiplications per item, on eight float64 items (AVX-512) at a time.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> ff.batch.empirical_fisher(np.array([[[1.0, 2.0], [3.0, 0.0]]]))
    array([[[5., 1.],
            [1., 2.]]])
    """
    ops = batch_of(scores)
    array: Array = ops.to_array("scores", scores)
    if array.ndim != 3 or array.shape[2] == 0:
        raise ValueError(
            f"scores: expected shape (B, n, p) with p ≥ 1, got {array.shape}. "
            "A single item is scores[None]."
        )
    count, n, p = array.shape
    mean = _check.reduction(reduction) == "mean"
    if mean and n == 0:
        raise ValueError(
            f"scores: expected at least one sample, got shape {array.shape}. "
            "The mean over no samples is not defined; reduction='sum' gives zeros."
        )
    if dtype is not None:
        array = array.astype(_check.accumulation_dtype(dtype, array.dtype), copy=False)
    w = None if weights is None else _weights(ops, weights, count, n, array.dtype)
    _memory.guard(
        count * p * p * array.itemsize, "batch.empirical_fisher", "Split the batch.", ops_of(array)
    )
    return ops.fisher(array, w, _check.flag("center", center), mean, _check.threads(n_threads))


def _weights(ops: Any, weights: Any, count: int, n: int, dtype: np.dtype[Any]) -> Array:
    array: Array = ops.to_vector("weights", weights, dtype)
    if array.shape not in ((n,), (count, n)):
        raise ValueError(
            f"weights: expected shape ({n},) or ({count}, {n}), got {array.shape}. "
            "Weights are given per sample, for all items or for each."
        )
    good = (array >= 0.0) & ops.xp.isfinite(array)
    if not good.all():
        place = tuple(int(i) for i in ops.xp.argwhere(~good)[0])
        raise ValueError(
            f"weights: expected finite numbers that are not negative, got {array[place]} at "
            f"{place}. Give 0 to leave a sample out."
        )
    if n and not array.any(axis=-1).all():
        raise ValueError(
            "weights: expected at least one that is positive in each item, got all zero. "
            "There is nothing to average."
        )
    every: Array = ops.xp.broadcast_to(array, (count, n))
    return every
