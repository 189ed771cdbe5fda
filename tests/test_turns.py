"""Turns: threads on one accumulator of any kind, whole reads, forks beside them, and signals."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle
import representations
from fastfisher import _turns
from fastfisher.fisher.additive import Additive
from test_processes import TIMEOUT, at_once, forks, in_child, quiet

# Those whose F is that of all samples, whatever the order: the others are truncated sketches.
STREAMS = {
    name: (fisher, batch)
    for name, fisher, batch in representations.streams()
    if name != "approximate-low-rank-plain" and name != "approximate-low-rank-centred"
}
ROWS = slice(0, 60)


@pytest.fixture(params=STREAMS)
def constant(request: pytest.FixtureRequest) -> Any:
    """Return (F, F as a matrix, how to add a batch): all batches are the same, so F never changes.

    Unless it is caught half-way: with the sums of one more batch than the weights, say.
    """
    empty, batch = STREAMS[request.param]
    F = empty.copy().update(*batch(ROWS))
    return F, F.to_dense(), lambda: F.update(*batch(ROWS))


def same(found: np.ndarray, expected: float | np.ndarray) -> bool:
    """Compare to rounding: sums of some hundred equal batches."""
    return bool(np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max())


@contextmanager
def impatient() -> Iterator[None]:
    """Let threads take turns at nearly every step of the interpreter."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Hear Ctrl-C, to which a shell has what it runs in the background be deaf."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


# ---- threads ----
def test_no_read_is_torn(
    constant: tuple[Additive, np.ndarray, Callable[[], Additive]], tmp_path: Path
) -> None:
    F, expected, update = constant
    other = F.copy()
    v = np.linspace(1.0, 2.0, F.shape[0])
    logdet, dimension = F.logdet(0.5), F.effective_dimension(0.5)
    value = F.solve(v, damping=0.5, damping_mode="trace")
    leverage = F.leverage(v[None], 0.5) * F.weight_sum

    def write() -> None:
        for _ in range(6):
            update()
            F.decay(0.75)
            F.merge(other)

    def read() -> None:
        for _ in range(3):
            assert same(F.diagonal(), expected.diagonal())
            assert same(F @ v, expected @ v)
            assert same(F.to_dense(), expected)
            assert same(np.array(F.quadratic_form(v)), v @ expected @ v)
            assert F.logdet(0.5) == pytest.approx(logdet, rel=1e-9)
            assert F.effective_dimension(0.5) == pytest.approx(dimension, rel=1e-9)

    def solve() -> None:
        for solver in ("auto", ff.CG(rtol=1e-10)):
            found = ff.solve(F, v, damping=0.5, damping_mode="trace", solver=solver)
            assert same(found.value, value)
            assert found.residual is not None
            assert found.residual < 1e-9
        path = F.solve_path(v, [0.5, 1.0])
        assert max(path.residual) < 1e-9

    def copy() -> None:
        assert same(F.copy().to_dense(), expected)
        assert same(pickle.loads(pickle.dumps(F)).to_dense(), expected)
        name = tmp_path / f"{threading.get_ident()}.npz"
        F.save(name)
        G = ff.load(name)
        assert same(G.to_dense(), expected)
        assert same(G.leverage(v[None], 0.5) * G.weight_sum, leverage)

    with impatient():
        at_once([write, write, read, read, solve, copy])
    assert F.n_samples == (1 + 2 * 6 * 2) * other.n_samples
    assert same(F.to_dense(), expected)


def test_merging_in_every_direction_at_once(
    constant: tuple[Additive, np.ndarray, Callable[[], Additive]],
) -> None:
    F, expected, _ = constant
    G = F.copy()
    with impatient():
        at_once(
            [
                lambda: [F.merge(G).decay(0.5) for _ in range(8)],
                lambda: [G.merge(F).decay(0.5) for _ in range(8)],
                lambda: [F + G for _ in range(4)],
                lambda: F.merge(F, G, F).decay(0.25),
            ]
        )
    assert same(F.to_dense(), expected)
    assert same((G + G).to_dense(), expected)


def test_merging_with_itself_doubles(
    constant: tuple[Additive, np.ndarray, Callable[[], Additive]],
) -> None:
    F, expected, _ = constant
    weights, samples = F.weight_sum, F.n_samples
    F.merge(F)
    assert (F.weight_sum, F.n_samples) == (2 * weights, 2 * samples)
    assert same(F.to_dense(), expected)


# ---- forks ----
@forks
@quiet
def test_a_child_may_use_what_another_thread_is_changing(
    constant: tuple[Additive, np.ndarray, Callable[[], Additive]],
) -> None:
    F, expected, update = constant
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            update()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(4):
            assert in_child(lambda: same(F.to_dense(), expected) and same(
                update().to_dense(), expected))  # fmt: skip
    finally:
        done.set()
        thread.join(TIMEOUT)
    assert same(F.to_dense(), expected)


@forks
@quiet
def test_a_fork_waits_for_the_lock_of_another_thread() -> None:
    lock, held, done = _turns.new_lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait(TIMEOUT)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(TIMEOUT)
    threading.Timer(0.05, done.set).start()
    assert in_child(lambda: lock.acquire(timeout=5))
    thread.join(TIMEOUT)


class Holder:
    """A thread that holds locks for some time, or until it is told."""

    def __init__(self, *locks: Any, seconds: float = TIMEOUT) -> None:
        self.done, self.held = threading.Event(), threading.Event()
        self.locks, self.seconds = locks, seconds
        self.thread = threading.Thread(target=self.hold)
        self.thread.start()
        assert self.held.wait(TIMEOUT)

    def hold(self) -> None:
        for lock in self.locks:
            lock.acquire()
        self.held.set()
        self.done.wait(self.seconds)
        for lock in self.locks:
            lock.release()


def free(lock: Any) -> bool:
    """Tell whether another thread can have a lock."""
    found = []
    at_once([lambda: found.append(lock.acquire(timeout=5) and (lock.release() or True))])
    return found == [True]


@forks
@quiet
def test_ctrl_c_while_a_fork_waits_comes_after_it_and_leaves_no_lock() -> None:
    first, second = _turns.new_lock(), _turns.new_lock()
    holder = Holder(second, seconds=0.2)
    interrupted = threading.Timer(0.05, stop)
    interrupted.start()

    def fork() -> None:
        assert in_child(lambda: second.acquire(timeout=5))
        time.sleep(TIMEOUT)

    with pytest.raises(KeyboardInterrupt):
        fork()
    assert free(first)
    assert free(second)
    assert not holder.thread.is_alive()


@forks
@quiet
def test_a_fork_waits_for_what_is_made_while_it_waits() -> None:
    made = []

    def make() -> None:
        made.append(_turns.new_lock())
        made.append(Holder(made[0], seconds=0.3))

    holder = Holder(_turns.new_lock(), seconds=0.15)
    threading.Timer(0.05, make).start()
    assert in_child(lambda: made[0].acquire(timeout=5))
    assert not holder.thread.is_alive()
    assert free(made[0])


@forks
@quiet
def test_a_child_does_not_keep_a_shield_of_its_parent() -> None:
    """The main thread waits to fork, in its shield, when another forks."""
    lock, heard = _turns.new_lock(), []
    with _turns.Whole():
        work = lambda: heard.append(  # noqa: E731
            in_child(lambda: signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        )
        at_once([work])
    assert heard == [True]
    assert free(lock)


# ---- Ctrl-C ----
def stop() -> None:
    """Send this process a real SIGINT, where that does not end it at once."""
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGINT)
    else:
        interrupt_main()


def interrupt(job: Callable[[], object], after: float) -> None:
    """Interrupt a job after some seconds."""
    timer = threading.Timer(after, stop)

    def waited() -> None:
        timer.start()
        job()
        timer.join(TIMEOUT)  # the job ended before; so does this, by the interrupt
        time.sleep(1.0)

    with pytest.raises(KeyboardInterrupt):
        waited()
    timer.join(TIMEOUT)


def test_an_update_is_wholly_in_or_wholly_out(
    constant: tuple[Additive, np.ndarray, Callable[[], Additive]],
) -> None:
    F, expected, update = constant
    batch, other = F.n_samples, F.copy()

    def job() -> None:
        while True:
            update()
            F.merge(other).decay(0.5)

    for tenths_of_ms in range(1, 60, 6):
        interrupt(job, tenths_of_ms * 1e-4)
        assert F.n_samples % batch == 0
        assert same(F.to_dense(), expected)
    assert F._lock.acquire(blocking=False)
    F._lock.release()
    at_once([update])  # no lock was left behind for other threads to wait for


def test_ctrl_c_during_one_long_update() -> None:
    S = oracle.draw(40000, 200)
    F = ff.DenseFisher.from_scores(S)
    expected = F.to_dense()

    def job() -> None:
        while True:
            F.update(S)

    interrupt(job, 0.01)
    assert F.n_samples % len(S) == 0
    assert same(F.to_dense(), expected)


def test_ctrl_c_during_a_stream() -> None:
    S = oracle.draw(500, 40)
    F = ff.DenseFisher.from_scores(S)
    expected = F.to_dense()

    def endless() -> Iterator[np.ndarray]:
        while True:
            yield S

    interrupt(lambda: F.update_from(endless()), 0.05)
    assert F.n_samples % len(S) == 0
    assert same(F.to_dense(), expected)


@cache
def stubborn(kind: Any) -> Any:
    rng = np.random.default_rng(0)
    answer: ff.Fisher = kind.from_scores(
        rng.standard_normal((2500, 2000)) * np.logspace(0, -9, 2000)
    )
    return answer


@pytest.mark.parametrize("path", [False, True])
@pytest.mark.parametrize("kind", [ff.ScoreFisher, ff.DenseFisher])
def test_ctrl_c_during_long_iterations(kind: Any, path: bool) -> None:
    """Left alone, each would take a minute: 2 · 2000 steps without progress, and restarts."""
    F, v = stubborn(kind), np.ones(2000)
    solver = ff.CG(rtol=1e-13, max_iterations=10**7, preconditioner=None)

    def job() -> None:
        if path:
            F.solve_path(v, [1e-19, 2e-19], solver=solver)
        else:
            ff.solve(F, v, damping=1e-19, solver=solver)

    start = time.monotonic()
    interrupt(job, 0.2)
    assert time.monotonic() - start < 20.0
    if kind is ff.DenseFisher:
        assert free(F._lock)


def test_handlers_of_others_run_and_stay() -> None:
    came = []

    def handler(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with _turns.Whole():
            signal.raise_signal(signal.SIGINT)
            with _turns.Whole():
                signal.raise_signal(signal.SIGINT)
            assert not came
        assert came == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
        ff.DenseFisher(2).update(np.eye(2))
        assert signal.getsignal(signal.SIGINT) is handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with _turns.Whole():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_errors_and_ctrl_c_at_once_are_both_told() -> None:
    def fail() -> None:
        with _turns.Whole():
            signal.raise_signal(signal.SIGINT)
            raise ValueError

    with pytest.raises(KeyboardInterrupt) as caught:
        fail()
    assert isinstance(caught.value.__context__, ValueError)


def raising(
    error: type[BaseException], came: list[Any] | None = None
) -> Callable[[int, FrameType | None], None]:
    def handler(number: int, _: FrameType | None) -> None:
        if came is not None:
            came.append(number)
        raise error

    return handler


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="systems with timers")
def test_no_signal_tears_an_update() -> None:
    """A time limit, as those of test runners and schedulers of jobs, raises where it strikes."""
    S = oracle.draw(20000, 100)
    F = ff.DenseFisher.from_scores(S)
    expected = F.to_dense()

    def work(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        while True:
            F.update(S)

    before = signal.signal(signal.SIGALRM, raising(TimeoutError))
    try:
        for tenths_of_ms in range(1, 40, 3):
            with pytest.raises(TimeoutError):
                work(tenths_of_ms * 1e-4)
            assert same(F.to_dense(), expected)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="POSIX")
def test_every_handler_runs_though_one_raises() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGALRM, raising(TimeoutError, came))
    signal.signal(signal.SIGINT, raising(KeyboardInterrupt, came))

    def both() -> None:
        with _turns.Whole():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGALRM)

    try:
        with pytest.raises(TimeoutError) as caught:
            both()
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert isinstance(caught.value.__context__, KeyboardInterrupt)
    assert came == [signal.SIGINT, signal.SIGALRM]


def test_a_handler_that_is_set_within_stays() -> None:
    def handler(*_: Any) -> None:
        pass

    with _turns.Whole():
        signal.signal(signal.SIGINT, handler)
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is handler


# ---- interpreters ----
@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs SIGUSR1")
def test_a_handler_that_goes_while_they_are_asked_stays_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = _turns._handled

    def then_once() -> list[int]:
        numbers = asked()
        signal.raise_signal(signal.SIGUSR1)
        return numbers

    def once(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)

    before = signal.signal(signal.SIGUSR1, once)
    try:
        monkeypatch.setattr(_turns, "_handled", then_once)
        with _turns.Whole():
            signal.raise_signal(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_another_thread_may_be_taken_for_the_main_one() -> None:
    """As in a program that embeds Python: who imports `threading` first is the main thread."""
    code = """
import _thread, sys, time
assert "threading" not in sys.modules
done = []
def work():
    try:
        import numpy as np, fastfisher as ff
        print(ff.DenseFisher(2).update(np.eye(2)).n_samples)
    finally:
        done.append(True)
_thread.start_new_thread(work, ())
while not done:
    time.sleep(0.01)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.stdout == "2\n"


def test_a_subinterpreter_is_refused_and_harms_nobody() -> None:
    code = """
try:
    import _interpreters as interpreters
except ImportError:
    interpreters = __import__("pytest").importorskip("_xxsubinterpreters")
import numpy as np, fastfisher as ff
one = interpreters.create()
code = "try:\\n import fastfisher\\nexcept ImportError as error:\\n print(error)"
if hasattr(interpreters, "run_string"):
    interpreters.run_string(one, code)
interpreters.destroy(one)
print(ff.empirical_fisher(np.eye(2)).sum())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert "expected the main interpreter of the process, got a subinterpreter" in done.stdout
    assert done.stdout.endswith("1.0\n")
