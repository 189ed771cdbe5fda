"""The callback of an iteration: it sees a record with copies of vectors, and may end it."""

from collections.abc import Callable
from typing import Any

__all__ = ["interrupts"]


def interrupts(
    callback: Callable[[Any], Any] | None, state: Callable[..., Any], record: Any, **vectors: Any
) -> bool:
    """Tell whether the callback ends the iteration: by what is true, or by StopIteration.

    It is called with a `state`, which has the fields of the record and the vectors.
    """
    if callback is None:
        return False
    fields = {name: getattr(record, name) for name in type(record).__slots__}
    seen = state(**fields, **{name: vector.copy() for name, vector in vectors.items()})
    try:
        return bool(callback(seen))
    except StopIteration:
        return True
