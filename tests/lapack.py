"""LAPACK's test matrices and ratios: nine kinds of symmetric matrix, and what an error may be."""

from functools import cache

import numpy as np

from oracle import EPS, rng

# 0, 1, 2, 3, 5, 10, 50, 1000 and both sides of a panel (24, 48) and of a tile (192) of the engine.
SIZES = (0, 1, 2, 3, 5, 10, 23, 24, 25, 47, 48, 49, 50, 191, 192, 193, 1000)
KINDS = (
    "diagonal",
    "well-conditioned",
    "first row zero",
    "last row zero",
    "middle row zero",
    "ill-conditioned",
    "singular to rounding",
    "near underflow",
    "near overflow",
)


@cache
def orthogonal(p):
    return np.linalg.qr(rng(p).standard_normal((p, p)))[0]


def symmetric(kind, p, dtype):
    """Return a positive semi-definite (p, p) matrix of this kind and the index of its zero row."""
    eps, limits = EPS[np.dtype(dtype)], np.finfo(dtype)
    small = 0.25 * float(limits.tiny) / eps
    condition = {
        "ill-conditioned": (0.1 / eps) ** 0.5,
        "singular to rounding": 0.1 / eps,
        "near underflow": (0.1 / eps) ** 0.5,
        "near overflow": (0.1 / eps) ** 0.5,
    }.get(kind, 2.0)
    norm = {"near underflow": small, "near overflow": 1.0 / small}.get(kind, 1.0)
    values = condition ** -np.linspace(0.0, 1.0, p) if p > 1 else np.ones(p)
    if kind == "diagonal":
        return np.diag(values * norm).astype(dtype), None
    Q = orthogonal(p)
    A = (Q * values) @ Q.T
    A = (norm * (0.5 * (A + A.T))).astype(dtype)
    zero = {"first row zero": 0, "last row zero": p - 1, "middle row zero": p // 2}.get(kind)
    if zero is not None and p:
        A[zero, :] = A[:, zero] = 0
    return A, zero


def norm1(A):
    return float(np.abs(np.asarray(A, np.float64)).sum(axis=0).max(initial=0))


def ratio(error, scale, dtype):
    """Return ‖error‖₁ / (scale · ε), in units that LAPACK's tests compare with 30."""
    found = norm1(error)
    return found / (scale * EPS[np.dtype(dtype)]) if found else 0.0


def factor_ratio(A, L):
    """Return ‖L Lᵀ − A‖ / (p ‖A‖ ε)."""
    wide = np.asarray(L, np.float64)
    with np.errstate(over="ignore", under="ignore"):
        product = wide @ wide.T
    return ratio(product - A, len(A) * norm1(A), A.dtype)


def solve_ratio(A, x, b):
    """Return the largest ‖b − A x‖ / (‖A‖ ‖x‖ ε) of the columns."""
    wide = np.asarray(A, np.float64)
    residual = b - wide @ np.asarray(x, np.float64)
    scale = norm1(A) * np.abs(np.asarray(x, np.float64)).sum(axis=0)
    error = np.abs(residual).sum(axis=0)
    return float((error / np.where(error > 0, scale, 1)).max(initial=0) / EPS[A.dtype])


def inverse_ratio(A, inverse):
    """Return ‖I − A X‖ / (p ‖A‖ ‖X‖ ε)."""
    wide = np.asarray(A, np.float64) @ np.asarray(inverse, np.float64)
    return ratio(np.eye(len(A)) - wide, len(A) * norm1(A) * norm1(inverse), A.dtype)
