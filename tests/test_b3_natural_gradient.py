"""B3: natural gradient converges on real data in far fewer steps than gradient descent."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris

import fastfisher as ff
import fisher_scoring
from fastfisher.demo.models import Network

FAR_FEWER = 10
PRIOR = 1e-2  # precision of the Gaussian prior per sample: separable classes need one


def standardised(x: np.ndarray) -> np.ndarray:
    return np.column_stack([(x - x.mean(axis=0)) / x.std(axis=0), np.ones(len(x))])


class Logistic:
    """Labels 0 or 1, log odds linear: two of the three irises, which overlap."""

    good_rate = 30.0  # at which gradient descent arrives, and no other does much sooner

    def __init__(self) -> None:
        x, y = load_iris(return_X_y=True)
        self.X, self.y = standardised(x[y > 0]), (y[y > 0] == 2).astype(float)

    def loss(self, theta: np.ndarray) -> float:
        eta = self.X @ theta
        return float(np.mean(np.logaddexp(0, eta) - self.y * eta))

    def mean(self, eta: np.ndarray) -> np.ndarray:
        answer: np.ndarray = 1 / (1 + np.exp(-eta))
        return answer

    def slope(self, eta: np.ndarray) -> np.ndarray:
        mu = self.mean(eta)
        answer: np.ndarray = mu * (1 - mu)
        return answer

    variance = slope


class Poisson:
    """Counts with a log link: disease progression of 442 patients, an integer from 25 to 346."""

    good_rate = 3e-3

    def __init__(self) -> None:
        x, y = load_diabetes(return_X_y=True)
        self.X, self.y = standardised(x), y

    def loss(self, theta: np.ndarray) -> float:
        eta = self.X @ theta
        return float(np.mean(np.exp(eta) - self.y * eta))

    def mean(self, eta: np.ndarray) -> np.ndarray:
        answer: np.ndarray = np.exp(eta)
        return answer

    slope = variance = mean


class ComplementaryLogLog:
    """Labels 0 or 1 with a link that is not canonical, so that the Fisher is not the Hessian."""

    def __init__(self) -> None:
        x, y = load_breast_cancer(return_X_y=True)
        texture_smoothness_symmetry = [1, 4, 8]  # the classes overlap in these
        self.X, self.y = standardised(x[:, texture_smoothness_symmetry]), 1.0 - y

    def loss(self, theta: np.ndarray) -> float:
        return float(-ff.Bernoulli(self.mean(self.X @ theta)).log_prob(self.y).mean())

    def mean(self, eta: np.ndarray) -> np.ndarray:
        answer: np.ndarray = -np.expm1(-np.exp(eta))
        return answer

    def slope(self, eta: np.ndarray) -> np.ndarray:
        answer: np.ndarray = np.exp(eta - np.exp(eta))
        return answer

    def variance(self, eta: np.ndarray) -> np.ndarray:
        answer: np.ndarray = self.mean(eta) * np.exp(-np.exp(eta))
        return answer


def start(glm: ComplementaryLogLog | Logistic | Poisson) -> np.ndarray:
    """Zero slopes; the intercept that fits the mean."""
    theta = np.zeros(glm.X.shape[1])
    if glm.y.max() > 1:
        theta[-1] = np.log(glm.y.mean())
    return theta


def model_of(
    glm: ComplementaryLogLog | Logistic | Poisson,
) -> Callable[[np.ndarray], tuple[float, np.ndarray, ff.DenseFisher]]:
    """Loss, gradient and the exact Fisher in totals, from weighted rows: F = Xᵀ diag(μ'²/v) X."""

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        eta = glm.X @ theta
        slope, variance, mean = glm.slope(eta), glm.variance(eta), glm.mean(eta)
        F = ff.DenseFisher.from_scores(glm.X, weights=slope**2 / variance, reduction="sum")
        return len(glm.y) * glm.loss(theta), glm.X.T @ (slope / variance * (mean - glm.y)), F

    return model


def steps_to(target: float, result: ff.DescentResult) -> int:
    """Steps that the descent took to the target."""
    return next(record.iteration for record in result.history if record.loss <= target)


def gradient_descent_arrives(
    loss: Callable[[np.ndarray], float],
    gradient: Callable[[np.ndarray], np.ndarray],
    theta: np.ndarray,
    target: float,
    rate: float,
    steps: int,
) -> bool:
    """Tell whether gradient descent at this rate comes to the target within so many steps."""
    for _ in range(steps):
        theta = theta - rate * gradient(theta)
        at = loss(theta)
        if not np.isfinite(theta).all() or at > 1e6:
            return False
        if at <= target:
            return True
    return False


@pytest.mark.parametrize("glm", [Logistic(), Poisson()], ids=lambda glm: type(glm).__name__)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of gradient descent's long steps
def test_b3_glm_converges_in_far_fewer_steps(glm: Logistic | Poisson) -> None:
    model, samples = model_of(glm), len(glm.y)
    result = ff.natural_gradient_descent(model, start(glm), tolerance=1e-24)
    assert result.status == ff.Status.SUCCESS
    assert np.abs(result.gradient).max() < 1e-12 * samples * max(1.0, glm.y.max())
    first = result.history[0].loss
    target = result.loss + 1e-6 * (first - result.loss)
    steps = steps_to(target, result)
    descent = functools.partial(
        gradient_descent_arrives,
        glm.loss,
        lambda at: glm.X.T @ (glm.mean(glm.X @ at) - glm.y) / samples,
        start(glm),
        target / samples,
    )
    assert steps <= 10
    assert descent(glm.good_rate, 2000)
    assert not any(descent(rate, FAR_FEWER * steps - 1) for rate in np.geomspace(1e-4, 100, 61))


def test_b3_softmax_regression_converges_in_far_fewer_steps() -> None:
    """Digits with a Gaussian prior: damping by its precision is the Fisher of the posterior."""
    x, y = load_digits(return_X_y=True)
    x, y = x[:600] / 16, y[:600].astype(np.intp)
    network = Network(64, 10)

    def loss(theta: np.ndarray) -> float:
        return float(network.evaluate(theta, x, y)[0] + PRIOR / 2 * theta @ theta)

    def gradient(theta: np.ndarray) -> np.ndarray:
        return PRIOR * theta - network.mean_score(theta, x, y)

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.ScoreFisher]:
        rows, weights = network.class_scores(theta, x)
        return loss(theta), gradient(theta), ff.ScoreFisher(rows, weights=weights)

    start = np.zeros(network.n_params)
    result = ff.natural_gradient_descent(model, start, damping=PRIOR, tolerance=1e-24)
    assert result.status == ff.Status.SUCCESS
    assert np.abs(result.gradient).max() < 1e-12
    target = result.loss + 1e-6 * (result.history[0].loss - result.loss)
    steps = steps_to(target, result)
    descent = functools.partial(gradient_descent_arrives, loss, gradient, start, target)
    assert steps <= 8
    assert descent(2.0, 400)  # near the largest rate that is stable
    rates = (0.1, 0.3, 1.0, 2.0, 2.5, 3.0, 10.0)
    assert not any(descent(rate, FAR_FEWER * steps - 1) for rate in rates)


@pytest.mark.parametrize("damping", [1e-2, 1e-1])
def test_b3_empirical_fisher_descends_on_softmax_regression(damping: float) -> None:
    x, y = load_digits(return_X_y=True)
    x, y = x[:600] / 16, y[:600].astype(np.intp)
    network = Network(64, 10)

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        S = network.scores(theta, x, y)
        return network.evaluate(theta, x, y)[0], -S.mean(axis=0), S

    result = ff.natural_gradient_descent(
        model, np.zeros(network.n_params), damping=damping, max_iterations=10
    )
    assert result.loss < 0.25 * result.history[0].loss


@pytest.mark.parametrize(
    "glm", [Logistic(), Poisson(), ComplementaryLogLog()], ids=lambda glm: type(glm).__name__
)
def test_b3_fisher_scoring_is_iteratively_reweighted_least_squares(
    glm: ComplementaryLogLog | Logistic | Poisson,
) -> None:
    path = []
    ff.natural_gradient_descent(
        model_of(glm),
        start(glm),
        tolerance=0.0,
        max_iterations=8,
        callback=lambda state: path.append(state.theta),
    )
    irls = start(glm)
    for theta in path[1:]:
        eta = glm.X @ irls
        slope, variance = glm.slope(eta), glm.variance(eta)
        root = slope / np.sqrt(variance)
        working = eta + (glm.y - glm.mean(eta)) / slope
        irls = np.linalg.lstsq(root[:, None] * glm.X, root * working)[0]
        np.testing.assert_allclose(theta, irls, rtol=0, atol=1e-10 * np.abs(irls).max())
    assert len(path) == 9


@pytest.mark.parametrize("problem", range(3), ids=["binomial", "probit", "poisson"])
def test_b3_fisher_scoring_equals_a_statistics_package_on_its_own_data(problem: int) -> None:
    _, ours, theirs = list(fisher_scoring.problems())[problem]
    result, F = fisher_scoring.fisher_scoring(*ours)
    assert result.status == ff.Status.SUCCESS
    reference = theirs.fit(tol=1e-13, tol_criterion="params")
    np.testing.assert_allclose(result.theta, reference.params, rtol=1e-10)
    np.testing.assert_allclose(result.loss, -reference.llf, rtol=1e-12)
    # Standard errors: theirs come from an inverse that loses digits by the condition number.
    errors = np.sqrt(F.factor().inverse_diagonal())
    np.testing.assert_allclose(errors, reference.bse, rtol=1e-9)


def test_b3_the_example_of_fisher_scoring_runs_to_its_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    fisher_scoring.main(str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("p =") == 3
