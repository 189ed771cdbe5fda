"""Tensors in, tensors out: the one place where torch's tensors become our arrays and come back.

A tensor on the CPU is seen through a NumPy array, one on a CUDA device through CuPy's, both in the
memory where it lies, so that everything behind this file knows NumPy and CuPy alone. What is called
with tensors answers with tensors; an object that was given tensors has a *home*, their device, and
goes on answering with tensors there.

Only the outermost call crosses the border: what it calls in turn is inside, and gets and gives our
own arrays. A function of the caller, a callback or a generator, is outside again.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import ContextVar
from functools import cache, wraps
from inspect import signature
from sys import modules
from types import FunctionType
from typing import Any, ParamSpec, TypeVar
from weakref import ref

import numpy as np

from fastfisher._ops.contents import TENSORLESS, is_callback, is_stream, mapped
from fastfisher._ops.tensors import (
    array_of,
    array_of_fractions,
    numpy_dtype,
    of_fractions,
    on_stream_of,
    tensor_of,
)
from fastfisher.errors import FisherError

__all__ = ["Shown", "TakesTensors", "inside", "stands_for_tensors", "takes_tensors"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

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
        """Hold the array, of the library that the object is of: what was held first decides."""
        vars(instance)[self._name] = value


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
        # These refer weakly to what came: a stream or a callback gives more than memory holds.
        self._seen: list[tuple[ref[Any], Any]] = []  # (view, tensor)
        self._empty: list[ref[TakesTensors]] = []  # what came without a home, and may be given one
        self._others: list[ref[TakesTensors]] = []  # what is made of other arrays, and stays so

    def through(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Call the function with views of the tensors, and return tensors."""
        args = [self._inwards(_parameter(function, i), value) for i, value in enumerate(args)]
        kwargs = {name: self._inwards(name, value) for name, value in kwargs.items()}
        try:
            with _Setting(self), on_stream_of(self.home):
                answer = function(*args, **kwargs)
        except FisherError as error:
            if error.solution is not None:
                error.solution = self._outwards(error.solution)
            raise
        finally:
            self._settle()  # what a call that failed half-way has summed counts, too
        if function.__name__ == "__init__":
            args[0]._home = self.home
        return self._outwards(answer)

    def _settle(self) -> None:
        """Give a home to what has been filled, and forget what is gone."""
        for one in self._empty:
            came = one()
            if came is not None and came._filled and came._home is None:
                came._home = self.home
        self._seen = [(view, tensor) for view, tensor in self._seen if view() is not None]
        self._empty = [one for one in self._empty if one() is not None]
        self._others = [one for one in self._others if one() is not None]

    # ---- in ----
    def _inwards(self, name: str, value: Any) -> Any:
        return mapped(self._arrived, name, value)

    def _arrived(self, name: str, value: Any) -> Any:
        if isinstance(value, modules["torch"].Tensor):
            return self._view(name, value)
        if isinstance(value, modules["torch"].dtype):
            return numpy_dtype(name, value)
        if isinstance(value, TakesTensors):
            if value._home is not None:
                self._meet(name, value._home)
            else:
                (self._others if value._filled else self._empty).append(ref(value))
            return value
        if isinstance(value, np.ndarray):
            if array_of_fractions(value):
                self._refuse(name, "a NumPy array")
            return value
        if type(value).__module__.partition(".")[0] == "cupy" and hasattr(value, "shape"):
            self._refuse(name, "a CuPy array")
            return value
        if is_stream(value):
            return self._one_by_one(name, value)
        return self._asked(name, value) if is_callback(value) else value

    def _view(self, name: str, tensor: Any) -> Any:
        torch: Any = modules["torch"]
        if tensor.ndim and (self.home is not None or of_fractions(tensor)):
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
            view = array_of(name, tensor.resolve_conj().resolve_neg())
        except RuntimeError as error:
            raise TypeError(
                f"{name}: expected a tensor with memory of its own, got {type(tensor).__name__}. "
                "Inside a transformation of torch.func tensors stand for others: call from outside."
            ) from error
        self._seen.append((ref(view), tensor))
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
            self._settle()
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
        came: list[Any] = []  # empty while the next one is made: this one may be gone by then
        while True:
            self._settle()
            with _Setting(None):
                try:
                    came.append(next(iterator))
                except StopIteration:
                    return
            yield self._inwards(name, came.pop())

    # ---- out ----
    def _outwards(self, value: Any) -> Any:
        return value if self.home is None else mapped(self._left, "", value)

    def _left(self, _: str, value: Any) -> Any:
        for view, tensor in self._seen:
            if value is view():
                return tensor
        if isinstance(value, np.ndarray):
            return tensor_of(value)
        if isinstance(value, TakesTensors):
            if value._home is None and not any(value is other() for other in self._others):
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
        if kind in TENSORLESS:
            continue
        if kind is list or kind is tuple:
            ours = TENSORLESS.issuperset(map(type, value)) or _are_ours(value)
        elif isinstance(value, TakesTensors):
            ours = value._home is None
        else:
            ours = str(kind.__module__).startswith(_VERBS)
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
                kind = homes if of_fractions(value) else followers
                kind.append((place, path, str(value.device)))
        elif isinstance(value, np.ndarray):
            alone = alone and not array_of_fractions(value)
        elif isinstance(value, TakesTensors):
            if value._home is not None:
                found = True
                homes.append((place, path, value._home))
        elif isinstance(value, modules["torch"].dtype) or is_stream(value) or is_callback(value):
            found = True
        return value

    for place, value in enumerate(given):  # noqa: B007 (look notes the place)
        mapped(look, "", value)
    if not found:
        return None
    names = [*(_parameter(function, i) for i in range(len(args))), *kwargs]
    if names[0] == "self":
        names[0] = type(args[0]).__name__
    crossing = _Crossing()
    for place, path, home in homes or (followers if alone else []):
        crossing._meet(names[place] + path, home)
    return crossing


@cache
def _parameters(function: Any) -> tuple[str, ...]:
    return tuple(signature(function).parameters)


def _parameter(function: Any, place: int) -> str:
    """Return the name of a positional argument."""
    names = _parameters(function)
    return names[min(place, len(names) - 1)]
