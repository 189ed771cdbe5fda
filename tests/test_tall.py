"""Tall scores of every width: rows read as they stand, several rows as one, and their ends."""

import numpy as np
import numpy.typing as npt
import pytest

from fastfisher._native import core
from fastfisher.solvers import Status
from oracle import DTYPES, EPS, draw, draw_weights

# Everything up to a panel and a half of float32; both sides of where rows are packed instead.
WIDTHS = [*range(1, 74), 127, 128, 129]


def sums(
    scores: np.ndarray,
    held: npt.DTypeLike | None = None,
    weights: np.ndarray | None = None,
    threads: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    params = scores.shape[1]
    triangle = core.triangle_zeros(params, np.dtype(held or scores.dtype).itemsize)
    report = core.accumulate(scores, weights, None, triangle, True, True, threads)
    assert report[0] == Status.SUCCESS
    out = np.empty((params, params), triangle.dtype)
    core.triangle_to_dense(triangle, 1.0, out, 0)
    return out, triangle


def bound(S: np.ndarray, held: type[np.floating]) -> np.ndarray:
    return (len(S) + 4) * EPS[np.dtype(held)] * (abs(S).T @ abs(S))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", WIDTHS)
def test_every_width(p: int, dtype: type[np.floating]) -> None:
    for n in (8 * p + 1, 2 * p + 1200):
        S = draw(n, p, dtype)
        exact = S.astype(np.float64)
        found, triangle = sums(S)
        assert (abs(found - exact.T @ exact) <= bound(exact, dtype)).all()
        other = core.triangle_zeros(p, S.itemsize)
        core.triangle_from_dense(found, other, 1)  # what lies past the last column is zero again
        full = np.ones((p, p), bool)
        assert np.count_nonzero(triangle) <= np.count_nonzero(other) + np.triu(full, 1).sum()
        for threads in (1, 2, 3, 8):
            assert np.array_equal(sums(S, threads=threads)[0], found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1, 3, 7, 8, 9, 31])
def test_what_lies_beside_and_behind_is_not_read_into_the_sum(
    p: int, dtype: type[np.floating]
) -> None:
    S = draw(1000, p, dtype)
    wide = np.full((1001, p + 40), np.nan, dtype)
    wide[:1000, :p] = S
    plain = sums(S)[0]
    np.testing.assert_allclose(sums(wide[:1000, :p])[0], plain, rtol=1e3 * EPS[S.dtype], atol=1e-3)
    narrow = np.full(1000 * p + 64, np.nan, dtype)
    rows = narrow[: 1000 * p].reshape(1000, p)
    rows[...] = S
    assert np.array_equal(sums(rows)[0], plain)


@pytest.mark.parametrize("p", [1, 2, 5, 8, 30, 64])
def test_a_bad_score_is_named_wherever_it_stands(p: int) -> None:
    for row in (0, 1, 517, 998, 999):
        for col in {0, p // 2, p - 1}:
            for bad in (np.nan, np.inf, -np.inf):
                S = draw(1000, p, np.float64)
                S[row, col] = bad
                triangle = core.triangle_zeros(p, 8)
                report = core.accumulate(S, None, None, triangle, True, True, 0)
                assert report[:3] == (Status.NON_FINITE, row, col)
                assert not triangle.any()


def test_overflow_names_its_column_and_changes_nothing() -> None:
    S = draw(1000, 5, np.float64)
    S[3, 2] = 1e200
    triangle = core.triangle_zeros(5, 8)
    for fresh in (True, False):
        report = core.accumulate(S, None, None, triangle, fresh, True, 0)
        assert report == (Status.NON_FINITE, -1, 2, np.inf)
        assert not triangle.any()


@pytest.mark.parametrize("p", [1, 2, 8, 17])
def test_added_to_what_is_there(p: int) -> None:
    S, w = draw(900, p, np.float64), draw_weights(900)
    triangle = core.triangle_zeros(p, 8)
    for fresh, weights in ((True, None), (False, None), (False, w)):
        core.accumulate(S, weights, None, triangle, fresh, True, 0)
    found = np.empty((p, p))
    core.triangle_to_dense(triangle, 1.0, found, 0)
    exact = (2 * S + w[:, None] * S).T @ S
    np.testing.assert_allclose(found, exact, rtol=0, atol=4 * bound(S, np.float64).max())
