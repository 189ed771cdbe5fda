"""The scores of one layer: every verb on them, without an (n, p) array."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfisher._ops.numpy_patches import Patches
from fastfisher._ops.numpy_triangle import Triangle

__all__ = ["LayerScores"]

Array = np.ndarray[Any, np.dtype[Any]]


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

    def rows(self, block: slice, dtype: np.dtype[Any]) -> Array:
        """Return some of the scores as an array (block, d_out · d_in)."""
        a, g = self.a.some(block).unrolled(dtype), self.g.some(block).unrolled(dtype)
        rows: Array = np.einsum("ito,itc->ioc", g, a).reshape(a.shape[0], -1)
        return rows

    def dot(self, V: Array, threads: int) -> Array:  # noqa: ARG002
        """Return S V, (n, k), for V (d_out · d_in, k)."""
        out = np.empty((self.samples, V.shape[1]), V.dtype)
        W = V.reshape(*self.shape, -1)
        for block in self.a.blocks():
            a, g = self.a.some(block).unrolled(V.dtype), self.g.some(block).unrolled(V.dtype)
            out[block] = np.einsum("ito,itc,ock->ik", g, a, W, optimize=True)
        return out

    def transpose_dot(self, Y: Array, threads: int) -> Array:  # noqa: ARG002
        """Return Sᵀ Y, (d_out · d_in, k), for Y (n, k)."""
        out = np.zeros((*self.shape, Y.shape[1]), Y.dtype)
        for block in self.a.blocks():
            a, g = self.a.some(block).unrolled(Y.dtype), self.g.some(block).unrolled(Y.dtype)
            out += np.einsum("ito,itc,ik->ock", g, a, Y[block], optimize=True)
        return out.reshape(-1, Y.shape[1])

    def squares(
        self,
        weights: Array | None,
        dtype: np.dtype[Any],
        threads: int,  # noqa: ARG002
        bases: tuple[Array, Array] | None = None,
    ) -> Array:
        """Return Σ_i w_i (Σ_t g_it a_itᵀ)² elementwise, (d_out, d_in).

        `bases` (U_g, U_a), orthogonal, rotate first: Σ_i w_i (U_gᵀ (Σ_t g_it a_itᵀ) U_a)².
        """
        out = np.zeros(self.shape, dtype)
        for block in self.a.blocks():
            a, g = self.a.some(block).unrolled(dtype), self.g.some(block).unrolled(dtype)
            if bases is not None:
                g, a = g @ bases[0], a @ bases[1]
            squares = np.einsum("ito,itc->ioc", g, a) ** 2
            out += np.tensordot(np.ones(len(a)) if weights is None else weights[block], squares, 1)
        return out

    def add_gram(self, triangle: Triangle, threads: int) -> None:
        """Add K_ij = s_i · s_j to `triangle` (n × n)."""
        gram = np.zeros((self.samples, self.samples), triangle.panels.dtype)
        for i in self.a.blocks():
            left = self.rows(i, gram.dtype)
            for j in self.a.blocks():
                gram[i, j] = left @ self.rows(j, gram.dtype).T
        triangle.panels += Triangle.from_dense(gram, threads=threads).panels
