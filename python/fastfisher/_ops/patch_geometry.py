"""The geometry of patches: where a kernel stands in the images of a layer, in any library."""

from dataclasses import dataclass, replace
from typing import Self

from fastfisher._ops.types import Array, Pair

__all__ = ["PatchGeometry"]


@dataclass(frozen=True, slots=True, eq=False)
class PatchGeometry:
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

    def some(self, block: slice) -> Self:
        """Return the patches of some samples."""
        return replace(self, x=self.x[block])
