"""D6: leverages, effective dimension, powers and eigenpairs, beside packages and brute force."""

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import linalg
from sklearn.datasets import load_diabetes, load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

import fastfisher as ff
import oracle
import representations

CASES: dict[str, Any] = {name: rest for name, *rest in representations.cases()}

# Every representation that can hold all of F, made of rows; p parameters.
WHOLE: dict[str, Any] = {
    "dense": ff.DenseFisher.from_scores,
    "score": ff.ScoreFisher,
    "root": ff.SquareRootFisher.from_scores,
    "low-rank": lambda S, **k: ff.LowRankFisher.from_scores(S, min(S.shape), **k),
    "blocks": lambda S, **k: ff.BlockDiagonalFisher.from_scores(S, [S.shape[1]], **k),
    "tridiagonal": lambda S, **k: ff.BlockDiagonalFisher.from_scores(
        S, [1, S.shape[1] - 1], tridiagonal=True, **k
    ),
    "layer": lambda S, **k: ff.LayerFisher([(S, np.ones((len(S), 1)))], **k),
}
whole = pytest.mark.parametrize("kind", WHOLE)


def damped(matrix: np.ndarray, damping: float) -> np.ndarray:
    return matrix + damping * np.eye(len(matrix))


# ---- leverages ----
@whole
@pytest.mark.parametrize("data", ["stackloss", "scotland", "fair"])
def test_d6_leverages_are_the_diagonal_of_the_hat_matrix(kind: str, data: str) -> None:
    """Of ordinary least squares: the scores are residual · x, and the hat matrix knows x alone."""
    loaded = getattr(sm.datasets, data).load()
    X = sm.add_constant(np.asarray(loaded.exog, float))[:300]
    X = X / np.linalg.norm(X, axis=0)  # hᵢ does not know the units; Cholesky's digits do
    y = np.asarray(loaded.endog, float)[: len(X)]
    expected = sm.OLS(y, X).fit().get_influence().hat_matrix_diag
    for reduction in ("mean", "sum"):
        F = WHOLE[kind](X, reduction=reduction)
        found = F.leverage(X)
        # eps · κ of XᵀX for each of the p terms.
        error = 10 * X.shape[1] * np.finfo(float).eps * np.linalg.cond(X) ** 2
        np.testing.assert_allclose(found, expected, rtol=0, atol=error)
        assert found.sum() == pytest.approx(X.shape[1], rel=1e-6)


def test_d6_leverages_of_a_weighted_fit() -> None:
    """Logistic regression: statsmodels' hat matrix W½ X (XᵀWX)⁻¹ Xᵀ W½."""
    data = sm.datasets.spector.load()
    X = sm.add_constant(np.asarray(data.exog, float))
    fit = sm.GLM(np.asarray(data.endog, float), X, family=sm.families.Binomial()).fit()
    expected = fit.get_influence(observed=False).hat_matrix_diag
    weights = fit.fittedvalues * (1 - fit.fittedvalues)
    for make in (ff.DenseFisher.from_scores, ff.SquareRootFisher.from_scores):
        F = make(X, weights=weights, reduction="sum")
        np.testing.assert_allclose(weights * F.leverage(X), expected, rtol=0, atol=1e-10)


@whole
def test_d6_leverages_tell_what_leaving_a_sample_out_does(kind: str) -> None:
    """Brute force: ridge regression refitted without each sample misses it by eᵢ / (1 − hᵢ)."""
    X, y = load_diabetes(return_X_y=True)
    X, y, ridge = X[:40], y[:40] - y[:40].mean(), 0.3
    F = WHOLE[kind](X, reduction="sum")
    residuals = y - X @ F.solve(X.T @ y, damping=ridge)
    predicted = residuals / (1 - F.leverage(X, ridge))
    for i in range(len(X)):
        kept = np.arange(len(X)) != i
        refitted = np.linalg.solve(damped(X[kept].T @ X[kept], ridge), X[kept].T @ y[kept])
        assert predicted[i] == pytest.approx(y[i] - X[i] @ refitted, rel=1e-9)


# ---- effective dimension ----
@whole
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_d6_effective_dimension_is_the_degrees_of_freedom(kind: str, ridge: float) -> None:
    """Σ ∂ŷᵢ/∂yᵢ of scikit-learn's ridge regression, fitted to each unit vector."""
    X = load_diabetes().data[:60]
    hat = Ridge(ridge, fit_intercept=False, solver="svd").fit(X, np.eye(len(X))).predict(X)
    F = WHOLE[kind](X, reduction="sum")
    assert F.effective_dimension(ridge) == pytest.approx(np.trace(hat), rel=1e-9)
    np.testing.assert_allclose(F.leverage(X, ridge), np.diag(hat), rtol=0, atol=1e-11 / ridge)


@pytest.mark.parametrize("name", CASES)
def test_d6_effective_dimension_falls_from_the_rank_to_zero(name: str) -> None:
    F, matrix, _ = CASES[name]
    values, _ = F.eigsh(len(matrix))
    rank = int((values > 1e-10 * values[0]).sum())
    dampings = values[0] * 10.0 ** np.arange(-7, 4)
    found = np.array([F.effective_dimension(damping) for damping in dampings])
    assert (np.diff(found) < 0).all()
    assert rank - 0.1 < found[0] <= rank * (1 + 1e-6)
    assert 0 < found[-1] < 1e-3 * len(matrix)
    expected = [(values / (values + damping)).sum() for damping in dampings]
    # λ = 1e-7 ‖F‖ leaves that many digits fewer where F is singular.
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# ---- powers ----
@pytest.mark.parametrize("name", CASES)
def test_d6_half_powers_twice_are_whole(name: str) -> None:
    F, matrix, _ = CASES[name]
    v = oracle.draw(len(matrix), 3)
    kappa = np.linalg.cond(damped(matrix, 0.3))
    root = F.apply_power(v, 0.5, damping=0.3)
    oracle.close(root, linalg.sqrtm(damped(matrix, 0.3)) @ v, float, 100 * kappa)
    oracle.close(F.apply_power(root, 0.5, damping=0.3), F @ v + 0.3 * v, float, 100 * kappa)
    inverse_root = F.apply_power(v, -0.5, damping=0.3)
    oracle.close(F.apply_power(root, -0.5, damping=0.3), v, float, 100 * kappa)
    twice = F.apply_power(inverse_root, -0.5, damping=0.3)
    oracle.close(twice, F.solve(v, damping=0.3), float, 100 * kappa)


@whole
def test_d6_the_inverse_root_whitens(kind: str) -> None:
    X = load_wine().data
    X = X / X.std(axis=0)
    F = WHOLE[kind](X)
    z = F.apply_power(X.T, -0.5)
    kappa = np.linalg.cond(X) ** 2
    oracle.close(z @ z.T / len(X), np.eye(X.shape[1]), float, 100 * kappa)


# ---- eigenpairs ----
@pytest.mark.parametrize("kind", [k for k in WHOLE if k != "layer"])
def test_d6_eigenpairs_of_a_centred_fisher_are_principal_components(kind: str) -> None:
    X = load_wine().data
    X = X / X.std(axis=0)
    pca = PCA(4, svd_solver="full").fit(X)
    values, vectors = WHOLE[kind](X, center=True).eigsh(4)
    np.testing.assert_allclose(values * len(X) / (len(X) - 1), pca.explained_variance_, rtol=1e-11)
    gap = np.abs(np.diff(pca.explained_variance_)).min()
    np.testing.assert_allclose(
        np.abs(np.sum(pca.components_.T * vectors, axis=0)), 1, rtol=0, atol=1e-13 * 5 / gap
    )
