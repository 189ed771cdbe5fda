"""Thousands of small Fishers and their systems beside NumPy's stacked calls."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastfisher as ff

from .job import Job, Real, as_test

# About 50 MB of matrices each: past every cache that one core owns.
SYSTEMS = ((1_500_000, 2), (700_000, 3), (100_000, 8), (28_000, 15), (6_000, 32))
SAMPLES = 20


def systems(
    rng: np.random.Generator, count: int, p: int, dtype: Real
) -> tuple[np.ndarray, np.ndarray]:
    S = rng.standard_normal((count, p + 2, p), dtype=dtype)
    F = np.swapaxes(S, 1, 2) @ S + np.eye(p, dtype=dtype)
    return F, rng.standard_normal((count, p), dtype=dtype)


def scores(rng: np.random.Generator, count: int, p: int, dtype: Real) -> tuple[np.ndarray]:
    return (rng.standard_normal((count, SAMPLES, p), dtype=dtype),)


def solve(F: np.ndarray, b: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.batch.solve(F, b).value
    return answer


def solve_by_numpy(F: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.solve(F, b[:, :, None])[:, :, 0]


def solve_error(x: np.ndarray, F: np.ndarray, b: np.ndarray) -> float:
    residual = np.abs(_product(F, x) - b)
    size = np.abs(F).sum(axis=2).max(axis=1) * np.abs(x).max(axis=1)
    return float((residual.max(axis=1) / size).max())


def _product(F: np.ndarray, x: np.ndarray) -> np.ndarray:
    answer: np.ndarray = (F @ x[:, :, None])[:, :, 0]
    return answer


def inverse(F: np.ndarray, b: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.batch.inverse(F).value
    return answer


def inverse_by_numpy(F: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.inv(F)


def inverse_error(X: np.ndarray, F: np.ndarray, b: np.ndarray) -> float:
    return solve_error(_product(X, b), F, b)


def logdet(F: np.ndarray, b: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.batch.logdet(F).value
    return answer


def logdet_by_numpy(F: np.ndarray, b: np.ndarray) -> np.ndarray:
    answer: np.ndarray = np.linalg.slogdet(F)[1]
    return answer


def logdet_error(value: np.ndarray, F: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(value - np.linalg.slogdet(F)[1]).max() / np.abs(value).max())


def fisher_by_einsum(S: np.ndarray) -> np.ndarray:
    answer: np.ndarray = np.einsum("bni,bnj->bij", S, S) / S.shape[1]
    return answer


def fisher_by_matmul(S: np.ndarray) -> np.ndarray:
    answer: np.ndarray = np.swapaxes(S, 1, 2) @ S / S.shape[1]
    return answer


def fisher_error(F: np.ndarray, S: np.ndarray) -> float:
    wanted = fisher_by_matmul(S)
    return float(np.abs(F - wanted).max() / np.abs(wanted).max())


def work(k: Any) -> Any:
    """Flops of Cholesky and k·p² more, and the lower triangles read."""

    def of(count: int, p: int, itemsize: Any) -> Any:
        return count * (p**3 / 3 + k * p * p), count * itemsize * (p * p / 2 + p)

    return of


JOBS = [
    *(
        Job(
            "batch solve",
            shape,
            make=systems,
            ours=solve,
            lines={"np.linalg.solve(F, b[:, :, None])": solve_by_numpy},
            error=solve_error,
            tolerance=1e-13,
            work=work(2),
        )
        for shape in SYSTEMS
    ),
    Job(
        "batch inverse",
        (100_000, 8),
        make=systems,
        ours=inverse,
        lines={"np.linalg.inv(F)": inverse_by_numpy},
        error=inverse_error,
        tolerance=1e-12,
        work=lambda count, p, itemsize: (count * p**3, count * p * p * itemsize / 2),
    ),
    Job(
        "batch log-determinant",
        (100_000, 8),
        make=systems,
        ours=logdet,
        lines={"np.linalg.slogdet(F)[1]": logdet_by_numpy},
        error=logdet_error,
        tolerance=1e-13,
        work=work(0),
    ),
    *(
        Job(
            "batch Fisher",
            shape,
            make=scores,
            ours=ff.batch.empirical_fisher,
            lines={
                "einsum('bni,bnj->bij', S, S) / n": fisher_by_einsum,
                "S.transpose(0, 2, 1) @ S / n": fisher_by_matmul,
            },
            error=fisher_error,
            tolerance=1e-14,
            work=lambda count, p, itemsize: (
                count * SAMPLES * p * (p + 1),
                count * SAMPLES * p * itemsize,
            ),
        )
        for shape in ((100_000, 3), (40_000, 8), (8_000, 32))
    ),
]

test_batch = as_test(JOBS)
