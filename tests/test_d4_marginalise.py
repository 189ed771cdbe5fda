"""D4: marginalise, condition and add a prior, for any representation, against explicit inverses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import fastfisher as ff
import forecast_ellipse
import oracle
import representations
from fastfisher.fisher.additive import Additive

CASES: dict[str, Any] = {name: rest for name, *rest in representations.cases()}
KEEP = [5, 0, -2]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Additive, np.ndarray, np.ndarray]:
    """Return F, its total information as a matrix, and a prior that determines everything."""
    F, matrix, _ = CASES[request.param]
    total = 1.0 if F.reduction == "sum" else F.weight_sum
    return F, total * matrix, oracle.rng(21).uniform(1.0, 20.0, len(matrix))


def chosen(matrix: np.ndarray, keep: Sequence[int]) -> np.ndarray:
    places = np.arange(len(matrix))[keep]
    return matrix[np.ix_(places, places)]


def random_information(p: int = 7, spread: float = 1.0) -> np.ndarray:
    rng = oracle.rng(22)
    S = rng.standard_normal((3 * p, p)) * np.logspace(0, spread, p)
    return S.T @ S


# ---- any representation ----
def test_d4_marginalise_any_representation(case: tuple[Additive, np.ndarray, np.ndarray]) -> None:
    F, matrix, prior = case
    A = matrix + np.diag(prior)
    expected = np.linalg.inv(chosen(np.linalg.inv(A), KEEP))
    actual = ff.marginalize(F, KEEP, prior=prior)
    oracle.close(actual, expected, np.float64, 10 * len(A) * np.linalg.cond(A))
    np.testing.assert_array_equal(actual, actual.T)


def test_d4_condition_any_representation(case: tuple[Additive, np.ndarray, np.ndarray]) -> None:
    F, matrix, _ = case
    actual = ff.condition_on(F, KEEP)
    oracle.close(actual, chosen(matrix, KEEP), np.float64, 10 * len(matrix), scale=np.trace(matrix))
    np.testing.assert_array_equal(actual, actual.T)


def test_d4_prior_any_representation(case: tuple[Additive, np.ndarray, np.ndarray]) -> None:
    F, matrix, prior = case
    for given, added in (
        (prior, np.diag(prior)),
        (3.0, 3.0 * np.eye(len(matrix))),
        (np.diag(prior) + 0.5, np.diag(prior) + 0.5),
        (F, matrix),
    ):
        actual = ff.add_prior(F, given)
        oracle.close(
            actual, matrix + added, np.float64, 10 * len(matrix), scale=np.trace(matrix + added)
        )


# A chain of Kronecker factors takes damping but as a matrix.
STRUCTURED = [name for name in CASES if not name.startswith(("dense-", "tridiagonal-"))]


@pytest.mark.parametrize("name", STRUCTURED)
def test_d4_no_representation_is_made_dense(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    F, _, _ = CASES[name]

    def refused(self: ff.Fisher) -> None:
        raise AssertionError(f"{type(self).__name__} was made dense")

    expected = ff.marginalize(F, KEEP, prior=3.0)
    monkeypatch.setattr(type(F), "to_dense", refused)
    np.testing.assert_array_equal(ff.marginalize(F, KEEP, prior=3.0), expected)
    ff.condition_on(F, KEEP)
    ff.reparametrize(F, np.ones((F.shape[0], 1)))
    ff.cramer_rao_bound(F, prior=3.0, diagonal=True)
    with pytest.raises(AssertionError, match="made dense"):
        ff.add_prior(F, 3.0)


# ---- laws ----
def test_d4_marginalising_is_the_schur_complement() -> None:
    F = random_information()
    keep, rest = [0, 3, 5], [1, 2, 4, 6]
    off = F[np.ix_(keep, rest)]
    expected = chosen(F, keep) - off @ np.linalg.solve(chosen(F, rest), off.T)
    oracle.close(ff.marginalize(F, keep), expected, np.float64, 10 * np.linalg.cond(F))


def test_d4_marginalising_twice_is_marginalising_once() -> None:
    F = random_information()
    twice = ff.marginalize(ff.marginalize(F, [6, 0, 3, 5]), [3, 1])
    oracle.close(twice, ff.marginalize(F, [5, 0]), np.float64, 10 * np.linalg.cond(F))


def test_d4_conditioning_twice_is_conditioning_once() -> None:
    F = random_information()
    np.testing.assert_array_equal(
        ff.condition_on(ff.condition_on(F, [6, 0, 3, 5]), [3, 1]), ff.condition_on(F, [5, 0])
    )


def test_d4_order_of_marginalising_and_conditioning() -> None:
    """Fix parameter 1, then integrate out the rest; not the same as the other way round."""
    F, keep = random_information(), [0, 3]
    first_known = ff.marginalize(ff.condition_on(F, [0, 2, 3, 4, 5, 6]), [0, 2])
    inverse = np.linalg.inv(np.delete(np.delete(F, 1, 0), 1, 1))
    expected = np.linalg.inv(chosen(inverse, [0, 2]))
    oracle.close(first_known, expected, np.float64, 10 * np.linalg.cond(F))
    assert np.linalg.norm(first_known - ff.marginalize(F, keep)) > 1e-3 * np.linalg.norm(expected)


def test_d4_a_prior_without_end_is_conditioning() -> None:
    """F_rr + t: what marginalising takes away, F_kr (F_rr + t)⁻¹ F_rk, falls as 1/t."""
    F, keep = random_information(), [0, 3]
    known = ff.condition_on(F, keep)
    prior = np.ones(7)
    prior[keep] = 0
    size = np.trace(F)
    lost = [
        np.linalg.norm(known - ff.marginalize(F, keep, prior=size * t * prior))
        for t in (1e2, 1e3, 1e4)
    ]
    np.testing.assert_allclose(np.diff(np.log10(lost)), -1, atol=0.02)
    oracle.close(ff.marginalize(F, keep, prior=1e16 * size * prior), known, np.float64, 100)


def test_d4_a_weak_prior_is_none() -> None:
    F = random_information()
    without = ff.marginalize(F, [0, 3])
    with_little = ff.marginalize(F, [0, 3], prior=1e-14 * np.linalg.eigvalsh(F)[0])
    oracle.close(with_little, without, np.float64, 10 * np.linalg.cond(F))


def test_d4_a_prior_on_what_is_kept_adds_to_its_information() -> None:
    """(F + P)/(F + P)_rr = F/F_rr + P_kk for a P on the kept ones: priors may come after."""
    F, keep = random_information(), [0, 3]
    prior = np.zeros(7)
    prior[keep] = 4.0, 0.25
    before = ff.marginalize(F, keep, prior=prior)
    after = ff.add_prior(ff.marginalize(F, keep), prior[keep])
    oracle.close(before, after, np.float64, 10 * np.linalg.cond(F))


def test_d4_the_prior_keyword_is_add_prior() -> None:
    F, prior = random_information(), np.arange(7.0)
    for function in (ff.cramer_rao_bound, lambda A, **k: ff.marginalize(A, [5, 0, 3], **k)):
        oracle.close(
            function(F, prior=prior),
            function(ff.add_prior(F, prior)),
            np.float64,
            10 * np.linalg.cond(F),
        )


def test_d4_independent_experiments_add() -> None:
    """One determines the sum of two parameters, one their difference: together they give both."""
    one, other = np.ones((2, 2)), np.array([[1.0, -1.0], [-1.0, 1.0]])
    np.testing.assert_array_equal(ff.add_prior(one, other), 2 * np.eye(2))
    for alone in (one, other):
        with pytest.raises(ff.NotPositiveDefiniteError):
            ff.cramer_rao_bound(alone)


def test_d4_more_information_has_a_lower_bound() -> None:
    """P ⪰ 0 makes (F + P)⁻¹ ⪯ F⁻¹, by at most what F⁻¹ P F⁻¹ says to first order."""
    F, p = random_information(), np.array([0.0, 3.0, 0.0, 1.0, 0.0, 0.0, 20.0])
    before, after = ff.cramer_rao_bound(F), ff.cramer_rao_bound(F, prior=p)
    rounding = 100 * np.linalg.cond(F) * np.finfo(float).eps * np.abs(before).max()
    assert np.linalg.eigvalsh(before - after)[0] > -rounding
    assert np.linalg.eigvalsh(before * p @ before - (before - after))[0] > -rounding


def test_d4_knowing_never_hurts() -> None:
    """F_kk ⪰ marginal information, and the kept variances say the same of the bound."""
    F, keep = random_information(), [0, 3, 4]
    gap = ff.condition_on(F, keep) - ff.marginalize(F, keep)
    assert np.linalg.eigvalsh(gap)[0] > 0
    kept = ff.cramer_rao_bound(ff.marginalize(F, keep))
    oracle.close(kept, chosen(ff.cramer_rao_bound(F), keep), np.float64, 10 * np.linalg.cond(F))


def test_d4_reparametrising_commutes_with_marginalising() -> None:
    """New parameters of the kept and of the others apart: a block-diagonal ∂θ/∂φ."""
    F, rng = random_information(), oracle.rng(23)
    inner, outer = rng.standard_normal((3, 3)), rng.standard_normal((4, 4))
    J = np.block([[inner, np.zeros((3, 4))], [np.zeros((4, 3)), outer]])
    keep = [0, 1, 2]
    both = ff.marginalize(ff.reparametrize(F, J), keep)
    cond = np.linalg.cond(F) * np.linalg.cond(J) ** 2
    oracle.close(both, ff.reparametrize(ff.marginalize(F, keep), inner), np.float64, 10 * cond)


def test_d4_bound_and_reparametrise_are_inverse() -> None:
    """∂φ/∂θ F⁻¹ (∂φ/∂θ)ᵀ = (JᵀFJ)⁻¹ with J = ∂θ/∂φ its inverse."""
    F, J = random_information(), oracle.rng(24).standard_normal((7, 7))
    cond = np.linalg.cond(F) * np.linalg.cond(J) ** 2
    oracle.close(
        ff.cramer_rao_bound(ff.reparametrize(F, J)),
        ff.cramer_rao_bound(F, np.linalg.inv(J)),
        np.float64,
        10 * cond,
    )


def test_d4_a_marginal_ellipse_is_the_shadow_of_the_whole() -> None:
    """max θ_k over θᵀFθ ≤ 1 is the root of the marginal variance; on the axis, of 1/F_kk."""
    F = random_information(3, 0.3)
    angles = oracle.rng(25).standard_normal((200_000, 3))
    on_surface = angles / np.sqrt(np.einsum("ni,ij,nj->n", angles, F, angles))[:, None]
    shadow = on_surface[:, 0].max()
    # The nearest of 2·10⁵ random directions misses the top by some 10⁻⁵ of its height.
    np.testing.assert_allclose(shadow, ff.marginalize(F, [0])[0, 0] ** -0.5, rtol=1e-3)
    np.testing.assert_allclose(F[0, 0] ** -0.5, ff.condition_on(F, [0])[0, 0] ** -0.5)


# ---- the example ----
def test_d4_the_magnitudes_of_the_forecast_and_their_slopes() -> None:
    """An Einstein–de Sitter universe has the distance 2 c/H₀ (1 − 1/√(1 + z)) in closed form."""
    z = forecast_ellipse.REDSHIFTS
    m, _ = forecast_ellipse.magnitudes(np.array([70.0, 1.0, -1.0, -19.3]))
    distance = 2 * forecast_ellipse.LIGHT / 70 * (1 + z) * (1 - (1 + z) ** -0.5)
    np.testing.assert_allclose(m, -19.3 + 25 + 5 * np.log10(distance), rtol=1e-12)
    theta = forecast_ellipse.TRUTH
    _, jacobian = forecast_ellipse.magnitudes(theta)
    for i, step in enumerate(1e-5 * np.diag(np.abs(theta))):
        ahead, behind = (forecast_ellipse.magnitudes(theta + h)[0] for h in (step, -step))
        slope = (ahead - behind) / (2 * step[i])
        np.testing.assert_allclose(jacobian[:, i], slope, rtol=0, atol=1e-8)


def test_d4_the_forecast_is_what_fits_of_simulated_surveys_scatter_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surveys, picture = 1000, tmp_path / "picture.png"
    told = forecast_ellipse.main(str(picture), surveys=surveys)
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert capsys.readouterr().out.count("of the fits are within") == 3
    scatter = told["fits"].std(axis=0) / told["marginalised"]
    # A standard deviation has the relative standard error √(1 / 2n); w bends the fits by some per
    # cent of it more.
    np.testing.assert_allclose(scatter, 1, atol=5 / np.sqrt(2 * surveys))
    inside = forecast_ellipse.inside(
        ff.marginalize(told["F"], [0, 1, 2], prior=forecast_ellipse.CALIBRATED),
        (told["fits"] - forecast_ellipse.TRUTH)[:, :3],
    )
    expected = stats.chi2(3).cdf(forecast_ellipse.RADII)
    error = 5 * np.sqrt(expected * (1 - expected) / surveys)
    assert (np.abs(inside - expected) < error).all()
    with pytest.raises(ff.NotPositiveDefiniteError, match="at parameter 3"):
        ff.cramer_rao_bound(told["F"])  # H₀ and M shift all magnitudes alike
