"""XNES on Rosenbrock's valley: the search distribution turns into the valley and follows it.

python examples/xnes_rosenbrock.py [picture.png]: draws the distributions on their way, the loss of
SNES, whose distributions cannot turn, beside that of XNES, and what a target costs as the number of
parameters grows.
"""

import sys
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

import fastfisher as ff

mpl.use("Agg")
import matplotlib.pyplot as plt

Array = NDArray[np.float64]
CIRCLE = np.exp(1j * np.linspace(0, 2 * np.pi, 100))
TARGET, SEEDS = 1e-10, 5


Loss = Callable[[Array], Array]
Strategy = type[ff.SNES] | type[ff.XNES]


def rosenbrock(x: Array) -> Array:
    """Return the loss of each row; it is 0 at (1, …, 1)."""
    terms: Array = 100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2
    loss: Array = terms.sum(axis=1)
    return loss


def sphere(x: Array) -> Array:
    """Return the squared distance of each row from (1, …, 1)."""
    loss: Array = ((x - 1) ** 2).sum(axis=1)
    return loss


def search(
    strategy: Strategy, loss: Loss, params: int, evaluations: int, seed: int, callback: Any = None
) -> ff.EvolutionResult:
    """Return what a search that begins at (−1, …, −1) finds."""
    begun = strategy(-np.ones(params), 0.5, rng=seed)
    return begun.minimize(
        loss, max_evaluations=evaluations, target=TARGET, vectorized=True, callback=callback
    )


def draw_way(axes: Any, evaluations: int) -> None:
    """Draw the contours of the loss and, on the way, where 39 % of the draws lie."""
    ellipses = []

    def remember(strategy: ff.SNES | ff.XNES) -> bool:
        # x = μ + C½ (cos t, sin t) -> bool: any root of the covariance will do
        values, V = np.linalg.eigh(strategy.covariance())
        root = V * np.sqrt(values)
        ellipses.append(strategy.mean[:, None] + root @ [CIRCLE.real, CIRCLE.imag])
        return strategy.best_loss < 1e-3

    ff.XNES([-1.2, 1.0], 0.2, population=20, rng=0).minimize(
        rosenbrock, max_evaluations=evaluations, vectorized=True, callback=remember
    )
    grid = np.meshgrid(np.linspace(-1.7, 1.5, 200), np.linspace(-0.7, 1.9, 200))
    losses = rosenbrock(np.stack([g.ravel() for g in grid], axis=1)).reshape(200, 200)
    axes.contourf(*grid, np.log10(losses), levels=8, cmap="Greys_r", alpha=0.6)
    shown = ellipses[::4]
    for k, (x, y) in enumerate(shown):
        axes.plot(x, y, color=plt.cm.plasma(0.9 * k / len(shown)), lw=1.3)
    axes.plot(1.0, 1.0, "k+")
    axes.set(title="XNES, every 4th generation", xlabel="x₀", ylabel="x₁")


def draw_losses(axes: Any, params: int, evaluations: int) -> None:
    """Draw the best loss against evaluations, and print where each search ended."""
    for strategy, color in ((ff.SNES, "C1"), (ff.XNES, "C0")):
        for seed in range(SEEDS):
            result = search(strategy, rosenbrock, params, evaluations, seed)
            label = strategy.__name__ if seed == 0 else None
            evaluated = [record.evaluations for record in result.history]
            best = [record.best_loss for record in result.history]
            axes.semilogy(evaluated, best, color, lw=0.8, label=label)
        name = strategy.__name__
        print(f"{name} {params:10} {result.evaluations:12} {result.loss:9.1e}  {result.message}")
    axes.set(title=f"Rosenbrock, {params} parameters", xlabel="evaluations", ylabel="best loss")
    axes.legend(frameon=False)


def draw_costs(axes: Any, dimensions: tuple[int, ...], evaluations: int) -> None:
    """Draw the median number of evaluations to the target against the number of parameters."""
    for strategy, loss, style in (
        (ff.SNES, sphere, "C1o--"),
        (ff.XNES, sphere, "C0o--"),
        (ff.XNES, rosenbrock, "C0s-"),
    ):
        costs = []
        for params in dimensions:
            results = [search(strategy, loss, params, evaluations, seed) for seed in range(SEEDS)]
            reached = [r.evaluations if r.loss <= TARGET else np.inf for r in results]
            costs.append(np.median(reached))
        axes.loglog(dimensions, costs, style, label=f"{strategy.__name__}, {loss.__name__}")
    axes.set(title=f"evaluations to {TARGET:g}, medians", xlabel="parameters")
    axes.set_xticks(dimensions, labels=[str(params) for params in dimensions])
    axes.minorticks_off()
    axes.legend(frameon=False)


def main(
    path: str = "xnes_rosenbrock.png",
    *,
    dimensions: tuple[int, ...] = (2, 4, 8, 16),
    evaluations: int = 60_000,
) -> None:
    """Print how the searches end, draw the picture."""
    figure, (way, losses, costs) = plt.subplots(1, 3, figsize=(13, 4))
    draw_way(way, evaluations)
    print("     parameters  evaluations      loss  why it ended")
    draw_losses(losses, dimensions[len(dimensions) // 2], evaluations // 4)
    draw_costs(costs, dimensions, evaluations)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
    print(f"The picture is in {path}.")


if __name__ == "__main__":
    main(*sys.argv[1:2])
