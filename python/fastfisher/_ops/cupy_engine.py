"""The CuPy engine: cuBLAS, cuSOLVER and kernels of our own where array expressions are slower."""

from typing import Any

import cupy
import cupyx
import numpy as np
from cupy_backends.cuda.libs import cublas, cusolver

from fastfisher import _check
from fastfisher._ops import cupy_kernels as kernels
from fastfisher._ops.array_engine import CHUNK_BYTES, ArrayEngine, blocks
from fastfisher._ops.conjugates import adjoint_of
from fastfisher._ops.cupy_batches import LETTERS, CupyBatches
from fastfisher._ops.types import Array, DType

__all__ = ["CupyEngine"]

# Scores that are read twice at a time where a row does not fit in registers: the second reading
# finds them in the L2 cache (40 MB on an A100, 50 MB on an H100).
SLAB_BYTES = 2**24
# Rows of the blocks that a product with a symmetric matrix takes, for cuBLAS's symm is not in CuPy.
BLOCK = 1024
# The cudaDataType_t, and the cublasComputeType_t to sum in.
DATA = {"float32": 0, "float64": 1, "float16": 2, "complex64": 4, "complex128": 5, "bfloat16": 14}
# Without TensorFloat-32: results in float32 are float32's.
COMPUTE = {"float32": 68, "complex64": 68, "float64": 70, "complex128": 70}
UPPER, LEFT, NON_UNIT, GEMM_DEFAULT = 1, 0, 0, -1
N, T, C = 0, 1, 2


class CupyEngine(CupyBatches, ArrayEngine):
    """The primitives of `Engine` for CuPy arrays, on the current stream of the current device.

    Libraries count columns first, so they see the transposes of our arrays: a lower triangle as
    the upper one.
    """

    name = "CuPy"
    xp: Any = cupy
    ndarray = cupy.ndarray

    # ---- places ----
    def here(self) -> str:
        """Return the name of the current device."""
        return f"CUDA device {cupy.cuda.Device().id}"

    def where(self, array: Array) -> str:
        """Return the name of the device that holds `array`."""
        return f"CUDA device {array.device.id}"

    def free_bytes(self) -> int | None:
        """Return what the device has left and what CuPy's pool holds unused."""
        free, _ = cupy.cuda.runtime.memGetInfo()
        return int(free) + int(cupy.get_default_memory_pool().free_bytes())

    def to_host(self, array: Array) -> "np.ndarray[Any, DType]":
        """Copy an array to the host."""
        return cupy.asnumpy(array)  # type: ignore[no-any-return]

    # ---- one pass over scores (n, p) ----
    def prepared(
        self, scores: Array, root: Array | None, mean: Array | None, dtype: DType
    ) -> Array:
        """Return √w (s − m) in `dtype`; the scores themselves where nothing is to be done."""
        if root is None and mean is None and scores.dtype == dtype:
            return scores
        if dtype.kind != "c":
            return kernels.prepare(scores, root, mean, dtype)
        if not scores.flags.c_contiguous:
            return super().prepared(scores, root, mean, dtype)
        pairs = kernels.prepare(
            kernels.real_view(scores.astype(dtype, copy=False)),
            root,
            _pairs(mean),
            _check.real_of(dtype),
        )
        return pairs.view(dtype)

    def first_bad(self, array: Array) -> tuple[int, int, float]:
        """Return row, column and value of the first entry that is not finite, row -1 for none."""
        numbers = kernels.real_view(array)
        place = int(kernels.first_bad(numbers)[0])
        if place >= numbers.size:
            return -1, -1, 0.0
        row, column = divmod(place, numbers.shape[1])
        column = column * array.shape[1] // numbers.shape[1]
        return row, column, array[row, column].item()

    def column_sums(self, scores: Array, weights: Array | None, dtype: DType) -> Array:
        """Return Σ w s, (p,)."""
        real = _check.real_of(dtype)
        pairs = kernels.real_view(scores)
        sums = kernels.column_sums(pairs, weights, None, real, squares=False)
        return sums.view(dtype) if scores.dtype.kind == "c" else sums.astype(dtype, copy=False)

    def square_sums(
        self, scores: Array, weights: Array | None, mean: Array | None, dtype: DType
    ) -> Array:
        """Return Σ w |s − m|², (p,), of the real dtype that belongs to `dtype`."""
        pairs, real = kernels.real_view(scores), _check.real_of(dtype)
        sums = kernels.column_sums(pairs, weights, _pairs(mean), real, squares=True)
        return sums if pairs.shape == scores.shape else sums.reshape(-1, 2).sum(axis=1)

    def fvp(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        V: Array,
        scale: float,
        damping: float,
    ) -> Array:
        """Return scale · Σ w (s − m)* (s − m)ᵀ V + damping · V for V of shape (p, k)."""
        if V.dtype.kind == "c":
            if scores.dtype.kind == "c" and 2 * V.shape[1] <= kernels.FVP_COLUMNS:
                out = self._complex_fvp(scores, weights, mean, V, scale)
                if out is not None:
                    return out + damping * V if damping else out
        else:
            out = kernels.fvp(scores, weights, mean, V, scale, damping)
            if out is not None:
                return out
        return self._fvp_of_slabs(scores, weights, mean, V, scale, damping)

    def _complex_fvp(
        self, scores: Array, weights: Array | None, mean: Array | None, V: Array, scale: float
    ) -> Array | None:
        """Return scale · Σ w s* sᵀ V from real products, or None where they do not fit.

        With rows r = (a₀, b₀, a₁, b₁, …) of s = a + ib and v = c + id, Re sᵀv = r·(c₀, −d₀, …) and
        Im sᵀv = r·(d₀, c₀, …) = r·y are two columns of a real product. What that adds up to, with
        r r·x = (Σ a t, Σ b t, …) for t = Re sᵀv and the same for u = Im sᵀv, is s*(t + iu):
        Re = Σ a t + Σ b u and Im = Σ a u − Σ b t.
        """
        p, k = V.shape
        real = _check.real_of(V.dtype)
        X = cupy.empty((p, 2, 2, k), dtype=real)
        X[:, 0, 0], X[:, 1, 0] = V.real, -V.imag
        X[:, 0, 1], X[:, 1, 1] = V.imag, V.real
        pairs, X = kernels.real_view(scores), X.reshape(2 * p, 2 * k)
        Y = kernels.fvp(pairs, weights, _pairs(mean), X, scale, 0.0)
        if Y is None:
            return None
        Y = Y.reshape(p, 2, 2, k)
        out = cupy.empty((p, k), dtype=V.dtype)
        out.real = Y[:, 0, 0] + Y[:, 1, 1]
        out.imag = Y[:, 0, 1] - Y[:, 1, 0]
        return out

    def _fvp_of_slabs(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        V: Array,
        scale: float,
        damping: float,
    ) -> Array:
        """Do the same with two products of each slab, the second of which finds it in the cache."""
        samples, params = scores.shape
        out = cupy.zeros(V.shape, dtype=V.dtype)
        for part in blocks(samples, max(SLAB_BYTES // (max(params, 1) * V.dtype.itemsize), 64)):
            rows = self.prepared(scores[part], None, mean, V.dtype)
            Y = self.product(rows, V)
            if weights is not None:
                Y *= weights[part, None]
            out += self.product(adjoint_of(rows), Y)
        out *= scale
        if damping:
            out += damping * V
        return out

    # ---- symmetric and Hermitian matrices ----
    def add_scores(
        self, lower: Array, scores: Array, weights: Array | None, mean: Array | None
    ) -> None:
        """Add Σ w (s − m)* (s − m)ᵀ to the lower triangle (p, p); no n × p temporary."""
        if weights is None and mean is None and _takes(scores, lower):
            self.rank_update(lower, scores)
        else:
            super().add_scores(lower, scores, weights, mean)

    def add_gram(
        self, lower: Array, scores: Array, weights: Array | None, mean: Array | None
    ) -> None:
        """Add W½ (S − 1mᵀ)(S − 1mᵀ)ᴴ W½ to the lower triangle (n, n); no n × p temporary."""
        if weights is None and mean is None and _takes(scores, lower):
            self.rank_update(lower, scores, outer=True)
        else:
            super().add_gram(lower, scores, weights, mean)

    def rank_update(self, lower: Array, X: Array, *, outer: bool = False) -> None:
        """Add Xᴴ X, or X Xᴴ if `outer`, to the lower triangle: syrk, or what stands in for it.

        CuPy has no herk, and cuBLAS no syrk that sums halves in float32: blocks of rows of the
        lower triangle are general products, one sixteenth more than half of all.
        """
        if X.size == 0:
            return
        size = len(lower)
        samples = X.shape[1 if outer else 0]
        X, step, turned = _by_columns(X)
        if turned and X.dtype.kind == "c":
            # Xᵀ conj(X) is what the library would have to form: it conjugates no factor alone.
            self._update_by_copies(lower, X, outer)
            return
        # What the library sees is Xᵀ, or X itself where columns lie together.
        plain = turned == outer
        one = np.ones(1, lower.dtype)
        handle = _cublas()
        if X.dtype == lower.dtype and lower.dtype.kind != "c":
            syrk = getattr(cublas, LETTERS[lower.dtype.name] + "syrk")
            syrk(
                handle, UPPER, N if plain else T, size, samples,
                one.ctypes.data, X.data.ptr, step, one.ctypes.data, lower.data.ptr, size,
            )  # fmt: skip
            return
        adjoint = C if lower.dtype.kind == "c" else T
        apart = (1 if plain else step) * X.itemsize
        kind, sums = DATA[X.dtype.name], lower.dtype.name
        for part in blocks(size, max(-(-size // 16 // 128) * 128, 256)):
            cublas.gemmEx(
                handle, N if plain else adjoint, adjoint if plain else N,
                part.stop, part.stop - part.start, samples,
                one.ctypes.data, X.data.ptr, kind, step,
                X.data.ptr + part.start * apart, kind, step,
                one.ctypes.data, lower.data.ptr + part.start * size * lower.itemsize,
                DATA[sums], size, COMPUTE[sums], GEMM_DEFAULT,
            )  # fmt: skip

    def _update_by_copies(self, lower: Array, X: Array, outer: bool) -> None:
        """Add the same from copies of some samples at a time, row by row."""
        samples, width = (X.shape[1], X.shape[0]) if outer else X.shape
        for part in blocks(samples, max(CHUNK_BYTES // (width * X.itemsize), 1)):
            some = X[:, part] if outer else X[part]
            self.rank_update(lower, cupy.ascontiguousarray(some), outer=outer)

    def symmetric_product(self, lower: Array, V: Array) -> Array:
        """Return A V for V of shape (p, k)."""
        out = cupy.zeros(V.shape, dtype=V.dtype)
        for part in blocks(len(lower), BLOCK):
            left, corner = lower[part, : part.start], lower[part, part]
            full = cupy.empty(corner.shape, dtype=corner.dtype)
            kernels.mirror(cupy.ascontiguousarray(corner), 1.0, full)
            out[part] += self.product(full, V[part])
            if part.start:
                out[part] += self.product(left, V[: part.start])
                out[: part.start] += self.product(adjoint_of(left), V[part])
        return out

    def mirror(self, lower: Array, scale: float, out: Array) -> None:
        """Write scale · A to `out`, both triangles."""
        kernels.mirror(lower, scale, out)

    def cholesky(self, lower: Array) -> Array:
        """Factor in place, A = L Lᴴ; return j + 1 for the first pivot j that is not positive.

        The library's Uᴴ U of the transposed array, by potrf: U = Lᵀ.
        """
        size = len(lower)
        info = cupy.zeros(1, dtype=np.int32)
        if size:
            handle = cupy.cuda.device.get_cusolver_handle()
            letter = LETTERS[lower.dtype.name]
            room = getattr(cusolver, f"{letter}potrf_bufferSize")
            length = room(handle, UPPER, size, lower.data.ptr, size)
            work = cupy.empty(length, dtype=lower.dtype)
            potrf = getattr(cusolver, f"{letter}potrf")
            potrf(
                handle, UPPER, size, lower.data.ptr, size,
                work.data.ptr, length, info.data.ptr,
            )  # fmt: skip
        return info.reshape(())

    def triangular_solve(self, lower: Array, B: Array, *, adjoint: bool = False) -> Array:
        """Return L⁻¹ B, or L⁻ᴴ B, for B of shape (p, k), by trsm with U = Lᵀ."""
        size, k = B.shape
        X = cupy.array(B, order="F")
        if X.size:
            # L⁻ᴴ = conj(U)⁻¹, which cuBLAS has for conj(B) only.
            turned = adjoint and X.dtype.kind == "c"
            X = cupy.array(X.conj(), order="F") if turned else X
            one = np.ones(1, X.dtype)
            trsm = getattr(cublas, LETTERS[X.dtype.name] + "trsm")
            trsm(
                _cublas(), LEFT, UPPER, N if adjoint else T, NON_UNIT, size, k,
                one.ctypes.data, lower.data.ptr, size, X.data.ptr, size,
            )  # fmt: skip
            X = X.conj() if turned else X
        return cupy.ascontiguousarray(X)

    def eigh(self, matrix: Array) -> tuple[Array, Array]:
        """Return eigenvalues, ascending, and eigenvectors; the lower triangle is read."""
        with cupyx.errstate(linalg="raise"):
            values, vectors = cupy.linalg.eigh(matrix, UPLO="L")
        return values, vectors


def _cublas() -> int:
    """Return the handle of the current device, which reads its scalars on the host."""
    handle = cupy.cuda.device.get_cublas_handle()
    cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)
    return int(handle)


def _pairs(mean: Array | None) -> Array | None:
    """Return the numbers of a mean (p,), Re and Im of a complex one beside each other."""
    return None if mean is None else kernels.real_view(mean.reshape(1, -1)).reshape(-1)


def _takes(scores: Array, lower: Array) -> bool:
    """Tell whether cuBLAS sums these scores as they are: their own dtype, or halves in float32."""
    return scores.dtype == lower.dtype or (
        _check.is_half(scores.dtype) and lower.dtype == np.float32
    )


def _by_columns(X: Array) -> tuple[Array, int, bool]:
    """Return X as a library takes it, the step between its lines, and whether those are columns.

    A copy, if neither rows nor columns have their numbers side by side.
    """
    row, col = (step // X.itemsize for step in X.strides)
    rows, columns = X.shape
    if (col == 1 or columns == 1) and row >= columns:
        return X, row, False
    if (row == 1 or rows == 1) and col >= rows:
        return X, col, True
    return cupy.ascontiguousarray(X), columns, False
