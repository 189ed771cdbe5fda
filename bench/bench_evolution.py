"""Generations of XNES beside the published update in NumPy, with eigh or SciPy's expm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import expm

import fastfisher as ff

from .job import Job, Real, as_test

GENERATIONS = 23  # as many as pass at p = 500 until the condition number is looked at again


def start(rng: np.random.Generator, p: int, dtype: Real) -> tuple[np.ndarray]:
    return (rng.standard_normal(p).astype(dtype),)


def sphere(x: np.ndarray) -> np.ndarray:
    answer: np.ndarray = (x**2).sum(axis=1)
    return answer


def by_xnes(mean: np.ndarray) -> np.ndarray:
    search = ff.XNES(mean, 1.0, rng=0)
    for _ in range(GENERATIONS):
        search.tell(sphere(search.ask()))
    answer: np.ndarray = search.mean
    return answer


def written_out(mean: np.ndarray, exponential: Callable[..., Any]) -> np.ndarray:
    rng, p = np.random.default_rng(0), len(mean)
    n = 4 + math.floor(3 * math.log(p))
    rate = 3 * (3 + math.log(p)) / (5 * p * math.sqrt(p))
    u = np.maximum(0, math.log(n / 2 + 1) - np.log(np.arange(1, n + 1)))
    u = u / u.sum() - 1 / n
    A = np.eye(p)
    for _ in range(GENERATIONS):
        Z = rng.standard_normal((n, p))
        X = Z @ A.T
        order = np.argsort(sphere(mean + X))
        Z = Z[order]
        mean = mean + u @ X[order]
        A = A @ exponential(rate / 2 * (Z.T @ (u[:, None] * Z)))
    return mean


def by_eigh(M: np.ndarray) -> np.ndarray:
    values, V = np.linalg.eigh(M)
    answer: np.ndarray = (V * np.exp(values)) @ V.T
    return answer


def error(answer: np.ndarray, mean: np.ndarray) -> float:
    expected = written_out(mean, expm)
    return float(np.linalg.norm(answer - expected) / np.linalg.norm(expected))


JOBS = [
    Job(
        f"XNES, {GENERATIONS} generations",
        (500,),
        make=start,
        ours=by_xnes,
        lines={
            "A @ (V * exp(w)) @ V.T": lambda mean: written_out(mean, by_eigh),
            "A @ scipy.linalg.expm(M)": lambda mean: written_out(mean, expm),
        },
        error=error,
        tolerance=1e-12,
    )
]

test_evolution = as_test(JOBS)
