"""One tensor: its memory as an array of NumPy or CuPy, and the memory of an array as a tensor."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from sys import modules
from typing import Any

import numpy as np

from fastfisher import _check

__all__ = [
    "SHARED",
    "array_of",
    "array_of_fractions",
    "cupy_array_of",
    "numpy_dtype",
    "of_fractions",
    "on_stream_of",
    "tensor_of",
]

# What numbers torch has too.
SHARED = frozenset("?bBhHiIlLqQefdFD")


def of_fractions(tensor: Any) -> bool:
    """Tell whether these are numbers to reckon with: integers are labels, counts and indices."""
    return bool(tensor.is_floating_point() or tensor.is_complex())


def array_of_fractions(array: Any) -> bool:
    """Tell the same of an array of NumPy."""
    return array.ndim > 0 and (array.dtype.kind in "fc" or _check.is_half(array.dtype))


def numpy_dtype(name: str, dtype: Any) -> Any:
    """Return NumPy's dtype of torch's."""
    word = str(dtype).removeprefix("torch.")
    try:
        return np.dtype(word)
    except TypeError:
        raise TypeError(
            f"{name}: expected a dtype of NumPy, got torch.{word}, which NumPy lacks. "
            "Sums are of float64, float32, complex128 or complex64."
        ) from None


def array_of(name: str, tensor: Any) -> Any:
    """Return NumPy's or CuPy's view of a tensor's memory; of bfloat16 that of its bits."""
    torch: Any = modules["torch"]
    halves = tensor.dtype == torch.bfloat16
    bits = tensor.view(torch.int16) if halves else tensor
    try:
        array = cupy_array_of(name, bits) if tensor.is_cuda else bits.numpy()
    except TypeError:
        raise TypeError(
            f"{name}: expected numbers that NumPy has, got {tensor.dtype}. "
            "Convert them: float16 and bfloat16 are taken as they are."
        ) from None
    return array.view(_bfloat16(name)) if halves else array


def _bfloat16(name: str) -> Any:
    try:
        return import_module("ml_dtypes").bfloat16
    except ImportError:
        raise ImportError(
            f"{name}: expected the package ml_dtypes for tensors of bfloat16, got none. Install "
            "it: pip install ml_dtypes"
        ) from None


def cupy_array_of(name: str, tensor: Any) -> Any:
    """Return CuPy's view of a tensor's memory."""
    try:
        cupy: Any = import_module("cupy")
    except ImportError:
        raise ImportError(
            f"{name}: expected CuPy for a tensor on {tensor.device}, got none. Install it for this "
            f"version of CUDA, or pass a copy on the host: {name}.cpu()."
        ) from None
    with on_stream_of(str(tensor.device)):
        return cupy.from_dlpack(tensor)


def tensor_of(array: Any) -> Any:
    """Return the tensor that shares an array's memory, or has a copy where torch cannot."""
    torch: Any = modules["torch"]
    halves = array.dtype.name == "bfloat16"
    if not (halves or array.dtype.char in SHARED):
        return array
    if halves:
        array = array.view(np.int16)
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if halves else tensor


@contextmanager
def on_stream_of(home: str | None) -> Iterator[None]:
    """Let CuPy work on torch's current stream of a device, which then orders both."""
    if home is None or not home.startswith("cuda"):
        yield
        return
    cupy: Any = import_module("cupy")
    stream = modules["torch"].cuda.current_stream(home)
    place = stream.device.index
    with cupy.cuda.Device(place), cupy.cuda.ExternalStream(stream.cuda_stream, place):
        yield
