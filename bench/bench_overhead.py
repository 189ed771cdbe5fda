"""What a call costs when there is hardly anything to compute."""

from __future__ import annotations

from typing import Any

import fastfisher as ff

from . import bench_diagonal, bench_fisher, bench_fvp
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


JOBS = [
    tiny("call overhead, Fisher", ff.empirical_fisher, bench_fisher.JOBS[0]),
    tiny("call overhead, diagonal", ff.fisher_diagonal, bench_diagonal.JOBS[0]),
    tiny("call overhead, F·v", ff.fvp, bench_fvp.JOBS[0]),
]

test_overhead = as_test(JOBS)
