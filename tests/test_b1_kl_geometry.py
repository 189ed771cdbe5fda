"""B1: Fisher information is the curvature of KL, and of every f-divergence up to a factor."""

from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle
from distributions import CASES, close, step_sizes
from fastfisher.families.family import Family

each = pytest.mark.parametrize("name", CASES)
STEPS = 0.2 * 0.5 ** np.arange(6)
# f″(1), so that the divergence is about ½ f″(1) dᵀF d; written with expm1, so that nothing cancels.
F_DIVERGENCES: dict[str, Any] = {
    "chi-squared": (lambda log_ratio: np.expm1(log_ratio) ** 2, 2.0),
    "hellinger": (lambda log_ratio: 0.5 * np.expm1(0.5 * log_ratio) ** 2, 0.25),
}


def direction(family: Family) -> np.ndarray:
    """Return a direction in which all of (θ, θ + 0.2 d) lies well inside the domain."""
    theta = np.asarray(family.parameters)
    d = oracle.rng(len(theta)).uniform(-1.0, 1.0, len(theta))
    answer: np.ndarray = 0.2 * d * np.maximum(0.1, np.abs(theta))
    return answer


def moved(family: Family, d: np.ndarray) -> Family:
    return family.with_parameters(np.asarray(family.parameters) + d)


def falls_as_cube(errors: np.ndarray, size: np.ndarray) -> None:
    """Assert that errors fall at least as t³, or are rounding of what they are the error of."""
    large = errors > 1e-12 * size  # θ + d is rounded: eps |θ| / |d| of the divergence
    if large.sum() >= 3:
        slope = np.polyfit(np.log(STEPS[large]), np.log(errors[large]), 1)[0]
        assert slope > 2.8
    else:
        assert large.sum() == 0


@each
def test_b1_kl_is_its_definition(name: str) -> None:
    family, (x, w) = CASES[name]
    d = direction(family)
    other = moved(family, d)
    seen = w > 0
    expected = w[seen] @ (family.log_prob(x[seen]) - other.log_prob(x[seen]))
    close(family.kl(other), expected, terms=1000)
    assert family.kl(family) == pytest.approx(0, abs=1e-30)


@each
def test_b1_half_the_quadratic_form_is_kl_to_third_order(name: str) -> None:
    family, _ = CASES[name]
    F, d = family.fisher_information(), direction(family)
    kl = np.array([family.kl(moved(family, t * d)) for t in STEPS])
    quadratic = ff.kl_quadratic(F, STEPS * d[:, None])
    falls_as_cube(np.abs(kl - quadratic), quadratic)


@each
def test_b1_kl_keeps_its_digits_as_the_step_goes_to_zero(name: str) -> None:
    family, _ = CASES[name]
    F, d = family.fisher_information(), 1e-5 * direction(family)
    kl = family.kl(moved(family, d))
    if "gaussian" in name or "multivariate" in name:
        # r − 1 of scales is a difference of numbers near 1.
        assert kl == pytest.approx(0.5 * d @ F @ d, rel=1e-3)
    else:
        assert kl == pytest.approx(0.5 * d @ F @ d, rel=1e-4)
    assert kl >= 0


@each
def test_b1_slope_zero_and_hessian_fisher(name: str) -> None:
    family, _ = CASES[name]
    k = len(family.parameters)
    h = 20 * step_sizes(np.asarray(family.parameters))
    E = np.diag(h)
    slope = [(family.kl(moved(family, e)) - family.kl(moved(family, -e))) / 2 for e in E]
    # Odd differences lack the even terms: what is left is third order in h.
    hessian = np.array(
        [
            [
                sum(
                    s * t * family.kl(moved(family, s * E[i] + t * E[j]))
                    for s in (1, -1)
                    for t in (1, -1)
                )
                / (4 * h[i] * h[j])
                for j in range(k)
            ]
            for i in range(k)
        ]
    )
    F = family.fisher_information()
    size = np.sqrt(np.diag(F))
    assert (np.abs(slope) / h < 1e-6 * size).all()
    np.testing.assert_allclose(hessian, F, rtol=0, atol=1e-5 * F.max())


@each
@pytest.mark.parametrize("divergence", F_DIVERGENCES)
def test_b1_every_f_divergence_agrees_up_to_a_factor(name: str, divergence: str) -> None:
    family, (x, w) = CASES[name]
    f, curvature = F_DIVERGENCES[divergence]
    F, d = family.fisher_information(), 0.5 * direction(family)
    seen = w > 0
    x, w = x[seen], w[seen]
    values = [w @ f(moved(family, t * d).log_prob(x) - family.log_prob(x)) for t in STEPS]
    quadratic = curvature * ff.kl_quadratic(F, STEPS * d[:, None])
    falls_as_cube(np.abs(values - quadratic), quadratic)
