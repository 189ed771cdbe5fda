"""Empirical Fisher beside ``G.T @ G / n``: square, tall, weighted, centred, streamed."""

from __future__ import annotations

from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

import fastfisher as ff

from . import oracle
from .job import Job, Real, as_test


def scores(rng: np.random.Generator, n: int, p: int, dtype: Real) -> tuple[np.ndarray]:
    return (rng.standard_normal((n, p), dtype=dtype),)


def half_scores(rng: np.random.Generator, n: int, p: int, dtype: Real) -> tuple[np.ndarray]:
    return (rng.standard_normal((n, p), dtype="float32").astype(kind(dtype)),)


def kind(dtype: str) -> npt.DTypeLike:
    return ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)


def by_widening(G: np.ndarray) -> np.ndarray:
    A = G.astype(np.float32)  # NumPy multiplies halves a hundred times slower
    F = A.T @ A
    F /= len(G)
    return F


def half_error(F: np.ndarray, G: np.ndarray) -> float:
    return oracle.fisher_error(F, G.astype(np.float32))


def weighted_scores(
    rng: np.random.Generator, n: int, p: int, dtype: Real
) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((n, p), dtype=dtype), rng.uniform(0.5, 1.5, n).astype(dtype)


def work(n: int, p: int, itemsize: Any) -> Any:
    return n * p * (p + 1), n * p * itemsize


def by_numpy(G: np.ndarray) -> np.ndarray:
    F = G.T @ G
    F /= len(G)
    answer: np.ndarray = F
    return answer


def weighted_by_numpy(G: np.ndarray, w: np.ndarray) -> np.ndarray:
    answer: np.ndarray = (G * w[:, None]).T @ G / w.sum()
    return answer


def weighted_by_root(G: np.ndarray, w: np.ndarray) -> np.ndarray:
    A = G * np.sqrt(w)[:, None]  # one operand, so that BLAS takes its symmetric product
    answer: np.ndarray = A.T @ A / w.sum()
    return answer


def centred_by_copy(G: np.ndarray) -> np.ndarray:
    A = G - G.mean(axis=0)
    answer: np.ndarray = A.T @ A / len(G)
    return answer


def centred_by_update(G: np.ndarray) -> np.ndarray:
    m = G.mean(axis=0)  # cancels where the mean is large
    answer: np.ndarray = G.T @ G / len(G) - np.outer(m, m)
    return answer


def centred_by_torch(G: Any) -> Any:
    A = G - G.mean(0)
    return A.T @ A / len(G)


def streamed(G: np.ndarray) -> np.ndarray:
    F = ff.DenseFisher(G.shape[1], dtype=G.dtype)
    for rows in np.array_split(G, 16):
        F.update(rows)
    answer: np.ndarray = F.to_dense()
    return answer


def streamed_by_numpy(G: np.ndarray) -> np.ndarray:
    F = np.zeros((G.shape[1], G.shape[1]), G.dtype)
    for rows in np.array_split(G, 16):
        F += rows.T @ rows
    F /= len(G)
    return F


def by_strassen(G: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.empirical_fisher(G, algorithm="strassen")
    return answer


# The work of the classical algorithm, so "strassen" may pass 100 % of the peak.
PLAIN: dict[str, Any] = {
    "make": scores,
    "ours": ff.empirical_fisher,
    "lines": {"G.T @ G / n": by_numpy},
    "torch": lambda G: G.T @ G / len(G),
    "error": oracle.fisher_error,
    "work": work,
}
DOUBLE, SINGLE = 1e-13, 1e-4

JOBS = [
    Job("Fisher", (4096, 2048), tolerance=DOUBLE, **PLAIN),
    Job("Fisher", (4096, 2048), tolerance=SINGLE, dtype="float32", **PLAIN),
    *(
        Job(
            "Fisher",
            (4096, 2048),
            make=half_scores,
            ours=ff.empirical_fisher,
            lines={"A = G.astype(float32); A.T @ A / n": by_widening},
            error=half_error,
            torch=None if dtype == "float16" else lambda G: (G.T @ G).float() / len(G),
            tolerance=SINGLE,
            work=work,
            dtype=dtype,
        )
        for dtype in ("float16", "bfloat16")
    ),
    *(
        Job("Fisher, tall", shape, tolerance=DOUBLE, **PLAIN)
        for shape in [
            *((1_000_000, p) for p in (1, 2, 4, 8, 16, 32, 64)),
            (100_000, 96),
            (100_000, 200),
        ]
    ),
    Job("Fisher", (4096, 4096), tolerance=DOUBLE, **PLAIN),
    Job("Fisher, strassen", (4096, 4096), tolerance=DOUBLE, **(PLAIN | {"ours": by_strassen})),
    *(
        Job("Fisher, odd sizes", shape, tolerance=DOUBLE, **PLAIN)
        for shape in [(4096, 2049), (4099, 2011), (64, 4096)]
    ),
    Job(
        "Fisher, weighted",
        (100_000, 200),
        make=weighted_scores,
        ours=lambda G, w: ff.empirical_fisher(G, weights=w),
        lines={
            "(G * w[:, None]).T @ G / w.sum()": weighted_by_numpy,
            "A = G * sqrt(w)[:, None]; A.T @ A / w.sum()": weighted_by_root,
        },
        torch=lambda G, w: (G * w[:, None]).T @ G / w.sum(),
        error=oracle.fisher_error,
        tolerance=DOUBLE,
        work=work,
    ),
    Job(
        "Fisher, centred",
        (100_000, 200),
        make=scores,
        ours=lambda G: ff.empirical_fisher(G, center=True),
        lines={
            "A = G - G.mean(0); A.T @ A / n": centred_by_copy,
            "G.T @ G / n - outer(m, m)": centred_by_update,
        },
        torch=centred_by_torch,
        error=partial(oracle.fisher_error, center=True),
        tolerance=DOUBLE,
        work=work,
    ),
    Job(
        "Fisher, streamed in 16 parts",
        (65_536, 1024),
        make=scores,
        ours=streamed,
        lines={"F += part.T @ part": streamed_by_numpy},
        error=oracle.fisher_error,
        tolerance=DOUBLE,
        work=work,
    ),
]

test_fisher = as_test(JOBS)
