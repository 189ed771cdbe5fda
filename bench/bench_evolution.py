"""Generations of XNES beside the published update in NumPy, with eigh or SciPy's expm."""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import expm

import fastfisher as ff

from .job import Job, as_test

GENERATIONS = 23  # as many as pass at p = 500 until the condition number is looked at again


def start(rng, p, dtype):
    return (rng.standard_normal(p).astype(dtype),)


def sphere(x):
    return (x**2).sum(axis=1)


def by_xnes(mean):
    search = ff.XNES(mean, 1.0, rng=0)
    for _ in range(GENERATIONS):
        search.tell(sphere(search.ask()))
    return search.mean


def written_out(mean, exponential):
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


def by_eigh(M):
    values, V = np.linalg.eigh(M)
    return (V * np.exp(values)) @ V.T


def error(answer, mean):
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
