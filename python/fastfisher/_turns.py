"""Turns: who uses an accumulator uses it alone, and neither signals nor forks split a change."""

import os
import threading
import weakref
from collections.abc import Callable
from functools import wraps
from signal import SIGINT
from typing import Any, TypeVar

try:  # without the enumerations of `signal`, which cost ten times what the calls do
    from _signal import getsignal, signal  # type: ignore[import-not-found]
except ImportError:  # an interpreter that keeps them elsewhere
    from signal import getsignal, signal

__all__ = ["Whole", "new_lock", "still"]

_Verb = TypeVar("_Verb", bound=Callable[..., Any])

_locks: "weakref.WeakSet[Any]" = weakref.WeakSet()
_listing = threading.RLock()  # held to look into `_locks`, and never while waiting for another
_forking = threading.local()  # several threads may fork at once


def new_lock() -> Any:
    """Return a lock that its thread may take again, and that nobody holds while a process forks.

    A child has one thread: a lock that another held would stay locked in it for ever, over sums
    that are half changed. So a fork waits for its turn, as everyone does.
    """
    lock = threading.RLock()
    with _listing:
        _locks.add(lock)
    return lock


def _before_fork() -> None:
    with _listing:
        locks = sorted(_locks, key=id)  # the order of `merge`
    for lock in (*locks, _listing):
        lock.acquire()
    _forking.locks = (*locks, _listing)


def _after_fork() -> None:
    for lock in _forking.locks:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )


class Whole:
    """A block for which Ctrl-C waits: its handler runs, and may raise, when the block is done.

    Python runs handlers in the main thread between two steps of ours. One that came during a long
    kernel would run right after it, where sums have a batch that the weights have not.
    """

    __slots__ = ("_frame", "_handler")

    def __enter__(self) -> None:
        self._frame: Any = None
        self._handler: Any = None
        if threading.current_thread() is threading.main_thread():
            handler = getsignal(SIGINT)
            if callable(handler):
                self._handler = handler
                signal(SIGINT, self._note)

    def __exit__(self, *_: object) -> None:
        if self._handler is not None:
            signal(SIGINT, self._handler)
            if self._frame is not None:
                self._handler(SIGINT, self._frame)

    def _note(self, _: int, frame: Any) -> None:
        self._frame = frame


def still(verb: _Verb) -> _Verb:
    """Let nobody change the Fisher, the first argument, while a verb reads it more than once."""

    @wraps(verb)
    def alone(fisher: Any, *args: Any, **kwargs: Any) -> Any:
        with fisher._still():
            return verb(fisher, *args, **kwargs)

    return alone  # type: ignore[return-value]
