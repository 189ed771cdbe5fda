"""C3: Adam is the published update, and its squares of mean gradients are not a Fisher."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle


def published(
    theta: Any,
    gradients: np.ndarray,
    step_size: float = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> np.ndarray:
    """Algorithm 1 of Kingma and Ba (2015), number by number and line by line."""
    theta, path = [float(x) for x in theta], []
    m, v, t = [0.0] * len(theta), [0.0] * len(theta), 0
    for g in gradients:
        t = t + 1
        for i in range(len(theta)):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            m_hat = m[i] / (1 - beta1**t)
            v_hat = v[i] / (1 - beta2**t)
            theta[i] = theta[i] - step_size * m_hat / (v_hat**0.5 + epsilon)
        path.append(list(theta))
    return np.array(path)


@pytest.mark.parametrize(
    "constants",
    [
        {},
        {"step_size": 0.1, "beta1": 0.5, "beta2": 0.9, "epsilon": 1e-3},
        {"beta1": 0.0, "beta2": 0.0},
    ],
)
def test_c3_identical_to_the_published_update(constants: dict[str, Any]) -> None:
    gradients = oracle.draw(50, 7) * np.geomspace(1e-6, 1e3, 7)
    theta = oracle.rng(1).standard_normal(7)
    adam = ff.Adam(**constants)
    state, path = adam.start(theta), []
    for gradient in gradients:
        state = adam.step(state, gradient)
        path.append(state.theta)
    expected = published(theta, gradients, **constants)
    # Sums of 50 steps of at most 1: the order of α m̂ / (√v̂ + ε) is all that differs.
    np.testing.assert_allclose(path, expected, rtol=0, atol=1e-15 * max(1, abs(expected).max()))
    assert state.iteration == 50


def test_c3_its_first_step_has_the_size_alpha_whatever_the_scale() -> None:
    """m̂ = g and v̂ = g² at t = 1."""
    adam = ff.Adam(step_size=0.01, epsilon=1e-300)
    state = adam.start(np.zeros(3))
    np.testing.assert_allclose(adam.step(state, [1e-9, -1.0, 1e9]).theta, [-0.01, 0.01, -0.01])


def test_c3_squares_of_mean_gradients_are_not_the_diagonal_fisher() -> None:
    """E ḡ² = F_ii/B + (1 − 1/B) (E s)², exactly: over all batches of B draws from six samples."""
    S = oracle.draw(6, 3)
    F = ff.fisher_diagonal(S)
    for size in (1, 2, 3):
        squares = [S[list(rows)].mean(axis=0) ** 2 for rows in product(range(6), repeat=size)]
        expected = F / size + (1 - 1 / size) * S.mean(axis=0) ** 2
        oracle.close(np.mean(squares, axis=0), expected, np.float64, 6**size)


def test_c3_its_second_moment_is_too_small_by_the_size_of_the_batch() -> None:
    """At the optimum, where the mean score is 0, v̂ estimates F_ii / B and not F_ii."""
    rng = oracle.rng(3)
    batch, steps = 16, 4000
    scale = np.array([0.5, 1.0, 3.0])
    family = ff.Gaussian(0.0, scale, fixed_scale=True)  # F = 1/σ² at the mean
    adam = ff.Adam(step_size=1e-12)  # stays there
    diagonal = ff.DiagonalFisher(3)
    state = adam.start(np.zeros(3))
    for _ in range(steps):
        scores = family.score(family.sample(batch, rng))[..., 0]
        state = adam.step(state, -scores.mean(axis=0))
        diagonal.decay(0.999).update(scores)
    v = state.second_moment / (1 - 0.999**steps)
    # Of about 2000 squares of Gaussian numbers (1/(1 − β₂) twice): five standard errors √(2/2000).
    np.testing.assert_allclose(v * batch * scale**2, 1.0, atol=5 * np.sqrt(2 / 2000))
    np.testing.assert_allclose(diagonal.diagonal() * scale**2, 1.0, atol=5 * np.sqrt(2 / 32000))


def test_c3_the_diagonal_natural_gradient_beside_it() -> None:
    """On a valley along the axes it arrives in a step of any scale; Adam walks at its pace."""
    X = np.linspace(-1, 1, 101)[:, None] * [1.0, 0.0] + np.linspace(0, 1, 101)[:, None] * [0.0, 1e3]
    target = np.array([3.0, -2e-3])
    diagonal = ff.DiagonalFisher.from_scores(X)
    curvature = diagonal.diagonal()

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DiagonalFisher]:
        return 0.5 * curvature @ (theta - target) ** 2, curvature * (theta - target), diagonal

    natural = ff.natural_gradient_descent(model, np.zeros(2))
    assert natural.iterations == 1
    np.testing.assert_allclose(natural.theta, target, rtol=1e-12)
    adam = ff.Adam(step_size=0.01)
    state = adam.start(np.zeros(2))
    for _ in range(100):
        state = adam.step(state, model(state.theta)[1])
    # Both parameters move by about α at first, though one is a thousand times nearer.
    assert 0.5 < state.theta[0] < 1.1
    assert model(state.theta)[0] > 0.1


# ---- the rest ----
def test_c3_a_state_stays_as_it_is_and_so_do_callers_data() -> None:
    adam, start = ff.Adam(), np.array([1.0, 2.0])
    gradient = np.array([1.0, -1.0])
    first = adam.start(start)
    second = adam.step(first, gradient)
    start[:] = np.nan
    gradient[:] = np.nan
    np.testing.assert_array_equal(first.theta, [1.0, 2.0])
    np.testing.assert_array_equal(first.second_moment, [0.0, 0.0])
    third = adam.step(second, [0.5, 0.5])
    again = adam.step(second, [0.5, 0.5])
    np.testing.assert_array_equal(third.theta, again.theta)
    with pytest.raises(ff.NonFiniteError, match="gradient: expected finite values"):
        adam.step(second, [np.nan, 1.0])
    np.testing.assert_array_equal(adam.step(second, [0.5, 0.5]).theta, again.theta)


def test_c3_float32_stays_float32() -> None:
    adam = ff.Adam()
    state = adam.step(adam.start(np.ones(2, np.float32)), np.ones(2))
    assert state.theta.dtype == state.first_moment.dtype == state.second_moment.dtype == np.float32


def test_c3_bias_correction_is_exact_for_a_constant_gradient() -> None:
    """m̂ = g and v̂ = g² at every t: each step is α g / (|g| + ε)."""
    adam = ff.Adam(step_size=0.5, epsilon=0.25)
    state = adam.start([0.0])
    for t in range(1, 20):
        state = adam.step(state, [2.0])
        expected = -float(t * Fraction(1, 2) * 2 / (2 + Fraction(1, 4)))
        np.testing.assert_allclose(state.theta, expected, rtol=1e-13)  # 1 − β₂ᵗ cancels by 1/t


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": 0.0}, r"step_size: expected a finite number above 0, got 0"),
        ({"step_size": "fast"}, r"step_size: expected a finite number above 0, got 'fast'"),
        ({"beta1": 1.0}, r"beta1: expected less than 1, got 1"),
        ({"beta2": -0.1}, r"beta2: expected a finite number that is not negative"),
        ({"epsilon": 0.0}, r"epsilon: expected a finite number above 0"),
    ],
)
def test_c3_constants_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ff.Adam(**options)


@pytest.mark.parametrize(
    ("gradient", "error", "message"),
    [
        (np.ones(3), ValueError, r"gradient: expected shape \(2,\)"),
        (np.ones((2, 1)), ValueError, r"gradient: expected shape \(2,\), got \(2, 1\)"),
        ([1.0, np.inf], ff.NonFiniteError, r"gradient: expected finite values"),
        (["a", "b"], TypeError, r"gradient: expected real numbers"),
    ],
)
def test_c3_gradients_that_do_not_fit(
    gradient: np.ndarray | Sequence[str | float], error: type[Exception], message: str
) -> None:
    adam = ff.Adam()
    with pytest.raises(error, match=message):
        adam.step(adam.start(np.zeros(2)), gradient)


def test_c3_a_start_that_makes_no_sense() -> None:
    with pytest.raises(ValueError, match=r"theta: expected shape \(p,\)"):
        ff.Adam().start(np.zeros((2, 2)))
    with pytest.raises(ff.NonFiniteError, match="theta: expected finite values"):
        ff.Adam().start([np.nan])
