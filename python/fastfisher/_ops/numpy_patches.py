"""Patches: one side of a layer, as rows that are gathered where they are needed and never all."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._native import core
from fastfisher._ops.numpy_triangle import Triangle, bits

__all__ = ["Patches"]

Array = np.ndarray[Any, np.dtype[Any]]
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Rows y_it, one for each sample i and position t, of one side of a layer.

    `x` is (n, channels, height, width), of any strides. Row (i, t) is the patch that a `kernel`
    sees at the t-th position of sample i, in C order of (channel, kernel row, kernel column), zero
    where it hangs over into the padding; then 1 if `ones`, the homogeneous coordinate of a bias. A
    linear layer is the 1 × 1 kernel, on one position or on many.
    """

    x: Array
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ones: bool = False

    @property
    def samples(self) -> int:
        """Number of samples, n."""
        return int(self.x.shape[0])

    @property
    def grid(self) -> Pair:
        """Positions down and across."""
        down, across = (
            (size + 2 * pad - step * (length - 1) - 1) // by + 1
            for size, length, by, pad, step in zip(
                self.x.shape[2:], self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        return down, across

    @property
    def positions(self) -> int:
        """Number of positions of a sample, T."""
        down, across = self.grid
        return down * across

    @property
    def width(self) -> int:
        """Length of a row, d."""
        return int(self.x.shape[1] * self.kernel[0] * self.kernel[1] + self.ones)

    @property
    def recipe(self) -> tuple[int, ...]:
        """How `x` becomes rows, as the core takes it."""
        return (*self.kernel, *self.stride, *self.padding, *self.dilation, self.ones)

    def some(self, block: slice) -> "Patches":
        """Return the patches of some samples."""
        return replace(self, x=self.x[block])

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
        x = self.x[:, :, :: self.stride[0], :: self.stride[1]]
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
