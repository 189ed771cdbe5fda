"""Blocks on a device: block-diagonal and block-tridiagonal sums, in stacks of one shape."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastfisher import _check
from fastfisher._ops.conjugates import adjoints_of
from fastfisher._ops.device_finite import column_mean, raise_if_spoilt
from fastfisher._ops.device_places import Places
from fastfisher._ops.engine import Bound, bound
from fastfisher._ops.numpy_blocks import MASKED
from fastfisher._ops.numpy_triangle import LARGEST
from fastfisher._ops.types import Array, DType

if TYPE_CHECKING:
    from fastfisher._ops.device_block_factor import BlockFactor
    from fastfisher._ops.device_chain import ChainFactor

__all__ = ["Blocks"]


class Blocks(Bound):
    """A block-diagonal or block-tridiagonal symmetric (Hermitian) matrix, zero at first.

    Equivalent to the `Blocks` of ``numpy_blocks``. All numbers lie in one array, where blocks of
    one shape lie side by side, so what is done with them is done with a stack, however many they
    are.
    """

    __slots__ = ("_across", "_below", "_places", "numbers", "size", "sizes", "tridiagonal")

    def __init__(self, sizes: Any, tridiagonal: bool, dtype: DType) -> None:
        self.sizes, self.tridiagonal = sizes, tridiagonal
        self.size = int(sizes.sum())
        starts = np.cumsum(sizes) - sizes
        self._places = Places(self.engine, starts, sizes, sizes)
        self._below: Places | None = None
        self._across: Places | None = None
        if tridiagonal and len(sizes) > 1:
            shapes = sizes[1:] * (int(sizes.max()) + 1) + sizes[:-1]  # a number for each
            self._below = Places(self.engine, starts[1:], sizes[1:], shapes)
            self._across = Places(self.engine, starts[:-1], sizes[:-1], shapes)
        self.numbers: Array = self.engine.xp.zeros(
            (self.length(sizes, tridiagonal, dtype),), dtype=dtype
        )

    @staticmethod
    def length(sizes: Any, tridiagonal: bool, dtype: DType) -> int:  # noqa: ARG004
        """Return how many numbers such a matrix is."""
        if int(sizes.sum()) > LARGEST:
            raise ValueError(
                f"block_sizes: expected a sum of at most {LARGEST}, got {int(sizes.sum())}. "
                "No machine holds scores of so many parameters."
            )
        numbers = int((sizes * sizes).sum())
        return numbers + int((sizes[1:] * sizes[:-1]).sum()) if tridiagonal else numbers

    @classmethod
    def factor_bytes(cls, sizes: Any, tridiagonal: bool, dtype: DType) -> int:
        """Return the bytes that the factor takes."""
        return cls.length(sizes, tridiagonal, dtype) * dtype.itemsize

    def like(self) -> "Blocks":
        """Return zeros of the same kind."""
        blocks = object.__new__(type(self))
        for name in Blocks.__slots__:
            setattr(blocks, name, getattr(self, name))
        blocks.numbers = self.engine.xp.zeros(self.numbers.shape, dtype=self.dtype)
        return blocks

    @property
    def dtype(self) -> DType:
        """Dtype of the entries."""
        return self.numbers.dtype  # type: ignore[no-any-return]

    # ---- the stacks, views of the numbers ----
    @property
    def held(self) -> list[Array]:
        """The diagonal blocks of each size, (m, s, s)."""
        columns = self._places.columns
        return self._views(0, [(c.blocks, c.length, c.length) for c in columns])

    @property
    def beside(self) -> list[Array]:
        """The blocks below them of each shape, (m, r, c)."""
        if self._below is None or self._across is None:
            return []
        both = zip(self._below.columns, self._across.columns, strict=True)
        start = int((self.sizes * self.sizes).sum())
        return self._views(start, [(r.blocks, r.length, c.length) for r, c in both])

    def _views(self, start: int, shapes: list[tuple[int, int, int]]) -> list[Array]:
        out = []
        for shape in shapes:
            end = start + math.prod(shape)
            out.append(self.numbers[start:end].reshape(shape))
            start = end
        return out

    # ---- sums ----
    def add_scores(
        self,
        scores: Array,
        weights: Array | None,
        *,
        centred: bool,
        fresh: bool,
        check_finite: bool,
        threads: int,  # noqa: ARG002
    ) -> Array | None:
        """Add the blocks of Σ w (s − m)* (s − m)ᵀ about their mean m, and return m; else m is 0.

        `fresh` says that all is zero; an error then spoils it. To check waits for the device once,
        and once for the mean.
        """
        engine, dtype = self.engine, self.dtype
        mean = column_mean(engine, scores, weights, dtype, check_finite) if centred else None
        own = self if fresh else self.like()
        for stack, columns in zip(own.held, self._places.columns, strict=True):
            stack += engine.block_moments(scores, weights, mean, columns, columns, dtype)
        if self._below is not None and self._across is not None:
            for stack, below, across in zip(
                own.beside, self._below.columns, self._across.columns, strict=True
            ):
                stack += engine.block_moments(scores, weights, mean, below, across, dtype)
        own._real_diagonal()
        if check_finite:
            # No entry of a positive semi-definite sum exceeds the largest of its diagonal.
            sums = own.diagonal() if fresh else own.diagonal() + self.diagonal()
            raise_if_spoilt(engine, sums, scores)
        if own is not self:
            self.add(own)
        return mean

    def add(self, other: "Blocks") -> None:
        """Add another of the same kind."""
        self.numbers += other.numbers

    def scale(self, factor: float) -> None:
        """Multiply every entry."""
        self.numbers *= factor

    def add_outer(self, x: Array, alpha: float, threads: int = 0) -> None:  # noqa: ARG002
        """Add the blocks of alpha · x* xᵀ."""
        for stack, own in zip(self.held, self._places.gathered(x), strict=True):
            stack += alpha * own.conj()[:, :, None] * own[:, None, :]
        if self._below is not None and self._across is not None:
            both = (self._below.gathered(x), self._across.gathered(x))
            for stack, below, across in zip(self.beside, *both, strict=True):
                stack += alpha * below.conj()[:, :, None] * across[:, None, :]
        self._real_diagonal()

    def set_blocks(self, diagonal: list[Array], neighbours: list[Array]) -> None:
        """Take over the diagonal blocks and those below them, in their order."""
        xp = self.engine.xp
        both = [(self._places, self.held, diagonal)]
        if self._below is not None:
            both.append((self._below, self.beside, neighbours))
        for places, stacks, given in both:
            for stack, some in zip(stacks, places.members, strict=True):
                stack[...] = xp.stack([given[int(b)] for b in some])

    # ---- reading ----
    def diagonal(self) -> Array:
        """Return the diagonal, (p,), real."""
        return self._places.joined([_diagonals(stack).real for stack in self.held])

    def product(self, V: Array, scale: float, threads: int = 0) -> Array:  # noqa: ARG002
        """Return scale · F V for V of shape (p, k)."""
        xp = self.engine.xp
        out = self._places.joined(
            [stack @ own for stack, own in zip(self.held, self._places.gathered(V), strict=True)]
        )
        out = scale * out
        if self._below is not None and self._across is not None:
            below, across = self._below, self._across
            rows, columns = below.gathered(V), across.gathered(V)
            out[below.first : below.last] += scale * below.joined(
                [N @ v for N, v in zip(self.beside, columns, strict=True)]
            )
            out[across.first : across.last] += scale * across.joined(
                [adjoints_of(xp, N) @ v for N, v in zip(self.beside, rows, strict=True)]
            )
        return out

    def norm1(self) -> float:
        """Return the largest column sum of absolute values."""
        return self.engine.read(self._norm1().reshape(1))[0]

    def _norm1(self) -> Array:
        """Return the largest column sum of absolute values, on the device."""
        xp = self.engine.xp
        sums = self._places.joined([xp.abs(stack).sum(axis=1) for stack in self.held])
        if self._below is not None and self._across is not None:
            below, across = self._below, self._across
            sums[below.first : below.last] += below.joined(
                [xp.abs(N).sum(axis=2) for N in self.beside]
            )
            sums[across.first : across.last] += across.joined(
                [xp.abs(N).sum(axis=1) for N in self.beside]
            )
        return xp.max(sums)

    def dot(self, other: "Blocks") -> float:
        """Return the trace of the product of two of the same kind, Σ F[i, j] G[i, j]*."""
        products = (self.numbers * other.numbers.conj()).real.astype(np.float64)
        inside = int((self.sizes * self.sizes).sum())
        total = products[:inside].sum() + 2 * products[inside:].sum()
        return self.engine.read(total.reshape(1))[0]

    def diagonal_blocks(self, scale: float) -> list[Array]:
        """Return scale times the diagonal blocks, each an array of its own."""
        return _listed(self._places, self.held, scale)

    def neighbours(self, scale: float) -> list[Array]:
        """Return scale times the blocks below the diagonal ones; none if there are none."""
        return [] if self._below is None else _listed(self._below, self.beside, scale)

    def stacks(self, scale: float) -> Iterator[tuple[Array, Array]]:
        """Yield, for each size s that occurs, rows (m, s) and diagonal blocks (m, s, s)."""
        for columns, some, stack in zip(
            self._places.columns, self._places.members, self.held, strict=True
        ):
            starts = (np.cumsum(self.sizes) - self.sizes)[some]
            rows = starts[:, None] + np.arange(columns.length)
            yield self.engine.from_host(rows), scale * stack

    # ---- the factor ----
    def cholesky(
        self,
        scale: float,
        shift: float | Array,
        *,
        threads: int = 0,  # noqa: ARG002
        with_norm: bool = True,
    ) -> "BlockFactor | ChainFactor":
        """Factor scale · F + diag(shift); the blocks stay as they are.

        Waits for the device once, to learn whether every pivot is above the rounding of its sum.
        `with_norm` reads the blocks once more, which `BlockFactor.rcond` needs.
        """
        from fastfisher._ops.device_block_factor import BlockFactor, factored
        from fastfisher._ops.device_chain import ChainFactor

        xp = self.engine.xp
        damped = self.like()
        damped.numbers += scale * self.numbers
        shifts = xp.zeros((self.size,), dtype=_check.real_of(self.dtype))
        shifts[...] = shift
        for stack, own in zip(damped.held, self._places.gathered(shifts), strict=True):
            diagonals = _diagonals(stack)
            diagonals += own.astype(self.dtype)
        norm = scale * self._norm1() + xp.max(shifts) if with_norm else None
        before = damped.diagonal()
        if self._below is None:
            factor: BlockFactor | ChainFactor = bound(BlockFactor, self.engine)(damped, norm)
            pivots = self._places.joined([factored(self.engine, one) for one in damped.held])
        else:
            factor = bound(ChainFactor, self.engine)(damped, norm)
            pivots = factor.pivots
        self._check_pivots(pivots, before)
        return factor

    def _check_pivots(self, pivots: Array, before: Array) -> None:
        """Raise if a pivot is not above the rounding of the diagonal entry it is left of."""
        xp = self.engine.xp
        # Rounding leaves a singular block pivots about as large as the sums that made it are long.
        terms = int(self.sizes.max()) * (1 + self.tridiagonal)
        tolerance = terms * float(np.finfo(self.dtype).eps)
        bad = ~((pivots > tolerance * before) & xp.isfinite(pivots))
        place = xp.argmax(bad.astype(np.int8))
        numbers = [xp.any(bad), place, xp.take(pivots, place.reshape(1))[0]]
        failed, at, value = self.engine.read(xp.stack([x.astype(np.float64) for x in numbers]))
        if failed:
            block = int(np.searchsorted(np.cumsum(self.sizes), at, side="right"))
            _check.positive_definite_report(
                (1 if math.isfinite(value) else 2, int(at), -1, value),
                tolerance,
                f" in block {block}",
                MASKED * self.tridiagonal,
            )

    def _real_diagonal(self) -> None:
        """Take off the diagonal what rounding left of imaginary parts."""
        if self.dtype.kind == "c":
            for stack in self.held:
                diagonals = _diagonals(stack)
                diagonals[...] = diagonals.real.astype(self.dtype)

    # ---- to the host and back ----
    def host(self) -> Any:
        """Return the same blocks of NumPy's, copied to the host."""
        from fastfisher._ops import for_dtype, numpy_ops

        to_host = self.engine.to_host
        held = for_dtype(numpy_ops, self.dtype).Blocks(self.sizes, self.tridiagonal, self.dtype)
        inside = _listed(self._places, [to_host(stack) for stack in self.held], 1.0)
        beside: list[Any] = []
        if self._below is not None:
            beside = _listed(self._below, [to_host(stack) for stack in self.beside], 1.0)
        held.set_blocks(inside, beside)
        return held

    @classmethod
    def from_host(cls, held: Any) -> "Blocks":
        """Return blocks of NumPy's, copied to the device."""
        upload = cls.engine.from_host
        inside = held.diagonal_blocks(1.0)
        blocks = cls(held.sizes, held.tridiagonal, inside[0].dtype)
        for places, stacks, given in (
            (blocks._places, blocks.held, inside),
            (blocks._below, blocks.beside, held.neighbours(1.0)),
        ):
            if places is not None:
                for stack, some in zip(stacks, places.members, strict=True):
                    stack[...] = upload(np.stack([given[int(b)] for b in some]))
        return blocks


def _diagonals(stack: Array) -> Array:
    """Return the diagonals of a stack (m, s, s), (m, s), a view."""
    count, size, _ = stack.shape
    return stack.reshape(count, size * size)[:, :: size + 1]


def _listed(places: Places, stacks: list[Any], scale: float) -> list[Any]:
    """Return scale times the blocks of all stacks, in their order."""
    out: list[Any] = [None] * sum(len(some) for some in places.members)
    for some, stack in zip(places.members, stacks, strict=True):
        scaled = scale * stack
        for place, b in enumerate(some.tolist()):
            out[b] = scaled[place].copy()
    return out
