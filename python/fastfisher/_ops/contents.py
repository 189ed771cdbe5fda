"""What arguments hold: values in lists, tuples and dataclasses; which are streams or callbacks."""

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

import numpy as np

from fastfisher._ops.tensors import SHARED

__all__ = ["TENSORLESS", "does_algebra", "is_callback", "is_stream", "mapped"]

_Leaf = Callable[[str, Any], Any]

# Types whose values hold no tensors. Each dtype of NumPy has a type of its own.
PLAIN = frozenset({bool, int, float, complex, str, type(None), type, ModuleType, np.float64})
PLAIN |= {type(np.dtype(char)) for char in SHARED}
TENSORLESS = PLAIN | {np.ndarray}


def mapped(leaf: _Leaf, name: str, value: Any) -> Any:
    """Return the value with `leaf` applied to all it is made of; itself, if that changes nothing.

    Lists, tuples and dataclasses are taken apart.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if isinstance(value, list | tuple):
        if PLAIN.issuperset(map(type, value)):
            return value
        parts = [mapped(leaf, f"{name}[{i}]", part) for i, part in enumerate(value)]
        if all(part is before for part, before in zip(parts, value, strict=True)):
            return value
        return kind._make(parts) if hasattr(kind, "_make") else kind(parts)
    # Classes, functions with data of their own and operators stay whole.
    if is_dataclass(value) and not callable(value) and not does_algebra(value):
        parts = [(f.name, getattr(value, f.name)) for f in fields(value)]
        after = [mapped(leaf, f"{name}.{field}", part) for field, part in parts]
        changed = [
            (field, part)
            for (field, before), part in zip(parts, after, strict=True)
            if part is not before
        ]
        if changed:
            value = copy(value)
            for field, part in changed:
                object.__setattr__(value, field, part)
        return value
    return leaf(name, value)


def is_callback(value: Any) -> bool:
    """Tell whether this is a function of the caller, and no object that can be called too."""
    return callable(value) and not isinstance(value, type) and not does_algebra(value)


def is_stream(value: Any) -> bool:
    """Tell whether this gives values one by one and is no array: data loaders do."""
    return isinstance(value, Iterable) and not hasattr(value, "__getitem__")


def does_algebra(value: Any) -> bool:
    """Tell operators, data sets and preconditioners, which are served with our own arrays.

    Dask's tasks are let through as well: they claim to have any attribute.
    """
    return any(hasattr(value, word) for word in ("shape", "prepare"))
