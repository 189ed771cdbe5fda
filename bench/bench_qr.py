"""Natural gradient by QR of the scores beside ``qr(mode="r")`` and least squares."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg as sla

import fastfisher as ff

from . import oracle
from .bench_fisher import scores
from .job import Job, as_test


def ours(G: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.natural_gradient(G, damping=0.0, solver=ff.QR())
    return answer


def ours_streamed(G: np.ndarray) -> np.ndarray:
    F = ff.SquareRootFisher(G.shape[1], dtype=G.dtype)
    answer: np.ndarray = F.update_from(ff.chunks(G, rows=len(G) // 10)).solve(G.mean(axis=0))
    return answer


def by_scipy(G: np.ndarray) -> np.ndarray:
    p = G.shape[1]
    R = sla.qr(np.c_[G, np.ones(len(G))], overwrite_a=True, mode="r", check_finite=False)[0]
    answer: np.ndarray = sla.solve_triangular(R[:p, :p], R[:p, p], check_finite=False)
    return answer


def by_numpy(G: np.ndarray) -> np.ndarray:
    p = G.shape[1]
    R: Any = np.linalg.qr(np.c_[G, np.ones(len(G))], mode="r")
    answer: np.ndarray = sla.solve_triangular(R[:p, :p], R[:p, p], check_finite=False)
    return answer


def by_torch(G: Any) -> Any:
    import torch

    return torch.linalg.lstsq(G, torch.ones(len(G), 1, dtype=G.dtype), driver="gels")[0][:, 0]


def error(x: np.ndarray, G: np.ndarray) -> float:
    return oracle.least_squares_residual(x, G)


JOBS = [
    Job(
        f"natural gradient by QR{by}",
        shape,
        make=scores,
        ours=call,
        lines={
            'solve_triangular of scipy.linalg.qr(c_[G, 1], mode="r")': by_scipy,
            'solve_triangular of np.linalg.qr(c_[G, 1], mode="r")': by_numpy,
        },
        torch=by_torch,
        error=error,
        tolerance=1e-13,
        work=lambda n, p, itemsize: (2 * n * p**2 - 2 * p**3 / 3, n * p * itemsize),
    )
    for by, call, shape in (
        ("", ours, (100_000, 200)),
        ("", ours, (20_000, 1000)),
        (", streamed", ours_streamed, (100_000, 200)),
    )
]

test_qr = as_test(JOBS)
