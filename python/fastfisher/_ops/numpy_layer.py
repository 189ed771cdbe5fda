"""The scores of one layer: every verb on them, without an (n, p) array."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfisher._native import core
from fastfisher._ops.numpy_patches import Patches
from fastfisher._ops.numpy_triangle import Triangle, bits
from fastfisher._ops.types import NumpyArray as Array

__all__ = ["LayerScores"]


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
        """Return S V, (n, k), for V (d_out · d_in, k)."""
        out = np.empty((self.samples, V.shape[1]), V.dtype)
        core.layer_dot(*self.sides, V, out, threads)
        return out

    def transpose_dot(self, Y: Array, threads: int) -> Array:
        """Return Sᵀ Y, (d_out · d_in, k), for Y (n, k)."""
        columns = [
            self.g.cross(self.a, np.ascontiguousarray(y), Y.dtype, threads).reshape(-1) for y in Y.T
        ]
        if len(columns) == 1:
            return columns[0][:, None]
        out = np.empty((self.shape[0] * self.shape[1], len(columns)), Y.dtype)
        return np.stack(columns, axis=1, out=out)

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
