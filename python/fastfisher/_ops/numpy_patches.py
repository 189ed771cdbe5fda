"""Patches: one side of a layer, as rows that are gathered where they are needed and never all."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops.numpy_triangle import Triangle

__all__ = ["Patches"]

Array = np.ndarray[Any, np.dtype[Any]]
Pair = tuple[int, int]

# Unrolled rows of a block of samples take about this many bytes.
_BLOCK_BYTES = 2**22


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

    def some(self, block: slice) -> "Patches":
        """Return the patches of some samples."""
        return replace(self, x=self.x[block])

    def blocks(self) -> list[slice]:
        """Return the samples cut into blocks whose unrolled rows take a few megabytes."""
        row = max(1, self.positions * self.width * 8)
        step = max(1, _BLOCK_BYTES // row)
        return [slice(i, min(i + step, self.samples)) for i in range(0, self.samples, step)]

    def unrolled(self, dtype: np.dtype[Any]) -> Array:
        """Return the rows as an array (n, T, d) of `dtype`: for blocks of samples only."""
        x = self.x.astype(dtype, copy=False)
        if any(self.padding):
            down, across = self.padding
            x = np.pad(x, ((0, 0), (0, 0), (down, down), (across, across)))
        (kh, kw), (dh, dw), (sh, sw) = self.kernel, self.dilation, self.stride
        windows = np.lib.stride_tricks.sliding_window_view(
            x, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(2, 3)
        )[:, :, ::sh, ::sw, ::dh, ::dw]
        rows = np.moveaxis(windows, 1, 3).reshape(self.samples, self.positions, -1)
        if self.ones:
            rows = np.concatenate([rows, np.ones((*rows.shape[:2], 1), dtype)], axis=2)
        return rows

    def reduced(self, *, mean: bool, dtype: np.dtype[Any]) -> "Patches":
        """Return the mean or the sum of each sample's rows, as patches of one position."""
        out = np.empty((self.samples, self.width), dtype)
        for block in self.blocks():
            out[block] = self.some(block).unrolled(dtype).sum(axis=1)
        if mean:
            out /= self.positions
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
        """Add Σ_it w_i y_it y_itᵀ to `triangle`; `fresh` says that it is zero."""
        dtype = triangle.panels.dtype
        for block in self.blocks():
            rows = self.some(block).unrolled(dtype)
            triangle.add_scores(
                rows.reshape(-1, self.width),
                None if weights is None else np.repeat(weights[block], self.positions),
                None,
                fresh=fresh,
                check_finite=check_finite,
                threads=threads,
            )

    def cross(self, other: "Patches", weights: Array | None, dtype: Any, threads: int) -> Array:  # noqa: ARG002
        """Return Σ_it w_i y_it z_itᵀ, (d, d'), with the rows z of `other`."""
        out = np.zeros((self.width, other.width), dtype)
        for block in self.blocks():
            left, right = self.some(block).unrolled(dtype), other.some(block).unrolled(dtype)
            if weights is not None:
                left = left * weights[block, None, None]
            out += left.reshape(-1, self.width).T @ right.reshape(-1, other.width)
        return out

    def check_finite(self, name: str) -> None:
        """Raise NonFiniteError naming the first entry of `x` that is NaN or infinite."""
        bad = ~np.isfinite(self.x)
        if bad.any():
            place = np.unravel_index(int(bad.argmax()), bad.shape)
            _check.finite_report((2, int(place[0]), int(place[1]), float(self.x[place])), name)
