"""Patches on a device: one side of a layer, unfolded a few samples at a time."""

import math
from collections.abc import Iterator

from fastfisher import _check
from fastfisher._ops.device_finite import all_finite
from fastfisher._ops.device_triangle import Triangle
from fastfisher._ops.engine import Bound, bound
from fastfisher._ops.patch_geometry import PatchGeometry
from fastfisher._ops.types import Array, DType

__all__ = ["Patches"]


class Patches(PatchGeometry, Bound):
    """Patches of arrays on a device, unfolded for a few samples at a time.

    As many as `CHUNK_BYTES` hold.
    """

    def sample_blocks(self, dtype: DType, width: int = 0) -> Iterator[slice]:
        """Yield blocks of samples whose rows, or `width` numbers each, fit in a chunk."""
        numbers = max(self.positions * self.width, width)
        return self.engine.row_blocks(self.samples, numbers, dtype)

    def unrolled(self, dtype: DType) -> Array:
        """Return the rows as an array (n, T, d) of `dtype`."""
        xp, shape = self.engine.xp, (self.samples, self.positions, self.width - self.ones)
        x = self.x.astype(dtype, copy=False)
        if self.kernel == self.stride == (1, 1) and self.padding == (0, 0):
            rows = xp.permute_dims(x, (0, 2, 3, 1)).reshape(shape)
        else:
            rows = self.engine.patches(
                x, self.kernel, self.stride, self.padding, self.dilation, self.grid
            ).reshape(shape)
        if self.ones:
            rows = xp.concat([rows, xp.ones((*shape[:2], 1), dtype=dtype)], axis=2)
        return rows

    def flat(self, dtype: DType) -> Array:
        """Return the rows as an array (n T, d) of `dtype`."""
        return self.unrolled(dtype).reshape(self.samples * self.positions, self.width)

    def reduced(self, *, mean: bool, dtype: DType) -> "Patches":
        """Return the mean or the sum of each sample's rows, as patches of one position."""
        out = self.engine.xp.empty((self.samples, self.width), dtype=dtype)
        for block in self.sample_blocks(dtype):
            out[block] = self.some(block).unrolled(dtype).sum(axis=1)
        if mean:
            out /= self.positions
        return type(self)(out[:, :, None, None])

    def add_moment(
        self,
        triangle: Triangle,
        weights: Array | None,
        *,
        fresh: bool,
        check_finite: bool,
        threads: int,  # noqa: ARG002
    ) -> None:
        """Add Σ_it w_i y_it y_itᵀ to `triangle`; `fresh` says that it is zero.

        An error leaves the triangle as it was, or undefined if it was `fresh`. To check waits for
        the device once.
        """
        own = triangle
        if check_finite and not fresh:
            own = bound(Triangle, self.engine)(triangle.size, triangle.dtype)
        for block in self.sample_blocks(triangle.dtype):
            rows = self.some(block).flat(triangle.dtype)
            self.engine.add_scores(own.lower, rows, self._repeated(weights, block), None)
        if check_finite:
            sums = own.diagonal() if own is triangle else own.diagonal() + triangle.diagonal()
            if not all_finite(self.engine, sums):
                self.check_finite("layer")
                column = self.engine.first_bad(sums.reshape(1, -1))[1]
                _check.finite_report((2, -1, column, math.inf), "layer")
        if own is not triangle:
            triangle.add(own)

    def cross(self, other: "Patches", weights: Array | None, dtype: DType, threads: int) -> Array:  # noqa: ARG002
        """Return Σ_it w_i y_it z_itᵀ, (d, d'), with the rows z of `other`."""
        out = self.engine.xp.zeros((self.width, other.width), dtype=dtype)
        for block in self.sample_blocks(dtype, other.positions * other.width):
            rows, others = self.some(block).flat(dtype), other.some(block).flat(dtype)
            repeated = self._repeated(weights, block)
            if repeated is not None:
                rows = rows * repeated[:, None]
            out += self.engine.product(rows.T, others)
        return out

    def check_finite(self, name: str, threads: int = 0) -> None:  # noqa: ARG002
        """Raise NonFiniteError naming the sample and channel of a NaN or infinity in `x`."""
        if self.samples and not all_finite(self.engine, self.x):
            row, column, value = self.engine.first_bad(self.x.reshape(self.samples, -1))
            channel = column // math.prod(self.x.shape[2:])
            _check.finite_report((2, row, channel, value), name)

    def _repeated(self, weights: Array | None, block: slice) -> Array | None:
        """Return the weights of the rows of some samples."""
        if weights is None or self.positions == 1:
            return None if weights is None else weights[block]
        return self.engine.xp.repeat(weights[block], self.positions)
