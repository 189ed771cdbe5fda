"""Complex scores beside ``G.conj().T @ G / n`` and zherk: Fisher, F·v, dual natural gradient."""

from __future__ import annotations

import numpy as np
import scipy.linalg as sla

import fastfisher as ff

from . import oracle
from .job import Job, Real, as_test

DAMPING = 1e-2


def scores(rng: np.random.Generator, n: int, p: int, dtype: Real) -> tuple[np.ndarray]:
    part = np.dtype(dtype).type(0).real.dtype
    G = np.empty((n, p), dtype)
    G.real, G.imag = (rng.standard_normal((n, p), dtype=part) for _ in range(2))
    return (G,)


def scores_and_vector(
    rng: np.random.Generator, n: int, p: int, dtype: Real
) -> tuple[np.ndarray, np.ndarray]:
    (G,) = scores(rng, n, p, dtype)
    return G, G[0].copy()


def by_numpy(G: np.ndarray) -> np.ndarray:
    F = G.conj().T @ G
    F /= len(G)
    answer: np.ndarray = F
    return answer


def by_rank_k_update(G: np.ndarray) -> np.ndarray:
    herk = sla.get_blas_funcs("herk", (G,))
    upper = herk(1 / len(G), G.T, lower=1).T  # of G.T, which needs no copy: conj F, so F transposed
    answer: np.ndarray = np.triu(upper) + np.triu(upper, 1).conj().T
    return answer


def product_by_numpy(G: np.ndarray, v: np.ndarray) -> np.ndarray:
    answer: np.ndarray = (G.T @ (G @ v).conj()).conj() / len(G)
    return answer  # conjugates vectors, not G


def dual(G: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.natural_gradient(G, damping=DAMPING)
    return answer


def dual_by_numpy(G: np.ndarray) -> np.ndarray:
    K = G @ G.conj().T
    np.einsum("ii->i", K)[:] += DAMPING * len(G)
    y = sla.cho_solve(sla.cho_factor(K, overwrite_a=True, check_finite=False), np.ones(len(G)))
    answer: np.ndarray = (G.T @ y.conj()).conj()
    return answer


# Useful flops: a Hermitian half of n·p² multiplications of complex numbers, 4 · n·p·(p+1).
JOBS = [
    *(
        Job(
            "Fisher, complex",
            (4096, 512),
            make=scores,
            ours=ff.empirical_fisher,
            lines={"G.conj().T @ G / n": by_numpy, "herk(1/n, G.T)": by_rank_k_update},
            torch=lambda G: G.conj().T @ G / len(G),
            error=oracle.fisher_error,
            tolerance=tolerance,
            work=lambda n, p, itemsize: (4 * n * p * (p + 1), n * p * itemsize),
            dtype=dtype,
        )
        for dtype, tolerance in (("complex128", 1e-13), ("complex64", 1e-4))
    ),
    Job(
        "F·v, complex",
        (100_000, 500),
        make=scores_and_vector,
        ours=ff.fvp,
        lines={"(G.T @ (G @ v).conj()).conj() / n": product_by_numpy},
        error=oracle.product_error,
        tolerance=1e-13,
        work=lambda n, p, itemsize: (16 * n * p, n * p * itemsize),
        dtype="complex128",
    ),
    Job(
        "natural gradient, complex, dual",
        (500, 20_000),
        make=scores,
        ours=dual,
        lines={"Gᴴ cho_solve(cho_factor(G Gᴴ + nλI), 1)": dual_by_numpy},
        error=lambda x, G: oracle.natural_gradient_residual(x, G, DAMPING),
        tolerance=1e-11,
        work=lambda n, p, itemsize: (4 * p * n * (n + 1) + 4 * n**3 / 3, n * p * itemsize),
        dtype="complex128",
    ),
]

test_complex = as_test(JOBS)
