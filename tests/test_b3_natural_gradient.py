"""B3: natural gradient converges on real data in far fewer steps than gradient descent."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris

import fastfisher as ff
from fastfisher.demo.models import Network

FAR_FEWER = 10
PRIOR = 1e-2  # precision of the Gaussian prior per sample: separable classes need one


def standardised(x):
    return np.column_stack([(x - x.mean(axis=0)) / x.std(axis=0), np.ones(len(x))])


class Logistic:
    """Labels 0 or 1, log odds linear: two of the three irises, which overlap."""

    def __init__(self):
        x, y = load_iris(return_X_y=True)
        self.X, self.y = standardised(x[y > 0]), (y[y > 0] == 2).astype(float)

    def loss(self, theta):
        eta = self.X @ theta
        return np.mean(np.logaddexp(0, eta) - self.y * eta)

    def mean(self, eta):
        return 1 / (1 + np.exp(-eta))

    def slope(self, eta):
        mu = self.mean(eta)
        return mu * (1 - mu)

    variance = slope


class Poisson:
    """Counts with a log link: disease progression of 442 patients, an integer from 25 to 346."""

    def __init__(self):
        x, y = load_diabetes(return_X_y=True)
        self.X, self.y = standardised(x), y

    def loss(self, theta):
        eta = self.X @ theta
        return np.mean(np.exp(eta) - self.y * eta)

    def mean(self, eta):
        return np.exp(eta)

    slope = variance = mean


class ComplementaryLogLog:
    """Labels 0 or 1 with a link that is not canonical, so that the Fisher is not the Hessian."""

    def __init__(self):
        x, y = load_breast_cancer(return_X_y=True)
        texture_smoothness_symmetry = [1, 4, 8]  # the classes overlap in these
        self.X, self.y = standardised(x[:, texture_smoothness_symmetry]), 1.0 - y

    def mean(self, eta):
        return -np.expm1(-np.exp(eta))

    def slope(self, eta):
        return np.exp(eta - np.exp(eta))

    def variance(self, eta):
        return self.mean(eta) * np.exp(-np.exp(eta))


def start(glm):
    """Zero slopes; the intercept that fits the mean."""
    theta = np.zeros(glm.X.shape[1])
    if glm.y.max() > 1:
        theta[-1] = np.log(glm.y.mean())
    return theta


def score_and_fisher_step(glm, theta):
    """Mean score and F⁻¹ mean score, the exact Fisher from weighted rows: E = Xᵀ diag(μ'²/v) X."""
    eta = glm.X @ theta
    slope, variance = glm.slope(eta), glm.variance(eta)
    weights = slope**2 / variance
    total_score = glm.X.T @ (slope / variance * (glm.y - glm.mean(eta)))
    step = ff.natural_gradient(glm.X, total_score / weights.sum(), weights=weights, damping=0.0)
    return total_score / len(glm.y), step


def gradient_descent_steps(loss, gradient, theta, target, rates, max_steps):
    """Fewest steps to the target over the rates; max_steps if none gets there."""
    best = max_steps
    for rate in rates:
        at = theta.copy()
        for step in range(1, best):
            at = at - rate * gradient(at)
            if not np.isfinite(at).all() or loss(at) > 1e6:
                break
            if loss(at) <= target:
                best = step
                break
    return best


@pytest.mark.parametrize("glm", [Logistic(), Poisson()], ids=lambda glm: type(glm).__name__)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of gradient descent's long steps
def test_glm_converges_in_far_fewer_steps(glm):
    theta, losses = start(glm), []
    for _ in range(25):
        losses.append(glm.loss(theta))
        score, step = score_and_fisher_step(glm, theta)
        theta = theta + step
    assert np.abs(score).max() < 1e-12 * max(1.0, glm.y.max())
    target = losses[-1] + 1e-6 * (losses[0] - losses[-1])
    steps = next(i for i, loss in enumerate(losses) if loss <= target)
    descent = gradient_descent_steps(
        glm.loss,
        lambda at: glm.X.T @ (glm.mean(glm.X @ at) - glm.y) / len(glm.y),
        start(glm),
        target,
        np.geomspace(1e-4, 30, 12),
        2000,
    )
    assert steps <= 10
    assert descent >= FAR_FEWER * steps


def test_softmax_regression_converges_in_far_fewer_steps():
    """Digits with a Gaussian prior: damping by its precision is the Fisher of the posterior."""
    x, y = load_digits(return_X_y=True)
    x, y = x[:600] / 16, y[:600].astype(np.intp)
    model = Network(64, 10)

    def loss(theta):
        return model.evaluate(theta, x, y)[0] + PRIOR / 2 * theta @ theta

    def score(theta):
        return model.mean_score(theta, x, y) - PRIOR * theta

    theta, losses = np.zeros(model.n_params), []
    for _ in range(10):
        losses.append(loss(theta))
        rows, weights = model.class_scores(theta, x)
        theta = theta + ff.natural_gradient(rows, score(theta), weights=weights, damping=PRIOR)
    assert np.abs(score(theta)).max() < 1e-12
    target = losses[-1] + 1e-6 * (losses[0] - losses[-1])
    steps = next(i for i, value in enumerate(losses) if value <= target)
    rates = np.geomspace(0.1, 10, 5)
    descent = gradient_descent_steps(
        loss, lambda at: -score(at), np.zeros(model.n_params), target, rates, 400
    )
    assert steps <= 8
    assert descent >= FAR_FEWER * steps


@pytest.mark.parametrize("damping", [1e-2, 1e-1])
def test_empirical_fisher_descends_on_softmax_regression(damping):
    x, y = load_digits(return_X_y=True)
    x, y = x[:600] / 16, y[:600].astype(np.intp)
    model = Network(64, 10)
    theta = np.zeros(model.n_params)
    before = model.evaluate(theta, x, y)[0]
    for _ in range(10):
        theta = theta + ff.natural_gradient(model.scores(theta, x, y), damping=damping)
    assert model.evaluate(theta, x, y)[0] < 0.25 * before


@pytest.mark.parametrize(
    "glm", [Logistic(), Poisson(), ComplementaryLogLog()], ids=lambda glm: type(glm).__name__
)
def test_fisher_scoring_is_iteratively_reweighted_least_squares(glm):
    theta = irls = start(glm)
    for _ in range(8):
        theta = theta + score_and_fisher_step(glm, theta)[1]

        eta = glm.X @ irls
        slope, variance = glm.slope(eta), glm.variance(eta)
        root = slope / np.sqrt(variance)
        working = eta + (glm.y - glm.mean(eta)) / slope
        irls = np.linalg.lstsq(root[:, None] * glm.X, root * working)[0]
        np.testing.assert_allclose(theta, irls, rtol=0, atol=1e-10 * np.abs(irls).max())
