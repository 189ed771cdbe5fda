"""Gram matrix of the scores beside ``G @ G.T / n``."""

from __future__ import annotations

import numpy as np

import fastfisher as ff

from . import oracle
from .bench_fisher import scores
from .job import Job, as_test


def by_numpy(G: np.ndarray) -> np.ndarray:
    K = G @ G.T
    K /= len(G)
    answer: np.ndarray = K
    return answer


JOBS = [
    Job(
        "Gram",
        (500, 20_000),
        make=scores,
        ours=ff.gram,
        lines={"G @ G.T / n": by_numpy},
        torch=lambda G: G @ G.T / len(G),
        error=oracle.gram_error,
        tolerance=1e-13,
        work=lambda n, p, itemsize: (p * n * (n + 1), n * p * itemsize),
    )
]

test_gram = as_test(JOBS)
