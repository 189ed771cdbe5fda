"""Strassen's products: their error bound, the digits they cost, and bits and failures as ever."""

import numpy as np
import numpy.typing as npt
import pytest

import fastfisher as ff
from fastfisher._native import core
from fastfisher._ops import numpy_triangle
from fastfisher.solvers import Status
from oracle import DTYPES, EPS, draw, draw_weights, layouts, rng

LEAST = 100
# (n, p): too few of either, one level, two levels, three halvings; odd, prime, whole panels.
SHAPES = [(99, 500), (500, 99), (101, 151), (203, 401), (257, 384), (403, 397), (301, 801)]
PAIRS = [(np.float64, np.float64), (np.float32, np.float32), (np.float32, np.float64)]


def dense(triangle: np.ndarray, p: int) -> np.ndarray:
    out = np.empty((p, p), triangle.dtype)
    core.triangle_to_dense(triangle, 1.0, out, 0)
    return out


def fast(
    S: np.ndarray,
    held: npt.DTypeLike,
    weights: np.ndarray | None = None,
    mean: np.ndarray | None = None,
    threads: int = 0,
    least: int = LEAST,
) -> np.ndarray:
    triangle = core.triangle_zeros(S.shape[1], np.dtype(held).itemsize)
    report = core.accumulate_fast(S, weights, mean, triangle, least, True, threads)
    assert report[0] == Status.SUCCESS
    return dense(triangle, S.shape[1])


def classical(S: np.ndarray, held: np.dtype, weights: None = None, mean: None = None) -> np.ndarray:
    triangle = core.triangle_zeros(S.shape[1], np.dtype(held).itemsize)
    assert core.accumulate(S, weights, mean, triangle, True, True, 0)[0] == Status.SUCCESS
    return dense(triangle, S.shape[1])


def bound(U: np.ndarray, held: npt.DTypeLike) -> float:
    """3^ℓ · n · (n + 5 · 2^ℓ) · u · max|U|², and two roundings of each U in n terms."""
    n = len(U)
    return float((9 * n * (n + 20) + 4 * n) * EPS[np.dtype(held)] / 2 * abs(U).max() ** 2)


def likely(U: np.ndarray, held: type[np.floating]) -> float:
    """What independent roundings leave of the bound: √n for n, and 3 = √9 for two levels."""
    return float(12 * np.sqrt(len(U)) * EPS[np.dtype(held)] * abs(U.T @ U).max())


@pytest.mark.parametrize(("source", "held"), PAIRS)
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_within_its_bound(
    n: int, p: int, source: type[np.floating], held: type[np.floating]
) -> None:
    S, w = draw(n, p, source), draw_weights(n).astype(held)
    m = rng(p).standard_normal(p).astype(held)
    for weights, mean in [(None, None), (w, None), (None, m), (w, m)]:
        U = S.astype(np.float64) - (0 if mean is None else mean)
        U = U if weights is None else np.sqrt(weights.astype(np.float64))[:, None] * U
        error = abs(fast(S, held, weights, mean) - U.T @ U).max()
        assert error <= min(bound(U, held), likely(U, held))


def test_multiplies_otherwise() -> None:
    """Off the diagonal the bits differ, so what is tested here is not the classical product."""
    S = draw(403, 397)
    found, plain = fast(S, S.dtype), classical(S, S.dtype)
    assert (found != plain).mean() > 0.2
    assert np.array_equal(fast(S, S.dtype, least=404), plain)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "p"), [(203, 401), (403, 797)])
def test_the_bits_do_not_depend_on_threads(n: int, p: int, dtype: type[np.floating]) -> None:
    S, w = draw(n, p, dtype), draw_weights(n).astype(dtype)
    expected = fast(S, dtype, w, threads=1)
    for threads in (2, 3, 8):
        assert np.array_equal(fast(S, dtype, w, threads=threads), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout(dtype: type[np.floating]) -> None:
    S, w = draw(203, 401, dtype), draw_weights(203).astype(dtype)
    m = rng(1).standard_normal(401).astype(dtype)
    expected = fast(S, dtype, w, m)
    for name, view in layouts(S):
        if name in ("byte-swapped", "misaligned"):  # Python makes these native before
            continue
        error = abs(fast(view, dtype, w, m) - expected).max()
        assert error <= 8 * 203 * EPS[np.dtype(dtype)] * abs(expected).max(), name


def test_small_columns_lose_digits_and_the_diagonal_does_not() -> None:
    n, p = 400, 400
    S = draw(n, p)
    S[:, rng(2).permutation(p)[: p // 2]] *= 1e-6
    exact = S.T @ S
    found = fast(S, S.dtype)
    size = np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
    error = abs(found - exact) / size
    assert abs(found - exact).max() <= bound(S, S.dtype)
    assert error.max() > 1e4 * n * EPS[S.dtype]  # 1e-6 · 1e-6 beside 1: all digits but four
    assert error.diagonal().max() <= n * EPS[S.dtype]
    assert (abs(classical(S, S.dtype) - exact) / size).max() <= n * EPS[S.dtype]
    quarter = p // 4 // 24 * 24  # diagonal blocks are classical as a whole
    assert error[:quarter, :quarter].max() <= n * EPS[S.dtype]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("row", "col"), [(0, 0), (201, 400), (202, 13), (57, 333)])
def test_what_is_not_finite_is_named(row: int, col: int, value: float) -> None:
    S = draw(203, 401)
    S[row, col] = value
    triangle = core.triangle_zeros(401, 8)
    report = core.accumulate_fast(S, None, None, triangle, LEAST, True, 0)
    assert report[:3] == (Status.NON_FINITE, row, col)


def test_an_overflow_is_named_and_near_it_all_is_classical() -> None:
    S = draw(203, 401)
    S[:, 300] *= 1e160
    triangle = core.triangle_zeros(401, 8)
    report = core.accumulate_fast(S, None, None, triangle, LEAST, True, 0)
    assert report[:3] == (Status.NON_FINITE, -1, 300)
    S = draw(203, 401)
    S *= np.sqrt(np.finfo(np.float64).max / 2 / (S.T @ S).max())
    error = abs(fast(S, S.dtype) / 2 - S.T @ S / 2).max()
    assert error <= 203 * EPS[S.dtype] * (S.T @ S).max()


@pytest.mark.parametrize("center", [False, True])
def test_the_function(center: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_triangle, "STRASSEN_LEAST", LEAST)
    S, w = draw(203, 401) + 3.0, draw_weights(203)
    plain = ff.empirical_fisher(S, weights=w, center=center)
    found = ff.empirical_fisher(S, weights=w, center=center, algorithm="strassen")
    assert not np.array_equal(found, plain)
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e3 * EPS[S.dtype] * abs(plain).max())
    S[5, 7] = np.nan
    with pytest.raises(ff.NonFiniteError, match="scores: expected finite values, got nan"):
        ff.empirical_fisher(S, center=center, algorithm="strassen")


def test_small_scores_are_classical() -> None:
    S = draw(203, 401)
    assert np.array_equal(ff.empirical_fisher(S, algorithm="strassen"), ff.empirical_fisher(S))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="expected 'classical' or 'strassen', got 'winograd'"):
        ff.empirical_fisher(draw(5, 3), algorithm="winograd")
    with pytest.raises(ValueError, match="expected real numbers with algorithm='strassen'"):
        ff.empirical_fisher(draw(5, 3, np.complex128), algorithm="strassen")
