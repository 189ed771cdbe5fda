"""The product engine against long double, in every layout and for every thread count."""

from typing import Any, cast

import numpy as np
import pytest

from fastfisher._native import core
from fastfisher.solvers import Status
from oracle import DTYPES, EPS, draw, draw_weights, layouts, rng

# Empty, tiny, odd, prime; both sides of a panel, of a block of 256 rows and of both schedules.
SHAPES = [
    (0, 3),
    (1, 1),
    (2, 50),
    (5, 3),
    (13, 24),
    (101, 25),
    (255, 47),
    (257, 49),
    (300, 48),
    (513, 200),
    (600, 700),
    (997, 97),
    (3001, 10),
    (5000, 131),
]
PAIRS = [(np.float64, np.float64), (np.float32, np.float32), (np.float32, np.float64)]


def dense(triangle: np.ndarray, p: int) -> np.ndarray:
    out = np.empty((p, p), triangle.dtype)
    core.triangle_to_dense(triangle, 1.0, out, 0)
    return out


def accumulated(
    scores: np.ndarray,
    held: type[np.floating],
    weights: np.ndarray | None = None,
    mean: np.ndarray | None = None,
    threads: int = 0,
    check_finite: bool = True,
) -> np.ndarray:
    triangle = core.triangle_zeros(scores.shape[1], np.dtype(held).itemsize)
    report = core.accumulate(scores, weights, mean, triangle, True, check_finite, threads)
    assert report[0] == Status.SUCCESS
    return dense(triangle, scores.shape[1])


def assert_componentwise(
    found: np.ndarray, X: np.ndarray, Y: np.ndarray, held: type[np.floating]
) -> None:
    """|found − XᵀY| ≤ γ |X|ᵀ|Y| entry by entry, γ = (k + 4)ε with k terms in a sum."""
    X, Y = np.asarray(X, np.longdouble), np.asarray(Y, np.longdouble)
    exact = (X.T @ Y) if X.size < 40000 else (X.astype(np.float64).T @ Y.astype(np.float64))
    bound = (len(X) + 4) * EPS[np.dtype(held)] * (abs(X).T @ abs(Y)).astype(np.float64)
    assert (abs(found - exact) <= bound).all()


@pytest.mark.parametrize(("source", "held"), PAIRS)
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_accumulate(n: int, p: int, source: type[np.floating], held: type[np.floating]) -> None:
    S = draw(n, p, source)
    assert_componentwise(accumulated(S, held), S, S, held)
    if n == 0:
        return
    w = draw_weights(n).astype(held)
    assert_componentwise(accumulated(S, held, w), w[:, None].astype(np.float64) * S, S, held)
    m = rng(p).standard_normal(p).astype(held)
    # Subtracting the mean rounds once more: the bound is that of |S| + |m|.
    size = abs(S.astype(np.float64)) + abs(m.astype(np.float64))
    centred = S.astype(np.float64) - m
    error = abs(accumulated(S, held, w, m) - (w[:, None] * centred).T @ centred)
    assert (error <= (n + 8) * EPS[np.dtype(held)] * ((w[:, None] * size).T @ size)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "p"), [(61, 50), (300, 25), (1000, 97)])
def test_every_layout_gives_the_same_sum(n: int, p: int, dtype: type[np.floating]) -> None:
    S, w = draw(n, p, dtype), draw_weights(n).astype(dtype)
    m = rng(p).standard_normal(p).astype(dtype)
    expected = accumulated(S, dtype, w, m)
    tolerance = 4 * n * EPS[np.dtype(dtype)] * abs(expected).max()
    for name, view in layouts(S):
        if name in ("byte-swapped", "misaligned"):  # Python makes these native before they get here
            continue
        np.testing.assert_allclose(
            accumulated(view, dtype, w, m), expected, rtol=0, atol=tolerance, err_msg=name
        )
    one_row = np.broadcast_to(S[0], (n, p))
    np.testing.assert_allclose(
        accumulated(one_row, dtype), n * np.outer(S[0], S[0]), rtol=4 * n * EPS[np.dtype(dtype)]
    )


@pytest.mark.parametrize(("source", "held"), PAIRS)
@pytest.mark.parametrize(("n", "p"), [(600, 700), (5000, 131), (1500, 500), (20011, 30)])
def test_same_bits_for_any_thread_count(
    n: int, p: int, source: type[np.floating], held: type[np.floating]
) -> None:
    S, w = draw(n, p, source), draw_weights(n).astype(held)
    first = accumulated(S, held, w, threads=1)
    for threads in (2, 3, 8):
        for _ in range(3):
            np.testing.assert_array_equal(accumulated(S, held, w, threads=threads), first)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "p"), [(1, 5), (25, 300), (49, 7), (130, 2000)])
def test_gram(n: int, p: int, dtype: type[np.floating]) -> None:
    S, w = draw(n, p, dtype), draw_weights(n).astype(dtype)
    m = rng(p).standard_normal(p).astype(dtype)
    for order in "CF":
        for weights in (None, w):
            for mean in (None, m):
                triangle = core.triangle_zeros(n, S.itemsize)
                held = np.asarray(S, order=cast(Any, order))
                assert core.gram(held, weights, mean, triangle, True, 0)[0] == Status.SUCCESS
                U = S.astype(np.float64) - (0 if mean is None else m)
                size = abs(S.astype(np.float64)) + (0 if mean is None else abs(m))
                if weights is not None:
                    U, size = np.sqrt(w)[:, None] * U, np.sqrt(w)[:, None] * size
                bound = (p + 8) * EPS[S.dtype] * (size @ size.T)
                assert (abs(dense(triangle, n) - U @ U.T) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("depth", "m", "q"),
    [(0, 2, 3), (1, 1, 1), (100, 30, 7), (600, 50, 100), (999, 25, 1), (30, 500, 300)],
)
def test_general_product(depth: int, m: int, q: int, dtype: type[np.floating]) -> None:
    X, Y = draw(depth, m, dtype), rng(q).standard_normal((depth, q)).astype(dtype)
    for out in (np.empty((m, q), dtype), np.empty((m, q), dtype, order="F")):
        core.product(np.asfortranarray(X), Y, out, 0)
        assert_componentwise(out, X, Y, dtype)
    first = out.copy()
    for threads in (1, 2, 3, 8):
        core.product(X, Y, out, threads)
        np.testing.assert_array_equal(out, first)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("n", "p"), [(500, 20), (300, 200)])  # by slabs, by tiles
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_bad_number_is_named_and_nothing_is_lost(n: int, p: int, order: str, bad: float) -> None:
    S = np.asarray(draw(n, p), order=cast(Any, order))
    S[123, 7] = bad
    S[200, 3] = bad
    fresh = core.triangle_zeros(p, 8)
    assert core.accumulate(S, None, None, fresh, True, True, 0)[:3] == (Status.NON_FINITE, 123, 7)
    used = core.triangle_zeros(p, 8)
    assert core.accumulate(draw(n, p), None, None, used, True, True, 0)[0] == Status.SUCCESS
    before = used.copy()
    assert core.accumulate(S, None, None, used, False, True, 0)[:3] == (Status.NON_FINITE, 123, 7)
    np.testing.assert_array_equal(used, before)
    triangle = core.triangle_zeros(n, 8)
    assert core.gram(S, None, None, triangle, True, 0)[:3] == (Status.NON_FINITE, 123, 7)
    unchecked = core.triangle_zeros(p, 8)
    assert core.accumulate(S, None, None, unchecked, True, False, 0)[0] == Status.SUCCESS
    assert not np.isfinite(dense(unchecked, p)[7, 7])


def test_an_overflow_of_finite_scores_names_the_column() -> None:
    S = np.ones((10, 3))
    S[:, 1:] = 1e200
    triangle = core.triangle_zeros(3, 8)
    assert core.accumulate(S, None, None, triangle, True, True, 0)[:3] == (Status.NON_FINITE, -1, 1)
    unchecked = core.triangle_zeros(3, 8)
    assert core.accumulate(S, None, None, unchecked, True, False, 0)[0] == Status.SUCCESS
    assert np.isposinf(dense(unchecked, 3)[1, 1])
    K = core.triangle_zeros(10, 8)
    assert core.gram(S, None, None, K, True, 0)[:3] == (Status.NON_FINITE, -1, 0)


def test_padding_is_zero_so_that_triangles_add() -> None:
    for order in "CF":
        S, m = np.asarray(draw(40, 30), order=cast(Any, order)), rng(1).standard_normal(30)
        triangle = core.triangle_zeros(30, 8)
        core.accumulate(S, None, m, triangle, True, True, 0)
        rows = triangle[24 * 24 :].reshape(48, 24)  # panel 2: rows 24 … 47, 6 exist
        assert not rows[:, 6:].any()
        K = core.triangle_zeros(40, 8)
        core.gram(S, None, m, K, True, 0)
        assert not K[24 * 24 :].reshape(48, 24)[:, 16:].any()
