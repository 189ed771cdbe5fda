"""Blocks: the diagonal blocks of a symmetric matrix and their neighbours, and their factor."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._native import core
from fastfisher._ops.numpy_stacked import StackFactor
from fastfisher._ops.numpy_triangle import LARGEST, PANEL_BYTES, Factor, bits
from fastfisher._ops.types import NumpyArray as Array

__all__ = ["MASKED", "BlockFactor", "Blocks"]

MASKED = (
    " Masking a Fisher to its block tridiagonal can lose positive definiteness: what it takes "
    "away may have held this block up."
)
# Blocks that fill the lanes of two registers of float32.
_LEAST_STACK = 32
_LINE = 64  # bytes of a cache line, on which the core wants large blocks to begin


def _aligned(make: Any, length: int, dtype: np.dtype[Any]) -> Array:
    """Return what `make` (np.zeros or np.empty) gives, beginning on a cache line."""
    memory: Array = make(length * dtype.itemsize + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + length * dtype.itemsize].view(dtype)


class Blocks:
    """A block-diagonal or block-tridiagonal symmetric matrix, zero at first.

    All numbers lie in one array, where only the core knows what is where, so sums of matrices are
    sums of `numbers`.
    """

    __slots__ = ("_at", "_beside", "numbers", "size", "sizes", "tridiagonal")

    def __init__(self, sizes: Array, tridiagonal: bool, dtype: np.dtype[Any]) -> None:
        self.sizes = sizes
        self.tridiagonal = tridiagonal
        self.size = int(sizes.sum())
        self._at, self._beside, length = core.blocks_layout(sizes, tridiagonal, dtype.itemsize)
        self.numbers = _aligned(np.zeros, length, dtype)

    @staticmethod
    def length(sizes: Array, tridiagonal: bool, dtype: np.dtype[Any]) -> int:
        """Return how many numbers such a matrix is."""
        if int(sizes.sum()) > LARGEST:
            raise ValueError(
                f"block_sizes: expected a sum of at most {LARGEST}, got {int(sizes.sum())}. "
                "No machine holds scores of so many parameters."
            )
        return core.blocks_layout(sizes, tridiagonal, dtype.itemsize)[2]

    @staticmethod
    def factor_bytes(sizes: Array, tridiagonal: bool, dtype: np.dtype[Any]) -> int:
        """Return the bytes that the factor takes."""
        return core.tridiagonal_links(sizes, tridiagonal, dtype.itemsize)[1] * dtype.itemsize

    def like(self) -> "Blocks":
        """Return zeros of the same kind."""
        return Blocks(self.sizes, self.tridiagonal, self.numbers.dtype)

    # ---- sums ----
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
        """Add the blocks of Σ w (s − m)(s − m)ᵀ about their own mean m, and return m; else m is 0.

        `fresh` says that all is zero; an error then spoils it.
        """
        mean = np.empty(self.size, self.numbers.dtype) if centred else None
        report = core.blocks_accumulate(
            bits(scores),
            weights,
            mean,
            centred,
            self.sizes,
            self.tridiagonal,
            self.numbers,
            fresh,
            check_finite,
            threads,
        )
        _check.finite_report(report, "scores")
        return mean

    def add(self, other: "Blocks") -> None:
        """Add another of the same kind."""
        self.numbers += other.numbers

    def scale(self, factor: float) -> None:
        """Multiply every entry."""
        self.numbers *= factor

    def add_outer(self, x: Array, alpha: float, threads: int = 0) -> None:
        """Add the blocks of alpha · x xᵀ."""
        core.blocks_add_outer(self.sizes, self.tridiagonal, self.numbers, x, alpha, threads)

    def set_blocks(self, diagonal: list[Array], neighbours: list[Array]) -> None:
        """Take over the diagonal blocks, whose lower triangles count, and those below them."""
        for at, block in zip(self._at.tolist(), diagonal, strict=True):
            size = block.shape[0]
            if size * self.numbers.itemsize <= PANEL_BYTES:
                self.numbers[at : at + size * size] = block.reshape(-1)
                continue
            length = core.triangle_size(size, self.numbers.itemsize)
            core.triangle_from_dense(np.ascontiguousarray(block), self.numbers[at : at + length], 0)
        for at, block in zip(self._beside.tolist(), neighbours, strict=True):
            self.numbers[at : at + block.size] = block.reshape(-1)

    # ---- reading ----
    def diagonal(self) -> Array:
        """Return the diagonal, (p,)."""
        return core.blocks_diagonal(self.sizes, self.tridiagonal, self.numbers)

    def product(self, V: Array, scale: float, threads: int = 0) -> Array:
        """Return scale · F V for V of shape (p, k)."""
        out = np.empty(V.shape, V.dtype)
        core.blocks_product(self.sizes, self.tridiagonal, self.numbers, V, scale, out, threads)
        return out

    def norm1(self) -> float:
        """Return the largest column sum of absolute values."""
        return core.blocks_norm1(self.sizes, self.tridiagonal, self.numbers)

    def dot(self, other: "Blocks") -> float:
        """Return Σ F[i, j] G[i, j] of two of the same kind, the trace of their product."""
        return core.blocks_dot(self.sizes, self.tridiagonal, self.numbers, other.numbers)

    def _block(self, b: int, scale: float) -> Array:
        at, size = int(self._at[b]), int(self.sizes[b])
        if size * self.numbers.itemsize <= PANEL_BYTES:
            return scale * self.numbers[at : at + size * size].reshape(size, size)
        out = np.empty((size, size), self.numbers.dtype)
        length = core.triangle_size(size, self.numbers.itemsize)
        core.triangle_to_dense(self.numbers[at : at + length], scale, out, 0)
        return out

    def diagonal_blocks(self, scale: float) -> list[Array]:
        """Return scale times the diagonal blocks, each an array of its own."""
        return [self._block(b, scale) for b in range(len(self.sizes))]

    def neighbours(self, scale: float) -> list[Array]:
        """Return scale times the blocks below the diagonal ones; none if there are none."""
        shapes = zip(self._beside.tolist(), self.sizes[1:].tolist(), self.sizes.tolist())  # noqa: B905
        return [
            scale * self.numbers[at : at + rows * columns].reshape(rows, columns)
            for at, rows, columns in shapes
        ]

    def stacks(self, scale: float) -> Iterator[tuple[Array, Array]]:
        """Yield, for each size s that occurs, rows (m, s) and diagonal blocks (m, s, s)."""
        starts = np.cumsum(self.sizes) - self.sizes
        for size in np.unique(self.sizes).tolist():
            some = np.flatnonzero(self.sizes == size)
            rows = starts[some][:, None] + np.arange(size)
            if size * self.numbers.itemsize <= PANEL_BYTES:
                places = self._at[some][:, None] + np.arange(size * size)
                yield rows, scale * self.numbers[places].reshape(-1, size, size)
            else:
                yield rows, np.stack([self._block(int(b), scale) for b in some])

    # ---- the factor ----
    def cholesky(
        self,
        scale: float,
        shift: float | Array,
        *,
        threads: int = 0,
        with_norm: bool = True,
        parts: int = 1,
    ) -> "BlockFactor | StackFactor":
        """Factor scale · F + diag(shift); the blocks stay as they are.

        `with_norm` reads them once more, which `BlockFactor.rcond` needs. `parts` rows make a
        parameter, the number by which a failure names its place.
        """
        diagonal = np.empty(self.size, self.numbers.dtype)
        diagonal[...] = shift
        norm = scale * self.norm1() + float(diagonal.max()) if with_norm else np.nan
        if self._is_stack():
            own = self.like()
            own.numbers[...] = self.numbers
            factor = StackFactor(
                own,
                scale,
                diagonal,
                norm,
                threads,
                partial(own._chain, scale, diagonal, norm, threads, parts),
            )
            if factor.sound:
                return factor
        return self._chain(scale, diagonal, norm, threads, parts)

    def _is_stack(self) -> bool:
        """Tell whether these are many squares of one size."""
        size = int(self.sizes[0])
        return (
            not self.tridiagonal
            and len(self.sizes) >= _LEAST_STACK
            and size * self.numbers.itemsize <= PANEL_BYTES
            and bool((self.sizes == size).all())
        )

    def _chain(
        self, scale: float, diagonal: Array, norm: float, threads: int, parts: int
    ) -> "BlockFactor":
        """Return the factor that is kept, or raise what was in its way."""
        dtype = self.numbers.dtype
        links, length = core.tridiagonal_links(self.sizes, self.tridiagonal, dtype.itemsize)
        panels = _aligned(np.empty, length, dtype)
        # Rounding leaves a singular block pivots about as large as the sums that made it are long.
        terms = int(self.sizes.max()) * (1 + self.tridiagonal)
        tolerance = terms * float(np.finfo(dtype).eps)
        report = core.tridiagonal_factor(
            self.sizes,
            links,
            self.tridiagonal,
            self.numbers,
            scale,
            diagonal,
            tolerance,
            panels,
            threads,
        )
        if report[0]:
            status, pivot, _, value = report
            block = int(np.searchsorted(np.cumsum(self.sizes), pivot, side="right"))
            _check.positive_definite_report(
                (status, pivot // parts, -1, value),
                tolerance,
                f" in block {block}",
                MASKED * self.tridiagonal,
            )
        return BlockFactor(self.sizes, links, self.tridiagonal, panels, norm)


class BlockFactor:
    """The Cholesky factor of a block-diagonal or block-tridiagonal matrix."""

    __slots__ = ("links", "norm", "panels", "size", "sizes", "tridiagonal")

    def __init__(
        self, sizes: Array, links: Array, tridiagonal: bool, panels: Array, norm: float = np.nan
    ) -> None:
        self.sizes = sizes
        self.links = links
        self.tridiagonal = tridiagonal
        self.panels = panels
        self.norm = norm
        self.size = int(sizes.sum())

    @classmethod
    def of(cls, factors: list[Factor]) -> "BlockFactor":
        """Return the factor of a block-diagonal matrix from those of its blocks."""
        sizes = np.array([factor.size for factor in factors], np.intp)
        return cls(sizes, sizes, False, np.concatenate([factor.panels for factor in factors]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what it solves."""
        return self.panels.dtype

    def solve(self, B: Array, threads: int = 0) -> Array:
        """Return A⁻¹ B for B of shape (p, k)."""
        out = np.empty(B.shape, B.dtype)
        core.tridiagonal_solve(self.links, self.tridiagonal, self.panels, B, out, threads)
        return out

    def half_solve(self, B: Array, *, transposed: bool = False, threads: int = 0) -> Array:
        """Return L⁻¹ B, or L⁻ᵀ B."""
        out = np.empty(B.shape, B.dtype)
        core.tridiagonal_half_solve(
            self.links, self.tridiagonal, self.panels, B, transposed, out, threads
        )
        return out

    def logdet(self) -> float:
        """Return log det A."""
        return core.tridiagonal_logdet(self.links, self.tridiagonal, self.panels)

    def inverse(self, threads: int = 0) -> Blocks:
        """Return the blocks of A⁻¹, and those beside them if tridiagonal."""
        out = Blocks(self.sizes, self.tridiagonal, self.dtype)
        core.tridiagonal_inverse(
            self.sizes, self.links, self.tridiagonal, self.panels, out.numbers, threads
        )
        return out

    def inverse_diagonal(self, threads: int = 0) -> Array:
        """Return the diagonal of A⁻¹, (p,)."""
        return self.inverse(threads).diagonal()

    def rcond(self, threads: int = 0) -> float:
        """Return an estimate of 1 / κ₁(A)."""
        return core.tridiagonal_rcond(self.links, self.tridiagonal, self.panels, self.norm, threads)
