"""ChainFactor: the Cholesky factor of a block-tridiagonal matrix on a device, block after block."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastfisher._ops.conjugates import adjoint_of, hermitian_part
from fastfisher._ops.device_block_factor import pivots_of
from fastfisher._ops.device_triangle import norm1_of_inverse
from fastfisher._ops.engine import Bound
from fastfisher._ops.types import Array, DType

if TYPE_CHECKING:
    from fastfisher._ops.device_blocks import Blocks

__all__ = ["ChainFactor"]


class ChainFactor(Bound):
    """A = L Lᴴ with diagonal blocks L_b and W_b = N_b L_b⁻ᴴ below them.

    L_b L_bᴴ = A_b − W_b-1 W_b-1ᴴ, so each block waits for the one before: the device is given a few
    small jobs per block, and the host is not waited for. `pivots` (p,) are not checked yet.
    """

    __slots__ = ("_slices", "_template", "held_norm", "links", "lower", "pivots")
    tridiagonal = True

    def __init__(self, damped: "Blocks", norm: Array | None) -> None:
        engine, xp = self.engine, self.engine.xp
        ends = np.cumsum(damped.sizes).tolist()
        self._slices = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
        self._template, self.held_norm = damped, norm
        self.lower: list[Array] = damped.diagonal_blocks(1.0)
        self.links: list[Array] = damped.neighbours(1.0)
        pivots = []
        for b, own in enumerate(self.lower):
            if b > 0:
                own -= self.links[b - 1] @ adjoint_of(self.links[b - 1])
            pivots.append(pivots_of(engine, own))
            if b < len(self.links):
                half = engine.triangular_solve(own, adjoint_of(self.links[b]))
                self.links[b] = adjoint_of(half)
        self.pivots: Array = xp.concat(pivots)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self._template.size

    @property
    def dtype(self) -> DType:
        """Dtype of what it solves."""
        return self._template.dtype

    @property
    def norm(self) -> float:
        """The norm ‖A‖₁ that `rcond` uses; NaN if it was not asked for."""
        return math.nan if self.held_norm is None else float(self.held_norm)

    def solve(self, B: Array, threads: int = 0) -> Array:
        """Return A⁻¹ B for B of shape (p, k)."""
        return self.half_solve(self.half_solve(B, threads=threads), transposed=True)

    def half_solve(self, B: Array, *, transposed: bool = False, threads: int = 0) -> Array:  # noqa: ARG002
        """Return L⁻¹ B, or L⁻ᴴ B."""
        solve, where = self.engine.triangular_solve, self._slices
        out, last = B.copy(), len(self.lower) - 1
        for b in range(last, -1, -1) if transposed else range(last + 1):
            if transposed and b < last:
                out[where[b]] -= adjoint_of(self.links[b]) @ out[where[b + 1]]
            if not transposed and b > 0:
                out[where[b]] -= self.links[b - 1] @ out[where[b - 1]]
            out[where[b]] = solve(self.lower[b], out[where[b]], adjoint=transposed)
        return out

    def logdet(self) -> float:
        """Return log det A."""
        logarithms = self.engine.xp.log(self.pivots.astype(np.float64))
        return self.engine.read(logarithms.sum().reshape(1))[0]

    def inverse(self, threads: int = 0) -> "Blocks":  # noqa: ARG002
        """Return the diagonal blocks of Z = A⁻¹ and those beside them, from the last to the first.

        With V_b = W_b L_b⁻¹: Z_b+1,b = −Z_b+1,b+1 V_b and Z_bb = L_b⁻ᴴ L_b⁻¹ − V_bᴴ Z_b+1,b.
        """
        xp, engine = self.engine.xp, self.engine
        inside: list[Any] = [None] * len(self.lower)
        beside: list[Any] = [None] * len(self.links)
        for b in range(len(self.lower) - 1, -1, -1):
            half = engine.triangular_solve(
                self.lower[b], xp.eye(self.lower[b].shape[0], dtype=self.dtype)
            )
            own = adjoint_of(half) @ half
            if b < len(self.links):
                V = self.links[b] @ half
                beside[b] = -(inside[b + 1] @ V)
                own -= adjoint_of(V) @ beside[b]
            inside[b] = hermitian_part(own)
        out = self._template.like()
        out.set_blocks(inside, beside)
        return out

    def inverse_diagonal(self, threads: int = 0) -> Array:
        """Return the diagonal of A⁻¹, (p,), real."""
        return self.inverse(threads).diagonal()

    def rcond(self, threads: int = 0) -> float:  # noqa: ARG002
        """Return an estimate of 1 / κ₁(A), by Hager and Higham."""
        if self.held_norm is None:
            return math.nan
        product = self.held_norm * norm1_of_inverse(self)
        return 1 / self.engine.read(product.reshape(1))[0]
