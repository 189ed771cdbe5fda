"""Layered representations: vectors go in and come out flat or as a list of weights."""

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np

from fastfisher.fisher.factor import Factor, as_it_is
from fastfisher.fisher.protocol import Fisher

__all__ = ["Layered"]


class Layered(Fisher):
    """What Fishers of a network share: flat parameters are the weights' ravels, one after another.

    A vector may be given flat, (p,) or (p, k), or as the list of the weights' arrays, (d_out, d_in)
    or (d_out, …) of a convolution, and the answer has the form of the question.

    Attributes
    ----------
    shapes : list of (d_out, d_in)
        Of the weights.
    """

    _shapes: list[tuple[int, int]]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(d_out, d_in) of each layer's weight."""
        return list(self._shapes)

    def factor(self, **options: Any) -> Factor:
        """Return a reusable factorisation, which takes and returns lists of weights too."""
        factor = super().factor(**options)
        factor._unfolded = self._unfolded  # type: ignore[method-assign]
        return factor

    def _slices(self) -> list[slice]:
        """Return where each layer's parameters stand in the flat vector."""
        ends = list(accumulate(rows * columns for rows, columns in self._shapes))
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def _unfolded(self, name: str, v: Any) -> tuple[Any, Callable[[Any], Any]]:
        xp = self._ops.xp
        if not isinstance(v, (list, tuple)) or not any(np.ndim(one) for one in v[:1]):
            return v, as_it_is
        v = [
            self._ops.to_vector(f"{name}[{place}]", one, self._dtype) for place, one in enumerate(v)
        ]
        shapes = [tuple(one.shape) for one in v]
        if len(v) != len(self._shapes) or not all(map(_fits, v, self._shapes)):
            raise ValueError(
                f"{name}: expected a flat vector or weights of shapes {self._shapes}, got "
                f"{shapes}. One array for each layer, outputs first."
            )

        def fold(flat: Any) -> list[Any]:
            return [
                flat[..., where].reshape(*flat.shape[:-1], *shape)
                for where, shape in zip(self._slices(), shapes, strict=True)
            ]

        return xp.concat([one.reshape(-1) for one in v]), fold


def _fits(weight: Any, shape: tuple[int, int]) -> bool:
    """Tell whether this is a weight of the shape, of a kernel with more axes, or its ravel."""
    rows, columns = shape
    return bool(weight.size == rows * columns and (weight.ndim == 1 or weight.shape[0] == rows))
