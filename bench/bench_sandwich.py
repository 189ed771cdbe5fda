"""Cluster-robust and HAC covariances of a score array, and many score tests of one model."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastfisher as ff

from .job import Job, Real, as_test

try:
    from statsmodels.stats.sandwich_covariance import S_crosssection, S_hac_simple
except ImportError:  # the row is then beside NumPy alone
    S_crosssection = S_hac_simple = None

LAGS = 12


def panel(
    rng: np.random.Generator, n: int, p: int, clusters: int, dtype: Real
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, an information matrix, and a label for each sample, in no order."""
    S = rng.standard_normal((n, p)).astype(dtype)
    return S, S.T @ S, rng.integers(0, clusters, n)


def series(rng: np.random.Generator, n: int, p: int, dtype: Real) -> tuple[np.ndarray, np.ndarray]:
    S = rng.standard_normal((n, p)).astype(dtype)
    S[1:] += S[:-1]
    return S, S.T @ S


def clustered(S: np.ndarray, A: np.ndarray, labels: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.sandwich_covariance(A, S, clusters=labels, correction="CR1")
    return answer


def _corrected(S: np.ndarray, A: np.ndarray, M: np.ndarray, count: int) -> np.ndarray:
    n, p = S.shape
    inverse = np.linalg.inv(A)
    answer: np.ndarray = count / (count - 1) * (n - 1) / (n - p) * (inverse @ M @ inverse)
    return answer


def clustered_by_numpy(S: np.ndarray, A: np.ndarray, labels: np.ndarray) -> np.ndarray:
    names, number = np.unique(labels, return_inverse=True)
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(len(names)))
    Y = np.add.reduceat(S[order], starts, axis=0)
    return _corrected(S, A, Y.T @ Y, len(names))


def clustered_by_columns(S: np.ndarray, A: np.ndarray, labels: np.ndarray) -> np.ndarray:
    names, number = np.unique(labels, return_inverse=True)
    Y = np.column_stack([np.bincount(number, weights=s) for s in S.T])
    return _corrected(S, A, Y.T @ Y, len(names))


def clustered_by_statsmodels(S: np.ndarray, A: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return _corrected(S, A, S_crosssection(S, labels), len(np.unique(labels)))


def hac(S: np.ndarray, A: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.sandwich_covariance(A, S, lags=LAGS)
    return answer


def _times_inverse(A: np.ndarray, M: np.ndarray) -> np.ndarray:
    inverse = np.linalg.inv(A)
    answer: np.ndarray = inverse @ M @ inverse
    return answer


def hac_by_numpy(S: np.ndarray, A: np.ndarray) -> np.ndarray:
    M = S.T @ S
    for d in range(1, LAGS + 1):
        product = S[d:].T @ S[:-d]
        M += (1 - d / (LAGS + 1)) * (product + product.T)
    return _times_inverse(A, M)


def hac_by_statsmodels(S: np.ndarray, A: np.ndarray) -> np.ndarray:
    return _times_inverse(A, S_hac_simple(S, LAGS))


def study(
    rng: np.random.Generator, n: int, m: int, q: int, dtype: Real
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Allele counts, residuals, covariates and weights of a logistic null model."""
    X = np.column_stack([np.ones(n), rng.standard_normal((n, q - 1))])
    mu = 1 / (1 + np.exp(-X @ rng.standard_normal(q) / q))
    C = rng.binomial(2, 0.3, (n, m)).astype(np.int8)
    return C, (rng.random(n) < mu) - mu, X, (mu * (1 - mu)).astype(dtype)


def scan(C: np.ndarray, r: np.ndarray, X: np.ndarray, w: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.score_tests(C, r, X, weights=w).statistic
    return answer


def scan_by_numpy(C: np.ndarray, r: np.ndarray, X: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The textbook's U²/V of all candidates at once, which needs all of them in float64."""
    C = C.astype(float)
    B = X.T @ (w[:, None] * C)
    solved = np.linalg.solve(X.T @ (w[:, None] * X), B)
    U = r @ C - (X.T @ r) @ solved
    answer: np.ndarray = U**2 / (w @ C**2 - (B * solved).sum(axis=0))
    return answer


def _difference(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def clustered_error(V: np.ndarray, S: np.ndarray, A: np.ndarray, labels: np.ndarray) -> float:
    return _difference(V, clustered_by_columns(S, A, labels))


def hac_error(V: np.ndarray, S: np.ndarray, A: np.ndarray) -> float:
    return _difference(V, hac_by_numpy(S, A))


def scan_error(
    statistic: np.ndarray, C: np.ndarray, r: np.ndarray, X: np.ndarray, w: np.ndarray
) -> float:
    return _difference(statistic, scan_by_numpy(C, r, X, w))


def clustered_work(n: int, p: int, clusters: int, itemsize: Any) -> Any:
    """Add each score once, and square the sums."""
    return n * p + clusters * p * (p + 1), n * p * itemsize


def hac_work(n: int, p: int, itemsize: Any) -> Any:
    return n * p * (p + 1), n * p * itemsize


JOBS = [
    Job(
        "cluster-robust covariance",
        (1_000_000, 50, clusters),
        make=panel,
        ours=clustered,
        lines={
            "add.reduceat(S[argsort]), inv(A) @ Y.T @ Y @ inv(A)": clustered_by_numpy,
            "bincount of each column, inv(A) @ Y.T @ Y @ inv(A)": clustered_by_columns,
        }
        | ({"statsmodels S_crosssection": clustered_by_statsmodels} if S_crosssection else {}),
        error=clustered_error,
        tolerance=1e-10,
        work=clustered_work,
    )
    for clusters in (200, 100_000)
] + [
    Job(
        "HAC covariance",
        (1_000_000, 50),
        make=series,
        ours=hac,
        lines={"S[d:].T @ S[:-d] for each lag": hac_by_numpy}
        | ({"statsmodels S_hac_simple": hac_by_statsmodels} if S_hac_simple else {}),
        error=hac_error,
        tolerance=1e-10,
        work=hac_work,
    ),
    Job(
        "many score tests",
        (4000, 20_000, 5),
        make=study,
        ours=scan,
        lines={"U² / V of all candidates at once": scan_by_numpy},
        error=scan_error,
        tolerance=1e-10,
    ),
]

test_sandwich = as_test(JOBS)
