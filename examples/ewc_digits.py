"""Two tasks, one network: elastic weight consolidation keeps the first while it learns the second.

python examples/ewc_digits.py [picture.png]: handwritten digits, then the same digits with their
pixels permuted. Draws what becomes of both tasks without a penalty, with plain L2 about the
solution of the first, and with EWC, each at its best strength; tells what other squares of
gradients do in place of the diagonal Fisher, and how four tasks in a row fare.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import fastfisher as ff
from fastfisher.demo.models import Network

mpl.use("Agg")
import matplotlib.pyplot as plt

Array = NDArray[np.float64]
NETWORK = Network(64, 80, 10)
TRAINING = 1000  # of 1797 digits; the rest tells the accuracy
STEPS, BATCH, RATE = 400, 50, 3e-3
# Half decades that hold the best strength of either penalty inside.
STRENGTHS = {"L2": 10.0 ** np.arange(-3, -0.9, 0.5), "EWC": 10.0 ** np.arange(0.5, 2.6, 0.5)}
COLOURS = {"no penalty": "tab:blue", "L2": "tab:green", "EWC": "tab:red"}


Labels = NDArray[np.intp]
Sample = tuple[Array, Labels]
Task = tuple[Sample, Sample]
Penalty = Callable[[Array], tuple[float, Array]]
Strengths = Mapping[str, Array]
Run = tuple[float, list[Array]]


def tasks(count: int) -> list[Task]:
    """Return ((x, y) to learn from, (x, y) to be tried on) of each task."""
    rng = np.random.default_rng(0)
    x, y = load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    x, y = x[order] / 16, y[order].astype(np.intp)
    pixels = [np.arange(64), *(rng.permutation(64) for _ in range(count - 1))]
    return [((x[:TRAINING, p], y[:TRAINING]), (x[TRAINING:, p], y[TRAINING:])) for p in pixels]


def train(theta: Array, data: Sample, penalty: Penalty, steps: int, seed: int = 0) -> list[Array]:
    """Return θ at every fifth step of Adam down the loss of a task and the penalty."""
    (x, y), rng = data, np.random.default_rng(seed)
    m = v = np.zeros_like(theta)
    path = [theta]
    for t in range(1, steps + 1):
        rows = rng.integers(0, len(x), BATCH)
        gradient = penalty(theta)[1] - NETWORK.mean_score(theta, x[rows], y[rows])
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        theta = theta - RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        if t % 5 == 0:
            path.append(theta)
    return path


def diagonal(theta: Array, x: Array) -> ff.DiagonalFisher:
    """Return the diagonal of the exact Fisher of some samples, a few of them at a time."""
    F = ff.DiagonalFisher(NETWORK.n_params)
    for start in range(0, len(x), 50):
        scores, probabilities = NETWORK.class_scores(theta, x[start : start + 50])
        F.update(scores, probabilities)
    return F


def squares(theta: Array, x: Array, y: Labels, batch: int) -> Array:
    """Return the mean over batches of the square of the batch's mean gradient.

    Of single samples that is the empirical diagonal; of larger batches it is no Fisher.
    """
    batches = [slice(start, start + batch) for start in range(0, len(x), batch)]
    means = np.array([NETWORK.mean_score(theta, x[rows], y[rows]) for rows in batches])
    mean: Array = (means**2).mean(axis=0)
    return mean


def importance(kind: str, theta: Array, x: Array) -> ff.DiagonalFisher | Array:
    """Return what a penalty of this kind weighs the parameters with: L2 is EWC with F = I."""
    return diagonal(theta, x[:300]) if kind == "EWC" else np.ones_like(theta)


def accuracies(theta: Array, tasks: list[Task]) -> list[float]:
    return [NETWORK.evaluate(theta, *test)[1] for _, test in tasks]


def second_tasks(
    two: list[Task], steps: int, strengths: Strengths = STRENGTHS
) -> dict[str, list[Run]]:
    """Return (strength, path from the solution of the first task) of each run with each penalty."""
    (first, _), (second, _) = two
    nothing = ff.ElasticWeightConsolidation(0.0)
    anchor = train(NETWORK.initial(np.random.default_rng(1)), first, nothing.penalty, steps)[-1]
    runs = {"no penalty": [(0.0, train(anchor, second, nothing.penalty, steps))]}
    for kind, grid in strengths.items():
        F, runs[kind] = importance(kind, anchor, first[0]), []
        for strength in grid:
            ewc = ff.ElasticWeightConsolidation(strength).consolidate(anchor, F)
            runs[kind].append((strength, train(anchor, second, ewc.penalty, steps)))
    return runs


def best(runs: dict[str, list[Run]], two: list[Task]) -> dict[str, Run]:
    """Return the run of each penalty whose end is best on both tasks together."""
    return {
        kind: max(several, key=lambda run: sum(accuracies(run[1][-1], two)))
        for kind, several in runs.items()
    }


def sequence(
    several: list[Task], kind: str, strength: float, steps: int, **options: Any
) -> list[float]:
    """Return the accuracies on all tasks after learning one after the other."""
    ewc = ff.ElasticWeightConsolidation(strength, **options)
    theta = NETWORK.initial(np.random.default_rng(1))
    for seed, (data, _) in enumerate(several):
        theta = train(theta, data, ewc.penalty, steps, seed)[-1]
        ewc.consolidate(theta, importance(kind, theta, data[0]))
    return accuracies(theta, several)


def plane(axis: Any, paths: dict[str, list[Array]], two: list[Task], grid: int) -> None:
    """Draw where either task is done well, in the plane of θ_A and the ends without and with EWC.

    L2's path is seen from above the plane: its end lies off it.
    """
    origin = paths["EWC"][0]
    without, held = (paths[kind][-1] - origin for kind in ("no penalty", "EWC"))
    Q, _ = np.linalg.qr(np.column_stack([without, held]))
    Q *= np.sign(Q.T @ held)
    seen = {kind: (np.array(path) - origin) @ Q for kind, path in paths.items()}
    low, high = (f(np.vstack(list(seen.values())), axis=0) for f in (np.min, np.max))
    margin = 0.35 * (high - low).max()
    u, v = (np.linspace(a - margin, b + margin, grid) for a, b in zip(low, high, strict=True))
    for ((x, y), _), name, colour in zip(two, "AB", ("0.45", "tab:orange"), strict=True):
        right = [[NETWORK.evaluate(origin + Q @ (a, b), x[:400], y[:400])[1] for a in u] for b in v]
        axis.contourf(u, v, right, [0.8, 0.9, 1.01], colors=[colour], alpha=0.3)
        axis.contour(u, v, right, [0.8, 0.9], colors=[colour], linewidths=0.8)
        axis.plot([], [], color=colour, lw=6, alpha=0.4, label=f"task {name}: 80, 90 % right")
    for kind, path in seen.items():
        axis.plot(*path.T, color=COLOURS[kind], lw=1.5)
        axis.plot(*path[-1], "o", color=COLOURS[kind])
    axis.plot(0, 0, "k*", ms=11)
    axis.annotate("$\\theta_A$", (0, 0), (-14, -12), textcoords="offset points")
    axis.set(title="a plane through the parameters", xticks=[], yticks=[])
    axis.legend(edgecolor="none", fontsize=8, loc="upper left")


def draw(path: str, chosen: dict[str, Run], two: list[Task], grid: int) -> None:
    """Draw the accuracies on both tasks while the second is learned, and the plane."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8))
    for kind, (strength, way) in chosen.items():
        right = np.array([accuracies(theta, two) for theta in way])
        label = kind if kind == "no penalty" else f"{kind}, strength {strength:.2g}"
        for axis, curve in zip(axes, right.T, strict=False):
            axis.plot(5 * np.arange(len(way)), curve, color=COLOURS[kind], label=label)
    for axis, name in zip(axes, "AB", strict=False):
        axis.set(title=f"accuracy on task {name}", xlabel="steps on task B", ylim=(0, 1))
    axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    plane(axes[2], {kind: way for kind, (_, way) in chosen.items()}, two, grid)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    print(f"The picture is in {path}.")


def diagonals(
    two: list[Task], anchor: Array, strength: float, steps: int
) -> Iterator[tuple[str, list[float]]]:
    """Yield what to take for the diagonal, its sum and cosine beside the exact, and accuracies.

    First with the strength that suits the exact one, then with as much more as its sum is less.
    """
    ((x, y), _), (second, _) = two
    exact = diagonal(anchor, x).diagonal()
    for name, F in (
        ("exact", exact),
        ("empirical", squares(anchor, x, y, 1)),
        ("batches of 50", squares(anchor, x, y, 50)),
        ("mean gradient", squares(anchor, x, y, len(x))),
    ):
        share = F.sum() / exact.sum()
        row = [share, F @ exact / np.sqrt((F @ F) * (exact @ exact))]
        for weight in (strength, strength / share):
            ewc = ff.ElasticWeightConsolidation(weight).consolidate(anchor, F)
            row += accuracies(train(anchor, second, ewc.penalty, steps)[-1], two)
        yield name, row


def in_a_row(
    several: list[Task], steps: int, strengths: Strengths
) -> Iterator[tuple[str, float, list[float]]]:
    """Yield each penalty, its best strength, and the accuracies on all tasks in the end."""
    for name, kind, mode in (
        ("no penalty", "no penalty", "online"),
        ("L2, online", "L2", "online"),
        ("EWC, separate", "EWC", "separate"),
        ("EWC, online", "EWC", "online"),
    ):
        grid = strengths.get(kind, np.zeros(1))
        runs = [(s, sequence(several, kind, s, steps, mode=mode)) for s in grid]
        yield name, *max(runs, key=lambda run: sum(run[1]))


def main(
    path: str = "ewc_digits.png",
    *,
    steps: int = STEPS,
    strengths: Strengths = STRENGTHS,
    count: int = 4,
    grid: int = 25,
) -> None:
    """Print the tables, draw the picture."""
    several = tasks(count)
    two = several[:2]
    chosen = best(second_tasks(two, steps, strengths), two)
    print("two tasks       strength  accuracy on A and B")
    for kind, (strength, way) in chosen.items():
        print(
            f"{kind:15} {strength:8.3g} " + "".join(f"{a:7.3f}" for a in accuracies(way[-1], two))
        )
    draw(path, chosen, two, grid)

    strength, way = chosen["EWC"]
    print(
        f"diagonal             sum  cosine  A and B at {strength:.3g}, and at {strength:.3g} / sum"
    )
    for name, (share, cosine, *ends) in diagonals(two, way[0], strength, steps):
        print(f"{name:15} {share:8.2g} {cosine:7.2f} " + "".join(f"{a:7.3f}" for a in ends))

    print(f"{count} tasks in a row  strength  accuracy on each, and their mean")
    for name, strength, right in in_a_row(several, steps, strengths):
        each = "".join(f"{a:7.3f}" for a in right)
        print(f"{name:15} {strength:8.3g} {each}  {np.mean(right):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
