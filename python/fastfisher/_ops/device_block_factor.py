"""BlockFactor: the Cholesky factor of a block-diagonal matrix on a device, stack by stack."""

import math
from typing import Any

import numpy as np

from fastfisher._ops.conjugates import adjoints_of
from fastfisher._ops.device_blocks import Blocks
from fastfisher._ops.engine import Bound, Engine, bound
from fastfisher._ops.types import Array, DType

__all__ = ["BlockFactor", "factored", "pivots_of"]

# Rows of the largest blocks that are factored as a batch: libraries make batches for small ones,
# and of larger there are few. Not yet measured.
LARGEST_BATCHED = 512


class BlockFactor(Bound):
    """The Cholesky factor of a block-diagonal matrix, a stack for each size of block."""

    __slots__ = ("held_norm", "lower")
    tridiagonal = False

    def __init__(self, lower: Blocks, norm: Array | None = None) -> None:
        self.lower = lower
        self.held_norm = norm

    @classmethod
    def of(cls, factors: list[Any]) -> "BlockFactor":
        """Return the factor of a block-diagonal matrix from those of its blocks."""
        sizes = np.array([factor.size for factor in factors], np.intp)
        lower = bound(Blocks, cls.engine)(sizes, False, factors[0].dtype)
        lower.set_blocks([factor.lower for factor in factors], [])
        return cls(lower)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.lower.size

    @property
    def dtype(self) -> DType:
        """Dtype of what it solves."""
        return self.lower.dtype

    @property
    def norm(self) -> float:
        """The norm ‖A‖₁ that `rcond` uses; NaN if it was not asked for."""
        return math.nan if self.held_norm is None else float(self.held_norm)

    def solve(self, B: Array, threads: int = 0) -> Array:  # noqa: ARG002
        """Return A⁻¹ B for B of shape (p, k)."""
        solve, places = self.engine.triangular_solve_batch, self.lower._places
        pairs = zip(self.lower.held, places.gathered(B), strict=True)
        return places.joined([solve(L, solve(L, own), adjoint=True) for L, own in pairs])

    def half_solve(self, B: Array, *, transposed: bool = False, threads: int = 0) -> Array:  # noqa: ARG002
        """Return L⁻¹ B, or L⁻ᴴ B."""
        solve, places = self.engine.triangular_solve_batch, self.lower._places
        pairs = zip(self.lower.held, places.gathered(B), strict=True)
        return places.joined([solve(L, own, adjoint=transposed) for L, own in pairs])

    def logdet(self) -> float:
        """Return log det A."""
        xp = self.engine.xp
        logarithms = xp.log(self.lower.diagonal().astype(np.float64))
        return 2 * self.engine.read(logarithms.sum().reshape(1))[0]

    def inverse(self, threads: int = 0) -> Blocks:  # noqa: ARG002
        """Return A⁻¹."""
        xp, solve = self.engine.xp, self.engine.triangular_solve_batch
        out = self.lower.like()
        for L, stack in zip(self.lower.held, out.held, strict=True):
            unit = xp.broadcast_to(xp.eye(L.shape[1], dtype=L.dtype), L.shape)
            half = solve(L, unit.copy())
            stack[...] = adjoints_of(xp, half) @ half
        out._real_diagonal()
        return out

    def inverse_diagonal(self, threads: int = 0) -> Array:
        """Return the diagonal of A⁻¹, (p,), real."""
        return self.inverse(threads).diagonal()

    def rcond(self, threads: int = 0) -> float:
        """Return 1 / κ₁(A), from the inverse of every block."""
        if self.held_norm is None:
            return math.nan
        product = self.inverse(threads)._norm1() * self.held_norm
        size = self.engine.read(product.reshape(1))[0]
        return min(1 / size, 1.0) if size > 0 else 0.0


def factored(engine: Engine, stack: Array) -> Array:
    """Factor each block of a stack in place; return the pivots, (m, s)."""
    if stack.shape[1] <= LARGEST_BATCHED:
        return engine.cholesky_batch(stack)
    return engine.xp.stack([pivots_of(engine, stack[b]) for b in range(stack.shape[0])])


def pivots_of(engine: Engine, lower: Array) -> Array:
    """Factor a matrix in place; return the pivots, (p,), NaN after one that fails.

    From there on the factor's diagonal is NaN, and so is what comes of it.
    """
    xp, j = engine.xp, engine.xp.arange(lower.shape[0])
    info = engine.cholesky(lower)
    diagonal = lower.reshape(-1)[:: lower.shape[0] + 1]
    root, sound = diagonal.real, (info == 0) | (j < info - 1)
    pivots = xp.where(sound, root * root, xp.where(j == info - 1, root, xp.nan))
    diagonal[...] = xp.where(sound, root, xp.nan).astype(lower.dtype)
    return pivots
