"""The six functions against the oracle: sizes, dtypes, weights, centring, layouts, threads."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfisher as ff
import oracle

OPTIONS = [
    {"center": center, "reduction": reduction, "weighted": weighted}
    for center in (False, True)
    for reduction in ("mean", "sum")
    for weighted in (False, True)
]


def keywords_for(n: int, options: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords, which we and the oracle share."""
    weights = oracle.draw_weights(n) if options["weighted"] else None
    return {"center": options["center"], "reduction": options["reduction"], "weights": weights}


EVERY = (*oracle.DTYPES, *oracle.COMPLEX)


@pytest.mark.parametrize("dtype", EVERY)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("p", oracle.SIZES)
def test_against_the_oracle(p: int, options: dict[str, Any], dtype: type[np.inexact]) -> None:
    n = 3 * p // 2 + 1
    S, keywords = oracle.draw(n, p, dtype), keywords_for(n, options)
    F = oracle.fisher(S, **keywords)
    scale = np.diag(oracle.fisher(S, keywords["weights"], False, keywords["reduction"])).real.max()
    result = ff.empirical_fisher(S, **keywords)
    assert result.dtype == dtype
    assert np.array_equal(result, result.conj().T)
    oracle.close(result, F, dtype, n, scale)
    oracle.close(ff.fisher_diagonal(S, **keywords), np.diag(F).real, dtype, n, scale)
    K = oracle.gram(S, **keywords)
    oracle.close(ff.gram(S, **keywords), K, dtype, p, max(scale, np.diag(K).real.max()) * 4)
    V = oracle.draw(p, 3, dtype)
    expected = F @ oracle.wide(V) + 0.5 * V
    oracle.close(ff.fvp(S, V, damping=0.5, **keywords), expected, dtype, n + p, 4 * scale * p + 1)
    oracle.close(
        ff.fvp(S, V[:, 0], **keywords), F @ oracle.wide(V[:, 0]), dtype, n + p, 4 * scale * p + 1
    )


@pytest.mark.parametrize("dtype", EVERY)
def test_every_layout_gives_the_same_and_stays_unharmed(dtype: type[np.inexact]) -> None:
    S = oracle.draw(30, 25, dtype)
    weights = oracle.draw_weights(30)
    plain = None
    for kind, scores in oracle.layouts(S):
        before = scores.copy()
        results = (
            ff.empirical_fisher(scores, weights=weights, center=True),
            ff.fisher_diagonal(scores, weights=weights),
            ff.gram(scores),
            ff.fvp(scores, S[0]),
            ff.natural_gradient(scores, damping=0.1),
            ff.natural_gradient(scores[:10], damping=0.1),
        )
        plain = plain or results
        for result, expected in zip(results, plain, strict=True):
            oracle.close(result, expected, dtype, 200, np.abs(expected).max() * 10)
        assert np.array_equal(scores, before), kind


@pytest.mark.parametrize("dtype", EVERY)
def test_the_same_bits_for_any_number_of_threads(dtype: type[np.inexact]) -> None:
    S = oracle.draw(301, 97, dtype)
    weights = oracle.draw_weights(301)
    call: Callable[..., Any]
    for call in (
        lambda t: ff.empirical_fisher(S, weights=weights, center=True, n_threads=t),
        lambda t: ff.fisher_diagonal(S, n_threads=t),
        lambda t: ff.gram(S[:60], n_threads=t),
        lambda t: ff.fvp(S, S[:2].T, n_threads=t),
        lambda t: ff.natural_gradient(S, damping=0.1, n_threads=t),
        lambda t: ff.natural_gradient(S[:50], damping=0.1, n_threads=t),
    ):
        assert np.array_equal(call(1), call(2))
        assert np.array_equal(call(1), call(3))
        assert np.array_equal(call(1), call(8))


def test_float32_scores_sum_in_float64_on_request() -> None:
    S = oracle.draw(50, 20, np.float32)
    result = ff.empirical_fisher(S, dtype=np.float64)
    assert result.dtype == np.float64
    oracle.close(result, oracle.fisher(S), np.float64, 50)


def test_out_is_written_and_returned() -> None:
    S = oracle.draw(50, 20)
    out = np.full((40, 40), np.nan)[::2, ::2]
    assert ff.empirical_fisher(S, out=out) is out
    oracle.close(out, oracle.fisher(S), np.float64, 50)


def test_a_huge_offset_is_harmless_when_centred() -> None:
    S = oracle.draw(200, 6) + 1e8
    expected = np.cov(S - 1e8, rowvar=False, bias=True)
    oracle.close(ff.empirical_fisher(S, center=True), expected, np.float64, 1, 1e8)
    F = ff.DenseFisher(6, center=True)
    for block in np.array_split(S, 7):
        F.update(block)
    oracle.close(F.to_dense(), expected, np.float64, 1, 1e8)


def test_sum_over_no_samples_is_zero() -> None:
    S = np.empty((0, 3))
    assert np.array_equal(ff.empirical_fisher(S, reduction="sum"), np.zeros((3, 3)))
    assert np.array_equal(ff.fisher_diagonal(S, reduction="sum"), np.zeros(3))
    assert np.array_equal(ff.fvp(S, np.ones(3), reduction="sum"), np.zeros(3))
    assert ff.gram(S, reduction="sum").shape == (0, 0)


@pytest.mark.parametrize("dtype", EVERY)
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(120, 25), (25, 120), (1, 7), (7, 1), (24, 24)])
def test_natural_gradient(
    shape: tuple[int, int], weighted: bool, center: bool, dtype: type[np.inexact]
) -> None:
    n, p = shape
    S = oracle.draw(n, p, dtype)
    weights = oracle.draw_weights(n) if weighted else None
    damping = 0.1
    norm = np.linalg.norm(oracle.fisher(S, weights), 2)
    g = oracle.draw(p, 1, dtype)[:, 0]
    for grad in (None, g):
        expected = oracle.natural_gradient(S, damping, grad, weights, center)
        result = ff.natural_gradient(S, grad, damping=damping, weights=weights, center=center)
        assert result.dtype == dtype
        scale = np.linalg.norm(expected) * (1 + norm / damping)
        oracle.close(result, expected, dtype, n + p, scale)


def test_natural_gradient_of_the_mean_is_accurate_in_the_dual() -> None:
    # Long double is the judge; the general formula would lose the digits of ‖F‖/λ = 10¹⁰.
    S, damping = oracle.draw(20, 60), 1e-9
    exact = S.T @ np.linalg.solve(S @ S.T + 20 * damping * np.eye(20), np.ones(20))
    result = ff.natural_gradient(S, damping=damping)
    kappa = np.linalg.cond(S @ S.T)
    oracle.close(result, exact, np.float64, 60 * kappa)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(1e-3, 1e3))
def test_scaling_and_repetition(n: int, p: int, factor: float) -> None:
    S = oracle.draw(n, p)
    scale = np.abs(oracle.fisher(S)).max() * 10
    oracle.close(
        ff.empirical_fisher(factor * S), factor**2 * oracle.fisher(S), float, n, factor**2 * scale
    )
    counts = oracle.rng(n, p, 1).integers(1, 4, n)
    repeated = ff.empirical_fisher(np.repeat(S, counts, axis=0))
    oracle.close(ff.empirical_fisher(S, weights=counts), repeated, float, 4 * n, scale * 4)
