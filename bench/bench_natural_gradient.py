"""Natural gradient from scores beside Cholesky of ``G.T @ G / n``, and the dual for n < p."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg as sla

import fastfisher as ff

from . import oracle
from .bench_fisher import scores
from .job import Job, as_test

DAMPING = 1e-2


def ours(G: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.natural_gradient(G, damping=DAMPING)
    return answer


def by_numpy(G: np.ndarray) -> np.ndarray:
    n, p = G.shape
    F = G.T @ G
    F /= n
    F.flat[:: p + 1] += DAMPING
    answer: np.ndarray = sla.cho_solve(
        sla.cho_factor(F, overwrite_a=True, check_finite=False), G.mean(axis=0)
    )
    return answer


def dual_by_numpy(G: np.ndarray) -> np.ndarray:
    n = len(G)
    K = G @ G.T
    K.flat[:: n + 1] += n * DAMPING
    answer: np.ndarray = G.T @ sla.cho_solve(
        sla.cho_factor(K, overwrite_a=True, check_finite=False), np.ones(n)
    )
    return answer


def by_torch(G: Any) -> Any:
    import torch

    F = G.T @ G / len(G)
    F.diagonal().add_(DAMPING)
    return torch.cholesky_solve(G.mean(0)[:, None], torch.linalg.cholesky(F))[:, 0]


def dual_by_torch(G: Any) -> Any:
    import torch

    K = G @ G.T
    K.diagonal().add_(len(G) * DAMPING)
    ones = torch.ones(len(G), 1, dtype=G.dtype)
    return G.T @ torch.cholesky_solve(ones, torch.linalg.cholesky(K))[:, 0]


def error(x: np.ndarray, G: np.ndarray) -> float:
    return oracle.natural_gradient_residual(x, G, DAMPING)


JOBS = [
    Job(
        "natural gradient",
        (4096, 2048),
        make=scores,
        ours=ours,
        lines={"cho_solve(cho_factor(G.T @ G / n + λI), G.mean(0))": by_numpy},
        torch=by_torch,
        error=error,
        tolerance=1e-11,
        work=lambda n, p, itemsize: (n * p * (p + 1) + p**3 / 3, n * p * itemsize),
    ),
    Job(
        "natural gradient, dual",
        (512, 200_000),
        make=scores,
        ours=ours,
        lines={"G.T @ cho_solve(cho_factor(G @ G.T + nλI), 1)": dual_by_numpy},
        torch=dual_by_torch,
        error=error,
        tolerance=1e-9,
        work=lambda n, p, itemsize: (p * n * (n + 1) + n**3 / 3, 2 * n * p * itemsize),
    ),
]

test_natural_gradient = as_test(JOBS)
