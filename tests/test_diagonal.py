"""DiagonalFisher: sums of squares that stream, merge and decay."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfisher as ff
import oracle


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.booleans())
def test_streaming_and_merging_are_one_shot(sizes: Sequence[int], center: bool) -> None:
    n, p = sum(sizes) + 1, 9
    S, weights = oracle.draw(n, p) + 2.0, oracle.draw_weights(n) + 0.1
    blocks = np.split(np.arange(n), np.cumsum(sizes))
    streamed = ff.DiagonalFisher(p, center=center)
    for block in blocks:
        streamed.update(S[block], weights[block])
    parts = [ff.DiagonalFisher(p, center=center).update(S[b], weights[b]) for b in blocks]
    merged = ff.DiagonalFisher(p, center=center).merge(*parts)
    expected = np.diag(oracle.fisher(S, weights, center))
    scale = 4 * np.diag(oracle.fisher(S, weights)).max()
    oracle.close(streamed.diagonal(), expected, float, n, scale)
    oracle.close(merged.diagonal(), expected, float, n, scale)


def test_decay_is_the_running_mean_of_adam() -> None:
    gradients, beta = oracle.draw(50, 4), 0.9
    F, running = ff.DiagonalFisher(4, reduction="sum"), np.zeros(4)
    for g in gradients:
        F.decay(beta).update(g[None], [1 - beta])
        running = beta * running + (1 - beta) * g**2
    oracle.close(F.diagonal(), running, float, 50)


def test_it_is_not_the_square_of_the_mean_gradient() -> None:
    S = np.array([[1.0], [-1.0]])
    assert ff.fisher_diagonal(S) == 1.0
    assert S.mean(axis=0) ** 2 == 0.0


def test_zeros_are_named() -> None:
    F = ff.DiagonalFisher.from_scores(np.array([[1.0, 0.0, 2.0]]))
    with pytest.raises(ff.NotPositiveDefiniteError) as caught:
        F.solve(np.ones(3))
    assert caught.value.pivot == 1
    assert caught.value.damping is not None
    assert caught.value.damping > 0
    solution = ff.solve(F, np.ones(3), on_failure="pinv")
    assert np.array_equal(solution.value, [1.0, 0.0, 0.25])
    assert solution.rank == 2
    assert ff.solve(F, np.ones(3), damping=0.5).method == "cholesky"


def test_explicit_numbers_are_the_mean_or_the_sum_of_samples() -> None:
    (diagonal, v), S = oracle.draw(7, 2).T, oracle.draw(15, 7)
    diagonal = diagonal**2
    F = ff.DiagonalFisher.from_diagonal(diagonal, n_samples=5)
    assert (F.n_samples, F.weight_sum, F.reduction) == (5, 5.0, "mean")
    oracle.close(F.diagonal(), diagonal, float, 4)
    oracle.close(F @ v, diagonal * v, float, 4)
    expected = (5 * diagonal + (S**2).sum(axis=0)) / 20
    oracle.close(F.copy().update(S).diagonal(), expected, float, 100)
    total = ff.DiagonalFisher.from_diagonal(diagonal.astype(np.float32), reduction="sum")
    assert total.dtype == np.float32
    np.testing.assert_array_equal(total.diagonal(), diagonal.astype(np.float32))
    assert ff.DiagonalFisher.from_diagonal([1, 2]).dtype == np.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ([1.0, -2.0],),
            "diagonal: expected finite numbers that are not negative, got -2.0 at par",
        ),
        (([np.nan],), "diagonal: expected finite numbers that are not negative, got nan at parame"),
        ((np.ones((2, 2)),), r"diagonal: expected shape \(p,\) with p ≥ 1, got \(2, 2\)"),
        (([1.0], 0), "n_samples: expected at least 1, got 0"),
        (([1.0], 1, "max"), "reduction: expected 'mean' or 'sum', got 'max'"),
    ],
)
def test_explicit_numbers_that_are_no_diagonal(arguments: Sequence[Any], message: str) -> None:
    diagonal, *rest = arguments
    options = dict(zip(("n_samples", "reduction"), rest, strict=False))
    with pytest.raises(ValueError, match=message):
        ff.DiagonalFisher.from_diagonal(diagonal, **options)


@pytest.mark.parametrize("center", [False, True])
def test_squares_that_overflow_are_named(center: bool) -> None:
    S = np.ones((5, 2))
    S[2, 1] = 1e200
    for make in (ff.fisher_diagonal, ff.DiagonalFisher.from_scores):
        with pytest.raises(ff.NonFiniteError, match="overflow in column 1"):
            make(S, weights=np.ones(5), center=center)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("columns", [2, 40])
def test_a_sample_of_weight_zero_is_as_if_it_were_not_there(columns: int, order: str) -> None:
    """Neither where its square overflows nor where its product with a vector does."""
    S = np.random.default_rng(5).standard_normal((70, columns))
    weights = np.where(np.arange(70) == 3, 0.0, 1.5)
    others = weights > 0
    kept, V = S[others], np.full((columns, 3), 1e200)
    S[3] = 1e200
    S = np.asarray(S, order="F" if order == "F" else "C")
    rtol = 70 * columns * 2.0**-52
    for center in (False, True):
        d = ff.fisher_diagonal(S, weights=weights, center=center)
        np.testing.assert_allclose(d, ff.fisher_diagonal(kept, center=center), rtol)
    for v in (V[:, 0], V):
        found, expected = ff.fvp(S, v, weights=weights), kept.T @ (kept @ v) / len(kept)
        np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())
