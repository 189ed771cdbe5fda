"""A1 to A8: what Fisher information is, for every family, against sums, quadrature and draws."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

import fastfisher as ff
import oracle
from distributions import CASES, MU, SIGMA, close, hermite, poisson, slopes, step_sizes
from fastfisher.families.family import Family

each = pytest.mark.parametrize(("family", "quadrature"), CASES.values(), ids=CASES)
DRAWS = 40_000


def second_moment(family: Family, quadrature: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    x, w = quadrature
    s = family.score(x)
    answer: np.ndarray = s.T @ (w[:, None] * s)
    return answer


# ---- A1 ----
@each
def test_a1_the_score_has_mean_zero(
    family: Family, quadrature: tuple[np.ndarray, np.ndarray]
) -> None:
    x, w = quadrature
    scores = family.score(x)
    close(w @ scores, np.zeros(scores.shape[1]), terms=1000)
    drawn = family.score(family.sample(DRAWS, rng=1))
    standard_error = drawn.std(axis=0) / np.sqrt(DRAWS)
    assert (np.abs(drawn.mean(axis=0)) < 5 * standard_error).all()


@each
def test_a1_the_score_is_the_slope_of_log_prob(
    family: Family, quadrature: tuple[np.ndarray, np.ndarray]
) -> None:
    x = family.sample(50, rng=2)
    theta = np.asarray(family.parameters)
    steps = step_sizes(theta)
    expected = slopes(lambda t: family.with_parameters(t).log_prob(x), theta, steps)
    scores = family.score(x)
    # Central differences: h² of the third derivative, eps/h of the values; both are below 1e-8.
    np.testing.assert_allclose(scores, expected, rtol=1e-7, atol=1e-7 * np.abs(scores).max())


# ---- A2 ----
@each
def test_a2_fisher_is_the_covariance_of_the_score(
    family: Family, quadrature: tuple[np.ndarray, np.ndarray]
) -> None:
    F = family.fisher_information()
    close(second_moment(family, quadrature), F, terms=1000)
    assert np.array_equal(F, F.T)
    assert np.linalg.eigvalsh(F).min() >= -1e-15 * np.trace(F)
    scores = family.score(family.sample(DRAWS, rng=3))
    products = scores[:, :, None] * scores[:, None, :]
    standard_error = products.std(axis=0) / np.sqrt(DRAWS)
    error = np.abs(ff.empirical_fisher(scores) - F)
    assert (error <= 5 * standard_error + 1e-12).all()


@each
def test_a2_fisher_is_minus_the_mean_hessian(
    family: Family, quadrature: tuple[np.ndarray, np.ndarray]
) -> None:
    x, w = quadrature
    theta = np.asarray(family.parameters)
    # Differences of the scores at fixed x, averaged over the model.
    hessian = slopes(lambda t: family.with_parameters(t).score(x), theta, step_sizes(theta))
    mean = np.einsum("n,nkl->kl", w, hessian)
    F = family.fisher_information()
    np.testing.assert_allclose(-mean, F, rtol=0, atol=1e-7 * np.abs(F).max())


# ---- A3 ----
def test_a3_closed_forms_of_one_parameter() -> None:
    close(ff.Gaussian(0.3, 2.0, fixed_scale=True).fisher_information(), [[1 / 4]])
    close(ff.Gaussian(0.3, 2.0).fisher_information(), np.diag([1 / 4, 2 / 4]))
    close(ff.Poisson(2.5).fisher_information(), [[1 / 2.5]])
    close(ff.Exponential(2.5).fisher_information(), [[1 / 2.5**2]])
    close(ff.Binomial(7, 0.3).fisher_information(), [[7 / (0.3 * 0.7)]])
    close(ff.Bernoulli(0.3).fisher_information(), [[1 / (0.3 * 0.7)]])


@pytest.mark.parametrize("trials", [1, 2, 13])
@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.95])
def test_a3_binomial_is_the_sum_over_counts(trials: int, p: float) -> None:
    x = np.arange(trials + 1)
    chance = special.comb(trials, x) * p**x * (1 - p) ** (trials - x)
    expected = np.sum((x - trials * p) ** 2 * chance) / (p * (1 - p)) ** 2
    np.testing.assert_allclose(
        ff.Binomial(trials, p).fisher_information(), [[expected]], rtol=1e-12
    )


def test_a3_categorical_is_singular_by_one() -> None:
    logits = oracle.rng(1).standard_normal(6)
    pi = special.softmax(logits)
    F = ff.Categorical(logits).fisher_information()
    close(F, np.diag(pi) - np.outer(pi, pi))
    assert np.linalg.matrix_rank(F) == 5
    close(F @ np.ones(6), np.zeros(6))


def test_a3_multivariate_mean_has_the_precision() -> None:
    close(ff.MultivariateGaussian(MU, SIGMA).fisher_information(), np.linalg.inv(SIGMA))


def test_a3_multivariate_covariance_by_its_lower_triangle() -> None:
    d = len(MU)
    triangle = list(zip(*np.tril_indices(d), strict=True))  # row by row
    D = np.zeros((d * d, len(triangle)))
    for column, (i, j) in enumerate(triangle):
        D[i * d + j, column] = D[j * d + i, column] = 1.0
    P = np.linalg.inv(SIGMA)
    F = ff.MultivariateGaussian(MU, SIGMA, fixed_covariance=False).fisher_information()
    close(F[:d, :d], P)
    close(F[d:, d:], 0.5 * D.T @ np.kron(P, P) @ D)
    assert not F[:d, d:].any()
    assert not F[d:, :d].any()


# ---- A4 ----
def test_a4_independent_data_add() -> None:
    a, b = oracle.draw(50, 4), oracle.draw(31, 4)
    together = ff.DenseFisher.from_scores(np.vstack([a, b]), reduction="sum").to_dense()
    apart = [ff.DenseFisher.from_scores(s, reduction="sum") for s in (a, b)]
    close(apart[0].merge(apart[1]).to_dense(), together)
    close(a.T @ a + b.T @ b, together)


@pytest.mark.parametrize("name", [name for name in CASES if name != "multivariate-mean"])
def test_a4_two_samples_have_twice_the_information(name: str) -> None:
    """The score of (x₁, x₂) is s(x₁) + s(x₂): its second moment over both is 2 F."""
    family, (x, w) = CASES[name]
    s = family.score(x)
    both = (s[:, None, :] + s[None, :, :]).reshape(len(x) ** 2, -1)
    two = both.T @ (np.outer(w, w).reshape(-1, 1) * both)
    close(two, 2 * family.fisher_information(), terms=1000)


def test_a4_chain_rule_of_two_stages() -> None:
    """X ~ N(θ, 1), then Y | X ~ Poisson(exp(½X + θ)): I_XY = I_X + E[I_Y|X]."""
    theta = 0.3
    x, w = hermite(theta, 1.0, 60)
    first = ff.Gaussian(theta, 1.0, fixed_scale=True)
    total = conditional = 0.0
    for one, weight in zip(x, w, strict=True):
        rate = np.exp(0.5 * one + theta)
        second = ff.Poisson(rate)
        y, chance = poisson(rate)
        slope = rate  # ∂λ/∂θ
        joint = first.score(one)[0] + second.score(y)[:, 0] * slope
        total += weight * (chance @ joint**2)
        conditional += weight * second.fisher_information()[0, 0] * slope**2
    close(total, first.fisher_information()[0, 0] + conditional, terms=1000)


# ---- A5 ----
def test_a5_a_threshold_at_the_mean_leaves_two_over_pi() -> None:
    mu, sigma = 0.7, 1.3
    full = ff.Gaussian(mu, sigma, fixed_scale=True).fisher_information()[0, 0]

    def thresholded(cut: float) -> float:
        p = stats.norm.sf(cut, mu, sigma)
        slope = stats.norm.pdf(cut, mu, sigma)  # ∂p/∂μ
        return float(slope**2 * ff.Bernoulli(p).fisher_information()[0, 0])

    close(thresholded(mu), 2 / np.pi * full)
    others = [thresholded(mu + shift) for shift in (-2.0, -0.5, 0.3, 1.0, 3.0)]
    assert max(others) < 2 / np.pi * full


def test_a5_the_sum_of_poissons_loses_nothing() -> None:
    n, rate = 7, 1.4
    total = n**2 * ff.Poisson(n * rate).fisher_information()  # ∂(nλ)/∂λ = n
    close(total, n * ff.Poisson(rate).fisher_information())


def test_a5_rounding_down_loses_something() -> None:
    """f(X) = ⌊X⌋ of a waiting time is geometric, with less information, and more for finer bins."""
    theta = 2.0
    kept = []
    for width in (4.0, 2.0, 1.0, 0.25):
        edges = np.arange(4000) * width
        # P(k) = e^(−kw/θ) (1 − e^(−w/θ)), and its score by the chain rule
        q = np.exp(-width / theta)
        chance = np.exp(-edges / theta) * (1 - q)
        score = (edges - width * q / (1 - q)) / theta**2
        kept.append(chance @ score**2)
    full = ff.Exponential(theta).fisher_information()[0, 0]
    assert kept == sorted(kept)
    assert 0.99 * full < kept[-1] < full


# ---- A7, with test_a7_reparametrize.py ----
def test_a7_multivariate_by_a_linear_map_of_the_mean() -> None:
    A = oracle.rng(2).standard_normal((3, 2))
    F = ff.MultivariateGaussian(MU, SIGMA).fisher_information()
    drawn = ff.MultivariateGaussian(MU, SIGMA).sample(10, rng=1)
    scores = ff.MultivariateGaussian(MU, SIGMA).score(drawn) @ A
    theta = np.array([0.3, -0.2])

    def log_prob(t: np.ndarray) -> np.ndarray:
        answer: np.ndarray = ff.MultivariateGaussian(MU + A @ (t - theta), SIGMA).log_prob(drawn)
        return answer

    np.testing.assert_allclose(scores, slopes(log_prob, theta, [1e-5, 1e-5]), atol=1e-7)
    P = np.linalg.inv(SIGMA)
    close(ff.reparametrize(F, A), A.T @ P @ A)


# ---- A8 ----
def test_a8_a_moving_support_has_no_fisher_information() -> None:
    """Uniform(0, θ): the score is −1/θ where it exists: A1, A2 and the Cramér–Rao bound fail."""
    theta, n = 2.0, 10
    x, w = np.polynomial.legendre.leggauss(20)
    x, w = theta * (x + 1) / 2, w / 2
    score = np.full_like(x, -1 / theta)  # of log p = −log θ on 0 < x < θ
    assert w @ score == pytest.approx(-1 / theta)  # not 0
    second, hessian = w @ score**2, 1 / theta**2  # ∂² log p / ∂θ² = +1/θ²
    assert second == pytest.approx(hessian)  # not minus it
    # The unbiased estimate (n + 1)/n · max has a variance below the "bound" θ²/n.
    draws = np.random.default_rng(4).uniform(0, theta, (100_000, n))
    estimate = (n + 1) / n * draws.max(axis=1)
    assert estimate.mean() == pytest.approx(theta, rel=2e-3)
    assert estimate.var() == pytest.approx(theta**2 / (n * (n + 2)), rel=0.03)
    assert estimate.var() < 0.1 * theta**2 / n


def test_a8_no_family_pretends() -> None:
    assert "Uniform" not in ff.families.__all__
    page = (Path(__file__).parent.parent / "docs" / "families.md").read_text(encoding="utf-8")
    assert re.search(r"Uniform\(0, θ\)", page)
