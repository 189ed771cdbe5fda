"""Laplace samples scatter as the inverse of total information says, by χ² tests; KL quadratics."""

import numpy as np
import pytest
from scipy import stats

import fastfisher as ff
import oracle
import representations

CASES = {name: rest for name, *rest in representations.cases()}
COMPLEX = {
    name: rest
    for name, *rest in representations.cases(np.complex128)
    if name.endswith("-centred-mean")
}
DRAWS = 2000
# Each test below is made about a hundred times, with fixed seeds.
RARE = 1e-6


def total_of(F, matrix):
    return matrix * (1.0 if F.reduction == "sum" else F.weight_sum)


def whitened(draws, mean, precision):
    """Return z with x − mean = L⁻ᴴ z, precision = L Lᴴ: N(0, I) if the draws are what they should.

    Real and imaginary parts of circular complex numbers have half of the variance each.
    """
    z = (draws - mean) @ np.linalg.cholesky(precision).conj()
    return np.sqrt(2) * np.hstack([z.real, z.imag]) if z.dtype.kind == "c" else z


def chances(z):
    """Return how rare the mean and the covariance are, were z N(0, I): χ² tests of either.

    m ‖z̄‖² is χ²_p. m S is Wishart, so with Bartlett's factor the likelihood ratio
    m (tr S − log det S − p) is χ² with p(p + 1)/2 degrees of freedom, to O(1/m²).
    """
    m, p = z.shape
    mean = stats.chi2.sf(m * (z.mean(axis=0) ** 2).sum(), p)
    S = z.T @ z / m
    ratio = m * (np.trace(S) - np.linalg.slogdet(S)[1] - p)
    bartlett = 1 - (2 * p + 1 - 2 / (p + 1)) / (6 * m)
    return mean, stats.chi2.sf(bartlett * ratio, p * (p + 1) // 2)


def priors(p):
    return 0.5, np.linspace(0.2, 1.0, p)


@pytest.mark.parametrize("name", [*CASES, *(f"complex-{name}" for name in COMPLEX)])
def test_d4_samples_of_any_representation_by_chi_squared(name):
    F, matrix, _ = CASES[name] if name in CASES else COMPLEX[name.removeprefix("complex-")]
    p = len(matrix)
    theta = oracle.draw(p, 2, matrix.dtype)[:, 0]
    for seed, prior in enumerate(priors(p)):
        precision = total_of(F, matrix) + np.diag(np.broadcast_to(prior, p))
        draws = ff.laplace_sample(F, theta, size=DRAWS, prior_precision=prior, rng=seed)
        assert draws.shape == (DRAWS, p)
        assert draws.dtype == F.dtype
        found = chances(whitened(draws, theta, precision))
        assert min(found) > RARE
        assert max(found) < 1 - RARE


def test_the_chi_squared_tests_see_what_is_wrong():
    """Standard deviations off by 5 %, one correlation of 0.3, a mean off by a fifth of σ."""
    z = oracle.rng(1).standard_normal((DRAWS, 13))
    assert min(chances(z)) > 0.001
    assert chances(1.05 * z)[1] < RARE
    tilted = z.copy()
    tilted[:, 0] += 0.3 * z[:, 1]
    assert chances(tilted)[1] < RARE
    assert chances(z + 0.2 * np.eye(13)[0])[0] < RARE


def test_information_is_total():
    """A mean over n samples, the sum and the plain matrix of the sum are one posterior."""
    S = oracle.draw(50, 4)
    mean = ff.laplace_sample(ff.DenseFisher.from_scores(S), size=3, prior_precision=2.0, rng=1)
    for same in (
        ff.DenseFisher.from_scores(S, reduction="sum"),
        S.T @ S,
        ff.DenseFisher.from_scores(np.repeat(S, 2, axis=0), weights=np.full(100, 0.5)),
    ):
        draws = ff.laplace_sample(same, size=3, prior_precision=2.0, rng=1)
        oracle.close(draws, mean, np.float64, 1000)


def test_no_prior_where_the_data_say_enough():
    S = oracle.draw(50, 4)
    draws = ff.laplace_sample(ff.ScoreFisher(S), np.ones(4), size=DRAWS, solver=ff.QR(), rng=3)
    assert min(chances(whitened(draws, np.ones(4), S.T @ S))) > RARE
    with pytest.raises(ff.NotPositiveDefiniteError):
        ff.laplace_sample(ff.DenseFisher.from_scores(np.ones((9, 4))), size=5)


def test_one_draw_seeds_and_generators():
    F = np.diag([1.0, 4.0])
    one = ff.laplace_sample(F, [1.0, 2.0], rng=5)
    assert one.shape == (2,)
    np.testing.assert_array_equal(one, ff.laplace_sample(F, [1.0, 2.0], size=3, rng=5)[0])
    np.testing.assert_array_equal(one, np.array([1.0, 2.0]) + ff.laplace_sample(F, rng=5))
    rng = np.random.default_rng(5)
    np.testing.assert_array_equal(one, ff.laplace_sample(F, [1.0, 2.0], rng=rng))
    assert not np.array_equal(one, ff.laplace_sample(F, [1.0, 2.0], rng=rng))
    assert ff.laplace_sample(F, size=0).shape == (0, 2)


def test_layers_take_the_mode_as_a_list_of_weights():
    K, matrix, _ = CASES["kfac-60-mean"]
    theta = oracle.draw(len(matrix), 1)[:, 0]
    ends = np.cumsum([rows * columns for rows, columns in K.shapes])[:-1]
    weights = [w.reshape(s) for w, s in zip(np.split(theta, ends), K.shapes, strict=True)]
    draws = ff.laplace_sample(K, weights, size=2, prior_precision=1.0, rng=0)
    np.testing.assert_array_equal(
        draws, ff.laplace_sample(K, theta, size=2, prior_precision=1.0, rng=0)
    )
    assert ff.kl_quadratic(K, weights) == ff.kl_quadratic(K, theta)


@pytest.mark.parametrize("name", [*CASES, *(f"complex-{name}" for name in COMPLEX)])
def test_the_quadratic_of_any_representation(name):
    F, matrix, _ = CASES[name] if name in CASES else COMPLEX[name.removeprefix("complex-")]
    D = oracle.draw(len(matrix), 5, matrix.dtype)
    total = total_of(F, matrix)
    expected = 0.5 * np.diag(D.conj().T @ total @ D).real
    found = ff.kl_quadratic(F, D)
    oracle.close(found, expected, np.float64, 1000)
    one = ff.kl_quadratic(F, D[:, 1])
    assert isinstance(one, float)
    oracle.close(one, expected[1], np.float64, 1000)


# ---- bad input ----
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"theta": np.ones(3)}, ValueError, r"theta: expected shape \(2,\) or \(2, k\), got \(3,"),
        ({"theta": np.ones((2, 2))}, ValueError, r"theta: expected shape \(2,\), got \(2, 2\)"),
        ({"theta": [0.0, np.nan]}, ff.NonFiniteError, "theta: expected finite values"),
        ({"theta": [0j, 1j]}, TypeError, "theta: expected real numbers"),
        ({"prior_precision": -1.0}, ValueError, "prior_precision: expected finite numbers that"),
        ({"prior_precision": np.inf}, ValueError, "prior_precision: expected finite numbers that"),
        ({"prior_precision": np.ones(3)}, ValueError, r"prior_precision: expected a number or sha"),
        ({"prior_precision": "wide"}, TypeError, "prior_precision: expected real numbers"),
        ({"size": -1}, ValueError, "size: expected at least 0, got -1"),
        ({"size": 1.5}, TypeError, "size: expected a whole number"),
        ({"rng": "seed"}, TypeError, "rng: expected None, an int or a numpy.random.Generator"),
        ({"fisher": np.ones((2, 3))}, ValueError, "fisher: expected a square matrix"),
        ({"fisher": ff.DenseFisher(2)}, ValueError, "fisher: expected at least one sample"),
        ({"fisher": -np.eye(2)}, ff.NotPositiveDefiniteError, "positive definite"),
        ({"solver": ff.CG()}, TypeError, "solver: expected"),
    ],
)
def test_samples_that_are_refused(given, error, message):
    options = {"fisher": np.eye(2), "rng": 0, **given}
    with pytest.raises(error, match=message):
        ff.laplace_sample(options.pop("fisher"), **options)


@pytest.mark.parametrize(
    ("d", "error", "message"),
    [
        (np.ones(3), ValueError, r"d: expected shape \(2,\) or \(2, k\), got \(3,\)"),
        ([np.inf, 0.0], ff.NonFiniteError, "d: expected finite values"),
        ([1j, 0.0], TypeError, "d: expected real numbers"),
    ],
)
def test_steps_that_do_not_fit(d, error, message):
    with pytest.raises(error, match=message):
        ff.kl_quadratic(np.eye(2), d)
    with pytest.raises(ValueError, match="expected at least one sample, got none"):
        ff.kl_quadratic(ff.DenseFisher(2), np.ones(2))


def test_what_is_given_is_left_alone():
    matrix, theta, prior = np.diag([1.0, 2.0]), np.ones(2), np.ones(2)
    for array in (matrix, theta, prior):
        array.flags.writeable = False
    draw = ff.laplace_sample(matrix, theta, prior_precision=prior)
    assert not np.shares_memory(draw, theta)
    assert ff.kl_quadratic(matrix, theta) == 1.5
