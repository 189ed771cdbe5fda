"""A device without hardware: arrays that refuse what CuPy's refuse, and count what they are asked.

They wrap arrays of ``array_api_strict`` on its fake devices, have the methods of CuPy's, never turn
into NumPy's unasked, and mix with no other library and no other device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import EllipsisType, ModuleType, SimpleNamespace
from typing import Any, cast

import array_api_strict as strict
import numpy as np
import numpy.typing as npt

from fastfisher._ops import KINDS
from fastfisher._ops.array_engine import ArrayEngine
from fastfisher._ops.device_ops import DeviceOps

# Functions of the array API standard that CuPy 14 lacks.
NOT_IN_CUPY = {"unstack", "vecdot"}
NOT_IN_CUPY_LINALG = {"cross", "diagonal", "matmul", "matrix_transpose", "outer", "tensordot",
                      "trace", "vecdot", "vector_norm"}  # fmt: skip

traffic = SimpleNamespace(reads=0, downloads=0, uploads=0)
# The device that calls work on, and the bytes left there, None for unknown.
now = SimpleNamespace(device=strict.Device("device1"), room=None)


@contextmanager
def counted() -> Iterator[SimpleNamespace]:
    """Give the counts of what is asked of all arrays meanwhile."""
    before = vars(traffic).copy()
    inside = SimpleNamespace(reads=0, downloads=0, uploads=0)
    try:
        yield inside
    finally:
        vars(inside).update({name: n - before[name] for name, n in vars(traffic).items()})


@contextmanager
def on(name: str) -> Iterator[None]:
    """Make another device the current one."""
    before, now.device = now.device, strict.Device(name)
    try:
        yield
    finally:
        now.device = before


@contextmanager
def left(size: int) -> Iterator[None]:
    """Let the device have so many bytes left."""
    before, now.room = now.room, size
    try:
        yield
    finally:
        now.room = before


def to_device(array: np.ndarray | Sequence[int]) -> Array:
    """Return an array of the device with the content of NumPy's."""
    array = np.asarray(array)
    half = array.dtype if array.dtype.char == "e" or array.dtype.name == "bfloat16" else None
    plain = array.astype(np.float32) if half is not None else array
    order = "C" if array.flags.c_contiguous else "K"
    held = strict.asarray(np.empty(0, plain.dtype), device=now.device)
    made = Array(held, half)
    made._wrapped = type(held)._new(np.array(plain, order=cast(Any, order)), device=now.device)
    traffic.uploads += 1
    return made


def back(array: Array) -> np.ndarray:
    """Return NumPy's copy of an array of the device."""
    traffic.downloads += 1
    held = np.array(array._wrapped._array)
    return held if array._half is None else held.astype(array._half)


class Array:
    """An array on the fake device."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, wrapped: Any, half: np.dtype | None = None) -> None:
        self._wrapped = wrapped
        self._half = half  # a dtype that the standard does not know; held in float32

    def _of(self, held: Any) -> Array:
        """Return an array of ours around NumPy's."""
        wrapped = type(self._wrapped)._new(np.asarray(held), device=self._wrapped.device)
        return Array(wrapped, self._half)

    # ---- what it is ----
    @property
    def dtype(self) -> np.dtype:
        answer: np.dtype = self._half or self._wrapped._array.dtype
        return answer

    @property
    def device(self) -> Any:
        return self._wrapped.device

    @property
    def T(self) -> Array:
        return self._of(self._wrapped._array.T)

    @property
    def real(self) -> Array:
        return self._of(self._wrapped._array.real)

    @property
    def imag(self) -> Array:
        return self._of(self._wrapped._array.imag)

    shape = property(lambda self: self._wrapped._array.shape)
    ndim = property(lambda self: self._wrapped._array.ndim)
    size = property(lambda self: self._wrapped._array.size)
    strides = property(lambda self: self._wrapped._array.strides)
    nbytes = property(lambda self: self.size * self.dtype.itemsize)
    itemsize = property(lambda self: self._wrapped._array.itemsize)

    def __len__(self) -> int:
        return len(self._wrapped._array)

    def __repr__(self) -> Any:
        return f"<device {self._wrapped._array!r}>"

    # ---- what must not happen unseen ----
    def __array__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def _read(self) -> np.ndarray:
        traffic.reads += 1
        answer: np.ndarray = self._wrapped._array
        return answer

    def __bool__(self) -> bool:
        return bool(self._read())

    def __int__(self) -> int:
        return int(self._read())

    def __index__(self) -> Any:
        return self._read().__index__()

    def __float__(self) -> float:
        return float(self._read())

    def __complex__(self) -> Any:
        return complex(self._read())

    def item(self) -> Any:
        return self._read().item()

    def tolist(self) -> list[float]:
        answer: list[float] = self._read().tolist()
        return answer

    # ---- parts ----
    def __getitem__(self, key: Any) -> Array:
        return self._of(self._wrapped._array[_key(key)])

    def __setitem__(
        self, key: slice | EllipsisType | tuple[slice | Array, Any], value: Any
    ) -> None:
        if isinstance(value, Array):
            same_device(self, value)
            value = value._wrapped._array
            if value.dtype.kind == "c" and self.dtype.kind != "c":
                raise TypeError("complex numbers are not written to a real array")
        elif isinstance(value, np.ndarray):
            raise TypeError("Unsupported type numpy.ndarray")
        self._wrapped._array[_key(key)] = value

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    # ---- methods that CuPy's have ----
    def astype(self, dtype: npt.DTypeLike, copy: bool = True) -> Array:
        dtype = np.dtype(dtype)
        if dtype == self.dtype and not copy:
            return self
        if dtype.kind == "f" and self.dtype.kind == "c":
            raise TypeError("the imaginary part would be lost")
        with np.errstate(all="ignore"):
            out = self._of(self._wrapped._array.astype(dtype))
        out._half = None
        return out

    def reshape(self, *shape: int | Sequence[int]) -> Array:
        return self._of(self._wrapped._array.reshape(*shape))

    def view(self, dtype: npt.DTypeLike) -> Any:
        return self._of(self._wrapped._array.view(dtype))

    def copy(self) -> Array:
        return self._of(self._wrapped._array.copy())

    def conj(self) -> Array:
        return self._of(self._wrapped._array.conj()) if self.dtype.kind == "c" else self

    def transpose(self, *axes: int) -> Array:
        return self._of(self._wrapped._array.transpose(*axes))

    def swapaxes(self, one: Any, other: complex | Array) -> Any:
        return self._of(self._wrapped._array.swapaxes(one, other))

    def mean(self, axis: int | None = None, dtype: str | None = None) -> Array:
        return self._of(self._wrapped._array.mean(axis=axis, dtype=dtype))

    def sum(
        self,
        axis: int | tuple[int, int] | None = None,
        dtype: npt.DTypeLike | None = None,
        keepdims: bool = False,
    ) -> Array:
        if self.dtype.kind == "b":
            return self.astype(np.int64).sum(axis, dtype, keepdims)
        dtype = dtype if dtype is None else np.dtype(dtype)
        answer: Array = namespace.sum(self, axis=axis, dtype=dtype, keepdims=keepdims)
        return answer

    def diagonal(self) -> Array:
        return self._of(self._wrapped._array.diagonal())

    def trace(self) -> Array:
        return self._of(self._wrapped._array.trace())

    def ravel(self) -> Any:
        return self.reshape(-1)

    def argmax(self, axis: int | None = None) -> Array:
        return self._of(self._wrapped._array.argmax(axis=axis))

    def max(self, axis: int | None = None) -> Array:
        answer: Array = namespace.max(self, axis=axis)
        return answer

    def min(self, axis: None = None) -> Array:
        answer: Array = namespace.min(self, axis=axis)
        return answer

    def any(self, axis: None = None) -> Array:
        answer: Array = namespace.any(self, axis=axis)
        return answer

    def all(self, axis: None = None) -> Array:
        answer: Array = namespace.all(self, axis=axis)
        return answer


def same_device(*arrays: Array) -> None:
    if len({str(x.device) for x in arrays}) > 1:
        raise ValueError("arrays on different devices")


def _key(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(map(_key, key))
    if isinstance(key, np.ndarray):
        raise TypeError("Unsupported type numpy.ndarray")
    return key._wrapped._array if isinstance(key, Array) else key


def _unwrapped(value: Any) -> Any:
    """Return what the strict namespace takes for an argument."""
    if isinstance(value, Array):
        return value._wrapped
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type numpy.ndarray")
    if isinstance(value, np.generic):
        return strict.asarray(value, device=now.device)
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return getattr(strict, np.dtype(value).name)
    if isinstance(value, list | tuple):
        return type(value)(map(_unwrapped, value))
    return value


def _wrapped(result: Any) -> Any:
    if isinstance(result, type(strict.asarray(0))):
        return Array(result)
    if isinstance(result, tuple):
        return tuple(map(_wrapped, result))
    answer: Array | tuple[Array, Array] = result
    return answer


def _held(result: Any) -> Any:
    if isinstance(result, np.ndarray | np.generic):
        return Array(strict.asarray(np.empty(0), device=now.device))._of(result)
    return result


def _operator(name: str, in_place: bool = False) -> Callable[..., Array]:
    def method(self: Array, other: complex | Array) -> Array:
        if isinstance(other, complex) and self.dtype.kind != "c":
            raise TypeError("a complex number changes the dtype of a real array")
        with np.errstate(all="ignore"):
            result = getattr(self._wrapped, name)(_unwrapped(other))
        return result if result is NotImplemented else Array(result)

    def update(self: Array, other: float | Array) -> Array:
        with np.errstate(all="ignore"):
            result = getattr(self._wrapped, f"__{name[3:]}")(_unwrapped(other))
        fits = np.can_cast(result._array.dtype, self._wrapped._array.dtype, "same_kind")
        if not fits or result.shape != self.shape:
            raise TypeError(f"{name} would change dtype or shape")
        self._wrapped._array[...] = result._array
        return self

    return update if in_place else method


for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "pow",
    "matmul",
    "mod",
    "floordiv",
    "and",
    "or",
    "xor",
):
    setattr(Array, f"__{_name}__", _operator(f"__{_name}__"))
    setattr(Array, f"__r{_name}__", _operator(f"__r{_name}__"))
    setattr(Array, f"__i{_name}__", _operator(f"__i{_name}__", in_place=True))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Array, f"__{_name}__", _operator(f"__{_name}__"))
for _name in ("neg", "abs", "invert"):
    setattr(Array, f"__{_name}__",
            lambda self, _name=f"__{_name}__": Array(getattr(self._wrapped, _name)()))  # fmt: skip

# What CuPy has besides, with NumPy's meaning.
_ALSO_IN_CUPY = {"array_equal", "ascontiguousarray", "diag", "diagonal", "einsum", "flatnonzero",
                 "kron", "ndim", "swapaxes", "trace", "vdot"}  # fmt: skip
_CREATORS = {"arange", "asarray", "empty", "eye", "full", "linspace", "ones", "zeros"}


class _Namespace:
    """Functions that both the standard and CuPy have."""

    def __init__(self, module: ModuleType, lacking: set[str]) -> None:
        self._module, self._lacking = module, lacking

    def __getattr__(self, name: str) -> Any:
        if name in self._lacking:
            raise AttributeError(f"CuPy has no {name}")
        if name in _ALSO_IN_CUPY:
            return lambda *args, **keywords: _held(getattr(np, name)(*map(_key, args), **keywords))
        found = getattr(self._module, name)
        if not callable(found) or isinstance(found, type):
            answer: Callable[..., Any] = found
            return answer
        if name in (
            "float32",
            "float64",
            "complex64",
            "complex128",
            "int64",
            "int32",
            "int8",
            "bool",
        ):
            return np.dtype(name)

        def function(*args: float | Array | Sequence[int | Array], **keywords: Any) -> Any:
            if name in _CREATORS:
                keywords.setdefault("device", now.device)
                at = 2 if name == "full" else 1
                if name not in ("arange", "eye", "linspace") and len(args) > at:
                    args, keywords["dtype"] = args[:at], args[at]
                if isinstance(keywords.get("dtype"), str):
                    keywords["dtype"] = np.dtype(keywords["dtype"])
            elif args and isinstance(args[0], Array):
                same_device(*(x for x in args if isinstance(x, Array)))
            keywords = {k: _unwrapped(v) for k, v in keywords.items()}
            with np.errstate(all="ignore"):  # a device warns of nothing
                return _wrapped(found(*map(_unwrapped, args), **keywords))

        return function


namespace: Any = _Namespace(strict, NOT_IN_CUPY)
namespace.linalg = _Namespace(strict.linalg, NOT_IN_CUPY_LINALG)
namespace.linalg.norm = lambda x: _held(np.linalg.norm(x._wrapped._array))
namespace.argsort = lambda x, kind: _wrapped(strict.argsort(x._wrapped, stable=kind == "stable"))
namespace.may_share_memory = lambda a, b: np.may_share_memory(a._wrapped._array, b._wrapped._array)


class Engine(ArrayEngine):
    """The plain engine on the fake device."""

    name = "device"
    xp = namespace
    ndarray = Array

    def here(self) -> str:
        return str(now.device)

    def free_bytes(self) -> int | None:
        answer: int | None = now.room
        return answer

    def to_host(self, array: Array) -> np.ndarray:
        return back(array)

    def from_host(self, array: np.ndarray) -> Array:
        return to_device(array)


_verbs = DeviceOps(cast(Any, Engine()))
KINDS["device"] = "device"


def __getattr__(name: str) -> Any:
    answer: Callable[..., Any] | _Namespace = getattr(_verbs, name)
    return answer
