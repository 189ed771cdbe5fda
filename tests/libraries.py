"""The array libraries that the conformance suite meets, each with the way there and back."""

import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

import device

REAL = ("float64", "float32")
HALVES = ("float16", "bfloat16")
COMPLEX = ("complex128", "complex64")


@dataclass(frozen=True)
class Library:
    """One library: how NumPy's arrays get there and back, and what its own are."""

    name: str
    to: Callable[[Any], Any]
    back: Callable[[Any], Any]
    is_own: Callable[[Any], bool]
    # Gives counts of what arrays are asked meanwhile; None where nobody counts.
    counted: Callable[[], Any] = nullcontext
    # Whether the verbs meet its arrays; tensors come to them as arrays of another library.
    has_verbs: bool = True
    lacks: tuple[str, ...] = ()


def half(name: str) -> np.dtype:
    """Return the dtype of this name; bfloat16 needs ml_dtypes."""
    if name == "bfloat16":
        answer: np.dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
        return answer
    return np.dtype(name)


def _torch(place: str) -> Library:
    def to(array: np.ndarray) -> Any:
        import torch

        array = np.asarray(array)
        if array.dtype.name == "bfloat16":
            bits = torch.from_numpy(np.ascontiguousarray(array).view(np.int16))
            return bits.view(torch.bfloat16).to(place)
        return torch.from_numpy(np.ascontiguousarray(array)).to(place)

    def is_own(array: Any) -> bool:
        import torch

        return isinstance(array, torch.Tensor) and array.device.type == place

    return Library(f"torch {place}", to, lambda x: x.cpu().numpy(), is_own, has_verbs=False)


def _cupy() -> Library:
    def to(array: Any) -> Any:
        import cupy

        return cupy.asarray(array)

    def back(array: Any) -> Any:
        import cupy

        return cupy.asnumpy(array)

    def is_own(array: Any) -> Any:
        import cupy

        return isinstance(array, cupy.ndarray)

    return Library("CuPy", to, back, is_own)


def _gpus() -> str | None:
    """Return in words why CuPy cannot be used, None where it can."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    import cupy

    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "no GPU"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no GPU: {error}"


def _no_torch(place: str) -> str | None:
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    if importlib.util.find_spec("fastfisher._ops.border") is None:
        return "tensors are not served"
    if place == "cuda":
        import torch

        return None if torch.cuda.is_available() and _gpus() is None else "no GPU for torch"
    return None


def _unless(reason: str | None) -> Any:
    return pytest.mark.skipif(reason is not None, reason=str(reason))


NUMPY = Library("NumPy", np.asarray, np.asarray, lambda x: type(x) is np.ndarray)
DEVICE = Library(
    "device",
    device.to_device,
    device.back,
    lambda x: isinstance(x, device.Array),
    device.counted,
)
EVERY = [
    pytest.param(NUMPY, id="numpy"),
    pytest.param(DEVICE, id="device"),
    pytest.param(_torch("cpu"), id="torch", marks=_unless(_no_torch("cpu"))),
    pytest.param(_cupy(), id="cupy", marks=[pytest.mark.gpu, _unless(_gpus())]),
    pytest.param(
        _torch("cuda"), id="torch-cuda", marks=[pytest.mark.gpu, _unless(_no_torch("cuda"))]
    ),
]
WITH_VERBS = [param for param in EVERY if cast(Library, param.values[0]).has_verbs]
