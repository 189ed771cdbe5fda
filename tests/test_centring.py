"""Centring in one pass: no offset, no drift and no weight costs digits."""

import numpy as np
import pytest

import fastfisher as ff
from oracle import EPS, draw, draw_weights, rng

SHAPES = [(1, 3), (2, 1), (700, 5), (3000, 40), (2000, 131), (500, 300)]


def covariance(S: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Weighted covariance in long double."""
    w = np.ones(len(S)) if weights is None else weights
    S, w = np.asarray(S, np.longdouble), np.asarray(w, np.longdouble)
    centred = S - (w @ S) / w.sum()
    answer: np.ndarray = ((w[:, None] * centred).T @ centred / w.sum()).astype(np.float64)
    return answer


def tolerance(S: np.ndarray, exact: np.ndarray, dtype: type[np.floating]) -> float:
    """c·n·eps of the spread, and eps of the offset that each score itself was rounded by."""
    eps = EPS[np.dtype(dtype)]
    offset = abs(S.astype(np.float64)).max()
    spread = np.sqrt(exact.diagonal().max())
    return float(8 * len(S) * eps * spread**2 + 8 * eps * offset * spread + (8 * eps * offset) ** 2)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8])
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_an_offset_costs_nothing(n: int, p: int, offset: float, dtype: type[np.floating]) -> None:
    S = (draw(n, p, np.float64) + offset * (1 + np.arange(p) / p)).astype(dtype)
    for weights in (None, draw_weights(n).astype(dtype)):
        exact = covariance(S, weights)
        limit = tolerance(S, exact, dtype)
        found = ff.empirical_fisher(S, weights=weights, center=True)
        assert abs(found - exact).max() <= limit
        F = ff.DenseFisher(p, dtype=dtype, center=True)
        for part in np.array_split(np.arange(n), 7):
            F.update(S[part], None if weights is None else weights[part])
        assert abs(F.to_dense() - exact).max() <= 2 * limit


def test_rows_that_say_nothing_about_the_mean() -> None:
    """The rows that a first guess looks at weigh next to nothing and lie far away."""
    n, p = 6400, 6
    S = draw(n, p, np.float64) + 1e8
    S[:: n // 64] = 0.0
    weights = np.ones(n)
    weights[:: n // 64] = 1e-30
    exact = covariance(S, weights)
    found = ff.empirical_fisher(S, weights=weights, center=True)
    assert abs(found - exact).max() <= tolerance(S, exact, np.float64)


def test_a_level_that_wanders() -> None:
    n, p = 5000, 9
    S = draw(n, p, np.float64) + np.linspace(-1e6, 1e6, n)[:, None]
    exact = covariance(S)
    found = ff.empirical_fisher(S, center=True)
    assert abs(found - exact).max() <= 8 * n * EPS[S.dtype] * abs(exact).max()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e100, 1e-300, -7e8])
def test_a_constant_has_no_variance(value: float) -> None:
    S = np.full((1000, 3), value)
    S[:, 1] = rng(0).standard_normal(1000)
    F = ff.empirical_fisher(S, center=True)
    assert F[0, 0] >= 0.0
    assert F[0, 0] <= (8 * EPS[S.dtype] * value) ** 2


def test_bits_do_not_depend_on_threads() -> None:
    S, w = draw(20000, 33, np.float64) + 3.0, draw_weights(20000)
    first = ff.empirical_fisher(S, weights=w, center=True, n_threads=1)
    for threads in (2, 3, 8):
        found = ff.empirical_fisher(S, weights=w, center=True, n_threads=threads)
        assert np.array_equal(found, first)


@pytest.mark.parametrize("shape", [(2000, 7), (300, 200)])
def test_a_bad_score_changes_nothing(shape: tuple[int, int]) -> None:
    n, p = shape
    S = draw(n, p, np.float64) + 1.0
    F = ff.DenseFisher(shape[1], center=True).update(S)
    before = F.to_dense()
    bad = S.copy()
    bad[shape[0] // 2, 3] = np.nan
    with pytest.raises(ff.NonFiniteError) as caught:
        F.update(bad)
    assert (caught.value.row, caught.value.column) == (shape[0] // 2, 3)
    assert np.array_equal(F.to_dense(), before)
