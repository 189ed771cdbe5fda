"""Cholesky on a panel triangle: LAPACK's ratios on its nine kinds of matrix, and what fails."""

import numpy as np
import pytest

import lapack
from fastfisher._native import core
from fastfisher.solvers import Status
from lapack import lower
from oracle import DTYPES, EPS, rng

CASES = [(kind, p, dtype) for kind in lapack.KINDS for p in lapack.SIZES for dtype in DTYPES]


def packed(A: np.ndarray) -> np.ndarray:
    triangle = core.triangle_zeros(len(A), A.itemsize)
    assert core.triangle_from_dense(A, triangle, 0)[0] == Status.SUCCESS
    return triangle


def factored(
    A: np.ndarray,
    *,
    scale: float = 1.0,
    shift: np.ndarray | None = None,
    tolerance: float = 0.0,
    threads: int = 0,
) -> tuple[np.ndarray, tuple[int, int, int, float]]:
    triangle = packed(A)
    return triangle, core.cholesky(triangle, len(A), scale, shift, tolerance, threads)


@pytest.mark.parametrize(("kind", "p", "dtype"), CASES)
def test_ratios(kind: str, p: int, dtype: type[np.floating]) -> None:
    A, zero = lapack.symmetric(kind, p, dtype)
    triangle, report = factored(A)
    if zero is not None and p:
        assert report[:2] == (Status.NOT_POSITIVE_DEFINITE, zero)
        return
    if kind == "singular to rounding" and report[0] == Status.NOT_POSITIVE_DEFINITE:
        return  # rounding A to its dtype may have moved the smallest eigenvalue below zero
    assert report[0] == Status.SUCCESS
    assert lapack.factor_ratio(A, lower(triangle, p)) < 30
    b = rng(p).standard_normal((p, 3)).astype(dtype)
    b *= dtype(lapack.norm1(A)) if p else 1
    x = np.empty_like(b)
    core.cholesky_solve(triangle, b, x, 0)
    assert lapack.solve_ratio(A, x, b) < 30


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["diagonal", "well-conditioned", "ill-conditioned"])
@pytest.mark.parametrize("p", lapack.SIZES)
def test_inverse_logdet_rcond(kind: str, p: int, dtype: type[np.floating]) -> None:
    A, _ = lapack.symmetric(kind, p, dtype)
    triangle, report = factored(A)
    assert report[0] == Status.SUCCESS
    inverse = core.triangle_zeros(p, A.itemsize)
    core.cholesky_inverse(triangle, p, inverse, 0)
    X = np.empty_like(A)
    core.triangle_to_dense(inverse, 1.0, X, 0)
    assert lapack.inverse_ratio(A, X) < 30
    diagonal = np.empty(p, dtype)
    core.cholesky_inverse_diagonal(triangle, diagonal, 0)
    np.testing.assert_allclose(diagonal, X.diagonal(), rtol=30 * max(p, 1) * EPS[A.dtype])
    expected = np.linalg.slogdet(A.astype(np.float64))[1]
    assert abs(core.cholesky_logdet(triangle, p) - expected) <= 30 * p * EPS[A.dtype] * max(
        1.0, np.sqrt(0.1 / EPS[A.dtype]) if kind == "ill-conditioned" else 1.0
    )
    if p:
        true = 1.0 / (lapack.norm1(A) * lapack.norm1(X))
        estimate = core.cholesky_rcond(triangle, p, lapack.norm1(A), 0)
        assert true * (1 - 30 * p * EPS[A.dtype]) <= estimate < 10 * true


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1, 25, 97, 500])
def test_scale_and_shift(p: int, dtype: type[np.floating]) -> None:
    A, _ = lapack.symmetric("well-conditioned", p, dtype)
    shift = rng(p).uniform(0.5, 1.0, p).astype(dtype)
    triangle, report = factored(A, scale=0.25, shift=shift)
    assert report[0] == Status.SUCCESS
    damped = (0.25 * A.astype(np.float64) + np.diag(shift)).astype(dtype)
    assert lapack.factor_ratio(damped, lower(triangle, p)) < 30


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [24, 193, 700])
def test_same_bits_for_any_thread_count(p: int, dtype: type[np.floating]) -> None:
    A, _ = lapack.symmetric("well-conditioned", p, dtype)
    B = rng(p).standard_normal((p, 101)).astype(dtype)
    answers = []
    for threads in (1, 2, 3, 8):
        triangle, _ = factored(A, threads=threads)
        x, inverse = np.empty_like(B), core.triangle_zeros(p, A.itemsize)
        core.cholesky_solve(triangle, B, x, threads)
        core.cholesky_inverse(triangle, p, inverse, threads)
        X, diagonal = np.empty_like(A), np.empty(p, dtype)
        core.triangle_to_dense(inverse, 1.0, X, threads)
        core.cholesky_inverse_diagonal(triangle, diagonal, threads)
        answers.append((lower(triangle, p), x, X, diagonal))
    for other in answers[1:]:
        for found, first in zip(other, answers[0], strict=True):
            np.testing.assert_array_equal(found, first)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [0, 1, 3, 8, 9, 24, 25, 48, 49, 130])
def test_right_hand_sides_in_any_layout(columns: int, dtype: type[np.floating]) -> None:
    p = 61
    A, _ = lapack.symmetric("well-conditioned", p, dtype)
    triangle, _ = factored(A)
    B = rng(columns).standard_normal((p, columns)).astype(dtype)
    L = lower(triangle, p).astype(np.float64)
    wide = np.zeros((2 * p, 3 * columns), dtype)
    wide[::2, ::3] = B
    for held in (B, np.asfortranarray(B), wide[::2, ::3], B[::-1][::-1]):
        whole, down, up = np.empty_like(B), np.empty_like(B), np.empty_like(B, order="F")
        core.cholesky_solve(triangle, held, whole, 0)
        core.cholesky_half_solve(triangle, held, False, down, 0)
        core.cholesky_half_solve(triangle, held, True, up, 0)
        tolerance = 30 * p * EPS[A.dtype]
        np.testing.assert_allclose(L @ down, B, atol=tolerance * 4, rtol=0)
        np.testing.assert_allclose(L.T @ up, B, atol=tolerance * 4, rtol=0)
        np.testing.assert_allclose(L @ (L.T @ whole), B, atol=tolerance * 4, rtol=0)
    in_place = B.copy()
    core.cholesky_solve(triangle, in_place, in_place, 0)
    np.testing.assert_array_equal(in_place, whole)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [1, 30, 149])
def test_a_singular_matrix_is_named_not_factored_by_luck(
    rank: int, dtype: type[np.floating]
) -> None:
    p = 150
    factor = rng(rank).standard_normal((p, rank)).astype(dtype)
    A = (factor @ factor.T).astype(dtype)
    _, report = factored(A, tolerance=p * EPS[A.dtype])
    assert report[0] == Status.NOT_POSITIVE_DEFINITE
    assert report[1] >= rank
    assert report[3] <= p * EPS[A.dtype] * A[report[1], report[1]]


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("place", [0, 1, 30, 191, 192, 400, 599])
def test_the_first_bad_pivot_is_named(place: int, threads: int) -> None:
    p = 600
    A, _ = lapack.symmetric("well-conditioned", p, np.float64)
    A[place, place] = -1.0
    A[-1, -1] = -1.0
    _, report = factored(A, threads=threads)
    assert report[:2] == (Status.NOT_POSITIVE_DEFINITE, place)
    assert report[3] <= -1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_number_is_not_called_indefinite(bad: float) -> None:
    A, _ = lapack.symmetric("well-conditioned", 300, np.float64)
    triangle = packed(A)
    triangle[-24 * 24] = bad  # the first of the last panel's diagonal block
    report = core.cholesky(triangle, 300, 1.0, None, 0.0, 0)
    assert report[0] == Status.NON_FINITE
    assert report[1] == 288


def test_an_overflow_on_the_way_is_not_a_success() -> None:
    A = np.full((30, 30), 1e308)
    A[np.arange(30), np.arange(30)] = 1e300
    _, report = factored(A)
    assert report[0] == Status.NON_FINITE
