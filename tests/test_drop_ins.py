"""The drop-ins: the same answers as the packages whose stage they replace."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastfisher as ff

PNG = b"\x89PNG\r\n\x1a\n"


def drawn(path: Path) -> bool:
    return path.read_bytes().startswith(PNG)


def test_statsmodels_covariances(tmp_path: Path) -> None:
    import drop_in_statsmodels as drop_in

    path = tmp_path / "picture.png"
    assert (
        drop_in.main(str(path), samples=3000, params=6, rounds=1) < 1e-10
    )  # κ(A) n ε is about 1e-11
    assert drawn(path)


def models_of_statsmodels() -> Iterator[Any]:
    """Yield models whose scale is 1 or not, whose link is canonical or not."""
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    X = sm.add_constant(rng.standard_normal((300, 3)))
    mean = np.exp(X @ [0.3, 0.1, -0.2, 0.15])
    y = 3 * rng.standard_normal(300) + mean
    families, links = sm.families, sm.families.links
    yield sm.GLM(y, X)
    yield sm.GLM(mean * rng.gamma(2, 0.5, 300), X, family=families.Gamma(links.Log()))
    yield sm.GLM((y > 0).astype(float), X, family=families.Binomial(links.Probit()))
    yield sm.Poisson(rng.poisson(mean), X)
    yield sm.MNLogit(rng.integers(0, 3, 300), X)


def test_statsmodels_errors_of_other_models() -> None:
    import drop_in_statsmodels as drop_in

    for model in models_of_statsmodels():
        theirs = model.fit(disp=0, cov_type="HC0")
        errors = np.sqrt(np.diag(drop_in.covariance(theirs)))
        np.testing.assert_allclose(errors, np.ravel(theirs.bse, order="F"), rtol=1e-6)


def test_statsmodels_models_without_scores_are_refused() -> None:
    import statsmodels.api as sm

    import drop_in_statsmodels as drop_in

    results = sm.OLS(np.arange(5.0) ** 2, np.vander(np.arange(5.0), 2)).fit()
    with pytest.raises(TypeError, match="results: expected a model with score_obs, got OLS"):
        drop_in.covariance(results)


def test_scikit_learn_coefficients(tmp_path: Path) -> None:
    import drop_in_sklearn as drop_in

    path = tmp_path / "picture.png"
    # Newton's method stops where the decrement is below 1e-12: half as many digits of β at least.
    assert drop_in.main(str(path), samples=3000, features=7, rounds=1) < 1e-6
    assert drawn(path)


def test_scikit_learn_estimator_with_weights_labels_and_no_intercept() -> None:
    from sklearn.linear_model import LogisticRegression

    import drop_in_sklearn as drop_in

    X, y = drop_in.data(500, 4)
    labels, weights = np.array(["no", "yes"])[y], np.random.default_rng(1).random(500)
    for intercept in (True, False):
        keywords: dict[str, Any] = {"C": 0.3, "fit_intercept": intercept, "tol": 1e-9}
        ours = drop_in.FisherScoringRegression(**keywords).fit(X, labels, weights)
        theirs = LogisticRegression(solver="newton-cholesky", **keywords).fit(X, labels, weights)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-8)
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=0, atol=1e-8)
        assert (ours.predict(X) == theirs.predict(X)).all()
    with pytest.raises(ValueError, match="two classes, got 3"):
        ours.fit(X, np.arange(500.0) % 3)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"C": np.inf}, "C: expected a finite number, got inf"),
        ({"class_weight": "balanced"}, "class_weight: expected None, got 'balanced'"),
        ({"l1_ratio": 0.5}, "l1_ratio: expected 0, got 0.5"),
        ({"penalty": "l1"}, "penalty: expected 'l2', got 'l1'"),
    ],
)
def test_scikit_learn_estimator_refuses_what_it_cannot_do(
    asked: dict[str, Any], message: str
) -> None:
    import drop_in_sklearn as drop_in

    with pytest.raises(ValueError, match=message):
        drop_in.FisherScoringRegression(**asked).fit(*drop_in.data(50, 2))


def test_scikit_learn_estimator_warns_where_it_has_not_converged() -> None:
    from sklearn.exceptions import ConvergenceWarning

    import drop_in_sklearn as drop_in

    with pytest.warns(ConvergenceWarning):
        model = drop_in.FisherScoringRegression(max_iter=1).fit(*drop_in.data(50, 2))
    assert model.n_iter_ == [1]


def test_scipy_in_whitened_coordinates(tmp_path: Path) -> None:
    import drop_in_scipy as drop_in

    path = tmp_path / "picture.png"
    plain, scaled, whitened = drop_in.main(str(path), samples=400, params=8, rounds=1)
    assert whitened < scaled < plain
    assert drawn(path)
    regression = drop_in.PoissonRegression(*drop_in.data(400, 8))
    root = regression.fisher(np.zeros(8)).apply_power(np.eye(8), -0.5)
    found = drop_in.minimize_in(root, regression, np.zeros(8), options={"gtol": 1e-9, "ftol": 0})
    loss, gradient = regression(found.x)
    assert loss == found.fun
    # gtol holds in z: ∇θ = F^(1/2) ∇z.
    assert np.abs(root @ gradient).max() < 1e-8
    # jac and hess_inv are of θ too: the one to rounding of ∇z, the other as far as L-BFGS has it.
    scale = np.linalg.cond(root) * np.abs(np.linalg.inv(root)).max()
    np.testing.assert_allclose(found.jac, gradient, rtol=0, atol=1e-14 * scale)
    exact = np.linalg.inv(regression.fisher(found.x).to_dense())
    ratio = np.diag(found.hess_inv) / np.diag(exact)
    assert ratio.min() > 0.2
    assert ratio.max() < 5


def test_ngboost_natural_gradients(tmp_path: Path) -> None:
    pytest.importorskip("ngboost", reason="NGBoost is not installed")
    import drop_in_ngboost as drop_in

    path = tmp_path / "picture.png"
    # Trees split at the same places unless two splits tie to rounding.
    assert drop_in.main(str(path), samples=400, trees=3, rounds=1) < 1e-8
    assert drawn(path)


def test_ngboost_solves_around_a_singular_metric() -> None:
    pytest.importorskip("ngboost", reason="NGBoost is not installed")
    from ngboost.distns import Normal
    from ngboost.scores import LogScore

    import drop_in_ngboost as drop_in

    rule = drop_in.with_batches(Normal).implementation(LogScore)
    rng = np.random.default_rng(0)
    S = rng.standard_normal((50, 9, 4))
    metric, gradient = ff.batch.empirical_fisher(S), rng.standard_normal((50, 4))
    metric[7] = np.ones((4, 4))
    found = rule._natural_gradient(rule, gradient, metric)
    np.testing.assert_allclose(found[7], gradient[7].sum() / 16, rtol=1e-12)
    others = np.arange(50) != 7
    expected = np.linalg.solve(metric[others], gradient[others, :, None])[..., 0]
    np.testing.assert_allclose(found[others], expected, rtol=1e-9)
