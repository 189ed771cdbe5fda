"""Plain forms of what the structured verbs ask of an engine: batches, gathered sums and patches."""

from dataclasses import dataclass
from typing import Any

from fastfisher import _check
from fastfisher._ops.conjugates import adjoints_of
from fastfisher._ops.types import Array, DType, Pair

__all__ = ["ArrayBatches", "Columns"]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The columns of `blocks` blocks of `length` columns each, one block after another.

    They stand in one run from `start` on, or at `index` (blocks · length,), integers on the device.
    """

    blocks: int
    length: int
    start: int
    index: Array | None = None

    def of(self, xp: Any, array: Array) -> Array:
        """Return these columns of an array (…, p), (…, blocks · length)."""
        if self.index is None:
            return array[..., self.start : self.start + self.blocks * self.length]
        return xp.take(array, self.index, axis=-1)


class ArrayBatches:
    """The primitives of `Engine` for many small matrices, for patches and for QR."""

    xp: Any

    # ---- many small matrices at once ----
    def block_moments(
        self: Any,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        left: Columns,
        right: Columns,
        dtype: DType,
    ) -> Array:
        """Return Σ w (s − m)*_l (s − m)ᵀ_r for each block l of columns and its r, (m, l, r)."""
        xp = self.xp
        out = xp.zeros((left.blocks, left.length, right.length), dtype=dtype)
        root = None if weights is None else xp.sqrt(weights)

        def cut(part: slice, columns: Columns) -> Array:
            rows = self.prepared(
                columns.of(xp, scores[part]),
                None if root is None else root[part],
                None if mean is None else columns.of(xp, mean),
                dtype,
            )
            return xp.permute_dims(
                rows.reshape(rows.shape[0], columns.blocks, columns.length), (1, 0, 2)
            )

        width = left.blocks * max(left.length, right.length)
        for part in self.row_blocks(scores.shape[0], width, dtype):
            X = cut(part, left)
            Y = X if right is left else cut(part, right)
            out += adjoints_of(xp, X) @ Y
        return out

    def cholesky_batch(self, lower: Array) -> Array:
        """Factor each (s, s) in place; return the pivots, (m, s), NaN after one that fails."""
        xp = self.xp
        pivots = xp.empty(lower.shape[:2], dtype=_check.real_of(lower.dtype))
        for j in range(lower.shape[1]):
            before = lower[:, j : j + 1, :j]
            column = lower[:, j:, j : j + 1] - lower[:, j:, :j] @ adjoints_of(xp, before)
            pivot = column[:, 0, 0].real
            pivots[:, j] = pivot
            inverse = 1.0 / xp.sqrt(xp.where((pivot > 0) & xp.isfinite(pivot), pivot, xp.nan))
            lower[:, j:, j : j + 1] = column * inverse[:, None, None]
        return pivots

    def triangular_solve_batch(self, lower: Array, B: Array, *, adjoint: bool = False) -> Array:
        """Return L⁻¹ B, or L⁻ᴴ B, of each of (m, s, s) and (m, s, k)."""
        xp = self.xp
        if 0 in B.shape:
            return B.copy()
        L = xp.tril(lower)
        return xp.linalg.solve(adjoints_of(xp, L) if adjoint else L, B)

    # ---- one matrix ----
    def triangular_root(self, X: Array) -> Array:
        """Return the R (p, p) of a QR factorisation of X (n, p), n ≥ p; signs are any."""
        return self.xp.linalg.qr(X)[1]

    # ---- patches ----
    def patches(
        self, x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, grid: Pair
    ) -> Array:
        """Return the patches of images (n, c, h, w) as an array (n, down, across, c, kh, kw)."""
        xp, (n, channels, height, width) = self.xp, x.shape
        if any(padding):
            padded = xp.zeros(
                (n, channels, height + 2 * padding[0], width + 2 * padding[1]), dtype=x.dtype
            )
            padded[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = x
            x = padded

        def along(axis: int, offset: int) -> slice:
            first = offset * dilation[axis]
            return slice(first, first + stride[axis] * (grid[axis] - 1) + 1, stride[axis])

        shifted = [
            x[:, :, along(0, i), along(1, j)] for i in range(kernel[0]) for j in range(kernel[1])
        ]
        stacked = xp.stack(shifted).reshape(*kernel, n, channels, *grid)
        return xp.permute_dims(stacked, (2, 4, 5, 3, 0, 1))
