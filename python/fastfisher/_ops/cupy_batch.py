"""The verbs of batches for CuPy: kernels with one matrix in each thread, or in each warp."""

from typing import Any

import cupy
import numpy as np

from fastfisher._ops import cupy_kernels as kernels
from fastfisher._ops import cupy_ops
from fastfisher._ops.numpy_batch import Job
from fastfisher._ops.types import Array

__all__ = ["extended", "factored", "fisher", "policies", "to_array", "to_vector", "xp"]

xp: Any = cupy
# pinv needs the eigenvalues of some items only.
policies = ("raise", "nan", "shift")
JOBS = ("solve", "inverse", "inverse_diagonal", "logdet")  # as ``batch.cu`` numbers them
# Rows of the largest matrix that one thread holds in its registers.
UNROLLED = 8
# Threads of a block that hold a matrix each, and the most warps that do.
THREADS, WARPS = 64, 8
# Of CUDA: shared memory that a block may have unasked.
SHARED_BYTES = 48 * 1024
# Workspace of matrices past that, all together.
WORKSPACE_BYTES = 2**28


def to_array(name: str, value: Any) -> Array:
    """Return `value` as a float64 or float32 array of CuPy's, all that batches take."""
    if isinstance(value, cupy.ndarray) and value.dtype.char not in "df":
        raise TypeError(
            f"{name}: expected float64 or float32, got {value.dtype.name}. "
            "Convert real numbers of other dtypes; complex matrices go to ff.solve one by one."
        )
    return cupy_ops.to_array(name, value)


def to_vector(name: str, value: Any, dtype: "np.dtype[Any]") -> Array:
    """Return numbers as an array of `dtype`; a single one may stay on the host."""
    return cupy_ops.to_vector(name, value, dtype)


def factored(
    job: Job,
    F: Array,
    shift: Array,
    rhs: Array | None,
    threads: int,  # noqa: ARG001
) -> tuple[Array, Array, Array]:
    """Return the answers, status and rcond; `shift` is (B, p), `rhs` only `solve` has."""
    count, p = F.shape[:2]
    status = cupy.empty(count, dtype=np.int8)
    rcond = cupy.empty(count, dtype=F.dtype)
    k = 0
    if rhs is not None:
        columns = rhs if rhs.ndim == 3 else rhs[:, :, None]
        k, value = columns.shape[2], cupy.empty(rhs.shape, dtype=F.dtype)
        right = (columns, *_apart(columns))
    else:
        shape = {"inverse": F.shape, "inverse_diagonal": (count, p), "logdet": (count,)}[job]
        value, right = cupy.empty(shape, dtype=F.dtype), (None, 0, 0, 0)
    if count:
        given = (F, *_apart(F), shift, *_apart(shift), *right)
        after = (np.int32(k), count, value, status, rcond)
        number, kind = JOBS.index(job), kernels.TYPES[F.dtype.name]
        if p <= UNROLLED:
            kernels.launch(
                "batch.cu",
                f"batch_thread<{kind}, {p}, {number}>",
                (-(-count // THREADS), 1),
                THREADS,
                *given,
                *after,
                shared=THREADS * (p * p | 1) * F.itemsize,
            )
        else:
            # The matrix with rows an odd number apart, and five vectors.
            numbers = p * (p | 1) + 5 * p
            size = numbers * F.itemsize
            warps, shared, workspace = min(SHARED_BYTES // size, WARPS), 0, None
            if warps:
                blocks, shared = -(-count // warps), warps * size
            else:
                warps, blocks = 1, min(count, max(WORKSPACE_BYTES // size, 1))
                workspace = cupy.empty(blocks * numbers, dtype=F.dtype)
            kernels.launch(
                "batch.cu",
                f"batch_warp<{kind}, {number}>",
                (blocks, 1),
                32 * warps,
                *given,
                np.int32(p),
                *after,
                numbers,
                workspace,
                shared=shared,
            )
    return value, status, rcond


def _apart(array: Array) -> tuple[int, ...]:
    """Return how many numbers apart entries along each axis lie."""
    return tuple(step // array.itemsize for step in array.strides)


def fisher(scores: Array, weights: Array | None, center: bool, mean: bool, threads: int) -> Array:  # noqa: ARG001
    """Return Σ w (s − m)(s − m)ᵀ of each item, over Σ w if `mean`; weights are (B, n)."""
    count, n, p = scores.shape
    if n == 0:
        return cupy.zeros((count, p, p), dtype=scores.dtype)
    total: Any = n if weights is None else weights.sum(axis=1)[:, None, None]
    if center:
        weighed = scores if weights is None else scores * weights[:, :, None]
        scores = scores - weighed.sum(axis=1, keepdims=True) / total
    rows = scores if weights is None else scores * cupy.sqrt(weights)[:, :, None]
    lower = cupy.tril(cupy.matmul(rows.swapaxes(1, 2), rows))
    if mean:
        lower /= total
    return lower + cupy.tril(lower, -1).swapaxes(1, 2)


def extended(*_: Any) -> Any:
    """Raise: double-double arithmetic is the host's."""
    raise ValueError(
        "precision: expected 'double' for CuPy arrays, got 'extended'. "
        "Pass cupy.asnumpy(F): double-double arithmetic is done on the host."
    )
