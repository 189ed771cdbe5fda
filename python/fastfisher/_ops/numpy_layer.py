"""The scores of one layer: every verb on them, without an (n, p) array."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfisher._native import core
from fastfisher._ops.numpy_patches import Patches
from fastfisher._ops.numpy_triangle import Triangle, bits
from fastfisher._ops.types import NumpyArray as Array

__all__ = ["LayerScores"]

# Columns from which scores are formed for a product with all of them: to form them takes as long as
# 2 to 10 columns without, and the product is far less (1 to 576 positions, Granite Rapids).
_MANY = 8
_FORMED_BYTES = 2**24  # of scores formed at a time, about; fewer would add to Sᵀ Y more often


@dataclass(frozen=True, slots=True, eq=False)
class LayerScores:
    """Scores s_i = vec(Σ_t g_it a_itᵀ) of a layer with inputs a and output gradients g.

    vec is the C-order ravel of the (d_out, d_in) matrix.
    """

    a: Patches
    g: Patches

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the weight."""
        return self.g.width, self.a.width

    @property
    def samples(self) -> int:
        """Number of samples, n."""
        return self.a.samples

    @property
    def sides(self) -> tuple[Array, tuple[int, ...], Array, tuple[int, ...]]:
        """Both sides as the core takes them."""
        return bits(self.a.x), self.a.recipe, bits(self.g.x), self.g.recipe

    def rows(self, block: slice, dtype: np.dtype[Any]) -> Array:
        """Return some of the scores as an array (block, d_out · d_in), for small blocks."""
        a, g = self.a.some(block).unrolled(dtype), self.g.some(block).unrolled(dtype)
        rows: Array = np.einsum("ito,itc->ioc", g, a)
        return rows.reshape(len(a), self.shape[0] * self.shape[1])

    def dot(self, V: Array, threads: int) -> Array:
        """Return S V, (n, k), for V (d_out · d_in, k).

        A column without forming a score; for many of them some scores at a time are formed, once.
        """
        out = np.empty((self.samples, V.shape[1]), V.dtype)
        if V.shape[1] < _MANY:
            core.layer_dot(*self.sides, V, out, threads)
            return out
        for block in self._blocks(V.dtype):
            core.scores_dot(self.rows(block, V.dtype), None, V, out[block], threads)
        return out

    def transpose_dot(self, Y: Array, threads: int) -> Array:
        """Return Sᵀ Y, (d_out · d_in, k), for Y (n, k), in the same way."""
        if Y.shape[1] >= _MANY:
            out, part = (
                make((math.prod(self.shape), Y.shape[1]), Y.dtype) for make in (np.zeros, np.empty)
            )
            for block in self._blocks(Y.dtype):
                core.scores_transpose_dot(
                    self.rows(block, Y.dtype), None, None, Y[block], part, threads
                )
                out += part
            return out
        columns = [
            self.g.cross(self.a, np.ascontiguousarray(y), Y.dtype, threads).reshape(-1) for y in Y.T
        ]
        if len(columns) == 1:
            return columns[0][:, None]
        out = np.empty((self.shape[0] * self.shape[1], len(columns)), Y.dtype)
        return np.stack(columns, axis=1, out=out)

    def _blocks(self, dtype: np.dtype[Any]) -> Iterator[slice]:
        """Yield blocks of samples of which scores and unrolled sides are small."""
        numbers = max(math.prod(self.shape), self.a.positions * max(self.shape))
        step = max(1, _FORMED_BYTES // (numbers * dtype.itemsize))
        return (slice(start, start + step) for start in range(0, self.samples, step))

    def squares(
        self,
        weights: Array | None,
        dtype: np.dtype[Any],
        threads: int,
        bases: tuple[Array, Array] | None = None,
    ) -> Array:
        """Return Σ_i w_i (Σ_t g_it a_itᵀ)² elementwise, (d_out, d_in).

        `bases` (U_g, U_a), orthogonal, rotate first: Σ_i w_i (U_gᵀ (Σ_t g_it a_itᵀ) U_a)².
        """
        out = np.empty(self.shape, dtype)
        U_g, U_a = bases or (None, None)
        core.layer_squares(*self.sides, weights, U_g, U_a, out, threads)
        return out

    def add_gram(self, triangle: Triangle, threads: int) -> None:
        """Add K_ij = s_i · s_j to `triangle` (n × n)."""
        core.layer_gram(*self.sides, triangle.panels, threads)
