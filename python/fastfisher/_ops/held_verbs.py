"""Held verbs: those of the arrays that an object holds, on the device where it got them."""

from functools import cache
from importlib import import_module
from operator import attrgetter
from types import ModuleType
from typing import Any

__all__ = ["held_verbs"]


class _OfHost:
    """The verbs of NumPy: no code of ours stands before them, as the host has no other device."""

    __slots__ = ("ops",)

    def __init__(self, ops: ModuleType) -> None:
        self.ops = ops

    def __reduce__(self) -> tuple[Any, ...]:
        return _loaded, (self.ops.__name__, "", "")


class _OfDevice:
    """The verbs of a device, which refuse while another is current.

    Kernels are queued on the current device, where arrays of another one may not even be mapped.
    """

    def __init__(self, ops: ModuleType, place: str, holder: str) -> None:
        self._ops, self._place, self._holder = ops, place, holder

    @property
    def ops(self) -> ModuleType:
        if self._place != self._ops.here():
            raise ValueError(
                f"{self._holder}: expected the current device to be {self._place}, where its "
                f"arrays are, got {self._ops.here()}. Change the current device."
            )
        return self._ops

    def __reduce__(self) -> tuple[Any, ...]:
        return _loaded, (self._ops.__name__, self._place, self._holder)


_of_host = cache(_OfHost)


def _held(ops: ModuleType, place: str, holder: str) -> _OfHost | _OfDevice:
    return _OfDevice(ops, place, holder) if place else _of_host(ops)


def _loaded(name: str, place: str, holder: str) -> _OfHost | _OfDevice:
    """Undo pickling, which takes the names of modules alone."""
    return _held(import_module(name), place, holder)


def _hold(holder: Any, ops: ModuleType) -> None:
    holder.__dict__["_verbs"] = _held(ops, ops.here(), type(holder).__name__)


def held_verbs() -> Any:
    """Return an attribute that is the verbs of an object's arrays, on the device of that moment."""
    return property(attrgetter("_verbs.ops"), _hold)
