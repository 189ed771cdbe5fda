"""D1: no unbiased estimate does better than (∂φ/∂θ) F⁻¹ (∂φ/∂θ)ᵀ, and some do as well."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

import fastfisher as ff
import oracle
import representations
import three_gaussians
from distributions import MU, SIGMA, close, hermite_of_several

CASES: dict[str, Any] = {name: rest for name, *rest in representations.cases()}


def poisson_moments(rate: float, statistic: Callable[..., Any]) -> tuple[float, float, float]:
    """Mean and variance of a statistic of a Poisson count, and the slope of its mean in the rate.

    The slope is E[T(N + 1) − T(N)], since the mass e⁻ʳ rᴺ/N! has the derivative p(N − 1) − p(N).
    """
    count = np.arange(int(rate + 40 * np.sqrt(rate) + 40))
    p = stats.poisson.pmf(count, rate)
    mean = p @ statistic(count)
    variance = p @ (statistic(count) - mean) ** 2
    return mean, variance, p @ (statistic(count + 1) - statistic(count))


def psd(difference: np.ndarray, scale: np.ndarray) -> bool:
    """Tell whether a symmetric matrix is positive semi-definite to the rounding of `scale`."""
    least = np.linalg.eigvalsh(difference)[0]
    return bool(least >= -10 * len(difference) * np.finfo(float).eps * np.abs(scale).max())


# ---- one parameter ----
def test_d1_the_gaussian_mean_attains_it() -> None:
    """The variance of the mean of three, by quadrature over all three."""
    mu, sigma = 1.5, 0.7
    x, w = hermite_of_several(np.full(3, mu), sigma**2 * np.eye(3))
    mean = x.mean(axis=1)
    close(w @ mean, mu)
    F = 3 * ff.Gaussian(mu, sigma, fixed_scale=True).fisher_information()
    close(ff.cramer_rao_bound(F), [[w @ (mean - mu) ** 2]])


@pytest.mark.parametrize("n", [1, 2, 3, 10, 100])
def test_d1_the_unbiased_scale_of_a_centred_gaussian_does_not_attain_it(n: int) -> None:
    """c √Σx² with c = Γ(n/2) / (√2 Γ((n+1)/2)) is unbiased; its variance is σ² (n c² − 1)."""
    sigma = 1.7
    c = np.exp(special.gammaln(n / 2) - special.gammaln((n + 1) / 2)) / np.sqrt(2)
    close(c * stats.chi(n).mean(), 1.0)
    variance = sigma**2 * (n * c**2 - 1)
    np.testing.assert_allclose(variance, sigma**2 * c**2 * stats.chi(n).var(), rtol=1e-9)
    about_both = n * ff.Gaussian(0.0, sigma).fisher_information()
    (bound,) = ff.cramer_rao_bound(ff.condition_on(about_both, [1]), diagonal=True)
    close(bound, sigma**2 / (2 * n))
    # 1 + 1/(4n) to first order, and π − 2 for a single one.
    assert 1 + 0.14 / n < variance / bound < 1 + 0.26 / n


def test_d1_its_variance_attains_it() -> None:
    """Σx²/n of N(0, σ²) by quadrature over two, against σ² as a function of σ."""
    sigma = 1.7
    x, w = hermite_of_several(np.zeros(2), sigma**2 * np.eye(2))
    T = (x**2).mean(axis=1)
    about_scale = ff.condition_on(2 * ff.Gaussian(0.0, sigma).fisher_information(), [1])
    close(ff.cramer_rao_bound(about_scale, [[2 * sigma]]), [[w @ (T - sigma**2) ** 2]])


@pytest.mark.parametrize("n", [3, 4, 30])
def test_d1_rate_of_an_exponential_unbiased_and_biased(n: int) -> None:
    """(n − 1)/Σx is unbiased for the rate; n/Σx is not, and is bounded by the slope of its mean."""
    theta = 2.5
    F = n * ff.Exponential(theta).fisher_information()
    inverse = stats.invgamma(n, scale=1 / theta)  # of 1/Σx
    close((n - 1) * inverse.mean(), 1 / theta)
    slope = -(theta**-2)  # of 1/θ
    (unbiased,) = ff.cramer_rao_bound(F, [[slope]], diagonal=True)
    (biased,) = ff.cramer_rao_bound(F, [[n / (n - 1) * slope]], diagonal=True)
    close(unbiased, 1 / (n * theta**2))
    if n == 3:  # where even the variance of 1/Σx exists barely: r²/(n − 2) beside r²/n
        close((n - 1) ** 2 * inverse.var() / unbiased, 3.0)
    assert (n - 1) ** 2 * inverse.var() > unbiased
    assert n**2 * inverse.var() > biased > unbiased


@pytest.mark.parametrize("rate", [0.5, 3.5, 40.0])
@pytest.mark.parametrize("statistic", [np.sqrt, lambda k: np.log(k + 0.5), np.cos])
def test_d1_a_biased_estimate_is_bounded_by_the_slope_of_its_mean(
    rate: float, statistic: Callable[..., Any]
) -> None:
    _, variance, slope = poisson_moments(rate, statistic)
    bound = ff.cramer_rao_bound(ff.Poisson(rate).fisher_information(), [[slope]])
    assert 0 < bound[0, 0] < variance


def test_d1_a_line_in_the_score_attains_it() -> None:
    _, variance, slope = poisson_moments(3.5, lambda k: 2 - 3 * k)
    close(ff.cramer_rao_bound(ff.Poisson(3.5).fisher_information(), [[slope]]), [[variance]])


def test_d1_the_delta_method_attains_it_in_the_limit() -> None:
    """log(x̄ + 1/2n), an estimate of log λ: the excess over 1/(nλ) falls as 1/(nλ)."""
    excess = []
    for expected in (1e2, 1e3, 1e4):
        _, variance, _ = poisson_moments(expected, lambda k: np.log(k + 0.5))
        F = ff.Poisson(expected).fisher_information()
        (bound,) = ff.cramer_rao_bound(F, [[1 / expected]], diagonal=True)
        close(bound, 1 / expected)
        excess.append(variance / bound - 1)
    slope = np.diff(np.log(np.abs(excess))) / np.log(10)
    np.testing.assert_allclose(slope, -1, atol=0.05)


# ---- several ----
def test_d1_least_squares_attains_it_and_other_weights_do_not() -> None:
    rng, sigma = oracle.rng(11), 0.6
    X = rng.standard_normal((40, 4))
    family = ff.Gaussian(np.zeros(40), np.full(40, sigma), fixed_scale=True)
    F = ff.exact_fisher(X[:, None, :], family, into=ff.DenseFisher)
    bound = ff.cramer_rao_bound(F)
    ordinary = np.linalg.pinv(X)  # takes y to the estimate
    oracle.close(sigma**2 * ordinary @ ordinary.T, bound, np.float64, 40)
    root = np.sqrt(rng.uniform(0.1, 2.0, 40))
    other = np.linalg.pinv(root[:, None] * X) * root
    np.testing.assert_allclose(other @ X, np.eye(4), atol=1e-13)  # unbiased as well
    difference = sigma**2 * other @ other.T - bound
    assert psd(difference, bound)
    assert np.linalg.eigvalsh(difference)[0] > 1e-4 * np.abs(bound).max()


def test_d1_mean_and_covariance_of_a_multivariate_gaussian() -> None:
    """The sample mean attains it; the sample covariance is above it by n/(n − 1), as by Wishart."""
    n, d = 7, len(MU)
    F = n * ff.MultivariateGaussian(MU, SIGMA, fixed_covariance=False).fisher_information()
    i, j = np.tril_indices(d)
    moments = SIGMA[np.ix_(i, i)] * SIGMA[np.ix_(j, j)] + SIGMA[np.ix_(i, j)] * SIGMA[np.ix_(j, i)]
    truth = np.zeros_like(F)
    truth[:d, :d], truth[d:, d:] = SIGMA / n, moments / (n - 1)
    bound = ff.cramer_rao_bound(F)
    assert psd(truth - bound, truth)
    close(bound[:d, :d], truth[:d, :d], 1000)
    close(bound[d:, d:] * n / (n - 1), truth[d:, d:], 1000)


def test_d1_mean_and_scale_by_simulation() -> None:
    """x̄ and the unbiased s of five: Cov(T) ⪰ bound to five standard errors, not equal in s."""
    sigma, n, repeats = 1.3, 5, 200_000
    c = np.sqrt((n - 1) / 2) * special.gamma((n - 1) / 2) / special.gamma(n / 2)
    x = ff.Gaussian(0.0, sigma).sample(n * repeats, rng=1).reshape(repeats, n)
    T = np.column_stack([x.mean(axis=1), c * x.std(axis=1, ddof=1)])
    np.testing.assert_allclose(T.mean(axis=0), [0, sigma], atol=5 * sigma / np.sqrt(repeats))
    difference = np.cov(T.T) - ff.cramer_rao_bound(n * ff.Gaussian(0, sigma).fisher_information())
    error = 5 * np.sqrt(2 / repeats) * sigma**2 / n  # of the variance of x̄, the larger one
    assert np.linalg.eigvalsh(difference)[0] > -error
    assert abs(difference[0, 0]) < error
    assert difference[1, 1] > 5 * error


def test_d1_complex_least_squares_attains_it() -> None:
    """Circular noise of E|ε|² = σ²: scores conj(ε) x/σ², and Cov = σ² (XᴴX)⁻¹."""
    sigma, X = 0.6, oracle.draw(40, 4, np.complex128)
    J = oracle.draw(2, 4, np.complex128)
    # E[s* sᵀ] of sample i is conj(x) xᵀ/σ²: that of a sample with score x/σ.
    F = ff.DenseFisher.from_scores(X / sigma)
    A = np.linalg.pinv(X)
    oracle.close(ff.cramer_rao_bound(F), sigma**2 * A @ A.conj().T, np.float64, 400)
    bound = ff.cramer_rao_bound(F, J)
    expected = sigma**2 * (J @ A) @ (J @ A).conj().T
    oracle.close(bound, expected, np.float64, 400)
    variances = ff.cramer_rao_bound(F, J, diagonal=True)
    assert variances.dtype == np.float64
    oracle.close(variances, np.diag(expected).real, np.float64, 400)


# ---- the texts' first figure ----
def test_d1_three_gaussians_attain_it_by_the_mean_and_not_by_the_median(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, repeats = tmp_path / "picture.png", 4000
    rows = three_gaussians.main(str(picture), repeats=repeats)
    assert len(rows) == len(re.findall(r"^ +[0-9.]+ ", capsys.readouterr().out, re.MULTILINE)) == 3
    for scale, (bound, mean, median) in zip(three_gaussians.SCALES, rows, strict=True):
        close(bound, scale / np.sqrt(three_gaussians.SAMPLES))
        # A standard deviation has the relative standard error √(1 / 2n).
        assert abs(mean / bound - 1) < 5 / np.sqrt(2 * repeats)
        assert median / bound > 1.1
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


# ---- any representation ----
@pytest.mark.parametrize("name", CASES)
def test_d1_any_representation(name: str) -> None:
    F, matrix, _ = CASES[name]
    p = len(matrix)
    total = 1.0 if F.reduction == "sum" else F.weight_sum
    rng = oracle.rng(12)
    J, prior = rng.standard_normal((3, p)), rng.uniform(1.0, 20.0, p)
    A = total * matrix + np.diag(prior)
    expected = np.linalg.inv(A)
    terms = 10 * p * np.linalg.cond(A)
    for jacobian, truth in ((None, expected), (J, J @ expected @ J.T)):
        bound = ff.cramer_rao_bound(F, jacobian, prior=prior)
        oracle.close(bound, truth, np.float64, terms)
        np.testing.assert_array_equal(bound, bound.T)
        variances = ff.cramer_rao_bound(F, jacobian, prior=prior, diagonal=True)
        oracle.close(variances, np.diag(truth), np.float64, terms)


@pytest.mark.parametrize("name", CASES)
def test_d1_any_representation_without_a_prior(name: str) -> None:
    F, matrix, _ = CASES[name]
    p, total = len(matrix), 1.0 if F.reduction == "sum" else F.weight_sum
    values = np.linalg.eigvalsh(matrix)
    if values[0] <= 1e-12 * values[-1]:
        with pytest.raises(
            ff.NotPositiveDefiniteError, match=r"expected a positive.*Damping here is a prior"
        ):
            ff.cramer_rao_bound(F)
        return
    expected = np.linalg.inv(matrix) / total
    oracle.close(ff.cramer_rao_bound(F), expected, np.float64, 10 * p * values[-1] / values[0])
