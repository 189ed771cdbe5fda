"""Laplace samples scatter as the inverse of total information says, by χ² tests; KL quadratics."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

import fastfisher as ff
import oracle
import representations

CASES: dict[str, Any] = {name: rest for name, *rest in representations.cases()}
COMPLEX: dict[str, Any] = {
    name: rest
    for name, *rest in representations.cases(np.complex128)
    if name.endswith("-centred-mean")
}
DRAWS = 2000
# Each test below is made about a hundred times, with fixed seeds.
RARE = 1e-6


def total_of(F: ff.Fisher, matrix: np.ndarray) -> np.ndarray:
    return matrix * (1.0 if F.reduction == "sum" else F.weight_sum)


def whitened(draws: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return z with x − mean = L⁻ᴴ z, precision = L Lᴴ: N(0, I) if the draws are what they should.

    Real and imaginary parts of circular complex numbers have half of the variance each.
    """
    z = (draws - mean) @ np.linalg.cholesky(precision).conj()
    answer: np.ndarray = np.sqrt(2) * np.hstack([z.real, z.imag]) if z.dtype.kind == "c" else z
    return answer


def chances(z: np.ndarray) -> tuple[float, float]:
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


def priors(p: int) -> Any:
    return 0.5, np.linspace(0.2, 1.0, p)


@pytest.mark.parametrize("name", [*CASES, *(f"complex-{name}" for name in COMPLEX)])
def test_d4_samples_of_any_representation_by_chi_squared(name: str) -> None:
    F, matrix, _ = CASES[name] if name in CASES else COMPLEX[name.removeprefix("complex-")]
    p = len(matrix)
    theta = oracle.draw(p, 2, matrix.dtype)[:, 0]
    for seed, prior in enumerate(priors(p)):
        precision = total_of(F, matrix) + np.diag(np.broadcast_to(prior, p))
        draws = ff.laplace_sample(F, theta, size=DRAWS, prior=prior, rng=seed)
        assert draws.shape == (DRAWS, p)
        assert draws.dtype == F.dtype
        found = chances(whitened(draws, theta, precision))
        assert min(found) > RARE
        assert max(found) < 1 - RARE


def test_the_chi_squared_tests_see_what_is_wrong() -> None:
    """Standard deviations off by 5 %, one correlation of 0.3, a mean off by a fifth of σ."""
    z = oracle.rng(1).standard_normal((DRAWS, 13))
    assert min(chances(z)) > 0.001
    assert chances(1.05 * z)[1] < RARE
    tilted = z.copy()
    tilted[:, 0] += 0.3 * z[:, 1]
    assert chances(tilted)[1] < RARE
    assert chances(z + 0.2 * np.eye(13)[0])[0] < RARE


def test_information_is_total() -> None:
    """A mean over n samples, the sum and the plain matrix of the sum are one posterior."""
    S = oracle.draw(50, 4)
    mean = ff.laplace_sample(ff.DenseFisher.from_scores(S), size=3, prior=2.0, rng=1)
    for same in (
        ff.DenseFisher.from_scores(S, reduction="sum"),
        S.T @ S,
        ff.DenseFisher.from_scores(np.repeat(S, 2, axis=0), weights=np.full(100, 0.5)),
    ):
        draws = ff.laplace_sample(same, size=3, prior=2.0, rng=1)
        oracle.close(draws, mean, np.float64, 1000)


def test_no_prior_where_the_data_say_enough() -> None:
    S = oracle.draw(50, 4)
    draws = ff.laplace_sample(ff.ScoreFisher(S), np.ones(4), size=DRAWS, solver=ff.QR(), rng=3)
    assert min(chances(whitened(draws, np.ones(4), S.T @ S))) > RARE


def test_singular_information_names_a_prior_that_does() -> None:
    F = ff.DenseFisher.from_scores(np.ones((1000, 4)))
    with pytest.raises(ff.NotPositiveDefiniteError, match="Damping here is a prior") as caught:
        ff.laplace_sample(F, size=5)
    prior = caught.value.damping
    assert prior is not None
    assert np.isfinite(ff.laplace_sample(F, size=5, prior=2 * prior, rng=0)).all()
    with pytest.raises(ff.NotPositiveDefiniteError):
        ff.laplace_sample(F, size=5, prior=prior / 100)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_draws_stand_about_the_mode_to_double_precision(dtype: type[np.inexact]) -> None:
    """σ = 1e-4 about 20000.0007, which float32 knows to 0.001."""
    F = (1e8 * np.eye(2)).astype(dtype)
    theta = np.array([20000.0007, 3.0])
    draws = ff.laplace_sample(F, theta, size=DRAWS, rng=0)
    assert draws.dtype == np.result_type(dtype, np.float64)
    assert min(chances(whitened(draws, theta, oracle.wide(F)))) > RARE
    assert ff.laplace_sample(F, rng=0).dtype == dtype


def test_one_draw_seeds_and_generators() -> None:
    F = np.diag([1.0, 4.0])
    one = ff.laplace_sample(F, [1.0, 2.0], rng=5)
    assert one.shape == (2,)
    np.testing.assert_array_equal(one, ff.laplace_sample(F, [1.0, 2.0], size=3, rng=5)[0])
    np.testing.assert_array_equal(one, np.array([1.0, 2.0]) + ff.laplace_sample(F, rng=5))
    rng = np.random.default_rng(5)
    np.testing.assert_array_equal(one, ff.laplace_sample(F, [1.0, 2.0], rng=rng))
    assert not np.array_equal(one, ff.laplace_sample(F, [1.0, 2.0], rng=rng))
    assert ff.laplace_sample(F, size=0).shape == (0, 2)


def test_layers_take_the_mode_as_a_list_of_weights() -> None:
    K, matrix, _ = CASES["kfac-60-mean"]
    theta = oracle.draw(len(matrix), 1)[:, 0]
    ends = np.cumsum([rows * columns for rows, columns in K.shapes])[:-1]
    weights = [w.reshape(s) for w, s in zip(np.split(theta, ends), K.shapes, strict=True)]
    for size in (None, 2):
        draws = ff.laplace_sample(K, weights, size=size, prior=1.0, rng=0)
        lead = () if size is None else (size,)
        assert [draw.shape for draw in draws] == [(*lead, *one.shape) for one in weights]
        flat = np.concatenate([draw.reshape(*lead, -1) for draw in draws], axis=-1)
        same = ff.laplace_sample(K, theta, size=size, prior=1.0, rng=0)
        np.testing.assert_array_equal(flat, same)
    assert ff.kl_quadratic(K, weights) == ff.kl_quadratic(K, theta)


@pytest.mark.parametrize("name", [*CASES, *(f"complex-{name}" for name in COMPLEX)])
def test_the_quadratic_of_any_representation(name: str) -> None:
    F, matrix, _ = CASES[name] if name in CASES else COMPLEX[name.removeprefix("complex-")]
    D = oracle.draw(len(matrix), 5, matrix.dtype)
    total = total_of(F, matrix)
    expected = (1.0 if name.startswith("complex") else 0.5) * np.diag(D.conj().T @ total @ D).real
    found = ff.kl_quadratic(F, D)
    oracle.close(found, expected, np.float64, 1000)
    one = ff.kl_quadratic(F, D[:, 1])
    assert isinstance(one, float)
    oracle.close(one, expected[1], np.float64, 1000)


def test_of_complex_parameters_it_is_that_of_real_and_imaginary_parts() -> None:
    """Complex means of circular Gaussian noise, E|e|² = σ²: real ones of variance σ²/2 each."""
    variances, d = np.array([1.7, 0.3]), np.array([0.03 + 0.04j, -0.01j])
    here, there = (
        ff.MultivariateGaussian(np.r_[mean.real, mean.imag], np.diag(np.tile(variances / 2, 2)))
        for mean in (np.zeros(2), d)
    )
    noise = oracle.draw(4000, 2, np.complex128) * np.sqrt(variances / 2)
    scores = noise.conj() / variances  # ∂/∂θ of −|y − θ|² / σ²
    F = np.diag(1 / variances).astype(complex)
    oracle.close(ff.kl_quadratic(F, d), here.kl(there), np.float64, 20)
    # And F is what scores by complex parameters give, to five errors of a mean of 4000.
    found = ff.kl_quadratic(ff.DenseFisher.from_scores(scores), d) / len(scores)
    assert abs(found / here.kl(there) - 1) < 5 / np.sqrt(len(scores))


# ---- bad input ----
@pytest.mark.parametrize(
    ("F", "d"),
    [
        (-np.eye(2), [1.0, 0.0]),
        (-np.eye(2), [[1.0, 0.0], [0.0, 0.0]]),
        ([[0.0, 1.0], [1.0, 0.0]], [1.0, -1.0]),
        ([[1e20, 0.0], [0.0, -1.0]], [5e-11, 1.0]),
        (-np.eye(2, dtype=np.complex64), [1j, 0.0]),
    ],
)
def test_divergences_are_not_negative(F: Any, d: Sequence[complex | Sequence[float]]) -> None:
    message = r"fisher: expected information, with v\* F v that is not negative, got -"
    with pytest.raises(ff.NotPositiveDefiniteError, match=message) as caught:
        ff.kl_quadratic(F, d)
    assert caught.value.value is not None
    assert caught.value.value < 0


@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_rounding_below_zero_is_no_error(dtype: npt.DTypeLike) -> None:
    """Along a null vector the form is rounding of F, of either sign and in any units."""
    eps = np.finfo(dtype).eps
    units = np.array([2.0**20, 2.0**-20])
    F = (units * np.array([[1.0, 1.0], [1.0, 1.0 - 8 * eps]]) * units[:, None]).astype(dtype)
    null = np.array([1.0, -1.0]) / units
    assert ff.kl_quadratic(F, null) == -8 * eps * (1.0 if F.dtype.kind == "c" else 0.5)


def test_of_products_alone_the_sign_is_not_judged() -> None:
    operator = ff.DenseFisher.from_matrix(np.eye(2)).as_linear_operator()
    assert ff.kl_quadratic(-1 * operator, np.array([1.0, 0.0])) == -0.5


def test_answers_that_leave_the_range() -> None:
    held = ff.DenseFisher(2, dtype=np.float32)
    held.update(np.full((4, 2), 1.2e19, np.float32), check_finite=False)  # sums of inf
    for F, d in ((held, np.ones(2)), (np.eye(2), [1e200, 0.0]), (np.eye(2), [[1e200], [0.0]])):
        with pytest.raises(ff.NonFiniteError, match="kl_quadratic: expected a finite answer"):
            ff.kl_quadratic(F, d)
    with pytest.raises(ff.NonFiniteError, match="expected finite values"):
        ff.laplace_sample(np.eye(2, dtype=np.float32), prior=1e40)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"theta": np.ones(3)}, ValueError, r"theta: expected shape \(2,\) or \(2, k\), got \(3,"),
        ({"theta": np.ones((2, 2))}, ValueError, r"theta: expected shape \(2,\), got \(2, 2\)"),
        ({"theta": [0.0, np.nan]}, ff.NonFiniteError, "theta: expected finite values"),
        ({"theta": [0j, 1j]}, TypeError, "theta: expected real numbers"),
        ({"prior": -1.0}, ValueError, "prior: expected precisions that are finite and not"),
        ({"prior": np.inf}, ValueError, "prior: expected precisions that are finite"),
        ({"prior": np.ones(3)}, ValueError, r"prior: expected a number or shape \(2,\)"),
        ({"prior": np.eye(2)}, ValueError, r"prior: expected a number .*got shape \(2, 2\)"),
        ({"prior": "wide"}, TypeError, "prior: expected real numbers"),
        ({"size": -1}, ValueError, "size: expected at least 0, got -1"),
        ({"size": 1.5}, TypeError, "size: expected a whole number"),
        ({"rng": "seed"}, TypeError, "rng: expected None, an int or a numpy.random.Generator"),
        ({"fisher": np.ones((2, 3))}, ValueError, "fisher: expected a square matrix"),
        (
            {"fisher": ff.DenseFisher(2)},
            ValueError,
            "expected at least one sample with a weight, got none",
        ),
        ({"fisher": -np.eye(2)}, ff.NotPositiveDefiniteError, "positive definite"),
        ({"solver": ff.CG()}, TypeError, "solver: expected"),
    ],
)
def test_samples_that_are_refused(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    options: dict[str, Any] = {"fisher": np.eye(2), "rng": 0, **given}
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
def test_steps_that_do_not_fit(
    d: np.ndarray | Sequence[complex], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ff.kl_quadratic(np.eye(2), d)
    with pytest.raises(ValueError, match="expected at least one sample with a weight, got none"):
        ff.kl_quadratic(ff.DenseFisher(2), np.ones(2))


def test_what_is_given_is_left_alone() -> None:
    matrix, theta, prior = np.diag([1.0, 2.0]), np.ones(2), np.ones(2)
    for array in (matrix, theta, prior):
        array.flags.writeable = False
    draw = ff.laplace_sample(matrix, theta, prior=prior)
    assert not np.shares_memory(draw, theta)
    assert ff.kl_quadratic(matrix, theta) == 1.5
