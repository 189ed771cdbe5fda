"""The array verbs for CuPy: those of ``device_ops`` on the engine of ``cupy_engine``."""

from typing import Any

from fastfisher._ops.cupy_engine import CupyEngine
from fastfisher._ops.device_ops import DeviceOps

_bound = DeviceOps(CupyEngine())


def __getattr__(name: str) -> Any:
    return getattr(_bound, name)
