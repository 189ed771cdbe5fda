"""The exact Fisher of a network beside its materialised per-sample gradients."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.linalg as sla

import fastfisher as ff

from .job import Job, as_test

DAMPING = 1e-2


def network(rng: np.random.Generator, n: int, *widths_and_dtype: Any) -> Any:
    """Inputs and output gradients of linear layers of these widths, and a vector."""
    *widths, dtype = widths_and_dtype
    pairs = pairwise(widths)
    draw = [[rng.standard_normal((n, d)).astype(dtype) for d in pair] for pair in pairs]
    layers = [(a, g / np.sqrt(np.float64(a.shape[1])).astype(dtype)) for a, g in draw]
    params = sum(a.shape[1] * g.shape[1] for a, g in layers)
    return layers, rng.standard_normal(params).astype(dtype)


def per_sample(layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The (n, p) array that we do without, written once."""
    n, sizes = len(layers[0][0]), [a.shape[1] * g.shape[1] for a, g in layers]
    S = np.empty((n, sum(sizes)), layers[0][0].dtype)
    for (a, g), end, size in zip(layers, np.cumsum(sizes), sizes, strict=True):
        block = S[:, end - size : end].reshape(n, g.shape[1], a.shape[1])
        np.multiply(g[:, :, None], a[:, None, :], out=block)
    return S


def natural(layers: Sequence[tuple[np.ndarray, np.ndarray]], v: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.LayerFisher(layers).solve(v, damping=DAMPING)
    return answer


def natural_by_numpy(layers: Sequence[tuple[np.ndarray, np.ndarray]], v: np.ndarray) -> np.ndarray:
    S = per_sample(layers)
    K = S @ S.T / len(S)
    K[np.diag_indices_from(K)] += DAMPING
    z = sla.cho_solve(sla.cho_factor(K, lower=True, overwrite_a=True), S @ v)
    answer: np.ndarray = (v - S.T @ z / len(S)) / DAMPING
    return answer


def gram(layers: Sequence[tuple[np.ndarray, np.ndarray]], v: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.LayerFisher(layers).gram()
    return answer


def gram_by_numpy(layers: Sequence[tuple[np.ndarray, np.ndarray]], v: np.ndarray) -> np.ndarray:
    S = per_sample(layers)
    answer: np.ndarray = S @ S.T / len(S)
    return answer


def product(layers: Sequence[tuple[np.ndarray, np.ndarray]], v: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.LayerFisher(layers) @ v
    return answer


def product_by_numpy(layers: Sequence[tuple[np.ndarray, np.ndarray]], v: np.ndarray) -> np.ndarray:
    S = per_sample(layers)
    answer: np.ndarray = S.T @ (S @ v) / len(S)
    return answer


def _gram_of(layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    answer: np.ndarray = sum(
        (a.astype(float) @ a.T.astype(float)) * (g.astype(float) @ g.T) for a, g in layers
    )
    return answer


def _times(layers: Sequence[tuple[np.ndarray, np.ndarray]], v: np.ndarray) -> np.ndarray:
    """F v in double precision, a layer at a time."""
    sizes = np.cumsum([a.shape[1] * g.shape[1] for a, g in layers])[:-1]
    parts = [
        W.reshape(g.shape[1], a.shape[1])
        for W, (a, g) in zip(np.split(v.astype(float), sizes), layers, strict=True)
    ]
    u = sum(((g @ W) * a).sum(axis=1) for W, (a, g) in zip(parts, layers, strict=True))
    return np.concatenate([((g * u[:, None]).T @ a).ravel() for a, g in layers]) / len(u)


def natural_error(
    x: np.ndarray, layers: Sequence[tuple[np.ndarray, np.ndarray]], v: np.ndarray
) -> float:
    """Relative residual; with ‖F‖ / λ of about 10⁴ the difference in the dual costs its digits."""
    return float(np.linalg.norm(v - _times(layers, x) - DAMPING * x) / np.linalg.norm(v))


def gram_error(
    K: np.ndarray, layers: Sequence[tuple[np.ndarray, np.ndarray]], v: np.ndarray
) -> float:
    expected = _gram_of(layers) / len(K)
    return float(np.abs(K - expected).max() / np.abs(expected).max())


def product_error(
    x: np.ndarray, layers: Sequence[tuple[np.ndarray, np.ndarray]], v: np.ndarray
) -> float:
    expected = _times(layers, v)
    return float(np.linalg.norm(x - expected) / np.linalg.norm(expected))


def work(n: int, *widths_and_itemsize: Any) -> Any:
    """Half of n² (d_in + d_out) multiplications of a layer, from n (d_in + d_out) numbers."""
    *widths, itemsize = widths_and_itemsize
    sides = sum(widths[:-1]) + sum(widths[1:])
    return n * (n + 1) * sides, n * sides * itemsize


def solve_work(n: int, *widths_and_itemsize: Any) -> Any:
    """The Gram matrix, its factor, and the scores' products with a vector, once each way."""
    *widths, itemsize = widths_and_itemsize
    flops, _ = work(n, *widths_and_itemsize)
    params = sum(d * e for d, e in pairwise(widths))
    return flops + n**3 // 3 + 4 * n * params, 2 * params * itemsize


def product_work(n: int, *widths_and_itemsize: Any) -> Any:
    *widths, itemsize = widths_and_itemsize
    params = sum(d * e for d, e in pairwise(widths))
    return 4 * n * params, 2 * params * itemsize


# 784-1000-1000-500-10 has 2.3 million parameters: its per-sample gradients take 4.7 GB for n = 512
# in float32, and 1.2 GB for n = 128. The other is small enough for n = 512 in float64: 1.9 GB.
DEEP = (128, 784, 1000, 1000, 500, 10)
TALL = (512, 256, 512, 512, 128, 10)

JOBS = [
    Job(
        name,
        shape,
        make=network,
        ours=ours,
        lines={line: theirs},
        error=error,
        tolerance=tolerance,
        work=flops,
        dtype="float32" if shape is DEEP else "float64",
    )
    for name, ours, line, theirs, error, tolerance, flops in (
        (
            "layered natural gradient",
            natural,
            "S of outer products, cho_solve(S @ S.T / n + λI), S.T @ z",
            natural_by_numpy,
            natural_error,
            1e-3,
            solve_work,
        ),
        (
            "layered Gram",
            gram,
            "S of outer products, S @ S.T / n",
            gram_by_numpy,
            gram_error,
            1e-5,
            work,
        ),
        (
            "layered F v",
            product,
            "S of outer products, S.T @ (S @ v) / n",
            product_by_numpy,
            product_error,
            1e-5,
            product_work,
        ),
    )
    for shape in (DEEP, TALL)
]

test_layer = as_test(JOBS)
