"""Cost against n and p: the slopes on logarithmic scales, beside what theory says.

``python -m bench.slopes`` measures them alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import fastfisher as ff
from fastfisher.demo.clock import medians, stopwatch
from fastfisher.demo.picture import LOOK

from .table import duration, put

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#999999")


@dataclass(frozen=True)
class Line:
    """One kernel while n or p grows, inside a regime: (n, p) of every point."""

    kernel: str
    call: Callable[[np.ndarray], object]
    grows: str
    theory: int
    shapes: tuple[tuple[int, int], ...]

    @property
    def sizes(self) -> list[int]:
        """What grows."""
        return [n if self.grows == "n" else p for n, p in self.shapes]

    @property
    def fixed(self) -> str:
        """What does not."""
        n, p = self.shapes[0]
        return "" if n == p else f"p = {p}" if self.grows == "n" else f"n = {n}"


@dataclass(frozen=True)
class Slope:
    """A line with its seconds, and the exponent that fits them best."""

    line: Line
    seconds: list[float]

    @property
    def fitted(self) -> float:
        """Least squares on the logarithms."""
        return float(np.polyfit(np.log(self.line.sizes), np.log(self.seconds), 1)[0])


def lines() -> list[Line]:
    """What is measured; every working set is above the caches, every p above the tiles."""
    n_grows = tuple((n, 512) for n in (4096, 8192, 16_384, 32_768))
    p_grows = tuple((4096, p) for p in (768, 1152, 1728, 2592))
    long = tuple((n, 500) for n in (50_000, 100_000, 200_000, 400_000))
    wide = tuple((100_000, p) for p in (250, 500, 1000, 2000))
    product = lambda G: ff.fvp(G, np.ones(G.shape[1]))  # noqa: E731
    squares = tuple((p, p) for p in (1600, 2400, 3600, 5400))
    solve = lambda A: ff.solve(A, A[0], damping=1e-2, solver=ff.Cholesky())  # noqa: E731
    return [
        Line("Fisher", ff.empirical_fisher, "n", 1, n_grows),
        Line("diagonal", ff.fisher_diagonal, "n", 1, long),
        Line("F·v", product, "n", 1, long),
        Line("Gram", ff.gram, "n", 2, tuple((n, 10_000) for n in (500, 750, 1125, 1688))),
        Line("Fisher", ff.empirical_fisher, "p", 2, p_grows),
        Line("diagonal", ff.fisher_diagonal, "p", 1, wide),
        Line("F·v", product, "p", 1, wide),
        Line("Gram", ff.gram, "p", 1, tuple((512, p) for p in (8192, 16_384, 32_768, 65_536))),
        Line("Cholesky solve", solve, "p", 3, squares),
    ]


def measure(full: bool) -> list[Slope]:
    """Time every point of every line."""
    rng = np.random.default_rng(0)
    slopes = []
    for line in lines():
        if not full:
            line = replace(line, shapes=tuple((n // 16, p // 16) for n, p in line.shapes))
        most = max(n * p for n, p in line.shapes)
        pool = np.tile(rng.standard_normal(min(most, 2**22)), most // 2**22 + 1)
        seconds = []
        for n, p in line.shapes:
            G = pool[: n * p].reshape(n, p)
            if n == p:  # symmetric, and positive definite with the damping
                G = np.tril(G, -1) / p + np.eye(p)
                G += np.tril(G, -1).T
            watch = stopwatch(lambda: line.call(G))  # noqa: B023
            seconds += medians([watch], rounds=7, pause=0.0, spread=0.02, budget=2.0)
        slopes.append(Slope(line, seconds))
    return slopes


def table(slopes: list[Slope]) -> str:
    """One line per kernel and size."""
    rows = [
        "| kernel | grows | at | from | to | slope | theory |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for slope in slopes:
        line = slope.line
        first, last = (f"{line.sizes[k]} ({duration(slope.seconds[k])})" for k in (0, -1))
        cells = [line.kernel, line.grows, line.fixed, first, last, f"{slope.fitted:.2f}"]
        rows.append(f"| {' | '.join(cells)} | {line.theory} |")
    return "\n".join(rows)


def draw(slopes: list[Slope], output: Path) -> None:
    """Points, and the line of the theoretical slope through the last of them."""
    output.parent.mkdir(exist_ok=True)
    kernels = list(dict.fromkeys(slope.line.kernel for slope in slopes))
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(10, 5.2), layout="constrained")
        for axes, grows in zip(figure.subplots(1, 2), "np", strict=True):
            for slope in (s for s in slopes if s.line.grows == grows):
                colour = COLOURS[kernels.index(slope.line.kernel)]
                x, y = np.array(slope.line.sizes, float), 1e3 * np.array(slope.seconds)
                axes.loglog(x, y[-1] * (x / x[-1]) ** slope.line.theory, "--", color=colour, lw=1)
                axes.loglog(
                    x, y, "o", color=colour,
                    label=f"{slope.line.kernel}: {slope.fitted:.2f} (theory {slope.line.theory})",
                )  # fmt: skip
            axes.set_xlabel("samples n" if grows == "n" else "parameters p")
            axes.set_ylabel("milliseconds")
            axes.grid(which="both")
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False, fontsize=9
            )
        figure.suptitle(
            "Cost against samples and parameters", x=0.02, ha="left", weight="bold", size=14
        )
        figure.savefig(output, dpi=130, facecolor="white")


def report(full: bool, figure: Path) -> str:
    """Measure, draw, and return the table."""
    slopes = measure(full)
    draw(slopes, figure)
    return table(slopes)


if __name__ == "__main__":
    text = report(True, Path(__file__).parent / "figures" / "slopes.png")
    put("slopes", text)
    print(text)
