"""Held verbs: those of the arrays that an object holds, on the device where it got them."""

from types import ModuleType
from typing import Any

__all__ = ["HeldVerbs"]


class HeldVerbs:
    """An attribute that is the verbs of an object's arrays, and refuses while another is current.

    Kernels are queued on the current device, where arrays of another one may not even be mapped.
    """

    def __set__(self, holder: Any, ops: ModuleType) -> None:
        holder.__dict__["_ops"] = ops, ops.here()

    def __get__(self, holder: Any, kind: type | None = None) -> ModuleType:
        ops: ModuleType
        ops, place = holder.__dict__["_ops"]
        if place and place != ops.here():
            raise ValueError(
                f"{type(holder).__name__}: expected the current device to be {place}, where its "
                f"arrays are, got {ops.here()}. Change the current device."
            )
        return ops
