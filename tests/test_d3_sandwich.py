"""D3: OPG, sandwich, clustered and HAC covariances equal a statistics package's, on its data."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.base.model import GenericLikelihoodModel
from statsmodels.stats import sandwich_covariance as package

import fastfisher as ff
import oracle

# The row promises 1e-10 of the largest entry; covariances of parameters of different scales are
# compared as correlations, so that no parameter's digits are lost.
TOLERANCE = 1e-10


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        actual / np.outer(scale, scale), expected / np.outer(scale, scale), rtol=0, atol=tolerance
    )


class Fit:
    """A model of the package at its estimate, as scores and information."""

    def __init__(self, model: Any, **options: Any) -> None:
        self.model, self.options = model, options
        self.estimate = model.fit(**options)
        theta = self.estimate.params
        if hasattr(model, "score_obs"):
            self.scores = model.score_obs(theta)
            self.information = -model.hessian(theta)
        else:  # least squares, where σ² cancels; by QR, as the package has it by its pinv
            self.scores = model.exog * self.estimate.resid[:, None]
            self.information = ff.SquareRootFisher.from_scores(model.exog, reduction="sum")

    def published(self, kind: str, **keywords: Any) -> np.ndarray:
        how = {"cov_kwds": keywords} if keywords else {}
        answer: np.ndarray = self.model.fit(cov_type=kind, **self.options, **how).cov_params()
        return answer


def grunfeld() -> tuple[Fit, np.ndarray, np.ndarray]:
    """Return eleven firms over twenty years: investment by value and capital, least squares."""
    data = sm.datasets.grunfeld.load_pandas().data
    fit = Fit(
        sm.OLS(data.invest.to_numpy(), sm.add_constant(data[["value", "capital"]].to_numpy()))
    )
    return fit, data.firm.to_numpy().astype(str), data.year.to_numpy()


def doctor_visits() -> tuple[Fit, np.ndarray, np.ndarray]:
    """Return Poisson regression of visits to a doctor; labels are made up."""
    data = sm.datasets.randhie.load_pandas().data[::10]
    X = sm.add_constant(data.drop(columns="mdvis").to_numpy())
    fit = Fit(sm.Poisson(data.mdvis.to_numpy(), X), disp=0, tol=1e-14, maxiter=100)
    rng = np.random.default_rng(0)
    return fit, rng.integers(0, 40, len(X)), rng.integers(0, 25, len(X))


def schools() -> tuple[Fit, np.ndarray, np.ndarray]:
    """Return a binomial GLM with its canonical link, of counts of success and failure."""
    data = sm.datasets.star98.load()
    X = sm.add_constant(np.asarray(data.exog)[:, :8])
    fit = Fit(sm.GLM(np.asarray(data.endog), X, sm.families.Binomial()), tol=1e-14)
    rng = np.random.default_rng(1)
    return fit, rng.integers(0, 30, len(X)), rng.choice(["a", "b", "c", "d", "e", "f"], len(X))


def macro() -> tuple[Fit, None, None]:
    """Return quarterly consumption by income and investment, a series."""
    data = sm.datasets.macrodata.load_pandas().data
    X = sm.add_constant(data[["realgdp", "realinv", "unemp"]].to_numpy())
    return Fit(sm.OLS(data.realcons.to_numpy(), X)), None, None


def sunspots() -> tuple[Fit, None, None]:
    """Return yearly counts by the count of the year before, as Poisson regression."""
    y = np.round(sm.datasets.sunspots.load_pandas().data.SUNACTIVITY.to_numpy())
    X = np.column_stack([np.ones(len(y) - 1), np.log1p(y[:-1])])
    return Fit(sm.Poisson(y[1:], X), disp=0, tol=1e-14), None, None


PANELS = [grunfeld, doctor_visits, schools]
SERIES = [macro, sunspots]


@pytest.mark.parametrize("problem", [*PANELS, *SERIES])
def test_d3_independent_samples(
    problem: Callable[[], tuple[Fit, np.ndarray | None, np.ndarray | None]],
) -> None:
    fit, _, _ = problem()
    close(ff.sandwich_covariance(fit.information, fit.scores), fit.published("HC0"))
    corrected = ff.sandwich_covariance(fit.information, fit.scores, correction="CR1")
    if isinstance(fit.model, sm.OLS):
        close(corrected, fit.published("HC1"))
    # Of other models the package's "HC1" is its HC0; the function beneath has the correction.
    close(corrected, package.cov_white_simple(fit.estimate, use_correction=True))


@pytest.mark.parametrize("problem", PANELS)
def test_d3_clusters(problem: Callable[[], tuple[Fit, np.ndarray, np.ndarray]]) -> None:
    fit, first, second = problem()
    for labels in (first, second):
        groups = np.unique(labels, return_inverse=True)[1]
        for correction in ("none", "CR1"):
            published = fit.published("cluster", groups=groups, use_correction=correction == "CR1")
            actual = ff.sandwich_covariance(
                fit.information, fit.scores, clusters=labels, correction=correction
            )
            close(actual, published)


@pytest.mark.parametrize("problem", PANELS)
def test_d3_two_ways_of_clustering(
    problem: Callable[[], tuple[Fit, np.ndarray, np.ndarray]],
) -> None:
    fit, first, second = problem()
    groups = np.column_stack([np.unique(x, return_inverse=True)[1] for x in (first, second)])
    for correction in ("none", "CR1"):
        published = fit.published("cluster", groups=groups, use_correction=correction == "CR1")
        for clusters in ((first, second), groups):
            actual = ff.sandwich_covariance(
                fit.information, fit.scores, clusters=clusters, correction=correction
            )
            # The terms of the difference are up to some times larger than what is left.
            close(actual, published, 10 * TOLERANCE)


@pytest.mark.parametrize("kernel", ["bartlett", "uniform"])
@pytest.mark.parametrize("lags", [0, 1, 4, 11])
@pytest.mark.parametrize("problem", SERIES)
def test_d3_series(problem: Callable[[], tuple[Fit, None, None]], lags: int, kernel: str) -> None:
    fit, _, _ = problem()
    for correction in ("none", "CR1"):
        published = fit.published(
            "HAC", maxlags=lags, kernel=kernel, use_correction=correction == "CR1"
        )
        actual = ff.sandwich_covariance(
            fit.information, fit.scores, lags=lags, kernel=kernel, correction=correction
        )
        close(actual, published)


def exact_inverse(A: np.ndarray) -> np.ndarray:
    """Return the inverse of a matrix of fractions, by Gauss and Jordan."""
    n = len(A)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(n))] for i, row in enumerate(A)]
    for i in range(n):
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for k in set(range(n)) - {i}:
            rows[k] = [x - rows[k][i] * y for x, y in zip(rows[k], rows[i], strict=True)]
    return np.array([row[n:] for row in rows])


def test_d3_longley_in_exact_arithmetic() -> None:
    """κ(X) = 5e9, and 4e4 of columns of one length, which is what QR's error grows with."""
    data = sm.datasets.longley.load()
    X = sm.add_constant(np.asarray(data.exog))
    S = X * np.asarray(sm.OLS(np.asarray(data.endog), X).fit().resid)[:, None]
    fractions = np.vectorize(Fraction, otypes=[object])
    inverse = exact_inverse(fractions(X).T @ fractions(X))
    M = fractions(S).T @ fractions(S)
    information = ff.SquareRootFisher.from_scores(X, reduction="sum")
    bound = 4e4 * 16 * np.finfo(float).eps
    close(ff.sandwich_covariance(information, S), (inverse @ M @ inverse).astype(float), bound)
    close(ff.opg_covariance(X, solver=ff.QR()), inverse.astype(float), bound)


class Probit(GenericLikelihoodModel):  # type: ignore[misc]
    """Spector's data again, by the package's class for likelihoods of one's own."""

    def score_obs(self, params: np.ndarray) -> np.ndarray:
        answer: np.ndarray = sm.Probit(self.endog, self.exog).score_obs(params)
        return answer

    def nloglikeobs(self, params: np.ndarray) -> np.ndarray:
        answer: np.ndarray = -sm.Probit(self.endog, self.exog).loglikeobs(params)
        return answer

    def hessian(self, params: np.ndarray) -> np.ndarray:
        answer: np.ndarray = sm.Probit(self.endog, self.exog).hessian(params)
        return answer


def test_d3_outer_product_of_gradients() -> None:
    data = sm.datasets.spector.load()
    X, y = sm.add_constant(np.asarray(data.exog)), np.asarray(data.endog)
    start = sm.Probit(y, X).fit(disp=0, tol=1e-14).params
    model = Probit(y, X)
    fit = model.fit(start_params=start, method="newton", disp=0)
    S = model.score_obs(fit.params)
    close(ff.opg_covariance(S), fit.covjac)
    close(ff.opg_covariance(S, solver=ff.QR()), fit.covjac)
    close(ff.sandwich_covariance(-model.hessian(fit.params), S), fit.covjhj)


@pytest.mark.parametrize("lags", [0, 1, 2, 3, 8, 29])
@pytest.mark.parametrize("kernel", ["bartlett", "uniform", "parzen"])
def test_d3_kernels_are_sums_over_lags(kernel: str, lags: int) -> None:
    S = oracle.draw(30, 3)
    z = np.arange(30) / (lags + 1)
    w = {
        "bartlett": np.maximum(1 - z, 0),
        "uniform": np.where(z < 1, 1.0, 0.0),
        "parzen": np.where(z <= 0.5, 1 - 6 * z**2 + 6 * z**3, 2 * np.maximum(1 - z, 0) ** 3),
    }[kernel]
    apart = np.abs(np.subtract.outer(np.arange(30), np.arange(30)))
    expected = S.T @ w[apart] @ S
    actual = ff.score_covariance(S, lags=lags, kernel=kernel)
    oracle.close(actual, expected, np.float64, 30, (S**2).sum() * (lags + 1))


def test_d3_pairs_of_samples_that_share_a_label() -> None:
    """Inclusion and exclusion counts each pair that shares either label once."""
    S = oracle.draw(200, 4)
    rng = oracle.rng(7)
    first, second = rng.integers(0, 12, 200), rng.integers(0, 9, 200)
    related = (first[:, None] == first) | (second[:, None] == second)
    expected = S.T @ related @ S
    oracle.close(
        ff.score_covariance(S, clusters=(first, second)), expected, np.float64, 200, (S**2).sum()
    )


@pytest.mark.parametrize("shape", ["many", "few", "one large", "all different", "over 2^16"])
def test_d3_clusters_across_blocks(shape: str) -> None:
    """More rows than are made at a time, so that clusters begin and end inside of blocks."""
    S = oracle.draw(100_000 if shape == "over 2^16" else 40_000, 3)
    rng = oracle.rng(8)
    labels = {
        "many": rng.integers(0, 5000, 40_000),
        "few": rng.integers(0, 2, 40_000),
        "one large": np.where(np.arange(40_000) < 39_000, 0, np.arange(40_000)),
        "all different": rng.permutation(40_000),
        "over 2^16": rng.integers(0, 300_000, 100_000),  # 85 000 of them are there
    }[shape]
    sums = np.zeros((labels.max() + 1, 3))
    np.add.at(sums, labels, S)
    expected = sums.T @ sums
    for dtype in (np.float64, np.float32):
        actual = ff.score_covariance(S.astype(dtype), clusters=labels)
        assert actual.dtype == np.float64
        exact = expected
        if dtype == np.float32:
            sums[:] = 0
            np.add.at(sums, labels, S.astype(dtype).astype(np.float64))
            exact = sums.T @ sums
        oracle.close(actual, exact, np.float64, 1000)


@pytest.mark.parametrize("lags", [0, 1, 6, 700, 30_000])
def test_d3_windows_across_blocks(lags: int) -> None:
    S = oracle.draw(40_000, 2)
    padded = np.concatenate([np.zeros((lags, 2)), S, np.zeros((lags, 2))])
    sums = np.cumsum(np.concatenate([np.zeros((1, 2)), padded]), axis=0)
    windows = sums[lags + 1 :] - sums[: -lags - 1]
    expected = windows.T @ windows / (lags + 1)
    oracle.close(ff.score_covariance(S, lags=lags), expected, np.float64, 40_000)
