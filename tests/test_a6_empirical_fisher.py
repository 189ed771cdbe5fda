"""A6: the empirical, the Monte-Carlo and the exact Fisher are three different things."""

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.datasets import load_iris

import fastfisher as ff
from fastfisher.demo.models import Network

MAP_PENALTY = 1e-2


@pytest.fixture(scope="module")
def iris() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_iris(return_X_y=True)
    return (x - x.mean(axis=0)) / x.std(axis=0), y.astype(np.intp)


@pytest.fixture(scope="module")
def model() -> Network:
    return Network(4, 3)


@pytest.fixture(scope="module")
def theta(model: Network) -> np.ndarray:
    return model.initial(np.random.default_rng(1))


def labels(model: Network, theta: np.ndarray, x: np.ndarray) -> ff.Categorical:
    """The distribution of the labels at the model's outputs."""
    return ff.Categorical(np.log(model.probabilities(theta, x)))


def exact_fisher(model: Network, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.exact_fisher(model.jacobians(theta, x), labels(model, theta, x))
    return answer


def monte_carlo_fisher(
    model: Network, theta: np.ndarray, x: np.ndarray, draws: int, rng: int | np.random.Generator
) -> np.ndarray:
    answer: np.ndarray = ff.monte_carlo_fisher(
        model.jacobians(theta, x), labels(model, theta, x), draws, rng=rng
    )
    return answer


def test_a6_exact_sums_the_labels_out(
    iris: tuple[np.ndarray, np.ndarray], model: Network, theta: np.ndarray
) -> None:
    x, _ = iris
    rows, weights = model.class_scores(theta, x)
    expected = ff.empirical_fisher(rows, weights=weights)
    np.testing.assert_allclose(exact_fisher(model, theta, x), expected, rtol=0, atol=1e-14)


def test_a6_monte_carlo_has_the_scores_of_drawn_labels(
    iris: tuple[np.ndarray, np.ndarray], model: Network, theta: np.ndarray
) -> None:
    x, _ = iris
    y = labels(model, theta, x).sample(1, rng=7)[0]
    expected = ff.empirical_fisher(model.scores(theta, x, y))
    drawn = monte_carlo_fisher(model, theta, x, 1, 7)
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("widths", [(4, 3), (4, 5, 3)])
def test_a6_exact_is_jacobians_around_the_fisher_of_the_output(
    iris: tuple[np.ndarray, np.ndarray], widths: Sequence[int]
) -> None:
    x, _ = iris
    model = Network(*widths)
    theta = model.initial(np.random.default_rng(2))
    pi, J = model.probabilities(theta, x), model.jacobians(theta, x)
    F_out = pi[:, :, None] * np.eye(model.n_classes) - pi[:, :, None] * pi[:, None, :]
    expected = np.einsum("nkp,nkl,nlq->pq", J, F_out, J) / len(x)
    np.testing.assert_allclose(exact_fisher(model, theta, x), expected, rtol=0, atol=1e-14)


def test_a6_exact_of_softmax_regression_is_a_kronecker_sum(
    iris: tuple[np.ndarray, np.ndarray], model: Network, theta: np.ndarray
) -> None:
    x, _ = iris
    inputs, pi = np.column_stack([x, np.ones(len(x))]), model.probabilities(theta, x)
    expected = np.mean(
        [
            np.kron(np.diag(p) - np.outer(p, p), np.outer(a, a))
            for p, a in zip(pi, inputs, strict=True)
        ],
        axis=0,
    )
    np.testing.assert_allclose(exact_fisher(model, theta, x), expected, rtol=0, atol=1e-14)


def test_a6_exact_is_the_hessian_of_the_loss_in_natural_parameters(
    iris: tuple[np.ndarray, np.ndarray], model: Network, theta: np.ndarray
) -> None:
    x, y = iris
    h, directions = 1e-5, np.eye(model.n_params)
    hessian = np.array(
        [
            (model.mean_score(theta - h * e, x, y) - model.mean_score(theta + h * e, x, y))
            / (2 * h)
            for e in directions
        ]
    )
    np.testing.assert_allclose(exact_fisher(model, theta, x), hessian, rtol=0, atol=1e-9)


def test_a6_monte_carlo_goes_to_exact_at_one_over_root_m(
    iris: tuple[np.ndarray, np.ndarray], model: Network, theta: np.ndarray
) -> None:
    x, _ = iris
    rng = np.random.default_rng(3)
    exact = exact_fisher(model, theta, x)
    draws, repeats = np.array([1, 4, 16, 64, 256]), 20
    errors = [
        np.sqrt(
            np.mean(
                [
                    np.sum((monte_carlo_fisher(model, theta, x, m, rng) - exact) ** 2)
                    for _ in range(repeats)
                ]
            )
        )
        for m in draws
    ]
    slope = np.polyfit(np.log(draws), np.log(errors), 1)[0]
    # Each error is a root mean square of 20 repeats and so known to about 1/√40 = 16 %; over five
    # points spread over log 256 that is a standard error of about 0.04 in the slope.
    assert slope == pytest.approx(-0.5, abs=0.1)
    assert errors[-1] < 0.02 * np.linalg.norm(exact)


def test_a6_empirical_is_not_exact_away_from_the_optimum(
    iris: tuple[np.ndarray, np.ndarray], model: Network, theta: np.ndarray
) -> None:
    x, y = iris
    empirical = ff.empirical_fisher(model.scores(theta, x, y))
    exact = exact_fisher(model, theta, x)
    assert np.linalg.norm(empirical - exact) > 0.25 * np.linalg.norm(exact)
    natural = ff.natural_gradient(model.scores(theta, x, y), damping=MAP_PENALTY)
    true = np.linalg.solve(exact + MAP_PENALTY * np.eye(len(exact)), model.mean_score(theta, x, y))
    assert np.linalg.norm(natural - true) > 0.2 * np.linalg.norm(true)


def test_a6_empirical_is_near_exact_where_the_model_is_true(
    iris: tuple[np.ndarray, np.ndarray], model: Network, theta: np.ndarray
) -> None:
    """At the true parameter the labels *are* drawn from the model: the two agree as n grows."""
    x, _ = iris
    exact = exact_fisher(model, theta, x)
    drawn = monte_carlo_fisher(model, theta, x, 400, np.random.default_rng(4))
    np.testing.assert_allclose(drawn, exact, rtol=0, atol=0.02 * np.abs(exact).max())
