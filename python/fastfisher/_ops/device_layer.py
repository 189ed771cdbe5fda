"""LayerScores on a device: the two sides of a layer, whose products are the scores."""

from collections.abc import Iterator
from dataclasses import dataclass

from fastfisher._ops.array_engine import CHUNK_BYTES
from fastfisher._ops.conjugates import adjoints_of, squares
from fastfisher._ops.device_patches import Patches
from fastfisher._ops.device_triangle import Triangle
from fastfisher._ops.engine import Bound
from fastfisher._ops.types import Array, DType

__all__ = ["LayerScores"]

# Columns for each of which a product goes through the positions by itself: more jobs than these
# cost a device more than forming scores does. Not yet measured.
MOST_ALONE = 4


@dataclass(frozen=True, slots=True, eq=False)
class LayerScores(Bound):
    """Scores s_i = vec(Σ_t g_it a_itᵀ) of a layer with inputs a and output gradients g.

    Equivalent to the `LayerScores` of ``numpy_layer``. Products of k columns either go through the
    positions, k T multiplications per number of the weight, or form the scores of a few samples at
    a time, which takes T, and then k: the cheaper is taken.
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

    def some(self, block: slice) -> "LayerScores":
        """Return the scores of some samples."""
        return type(self)(self.a.some(block), self.g.some(block))

    def rows(self, block: slice, dtype: DType) -> Array:
        """Return some of the scores as an array (block, d_out · d_in), for small blocks."""
        a, g = self.a.some(block).unrolled(dtype), self.g.some(block).unrolled(dtype)
        return _formed(self.engine.xp, g, a)

    def _blocks(self, numbers: int, dtype: DType) -> Iterator[slice]:
        """Yield blocks of samples that fit in a chunk with so many numbers each, and their rows."""
        own = self.a.positions * max(self.shape)
        return self.engine.row_blocks(self.samples, max(own, numbers), dtype)

    def _through_positions(self, columns: int) -> bool:
        """Tell whether to go through the positions; a factor of 2 for what forming writes."""
        positions = self.a.positions
        return columns * positions <= 2 * (columns + positions)

    def dot(self, V: Array, threads: int) -> Array:  # noqa: ARG002
        """Return S V, (n, k), for V (d_out · d_in, k)."""
        (d_out, d_in), columns, dtype = self.shape, V.shape[1], V.dtype
        product, positions = self.engine.product, self.a.positions
        out = self.engine.xp.empty((self.samples, columns), dtype=dtype)
        if not self._through_positions(columns):
            for block in self._blocks(d_out * d_in, dtype):
                out[block] = product(self.rows(block, dtype), V)
            return out
        W = V.reshape(d_out, d_in * columns)
        for block in self._blocks(positions * d_in * columns, dtype):
            here = self.some(block)
            inner = product(here.g.flat(dtype), W).reshape(here.samples, positions * d_in, columns)
            a = here.a.unrolled(dtype).reshape(here.samples, positions * d_in, 1)
            out[block] = (inner * a).sum(axis=1)
        return out

    def transpose_dot(self, Y: Array, threads: int) -> Array:
        """Return Sᵀ Y, (d_out · d_in, k), for Y (n, k)."""
        (d_out, d_in), columns, dtype = self.shape, Y.shape[1], Y.dtype
        if columns <= MOST_ALONE and self._through_positions(columns):
            parts = [
                self.g.cross(self.a, Y[:, k], dtype, threads).reshape(-1) for k in range(columns)
            ]
            return self.engine.xp.stack(parts, axis=1)
        out = self.engine.xp.zeros((d_out * d_in, columns), dtype=dtype)
        for block in self._blocks(d_out * d_in, dtype):
            out += self.engine.product(self.rows(block, dtype).T, Y[block])
        return out

    def squares(
        self,
        weights: Array | None,
        dtype: DType,
        threads: int,  # noqa: ARG002
        bases: tuple[Array, Array] | None = None,
    ) -> Array:
        """Return Σ_i w_i (Σ_t g_it a_itᵀ)² elementwise, (d_out, d_in).

        `bases` (U_g, U_a), orthogonal, rotate first: Σ_i w_i (U_gᵀ (Σ_t g_it a_itᵀ) U_a)².
        """
        product, (d_out, d_in) = self.engine.product, self.shape
        out = self.engine.xp.zeros(self.shape, dtype=dtype)
        one = self.a.positions == 1
        for block in self._blocks(0 if one else d_out * d_in, dtype):
            here = self.some(block)
            sides = [side.unrolled(dtype) for side in (here.g, here.a)]
            if bases is not None:
                sides = [
                    product(Y.reshape(-1, Y.shape[2]), U).reshape(Y.shape)
                    for Y, U in zip(sides, bases, strict=True)
                ]
            own = None if weights is None else weights[block]
            if one:
                g, a = (squares(Y[:, 0]) for Y in sides)
                out += product((g if own is None else g * own[:, None]).T, a)
                continue
            squared = squares(_formed(self.engine.xp, *sides))
            if own is not None:
                squared = squared * own[:, None]
            out += squared.sum(axis=0).reshape(self.shape)
        return out

    def add_gram(self, triangle: Triangle, threads: int) -> None:  # noqa: ARG002
        """Add K_ij = s_i · s_j to `triangle` (n × n).

        K_ij = Σ_tu (a_it · a_ju)(g_it · g_ju), or the product of scores that are formed for a few
        outputs at a time: the cheaper of the two.
        """
        (d_out, d_in), positions = self.shape, self.a.positions
        if positions**2 * (d_out + d_in) <= d_out * d_in or positions == 1:
            self._add_gram_of_positions(triangle)
        else:
            self._add_gram_of_scores(triangle)

    def _add_gram_of_positions(self, triangle: Triangle) -> None:
        product, dtype, positions = self.engine.product, triangle.dtype, self.a.positions
        blocks = list(self._blocks(0, dtype))
        # A block of (rows T) × (rows T) products takes as much as the chunk that it is made of.
        most = max(int((CHUNK_BYTES // dtype.itemsize) ** 0.5) // positions, 1)
        blocks = [
            slice(at, min(at + most, block.stop))
            for block in blocks
            for at in range(block.start, block.stop, most)
        ]
        for place, down in enumerate(blocks):
            left = [side.some(down).flat(dtype) for side in (self.a, self.g)]
            for across in blocks[: place + 1]:
                right = [side.some(across).flat(dtype) for side in (self.a, self.g)]
                both = product(left[0], right[0].T) * product(left[1], right[1].T)
                if positions > 1:
                    shape = (down.stop - down.start, positions, across.stop - across.start)
                    both = both.reshape(*shape, positions).sum(axis=3).sum(axis=1)
                triangle.lower[down, across] += both

    def _add_gram_of_scores(self, triangle: Triangle) -> None:
        xp, dtype, (d_out, d_in) = self.engine.xp, triangle.dtype, self.shape
        for outputs in self.engine.row_blocks(d_out, self.samples * d_in, dtype):
            width = (outputs.stop - outputs.start) * d_in
            rows = xp.empty((self.samples, width), dtype=dtype)
            for block in self._blocks(width, dtype):
                here = self.some(block)
                g, a = here.g.unrolled(dtype)[:, :, outputs], here.a.unrolled(dtype)
                rows[block] = _formed(xp, g, a)
            self.engine.rank_update(triangle.lower, rows, outer=True)


def _formed(xp: object, g: Array, a: Array) -> Array:
    """Return vec(Σ_t g_it a_itᵀ) of each sample, (n, d_out · d_in), of (n, T, d)."""
    product = adjoints_of(xp, g) @ a
    return product.reshape(product.shape[0], product.shape[1] * product.shape[2])
