"""Turns: who uses an accumulator uses it alone, and neither signals nor forks split a change."""

import os
import threading
import weakref
from _thread import get_ident
from collections.abc import Callable
from functools import wraps
from itertools import count
from typing import Any, TypeVar

try:  # without the enumerations of `signal`, which cost ten times what the calls do
    import _signal as signals  # type: ignore[import-not-found]
except ImportError:  # an interpreter that keeps them elsewhere
    import signal as signals

__all__ = ["Whole", "in_order", "new_lock", "still"]

_Verb = TypeVar("_Verb", bound=Callable[..., Any])

# Those that programs handle in Python. To ask for all 62 of Linux would take 1.5 µs.
_NAMES = "INT TERM ALRM HUP QUIT USR1 USR2 VTALRM PROF XCPU CHLD BREAK"
_SIGNALS = [
    int(getattr(signals, f"SIG{name}")) for name in _NAMES.split() if hasattr(signals, f"SIG{name}")
]
# What came while a fork waited comes again when all hooks of the fork are through: an exception in
# one of them would be printed and forgotten.
_AGAIN = 0.01  # seconds, where the hooks of Python itself take microseconds


# ---- signals ----
class Whole:
    """A block for which signals wait: their handlers run, and may raise, when the block is done.

    Python runs handlers in the main thread between two steps of ours. One that came during a long
    kernel would run right after it, where sums have a batch that the weights have not. A handler
    that is set within the block stays; one that a library set in C, behind Python's back, is lost.
    """

    __slots__ = ("_came", "_handlers", "_on")

    def __enter__(self) -> None:
        self._on = False
        self._came: dict[int, Any] = {}  # the frames that were left
        self._handlers: dict[int, Any] = {}
        if get_ident() != _python.main:
            return
        try:
            for number in _handled():
                handler = signals.getsignal(number)
                if callable(handler):  # one that ran since they were asked may have gone
                    self._handlers[number] = handler
                    signals.signal(number, self._note)
        except ValueError:  # `threading` takes another thread for the main one: nothing was set
            self._handlers.clear()
        except BaseException:
            self._restore()
            raise
        self._on = True

    def __exit__(self, *_: object) -> None:
        try:
            self._restore()
        finally:
            if self._came:
                came, self._came = list(self._came.items()), {}
                self._run(came)

    def _restore(self) -> None:
        self._on = False
        for number, handler in self._handlers.items():
            if signals.getsignal(number) == self._note:
                signals.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self._on:
            self._came[number] = frame
        else:  # between two handlers that are set or put back
            signals.signal(number, self._handlers[number])
            self._handlers[number](number, frame)

    def _run(self, came: list[tuple[int, Any]]) -> None:
        if came:
            number, frame = came[0]
            try:
                self._handlers[number](number, frame)
            finally:
                self._run(came[1:])


class _Python:
    """What Python told about signals the last time that it was asked."""

    main = threading.main_thread().ident
    # What was set for each signal, and for which of them that is a handler in Python.
    set: tuple[list[Any], list[int]] = ([], [])


_python = _Python()


def _handled() -> list[int]:
    """Return the signals that are handled in Python: hardly ever others than the last time."""
    before, numbers = _python.set
    now = [*map(signals.getsignal, _SIGNALS)]
    if now != before:
        numbers = [n for n, handler in zip(_SIGNALS, now, strict=True) if callable(handler)]
        _python.set = now, numbers
    return numbers


# ---- locks and forks ----
_locks: "weakref.WeakKeyDictionary[Any, int]" = weakref.WeakKeyDictionary()
_age = count()
_listing = threading.RLock()  # held to look into `_locks`, and never while waiting for another
_forking = threading.local()  # several threads may fork at once


def new_lock() -> Any:
    """Return a lock that its thread may take again, and that nobody holds while a process forks.

    A child has one thread: a lock that another held would stay locked in it for ever, over sums
    that are half changed. So a fork waits for its turn, as everyone does.
    """
    lock = threading.RLock()
    with _listing:
        _locks[lock] = next(_age)
    return lock


def in_order(*locks: Any) -> list[Any]:
    """Return locks in the order in which whoever takes several must take them: by age.

    Then nobody who waits for one holds a younger one, and none waits for another in a circle. A
    fork takes those that were made while it waited after all others.
    """
    return sorted(locks, key=_locks.__getitem__)


def _before_fork() -> None:
    taken: list[Any] = []
    _forking.taken, _forking.whole = taken, Whole()
    _forking.whole.__enter__()
    while True:
        _listing.acquire()
        for lock in in_order(*(set(_locks) - set(taken))):
            if not lock.acquire(blocking=False):
                break
            taken.append(lock)
        else:
            taken.append(_listing)
            return
        _listing.release()
        lock.acquire()
        taken.append(lock)


def _after_fork() -> None:
    for lock in _forking.taken:
        lock.release()
    _forking.taken = []
    _forking.whole._restore()


def _in_parent() -> None:
    _after_fork()
    for number in _forking.whole._came:
        main = threading.main_thread().ident
        threading.Timer(_AGAIN, signals.pthread_kill, (main, number)).start()


def _in_child() -> None:
    _python.main = get_ident()
    _after_fork()
    # The main thread may have been waiting to fork as well: it is not there to put these back.
    for number in _SIGNALS:
        handler = signals.getsignal(number)
        while isinstance(getattr(handler, "__self__", None), Whole):
            handler = handler.__self__._handlers[number]
            signals.signal(number, handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)


# ---- reads ----
def still(verb: _Verb) -> _Verb:
    """Let nobody change the Fisher, the first argument, while a verb reads it more than once."""

    @wraps(verb)
    def alone(fisher: Any, *args: Any, **kwargs: Any) -> Any:
        with fisher._still():
            return verb(fisher, *args, **kwargs)

    return alone  # type: ignore[return-value]
