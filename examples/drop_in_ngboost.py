"""NGBoost, drop-in: natural gradients in one batch, unharmed by a singular metric.

python examples/drop_in_ngboost.py [picture.png]: boosts a three-dimensional normal distribution
with NGBoost as it is and with the drop-in, and compares predictions, the stage replaced and the
whole fit.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from ngboost import NGBRegressor
from ngboost.distns import MultivariateNormal
from numpy.typing import NDArray

import fastfisher as ff
from side_by_side import in_turn, show

Array = NDArray[np.float64]


class BatchedNaturalGradient:
    """Put in front of a scoring rule of NGBoost: solves for every sample at once.

    NGBoost calls ``np.linalg.solve`` on the whole batch and, where a single metric is singular,
    starts again with a Python loop over the samples. Here each sample has its own outcome: a
    singular one gets the pseudo-inverse, as in NGBoost, and the others do not notice.
    """

    def _natural_gradient(self, grad: Array, metric: Array) -> Array:
        directions: Array = ff.batch.solve(metric, grad, on_failure="pinv").value
        return directions


def with_batches(Distribution: Any) -> Any:
    """Return a distribution of NGBoost, its natural gradients computed in batches."""
    rules = [
        type(rule.__name__, (BatchedNaturalGradient, rule, rule.__bases__[-1]), {})
        for rule in Distribution.scores
    ]
    return type(Distribution.__name__, (Distribution,), {"scores": rules})


def data(samples: int) -> tuple[Array, Array]:
    """Three responses whose mean and spread follow the covariates."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((samples, 5))
    noise = rng.standard_normal((samples, 3)) * np.exp(0.4 * X[:, 1:2])
    return X, np.sin(X[:, :1]) + X[:, 2:3] * [1.0, -0.5, 0.2] + noise @ np.tri(3)


def main(
    path: str = "drop_in_ngboost.png", *, samples: int = 20_000, trees: int = 20, rounds: int = 3
) -> float:
    """Compare, print, draw; return the largest difference of the predictions."""
    X, Y = data(samples)
    theirs = MultivariateNormal(3)
    ours = with_batches(theirs)

    def fitted(distribution: Any) -> Any:
        model = NGBRegressor(distribution, n_estimators=trees, verbose=False, random_state=0)
        return model.fit(X, Y)

    whole, models = in_turn(lambda: fitted(theirs), lambda: fitted(ours), rounds=rounds)
    difference = float(np.abs(models[0].predict(X) - models[1].predict(X)).max())

    parameters = models[0].pred_param(X).T
    rules = [model.Manifold(parameters) for model in models]
    metric, gradient = rules[0].metric(), rules[0].d_score(Y)

    def directions(rule: Any) -> Callable[[], Array]:
        return lambda: rule._natural_gradient(gradient, metric)

    stage, _ = in_turn(*map(directions, rules), rounds=rounds)
    metric[samples // 2] = np.ones((9, 9))  # singular
    singular, _ = in_turn(*map(directions, rules), rounds=rounds)
    print(f"{samples} samples, 9 parameters each; predictions differ by {difference:.0e}")
    seconds = {
        "natural gradients": stage,
        "…, one metric singular": singular,
        f"fit, {trees} trees per parameter": whole,
    }
    show(seconds, "NGBoost", path)
    return difference


if __name__ == "__main__":
    main(*sys.argv[1:2])
