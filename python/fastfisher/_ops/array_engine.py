"""The plain engine: every primitive as array expressions, where a library has nothing better."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops.array_batches import ArrayBatches
from fastfisher._ops.conjugates import adjoint_of, squares
from fastfisher._ops.types import Array, DType

__all__ = ["ArrayEngine", "blocks"]

# Rows of the largest block of a matrix that is copied to be masked, or solved with as a whole.
BLOCK = 128
# Bytes of scores that are widened, centred and weighed at a time: more than the cache of any
# device, so that each product is a large one, and little beside the scores. Not yet measured.
CHUNK_BYTES = 2**26


class ArrayEngine(ArrayBatches):
    """The primitives of `Engine` by the functions of an array namespace.

    A library's own engine inherits this, says where its arrays live, and overrides what the
    library does better.
    """

    name: str
    xp: Any
    ndarray: type

    # ---- places: a library's own, but for one number at a time ----
    def here(self) -> str:
        """Return the name of the current device."""
        raise NotImplementedError

    def where(self, array: Array) -> str:
        """Return the name of the device that holds `array`."""
        return str(array.device)

    def free_bytes(self) -> int | None:
        """Return the bytes that can still be allocated; None, for it is unknown."""
        return None

    def read(self, numbers: Array) -> list[float]:
        """Wait for a few numbers (m,) and return them."""
        return [float(x) for x in numbers.tolist()]

    def to_host(self, array: Array) -> "np.ndarray[Any, DType]":
        """Copy an array to the host."""
        raise NotImplementedError

    def from_host(self, array: "np.ndarray[Any, DType]") -> Array:
        """Copy an array to the device."""
        return self.xp.asarray(array)

    # ---- one pass over scores (n, p) ----
    def prepared(
        self, scores: Array, root: Array | None, mean: Array | None, dtype: DType
    ) -> Array:
        """Return √w (s − m) in `dtype`; the scores themselves where nothing is to be done."""
        rows = scores if scores.dtype == dtype else scores.astype(dtype)
        if mean is not None:
            rows = rows - mean
        return rows if root is None else rows * root[:, None]

    def chunks(
        self, scores: Array, weights: Array | None, mean: Array | None, dtype: DType
    ) -> Iterator[tuple[slice, Array]]:
        """Yield rows of the scores, prepared, as many at a time as `CHUNK_BYTES` hold."""
        root = None if weights is None else self.xp.sqrt(weights)
        samples, params = scores.shape
        rows = max(CHUNK_BYTES // (params * dtype.itemsize), 1)
        if root is None and mean is None and scores.dtype == dtype:
            rows = samples
        for part in blocks(samples, rows):
            yield (
                part,
                self.prepared(scores[part], None if root is None else root[part], mean, dtype),
            )

    def row_blocks(self, rows: int, width: int, dtype: DType) -> Iterator[slice]:
        """Yield slices of rows, as many at a time as `CHUNK_BYTES` hold of this width."""
        return blocks(rows, max(CHUNK_BYTES // (max(width, 1) * dtype.itemsize), 1))

    def first_bad(self, array: Array) -> tuple[int, int, float]:
        """Return row, column and value of the first entry that is not finite, row -1 for none."""
        xp, columns = self.xp, array.shape[1]
        for part in blocks(array.shape[0], max(CHUNK_BYTES // (columns * array.dtype.itemsize), 1)):
            finite = xp.reshape(xp.isfinite(array[part]), (-1,))
            place = int(xp.argmin(xp.astype(finite, xp.int8)))
            row, column = part.start + place // columns, place % columns
            if not bool(finite[place]):
                value = array[row, column]
                real = float(value.real)  # of a complex number the part that is not finite
                return row, column, float(value.imag) if math.isfinite(real) else real
        return -1, -1, 0.0

    def column_sums(self, scores: Array, weights: Array | None, dtype: DType) -> Array:
        """Return Σ w s, (p,)."""
        ones = self.xp.ones((1, scores.shape[0]), dtype=_check.real_of(dtype))
        return self.scores_transpose_dot(
            scores, weights, None, ones.astype(dtype).T, conjugate=False
        ).reshape(-1)

    def square_sums(
        self, scores: Array, weights: Array | None, mean: Array | None, dtype: DType
    ) -> Array:
        """Return Σ w |s − m|², (p,), of the real dtype that belongs to `dtype`."""
        out = self.xp.zeros(scores.shape[1], dtype=_check.real_of(dtype))
        for _, rows in self.chunks(scores, weights, mean, dtype):
            out += squares(rows).sum(axis=0)
        return out

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
        Y = self.scores_dot(scores, mean, V)
        out = self.scores_transpose_dot(scores, weights, mean, Y)
        out *= scale
        if damping:
            out += damping * V
        return out

    def scores_dot(self, scores: Array, mean: Array | None, V: Array) -> Array:
        """Return (S − 1mᵀ) V, (n, k)."""
        out = self.xp.empty((scores.shape[0], V.shape[1]), dtype=V.dtype)
        for part, rows in self.chunks(scores, None, mean, V.dtype):
            out[part] = self.product(rows, V)
        return out

    def scores_transpose_dot(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        Y: Array,
        *,
        conjugate: bool = True,
    ) -> Array:
        """Return (S − 1mᵀ)ᴴ diag(w) Y, (p, k)."""
        if weights is not None:
            Y = Y * weights[:, None]
        out = self.xp.zeros((scores.shape[1], Y.shape[1]), dtype=Y.dtype)
        for part, rows in self.chunks(scores, None, mean, Y.dtype):
            out += self.product(adjoint_of(rows) if conjugate else rows.T, Y[part])
        return out

    # ---- columns (p, k), in double ----
    def dots(self, X: Array, Y: Array) -> Array:
        """Return Re xᴴ y of each pair of columns, (k,), summed in float64."""
        wide = np.dtype(np.complex128 if X.dtype.kind == "c" else np.float64)
        return (X.astype(wide, copy=False).conj() * Y.astype(wide, copy=False)).real.sum(axis=0)

    def norms(self, X: Array) -> Array:
        """Return ‖x‖ of each column, (k,), in float64, also where ‖x‖² is beyond the numbers."""
        xp = self.xp
        size = xp.abs(X).astype(np.float64)
        unit = xp.max(size, axis=0)
        unit = xp.where((unit > 0) & xp.isfinite(unit), unit, 1.0)
        size = size / unit
        return xp.sqrt((size * size).sum(axis=0)) * unit

    # ---- symmetric and Hermitian matrices ----
    def add_scores(
        self, lower: Array, scores: Array, weights: Array | None, mean: Array | None
    ) -> None:
        """Add Σ w (s − m)* (s − m)ᵀ to the lower triangle (p, p); no n × p temporary."""
        for _, rows in self.chunks(scores, weights, mean, lower.dtype):
            self.rank_update(lower, rows)

    def add_gram(
        self, lower: Array, scores: Array, weights: Array | None, mean: Array | None
    ) -> None:
        """Add W½ (S − 1mᵀ)(S − 1mᵀ)ᴴ W½ to the lower triangle (n, n); no n × p temporary."""
        root = None if weights is None else self.xp.sqrt(weights)
        samples, params = scores.shape
        columns = max(CHUNK_BYTES // (max(samples, 1) * lower.dtype.itemsize), 1)
        if root is None and mean is None and scores.dtype == lower.dtype:
            columns = params
        for part in blocks(params, columns):
            m = None if mean is None else mean[part]
            rows = self.prepared(scores[:, part], root, m, lower.dtype)
            self.rank_update(lower, rows, outer=True)

    def rank_update(self, lower: Array, X: Array, *, outer: bool = False) -> None:
        """Add Xᴴ X, or X Xᴴ if `outer`, to the lower triangle."""
        left, right = (X, adjoint_of(X)) if outer else (adjoint_of(X), X)
        for part in blocks(lower.shape[0]):
            lower[part, : part.stop] += self.product(left[part], right[:, : part.stop])

    def symmetric_product(self, lower: Array, V: Array) -> Array:
        """Return A V for V of shape (p, k)."""
        out = self.xp.zeros(V.shape, dtype=V.dtype)
        for part in blocks(lower.shape[0]):
            left = lower[part, : part.start]
            out[part] += self.product(left, V[: part.start])
            out[part] += self.product(self._mirrored(lower[part, part]), V[part])
            out[: part.start] += self.product(adjoint_of(left), V[part])
        return out

    def mirror(self, lower: Array, scale: float, out: Array) -> None:
        """Write scale · A to `out`, both triangles."""
        for part in blocks(lower.shape[0]):
            left = scale * lower[part, : part.start]
            out[part, : part.start] = left
            out[: part.start, part] = adjoint_of(left)
            out[part, part] = scale * self._mirrored(lower[part, part])

    def cholesky(self, lower: Array) -> Array:
        """Factor in place, A = L Lᴴ; return j + 1 for the first pivot j that is not positive."""
        xp, params = self.xp, lower.shape[0]
        info = xp.zeros((), dtype=xp.int64)
        for j in range(params):
            column = (
                lower[j:, j] - self.product(lower[j:, :j], adjoint_of(lower[j : j + 1, :j]))[:, 0]
            )
            pivot = column[0].real
            good = pivot > 0
            info = xp.where((info > 0) | good, info, xp.asarray(j + 1, dtype=xp.int64))
            lower[j:, j] = xp.where(info > 0, column, column / xp.sqrt(xp.where(good, pivot, 1.0)))
        return info

    def triangular_solve(self, lower: Array, B: Array, *, adjoint: bool = False) -> Array:
        """Return L⁻¹ B, or L⁻ᴴ B, for B of shape (p, k)."""
        out, xp = B.copy(), self.xp
        parts = list(blocks(lower.shape[0]))
        for part in reversed(parts) if adjoint else parts:
            corner = xp.tril(lower[part, part])
            if adjoint:
                out[part] -= self.product(adjoint_of(lower[part.stop :, part]), out[part.stop :])
                corner = adjoint_of(corner)
            else:
                out[part] -= self.product(lower[part, : part.start], out[: part.start])
            out[part] = xp.linalg.solve(corner, out[part])
        return out

    def inverse(self, lower: Array) -> Array:
        """Return (L Lᴴ)⁻¹, of which the lower triangle counts."""
        half = self.triangular_solve(lower, self.xp.eye(lower.shape[0], dtype=lower.dtype))
        out = self.xp.zeros(lower.shape, dtype=lower.dtype)
        self.rank_update(out, half)
        return out

    def eigh(self, matrix: Array) -> tuple[Array, Array]:
        """Return eigenvalues, ascending, and eigenvectors; the lower triangle is read."""
        values, vectors = self.xp.linalg.eigh(matrix)
        return values, vectors

    def product(self, X: Array, Y: Array) -> Array:
        """Return X Y."""
        return X @ Y

    def _mirrored(self, corner: Array) -> Array:
        """Return a square block with its lower triangle written above the diagonal too."""
        return self.xp.tril(corner) + adjoint_of(self.xp.tril(corner, k=-1))


def blocks(length: int, size: int = BLOCK) -> Iterator[slice]:
    """Yield slices of at most `size` that make up the whole."""
    for number in range(math.ceil(length / size)):
        yield slice(number * size, min((number + 1) * size, length))
