"""D2: gᵀF⁻¹g has the level of χ², and is the LM statistic that a statistics package reports."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats import diagnostic

import fastfisher as ff

# Rounding of two least squares of well-conditioned columns, in the package's order and in ours.
RTOL = 1e-10


def within_binomial_error(p_values: np.ndarray, level: float) -> None:
    """Assert that as many tests reject as their level says, to five standard errors."""
    error = 5 * np.sqrt(level * (1 - level) / len(p_values))
    assert abs((p_values < level).mean() - level) < error


def test_d2_level_over_many_nulls() -> None:
    """Logistic regression whose null has a constant alone: its estimate is the mean."""
    x = np.random.default_rng(0).standard_normal((200, 2))
    X = np.column_stack([np.ones(200), x])
    y = np.random.default_rng(1).random((10_000, 200)) < 0.4
    mean = y.mean(axis=1)
    scores = (y - mean[:, None])[:, :, None] * X
    information = (mean * (1 - mean))[:, None, None] * (X.T @ X)
    total = scores.sum(axis=1)
    statistics = np.einsum("bi,bi->b", total, ff.batch.solve(information, total).value)
    for level in (0.1, 0.05, 0.01):
        within_binomial_error(ff.ChiSquaredTest(statistics, 2).p_value, level)
    for one in range(0, 10_000, 500):  # the same numbers, one test at a time
        for test in (
            ff.score_test(scores[one], information[one], df=2),
            ff.score_test(total[one], information[one], R=np.eye(3)[1:]),
        ):
            np.testing.assert_allclose(test.statistic, statistics[one], rtol=RTOL, atol=1e-12)
            assert test.df == 2


@pytest.mark.parametrize("robust", [False, True])
def test_d2_level_of_many_candidates_against_one_model(robust: bool) -> None:
    """Of one y: the variance of its residuals is estimated, so that levels hold given y as well."""
    rng = np.random.default_rng(2)
    X = np.column_stack([np.ones(400), rng.standard_normal((400, 2))])
    residuals = sm.OLS(X @ [1.0, 0.3, -0.2] + rng.standard_normal(400), X).fit().resid
    information = np.full(400, 1 / np.mean(residuals**2))
    candidates = rng.binomial(2, 0.3, (400, 10_000))
    tests = ff.score_tests(
        candidates, information * residuals, X, weights=information, robust=robust
    )
    for level in (0.1, 0.05, 0.01):
        within_binomial_error(tests.p_value, level)


def test_d2_robust_level_where_the_model_is_wrong() -> None:
    """Counts with three times the variance of a Poisson distribution, and more where x is large."""
    rng = np.random.default_rng(3)
    X = np.ones((500, 1))
    size = 1.0 + rng.exponential(size=500)
    y = rng.negative_binomial(2 / size, 1 / (1 + size))
    candidates = rng.standard_normal((500, 10_000)) * np.sqrt(size)[:, None]
    mu = y.mean()
    wrong = ff.score_tests(candidates, y - mu, X, weights=np.full(500, mu))
    right = ff.score_tests(candidates, y - mu, X, weights=np.full(500, mu), robust=True)
    assert (wrong.p_value < 0.05).mean() > 0.1
    within_binomial_error(right.p_value, 0.05)


def logit() -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
    """Return the restricted fit on Spector's data, and its omitted columns."""
    data = sm.datasets.spector.load()
    x, y = np.asarray(data.exog), np.asarray(data.endog)
    null = np.column_stack([np.ones(len(y)), x[:, 0]])
    return null, x[:, 1:], y, sm.GLM(y, null, sm.families.Binomial()).fit(tol=1e-14)


def poisson() -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
    """Return the same on the data of strikes by doctor visits."""
    data = sm.datasets.randhie.load()
    x, y = np.asarray(data.exog)[::20], np.asarray(data.endog)[::20]
    null = np.column_stack([np.ones(len(y)), x[:, :4]])
    return null, x[:, 4:7], y, sm.GLM(y, null, sm.families.Poisson()).fit(tol=1e-14)


@pytest.mark.parametrize("problem", [logit, poisson])
def test_d2_equals_the_package_for_omitted_variables(
    problem: Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray, Any]],
) -> None:
    null, extra, y, fit = problem()
    X, mu = np.column_stack([null, extra]), fit.fittedvalues
    variance = mu * (1 - mu) if problem is logit else mu
    scores, information = (y - mu)[:, None] * X, X.T @ (variance[:, None] * X)
    statistic, p_value = (float(np.squeeze(x)) for x in fit.score_test(exog_extra=extra))
    count = extra.shape[1]
    R = np.eye(X.shape[1])[-count:]
    for test in (
        ff.score_test(scores, information, df=count),
        ff.score_test(X.T @ (y - mu), information, df=count),
        ff.score_test(scores, information, R=R),
        ff.score_test(scores, ff.DenseFisher.from_scores(X, weights=variance), df=count),
    ):
        np.testing.assert_allclose(test.statistic, statistic, rtol=RTOL)
        np.testing.assert_allclose(test.p_value, p_value, rtol=200 * RTOL)
        assert test.df == count


@pytest.mark.parametrize("problem", [logit, poisson])
def test_d2_equals_the_package_for_the_robust_test(
    problem: Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray, Any]],
) -> None:
    """The package centres the scores and divides by n − 1."""
    null, extra, y, fit = problem()
    X, mu = np.column_stack([null, extra]), fit.fittedvalues
    variance = mu * (1 - mu) if problem is logit else mu
    scores, information = (y - mu)[:, None] * X, X.T @ (variance[:, None] * X)
    published, *_ = fit.score_test(exog_extra=extra, cov_type="HC0")
    covariance = ff.sandwich_covariance(information, scores - scores.mean(axis=0))
    covariance *= len(y) / (len(y) - 1)
    R = np.eye(X.shape[1])[-extra.shape[1] :]
    test = ff.score_test(scores, information, R=R, covariance=covariance)
    np.testing.assert_allclose(test.statistic, published, rtol=RTOL)


@pytest.mark.parametrize("problem", [logit, poisson])
def test_d2_many_tests_equal_the_package_one_by_one(
    problem: Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray, Any]],
) -> None:
    null, extra, y, fit = problem()
    mu = fit.fittedvalues
    variance = mu * (1 - mu) if problem is logit else mu
    tests = ff.score_tests(extra, y - mu, null, weights=variance)
    published = [fit.score_test(exog_extra=column[:, None]) for column in extra.T]
    np.testing.assert_allclose(tests.statistic, [float(s[0]) for s, *_ in published], rtol=RTOL)


def macro() -> tuple[np.ndarray, Any]:
    """Return a regression of the growth of consumption on that of income, and its residuals."""
    data = sm.datasets.macrodata.load_pandas().data
    growth = 100 * np.diff(np.log(data[["realcons", "realgdp", "realinv"]].to_numpy()), axis=0)
    X = np.column_stack([np.ones(len(growth)), growth[:, 1:]])
    return X, sm.OLS(growth[:, 0], X).fit()


@pytest.mark.filterwarnings("ignore:acorr_breusch_godfrey:FutureWarning")  # of a tuple's length
@pytest.mark.parametrize("lags", [1, 4])
def test_d2_equals_breusch_and_godfrey(lags: int) -> None:
    """Regression with autoregressive errors: the scores of a Gaussian with variance RSS / n."""
    X, fit = macro()
    e = fit.resid
    before = np.column_stack([np.concatenate([np.zeros(j), e[:-j]]) for j in range(1, lags + 1)])
    Z, variance = np.column_stack([X, before]), e @ e / len(e)
    published = diagnostic.acorr_breusch_godfrey(fit, nlags=lags)
    test = ff.score_test(e[:, None] * Z / variance, Z.T @ Z / variance, df=lags)
    np.testing.assert_allclose((test.statistic, test.p_value), published[:2], rtol=RTOL)


def test_d2_equals_breusch_and_pagan() -> None:
    """Variance σ² exp(zᵀγ): the scores by γ are ½ (e²/σ² − 1) z, their information ½ z zᵀ."""
    X, fit = macro()
    e = fit.resid
    ratio = e**2 / np.mean(e**2)
    published = diagnostic.het_breuschpagan(e, X, robust=False)
    test = ff.score_test(0.5 * (ratio - 1)[:, None] * X, 0.5 * X.T @ X, df=2)
    np.testing.assert_allclose((test.statistic, test.p_value), published[:2], rtol=RTOL)


def test_d2_outer_product_is_n_times_r_squared() -> None:
    """Of ones regressed on the scores (Davidson and MacKinnon), by the package's least squares."""
    null, extra, y, fit = logit()
    scores = (y - fit.fittedvalues)[:, None] * np.column_stack([null, extra])
    regression = sm.OLS(np.ones(len(y)), scores).fit()  # no constant: R² is uncentred
    test = ff.score_test(scores, df=2)
    np.testing.assert_allclose(test.statistic, len(y) * regression.rsquared, rtol=RTOL)
    alone = ff.score_tests(extra, y - fit.fittedvalues, null)
    for j in range(2):
        one = ff.score_test(scores[:, [0, 1, 2 + j]], df=1)
        np.testing.assert_allclose(alone.statistic[j], one.statistic, rtol=RTOL)


def test_d2_weights_are_copies() -> None:
    null, extra, y, fit = logit()
    scores = (y - fit.fittedvalues)[:, None] * np.column_stack([null, extra])
    weights = np.arange(len(y)) % 3
    copies = np.repeat(scores, weights, axis=0)
    test, expected = ff.score_test(scores, df=2, weights=weights), ff.score_test(copies, df=2)
    np.testing.assert_allclose(test.statistic, expected.statistic, rtol=RTOL)


def test_d2_an_estimate_that_is_not_quite_the_restricted_one() -> None:
    """With R the score by what was estimated need not be zero (Neyman's C(α)).

    A standard error away, gᵀF⁻¹g is off by 1 or so, that of the efficient score by O(1/√n).
    """
    rng = np.random.default_rng(4)
    X = np.column_stack([np.ones(40_000), rng.standard_normal((40_000, 2))])
    y = rng.random(40_000) < 1 / (1 + np.exp(-X @ [0.5, 0.3, 0.01]))
    fit = sm.Logit(y, X[:, :2]).fit(disp=0, tol=1e-14)

    def test(beta: np.ndarray, **restrictions: Any) -> float:
        mu = 1 / (1 + np.exp(-X[:, :2] @ beta))
        information = X.T @ ((mu * (1 - mu))[:, None] * X)
        return float(ff.score_test(X.T @ (y - mu), information, **restrictions).statistic)

    R = np.eye(3)[2]
    exact = test(fit.params, R=R)
    np.testing.assert_allclose(test(fit.params, df=1), exact, rtol=1e-8)
    away = fit.params + fit.bse * [1, -1]
    assert abs(test(away, R=R) - exact) < 0.02 * exact
    assert abs(test(away, df=1) - exact) > 1


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("form", ["all", "one", "several", "differences"])
def test_d2_wald_equals_the_package(form: str, robust: bool) -> None:
    null, extra, y, _ = logit()
    X = np.column_stack([null, extra])
    fit = sm.Logit(y, X).fit(disp=0, tol=1e-14, **({"cov_type": "HC0"} if robust else {}))
    cases: dict[str, tuple[Any, Any]] = {
        "all": (None, 0.0),
        "one": (np.eye(4)[2], 0.5),
        "several": (np.eye(4)[1:], 0.0),
        "differences": (np.array([[0, 1.0, -1, 0], [0, 0, 2, -0.1]]), np.array([1.0, -0.5])),
    }
    R, value = cases[form]
    matrix = np.eye(4) if R is None else np.atleast_2d(R)
    published = fit.wald_test(
        (matrix, np.broadcast_to(value, len(matrix))), use_f=False, scalar=True
    )
    information = -fit.model.hessian(fit.params)
    V = ff.sandwich_covariance(information, fit.model.score_obs(fit.params))
    known = {"covariance": V} if robust else {"fisher": information}
    test = ff.wald_test(fit.params, **known, R=R, value=value)
    np.testing.assert_allclose(test.statistic, published.statistic, rtol=RTOL)
    np.testing.assert_allclose(test.p_value, published.pvalue, rtol=100 * RTOL)
    assert test.df == len(matrix)
    if not robust:
        test = ff.wald_test(fit.params, covariance=fit.cov_params(), R=R, value=value)
        np.testing.assert_allclose(test.statistic, published.statistic, rtol=RTOL)


def test_d2_three_tests_agree_near_the_null() -> None:
    """Wald, score and likelihood ratio differ by a factor 1 + O(1/√n)."""
    rng = np.random.default_rng(5)
    X = np.column_stack([np.ones(20_000), rng.standard_normal((20_000, 2))])
    y = rng.random(20_000) < 1 / (1 + np.exp(-X @ [0.2, 0.02, -0.01]))
    free, null = (sm.Logit(y, Z).fit(disp=0, tol=1e-14) for Z in (X, X[:, :1]))
    ratio = ff.ChiSquaredTest(2 * (free.llf - null.llf), 2)
    mu = null.predict()
    score = ff.score_test((y - mu)[:, None] * X, df=2)
    wald = ff.wald_test(free.params, -free.model.hessian(free.params), R=np.eye(3)[1:])
    np.testing.assert_allclose([score.statistic, wald.statistic], ratio.statistic, rtol=0.05)


def test_d2_p_values() -> None:
    x = np.array([0.0, 0.5, 3.0, 80.0])
    np.testing.assert_allclose(ff.ChiSquaredTest(x, 3).p_value, stats.chi2.sf(x, 3), rtol=1e-13)
    assert isinstance(ff.ChiSquaredTest(1.0, 1).p_value, float)
