"""Results that left the range of their dtype: an error instead of infinity."""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from fastfisher.errors import NonFiniteError

__all__ = ["OutOfRangeError", "in_range"]

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


class OutOfRangeError(NonFiniteError):
    """What is raised, told apart so that a function may put its own name to it."""


def in_range(verb: _Verb) -> _Verb:
    """Let a method raise where its result, an array, a float or a list of them, is not finite.

    Of a device nothing is asked, which would be to wait for it, nor of a Fisher that was told not
    to check.
    """

    @wraps(verb)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            value = verb(self, *args, **kwargs)
        if value is NotImplemented:
            return value
        if self._ops.here() or not getattr(self, "_check_finite", True):
            return value
        if not _finite(self._ops, value):
            raise OutOfRangeError(
                f"{type(self).__name__}.{verb.__name__.strip('_')}: expected a result within the "
                f"range of {np.dtype(self._dtype)}, got overflow. Scale what went in, or use a "
                "wider dtype."
            )
        return value

    return checked  # type: ignore[return-value]


def _finite(ops: Any, value: Any) -> bool:
    if isinstance(value, list | tuple):  # of layers
        return all(_finite(ops, part) for part in value)
    return math.isfinite(value) if isinstance(value, float) else bool(ops.all_finite(value))
