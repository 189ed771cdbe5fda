"""Portable: what holds verbs and can be pickled and copied, with their name in their place."""

from copyreg import __newobj__  # type: ignore[attr-defined]
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["Portable"]


class _Named(str):
    """The name of a module of verbs."""

    __slots__ = ()


class Portable:
    """A class whose attributes may be modules of verbs, alone or beside a device's name."""

    def __reduce__(self) -> tuple[Any, ...]:
        return __newobj__, (type(self),), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        return {name: _mapped(_named, value) for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({name: _mapped(_found, value) for name, value in state.items()})


def _mapped(leaf: Any, value: Any) -> Any:
    return tuple(map(leaf, value)) if type(value) is tuple else leaf(value)


def _named(value: Any) -> Any:
    return _Named(value.__name__) if isinstance(value, ModuleType) else value


def _found(value: Any) -> Any:
    return import_module(value) if isinstance(value, _Named) else value
