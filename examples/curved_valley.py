"""A curved valley: natural gradient beside the ordinary one, Newton's method and BFGS.

python examples/curved_valley.py [picture.png]: one look at each of two numbers, the first normal
with mean θ₁ and scale 1, the second normal with mean θ₂ − θ₁² and scale 0.1. Minus the logarithm of
the likelihood is Rosenbrock's valley; its floor is curved in θ, and straight in what can be told
apart.
"""

import sys
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

import fastfisher as ff

mpl.use("Agg")
import matplotlib.pyplot as plt

Array = NDArray[np.float64]

OBSERVED, SCALE = np.array([[1.0, 0.0]]), np.array([[1.0, 0.1]])
START = np.array([-1.2, 1.0])
Step = tuple[float, Array, ff.DenseFisher]
Model = Callable[[Array], Step]
RATE = 3e-3  # of gradient descent: above 2/501 = 4e-3 the minimum repels it


def family(theta: Array) -> ff.Gaussian:
    """The distribution of what is seen: two independent normal numbers."""
    mean = np.array([[theta[0], theta[1] - theta[0] ** 2]])
    return ff.Gaussian(mean, SCALE, fixed_scale=True)


def loss_and_gradient(theta: Array) -> tuple[float, Array, Array]:
    """−log p, less its value at the best θ = (1, 1), and ∇ by the chain rule."""
    jacobian = np.array([[1.0, 0.0], [-2 * theta[0], 1.0]])
    distribution = family(theta)
    loss = family(np.ones(2)).log_prob(OBSERVED).sum() - distribution.log_prob(OBSERVED).sum()
    return loss, -jacobian.T @ distribution.score(OBSERVED).ravel(), jacobian


def natural(theta: Array) -> Step:
    """F of the model: the exact one, JᵀF_out J."""
    loss, gradient, jacobian = loss_and_gradient(theta)
    F = ff.exact_fisher(jacobian[None], family(theta), into=ff.DenseFisher)
    return loss, gradient, F


def ordinary(theta: Array) -> Step:
    """The unit matrix for F: plain gradient descent."""
    return *loss_and_gradient(theta)[:2], ff.DenseFisher.from_matrix(np.eye(2))


def newton(theta: Array) -> Step:
    """The Hessian for F: Newton's method."""
    (x, y), stiffness = theta, 1 / SCALE[0, 1] ** 2
    off = -2 * stiffness * x
    hessian = np.array([[1 + stiffness * (6 * x**2 - 2 * y), off], [off, stiffness]])
    return *loss_and_gradient(theta)[:2], ff.DenseFisher.from_matrix(hessian)


def followed(model: Model, **options: Any) -> Array:
    """Return the path of a descent, one row per iterate."""
    path = []
    ff.natural_gradient_descent(
        model, START, callback=lambda state: path.append(state.theta), **options
    )
    return np.array(path)


def bfgs() -> Array:
    """Return the path of SciPy's BFGS."""
    path = [START]
    minimize(
        lambda theta: loss_and_gradient(theta)[:2],
        START,
        jac=True,
        method="BFGS",
        callback=lambda theta: path.append(theta.copy()),
        options={"gtol": 1e-10},
    )
    return np.array(path)


def main(path: str = "curved_valley.png", *, limit: int = 5000) -> None:
    """Descend five ways, print the steps that each takes, draw the picture."""
    paths = {
        "gradient descent": followed(ordinary, step_size=RATE, max_iterations=limit),
        "BFGS (SciPy)": bfgs(),
        "Newton": followed(newton, backtracking=40),
        "natural gradient": followed(natural, backtracking=40),
        "natural gradient, KL ≤ 0.1": followed(natural, max_kl=0.1),
    }
    figure, (valley, losses) = plt.subplots(1, 2, figsize=(11, 4))
    x, y = np.meshgrid(np.linspace(-1.6, 1.6, 300), np.linspace(-0.5, 1.6, 300))
    heights = 0.5 * (1 - x) ** 2 + 0.5 * ((y - x**2) / SCALE[0, 1]) ** 2
    valley.contour(x, y, heights, np.geomspace(0.05, 200, 12), colors="0.85", linewidths=0.8)
    print("steps to a loss of                1e-3    1e-6    1e-9")
    for name, points in paths.items():
        loss = np.array([loss_and_gradient(theta)[0] for theta in points])
        counts = [np.flatnonzero(loss <= target) for target in (1e-3, 1e-6, 1e-9)]
        told = [f"{found[0]:8}" if len(found) else f"  >{len(loss) - 1:5}" for found in counts]
        print(f"{name:28}", *told, sep="")
        style = {"marker": "." if len(points) < 100 else "", "ms": 4, "lw": 1}
        valley.plot(*points.T, label=name, **style)
        losses.loglog(np.arange(len(loss)) + 1, np.maximum(loss, 1e-16), **style)
    valley.plot(1, 1, "k*", ms=9)
    valley.set(xlabel="θ₁", ylabel="θ₂", xlim=(-1.6, 1.6), ylim=(-0.5, 1.6))
    valley.legend(frameon=False, fontsize=8, loc="upper center")
    losses.set(xlabel="steps + 1", ylabel="loss above the least")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
    print(f"The picture is in {path}.")


if __name__ == "__main__":
    main(*sys.argv[1:2])
