"""The CuPy engine: cuBLAS, cuSOLVER and kernels of our own where array expressions are slower."""

from typing import Any

import cupy
import numpy as np

from fastfisher._ops.array_engine import ArrayEngine
from fastfisher._ops.cupy_batches import CupyBatches
from fastfisher._ops.engine import Array, DType

__all__ = ["CupyEngine"]


class CupyEngine(CupyBatches, ArrayEngine):
    """The primitives of `Engine` for CuPy arrays, on the current stream of the current device."""

    name = "CuPy"
    xp: Any = cupy
    ndarray = cupy.ndarray

    def here(self) -> str:
        """Return the name of the current device."""
        return f"CUDA device {cupy.cuda.Device().id}"

    def where(self, array: Array) -> str:
        """Return the name of the device that holds `array`."""
        return f"CUDA device {array.device.id}"

    def free_bytes(self) -> int | None:
        """Return what the device has left and what CuPy's pool holds unused."""
        free, _ = cupy.cuda.runtime.memGetInfo()
        return int(free) + int(cupy.get_default_memory_pool().free_bytes())

    def to_host(self, array: Array) -> "np.ndarray[Any, DType]":
        """Copy an array to the host."""
        return cupy.asnumpy(array)  # type: ignore[no-any-return]
