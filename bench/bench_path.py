"""A path of dampings beside one Cholesky each and beside one eigendecomposition."""

from __future__ import annotations

import numpy as np
import scipy.linalg as sla

import fastfisher as ff

from . import oracle
from .job import Job, Real, as_test

DAMPINGS = np.geomspace(1e-2, 1e1, 20)


def scaled_scores(rng: np.random.Generator, n: int, p: int, dtype: Real) -> tuple[np.ndarray]:
    """Columns of different size, so that an iteration has something to do."""
    return (rng.standard_normal((n, p), dtype=dtype) * np.geomspace(1, 0.1, p, dtype=dtype),)


def ours(G: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.solve_path(ff.ScoreFisher(G), G.mean(axis=0), DAMPINGS).value
    return answer


def by_krylov(G: np.ndarray) -> np.ndarray:
    cg = ff.CG(rtol=1e-10, preconditioner=None)
    answer: np.ndarray = ff.solve_path(ff.ScoreFisher(G), G.mean(axis=0), DAMPINGS, solver=cg).value
    return answer


def by_cho_factor(G: np.ndarray) -> np.ndarray:
    n, p = G.shape
    F, g, eye = G.T @ G / n, G.mean(axis=0), np.eye(p, dtype=G.dtype)
    return np.stack([sla.cho_solve(sla.cho_factor(F + x * eye), g) for x in DAMPINGS])


def by_eigh(G: np.ndarray) -> np.ndarray:
    w, Q = np.linalg.eigh(G.T @ G / len(G))
    inner = Q.T @ G.mean(axis=0)
    return np.stack([Q @ (inner / (w + x)) for x in DAMPINGS])


def error(X: np.ndarray, G: np.ndarray) -> float:
    return max(
        oracle.natural_gradient_residual(X[i], G, DAMPINGS[i]) for i in (0, len(DAMPINGS) - 1)
    )


JOBS = [
    Job(
        f"path of 20 dampings{by}",
        (20_000, 1000),
        make=scaled_scores,
        ours=call,
        lines={"cho_solve(cho_factor(F + λI), g) each": by_cho_factor, "eigh(F) once": by_eigh},
        error=error,
        tolerance=1e-9,
    )
    for by, call in (("", ours), (" by shifted CG", by_krylov))
]

test_path = as_test(JOBS)
