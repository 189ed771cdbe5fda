"""Domains: what parameters and observations may be, checked before anything is computed."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfisher._ops import on_host, ops_of
from fastfisher.errors import NonFiniteError

__all__ = [
    "Array",
    "at_most",
    "joint_shape",
    "not_negative",
    "observed",
    "own",
    "positive",
    "probability",
    "real",
    "whole",
]

Array = NDArray[np.float64]
_DOUBLE = np.dtype(np.float64)


def observed(value: Any) -> Array:
    """Return observations as float64, all finite."""
    array = _numbers("x", value)
    _demand("x", "finite values", array, np.isfinite(array), "Leave missing observations out.")
    return array


def real(name: str, value: Any) -> Array:
    """Return finite numbers."""
    array = _numbers(name, value)
    _demand(name, "finite numbers", array, np.isfinite(array), "Find out where it comes from.")
    return array


def positive(name: str, value: Any, advice: str) -> Array:
    """Return finite numbers above 0."""
    array = _numbers(name, value)
    _demand(name, "finite numbers above 0", array, (array > 0) & (array < math.inf), advice)
    return array


def not_negative(name: str, array: Array, advice: str) -> None:
    """Raise if a number is below 0."""
    _demand(name, "numbers that are not negative", array, array >= 0, advice)


def probability(name: str, value: Any) -> Array:
    """Return numbers from 0 to 1."""
    array = _numbers(name, value)
    _demand(name, "numbers from 0 to 1", array, (array >= 0) & (array <= 1), "It is a probability.")
    return array


def whole(name: str, value: Any, advice: str) -> Array:
    """Return whole numbers that are not negative, as float64."""
    array = _numbers(name, value)
    good = (array >= 0) & (array < math.inf)
    good &= np.floor(np.where(good, array, 0.5)) == array
    _demand(name, "whole numbers that are not negative", array, good, advice)
    return array


def at_most(name: str, array: Array, most: Any, advice: str) -> None:
    """Raise if a number is above `most`, which has the shape of `array` or is one number."""
    good = array <= most
    if not good.all():
        place = np.unravel_index(int(np.argmin(good)), good.shape)
        limit = np.broadcast_to(most, good.shape)[place]
        _demand(name, f"at most {limit:g}", np.broadcast_to(array, good.shape), good, advice)


def joint_shape(first: str, one: tuple[int, ...], second: str, two: tuple[int, ...]) -> Any:
    """Return the shape that two broadcast to."""
    try:
        return np.broadcast_shapes(one, two)
    except ValueError:
        raise ValueError(
            f"{first}: expected a shape that broadcasts with {two} of {second}, got {one}. "
            "Give one number for all samples, or one for each."
        ) from None


def own(array: Array, shape: tuple[int, ...]) -> Any:
    """Return a copy that nobody may write to, broadcast to `shape`; a number if that is ()."""
    if shape == array.shape == ():
        return array[()]
    return np.broadcast_to(array.copy(), shape)


def _numbers(name: str, value: Any) -> Array:
    on_host(name, value)
    array: Array = ops_of(value).to_vector(name, value, _DOUBLE)
    return array


def _demand(
    name: str,
    expected: str,
    array: Array,
    good: Any,
    advice: str,
) -> None:
    """Raise, naming the first number that is not good, and one that is none for what it is."""
    if not good.all():
        place = tuple(int(i) for i in np.unravel_index(int(np.argmin(good)), array.shape))
        where = f" at index {place[0] if len(place) == 1 else place}" if place else ""
        error = ValueError if math.isfinite(array[place]) else NonFiniteError
        raise error(f"{name}: expected {expected}, got {array[place]:g}{where}. {advice}")
