"""LAPACK's test matrices and ratios: nine kinds, symmetric or Hermitian, and their errors."""

from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from oracle import EPS, rng, wide

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
def orthogonal(p: int, kind: str = "f") -> np.ndarray:
    random = rng(p).standard_normal((p, p))
    if kind == "c":
        random = random + 1j * rng(p, 1).standard_normal((p, p))
    return np.linalg.qr(random)[0]


def symmetric(kind: str, p: int, dtype: npt.DTypeLike) -> tuple[np.ndarray, int | None]:
    """Return a positive semi-definite (p, p) matrix of this kind and the index of its zero row.

    It is Hermitian for a complex dtype.
    """
    values, norm = spectrum(kind, p, dtype)
    if kind == "diagonal":
        return np.diag(values * norm).astype(dtype), None
    Q = orthogonal(p, np.dtype(dtype).kind)
    A = (Q * values) @ Q.conj().T
    A = (norm * (0.5 * (A + A.conj().T))).astype(dtype)
    zero = zero_of(kind, p)
    if zero is not None and p:
        A[zero, :] = A[:, zero] = 0
    return A, zero


def spectrum(kind: str, p: int, dtype: npt.DTypeLike) -> tuple[np.ndarray, float]:
    """Return the eigenvalues of a matrix of this kind, 1 first, and the norm to multiply by."""
    eps, limits = EPS[np.dtype(dtype)], np.finfo(dtype)
    small = 0.25 * float(limits.tiny) / eps
    condition = {
        "ill-conditioned": (0.1 / eps) ** 0.5,
        "singular to rounding": 0.1 / eps,
        "near underflow": (0.1 / eps) ** 0.5,
        "near overflow": (0.1 / eps) ** 0.5,
    }.get(kind, 2.0)
    norm = {"near underflow": small, "near overflow": 1.0 / small}.get(kind, 1.0)
    return condition ** -np.linspace(0.0, 1.0, p) if p > 1 else np.ones(p), norm


def zero_of(kind: str, p: int) -> int | None:
    """Return the row that is zero in a matrix of this kind, None where none is."""
    return {"first row zero": 0, "last row zero": p - 1, "middle row zero": p // 2}.get(kind)


@lru_cache(maxsize=32)
def frame(n: int, p: int, kind: str = "f") -> np.ndarray:
    """Return n × p orthonormal columns, or rows where n < p."""
    random = rng(n, p).standard_normal((max(n, p), min(n, p)))
    if kind == "c":
        random = random + 1j * rng(n, p, 1).standard_normal(random.shape)
    Q = np.linalg.qr(random)[0]
    return Q if n >= p else Q.conj().T


def scores(kind: str, n: int, p: int, dtype: npt.DTypeLike, root: bool = False) -> np.ndarray:
    """Return an (n, p) array of this kind's condition number, with SᴴS of its norm.

    With `root` the condition number is that of SᴴS too, which is then of this kind.
    """
    values, norm = spectrum(kind, min(n, p), dtype)
    values, norm = np.sqrt(values) if root else values, norm**0.5
    if kind == "diagonal":
        S = np.zeros((n, p))
        np.fill_diagonal(S, values)
    else:
        letter = np.dtype(dtype).kind
        k = min(n, p)
        S = (frame(n, k, letter) * values) @ frame(k, p, letter)
    S = (norm * S).astype(dtype)
    zero = zero_of(kind, p)
    if zero is not None and p:
        S[:, zero] = 0
    answer: np.ndarray = S
    return answer


def norm1(A: np.ndarray) -> float:
    return float(np.abs(wide(A)).sum(axis=0).max(initial=0))


def ratio(error: np.ndarray, scale: float, dtype: np.dtype) -> float:
    """Return ‖error‖₁ / (scale · ε); of LAPACK's tests, which use ε / 2, it is half the ratio."""
    found = norm1(error)
    return found / (scale * EPS[np.dtype(dtype)]) if found else 0.0


def factor_ratio(A: np.ndarray, L: np.ndarray) -> float:
    """Return ‖L Lᴴ − A‖ / (p ‖A‖ ε)."""
    with np.errstate(over="ignore", under="ignore"):
        product = wide(L) @ wide(L).conj().T
    return ratio(product - A, len(A) * norm1(A), A.dtype)


def solve_ratio(A: np.ndarray, x: np.ndarray, b: np.ndarray) -> float:
    """Return the largest ‖b − A x‖ / (‖A‖ ‖x‖ ε) of the columns."""
    residual = b - wide(A) @ wide(x)
    scale = norm1(A) * np.abs(wide(x)).sum(axis=0)
    error = np.abs(residual).sum(axis=0)
    return float((error / np.where(error > 0, scale, 1)).max(initial=0) / EPS[A.dtype])


def inverse_ratio(A: np.ndarray, inverse: np.ndarray) -> float:
    """Return ‖I − A X‖ / (p ‖A‖ ‖X‖ ε)."""
    product = wide(A) @ wide(inverse)
    return ratio(np.eye(len(A)) - product, len(A) * norm1(A) * norm1(inverse), A.dtype)


def lower(triangle: np.ndarray, p: int) -> np.ndarray:
    """Return the lower triangle held in panels as a full array, by the layout of triangle.hpp."""
    W = 192 // triangle.itemsize
    L = np.zeros((p, p), triangle.dtype)
    for i in range(-(-p // W)):
        panel = triangle[W * W * i * (i + 1) // 2 :][: W * W * (i + 1)].reshape((i + 1) * W, W).T
        L[i * W : (i + 1) * W, : (i + 1) * W] = panel[: p - i * W, :p]
    return np.tril(L)
