"""B2: the natural gradient is the steepest descent under KL, whatever the parameters are."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

import curved_valley
import fastfisher as ff
import oracle
from fastfisher.families.family import Family


def gaussian(theta: np.ndarray) -> ff.Gaussian:
    return ff.Gaussian(theta[0], theta[1])


def poissons(theta: np.ndarray) -> ff.Poisson:
    """Two independent counts, whose log rates are linear in θ."""
    return ff.Poisson(np.exp(theta @ MIXED))


def bivariate(theta: np.ndarray) -> ff.MultivariateGaussian:
    return ff.MultivariateGaussian(theta, [[1.0, 0.8], [0.8, 2.0]])


MIXED = np.array([[1.0, 0.4], [0.3, -0.7]])
# Family, θ, and another θ whose expected loss is minimised: E_{p(other)} of −log p(x | θ).
CASES = {
    "gaussian": (gaussian, np.array([0.3, 1.5]), np.array([1.0, 0.8])),
    "poissons": (poissons, np.array([0.5, -0.2]), np.array([0.0, 0.9])),
    "bivariate": (bivariate, np.array([0.0, 1.0]), np.array([2.0, 1.5])),
}


def kl(family: Callable[[np.ndarray], Family], theta: np.ndarray, other: np.ndarray) -> float:
    return float(np.sum(family(theta).kl(family(other))))


def model(
    family: Callable[[np.ndarray], Family], theta: np.ndarray, target: np.ndarray
) -> tuple[float, np.ndarray, ff.DenseFisher]:
    """Loss KL(target ‖ θ), its gradient, and F, all of θ."""
    if family is poissons:
        rate, wanted = np.exp(theta @ MIXED), np.exp(target @ MIXED)
        gradient = MIXED @ (rate - wanted)
        F = MIXED @ np.diag(rate) @ MIXED.T
    elif family is gaussian:
        (mu, sigma), (m, s) = theta, target
        gradient = np.array([mu - m, sigma - (s**2 + (mu - m) ** 2) / sigma]) / sigma**2
        F = family(theta).fisher_information()
    else:
        F = family(theta).fisher_information()
        gradient = F @ (theta - target)
    return kl(family, target, theta), gradient, ff.DenseFisher.from_matrix(F)


def steepest(
    family: Callable[[np.ndarray], Family], theta: np.ndarray, target: np.ndarray, radius: float
) -> np.ndarray:
    """Return the step to the least loss on the sphere KL(θ ‖ θ + d) = c, by brute force."""

    def on_sphere(angle: float) -> np.ndarray:
        along = np.array([math.cos(angle), math.sin(angle)])
        reach = brentq(
            lambda r: kl(family, theta, theta + r * along) - radius, 1e-12, 0.9, xtol=1e-15
        )
        answer: np.ndarray = reach * along
        return answer

    def loss(angle: float) -> float:
        return kl(family, target, theta + on_sphere(angle))

    grid = np.linspace(0, 2 * math.pi, 41)
    best = grid[np.argmin([loss(angle) for angle in grid])]
    spacing = grid[1]
    found = minimize_scalar(
        loss, bounds=(best - spacing, best + spacing), method="bounded", options={"xatol": 1e-9}
    )
    return on_sphere(found.x)


@pytest.mark.parametrize("name", CASES)
def test_b2_gradients_are_those_of_the_loss(name: str) -> None:
    family, theta, target = CASES[name]
    h = 1e-6
    numerical = [
        (kl(family, target, theta + h * e) - kl(family, target, theta - h * e)) / (2 * h)
        for e in np.eye(2)
    ]
    np.testing.assert_allclose(model(family, theta, target)[1], numerical, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_b2_brute_force_on_the_kl_sphere_points_the_same_way(name: str) -> None:
    """A step of max_kl = c is d = −F⁻¹g / λ with λ = √(gᵀF⁻¹g / 2c), up to O(√c)."""
    family, theta, target = CASES[name]
    _, gradient, F = model(family, theta, target)
    errors, turns = [], []
    for radius in (1e-4, 1e-6):
        natural = F.solve(gradient)
        multiplier = math.sqrt(gradient @ natural / (2 * radius))
        step = (
            ff.natural_gradient_descent(
                lambda at: model(family, at, target), theta, max_kl=radius, max_iterations=1
            ).theta
            - theta
        )
        np.testing.assert_allclose(step, -natural / multiplier, rtol=1e-9)
        brute = steepest(family, theta, target, radius)
        errors.append(np.linalg.norm(step - brute) / np.linalg.norm(brute))
        ordinary = -gradient * np.linalg.norm(brute) / np.linalg.norm(gradient)
        turns.append(np.linalg.norm(ordinary - brute) / np.linalg.norm(brute))
    # The relative error is that of the quadratic KL and the linear loss, of order √c.
    assert errors[0] < 10 * math.sqrt(1e-4)
    # Of the bivariate mean both are exact, and what is left is the search's: losses are flat there.
    assert errors[1] < max(float(0.2 * errors[0]), 1e-6)
    assert min(turns) > 0.1  # the ordinary gradient points elsewhere, at any radius


def test_b2_the_radius_of_the_founding_text() -> None:
    """c = ½ ‖∇L‖² gives λ = √(gᵀF⁻¹g) / ‖g‖."""
    family, theta, target = CASES["poissons"]
    _, gradient, F = model(family, theta, target)
    natural = F.solve(gradient)
    result = ff.natural_gradient_descent(
        lambda at: model(family, at, target),
        theta,
        step_size=1e3,  # long enough to be shortened
        max_kl=0.5 * gradient @ gradient,
        max_iterations=1,
    )
    multiplier = math.sqrt(gradient @ natural) / np.linalg.norm(gradient)
    np.testing.assert_allclose(result.theta, theta - natural / multiplier, rtol=1e-12)
    assert result.history[1].step_size == pytest.approx(1 / multiplier)


# ---- by other parameters ----
def trajectory(
    model: Callable[[np.ndarray], tuple[float, np.ndarray, ff.DenseFisher]],
    theta: np.ndarray,
    step_size: float,
    metric: bool,
) -> np.ndarray:
    """Follow θ' = −F⁻¹∇L, or with metric=False θ' = −∇L, for one unit of time by Euler's steps."""

    def chosen(at: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        loss, gradient, F = model(at)
        return loss, gradient, F if metric else ff.DenseFisher.from_matrix(np.eye(len(at)))

    steps = round(1 / step_size)
    answer: np.ndarray = ff.natural_gradient_descent(
        chosen, theta, step_size=step_size, max_iterations=steps, tolerance=0.0
    ).theta
    return answer


def exponential_by_mean(
    x: np.ndarray,
) -> Callable[[np.ndarray], tuple[float, np.ndarray, ff.DenseFisher]]:
    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        family = ff.Exponential(theta[0])
        F = ff.DenseFisher.from_matrix(family.fisher_information())
        return -family.log_prob(x).mean(), -family.score(x).mean(axis=0), F

    return model


def exponential_by_rate(
    x: np.ndarray,
) -> Callable[[np.ndarray], tuple[float, np.ndarray, ff.DenseFisher]]:
    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        rate = theta[0]
        F = ff.DenseFisher.from_matrix([[1 / rate**2]])
        return rate * x.mean() - math.log(rate), np.array([x.mean() - 1 / rate]), F

    return model


def gaussian_by_scale(
    x: np.ndarray,
) -> Callable[[np.ndarray], tuple[float, np.ndarray, ff.DenseFisher]]:
    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        family = ff.Gaussian(*theta)
        F = ff.DenseFisher.from_matrix(family.fisher_information())
        return -family.log_prob(x).mean(), -family.score(x).mean(axis=0), F

    return model


def gaussian_by_natural_parameters(
    x: np.ndarray,
) -> Callable[[np.ndarray], tuple[float, np.ndarray, ff.DenseFisher]]:
    """η = (μ/σ², −1/2σ²): by the chain rule from (μ, σ), F_η = JᵀFJ and ∇_η = Jᵀ∇."""

    def model(eta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        mu, sigma = to_scale(eta)
        loss, gradient, F = gaussian_by_scale(x)(np.array([mu, sigma]))
        # μ = −η₁/2η₂ and σ = (−2η₂)^−½
        J = np.array([[sigma**2, 2 * mu * sigma**2], [0.0, sigma**3]])
        return loss, J.T @ gradient, ff.DenseFisher.from_matrix(ff.reparametrize(F.to_dense(), J))

    return model


def to_scale(eta: np.ndarray) -> np.ndarray:
    return np.array([-eta[0] / (2 * eta[1]), 1 / math.sqrt(-2 * eta[1])])


def to_natural(theta: np.ndarray) -> np.ndarray:
    return np.array([theta[0] / theta[1] ** 2, -0.5 / theta[1] ** 2])


PAIRS: dict[str, Any] = {
    "exponential": (
        exponential_by_mean,
        exponential_by_rate,
        np.array([2.0]),
        lambda theta: 1 / theta,
        lambda rate: 1 / rate,
    ),
    "gaussian": (
        gaussian_by_scale,
        gaussian_by_natural_parameters,
        np.array([1.0, 2.0]),
        to_natural,
        to_scale,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_b2_invariant_under_reparametrisation_as_the_step_goes_to_0(name: str) -> None:
    one, other, start, there, back = PAIRS[name]
    x = oracle.rng(2).gamma(2.0, 0.5, 100)
    apart: list[Any]
    ordinary: list[Any]
    apart, ordinary = [], []
    for step_size in (1 / 20, 1 / 40, 1 / 80):
        for metric, gaps in ((True, apart), (False, ordinary)):
            first = trajectory(one(x), start, step_size, metric)
            second = back(trajectory(other(x), there(start), step_size, metric))
            gaps.append(np.abs(first - second).max())
    # Euler's error is of first order: halving the step halves the gap, which so goes to 0.
    ratios = np.array(apart[:-1]) / apart[1:]
    np.testing.assert_allclose(ratios, 2.0, atol=0.3)
    assert apart[-1] < 0.05
    # That of ordinary gradients goes to something else.
    assert ordinary[-1] > 0.8 * ordinary[0]
    assert ordinary[-1] > 10 * apart[-1]


# ---- the example ----
def test_b2_the_curved_valley_is_rosenbrocks() -> None:
    """½ (1 − θ₁)² + 50 (θ₂ − θ₁²)², with the derivatives that the example claims."""
    theta, h = np.array([-0.7, 0.4]), 1e-5

    def loss(at: np.ndarray) -> float:
        return float(0.5 * (1 - at[0]) ** 2 + 50 * (at[1] - at[0] ** 2) ** 2)

    value, gradient, hessian = curved_valley.newton(theta)
    np.testing.assert_allclose(value, loss(theta), rtol=1e-13)
    slopes = [(loss(theta + h * e) - loss(theta - h * e)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(gradient, slopes, atol=1e-7)
    turns = [
        (curved_valley.newton(theta + h * e)[1] - curved_valley.newton(theta - h * e)[1]) / (2 * h)
        for e in np.eye(2)
    ]
    np.testing.assert_allclose(hessian.to_dense(), turns, atol=1e-5)
    J = np.array([[1.0, 0.0], [1.4, 1.0]])
    exact = J.T @ np.diag([1.0, 100.0]) @ J
    np.testing.assert_allclose(curved_valley.natural(theta)[2].to_dense(), exact, rtol=1e-13)


def test_b2_steps_bounded_in_kl_lead_straight_from_distribution_to_distribution() -> None:
    path = curved_valley.followed(curved_valley.natural, max_kl=1e-3, max_iterations=30)
    means = np.array([curved_valley.family(theta).mean.ravel() for theta in path])
    along = means[-1] - means[0]
    across = np.abs((means - means[0]) @ [along[1], -along[0]])
    assert across.max() < 0.02 * along @ along
    bent = np.abs((path - path[0]) @ [path[-1, 1] - path[0, 1], path[0, 0] - path[-1, 0]])
    assert bent.max() > 0.02 * np.sum((path[-1] - path[0]) ** 2)


def test_b2_the_example_runs_to_its_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    curved_valley.main(str(picture), limit=30)
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out
    assert table.count("\n") == 7
    assert ">   30" in table
