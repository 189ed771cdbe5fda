"""Pooled scores: rows Y, sums of scores that belong together, with Cov(Σ sᵢ) = Σ c YᵀY.

Whatever the dependence between samples, the covariance of their total score is estimated by a few
such terms: the scores themselves where samples are independent, one sum per cluster, one per pair
of clusters (Cameron, Gelbach and Miller's inclusion and exclusion), one per window of a series.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops import on_host, ops_of
from fastfisher.fisher.streaming import CHUNK

__all__ = ["Term", "one_block", "real_scores", "terms"]

# Bytes of the rows made at a time. Measured for p = 50 and 50 … 200 000 clusters of 400 000
# samples: 1 to 2 MiB take the least time, 8 MiB 1.1 to 1.5 of it.
_BLOCK = 2 * 2**20
# But no fewer rows than the engine packs at a time, since a dense target is read once per block.
_LEAST_ROWS = 512

KERNELS = ("bartlett", "parzen", "uniform")
CORRECTIONS = ("none", "CR1")


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One c YᵀY: the number c, and what gives the rows of Y in blocks, with weights or None."""

    coefficient: float
    blocks: Callable[[], Iterator[tuple[Any, Any]]]


def real_scores(scores: Any) -> Any:
    """Return real scores (n, p) of at least one sample."""
    S = _check.scores(ops_of(scores), scores)
    _check.has_rows(S)
    if S.dtype.kind == "c":
        raise TypeError(
            f"scores: expected real numbers, got {S.dtype}. "
            "Give a complex parameter as its real and its imaginary part."
        )
    return S


def one_block(width: int) -> int:
    """Return how many rows of `width` numbers are made at a time."""
    row = 8 * width
    return max(1, min(CHUNK, max(_BLOCK, _LEAST_ROWS * row)) // row)


def terms(
    S: Any, weights: Any, clusters: Any, lags: int | None, kernel: str, correction: str
) -> list[Term]:
    """Return the terms whose sum is the covariance of the total score."""
    if kernel not in KERNELS:
        raise ValueError(
            f"kernel: expected one of {', '.join(KERNELS)}, got {kernel!r}. "
            "'bartlett' is that of Newey and West."
        )
    if correction not in CORRECTIONS:
        raise ValueError(
            f"correction: expected 'none' or 'CR1', got {correction!r}. "
            "Without clusters 'CR1' is what is known as HC1."
        )
    samples, params = S.shape
    if clusters is not None or lags is not None:
        on_host("scores", S)
    w, total = _check.weights(ops_of(S), weights, samples, np.dtype(np.float64))
    if correction == "CR1" and total <= params:
        raise ValueError(
            f"correction: expected more samples than the {params} parameters for 'CR1', got "
            f"{total:g}. It divides by the difference: use 'none', or more samples."
        )
    freedom = total - params if correction == "CR1" else 0.0
    if clusters is not None and lags is not None:
        raise ValueError(
            "lags: expected None beside clusters, got both. "
            "A series in each cluster is not served: samples are dependent within one or the other."
        )
    if clusters is not None:
        return _of_clusters(S, w, total, clusters, freedom)
    factor = total / freedom if freedom else 1.0
    if lags is None:
        return [Term(factor, lambda: iter([(S, w)]))]
    if w is not None:
        raise ValueError(
            "weights: expected None beside lags, got an array. "
            "A sample that counts several times has no place in a series."
        )
    windows = _windows(_check.count("lags", lags, 0, samples - 1), kernel)
    return [_of_windows(S, factor * c, length) for length, c in windows.items()]


# ---- clusters ----
def _of_clusters(S: Any, w: Any, total: float, clusters: Any, freedom: float) -> list[Term]:
    """Return a term for the clusters; of two ways one for each, less one for both at once."""
    if not (isinstance(clusters, tuple) and len(clusters) == 2 and np.ndim(clusters[0]) == 1):
        array = np.asanyarray(clusters)
        two = array.ndim == 2 and array.shape[1] == 2
        clusters = tuple(array.T) if two else (array,)
    ways = [_numbered(labels, S.shape[0]) for labels in clusters]
    if len(ways) == 2:
        ways.append(_numbered(ways[0] * (ways[1].max() + 1) + ways[1], S.shape[0]))
    signs = (1.0, 1.0, -1.0)
    return [
        _of_one_way(S, w, total, labels, freedom, sign)
        for labels, sign in zip(ways, signs, strict=False)
    ]


def _numbered(labels: Any, samples: int) -> Any:
    """Return labels as numbers 0, 1, …, in the order of the labels."""
    if isinstance(labels, np.ma.MaskedArray):
        raise TypeError(
            "clusters: expected plain arrays, got a masked one. "
            "Its mask would be ignored: leave those samples out."
        )
    labels = np.asarray(labels)
    if labels.shape != (samples,):
        raise ValueError(
            f"clusters: expected shape ({samples},), one label per sample, got {labels.shape}. "
            "Two ways of clustering are a tuple of two arrays, or an array (n, 2)."
        )
    if labels.dtype.kind in "biu" and np.can_cast(labels.dtype, np.int64):
        number = labels.astype(np.int64)
        least, most = int(number.min()), int(number.max())
        if most - least < 4 * samples:  # counted: sorting takes ten times as long
            number -= least
            return (np.cumsum(np.bincount(number) > 0) - 1)[number]
    try:
        missing = np.asarray(labels != labels, bool)  # NaN and NaT are equal to nothing
        if labels.dtype.kind == "O":
            missing |= np.array([label is None for label in labels])
        if missing.any():
            place = int(missing.argmax())
            raise ValueError(
                f"clusters: expected a label for every sample, got {labels[place]} at index "
                f"{place}. Leave those samples out, or give each a label of its own."
            )
        return np.unique(labels, return_inverse=True)[1]
    except TypeError:
        raise TypeError(
            "clusters: expected labels that can be sorted, got some that cannot. "
            "Give numbers or strings, not both, and leave out what is missing."
        ) from None


def _of_one_way(S: Any, w: Any, total: float, labels: Any, freedom: float, sign: float) -> Term:
    """Return ± c YᵀY with one row of Y for each cluster; c = G/(G − 1) · (n − 1)/(n − p)."""
    count = np.count_nonzero(np.bincount(labels if w is None else labels[w > 0]))
    if count < 2:
        raise ValueError(
            f"clusters: expected at least 2 different labels, got {count}. "
            "The scores of a single cluster sum to the gradient, which is zero at an estimate."
        )
    factor = count / (count - 1) * (total - 1) / freedom if freedom else 1.0
    return Term(sign * factor, lambda: _cluster_sums(S, w, labels))


def _cluster_sums(S: Any, w: Any, labels: Any) -> Iterator[tuple[Any, Any]]:
    """Give Σ w s of each cluster, one after the other, from samples in the order of their labels.

    A cluster may lie in several blocks: the last sum of a block is held back until it is complete.
    """
    step = one_block(S.shape[1])
    order = _order(labels)
    last, held = -1, np.empty((0, S.shape[1]))
    for start in range(0, S.shape[0], step):
        block = order[start : start + step]
        rows, mine = S[block].astype(np.float64, copy=False), labels[block]
        if w is not None:
            rows *= w[block, None]
        sums = np.add.reduceat(rows, np.flatnonzero(np.diff(mine, prepend=-1)), axis=0)
        if mine[0] == last:
            sums[0] += held[0]
        else:
            sums = np.concatenate([held, sums])
        last, held = mine[-1], sums[-1:]
        yield sums[:-1], None
    yield held, None


def _order(labels: Any) -> Any:
    """Return the stable order of labels below 2³².

    Numbers of 16 bits are sorted by radix, twice in less than half the time of 64 bits once.
    """
    order = np.argsort(labels.astype(np.uint16), kind="stable")
    if labels.max() < 2**16:
        return order
    return order[np.argsort((labels >> 16).astype(np.uint16)[order], kind="stable")]


# ---- series ----
def _windows(lags: int, kernel: str) -> dict[int, float]:
    """Return the lengths m of windows and their coefficients c.

    The sums over all windows of m samples have YᵀY = Σ_d (m − |d|)₊ Γ_d, Γ_d the sum of products
    of scores d apart. So a kernel is a combination of them, c_m its second difference at m: one
    length for Bartlett's 1 − d/(L + 1), two for the uniform one, L + 1 for Parzen's.
    """
    if kernel == "bartlett":
        return {lags + 1: 1 / (lags + 1)}
    if kernel == "uniform":
        return {lags + 1: 1.0, lags: -1.0} if lags else {1: 1.0}
    z = np.arange(lags + 3) / (lags + 1)
    w = np.where(z <= 0.5, 1 - 6 * z**2 * (1 - z), 2 * np.maximum(1 - z, 0) ** 3)
    return {m: float(w[m - 1] - 2 * w[m] + w[m + 1]) for m in range(1, lags + 2)}


def _of_windows(S: Any, coefficient: float, length: int) -> Term:
    """Return c YᵀY with one row of Y for each window, also those that reach beyond the series."""

    def blocks() -> Iterator[tuple[Any, Any]]:
        samples, params = S.shape
        step = max(one_block(params), length)
        for start in range(1 - length, samples, step):
            stop = min(start + step, samples) + length - 1
            rows = np.zeros((stop - start, params))
            inside = slice(max(start, 0), min(stop, samples))
            rows[inside.start - start : inside.stop - start] = S[inside]
            yield _moving_sums(rows, length), None

    return Term(coefficient, blocks)


def _moving_sums(rows: Any, length: int) -> Any:
    """Return the sums of `length` consecutive rows, by sums of 1, 2, 4, … of them.

    Nothing is subtracted, so no sum has an error larger than log₂(length) roundings of its terms.
    """
    count = rows.shape[0] - length + 1
    out, begun, span = 0.0, 0, 1  # so far, out[t] is the sum of rows t … t + begun − 1
    while True:
        if length & span:
            out = out + rows[begun : begun + count]
            begun += span
        if begun == length:
            return out
        rows = rows[:-span] + rows[span:]
        span *= 2
