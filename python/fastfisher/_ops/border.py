"""Tensors in, tensors out: the one place where torch's tensors become our arrays and come back.

A tensor on the CPU is seen through a NumPy array, one on a CUDA device through CuPy's, both in the
memory where it lies, so that everything behind this file knows NumPy and CuPy alone. What is called
with tensors answers with tensors; an object that was given tensors has a *home*, their device, and
goes on answering with tensors there.

Only the outermost call crosses the border: what it calls in turn is inside, and gets and gives our
own arrays. A function of the caller, a callback or a generator, is outside again.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import fields, is_dataclass
from functools import cache, wraps
from importlib import import_module
from inspect import signature
from sys import modules
from types import FunctionType, ModuleType
from typing import Any, ParamSpec, TypeVar

import numpy as np

from fastfisher import _check
from fastfisher.errors import FisherError

__all__ = ["Shown", "TakesTensors", "inside", "stands_for_tensors", "takes_tensors"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Leaf = Callable[[str, Any], Any]

# What numbers torch has too.
_SHARED = frozenset("?bBhHiIlLqQefdFD")
# Types that hold no tensors. Each dtype of NumPy has a type of its own.
_PLAIN = frozenset({bool, int, float, complex, str, type(None), type, ModuleType, np.float64})
_PLAIN |= {type(np.dtype(char)) for char in _SHARED}
_OURS = _PLAIN | {np.ndarray}
# Where triangles, factors and the like are from, which hold arrays of ours.
_VERBS = "fastfisher._ops."
# Special methods that take arrays or give them.
_SPECIAL = frozenset({"__init__", "__matmul__", "__add__", "__iter__", "__getitem__"})

# The crossing that this code runs behind; None outside.
_current: ContextVar["_Crossing | None"] = ContextVar("fastfisher_crossing", default=None)


def takes_tensors(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a public function take tensors, and answer with tensors when it was given some."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if (
            "torch" not in modules
            or _current.get() is not None
            or (_are_ours(args) and (not kwargs or _are_ours(kwargs.values())))
        ):
            return function(*args, **kwargs)
        crossing = _crossing(function, args, kwargs)
        if crossing is None:
            return function(*args, **kwargs)
        return crossing.through(function, args, kwargs)  # type: ignore[no-any-return]

    return call


def inside(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return the function as those know it who have our own arrays, whoever calls it."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _Setting(_Crossing()):
            return function(*args, **kwargs)

    return call


def stands_for_tensors() -> bool:
    """Tell whether our arrays are views of tensors, which the caller knows, in this call."""
    crossing = _current.get()
    return crossing is not None and crossing.home is not None


class TakesTensors:
    """A class whose public methods take tensors, and which remembers where it was given some."""

    # The device of the tensors that this is made of, None if it is made of other arrays.
    _home: str | None = None

    @property
    def _filled(self) -> bool:
        """Whether it holds numbers by which its home is decided, though it be none."""
        return False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, member in list(vars(cls).items()):
            if name.startswith("_") and name not in _SPECIAL:
                continue
            if isinstance(member, classmethod | staticmethod):
                setattr(cls, name, type(member)(takes_tensors(member.__func__)))
            elif isinstance(member, FunctionType):
                setattr(cls, name, takes_tensors(member))


class Shown:
    """An array that is an attribute of an object, seen from outside as the object's tensor."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @takes_tensors
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Return the array."""
        if instance is None:
            return self
        try:
            return vars(instance)[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    @takes_tensors
    def __set__(self, instance: Any, value: Any) -> None:
        """Hold the array; set by a call with tensors, it gives the object a home."""
        vars(instance)[self._name] = value
        crossing = _current.get()
        if crossing is not None and instance._home is None:
            instance._home = crossing.home


class _Setting:
    """While this is entered, code runs behind the given crossing, or outside of any."""

    def __init__(self, crossing: "_Crossing | None") -> None:
        self._crossing = crossing

    def __enter__(self) -> None:
        self._token = _current.set(self._crossing)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


class _Crossing:
    """One call that came with tensors from one device: what goes in, and what comes back."""

    def __init__(self) -> None:
        self.home: str | None = None
        self._first = ""  # the name of what has this home
        self._seen: list[tuple[Any, Any]] = []  # (view, tensor)
        self._empty: list[TakesTensors] = []  # what came without a home, and may be given one
        self._others: list[TakesTensors] = []  # what is made of other arrays, and stays so

    def through(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Call the function with views of the tensors, and return tensors."""
        args = [self._inwards(_parameter(function, i), value) for i, value in enumerate(args)]
        kwargs = {name: self._inwards(name, value) for name, value in kwargs.items()}
        try:
            with _Setting(self), _device(self.home):
                answer = function(*args, **kwargs)
        except FisherError as error:
            if error.solution is not None:
                error.solution = self._outwards(error.solution)
            raise
        finally:
            for one in self._empty:  # what a call that failed half-way has summed counts, too
                if one._filled and one._home is None:
                    one._home = self.home
        if function.__name__ == "__init__":
            args[0]._home = self.home
        return self._outwards(answer)

    # ---- in ----
    def _inwards(self, name: str, value: Any) -> Any:
        return _mapped(self._arrived, name, value)

    def _arrived(self, name: str, value: Any) -> Any:
        if isinstance(value, modules["torch"].Tensor):
            return self._view(name, value)
        if isinstance(value, modules["torch"].dtype):
            return _dtype(name, value)
        if isinstance(value, TakesTensors):
            if value._home is not None:
                self._meet(name, value._home)
            else:
                (self._others if value._filled else self._empty).append(value)
            return value
        if isinstance(value, np.ndarray):
            if _array_of_fractions(value):
                self._refuse(name, "a NumPy array")
            return value
        if type(value).__module__.partition(".")[0] == "cupy" and hasattr(value, "shape"):
            self._refuse(name, "a CuPy array")
            return value
        if _is_stream(value):
            return self._one_by_one(name, value)
        return self._asked(name, value) if _is_callback(value) else value

    def _view(self, name: str, tensor: Any) -> Any:
        torch: Any = modules["torch"]
        if tensor.ndim and (self.home is not None or _of_fractions(tensor)):
            self._meet(name, str(tensor.device))
        if tensor.requires_grad:
            raise TypeError(
                f"{name}: expected a tensor without gradient, got one that requires grad. "
                f"Pass {name}.detach()."
            )
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
            kind = "quantised" if tensor.is_quantized else "nested"
            if tensor.layout not in (torch.strided, torch.jagged):
                kind = str(tensor.layout).removeprefix("torch.")
            raise TypeError(
                f"{name}: expected a dense tensor, got a {kind} one. "
                "Convert it: to_dense(), dequantize(), or padding."
            )
        if tensor.device.type not in ("cpu", "cuda"):
            raise TypeError(
                f"{name}: expected a tensor on the CPU or a CUDA device, got one on "
                f"{tensor.device}. Move it: {name}.cpu()."
            )
        if tensor.ndim == 0:
            return tensor.item()
        if name == "out" and (tensor.is_conj() or tensor.is_neg()):
            raise ValueError(
                "out: expected memory that holds the numbers themselves, got a lazy conjugate or "
                "negative of it. Give the tensor that it was made of, or a new one."
            )
        try:
            view = _array(name, tensor.resolve_conj().resolve_neg())
        except RuntimeError as error:
            raise TypeError(
                f"{name}: expected a tensor with memory of its own, got {type(tensor).__name__}. "
                "Inside a transformation of torch.func tensors stand for others: call from outside."
            ) from error
        self._seen.append((view, tensor))
        return view

    def _meet(self, name: str, home: str) -> None:
        """Raise unless what is called `name` lives where all the others do."""
        if self.home is None:
            self.home, self._first = home, name
        elif home != self.home:
            raise TypeError(
                f"{name}: expected a tensor on {self.home} as {self._first} is, got one on {home}. "
                "Nothing is moved silently: bring them to one device."
            )

    def _refuse(self, name: str, what: str) -> None:
        if self.home is not None:
            raise TypeError(
                f"{name}: expected a torch tensor on {self.home} as {self._first} is, got {what}. "
                "All arrays of a call are of one library; torch.from_numpy and torch.from_dlpack "
                "share memory."
            )

    def _asked(self, name: str, function: Any) -> Any:
        """Return a function of the caller, which gets tensors and may return some."""

        def ask(*args: Any, **kwargs: Any) -> Any:
            args = tuple(self._outwards(value) for value in args)
            kwargs = {key: self._outwards(value) for key, value in kwargs.items()}
            with _Setting(None):
                answer = function(*args, **kwargs)
            # Of a call without tensors a function may return some, which are only read.
            crossing = _Crossing() if self.home is None else self
            return crossing._inwards(f"what {name} returns", answer)

        return ask

    def _one_by_one(self, name: str, values: Iterable[Any]) -> Iterator[Any]:
        """Give what an iterable of the caller gives."""
        with _Setting(None):
            iterator = iter(values)
        while True:
            with _Setting(None):
                try:
                    value = next(iterator)
                except StopIteration:
                    return
            yield self._inwards(name, value)

    # ---- out ----
    def _outwards(self, value: Any) -> Any:
        return value if self.home is None else _mapped(self._left, "", value)

    def _left(self, _: str, value: Any) -> Any:
        for view, tensor in self._seen:
            if value is view:
                return tensor
        if isinstance(value, np.ndarray):
            return _tensor(modules["torch"], value)
        if isinstance(value, TakesTensors):
            if value._home is None and not any(value is other for other in self._others):
                value._home = self.home
            return value
        if isinstance(value, Generator):
            return map(self._outwards, value)
        if type(value).__module__.partition(".")[0] == "cupy" and hasattr(value, "shape"):
            return modules["torch"].from_dlpack(value)
        return value


def _are_ours(values: Iterable[Any]) -> bool:
    """Tell whether none of these is a tensor, holds one or may give one."""
    for value in values:
        kind = type(value)
        if kind in _OURS:
            continue
        if kind is list or kind is tuple:
            ours = _OURS.issuperset(map(type, value)) or _are_ours(value)
        elif isinstance(value, TakesTensors):
            ours = value._home is None
        else:
            ours = kind.__module__.startswith(_VERBS)
        if not ours:
            return False
    return True


def _crossing(function: Any, args: Any, kwargs: Any) -> _Crossing | None:
    """Return the crossing of a call that has tensors, or may come to have some; else None."""
    given = (*args, *kwargs.values())
    tensor = getattr(modules["torch"], "Tensor", None)
    if tensor is None:  # torch is being imported
        return None
    place, found, alone = 0, False, True
    homes: list[tuple[int, str, str]] = []
    followers: list[tuple[int, str, str]] = []  # labels and indices, which may be of any library

    def look(path: str, value: Any) -> Any:
        nonlocal found, alone
        if isinstance(value, tensor):
            found = True
            if value.ndim:
                kind = homes if _of_fractions(value) else followers
                kind.append((place, path, str(value.device)))
        elif isinstance(value, np.ndarray):
            alone = alone and not _array_of_fractions(value)
        elif isinstance(value, TakesTensors):
            if value._home is not None:
                found = True
                homes.append((place, path, value._home))
        elif isinstance(value, modules["torch"].dtype) or _is_stream(value) or _is_callback(value):
            found = True
        return value

    for place, value in enumerate(given):  # noqa: B007 (look notes the place)
        _mapped(look, "", value)
    if not found:
        return None
    names = [*(_parameter(function, i) for i in range(len(args))), *kwargs]
    if names[0] == "self":
        names[0] = type(args[0]).__name__
    crossing = _Crossing()
    for place, path, home in homes or (followers if alone else []):
        crossing._meet(names[place] + path, home)
    return crossing


def _is_callback(value: Any) -> bool:
    """Tell whether this is a function of the caller, and no object that can be called too."""
    return callable(value) and not isinstance(value, type) and not _does_algebra(value)


def _is_stream(value: Any) -> bool:
    """Tell whether this gives values one by one and is no array: data loaders do."""
    return isinstance(value, Iterable) and not hasattr(value, "__getitem__")


def _does_algebra(value: Any) -> bool:
    """Tell operators, data sets and preconditioners, which are served with our own arrays.

    Dask's tasks are let through as well: they claim to have any attribute.
    """
    return any(hasattr(value, word) for word in ("shape", "prepare"))


def _of_fractions(tensor: Any) -> bool:
    """Tell whether these are numbers to reckon with: integers are labels, counts and indices."""
    return bool(tensor.is_floating_point() or tensor.is_complex())


def _array_of_fractions(array: Any) -> bool:
    """Tell the same of an array of NumPy."""
    return array.ndim > 0 and (array.dtype.kind in "fc" or _check.is_half(array.dtype))


def _mapped(leaf: _Leaf, name: str, value: Any) -> Any:
    """Return the value with `leaf` applied to all it is made of; itself, if that changes nothing.

    Lists, tuples and dataclasses are taken apart.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, list | tuple):
        if _PLAIN.issuperset(map(type, value)):
            return value
        parts = [_mapped(leaf, f"{name}[{i}]", part) for i, part in enumerate(value)]
        if all(part is before for part, before in zip(parts, value, strict=True)):
            return value
        return kind._make(parts) if hasattr(kind, "_make") else kind(parts)
    # Classes, functions with data of their own and operators stay whole.
    if is_dataclass(value) and not callable(value) and not _does_algebra(value):
        parts = [(f.name, getattr(value, f.name)) for f in fields(value)]
        mapped = [_mapped(leaf, f"{name}.{field}", part) for field, part in parts]
        changed = [
            (field, part)
            for (field, before), part in zip(parts, mapped, strict=True)
            if part is not before
        ]
        if changed:
            value = copy(value)
            for field, part in changed:
                object.__setattr__(value, field, part)
        return value
    return leaf(name, value)


@cache
def _parameters(function: Any) -> tuple[str, ...]:
    return tuple(signature(function).parameters)


def _parameter(function: Any, place: int) -> str:
    """Return the name of a positional argument."""
    names = _parameters(function)
    return names[min(place, len(names) - 1)]


def _dtype(name: str, dtype: Any) -> Any:
    """Return NumPy's dtype of torch's."""
    word = str(dtype).removeprefix("torch.")
    try:
        return np.dtype(word)
    except TypeError:
        raise TypeError(
            f"{name}: expected a dtype of NumPy, got torch.{word}, which NumPy lacks. "
            "Sums are of float64, float32, complex128 or complex64."
        ) from None


# ---- one array ----
def _array(name: str, tensor: Any) -> Any:
    """Return NumPy's or CuPy's view of a tensor's memory; of bfloat16 that of its bits."""
    torch: Any = modules["torch"]
    halves = tensor.dtype == torch.bfloat16
    bits = tensor.view(torch.int16) if halves else tensor
    try:
        array = _cupy_array(name, bits) if tensor.is_cuda else bits.numpy()
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


def _cupy_array(name: str, tensor: Any) -> Any:
    try:
        cupy: Any = import_module("cupy")
    except ImportError:
        raise ImportError(
            f"{name}: expected CuPy for a tensor on {tensor.device}, got none. Install it for this "
            f"version of CUDA, or pass a copy on the host: {name}.cpu()."
        ) from None
    with _device(str(tensor.device)):
        return cupy.from_dlpack(tensor)


def _tensor(torch: Any, array: Any) -> Any:
    """Return the tensor that shares an array's memory, or has a copy where torch cannot."""
    halves = array.dtype.name == "bfloat16"
    if not (halves or array.dtype.char in _SHARED):
        return array
    if halves:
        array = array.view(np.int16)
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if halves else tensor


@contextmanager
def _device(home: str | None) -> Iterator[None]:
    """Let CuPy work on torch's current stream of a device, which then orders both."""
    if home is None or not home.startswith("cuda"):
        yield
        return
    cupy: Any = import_module("cupy")
    stream = modules["torch"].cuda.current_stream(home)
    place = stream.device.index
    with cupy.cuda.Device(place), cupy.cuda.ExternalStream(stream.cuda_stream, place):
        yield
