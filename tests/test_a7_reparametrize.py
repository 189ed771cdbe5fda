"""A7: information about other parameters is JᵀFJ, for any representation, in totals."""

from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle
import representations
from distributions import close, laguerre

CASES: dict[str, Any] = {name: rest for name, *rest in representations.cases()}


@pytest.mark.parametrize("name", CASES)
def test_a7_any_representation_gives_total_information(name: str) -> None:
    F, matrix, _ = CASES[name]
    J = oracle.rng(3).standard_normal((len(matrix), 4))
    total = 1.0 if F.reduction == "sum" else F.weight_sum
    expected = total * J.T @ matrix @ J
    actual = ff.reparametrize(F, J)
    oracle.close(actual, expected, np.float64, 100 * len(matrix))
    np.testing.assert_array_equal(actual, actual.T)


def test_a7_exponential_by_mean_and_by_rate() -> None:
    rate = 0.4
    x, w = laguerre(1 / rate)
    by_rate: Any = w @ (1 / rate - x) ** 2  # the score of r exp(−rx)
    F = ff.Exponential(1 / rate).fisher_information()
    close(ff.reparametrize(F, [[-1 / rate**2]]), [[by_rate]])
    close(by_rate, 1 / rate**2)


def test_a7_gaussian_by_scale_and_by_variance() -> None:
    """Two families that know nothing of each other: σ in one, Σ = σ² in the other."""
    mu, sigma = 0.4, 1.7
    by_variance = ff.MultivariateGaussian([mu], [[sigma**2]], fixed_covariance=False)
    J = np.diag([1.0, 2 * sigma])  # ∂(μ, σ²)/∂(μ, σ)
    close(
        ff.reparametrize(by_variance.fisher_information(), J),
        ff.Gaussian(mu, sigma).fisher_information(),
    )


def test_a7_binomial_by_log_odds() -> None:
    """∂p/∂η = p(1 − p), and by η a trial's score is x − p: two logits of which one is fixed."""
    p = 0.3
    F = ff.Bernoulli(p).fisher_information()
    by_log_odds = ff.reparametrize(F, [[p * (1 - p)]])
    logits = ff.Categorical([0.0, np.log(p / (1 - p))]).fisher_information()
    close(by_log_odds, logits[1:, 1:])


def test_a7_there_and_back() -> None:
    rng = oracle.rng(4)
    F = np.cov(rng.standard_normal((5, 50)))
    J = rng.standard_normal((5, 5))
    back = ff.reparametrize(ff.reparametrize(F, J), np.linalg.inv(J))
    oracle.close(back, F, np.float64, 100 * np.linalg.cond(J) ** 2)


@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_a7_every_dtype(dtype: type[np.inexact]) -> None:
    S, J = oracle.draw(30, 6, dtype), oracle.draw(6, 3, dtype)
    F = ff.DenseFisher.from_scores(S)
    expected = 30 * oracle.wide(J).conj().T @ oracle.fisher(S) @ oracle.wide(J)
    actual = ff.reparametrize(F, J)
    assert actual.dtype == dtype
    oracle.close(actual, expected, dtype, 200)


@pytest.mark.parametrize(
    ("jacobian", "error", "message"),
    [
        (np.ones(2), ValueError, r"jacobian: expected shape \(2, q\) with q ≥ 1, got \(2,\)"),
        (np.ones((2, 0)), ValueError, r"jacobian: expected shape \(2, q\) .*, got \(2, 0\)"),
        (np.ones((3, 2)), ValueError, r"jacobian: expected shape \(2,\) or \(2, k\), got \(3, 2\)"),
        (np.full((2, 2), np.nan), ff.NonFiniteError, "jacobian: expected finite values"),
        ("J", TypeError, "jacobian: expected real numbers, got str"),
    ],
)
def test_a7_jacobians_that_do_not_fit(
    jacobian: str | np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ff.reparametrize(np.eye(2), jacobian)


def test_a7_a_matrix_must_be_square() -> None:
    with pytest.raises(ValueError, match="fisher: expected a square matrix"):
        ff.reparametrize(np.ones((2, 3)), np.eye(2))
