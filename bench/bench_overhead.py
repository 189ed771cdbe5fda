"""What a call costs when there is hardly anything to compute."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastfisher as ff

from . import bench_diagonal, bench_fisher, bench_fvp, oracle
from .job import Job, as_test


def tiny(name: Any, ours: Any, like: Any, repeat: int = 500) -> Any:
    """The same job at n = 64, p = 10, called many times in a row."""
    return Job(
        name,
        (64, 10),
        make=like.make,
        ours=ours,
        lines=like.lines,
        error=like.error,
        tolerance=1e-13,
        repeat=repeat,
    )


class Running:
    """What an expert keeps while batches come: the sums and the number of samples."""

    def __init__(self, p: int, dtype: Any) -> None:
        self.sums, self.samples = np.zeros((p, p), dtype), 0

    def to_dense(self) -> np.ndarray:
        return self.sums / self.samples

    # By which a worker's answer is recognised.
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.to_dense()


def stream(rng: np.random.Generator, n: int, p: int, dtype: Any) -> Any:
    """Make a batch, and what it is added to again and again, so that F stays what it is."""
    return *bench_fisher.scores(rng, n, p, dtype), ff.DenseFisher(p), Running(p, dtype)


def update(G: np.ndarray, F: ff.DenseFisher, _: Running) -> ff.DenseFisher:
    return F.update(G)


def update_by_numpy(G: np.ndarray, _: ff.DenseFisher, running: Running) -> Running:
    running.sums += G.T @ G
    running.samples += len(G)
    return running


def update_error(answer: Any, G: np.ndarray, *_: Any) -> float:
    return oracle.fisher_error(answer.to_dense(), G)


JOBS = [
    tiny("call overhead, Fisher", ff.empirical_fisher, bench_fisher.JOBS[0]),
    tiny("call overhead, diagonal", ff.fisher_diagonal, bench_diagonal.JOBS[0]),
    tiny("call overhead, F·v", ff.fvp, bench_fvp.JOBS[0]),
    Job(
        "call overhead, update",
        (64, 10),
        make=stream,
        ours=update,
        lines={"A += G.T @ G; n += len(G)": update_by_numpy},
        error=update_error,
        tolerance=2e-11,  # n eps after up to 10⁵ batches
        repeat=500,
    ),
]

test_overhead = as_test(JOBS)
