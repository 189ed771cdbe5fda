"""DiagonalFisher: sums of squares that stream, merge and decay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfisher as ff
import oracle


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.booleans())
def test_streaming_and_merging_are_one_shot(sizes, center):
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


def test_decay_is_the_running_mean_of_adam():
    gradients, beta = oracle.draw(50, 4), 0.9
    F, running = ff.DiagonalFisher(4, reduction="sum"), np.zeros(4)
    for g in gradients:
        F.decay(beta).update(g[None], [1 - beta])
        running = beta * running + (1 - beta) * g**2
    oracle.close(F.diagonal(), running, float, 50)


def test_it_is_not_the_square_of_the_mean_gradient():
    S = np.array([[1.0], [-1.0]])
    assert ff.fisher_diagonal(S) == 1.0
    assert S.mean(axis=0) ** 2 == 0.0


def test_zeros_are_named():
    F = ff.DiagonalFisher.from_scores(np.array([[1.0, 0.0, 2.0]]))
    with pytest.raises(ff.NotPositiveDefiniteError) as caught:
        F.solve(np.ones(3))
    assert caught.value.pivot == 1
    assert caught.value.damping > 0
    solution = ff.solve(F, np.ones(3), on_failure="pinv")
    assert np.array_equal(solution.value, [1.0, 0.0, 0.25])
    assert solution.rank == 2
    assert ff.solve(F, np.ones(3), damping=0.5).method == "cholesky"
