"""The Fisher of scores on a Dask cluster: summed where they lie, joined in a fixed tree."""

import math
import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._native import get_num_threads
from fastfisher._ops.border import takes_tensors
from fastfisher.distributed.tree import add, finite, tree
from fastfisher.errors import NonFiniteError
from fastfisher.fisher.additive import Additive
from fastfisher.fisher.dense import DenseFisher
from fastfisher.fisher.layers import Conv2dLayer, LinearLayer

__all__ = ["empirical_fisher"]

# Weights of a block that are all below it are scaled to about 1. Above it the mean of as many as
# 2⁴³ of them, all but one of which are zero, is still one that float32 sums take (2⁻¹⁰³).
_TINY = 2.0**-60


@takes_tensors
def empirical_fisher(
    scores: Any,
    *,
    weights: Any = None,
    into: type[Additive] = DenseFisher,
    center: bool = False,
    reduction: str = "mean",
    dtype: Any = None,
    check_finite: bool = True,
    n_threads: int | None = None,
    client: Any = None,
    **structure: Any,
) -> Any:
    """Return the Fisher of scores in partitions, each one summed by a task where it lies.

    Equivalent to ``into.from_scores(scores.compute())``, to rounding, but that only sums travel.

    Parameters
    ----------
    scores : dask.array (n, p), or list of blocks
        The array is cut along its rows alone, all p columns in one chunk. A block is an array
        (n_i, p), or a ``Delayed`` or ``Future`` that gives one; for `KroneckerFisher` a list of
        layers.
    weights : array (n,), dask.array (n,) or list of blocks, optional
        Not negative; blocks where `scores` are blocks. Those of one may be tiny or all zero beside
        others: it then counts its samples, and adds little or nothing.
    into : class of accumulators
        `DenseFisher`, `DiagonalFisher`, `BlockDiagonalFisher`, `SquareRootFisher`, `LowRankFisher`
        or `KroneckerFisher`.
    center : bool
        Subtract the (weighted) mean score.
    reduction : {"mean", "sum"}
        Divide by Σw or not.
    dtype : dtype, optional
        To sum in; default that of the scores.
    check_finite : bool
        Raise on NaN and infinity, also where the partitions are finite and their sum overflows.
    n_threads : int, optional
        Of each task. Default: on a worker what its process may use, divided by the tasks that it
        runs at a time; without a cluster 1, since Dask has a thread for every core.
    client : distributed.Client, optional
        Default: the current one, or Dask's scheduler in this process.
    **structure
        What ``into.from_scores`` takes beside: ``rank=…``, ``block_sizes=…``, ``eigen=…``.

    Returns
    -------
    Fisher
        Of the class `into`, in this process.

    Raises
    ------
    NonFiniteError
        Names the row in its partition, and among all scores where the sizes of the chunks are
        known; `row` is the latter. None where no partition is to blame, but their sum overflows.
    ImportError
        Without Dask: install ``fastfisher[dask]``.
    TypeError, ValueError, MemoryLimitError
        As the accumulator does; a note on the error says which partition it was.

    Notes
    -----
    The tree of `merge_tree` over the partitions, in their order. So the bits depend on how the
    scores are cut, and not on the number of workers, on who summed what, or on a worker that was
    lost and whose partitions were summed again. `LowRankFisher` and EKFAC merge approximately, with
    the bounds that they document.

    m partitions take m − 1 merges, and a message is an accumulator: p²/2 numbers of a
    `DenseFisher`, p of a `DiagonalFisher`. Where each of w workers holds partitions that are
    neighbours, w of them are sent, the answer included; never more than m.

    Examples
    --------
    >>> import dask.array as da, fastfisher as ff
    >>> scores = da.random.default_rng(0).standard_normal((4000, 3), chunks=(1000, 3))
    >>> ff.distributed.empirical_fisher(scores, into=ff.DiagonalFisher)
    DiagonalFisher(n_params=3, dtype=float64, center=False, reduction='mean', n_samples=4000, \
weight_sum=4000)
    """
    if client is not None and getattr(client, "asynchronous", True):
        raise TypeError(
            f"client: expected a distributed.Client that waits, got {type(client).__name__}. "
            "Give Client(address), without asynchronous=True."
        )
    dask = _dask()
    build = _builder(into)
    keywords = {
        **structure,
        "center": _check.flag("center", center),
        "reduction": _check.reduction(reduction),
        "check_finite": _check.flag("check_finite", check_finite),
    }
    _check.threads(n_threads)
    if dtype is not None:
        keywords["dtype"] = _check.native_dtype("dtype", dtype)
    blocks, weight_blocks, starts = _partitions(dask, scores, weights, dtype)
    summed = dask.delayed(_summed, pure=False)
    parts = [
        summed(build, block, weight, place, start, n_threads, keywords)
        for place, (block, weight, start) in enumerate(
            zip(blocks, weight_blocks, starts, strict=True)
        )
    ]
    # `add` leaves both as they are: a task may be run again, and its inputs be wanted by another.
    total = tree(parts, dask.delayed(add, pure=False))
    fisher = total.compute() if client is None else client.compute(total).result()
    if fisher.n_samples:
        _check.weight_sum(fisher.weight_sum, fisher.n_samples, _check.real_of(fisher.dtype))
    return finite(fisher) if check_finite else fisher


def _dask() -> Any:
    """Return Dask, with its arrays."""
    try:
        import dask
        import dask.array
    except ImportError as error:
        raise ImportError(
            "dask: expected the package with its arrays, got none. Install fastfisher[dask]."
        ) from error
    return dask


def _builder(into: Any) -> Any:
    """Return what builds an accumulator of one block."""
    if not (isinstance(into, type) and issubclass(into, Additive)):
        raise TypeError(
            f"into: expected a class of accumulators, got {getattr(into, '__name__', into)!r}. "
            "What holds its scores does not merge: use DenseFisher, DiagonalFisher or another."
        )
    return getattr(into, "from_scores", None) or into.from_layers  # type: ignore[attr-defined]


# ---- in the calling process: what the partitions are ----
def _partitions(
    dask: Any, scores: Any, weights: Any, dtype: Any
) -> tuple[list[Any], list[Any], list[int | None]]:
    """Return blocks of scores, those of weights, and the first row of each if that is known."""
    if isinstance(scores, dask.array.Array):
        return _chunks(dask, scores, weights, dtype)
    if hasattr(scores, "shape") or not isinstance(scores, Iterable):
        raise TypeError(
            f"scores: expected a dask.array or a list of blocks, got {type(scores).__name__}. "
            "Of an array in memory make a Fisher with from_scores."
        )
    blocks = list(scores)
    if not blocks:
        raise ValueError("scores: expected at least one block, got none. There is nothing to sum.")
    starts: list[int | None] = [None] * len(blocks)
    if weights is None:
        return blocks, [None] * len(blocks), starts
    if not isinstance(weights, list | tuple) or len(weights) != len(blocks):
        raise ValueError(
            f"weights: expected a list of {len(blocks)} blocks, one for each of the scores, got "
            f"{len(weights) if isinstance(weights, list | tuple) else type(weights).__name__}. "
            "A block without weights has None."
        )
    return blocks, list(weights), starts


def _chunks(
    dask: Any, scores: Any, weights: Any, dtype: Any
) -> tuple[list[Any], list[Any], list[int | None]]:
    """Return the partitions of a dask.array."""
    if scores.ndim != 2:
        raise ValueError(
            f"scores: expected a 2-D array (n_samples, n_params), got shape {scores.shape}. "
            "Give one row per sample."
        )
    if scores.numblocks[1] != 1:
        raise ValueError(
            f"scores: expected all {scores.shape[1]} columns in one chunk, got "
            f"{scores.numblocks[1]} chunks of columns. Use scores.rechunk({{1: -1}})."
        )
    if not _check.is_half(scores.dtype):
        _check.native_dtype("scores", scores.dtype)
    _check.accumulation_dtype(dtype, scores.dtype)
    rows = scores.chunks[0]
    blocks = scores.to_delayed()[:, 0].tolist()
    known = not np.isnan(scores.shape[0])
    starts = [0, *accumulate(rows[:-1])] if known else [None] * len(rows)
    if weights is None:
        return blocks, [None] * len(blocks), starts
    if not isinstance(weights, dask.array.Array):
        weights = np.asarray(weights)
    if weights.ndim != 1 or (known and weights.shape != scores.shape[:1]):
        raise ValueError(
            f"weights: expected shape ({scores.shape[0]},), one per sample, got {weights.shape}. "
            "Weights are given per row of the scores."
        )
    if known:
        weights = dask.array.asarray(weights).rechunk((rows,))
    elif not (isinstance(weights, dask.array.Array) and weights.numblocks[0] == len(blocks)):
        raise ValueError(
            "weights: expected a dask.array cut as scores of unknown length are, got another. "
            "Compute both from the same partitions, or use scores.compute_chunk_sizes()."
        )
    return blocks, weights.to_delayed().tolist(), starts


# ---- in a task: what a worker does ----
def _summed(
    build: Any,
    block: Any,
    weights: Any,
    place: int,
    start: int | None,
    n_threads: int | None,
    keywords: dict[str, Any],
) -> Any:
    """Return the accumulator of one block."""
    keywords = {**keywords, "n_threads": n_threads or threads_of_a_task()}
    try:
        weights, kept = _scaled(weights)
        fisher = build(block if kept else _zeroed(block), weights=weights, **keywords)
        return fisher if kept == 1.0 else fisher.decay(kept)
    except NonFiniteError as error:
        if error.row is None:
            raise
        known = start is not None
        row = (start or 0) + error.row
        where = f"row {row} of all scores, in partition {place}" if known else f"partition {place}"
        raise NonFiniteError(
            f"{error} It is {where}.", row=row if known else None, column=error.column
        ) from None
    except Exception as error:
        error.add_note(f"scores: this is partition {place}.")
        raise


def _scaled(weights: Any) -> tuple[Any, float]:
    """Return weights that an accumulator takes, and the share of them that is to be kept.

    It refuses what is tiny or all zero, as if that were all that there is; here it is a part. The
    share is a power of two, so that scaling by it rounds nothing.
    """
    found = np.asarray(weights)
    numbers = found.dtype.kind in "fiub" and found.size > 0
    if not (numbers and 0.0 <= found.min() <= found.max() < _TINY):
        return weights, 1.0
    if not found.any():
        return np.ones_like(found), 0.0
    share = 2.0 ** (math.frexp(found.max())[1] - 1)
    return found / share, share


def _zeroed(block: Any) -> Any:
    """Return a block of zeros, NaN where it is not finite: what it weighs must not overflow."""
    if isinstance(block, list | tuple):
        return [_zeroed(layer) for layer in block]
    if isinstance(block, LinearLayer | Conv2dLayer):
        sides = {"inputs": _zeroed(block.inputs), "gradients": _zeroed(block.gradients)}
        return replace(block, **sides)
    with np.errstate(invalid="ignore"):
        return np.multiply(block, 0)


def threads_of_a_task() -> int:
    """Return how many threads a task may use, so that tasks × threads are no more than the cores.

    A worker runs `nthreads` tasks at a time, which share what its process may use (Dask starts its
    processes with OMP_NUM_THREADS=1). Without a cluster Dask has a thread for every core.
    """
    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            tasks: int = get_worker().state.nthreads
        except ValueError:  # no worker runs this
            return 1
        return max(1, get_num_threads() // tasks)
    return 1
