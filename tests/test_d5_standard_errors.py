"""D5: √n (θ̂ − θ) → N(0, F⁻¹): standard errors and regions cover as often as they say."""

import numpy as np
import pytest
from scipy import stats

import fastfisher as ff
import oracle

SETS = 10_000
LEVEL = 0.95
# Of a binomial share over so many sets; 3.3 of it are passed once in a thousand.
ERROR = np.sqrt(LEVEL * (1 - LEVEL) / SETS)


def intervals_cover(
    estimates: np.ndarray, theta: np.ndarray, information: np.ndarray
) -> np.ndarray:
    """Return for each parameter how often θ̂ ± 1.96 √(F⁻¹)_ii holds θ, F at θ̂ of each set."""
    variances = ff.batch.inverse_diagonal(information).value
    reach = stats.norm.ppf(0.5 + LEVEL / 2) * np.sqrt(variances)
    answer: np.ndarray = (np.abs(estimates - theta) <= reach).mean(axis=0)
    return answer


def regions_cover(estimates: np.ndarray, theta: np.ndarray, information: np.ndarray) -> float:
    """Return how often (θ̂ − θ)ᵀ F (θ̂ − θ) is below the quantile of χ²_p."""
    d = estimates - theta
    distance = np.einsum("bi,bij,bj->b", d, information, d)
    return float((distance <= stats.chi2.ppf(LEVEL, len(theta))).mean())


def gaussian() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean and scale of a thousand numbers: the maximum of the likelihood has a closed form."""
    theta, n = np.array([0.4, 1.7]), 1000
    estimates = []
    for seed in range(10):
        x = ff.Gaussian(*theta).sample(SETS // 10 * n, rng=seed).reshape(-1, n)
        estimates.append(np.column_stack([x.mean(axis=1), x.std(axis=1)]))
    stacked = np.vstack(estimates)
    information = n * ff.Gaussian(*stacked.T).fisher_information()
    return stacked, theta, information, n * ff.Gaussian(*theta).fisher_information()


def exponential() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    theta, n = np.array([2.5]), 1000
    x = ff.Exponential(*theta).sample(SETS * n, rng=1).reshape(SETS, n)
    estimates = x.mean(axis=1, keepdims=True)
    information = n * ff.Exponential(estimates[:, 0]).fisher_information()
    return estimates, theta, information, n * ff.Exponential(*theta).fisher_information()


def poisson_regression() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Counts with a log link, fitted by Fisher scoring of all sets at once."""
    rng, n = oracle.rng(5), 400
    X = np.column_stack([np.ones(n), rng.standard_normal((n, 2))])
    theta = np.array([1.0, 0.3, -0.2])
    y = ff.Poisson(np.exp(X @ theta)).sample(SETS, rng=rng)
    y = np.asarray(y).reshape(SETS, n)
    rows = np.broadcast_to(X, (SETS, n, 3))
    estimates = np.tile([np.log(y.mean()), 0.0, 0.0], (SETS, 1))
    for _ in range(8):
        rates = np.exp(estimates @ X.T)
        information = ff.batch.empirical_fisher(rows, weights=rates, reduction="sum")
        step = ff.batch.solve(information, (y - rates) @ X).value
        estimates = estimates + step
        if np.abs(step).max() < 1e-9:
            break
    assert np.abs(step).max() < 1e-9
    return estimates, theta, information, X.T @ (np.exp(X @ theta)[:, None] * X)


@pytest.fixture(scope="module", params=[gaussian, exponential, poisson_regression])
def model(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    answer: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] = request.param()
    return answer


def test_d5_intervals_and_regions_cover_as_often_as_they_say(
    model: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    estimates, theta, information, _ = model
    assert estimates.shape == (SETS, len(theta))
    covered = intervals_cover(estimates, theta, information)
    np.testing.assert_allclose(covered, LEVEL, rtol=0, atol=3.3 * ERROR)
    assert regions_cover(estimates, theta, information) == pytest.approx(LEVEL, abs=3.3 * ERROR)


def test_d5_information_off_by_a_tenth_would_be_seen(
    model: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    estimates, theta, information, _ = model
    for factor in (0.9, 1.1):
        covered = regions_cover(estimates, theta, factor * information)
        assert abs(covered - LEVEL) > 3.3 * ERROR


def test_d5_estimates_are_normal_about_the_truth(
    model: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """(θ̂ − θ)ᵀ F (θ̂ − θ) with F at θ is χ²_p in all of its range, and whitened it is N(0, I)."""
    estimates, theta, _, truth = model
    d = (estimates - theta).T
    distance = 2 * ff.kl_quadratic(truth, d)
    # A bias of order 1/n moves the distribution function by less than the 0.001 quantile of
    # Kolmogorov's distance over so many sets, 1.95 / √SETS.
    assert stats.kstest(distance, stats.chi2(len(theta)).cdf).statistic < 1.95 / np.sqrt(SETS)
    z = ff.DenseFisher.from_matrix(truth).apply_power(d, 0.5)
    covariance = z @ z.T / SETS
    # Its entries have the standard errors √2 / √SETS and 1 / √SETS.
    np.testing.assert_allclose(covariance, np.eye(len(theta)), rtol=0, atol=5 / np.sqrt(SETS))


def test_d5_laplace_draws_spread_as_the_estimates_do() -> None:
    """Draws about θ by the information of one set, and estimates of many: two views of F⁻¹."""
    estimates, theta, information, _ = gaussian()
    draws = ff.laplace_sample(information[0], theta, size=SETS, rng=7)
    # The information of one set of n is itself off by a few 1 / √n, and so are the spreads.
    np.testing.assert_allclose(draws.std(axis=0), estimates.std(axis=0), rtol=4 / np.sqrt(1000))
