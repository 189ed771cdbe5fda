"""The oracle: every verb in one or two lines of NumPy, and the inputs that all tests draw from."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

DTYPES = (np.float64, np.float32)
COMPLEX = (np.complex128, np.complex64)
EVERY = (*DTYPES, *COMPLEX)
EPS = {np.dtype(t): float(np.finfo(t).eps) for t in EVERY}
# One, odd, prime, and both sides of the register blocks (24 columns of float64, 48 of float32).
SIZES = (1, 2, 5, 13, 23, 24, 25, 47, 48, 49, 97)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng([20261120, *seed])


def draw(n: int, p: int, dtype: npt.DTypeLike = np.float64) -> np.ndarray:
    numbers = rng(n, p).standard_normal((n, p))
    if np.dtype(dtype).kind == "c":
        numbers = numbers + 1j * rng(n, p, 1).standard_normal((n, p))
    return numbers.astype(dtype)


def wide(array: np.ndarray) -> np.ndarray:
    """Return the array in float64 or complex128."""
    array = np.asarray(array)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def draw_weights(n: int) -> np.ndarray:
    weights = rng(n).uniform(0.0, 2.0, n)
    weights[0] = 1.0
    if n > 2:
        weights[n // 2] = 0.0
    return weights


def layouts(scores: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the same scores in every kind of memory that a caller may hold them in."""
    n, p = scores.shape
    yield "plain", scores
    yield "fortran", np.asfortranarray(scores)
    wide = np.zeros((2 * n, 3 * p), scores.dtype)
    wide[::2, ::3] = scores
    yield "strided", wide[::2, ::3]
    yield "negative", np.ascontiguousarray(scores[::-1, ::-1])[::-1, ::-1]
    fixed = scores.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed
    yield "byte-swapped", scores.astype(scores.dtype.newbyteorder())
    raw = np.zeros(scores.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(scores.dtype).reshape(n, p)
    misaligned[...] = scores
    yield "misaligned", misaligned


def mean(scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    return np.average(wide(scores), axis=0, weights=weights)


def rooted(
    scores: np.ndarray, weights: np.ndarray | None = None, center: bool = False
) -> np.ndarray:
    """Return U = W½ (S − 1mᵀ) in float64 or complex128."""
    S = wide(scores)
    S = S - mean(S, weights) if center else S
    return S if weights is None else np.sqrt(weights)[:, None] * S


def total(scores: np.ndarray, weights: np.ndarray | None = None, reduction: str = "mean") -> float:
    if reduction == "sum":
        return 1.0
    return float(len(scores) if weights is None else np.sum(weights))


def fisher(
    scores: np.ndarray,
    weights: np.ndarray | None = None,
    center: bool = False,
    reduction: str = "mean",
) -> np.ndarray:
    U = rooted(scores, weights, center)
    answer: np.ndarray = U.conj().T @ U / total(scores, weights, reduction)
    return answer


def masked(F: np.ndarray, sizes: Sequence[int], tridiagonal: bool = False) -> np.ndarray:
    """Return F with zeros off its diagonal blocks, or off those and their neighbours."""
    block = np.repeat(np.arange(len(sizes)), sizes)
    return np.where(np.abs(block[:, None] - block) <= tridiagonal, F, 0)


def gram(
    scores: np.ndarray,
    weights: np.ndarray | None = None,
    center: bool = False,
    reduction: str = "mean",
) -> np.ndarray:
    U = rooted(scores, weights, center)
    answer: np.ndarray = U @ U.conj().T / total(scores, weights, reduction)
    return answer


def natural_gradient(
    scores: np.ndarray,
    damping: float | np.ndarray,
    grad: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    center: bool = False,
) -> np.ndarray:
    F = fisher(scores, weights, center)
    g = mean(scores, weights).conj() if grad is None else grad
    D = np.diag(np.broadcast_to(damping, len(F)))
    return np.linalg.solve(F + D, g)


def close(
    actual: Any,
    expected: Any,
    dtype: npt.DTypeLike,
    terms: float | np.floating,
    scale: float | np.floating | None = None,
) -> None:
    """Assert |actual − expected| ≤ 4 · terms · eps · scale, the size of what is summed."""
    expected = wide(expected)
    if scale is None:
        scale = np.abs(expected).max(initial=0.0)
    actual = np.asarray(actual)
    assert actual.shape == expected.shape
    error = np.abs(wide(actual) - expected).max(initial=0.0)
    bound = 4 * max(terms, 4) * EPS[np.dtype(dtype)] * scale
    assert error <= bound, f"error {error:.3g}, bound {bound:.3g}"
