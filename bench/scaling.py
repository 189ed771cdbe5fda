"""Strong scaling: the same problem on 1, 2, … threads, kernel by kernel.

``python -m bench.scaling`` measures it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

import fastfisher as ff
from fastfisher._native import core
from fastfisher.demo.clock import Stopwatch, medians, stopwatch

from .table import duration, put

Kernels = dict[str, Callable[[], object]]


def thread_counts(cores: int) -> list[int]:
    """1, 2, 3, 4, then doubling, and all cores."""
    counts = {1, 2, 3, 4, *(2**k for k in range(3, 10)), cores}
    return sorted(count for count in counts if count <= cores)


def kernels(full: bool) -> Kernels:
    """Every kernel on a problem that is large enough for all threads."""
    rng = np.random.default_rng(0)

    def draw(n: int, p: int) -> np.ndarray:
        return rng.standard_normal((n, p) if full else (n // 16 + 1, p // 8 + 1))

    square, tall, long, few = (
        draw(4096, 2048),
        draw(400_000, 32),
        draw(200_000, 500),
        draw(500, 20_000),
    )
    A = ff.empirical_fisher(draw(6000, 3000))
    v, V = np.ones(long.shape[1]), np.ones((long.shape[1], 8))
    weights = np.linspace(0.5, 1.5, len(tall))
    factor = ff.DenseFisher.from_matrix(A).factor(damping=1e-2)
    return {
        "Fisher": partial(ff.empirical_fisher, square),
        "Fisher, tall": partial(ff.empirical_fisher, tall),
        "Fisher, weighted and centred": partial(
            ff.empirical_fisher, tall, weights=weights, center=True
        ),
        "Gram": partial(ff.gram, few),
        "diagonal": partial(ff.fisher_diagonal, long),
        "F·v": partial(ff.fvp, long, v),
        "F·V, 8 vectors": partial(ff.fvp, long, V),
        "Cholesky solve": partial(ff.solve, A, A[0], damping=1e-2, solver=ff.Cholesky()),
        "inverse, of a factor": factor.inverse,
        "natural gradient": partial(ff.natural_gradient, square, damping=1e-2),
        "natural gradient by CG": partial(
            ff.natural_gradient, long, damping=1e-2, solver=ff.CG(rtol=1e-6)
        ),
    }  # fmt: skip


def measure(full: bool, counts: list[int]) -> dict[str, list[float]]:
    """Seconds per kernel and number of threads; the roofs as the seconds of a fixed work."""
    seconds: dict[str, list[float]] = {
        "*arithmetic alone*": [1e11 / max(core.fma_peak(8, t) for _ in range(3)) for t in counts],
        "*reading alone*": [
            1e9 / max(core.read_bandwidth(1 << (29 if full else 24), t) for _ in range(3))
            for t in counts
        ],
    }
    for name, call in kernels(full).items():
        watches = [_on(threads, stopwatch(call)) for threads in counts]
        seconds[name] = medians(watches, rounds=7, pause=0.02, spread=0.02, budget=4.0)
    return seconds


def _on(threads: int, watch: Stopwatch) -> Stopwatch:
    def seconds() -> float:
        before = ff.get_num_threads()
        ff.set_num_threads(threads)
        try:
            return watch()
        finally:
            ff.set_num_threads(before)

    return seconds


def table(seconds: dict[str, list[float]], counts: list[int]) -> str:
    """Time on one thread, then how many times faster on more."""
    more = " | ".join(f"× on {count}" for count in counts[1:])
    rows = [f"| kernel | on 1 thread | {more} |", f"|---|--:|{'--:|' * (len(counts) - 1)}"]
    for name, (one, *rest) in seconds.items():
        cells = [duration(one), *(f"{one / each:.2f}" for each in rest)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def report(full: bool) -> str:
    """Measure, and return the table."""
    counts = thread_counts(ff.get_num_threads())
    return table(measure(full, counts), counts)


if __name__ == "__main__":
    text = report(True)
    put("scaling", text)
    print(text)
