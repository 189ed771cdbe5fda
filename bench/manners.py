"""What the rows of the table cannot show: memory, import time, and how we live with neighbours."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.linalg as sla

import fastfisher as ff
from fastfisher.demo.clock import medians, stopwatch

from .bench_stream import cold_stream

Fact = tuple[str, str, str]  # what, measured, goal


def facts(full: bool) -> list[Fact]:
    """Measure all of them."""
    return [
        peak_memory(full),
        import_time(full),
        good_neighbour(full),
        *busy_neighbour(full),
        cold_stream(full),
    ]


def peak_memory(full: bool) -> Fact:
    """Peak memory of a natural gradient over its input, in a process of its own."""
    n, p = (4096, 2048) if full else (512, 256)
    code = f"""
import json, numpy as np, fastfisher as ff
from bench.manners import peak_of
G = np.random.default_rng(0).standard_normal(({n}, {p}))
ff.natural_gradient(G[:128, :64].copy(), damping=1e-2)  # threads and buffers that every call has
print(json.dumps(peak_of(lambda: ff.natural_gradient(G, damping=1e-2))))
"""
    peak = json.loads(_python(code))
    what = f"peak memory of a natural gradient {n} × {p}, over the input"
    if peak is None:
        return what, "not measurable on this system", "≤ 1.05 p² · 8 B"
    return what, f"{peak / 2**20:.1f} MiB = {peak / (8 * p * p):.2f} p² · 8 B", "≤ 1.05 p² · 8 B"


def peak_of(call: Callable[[], object]) -> int | None:
    """Bytes by which the resident set grew at its highest; None without Linux's counters."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    reset.write_text("5", encoding="ascii")  # puts VmHWM back to the present VmRSS
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def import_time(full: bool) -> Fact:
    """Milliseconds of ``import fastfisher`` once NumPy is there: median of fresh processes."""
    code = (
        "import time, numpy; t = time.perf_counter(); import fastfisher; t -= time.perf_counter()"
    )
    code += "; print(-t)"
    seconds = statistics.median(float(_python(code)) for _ in range(15 if full else 3))
    return "import fastfisher, beyond NumPy", f"{seconds * 1e3:.0f} ms", "≤ 30 ms"


def good_neighbour(full: bool) -> Fact:
    """NumPy's A @ B alone, and right after one of our calls."""
    size = 1500 if full else 300
    rng = np.random.default_rng(0)
    A, G = rng.standard_normal((size, size)), rng.standard_normal((2 * size, size // 2))
    product = stopwatch(lambda: A @ A)

    def after_ours() -> float:
        ff.empirical_fisher(G)
        return product()

    alone, after = medians([product, after_ours], rounds=25 if full else 3)
    what = f"NumPy's A @ B ({size}) right after one of our calls"
    return what, f"{after / alone - 1:+.1%}", "≤ 5 % slower"


def busy_neighbour(full: bool) -> list[Fact]:
    """What we and NumPy keep of our speed beside one busy process pinned to one core."""
    rng = np.random.default_rng(0)
    scale = 1 if full else 8
    G = rng.standard_normal((4096 // scale, 1024 // scale))
    H = rng.standard_normal((100_000 // scale, 500))
    v = rng.standard_normal(500)
    A = ff.empirical_fisher(rng.standard_normal((4000 // scale, 2000 // scale)))
    b = np.ones(len(A))
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        f"Fisher {G.shape[0]} × {G.shape[1]}": (
            lambda: ff.empirical_fisher(G),
            lambda: G.T @ G / len(G),
        ),
        f"F·v {H.shape[0]} × {H.shape[1]}": (
            lambda: ff.fvp(H, v),
            lambda: H.T @ (H @ v) / len(H),
        ),
        f"Cholesky solve {len(A)}": (
            lambda: ff.solve(A, b, damping=1e-2, solver=ff.Cholesky()),
            lambda: sla.solve(A + 1e-2 * np.eye(len(A)), b, assume_a="pos", overwrite_a=True),
        ),
    }
    watches = [stopwatch(call) for pair in pairs.values() for call in pair]
    rounds = 11 if full else 3
    alone = medians(watches, rounds=rounds)
    with _busy_process():
        beside = medians(watches, rounds=rounds)
    kept = [a / b for a, b in zip(alone, beside, strict=True)]
    return [
        (
            f"{name} beside one busy process on one core",
            f"keeps {ours:.0%} of its speed, NumPy {numpy:.0%}: ratio {ours / numpy:.2f}",
            "≥ 0.9 of what NumPy keeps",
        )
        for name, ours, numpy in zip(pairs, kept[::2], kept[1::2], strict=True)
    ]


@contextmanager
def _busy_process() -> Iterator[None]:
    """One endless loop, pinned to the first core that we may use, where pinning exists."""
    pin = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code = (pin if hasattr(os, "sched_setaffinity") else "") + "while True: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()


def _resident(field: str) -> int:
    """VmRSS or VmHWM in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def _python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
