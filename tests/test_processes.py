"""Processes and threads: forked, spawned, nested and limited callers all get the same bits."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everything
import fastfisher as ff
from fastfisher import _native

TIMEOUT = 60.0  # seconds; what hangs, hangs for ever
S = everything.draw(2000, 120)  # 29 million multiplications: worth several threads
WHOLE = np.rint(100 * S)  # integers add up exactly, in any order

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="systems with fork")
openmp = pytest.mark.skipif(not _native.core.openmp, reason="a build without OpenMP")
# Python warns of any fork beside threads; that it works is what is tested here.
quiet = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


# ---- processes ----
def in_child(job: Callable[..., bool]) -> bool:
    """Fork; tell whether `job()` was true there, and fail if it never ends."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if job() else 1
        finally:
            os._exit(code)
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return pytest.fail("the child hangs")


@forks
@quiet
def test_a_forked_child_computes() -> None:
    expected = ff.empirical_fisher(S, n_threads=3)

    def right() -> bool:
        return np.array_equal(ff.empirical_fisher(S, n_threads=3), expected)

    for _ in range(3):
        assert in_child(right)
        assert right()
    assert in_child(lambda: right() and in_child(right) and right())


@forks
@quiet
def test_a_child_forked_beside_a_busy_thread_computes() -> None:
    expected = ff.empirical_fisher(S)
    done = threading.Event()
    wrong = []

    def work() -> None:
        while not done.is_set():
            if not np.array_equal(ff.empirical_fisher(S, n_threads=2), expected):
                wrong.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            assert in_child(lambda: np.array_equal(ff.empirical_fisher(S, n_threads=2), expected))
    finally:
        done.set()
        thread.join(TIMEOUT)
    assert not wrong


@forks
@quiet
def test_children_forked_by_threads_of_a_pool_compute() -> None:
    expected = ff.empirical_fisher(S, n_threads=2)

    def right(_: None = None) -> bool:
        return np.array_equal(ff.empirical_fisher(S, n_threads=2), expected)

    F = ff.DenseFisher(S.shape[1])
    with ThreadPoolExecutor(3) as pool:
        forked = [pool.submit(in_child, right) for _ in range(6)]
        found = [pool.submit(right) for _ in range(6)]
        for _ in range(6):
            F.update(S)
            ff.DenseFisher(3)  # one more lock
        assert all(one.result(TIMEOUT) for one in (*forked, *found))


@quiet
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_multiprocessing(method: str) -> None:
    expected = ff.empirical_fisher(S, n_threads=2)
    with multiprocessing.get_context(method).Pool(2) as pool:
        calls = [pool.apply_async(ff.empirical_fisher, (S,), {"n_threads": 2}) for _ in range(4)]
        for call in calls:
            assert np.array_equal(call.get(TIMEOUT), expected)
        # Representations travel, and what workers saw adds up.
        parts = [
            pool.apply_async(ff.DenseFisher.from_scores, (part,)) for part in (S[:900], S[900:])
        ]
        first, second = (part.get(TIMEOUT) for part in parts)
    assert first.merge(second).n_samples == len(S)
    assert np.allclose(first.to_dense(), expected)


# ---- Python threads ----
def at_once(jobs: Sequence[Callable[..., Any]]) -> list[Any]:
    """Run all jobs at the same time, each in a thread, and return what they return."""
    start = threading.Barrier(len(jobs))

    def run(job: Callable[..., Any]) -> Any:
        start.wait(TIMEOUT)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result(TIMEOUT) for future in [pool.submit(run, job) for job in jobs]]


@pytest.mark.parametrize("n_threads", [None, 1, 3])
def test_threads_with_an_accumulator_each(n_threads: int | None) -> None:
    expected = ff.DenseFisher.from_scores(S, n_threads=1).to_dense()

    def job() -> np.ndarray:
        answer: np.ndarray = ff.DenseFisher.from_scores(S, n_threads=n_threads).to_dense()
        return answer

    for found in at_once([job] * 4):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", [ff.DenseFisher, ff.DiagonalFisher])
def test_threads_on_one_accumulator(kind: type[Any]) -> None:
    F = kind(S.shape[1], reduction="sum")
    other = kind.from_scores(WHOLE[:10], reduction="sum")

    def job(part: np.ndarray) -> None:
        for rows in np.array_split(part, 5):
            F.update(rows)
            F.diagonal()  # readers and writers mix
        F.merge(other)

    at_once([lambda part=part: job(part) for part in np.array_split(WHOLE, 4)])
    expected = WHOLE.T @ WHOLE + 4 * (WHOLE[:10].T @ WHOLE[:10])
    if kind is ff.DiagonalFisher:
        expected = np.diag(np.diag(expected))
    assert F.n_samples == F.weight_sum == len(S) + 40
    assert np.array_equal(F.to_dense(), expected)


def test_merging_both_ways_at_once_does_not_lock_up() -> None:
    a, b = (ff.DenseFisher.from_scores(WHOLE[:50], reduction="sum") for _ in range(2))
    at_once(
        [lambda: [a.merge(b.copy()) for _ in range(20)], lambda: [b.merge(a) for _ in range(3)]]
    )
    assert a.n_samples >= 50 * 21


def test_nested_in_a_pool_of_threads() -> None:
    """As joblib does it: each worker computes a whole task, several tasks per worker."""
    tasks = [S[:, : 20 + 10 * i] for i in range(8)]
    expected = [ff.natural_gradient(task, damping=0.1, n_threads=1) for task in tasks]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            found = pool.map(lambda task: ff.natural_gradient(task, damping=0.1), tasks)
            assert all(map(np.array_equal, found, expected))


# ---- limits: what the native side really uses ----
COUNTING = """
import os, numpy as np, fastfisher as ff
from fastfisher._native import core
S = np.ones((4000, 120))
def started(*args, **keywords):
    before = len(os.listdir("/proc/self/task"))
    ff.empirical_fisher(S, *args, **keywords)
    return len(os.listdir("/proc/self/task")) - before
"""


def counted(code: str, **environment: Any) -> list[str]:
    """Return what a fresh process prints, with these variables set."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTING + code],
        check=False,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@openmp
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux")
@pytest.mark.parametrize(
    ("environment", "code", "expected"),
    [
        ({"OMP_NUM_THREADS": "1"}, "print(core.max_threads(), started())", ["1", "0"]),
        ({"OMP_NUM_THREADS": "3"}, "print(started(n_threads=1), started(n_threads=3))", ["0", "2"]),
        ({"OMP_NUM_THREADS": "3"}, "ff.set_num_threads(1); print(started())", ["0"]),
        ({"OMP_NUM_THREADS": "3"}, "ff.set_num_threads(3); print(started())", ["2"]),
        ({"OMP_NUM_THREADS": "1"}, "ff.set_num_threads(3); print(started())", ["0"]),
        ({"OMP_NUM_THREADS": "8"}, "ff.set_num_threads(4); print(started())", ["3"]),
        ({"OMP_NUM_THREADS": "3", "OMP_THREAD_LIMIT": "2"}, "print(started(n_threads=3))", ["1"]),
    ],
)
def test_limits_hold(environment: dict[str, Any], code: str, expected: Sequence[str]) -> None:
    assert counted(code, **environment) == expected


@openmp
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux")
def test_the_default_obeys_the_quota_too() -> None:
    quota = _native.cpu_quota() or 3
    found = counted("print(core.max_threads(), started())", OMP_NUM_THREADS="3")
    assert found == [str(min(3, quota)), str(min(3, quota) - 1)]


@openmp
def test_threadpoolctl_limits_what_the_core_uses() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    before = _native.core.max_threads()
    for limits in (1, {"openmp": 1}):
        with threadpoolctl.threadpool_limits(limits):
            assert _native.core.max_threads() == 1
        assert _native.core.max_threads() == before

    def inside() -> int:
        with threadpoolctl.threadpool_limits(1):
            return _native.core.max_threads()

    assert at_once([inside, inside]) == [1, 1]


# ---- the same bits ----
@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """Keep `count` child processes computing."""
    loop = "import sys; print(flush=True)\nwhile True: sum(range(10**5))"
    children = [
        subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE) for _ in range(count)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def test_the_number_of_threads_changes_no_bit_beside_a_neighbour() -> None:
    """The sizes are past those of test_reproducibility.py: several tiles for each thread."""
    expected = everything.results(1, shapes=("tiles",))
    with busy_neighbours(1):
        for n_threads in (2, 8):
            found = everything.results(n_threads, shapes=("tiles",))
            assert found.keys() == expected.keys()
            differing = [k for k in found if not np.array_equal(found[k], expected[k])]
            assert not differing, f"{n_threads} threads change {differing}"


def test_the_default_number_of_threads_changes_no_bit() -> None:
    script = Path(everything.__file__)
    done = subprocess.run(
        [sys.executable, str(script), "1", "3", "8"],
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "8"},
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    if _native.core.openmp:
        assert [threads for threads, _ in lines] == ["1", "3", "8"]
    assert len({digest for _, digest in lines}) == 1


DAEMONS = """
import threading, time
import numpy as np, fastfisher as ff
S = np.random.default_rng(0).standard_normal((4000, 60))
K, v = np.eye(60), np.ones(60)
jobs = [
    lambda: ff.empirical_fisher(S),
    lambda: ff.fisher_diagonal(S),
    lambda: ff.fvp(S, v),
    lambda: ff.solve(ff.ScoreFisher(S), v, damping=0.1, solver=ff.CG(preconditioner=lambda r: r)),
    lambda: ff.batch.inverse(np.broadcast_to(np.eye(8), (2000, 8, 8))),
    lambda: ff.DenseFisher(60).update_from(ff.chunks(S, rows=500)),
]
def forever(job):
    try:
        while True:
            job()
    except RuntimeError:  # a stream's, whose thread Python does not start any more
        pass
for job in jobs:
    threading.Thread(target=forever, args=(job,), daemon=True).start()
time.sleep(0.3)
"""


def test_a_program_may_end_while_daemon_threads_compute() -> None:
    """Python ends a thread that asks for its lock then; compiled code has to survive that."""
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", DAEMONS],
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        # What Python code raises in a daemon thread then, Python prints; nobody else says anything.
        assert done.returncode == 0, done.stderr
        assert not done.stdout
        assert "terminate" not in done.stderr
