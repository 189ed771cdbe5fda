"""Families: probabilities to the last digits, batches, draws, and every refusal."""

import decimal
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

import fastfisher as ff
import oracle
from distributions import CASES, LOGITS, MU, SIGMA
from fastfisher.families.divergence import divergence, log_peak
from fastfisher.families.family import Family

# ---- probabilities ----
COUNTS = (0, 1, 2, 7, 15, 16, 17, 100, 1000, 123_456)


@cache
def exact_log_factorial(n: int) -> decimal.Decimal:
    """log n! with 40 digits: the sum up to 2000, and from there Stirling's series."""
    if n <= 2000:
        return sum((Decimal(k).ln() for k in range(2, n + 1)), Decimal(0))
    x = Decimal(n)
    two_pi = Decimal("6.283185307179586476925286766559005768394")
    series = 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5) - 1 / (1680 * x**7)
    return x * x.ln() - x + (two_pi * x).ln() / 2 + series


@pytest.mark.parametrize("x", COUNTS)
def test_the_peak_against_forty_digits(x: int) -> None:
    with localcontext() as context:
        context.prec = 40
        power = x * Decimal(x).ln() if x else Decimal(0)
        expected = float(power - x - exact_log_factorial(x))
    np.testing.assert_allclose(log_peak(np.array(float(x))), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("ratio", [1e-300, 1e-5, 0.5, 0.8, 0.9, 1 - 1e-9, 1 + 1e-7, 1.2, 3.0, 1e9])
@pytest.mark.parametrize("x", [1e-10, 0.3, 1.0, 12.0, 1e8])
def test_the_divergence_against_forty_digits(x: float, ratio: float) -> None:
    y = x / ratio if ratio != 1e-300 else x * 1e300
    with localcontext() as context:
        context.prec = 40
        a, b = Decimal(x), Decimal(y)
        expected = float(a * (a / b).ln() - a + b)
    np.testing.assert_allclose(divergence(x, y), expected, rtol=2e-14, atol=0)


def test_the_divergence_at_its_ends() -> None:
    assert divergence(0.0, 0.0) == 0
    assert divergence(0.0, 2.5) == 2.5
    assert divergence(2.5, 0.0) == np.inf
    assert divergence(1e300, 1e300) == 0
    assert divergence(1e10, 1e-310) == pytest.approx(1e10 * (320 * np.log(10) - 1))
    assert divergence(1e-310, 1e10) == 1e10


@pytest.mark.parametrize("rate", [1e-8, 0.3, 4.0, 950.0, 1e6])
@pytest.mark.parametrize("x", COUNTS)
def test_poisson_against_forty_digits(x: int, rate: float) -> None:
    with localcontext() as context:
        context.prec = 40
        mean = Decimal(rate)
        expected = float(x * mean.ln() - mean - exact_log_factorial(x))
    # Digits are lost by x ≈ λ being rounded alone, never by terms of the size of λ.
    np.testing.assert_allclose(ff.Poisson(rate).log_prob(x), expected, rtol=2e-14)


@pytest.mark.parametrize("p", [1e-12, 0.3, 0.5, 0.999])
@pytest.mark.parametrize(("trials", "x"), [(1, 0), (1, 1), (20, 3), (5000, 1517), (10**6, 499_000)])
def test_binomial_against_forty_digits(trials: int, x: int, p: float) -> None:
    with localcontext() as context:
        context.prec = 40
        choose = exact_log_factorial(trials) - exact_log_factorial(x)
        choose -= exact_log_factorial(trials - x)
        q = Decimal(p)
        expected = float(choose + x * q.ln() + (trials - x) * (1 - q).ln())
    np.testing.assert_allclose(ff.Binomial(trials, p).log_prob(x), expected, rtol=2e-13)


def test_log_prob_against_scipy() -> None:
    x = np.linspace(-3, 5, 9)
    theirs = {
        "gaussian": (ff.Gaussian(0.5, 1.5), stats.norm(0.5, 1.5).logpdf, x),
        "exponential": (ff.Exponential(1.5), stats.expon(scale=1.5).logpdf, np.abs(x)),
        "poisson": (ff.Poisson(1.5), stats.poisson(1.5).logpmf, np.arange(30)),
        "binomial": (ff.Binomial(9, 0.2), stats.binom(9, 0.2).logpmf, np.arange(10)),
        "bernoulli": (ff.Bernoulli(0.2), stats.bernoulli(0.2).logpmf, np.arange(2)),
        "categorical": (ff.Categorical(LOGITS), special.log_softmax(LOGITS).take, np.arange(4)),
        "multivariate": (
            ff.MultivariateGaussian(MU, SIGMA),
            stats.multivariate_normal(MU, SIGMA).logpdf,
            oracle.draw(20, 3),
        ),
    }
    for name, (family, expected, points) in theirs.items():
        actual = family.log_prob(points)
        np.testing.assert_allclose(actual, expected(points), rtol=1e-12, err_msg=name)


def test_the_edges_of_probability() -> None:
    never, always = ff.Binomial(4, 0.0), ff.Binomial(4, 1.0)
    np.testing.assert_array_equal(np.exp(never.log_prob(np.arange(5))), [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(np.exp(always.log_prob(np.arange(5))), [0, 0, 0, 0, 1])
    assert (never.sample(5, rng=0) == 0).all()
    assert (always.sample(5, rng=0) == 4).all()
    assert never.kl(ff.Binomial(4, 0.5)) == pytest.approx(4 * np.log(2))
    assert ff.Binomial(4, 0.5).kl(never) == np.inf
    assert never.kl(never) == 0
    for edge in (never, always):
        for use in (edge.fisher_information, lambda edge=edge: edge.score([0, 4])):
            with pytest.raises(
                ff.NonFiniteError, match=r"Binomial\.\w+: expected parameters insid"
            ):
                use()
    nothing = ff.Binomial(0, 0.3)
    assert nothing.log_prob(0) == 0
    assert nothing.fisher_information() == 0
    assert nothing.kl(ff.Binomial(0, 0.0)) == 0


def test_large_logits_neither_overflow_nor_vanish() -> None:
    family = ff.Categorical([1000.0, 0.0, -1000.0])
    np.testing.assert_array_equal(family.log_prob([0, 1, 2]), [0, -1000, -2000])
    assert family.kl(ff.Categorical([0.0, 1000.0, 0.0])) == pytest.approx(1000)
    assert np.isfinite(family.fisher_information()).all()


def test_parameters_too_near_the_edge_are_named() -> None:
    for family in (ff.Gaussian(0, 1e-200), ff.Exponential(1e-200), ff.Poisson(5e-324)):
        with pytest.raises(ff.NonFiniteError, match=r"fisher_information: expected parameters ins"):
            family.fisher_information()


def test_what_overflows_is_infinite_or_named() -> None:
    assert ff.Gaussian(0, 1e-200).log_prob(1.0) == -np.inf
    assert ff.Gaussian(0, 1).kl(ff.Gaussian(0, 1e-200)) == np.inf
    assert ff.Gaussian(0, 1e-200).kl(ff.Gaussian(0, 1)) == pytest.approx(200 * np.log(10) - 0.5)
    assert ff.Exponential(1e200).kl(ff.Exponential(1e-200)) == np.inf
    tiny = ff.MultivariateGaussian([0, 0], 1e-300 * (np.eye(2) + 1))
    with pytest.raises(ff.NonFiniteError, match=r"log_prob: expected numbers that float64 can"):
        tiny.log_prob([1e200, 1e200])


# ---- batches ----
def stacked(family: Family, count: int = 5) -> tuple[list[Family], Family]:
    """Return `count` families of growing parameters, one by one and as one batch."""
    theta = np.asarray(family.parameters)
    thetas = theta * np.linspace(0.8, 1.2, count)[:, None]
    return [family.with_parameters(t) for t in thetas], family.with_parameters(thetas)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_is_its_members(name: str) -> None:
    singles, batch = stacked(CASES[name][0])
    draws = batch.sample(3, rng=1)
    assert batch.batch_shape == (5,)
    assert draws.shape[:2] == (3, 5)
    for what in ("log_prob", "score"):
        together = getattr(batch, what)(draws)
        for i, single in enumerate(singles):
            expected = getattr(single, what)(draws[:, i])
            np.testing.assert_allclose(together[:, i], expected, rtol=1e-13, atol=1e-14)
    one_each = batch.score(draws[0])
    assert one_each.shape == batch.parameters.shape
    np.testing.assert_array_equal(one_each, batch.score(draws)[0])
    for i, single in enumerate(singles):
        np.testing.assert_allclose(
            batch.fisher_information()[i], single.fisher_information(), rtol=1e-13, atol=1e-15
        )
        kl = batch.kl(singles[0])
        np.testing.assert_allclose(kl[i], single.kl(singles[0]), rtol=1e-10, atol=1e-15)
    part = batch._part(slice(1, 3))
    np.testing.assert_array_equal(part.log_prob(draws[:, 1:3]), batch.log_prob(draws)[:, 1:3])


@pytest.mark.parametrize("name", CASES)
def test_the_root_is_a_root(name: str) -> None:
    for family in (CASES[name][0], stacked(CASES[name][0])[1]):
        R, F = family._information_root(), family.fisher_information()
        size = np.abs(F).max()
        np.testing.assert_allclose(np.swapaxes(R, -1, -2) @ R, F, rtol=0, atol=1e-13 * size)


def test_a_natural_gradient_for_each_sample() -> None:
    """F⁻¹ s of N(μ, σ²) is (x − μ, (z² − 1) σ/2): what boosting a distribution takes."""
    rng = oracle.rng(9)
    mu, sigma, x = rng.standard_normal(50), rng.uniform(0.5, 2, 50), rng.standard_normal(50)
    family = ff.Gaussian(mu, sigma)
    natural = ff.batch.solve(family.fisher_information(), family.score(x)).value
    z = (x - mu) / sigma
    expected = np.column_stack([x - mu, (z**2 - 1) * sigma / 2])
    np.testing.assert_allclose(natural, expected, rtol=1e-12, atol=1e-14)


def test_one_parameter_may_be_shared() -> None:
    family = ff.Gaussian(np.arange(4.0), 2.0)
    assert family.batch_shape == (4,)
    assert family.parameters.shape == (4, 2)
    assert ff.Binomial([1, 2, 3], 0.5).fisher_information().shape == (3, 1, 1)
    shared = ff.MultivariateGaussian(np.zeros((6, 3)), SIGMA)
    assert shared.fisher_information().shape == (6, 3, 3)
    assert shared.sample(2, rng=0).shape == (2, 6, 3)


def test_parameters_belong_to_the_family() -> None:
    mean = np.zeros(3)
    family = ff.Gaussian(mean, 1.0)
    mean[:] = 7.0
    assert not family.mean.any()
    with pytest.raises(ValueError, match="read-only"):
        family.mean[0] = 1.0


@pytest.mark.parametrize("name", CASES)
def test_draws_repeat_and_may_be_none(name: str) -> None:
    family, _ = CASES[name]
    first, again = family.sample(7, rng=3), family.sample(7, rng=3)
    np.testing.assert_array_equal(first, again)
    nothing = family.sample(0)
    assert family.log_prob(nothing).shape == (0,)
    assert family.score(nothing).shape == (0, len(family.parameters))


@pytest.mark.parametrize("name", CASES)
def test_draws_have_the_distribution(name: str) -> None:
    """χ² of counts, Kolmogorov–Smirnov of numbers: p-values that no right sampler falls below."""
    family, (_, w) = CASES[name]
    draws = family.sample(20_000, rng=4)
    if draws.dtype.kind == "i":
        keep = w * len(draws) > 5
        observed: Any = np.bincount(draws, minlength=len(w))[: len(w)]
        observed = [*observed[keep], len(draws) - observed[keep].sum()]
        expected = [*w[keep], 1 - w[keep].sum()]
        if expected[-1] < 1e-9:
            observed, expected = observed[:-1], np.array(expected[:-1]) / sum(expected[:-1])
        assert stats.chisquare(observed, np.array(expected) * len(draws)).pvalue > 1e-4
    elif draws.ndim == 2:
        assert isinstance(family, ff.MultivariateGaussian)
        z = np.linalg.solve(np.linalg.cholesky(family.covariance), (draws - family.mean).T)
        assert stats.kstest(z.ravel(), "norm").pvalue > 1e-4
        assert stats.kstest((z**2).sum(axis=0), stats.chi2(len(z)).cdf).pvalue > 1e-4
    else:
        assert isinstance(family, ff.Exponential | ff.Gaussian)
        exact = stats.expon(scale=family.mean)
        if isinstance(family, ff.Gaussian):
            exact = stats.norm(family.mean, family.scale)
        assert stats.kstest(draws, exact.cdf).pvalue > 1e-4


def test_what_a_family_says_of_itself() -> None:
    assert repr(ff.Gaussian(0.5, 2)) == "Gaussian(mean=0.5, scale=2)"
    assert repr(ff.Bernoulli(0.25)) == "Bernoulli(probability=0.25)"
    assert repr(ff.Categorical(LOGITS)) == "Categorical(logits=array (4,))"


# ---- divergences ----
def test_fixed_parameters_make_no_difference_to_kl() -> None:
    free, fixed = ff.Gaussian(0, 1), ff.Gaussian(1, 2, fixed_scale=True)
    assert free.kl(fixed) == pytest.approx(np.log(2) + 2 / 8 - 0.5, rel=1e-15)
    assert ff.Bernoulli(0.3).kl(ff.Binomial(1, 0.4)) == ff.Binomial(1, 0.3).kl(ff.Bernoulli(0.4))


@pytest.mark.parametrize(
    ("one", "other", "error", "message"),
    [
        (ff.Poisson(1), ff.Gaussian(0, 1), TypeError, "other: expected Poisson, got Gaussian"),
        (ff.Bernoulli(0.1), 0.2, TypeError, "other: expected Binomial, got float"),
        (
            ff.Binomial(3, 0.1),
            ff.Binomial(4, 0.1),
            ValueError,
            r"other: expected as many trials, 3\.0, got 4\.0",
        ),
        (
            ff.Categorical([0, 0]),
            ff.Categorical([0, 0, 0]),
            ValueError,
            "other: expected 2 classes, got 3",
        ),
        (
            ff.MultivariateGaussian([0], [[1]]),
            ff.MultivariateGaussian(MU, SIGMA),
            ValueError,
            r"other: expected observations of shape \(1,\), got \(3,\)",
        ),
        (
            ff.Poisson([1, 2]),
            ff.Poisson([1, 2, 3]),
            ValueError,
            r"other: expected a shape that broadcasts with \(2,\) of self, got \(3,\)",
        ),
    ],
)
def test_kl_of_different_kinds(
    one: Family, other: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        one.kl(other)


# ---- refusals ----
@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: ff.Gaussian(np.nan, 1), ValueError, "mean: expected finite numbers, got nan"),
        (lambda: ff.Gaussian(0, 0), ValueError, "scale: expected finite numbers above 0, got 0"),
        (lambda: ff.Gaussian(0, [1, -2]), ValueError, "scale: .* above 0, got -2 at index 1"),
        (lambda: ff.Gaussian(0, np.inf), ValueError, "scale: .* above 0, got inf"),
        (lambda: ff.Gaussian(0, 1, fixed_scale=1), TypeError, "fixed_scale: expected True or F"),  # type: ignore[arg-type]
        (lambda: ff.Gaussian(1j, 1), TypeError, "mean: expected real numbers, got complex128"),
        (lambda: ff.Gaussian("a", 1), TypeError, "mean: expected real numbers, got str"),
        (
            lambda: ff.Gaussian([1, 2], [1, 2, 3]),
            ValueError,
            r"mean: expected a shape that broadcasts with \(3,\) of scale, got \(2,\)",
        ),
        (lambda: ff.Poisson(0), ValueError, "rate: expected finite numbers above 0, got 0"),
        (lambda: ff.Exponential(-1), ValueError, "mean: expected finite numbers above 0, got -1"),
        (lambda: ff.Binomial(2.5, 0.1), ValueError, "trials: expected whole numbers .*, got 2.5"),
        (lambda: ff.Binomial(-1, 0.1), ValueError, "trials: expected whole numbers .*, got -1"),
        (lambda: ff.Binomial(np.inf, 0.1), ValueError, "trials: expected whole numbers .* got inf"),
        (lambda: ff.Binomial(2, 1.5), ValueError, "probability: .* from 0 to 1, got 1.5"),
        (
            lambda: ff.Bernoulli([[0.5, np.nan]]),
            ValueError,
            r"probability: .* from 0 to 1, got nan at index \(0, 1\)",
        ),
        (lambda: ff.Categorical(1.0), ValueError, r"logits: expected shape \(K,\) .*, got \(\)"),
        (lambda: ff.Categorical([1.0]), ValueError, r"logits: .* K ≥ 2, got \(1,\)"),
        (lambda: ff.Categorical([0, -np.inf]), ValueError, "logits: .* got -inf at index 1"),
        (
            lambda: ff.MultivariateGaussian(0.0, [[1.0]]),
            ValueError,
            r"mean: expected shape \(d,\) or \(n, d\), got \(\)",
        ),
        (
            lambda: ff.MultivariateGaussian([0, 0], np.eye(3)),
            ValueError,
            r"covariance: expected shape \(2, 2\) or \(n, 2, 2\), got \(3, 3\)",
        ),
        (
            lambda: ff.MultivariateGaussian([0, 0], -np.eye(2)),
            ff.NotPositiveDefiniteError,
            "covariance: expected a positive definite matrix, got one that is not. Leave",
        ),
        (
            lambda: ff.MultivariateGaussian([0], [[[1.0]], [[0.0]]]),
            ff.NotPositiveDefiniteError,
            "covariance: expected a positive definite matrix, got one that is not at index 1",
        ),
        (
            lambda: ff.Gaussian(0, 1).with_parameters([1.0]),
            ValueError,
            r"parameters: expected shape \(…, 2\), got \(1,\)",
        ),
    ],
)
def test_parameters_outside_the_domain(
    build: Callable[..., Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("call", ["log_prob", "score"])
@pytest.mark.parametrize(
    ("family", "x", "error", "message"),
    [
        (ff.Gaussian(0, 1), [0, np.nan], ff.NonFiniteError, "x: .*finite values, got nan at inde"),
        (ff.Poisson(1), [1, 1.5], ValueError, "x: expected whole numbers .*, got 1.5 at index 1"),
        (ff.Poisson(1), -1, ValueError, "x: expected whole numbers .* not negative, got -1"),
        (ff.Exponential(1), [-0.5], ValueError, "x: expected numbers that are not negative, got"),
        (ff.Binomial(3, 0.5), [0, 4], ValueError, "x: expected at most 3, got 4 at index 1"),
        (ff.Binomial([3, 5], 0.5), [4, 4], ValueError, "x: expected at most 3, got 4 at index 0"),
        (ff.Bernoulli(0.5), [2], ValueError, "x: expected at most 1, got 2 at index 0"),
        (ff.Categorical([0, 0]), [2], ValueError, "x: expected at most 1, got 2 at index 0"),
        (ff.Categorical([0, 0]), ["a"], TypeError, "x: expected real numbers, got str"),
        (
            ff.Poisson([1, 2]),
            [1, 2, 3],
            ValueError,
            r"x: expected a shape that broadcasts with \(2,\) of the parameters, got \(3,\)",
        ),
        (
            ff.MultivariateGaussian(MU, SIGMA),
            [1.0, 2.0],
            ValueError,
            r"x: expected shape \(n, 3\), got \(2,\)",
        ),
    ],
)
def test_observations_outside_the_support(
    family: Family, x: Sequence[float], call: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        getattr(family, call)(x)


def test_samples_are_counted() -> None:
    with pytest.raises(ValueError, match="n: expected at least 0, got -1"):
        ff.Poisson(1).sample(-1)
    with pytest.raises(TypeError, match="n: expected a whole number, got float"):
        ff.Poisson(1).sample(1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rng: expected"):
        ff.Poisson(1).sample(1, rng="a")
