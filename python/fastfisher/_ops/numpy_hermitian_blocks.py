"""Hermitian blocks: a complex block matrix held as a real one with blocks of twice the rows."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._native import core
from fastfisher._ops import numpy_blocks as real
from fastfisher._ops.numpy_hermitian import Factor, HeldFactor, interleaved, joined
from fastfisher._ops.types import NumpyArray as Array

__all__ = ["BlockFactor", "Blocks"]


def _complex(block: Array) -> Array:
    """Return F of its form H (…, 2r, 2c), as ``hermitian.hpp`` says."""
    out = np.empty(
        (*block.shape[:-2], block.shape[-2] // 2, block.shape[-1] // 2),
        _check.complex_of(block.dtype),
    )
    out.real = block[..., 0::2, 0::2] + block[..., 1::2, 1::2]
    out.imag = block[..., 0::2, 1::2] - block[..., 1::2, 0::2]
    return out


def _real_form(block: Array) -> Array:
    """Return H (2r, 2c) of F, what `_complex` turns back."""
    out = np.empty((2 * block.shape[0], 2 * block.shape[1]), _check.real_of(block.dtype))
    out[0::2, 0::2] = out[1::2, 1::2] = block.real / 2
    out[0::2, 1::2] = block.imag / 2
    out[1::2, 0::2] = -block.imag / 2
    return out


class Blocks:
    """A Hermitian block matrix with the verbs of the real `Blocks`.

    What is held are the blocks of ½ conj(F) in real form, as in the Hermitian `Triangle`.
    """

    __slots__ = ("held", "size")

    def __init__(self, sizes: Array, tridiagonal: bool, dtype: np.dtype[Any]) -> None:
        self.held = real.Blocks(2 * sizes, tridiagonal, _check.real_of(dtype))
        self.size = self.held.size // 2

    @classmethod
    def _of(cls, held: real.Blocks) -> "Blocks":
        blocks = object.__new__(cls)
        blocks.held, blocks.size = held, held.size // 2
        return blocks

    @property
    def numbers(self) -> Array:
        """The real numbers held, whose sums are sums of matrices."""
        return self.held.numbers

    @property
    def sizes(self) -> Array:
        """Complex parameters of each block."""
        sizes: Array = self.held.sizes // 2
        return sizes

    @property
    def tridiagonal(self) -> bool:
        """Whether the neighbours of the diagonal blocks are held."""
        return bool(self.held.tridiagonal)

    @staticmethod
    def length(sizes: Array, tridiagonal: bool, dtype: np.dtype[Any]) -> int:
        """Return how many numbers such a matrix is."""
        return real.Blocks.length(2 * sizes, tridiagonal, _check.real_of(dtype))

    @staticmethod
    def factor_bytes(sizes: Array, tridiagonal: bool, dtype: np.dtype[Any]) -> int:
        """Return the bytes that the factor takes."""
        return real.Blocks.factor_bytes(2 * sizes, tridiagonal, _check.real_of(dtype))

    def like(self) -> "Blocks":
        """Return zeros of the same kind."""
        return Blocks._of(self.held.like())

    def _project(self, threads: int) -> None:
        core.blocks_project(self.held.sizes, self.held.tridiagonal, self.numbers, threads)

    def add_scores(
        self,
        scores: Array,
        weights: Array | None,
        *,
        centred: bool,
        fresh: bool,
        check_finite: bool,
        threads: int,
    ) -> Array | None:
        """Add the blocks of Σ w (s − m)* (s − m)ᵀ about their own mean m, and return m."""
        mean = self.held.add_scores(
            scores,
            weights,
            centred=centred,
            fresh=fresh,
            check_finite=check_finite,
            threads=threads,
        )
        self._project(threads)
        return None if mean is None else mean.view(_check.complex_of(mean.dtype))

    def add(self, other: "Blocks") -> None:
        """Add another of the same kind."""
        self.held.add(other.held)

    def scale(self, factor: float) -> None:
        """Multiply every entry."""
        self.held.scale(factor)

    def add_outer(self, x: Array, alpha: float, threads: int = 0) -> None:
        """Add the blocks of alpha · x* xᵀ."""
        self.held.add_outer(interleaved(x[:, None])[:, 0].copy(), alpha, threads)
        self._project(threads)

    def set_blocks(self, diagonal: list[Array], neighbours: list[Array]) -> None:
        """Take over the diagonal blocks and those below them."""
        self.held.set_blocks(
            [_real_form(block) for block in diagonal], [_real_form(block) for block in neighbours]
        )

    def diagonal(self) -> Array:
        """Return the diagonal, (p,), real."""
        parts: Array = self.held.diagonal().reshape(-1, 2)
        return parts[:, 0] + parts[:, 1]

    def product(self, V: Array, scale: float, threads: int = 0) -> Array:
        """Return scale · F V for V of shape (p, k)."""
        X = self.held.product(interleaved(V, conjugate=True), 2 * scale, threads)
        return joined(X, conjugate=True)

    def norm1(self) -> float:
        """Return the largest column sum of |Re| + |Im|: between ‖F‖₁ and √2 ‖F‖₁."""
        return 2 * self.held.norm1()

    def dot(self, other: "Blocks") -> float:
        """Return the trace of the product of two of the same kind, which is real."""
        return 2 * self.held.dot(other.held)

    def diagonal_blocks(self, scale: float) -> list[Array]:
        """Return scale times the diagonal blocks, each an array of its own."""
        return [_complex(block) for block in self.held.diagonal_blocks(scale)]

    def neighbours(self, scale: float) -> list[Array]:
        """Return scale times the blocks below the diagonal ones."""
        return [_complex(block) for block in self.held.neighbours(scale)]

    def stacks(self, scale: float) -> Iterator[tuple[Array, Array]]:
        """Yield, for each size s that occurs, rows (m, s) and diagonal blocks (m, s, s)."""
        for rows, blocks in self.held.stacks(scale):
            yield rows[:, ::2] // 2, _complex(blocks)

    def cholesky(
        self, scale: float, shift: float | Array, *, threads: int = 0, with_norm: bool = True
    ) -> "BlockFactor":
        """Factor scale · F + diag(shift); the blocks stay as they are."""
        if isinstance(shift, np.ndarray):
            shift = np.repeat(shift, 2)
        return BlockFactor(
            self.held.cholesky(2 * scale, shift, threads=threads, with_norm=with_norm, parts=2)
        )


class BlockFactor(HeldFactor):
    """The Cholesky factor of a Hermitian block matrix."""

    __slots__ = ()

    @property
    def tridiagonal(self) -> bool:
        """Whether the blocks have neighbours."""
        return bool(self.held.tridiagonal)

    @classmethod
    def of(cls, factors: list[Factor]) -> "BlockFactor":
        """Return the factor of a block-diagonal matrix from those of its blocks."""
        return cls(real.BlockFactor.of([factor.held for factor in factors]))

    def inverse(self, threads: int = 0) -> Blocks:
        """Return the blocks of A⁻¹, and those beside them if tridiagonal."""
        held = self.held.inverse(threads)
        held.scale(0.5)
        blocks = Blocks._of(held)
        blocks._project(threads)
        return blocks

    def inverse_diagonal(self, threads: int = 0) -> Array:
        """Return the diagonal of A⁻¹, (p,), real."""
        return self.inverse(threads).diagonal()
