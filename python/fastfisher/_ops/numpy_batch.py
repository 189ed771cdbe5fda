"""The verbs of batches for NumPy, each one call into the native core."""

from typing import Any, Literal

import numpy as np

from fastfisher._native import core
from fastfisher._ops import ops_of
from fastfisher._ops.numpy_ops import as_numpy
from fastfisher._ops.types import NumpyArray as Array

__all__ = ["Job", "extended", "factored", "fisher", "policies", "to_array", "to_vector", "xp"]

xp = np
# What may become of items that are not positive definite.
policies = ("raise", "nan", "shift", "pinv")
# What is asked of every F + diag(shift).
Job = Literal["solve", "inverse", "inverse_diagonal", "logdet"]


def to_array(name: str, value: Any) -> Array:
    """Return `value` as an aligned array of native float64 or float32, all that batches take."""
    ops = ops_of(value)
    given = np.asanyarray(as_numpy(name, value))
    if given.dtype.char not in "df":
        raise TypeError(
            f"{name}: expected float64 or float32, got {given.dtype.name}. "
            "Convert real numbers of other dtypes; complex matrices go to ff.solve one by one."
        )
    array: Array = ops.to_array(name, given)
    return array


def to_vector(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """Return numbers as an array of `dtype`."""
    array: Array = ops_of(value).to_vector(name, value, dtype)
    return array


def _notes(F: Array) -> tuple[Array, Array]:
    return np.empty(F.shape[0], np.int8), np.empty(F.shape[0], F.dtype)


def factored(
    job: Job, F: Array, shift: Array, rhs: Array | None, threads: int
) -> tuple[Array, Array, Array]:
    """Return the answers, status and rcond; `shift` is (B, p), `rhs` only `solve` has."""
    status, rcond = _notes(F)
    damping = shift[:, :, None]
    if rhs is not None:
        value = np.empty(rhs.shape, F.dtype)
        columns = rhs if rhs.ndim == 3 else rhs[:, :, None]
        core.batch_solve(F, damping, columns, value, status, rcond, threads)
    elif job == "inverse":
        value = np.empty(F.shape, F.dtype)
        core.batch_inverse(F, damping, value, status, rcond, threads)
    elif job == "inverse_diagonal":
        value = np.empty(F.shape[:2], F.dtype)
        core.batch_inverse_diagonal(F, damping, value, status, rcond, threads)
    else:
        value = np.empty(F.shape[:1], F.dtype)
        core.batch_logdet(F, damping, value, status, rcond, threads)
    return value, status, rcond


def fisher(scores: Array, weights: Array | None, center: bool, mean: bool, threads: int) -> Array:
    """Return Σ w (s − m)(s − m)ᵀ of each item, over Σ w if `mean`; weights are (B, n)."""
    count, _, p = scores.shape
    out = np.empty((count, p, p), scores.dtype)
    column = None if weights is None else weights[:, :, None]
    core.batch_fisher(scores, column, center, mean, out, threads)
    return out


def extended(
    matrix: Array,
    lo: Array | None,
    scores: bool,
    mean: bool,
    shift: Array,
    rhs: Array | None,
    threads: int,
) -> tuple[Array, Array, Array, Array]:
    """Return solution (or inverse, without rhs), status, rcond and bound in double-double."""
    count, p = shift.shape
    status, rcond = _notes(matrix)
    bound = np.empty(count)
    value = np.empty((count, p, p) if rhs is None else rhs.shape)
    columns = rhs if rhs is None or rhs.ndim == 3 else rhs[:, :, None]
    core.batch_extended(
        matrix, scores, mean, lo, shift[:, :, None], columns, value, status, rcond, bound, threads
    )
    return value, status, rcond, bound
