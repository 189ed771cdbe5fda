"""Finiteness on a device: whether a sum is spoilt, asked with one wait, and what spoilt it."""

import math

from fastfisher import _check
from fastfisher._ops.engine import Engine
from fastfisher._ops.types import Array, DType

__all__ = ["all_finite", "column_mean", "raise_if_bad", "raise_if_spoilt"]


def all_finite(engine: Engine, array: Array) -> bool:
    """Tell whether every number is finite; waits for the device."""
    xp = engine.xp
    return bool(engine.read(xp.all(xp.isfinite(array)).reshape(1))[0])


def raise_if_bad(engine: Engine, array: Array, name: str) -> None:
    """Name row, column and value of the first entry of a matrix that is not finite, if any."""
    if not all_finite(engine, array):
        row, column, value = engine.first_bad(array)
        _check.finite_report((2, row, column, value), name)


def raise_if_spoilt(engine: Engine, sums: Array, scores: Array, *, by_row: bool = False) -> None:
    """Name the place in the scores, or the column whose sum overflowed, if one is not finite.

    `sums` (p,) are of columns, or (n,) of rows, whose numbers are not told.
    """
    if all_finite(engine, sums):
        return
    raise_if_bad(engine, scores, "scores")
    column = -1 if by_row else engine.first_bad(sums.reshape(1, -1))[1]
    _check.finite_report((2, -1, column, math.inf), "scores")


def column_mean(
    engine: Engine, scores: Array, weights: Array | None, dtype: DType, check_finite: bool
) -> Array:
    """Return Σ w s / Σ w, (p,) of `dtype`; to check waits for the device."""
    sums = engine.column_sums(scores, weights, dtype)
    sums /= max(scores.shape[0], 1) if weights is None else weights.sum()
    if check_finite:
        raise_if_spoilt(engine, sums, scores)
    return sums
