"""Every family at a few parameters, with nodes and weights whose sums are its expectations."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from scipy import special, stats

import fastfisher as ff


def hermite(mean: float, scale: float, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Gauss–Hermite nodes of N(mean, scale²): exact for polynomials of degree < 2·count."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return mean + scale * nodes, weights / weights.sum()


def laguerre(mean: float, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Gauss–Laguerre nodes of the exponential distribution."""
    nodes, weights = np.polynomial.laguerre.laggauss(count)
    return mean * nodes, weights


def hermite_of_several(
    mean: np.ndarray, covariance: np.ndarray, count: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = hermite(0.0, 1.0, count)
    z = np.array(list(product(nodes, repeat=len(mean))))
    w = np.array([np.prod(one) for one in product(weights, repeat=len(mean))])
    root = stats.Covariance.from_precision(np.linalg.inv(covariance)).colorize(z)
    return mean + root, w


def poisson(rate: float) -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(int(rate + 40 * np.sqrt(rate) + 40))
    return x, stats.poisson.pmf(x, rate)


def binomial(trials: int, p: float) -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(trials + 1)
    return x, special.comb(trials, x) * p**x * (1 - p) ** (trials - x)


SIGMA = np.array([[2.0, -0.3, 0.5], [-0.3, 1.0, 0.1], [0.5, 0.1, 0.7]])
MU = np.array([1.0, -2.0, 0.5])
LOGITS = np.array([0.3, -1.2, 2.0, 0.0])

CASES = {
    "gaussian-mean": (ff.Gaussian(1.5, 0.7, fixed_scale=True), hermite(1.5, 0.7)),
    "gaussian": (ff.Gaussian(-0.5, 2.0), hermite(-0.5, 2.0)),
    "poisson": (ff.Poisson(3.5), poisson(3.5)),
    "poisson-rare": (ff.Poisson(0.05), poisson(0.05)),
    "exponential": (ff.Exponential(2.5), laguerre(2.5)),
    "binomial": (ff.Binomial(12, 0.3), binomial(12, 0.3)),
    "bernoulli": (ff.Bernoulli(0.8), binomial(1, 0.8)),
    "categorical": (ff.Categorical(LOGITS), (np.arange(4), special.softmax(LOGITS))),
    "multivariate-mean": (ff.MultivariateGaussian(MU, SIGMA), hermite_of_several(MU, SIGMA)),
    "multivariate": (
        ff.MultivariateGaussian(MU[:2], SIGMA[:2, :2], fixed_covariance=False),
        hermite_of_several(MU[:2], SIGMA[:2, :2]),
    ),
}


def close(
    actual: float | np.ndarray,
    expected: float | np.ndarray | Sequence[Sequence[float]],
    terms: int = 100,
) -> None:
    """Assert agreement to terms·eps of the largest entry: what a sum of so many terms may lose."""
    expected = np.asarray(expected)
    bound = terms * np.finfo(float).eps * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def slopes(
    function: Callable[[np.ndarray], np.ndarray],
    theta: np.ndarray,
    steps: np.ndarray | Sequence[float],
) -> np.ndarray:
    """Central differences of function(θ) along each parameter, as the last axis."""
    return np.stack(
        [
            (function(theta + h * e) - function(theta - h * e)) / (2 * h)
            for h, e in zip(steps, np.eye(len(theta)), strict=True)
        ],
        axis=-1,
    )


def step_sizes(theta: np.ndarray, relative: float = 1e-5) -> np.ndarray:
    answer: np.ndarray = relative * np.maximum(0.1, np.abs(theta))
    return answer
