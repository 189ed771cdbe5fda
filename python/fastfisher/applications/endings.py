"""Endings that iterations share: by the callback, and at a start where the gradient is zero."""

from collections.abc import Callable
from typing import Any

from fastfisher.solvers.solution import Status

__all__ = ["INTERRUPTED", "STATIONARY", "ends", "interrupts"]

INTERRUPTED = Status.INTERRUPTED, "the callback ended it"
STATIONARY = Status.SUCCESS, "the gradient is zero at the start, which need not be a minimum"


def interrupts(
    callback: Callable[[Any], Any] | None, state: Callable[..., Any], record: Any, **vectors: Any
) -> bool:
    """Tell whether the callback ends the iteration, seeing a `state` made for it.

    That has the fields of the record and copies of the vectors.
    """
    if callback is None:
        return False
    fields = {name: getattr(record, name) for name in type(record).__slots__}
    copies = {name: vector.copy() for name, vector in vectors.items()}
    return ends(callback, state(**fields, **copies))


def ends(callback: Callable[[Any], Any] | None, seen: Any) -> bool:
    """Tell whether the callback ends the iteration: by what is true, or by StopIteration."""
    if callback is None:
        return False
    try:
        return bool(callback(seen))
    except StopIteration:
        return True
