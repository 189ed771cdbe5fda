"""SciPy, drop-in: L-BFGS preconditioned by the natural gradient.

python examples/drop_in_scipy.py [picture.png]: a Poisson regression whose covariates are correlated
and have scales from 0.1 to 10, by L-BFGS as it is, with covariates scaled as an expert would, and
in coordinates in which the Fisher information at the start is the identity.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

import fastfisher as ff
from side_by_side import in_turn, show

Array = NDArray[np.float64]
Loss = Callable[[Array], tuple[float, Array]]


def minimize_in(root: Array, loss_and_gradient: Loss, start: Array, **keywords: Any) -> Any:
    """Minimise by L-BFGS in the coordinates z of θ = start + root z, root (p, p) symmetric.

    With root = F^(-1/2), F the Fisher information at the start, that is L-BFGS preconditioned with
    the natural gradient: its first step goes along F⁻¹ ∇L. Bounds and further constraints, which
    would hold for z, are not for this function; the answer is in the coordinates θ throughout.
    """

    def in_coordinates(z: Array) -> tuple[float, Array]:
        loss, gradient = loss_and_gradient(start + root @ z)
        return loss, root @ gradient

    found = minimize(in_coordinates, np.zeros(len(start)), jac=True, method="L-BFGS-B", **keywords)
    # ∇θ = root⁻¹ ∇z, and the curvature of z between root on both sides is that of θ.
    found.x, found.jac = start + root @ found.x, np.linalg.solve(root, found.jac)
    found.hess_inv = root @ found.hess_inv.todense() @ root
    return found


class PoissonRegression:
    """Mean negative log-likelihood of counts y ~ Poisson(exp(Xβ)), its gradient and Fisher."""

    def __init__(self, X: Array, y: Array) -> None:
        self.X, self.y = X, y

    def __call__(self, beta: Array) -> tuple[float, Array]:
        """Return loss and gradient."""
        eta = self.X @ beta
        with np.errstate(over="ignore"):
            mean = np.exp(eta)
        return (mean - self.y * eta).mean(), self.X.T @ (mean - self.y) / len(eta)

    def fisher(self, beta: Array) -> ff.DenseFisher:
        """Return the exact F = Σ μ x xᵀ / n."""
        information = ff.empirical_fisher(self.X, weights=np.exp(self.X @ beta), reduction="sum")
        return ff.DenseFisher.from_matrix(information / len(self.y))


def data(samples: int, params: int) -> tuple[Array, Array]:
    """Correlated covariates of very different scales, and counts."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((samples, params)) @ (np.eye(params) + 0.5 / params**0.5)
    X[:, 0] = 1
    beta = 0.5 * rng.standard_normal(params) / params**0.5
    return X * np.logspace(-1, 1, params), rng.poisson(np.exp(X @ beta)).astype(float)


def main(
    path: str = "drop_in_scipy.png", *, samples: int = 10_000, params: int = 40, rounds: int = 3
) -> list[int]:
    """Compare, print, draw; return how often each asked for the loss."""
    regression = PoissonRegression(*data(samples, params))
    start = np.zeros(params)
    tight = {"options": {"maxiter": 5000, "maxfun": 5000, "ftol": 1e-13, "gtol": 1e-7}}

    def whitened() -> Any:
        root = regression.fisher(start).apply_power(np.eye(params), -0.5)
        return minimize_in(root, regression, start, **tight)

    def scaled() -> Any:
        root = np.diag(1 / np.sqrt(np.mean(regression.X**2, axis=0)))
        return minimize_in(root, regression, start, **tight)

    def plain() -> Any:
        return minimize(regression, start, jac=True, method="L-BFGS-B", **tight)

    seconds, found = in_turn(plain, scaled, whitened, rounds=rounds)
    best = min(one.fun for one in found)
    for name, one in zip(("as it is", "scaled", "whitened"), found, strict=True):
        print(f"{name:9} {one.nfev:5} evaluations, loss {one.fun - best:8.1e} above the best")
    compared = {
        "covariates as they are": (seconds[0], seconds[2]),
        "covariates scaled": (seconds[1], seconds[2]),
    }
    show(compared, "L-BFGS", path)
    return [one.nfev for one in found]


if __name__ == "__main__":
    main(*sys.argv[1:2])
