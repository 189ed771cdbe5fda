"""Diagonal of the Fisher beside einsum and ``(G**2).mean(0)``: one reading of the scores."""

from __future__ import annotations

import numpy as np

import fastfisher as ff

from . import oracle
from .bench_fisher import scores
from .job import Job, as_test

JOBS = [
    Job(
        "diagonal",
        (200_000, 500),
        make=scores,
        ours=ff.fisher_diagonal,
        lines={
            "einsum('ij,ij->j', G, G) / n": lambda G: np.einsum("ij,ij->j", G, G) / len(G),
            "(G**2).mean(0)": lambda G: (G**2).mean(axis=0),
        },
        torch=lambda G: G.square().mean(0),
        error=oracle.diagonal_error,
        tolerance=1e-12,
        work=lambda n, p, itemsize: (2 * n * p, n * p * itemsize),
    )
]

test_diagonal = as_test(JOBS)
