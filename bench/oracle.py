"""Answers in higher precision, on a sample of columns where all would take too long."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
COLUMNS, ROWS = 8, 8192  # columns compared, rows widened at a time


def wide(array: Array) -> Array:
    """Widen: long double for float64, float64 for float32; complex numbers likewise."""
    if np.iscomplexobj(array):
        return array.astype(np.clongdouble if array.dtype == np.complex128 else np.complex128)
    return array.astype(np.longdouble if array.dtype == np.float64 else np.float64)


def sampled(p: int) -> Array:
    """Columns to compare: spread over all, first and last included."""
    return np.unique(np.linspace(0, p - 1, COLUMNS).astype(int))


def relative(answer: Array, reference: Array) -> float:
    """Largest difference over the largest entry."""
    return float(np.abs(answer - reference).max() / np.abs(reference).max())


def blocks(G: Array) -> range:
    """Starts of the row blocks."""
    return range(0, len(G), ROWS)


def fisher_columns(G: Array, weights: Array | None = None, center: bool = False) -> Array:
    """Columns `sampled(p)` of Σ w (g−m)*(g−m)ᵀ / Σ w."""
    columns = sampled(G.shape[1])
    w = np.ones(len(G), G.dtype) if weights is None else weights
    total = wide(w).sum()
    mean = wide(np.zeros(G.shape[1], G.dtype))
    if center:
        mean = sum(wide(w[i : i + ROWS]) @ wide(G[i : i + ROWS]) for i in blocks(G)) / total
    F: Array = np.zeros((G.shape[1], len(columns)), mean.dtype)
    for i in blocks(G):
        A = wide(G[i : i + ROWS]) - mean
        F += A.conj().T @ (wide(w[i : i + ROWS])[:, None] * A[:, columns])
    answer: Array = F / total
    return answer


def fisher_error(F: Array, G: Array, weights: Array | None = None, center: bool = False) -> float:
    """Relative error of a Fisher matrix on the sampled columns."""
    return relative(F[:, sampled(G.shape[1])], fisher_columns(G, weights, center))


def gram_error(K: Array, G: Array) -> float:
    """Relative error of G Gᴴ / n on sampled columns."""
    rows = sampled(len(G))
    R: Array = np.zeros((len(G), len(rows)), wide(G[:1, :1]).dtype)
    for j in range(0, G.shape[1], ROWS):
        A = wide(G[:, j : j + ROWS])
        R += A @ A[rows].conj().T
    return relative(K[:, rows], R / len(G))


def diagonal_error(d: Array, G: Array) -> float:
    """Relative error of the mean square of sampled columns."""
    columns = sampled(G.shape[1])
    return relative(d[columns], (wide(G[:, columns]) ** 2).mean(axis=0))


def fisher_product(G: Array, v: Array) -> Array:
    """Gᴴ(G v)/n of one vector."""
    v = wide(v)
    out = np.zeros_like(v)
    for i in blocks(G):
        A = wide(G[i : i + ROWS])
        out += A.conj().T @ (A @ v)
    return out / len(G)


def product_error(u: Array, G: Array, V: Array) -> float:
    """Relative error of F V on its last column."""
    if V.ndim == 2:
        u, V = u[:, -1], V[:, -1]
    return relative(u, fisher_product(G, V))


def natural_gradient_residual(x: Array, G: Array, damping: float) -> float:
    """‖g − (F+λI)x‖∞ / ‖g‖∞ with g the mean score."""
    g = sum(wide(G[i : i + ROWS]).conj().sum(axis=0) for i in blocks(G)) / len(G)
    return float(np.abs(g - fisher_product(G, x) - damping * wide(x)).max() / np.abs(g).max())


def solve_residual(x: Array, A: Array, b: Array, damping: float) -> float:
    """LAPACK's backward error ‖b − (A+λI)x‖ / (‖A‖‖x‖), in the infinity norm."""
    X = wide(x)
    r = wide(b) - damping * X
    for i in range(0, len(A), 512):
        r[i : i + 512] -= wide(A[i : i + 512]) @ X
    norm = np.abs(A).sum(axis=1).max() + damping
    return float(np.abs(r).max() / (norm * np.abs(X).max()))


def least_squares_residual(x: Array, G: Array) -> float:
    """‖Gᵀ(1 − Gx)‖ / (‖G‖ ‖1 − Gx‖), LAPACK's measure of a least-squares solution."""
    inner: Array = np.zeros(G.shape[1], wide(G[:1, :1]).dtype)
    square, size = 0.0, 0.0
    for i in blocks(G):
        A = wide(G[i : i + ROWS])
        r = 1 - A @ wide(x)
        inner += A.T @ r
        square += float(r @ r)
        size += float((A * A).sum())
    return float(np.sqrt(float(inner @ inner) / square / size))
