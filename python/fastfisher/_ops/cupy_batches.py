"""Many small matrices, patches and R of CuPy arrays, by the batches of cuSOLVER and cuBLAS."""

from typing import Any

import cupy
import numpy as np
from cupy_backends.cuda.libs import cublas, cusolver

from fastfisher._ops.conjugates import squares
from fastfisher._ops.types import Array, Pair

__all__ = ["LETTERS", "CupyBatches"]

# By which cuBLAS and cuSOLVER name their routines.
LETTERS = {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}
# Libraries count columns first, so they see the transposes of our arrays: L as the upper U = Lᵀ.
UPPER, RIGHT, NON_UNIT, PLAIN, ADJOINT = 1, 1, 0, 0, 2


class CupyBatches:
    """What `ArrayBatches` has, where CuPy's libraries do it better."""

    def cholesky_batch(self, lower: Array) -> Array:
        """Factor each (s, s) in place; return the pivots, (m, s), NaN after one that fails.

        By potrfBatched, whose status names the first that fails; what was left of it is recomputed
        from the row of the factor before it.
        """
        count, size, _ = lower.shape
        diagonal = lower.reshape(count, size * size)[:, :: size + 1]
        before = diagonal.real.copy()
        info = cupy.zeros(count, dtype=np.int32)
        if lower.size:
            pointers = _pointers(lower)
            potrf = getattr(cusolver, LETTERS[lower.dtype.name] + "potrfBatched")
            handle = cupy.cuda.device.get_cusolver_handle()
            potrf(handle, UPPER, size, pointers.data.ptr, size, info.data.ptr, count)
        j, failed = cupy.arange(size), info[:, None] - 1
        root = diagonal.real
        left = before - squares(cupy.tril(lower, k=-1)).sum(axis=2)
        pivots = cupy.where(j == failed, left, cupy.nan)
        return cupy.where((failed < 0) | (j < failed), root * root, pivots).astype(root.dtype)

    def triangular_solve_batch(self, lower: Array, B: Array, *, adjoint: bool = False) -> Array:
        """Return L⁻¹ B, or L⁻ᴴ B, of each of (m, s, s) and (m, s, k), by trsmBatched.

        It solves Xᵀ U = Bᵀ, or Xᵀ Uᴴ = Bᵀ.
        """
        X = B.copy(order="C")
        if X.size:
            count, size, k = X.shape
            lower = cupy.ascontiguousarray(lower)
            one = np.ones(1, X.dtype)
            factors, columns = _pointers(lower), _pointers(X)
            handle = cupy.cuda.device.get_cublas_handle()
            cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)
            trsm = getattr(cublas, LETTERS[X.dtype.name] + "trsmBatched")
            trsm(
                handle, RIGHT, UPPER, ADJOINT if adjoint else PLAIN, NON_UNIT, k, size,
                one.ctypes.data, factors.data.ptr, size, columns.data.ptr, k, count,
            )  # fmt: skip
        return X

    def triangular_root(self, X: Array) -> Array:
        """Return the R (p, p) of a QR factorisation of X (n, p), n ≥ p; signs are any."""
        return cupy.linalg.qr(X, mode="r")

    def patches(
        self,
        x: Array,
        kernel: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        grid: Pair,  # noqa: ARG002
    ) -> Array:
        """Return the patches of images (n, c, h, w), a view (n, down, across, c, kh, kw)."""
        if any(padding):
            x = cupy.pad(x, ((0, 0), (0, 0), *((pad, pad) for pad in padding)))
        reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
        windows: Any = cupy.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
        (sh, sw), (dh, dw) = stride, dilation
        return windows[:, :, ::sh, ::sw, ::dh, ::dw].transpose(0, 2, 3, 1, 4, 5)


def _pointers(stack: Array) -> Array:
    """Return where each matrix of a contiguous stack (m, …) begins, on the device."""
    return stack.data.ptr + stack.strides[0] * cupy.arange(len(stack), dtype=np.uint64)
