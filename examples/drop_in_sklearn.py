"""scikit-learn, drop-in: its logistic regression, fitted by Fisher scoring.

python examples/drop_in_sklearn.py [picture.png]: the same estimator, the same optimum, one method
replaced; beside scikit-learn's own solvers "newton-cholesky" and "lbfgs".
"""

import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import fastfisher as ff
from side_by_side import in_turn, show

Array = NDArray[np.float64]


class FisherScoringRegression(LogisticRegression):  # type: ignore[misc]
    """Binary logistic regression with an L2 penalty, as scikit-learn's, by Fisher scoring.

    Minimises C Σ log(1 + exp(−y xᵀβ)) + ½‖w‖², where the intercept goes without a penalty. For the
    logit the Fisher information is the Hessian, so each step is Newton's. C, tol, max_iter and
    fit_intercept are scikit-learn's; class_weight, L1 penalties and an infinite C are refused.
    """

    def _refuse(self, asked: Any, expected: str, got: Any) -> None:
        if asked:
            raise ValueError(f"{expected}, got {got!r}. Use LogisticRegression for that.")

    def fit(
        self, X: Array, y: Array, sample_weight: Array | None = None
    ) -> "FisherScoringRegression":
        """Fit to X (n, d) and two classes y (n,)."""
        self._refuse(not np.isfinite(self.C), "C: expected a finite number", self.C)
        self._refuse(
            self.class_weight is not None, "class_weight: expected None", self.class_weight
        )
        self._refuse(self.l1_ratio, "l1_ratio: expected 0", self.l1_ratio)
        old = self.penalty not in ("deprecated", "l2")
        self._refuse(old, "penalty: expected 'l2'", self.penalty)
        self.classes_, classes = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            raise ValueError(f"y: expected two classes, got {len(self.classes_)}.")
        X = np.asarray(X, float)
        rows = np.column_stack([X, np.ones(len(X))]) if self.fit_intercept else X
        weights = self.C * (np.ones(len(X)) if sample_weight is None else sample_weight)
        penalty = np.ones(rows.shape[1])
        penalty[X.shape[1] :] = 0

        def model(beta: Array) -> tuple[float, Array, ff.DenseFisher]:
            eta = rows @ beta
            small = np.exp(-np.abs(eta))
            mean = np.where(eta < 0, small, 1.0) / (1 + small)
            loss = weights @ (np.maximum(eta, 0) + np.log1p(small) - classes * eta)
            gradient = rows.T @ (weights * (mean - classes)) + penalty * beta
            F = ff.DenseFisher.from_scores(
                rows, weights=weights * mean * (1 - mean), reduction="sum"
            )
            return loss + penalty @ beta**2 / 2, gradient, F

        result = ff.natural_gradient_descent(
            model,
            np.zeros(rows.shape[1]),
            damping=penalty,
            tolerance=self.tol**2,
            max_iterations=self.max_iter,
        )
        if result.status is not ff.Status.SUCCESS:
            warnings.warn(result.message, ConvergenceWarning, stacklevel=2)
        d = X.shape[1]
        self.coef_ = result.theta[None, :d]
        self.intercept_ = result.theta[d:] if self.fit_intercept else np.zeros(1)
        self.n_iter_ = np.array([result.iterations])
        self.n_features_in_ = d
        return self


def data(samples: int, features: int) -> tuple[Array, Array]:
    """Two classes and correlated features."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((samples, features)) @ (np.eye(features) + 0.3 / features**0.5)
    eta = X @ rng.standard_normal(features) / features**0.5
    return X, (rng.random(samples) < 1 / (1 + np.exp(-eta))).astype(int)


def main(
    path: str = "drop_in_sklearn.png",
    *,
    samples: int = 300_000,
    features: int = 100,
    rounds: int = 3,
) -> float:
    """Compare, print, draw; return the largest difference of the coefficients."""
    X, y = data(samples, features)
    solvers = ("newton-cholesky", "lbfgs")
    models = [LogisticRegression(solver=solver, tol=1e-6) for solver in solvers]
    models.append(FisherScoringRegression(tol=1e-6))
    whole, _ = in_turn(*(lambda model=model: model.fit(X, y) for model in models), rounds=rounds)

    weights: Array = models[-1].predict_proba(X).prod(axis=1)

    def hessian() -> Array:  # as scikit-learn forms it
        return X.T @ (weights[:, None] * X)

    def fisher() -> Array:
        F: Array = ff.empirical_fisher(X, weights=weights, reduction="sum")
        return F

    stage, (theirs, ours) = in_turn(hessian, fisher, rounds=rounds)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())
    difference = float(np.abs(models[0].coef_ - models[-1].coef_).max())
    print(f"{samples} samples, {features} features; coefficients differ by {difference:.0e}")
    seconds = {
        "Hessian, of newton-cholesky": stage,
        "fit, newton-cholesky": (whole[0], whole[2]),
        "fit, lbfgs": (whole[1], whole[2]),
    }
    show(seconds, "scikit-learn", path)
    return difference


if __name__ == "__main__":
    main(*sys.argv[1:2])
