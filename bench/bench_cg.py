"""Matrix-free conjugate gradients beside SciPy's on the same operator."""

from __future__ import annotations

import numpy as np
import scipy.sparse.linalg as sla

import fastfisher as ff

from . import oracle
from .job import Job, Real, as_test

DAMPING, RTOL = 1e-2, 1e-8


def scaled_scores(rng: np.random.Generator, n: int, p: int, dtype: Real) -> tuple[np.ndarray]:
    """Columns of very different size, so that the iteration has something to do."""
    return (rng.standard_normal((n, p), dtype=dtype) * np.geomspace(1, 1e-2, p, dtype=dtype),)


def ours(G: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.natural_gradient(G, damping=DAMPING, solver=ff.CG(rtol=RTOL))
    return answer


def by_scipy(G: np.ndarray) -> np.ndarray:
    n, p = G.shape
    F = sla.LinearOperator((p, p), matvec=lambda v: G.T @ (G @ v) / n + DAMPING * v, dtype=G.dtype)
    x, failed = sla.cg(F, G.mean(axis=0), rtol=RTOL, atol=0.0, maxiter=1000)
    if failed:
        raise AssertionError(f"scipy's cg stopped with {failed}")
    answer: np.ndarray = x
    return answer


JOBS = [
    Job(
        "natural gradient by CG",
        (40_000, 1000),
        make=scaled_scores,
        ours=ours,
        lines={"scipy.sparse.linalg.cg(LinearOperator)": by_scipy},
        error=lambda x, G: oracle.natural_gradient_residual(x, G, DAMPING),
        tolerance=1e-7,
    )
]

test_cg = as_test(JOBS)
