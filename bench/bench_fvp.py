"""Fisher-vector products beside ``G.T @ (G @ v) / n``, for 1, 4 and 8 vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastfisher as ff

from . import oracle
from .job import Job, Real, as_test


def by_numpy(G: np.ndarray, V: np.ndarray) -> np.ndarray:
    answer: np.ndarray = G.T @ (G @ V) / len(G)
    return answer


def job(k: Any) -> Any:
    def make(
        rng: np.random.Generator, n: int, p: int, dtype: Real
    ) -> tuple[np.ndarray, np.ndarray]:
        G, V = rng.standard_normal((n, p), dtype=dtype), rng.standard_normal((p, k), dtype=dtype)
        return G, V[:, 0].copy() if k == 1 else V

    return Job(
        "F·v" if k == 1 else f"F·V, {k} vectors",
        (200_000, 500),
        make=make,
        ours=ff.fvp,
        lines={"G.T @ (G @ V) / n": by_numpy},
        torch=by_numpy,
        error=oracle.product_error,
        tolerance=1e-12,
        work=lambda n, p, itemsize: (4 * n * p * k, n * p * itemsize),
    )


JOBS = [job(k) for k in (1, 4, 8)]

test_fvp = as_test(JOBS)
