"""Patches: one side of a layer, as rows that are gathered where they are needed and never all."""

from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._native import core
from fastfisher._ops.numpy_triangle import Triangle, bits
from fastfisher._ops.patch_geometry import PatchGeometry
from fastfisher._ops.types import NumpyArray as Array

__all__ = ["Patches"]


class Patches(PatchGeometry):
    """Patches of NumPy arrays, gathered by the core while it packs them."""

    __slots__ = ()

    @property
    def recipe(self) -> tuple[int, ...]:
        """How `x` becomes rows, as the core takes it."""
        return (*self.kernel, *self.stride, *self.padding, *self.dilation, self.ones)

    def unrolled(self, dtype: np.dtype[Any]) -> Array:
        """Return the rows as an array (n, T, d) of `dtype`: what the core never forms."""
        x = self.x.astype(dtype, copy=False)
        if any(self.padding):
            down, across = self.padding
            x = np.pad(x, ((0, 0), (0, 0), (down, down), (across, across)))
        (kh, kw), (dh, dw), (sh, sw) = self.kernel, self.dilation, self.stride
        windows = np.lib.stride_tricks.sliding_window_view(
            x, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(2, 3)
        )[:, :, ::sh, ::sw, ::dh, ::dw]
        rows = np.moveaxis(windows, 1, 3).reshape(
            self.samples, self.positions, self.width - self.ones
        )
        if self.ones:
            rows = np.concatenate([rows, np.ones((*rows.shape[:2], 1), dtype)], axis=2)
        return rows

    def matrix(self) -> Array | None:
        """Return the rows as a view (n T, d) of `x`, or None where they do not lie in one."""
        if self.ones or self.kernel != (1, 1) or self.padding != (0, 0):
            return None
        x: Array = self.x[:, :, :: self.stride[0], :: self.stride[1]]
        n, d, down, across = x.shape
        if down * across == 1:
            return x[:, :, 0, 0]
        rows = np.moveaxis(x, 1, 3)
        row = rows.strides[2] if across > 1 else rows.strides[1]
        steps = (down * across * row, across * row, row)
        for length, stride, step in zip((n, down, across), rows.strides, steps, strict=False):
            if length > 1 and stride != step:
                return None
        return np.lib.stride_tricks.as_strided(
            x, (n * down * across, d), (row, x.strides[1]), writeable=False
        )

    def reduced(self, *, mean: bool, dtype: np.dtype[Any]) -> "Patches":
        """Return the mean or the sum of each sample's rows, as patches of one position."""
        out = np.empty((self.samples, self.width), dtype)
        core.patches_sum(bits(self.x), self.recipe, 1 / self.positions if mean else 1.0, out, 0)
        return Patches(out[:, :, None, None])

    def add_moment(
        self,
        triangle: Triangle,
        weights: Array | None,
        *,
        fresh: bool,
        check_finite: bool,
        threads: int,
    ) -> None:
        """Add Σ_it w_i y_it y_itᵀ to `triangle`; `fresh` says that it is zero.

        An error leaves the triangle as it was, or undefined if it was `fresh`.
        """
        rows = self.matrix()
        if rows is not None:
            if weights is not None and self.positions > 1:
                weights = np.repeat(weights, self.positions)
            report = core.accumulate(
                bits(rows), weights, None, triangle.panels, fresh, check_finite, threads
            )
        else:
            report = core.patches_moment(
                bits(self.x), self.recipe, weights, triangle.panels, fresh, check_finite, threads
            )
        if report[0]:
            self.check_finite("layer", threads)
            _check.finite_report(report, "layer")

    def cross(self, other: "Patches", weights: Array | None, dtype: Any, threads: int) -> Array:
        """Return Σ_it w_i y_it z_itᵀ, (d, d'), with the rows z of `other`."""
        out = np.empty((self.width, other.width), dtype)
        core.patches_cross(
            bits(self.x), self.recipe, bits(other.x), other.recipe, weights, out, threads
        )
        return out

    def check_finite(self, name: str, threads: int = 0) -> None:
        """Raise NonFiniteError naming the sample and channel of a NaN or infinity in `x`."""
        report = core.patches_find_nonfinite(bits(self.x), threads)
        if report[0]:
            _check.finite_report(report, name)
