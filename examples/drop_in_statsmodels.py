"""statsmodels, drop-in: clustered, robust and OPG covariances of any likelihood model.

python examples/drop_in_statsmodels.py [picture.png]: fits a logit with statsmodels and gets its
covariances, clustered by group, both ways.
"""

import sys
from typing import Any, Literal

import numpy as np
import statsmodels.api as sm
from numpy.typing import NDArray
from statsmodels.stats.sandwich_covariance import cov_cluster, cov_white_simple

import fastfisher as ff
from side_by_side import in_turn, show

Array = NDArray[np.float64]


def covariance(
    results: Any,
    *,
    clusters: NDArray[np.int64] | None = None,
    correction: Literal["none", "CR1"] = "none",
) -> Array:
    """Return the sandwich covariance of a fitted likelihood model of statsmodels.

    A⁻¹ M A⁻¹, A the observed information (the Hessian, also where GLM scores by the expected one)
    and M the outer products of scores, summed over samples or clusters. For GLM, discrete and
    count models; not for OLS and its kin, which have no scores of samples.
    """
    model = results.model
    if not hasattr(model, "score_obs"):
        raise TypeError(f"results: expected a model with score_obs, got {type(model).__name__}.")
    information, scores = -model.hessian(results.params), model.score_obs(results.params)
    V: Array = ff.sandwich_covariance(information, scores, clusters=clusters, correction=correction)
    return V


def opg(results: Any) -> Array:
    """Return the outer-product-of-gradients (BHHH) covariance, which statsmodels has not."""
    V: Array = ff.opg_covariance(results.model.score_obs(results.params))
    return V


def data(samples: int, params: int, groups: int) -> tuple[Array, Array, NDArray[np.int64]]:
    """A logit model whose groups share an error."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((samples, params))
    X[:, 0] = 1
    group = rng.integers(groups, size=samples)
    eta = X @ np.full(params, 0.1) + 0.5 * rng.standard_normal(groups)[group]
    return X, (rng.random(samples) < 1 / (1 + np.exp(-eta))).astype(float), group


def main(
    path: str = "drop_in_statsmodels.png",
    *,
    samples: int = 200_000,
    params: int = 40,
    rounds: int = 3,
) -> float:
    """Compare, print, draw; return the largest relative difference of the standard errors."""
    X, y, group = data(samples, params, groups=500)
    model = sm.Logit(y, X)
    results = model.fit(disp=0)

    def errors(V: Array) -> Array:
        return np.sqrt(np.diag(V))

    clustered, (theirs, ours) = in_turn(
        lambda: errors(cov_cluster(results, group)),
        lambda: errors(covariance(results, clusters=group, correction="CR1")),
        rounds=rounds,
    )
    difference = float(np.abs(ours / theirs - 1).max())
    white, (theirs, ours) = in_turn(
        lambda: errors(cov_white_simple(results, use_correction=False)),
        lambda: errors(covariance(results)),
        rounds=rounds,
    )
    difference = max(difference, float(np.abs(ours / theirs - 1).max()))
    whole, _ = in_turn(
        lambda: model.fit(disp=0, cov_type="cluster", cov_kwds={"groups": group}),
        lambda: covariance(model.fit(disp=0), clusters=group, correction="CR1"),
        rounds=rounds,
    )
    print(f"{samples} samples, {params} parameters; standard errors differ by {difference:.0e}")
    print(f"OPG standard errors are {errors(opg(results)).mean():.2e} on average")
    seconds = {
        "clustered covariance": clustered,
        "robust covariance": white,
        "fit and clustered": whole,
    }
    show(seconds, "statsmodels", path)
    return difference


if __name__ == "__main__":
    main(*sys.argv[1:2])
