"""Held verbs: those of the arrays that an object holds, on the device where it got them."""

from functools import cache
from operator import attrgetter
from types import ModuleType, SimpleNamespace
from typing import Any

__all__ = ["held_verbs"]


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


@cache
def _of_host(ops: ModuleType) -> SimpleNamespace:
    """Return the verbs of the host, which has no devices to ask for: no code of ours is between."""
    return SimpleNamespace(ops=ops)


def _hold(holder: Any, ops: ModuleType) -> None:
    place = ops.here()
    verbs = _OfDevice(ops, place, type(holder).__name__) if place else _of_host(ops)
    holder.__dict__["_verbs"] = verbs


def held_verbs() -> Any:
    """Return an attribute that is the verbs of an object's arrays, on the device of that moment."""
    return property(attrgetter("_verbs.ops"), _hold)
