"""KFAC beside the same algebra in NumPy, SciPy and torch: factors, damped solves, convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg as sla

import fastfisher as ff

from . import oracle
from .job import Job, Real, as_test

DAMPING = 1e-2
KERNEL = 3


# ---- the factors of a layer ----
def layer(rng: np.random.Generator, n: int, d: int, dtype: Real) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((n, d), dtype=dtype), rng.standard_normal((n, d), dtype=dtype)


def factors(a: np.ndarray, g: np.ndarray) -> ff.KroneckerFisher:
    return ff.KroneckerFisher.from_layers([(a, g)])


def factors_by_numpy(a: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return a.T @ a / len(a), g.T @ g / len(g)  # syrk, as NumPy sees by itself


def factors_by_torch(a: Any, g: Any) -> Any:
    return a.T @ a / len(a), g.T @ g / len(g)


def factors_error(
    found: ff.KroneckerFisher | tuple[np.ndarray, np.ndarray], a: np.ndarray, g: np.ndarray
) -> float:
    A, G = found.factors[0] if isinstance(found, ff.KroneckerFisher) else found
    return max(oracle.fisher_error(A, a), oracle.fisher_error(G, g))


# ---- one damped step ----
def held(
    rng: np.random.Generator, d: int, dtype: Real
) -> tuple[ff.KroneckerFisher, np.ndarray, np.ndarray, np.ndarray]:
    K = factors(*layer(rng, 2 * d, d, dtype))
    ((A, G),) = K.factors
    return K, A, G, rng.standard_normal((d, d), dtype=dtype)


def factored(K: ff.KroneckerFisher, A: np.ndarray, G: np.ndarray, W: np.ndarray) -> np.ndarray:
    answer: np.ndarray = K.solve([W], damping=DAMPING, damping_mode="factored")[0]
    return answer


def added(A: np.ndarray, G: np.ndarray) -> tuple[float, float]:
    """What factored damping adds to the diagonals of A and G."""
    pi = float(A.trace() / G.trace()) ** 0.5  # of one size
    return pi * DAMPING**0.5, DAMPING**0.5 / pi


def factored_by_scipy(
    K: ff.KroneckerFisher, A: np.ndarray, G: np.ndarray, W: np.ndarray
) -> np.ndarray:
    both = []
    for M, extra in zip((A, G), added(A, G), strict=True):
        damped = M.copy(order="F")
        np.einsum("ii->i", damped)[:] += extra
        both.append(sla.cho_factor(damped, lower=True, overwrite_a=True, check_finite=False))
    half = sla.cho_solve(both[1], W, check_finite=False)
    answer: np.ndarray = sla.cho_solve(both[0], half.T, check_finite=False).T
    return answer


def factored_by_torch(K: ff.KroneckerFisher, A: Any, G: Any, W: Any) -> Any:
    import torch

    both = []
    for M, extra in zip((A, G), added(A, G), strict=True):
        damped = M.clone()
        damped.diagonal().add_(extra)
        both.append(torch.linalg.cholesky(damped))
    return torch.cholesky_solve(torch.cholesky_solve(W, both[1]).T, both[0]).T


def factored_error(
    X: np.ndarray, K: ff.KroneckerFisher, A: np.ndarray, G: np.ndarray, W: np.ndarray
) -> float:
    A, G = (M + extra * np.eye(len(M)) for M, extra in zip((A, G), added(A, G), strict=True))
    norm = np.linalg.norm
    return float(norm(G @ X @ A - W) / (norm(G, 2) * norm(X) * norm(A, 2)))


def in_a_basis(
    rng: np.random.Generator, d: int, dtype: Real
) -> tuple[ff.KroneckerFisher, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    K, A, G, W = held(rng, d, dtype)
    K.solve([W], damping=DAMPING)  # decomposes once, as the others have
    (a, U_A), (g, U_G) = np.linalg.eigh(A), np.linalg.eigh(G)
    return K, a, U_A, g, U_G, W


def exact(
    K: ff.KroneckerFisher,
    a: np.ndarray,
    U_A: np.ndarray,
    g: np.ndarray,
    U_G: np.ndarray,
    W: np.ndarray,
) -> np.ndarray:
    answer: np.ndarray = K.solve([W], damping=DAMPING)[0]
    return answer


def exact_in_its_basis(
    K: ff.KroneckerFisher,
    a: np.ndarray,
    U_A: np.ndarray,
    g: np.ndarray,
    U_G: np.ndarray,
    W: np.ndarray,
) -> np.ndarray:
    answer: np.ndarray = U_G @ ((U_G.T @ W @ U_A) / (g[:, None] * a + DAMPING)) @ U_A.T
    return answer


def exact_error(
    X: np.ndarray,
    K: ff.KroneckerFisher,
    a: np.ndarray,
    U_A: np.ndarray,
    g: np.ndarray,
    U_G: np.ndarray,
    W: np.ndarray,
) -> float:
    A, G = (U_A * a) @ U_A.T, (U_G * g) @ U_G.T
    norm = np.linalg.norm
    return float(norm(G @ X @ A + DAMPING * X - W) / ((a[-1] * g[-1] + DAMPING) * norm(X)))


# ---- the factor of a convolution ----
def images(
    rng: np.random.Generator, n: int, channels: int, size: int, d_out: int, dtype: Real
) -> tuple[np.ndarray, np.ndarray]:
    x = rng.standard_normal((n, channels, size, size), dtype=dtype)
    return x, rng.standard_normal((n, d_out, size, size), dtype=dtype)


def convolution(x: np.ndarray, g: np.ndarray) -> ff.KroneckerFisher:
    return ff.KroneckerFisher.from_layers([ff.Conv2dLayer(x, g, KERNEL, padding=1)])


def unrolled(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), axis=(2, 3))
    rows = windows.transpose(0, 2, 3, 1, 4, 5)
    return rows.reshape(-1, x.shape[1] * KERNEL**2)


def convolution_by_numpy(x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, outputs = unrolled(x), np.moveaxis(g, 1, 3).reshape(-1, g.shape[1])
    return rows.T @ rows / len(rows), outputs.T @ outputs / len(g)


def convolution_by_torch(x: Any, g: Any) -> Any:
    import torch

    rows = torch.nn.functional.unfold(x, KERNEL, padding=1).transpose(0, 1).flatten(1)
    outputs = g.transpose(0, 1).flatten(1)
    return rows @ rows.T / rows.shape[1], outputs @ outputs.T / len(g)


def convolution_error(
    found: ff.KroneckerFisher | tuple[np.ndarray, np.ndarray], x: np.ndarray, g: np.ndarray
) -> float:
    A, G = found.factors[0] if isinstance(found, ff.KroneckerFisher) else found
    positions = x.shape[2] * x.shape[3]
    outputs = np.moveaxis(g, 1, 3).reshape(-1, g.shape[1])
    return max(oracle.fisher_error(A, unrolled(x)), oracle.fisher_error(G / positions, outputs))


JOBS = [
    *(
        Job(
            "KFAC factors",
            (4096, d),
            make=layer,
            ours=factors,
            lines={"a.T @ a / n, g.T @ g / n": factors_by_numpy},
            torch=factors_by_torch,
            error=factors_error,
            tolerance=1e-14,
            work=lambda n, d, itemsize: (2 * n * d * (d + 1), 2 * n * d * itemsize),
        )
        for d in (512, 1024, 2048, 4096)
    ),
    *(
        Job(
            "KFAC step, factored damping",
            (d,),
            make=held,
            ours=factored,
            lines={"cho_solve(A, cho_solve(G, W).T).T": factored_by_scipy},
            torch=factored_by_torch,
            error=factored_error,
            tolerance=1e-13,
            work=lambda d, itemsize: (2 * d**3 / 3 + 4 * d**3, 2 * d * d * itemsize),
        )
        for d in (512, 1024, 2048, 4096)
    ),
    *(
        Job(
            "KFAC step in the eigenbasis",
            (d,),
            make=in_a_basis,
            ours=exact,
            lines={"U_G @ ((U_G.T @ W @ U_A) / (g aᵀ + λ)) @ U_A.T": exact_in_its_basis},
            torch=exact_in_its_basis,
            error=exact_error,
            tolerance=1e-13,
            work=lambda d, itemsize: (8 * d**3, 3 * d * d * itemsize),
        )
        for d in (512, 1024, 2048)
    ),
    *(
        Job(
            "KFAC factors of a convolution",
            (32, 64, 28, 64),
            make=images,
            ours=convolution,
            lines={"rows.T @ rows of sliding_window_view": convolution_by_numpy},
            torch=convolution_by_torch,
            error=convolution_error,
            tolerance=tolerance,
            dtype=dtype,
            work=lambda n, channels, size, d_out, itemsize: (
                n * size**2 * ((channels * KERNEL**2) ** 2 + d_out**2),
                n * size**2 * (channels + d_out) * itemsize,
            ),
        )
        for dtype, tolerance in (("float64", 1e-14), ("float32", 1e-5))
    ),
]

test_kronecker = as_test(JOBS)
