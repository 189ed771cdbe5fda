"""B4: KL becomes symmetric as the step goes to 0, and minimising it is maximum likelihood."""

from typing import Any

import numpy as np
import pytest
from scipy import optimize

import fastfisher as ff
from distributions import CASES
from test_b1_kl_geometry import direction, moved


@pytest.mark.parametrize("name", CASES)
def test_b4_kl_is_asymptotically_symmetric(name: str) -> None:
    family, _ = CASES[name]
    d = direction(family)
    steps = np.array([1.0, 0.1, 0.01])
    ratios = np.array(
        [family.kl(moved(family, t * d)) / moved(family, t * d).kl(family) for t in steps]
    )
    # The ratio is 1 + O(t); of a Gaussian's mean it is 1.
    assert (np.abs(ratios - 1) <= 2 * steps).all()


def test_b4_kl_from_the_data_has_the_maximum_likelihood_for_minimum() -> None:
    """KL(data ‖ model) over counts 0 … N, and the log-likelihood, have one optimum: x̄ / N."""
    N, rng = 8, np.random.default_rng(5)
    x = rng.integers(0, N + 1, 400)  # the model is not even true
    counts = np.arange(N + 1)
    with np.errstate(divide="ignore"):
        data = ff.Categorical(np.log(np.bincount(x, minlength=N + 1) / len(x)))

    def divergence(p: float) -> float:
        return float(data.kl(ff.Categorical(ff.Binomial(N, p).log_prob(counts))))

    def loss(p: float) -> float:
        return float(-ff.Binomial(N, p).log_prob(x).mean())

    options: dict[str, Any] = {
        "bounds": (0.01, 0.99),
        "method": "bounded",
        "options": {"xatol": 1e-9},
    }
    of_kl = optimize.minimize_scalar(divergence, **options).x
    of_likelihood = optimize.minimize_scalar(loss, **options).x
    # A minimum found by values alone is known to √eps.
    assert of_kl == pytest.approx(of_likelihood, abs=1e-7)
    assert of_kl == pytest.approx(x.mean() / N, abs=1e-7)
    # Nothing but a constant, minus the entropy of the data, lies between the two.
    gaps = [divergence(p) - loss(p) for p in (0.2, 0.5, 0.8)]
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-13)


def test_b4_at_the_maximum_the_mean_score_is_zero() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(2.0, 3.0, 500)
    np.testing.assert_allclose(ff.Gaussian(x.mean(), x.std()).score(x).mean(axis=0), 0, atol=1e-14)
    counts = rng.poisson(3.0, 500)
    assert ff.Poisson(counts.mean()).score(counts).mean() == pytest.approx(0, abs=1e-14)
    waits = rng.exponential(3.0, 500)
    assert ff.Exponential(waits.mean()).score(waits).mean() == pytest.approx(0, abs=1e-14)
    rows = rng.standard_normal((500, 3)) @ rng.standard_normal((3, 3))
    fitted = ff.MultivariateGaussian(
        rows.mean(axis=0), np.cov(rows.T, bias=True), fixed_covariance=False
    )
    size = np.abs(fitted.score(rows)).mean(axis=0)
    assert (np.abs(fitted.score(rows).mean(axis=0)) < 1e-12 * size).all()
