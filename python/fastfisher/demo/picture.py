"""The picture: loss against steps and against seconds, and the speed as a share of the roof."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .speed import Measurement
from .training import Contest, Run

# Okabe and Ito's palette, told apart by every kind of colour vision; dashes say it once more.
STYLES = {
    "Gradient descent": ("#999999", ":"),
    "Adam": ("#E69F00", "--"),
    "Adam, batches of 64": ("#CC79A7", "-."),
    "Natural gradient, empirical": ("#56B4E9", "-"),
    "Natural gradient, exact": ("#0072B2", "-"),
    "KFAC": ("#D55E00", "-"),
    "EKFAC": ("#009E73", "-"),
    "Exact layers, own labels": ("#56B4E9", "-"),
    "Exact layers, drawn labels": ("#0072B2", "-"),
}
OURS, NUMPY, INK, FAINT = "#0072B2", "#BBBBBB", "#222222", "#DDDDDD"
LOOK = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.minor.bottom": False,
    "grid.color": "#EEEEEE",
    "svg.hashsalt": "fastfisher",
}


def draw(
    results: list[tuple[Contest, list[Run]]], measurements: list[Measurement], output: Path
) -> None:
    """Draw the two tasks on the left, the speed on the right, and save."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(15, 8.2))
        grid = figure.add_gridspec(
            len(results), 3, width_ratios=[1, 1, 1.15],
            left=0.05, right=0.965, top=0.81, bottom=0.075, wspace=0.16, hspace=0.36,
        )  # fmt: skip
        for row, (contest, runs) in enumerate(results):
            by_step = figure.add_subplot(grid[row, 0])
            by_second = figure.add_subplot(grid[row, 1], sharey=by_step)
            _draw_losses(by_step, contest, runs, seconds=False)
            _draw_losses(by_second, contest, runs, seconds=True)
            by_step.set_title(contest.title, loc="left", fontweight="bold", pad=12)
            by_second.tick_params(labelleft=False)
        speed = figure.add_subplot(grid[:, 2])
        _draw_speed(speed, measurements)
        figure.text(0.05, 0.945, "Natural gradient on handwritten digits", size=19, weight="bold")
        figure.text(0.05, 0.912, "Held-out loss, every method tuned over six settings", size=11)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, ncols=len(labels), loc="upper left", bbox_to_anchor=(0.043, 0.9),
            frameon=False, handlelength=2.4, columnspacing=1.0, fontsize=9.5, borderaxespad=0.2,
        )  # fmt: skip
        left = speed.get_position().x0
        figure.text(left, 0.945, "Six functions beside NumPy", size=19, weight="bold")
        figure.text(left, 0.912, "Share of what this machine can do, float64", size=11)
        bars = [
            Patch(color=OURS, label="fastfisher, × faster"),
            Patch(color=NUMPY, label="NumPy, SciPy"),
        ]
        figure.legend(
            handles=bars, ncols=2, loc="upper left", bbox_to_anchor=(left - 0.007, 0.9),
            frameon=False, handlelength=1.2, fontsize=9.5, borderaxespad=0.2,
        )  # fmt: skip
        figure.savefig(output, dpi=160, facecolor="white")


def draw_contest(
    contest: Contest, runs: list[Run], output: Path, *, ticks: Sequence[float], loss: str
) -> None:
    """Draw one task alone, against steps and against seconds, and save."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(10, 4.6))
        by_step, by_second = figure.subplots(1, 2, sharey=True)
        figure.subplots_adjust(left=0.06, right=0.985, top=0.76, bottom=0.12, wspace=0.08)
        _draw_losses(by_step, contest, runs, seconds=False, ticks=ticks)
        _draw_losses(by_second, contest, runs, seconds=True, ticks=ticks)
        figure.text(0.06, 0.925, contest.title, size=15, weight="bold")
        figure.text(0.06, 0.865, loss, size=10)
        handles, labels = by_step.get_legend_handles_labels()
        figure.legend(
            handles, labels, ncols=len(labels), loc="upper left", bbox_to_anchor=(0.052, 0.85),
            frameon=False, handlelength=1.8, columnspacing=1.0, fontsize=8.5, borderaxespad=0.2,
        )  # fmt: skip
        figure.savefig(output, dpi=110, facecolor="white")


def _draw_losses(
    axes: Axes,
    contest: Contest,
    runs: list[Run],
    *,
    seconds: bool,
    ticks: Sequence[float] = (0.1, 0.2, 0.5, 1, 2),
) -> None:
    """One curve per method, and a dot where it reaches the target."""
    for run in runs:
        colour, dashes = STYLES[run.name]
        across = run.seconds if seconds else list(range(len(run.losses)))
        width = {"-": 2.6, "-.": 1.2}.get(dashes, 2.0)
        axes.plot(across[1:], run.losses[1:], dashes, color=colour, lw=width, label=run.name)
        step = run.steps_to(contest.target)
        if step:
            axes.plot(
                across[step], run.losses[step], "o", color=colour, ms=7, mec="white", zorder=3
            )
    axes.axhline(contest.target, color=INK, lw=0.8, zorder=1)
    axes.text(
        0.01, contest.target * 0.96, f"target {contest.target:g}", size=8.5, ha="left", va="top",
        transform=axes.get_yaxis_transform(),
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.8 * ticks[0], 1.5 * ticks[-1])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.set_xlabel("seconds" if seconds else "steps")


def _draw_speed(axes: Axes, measurements: list[Measurement]) -> None:
    """Two bars per function, with the roof at 100 %."""
    for row, m in enumerate(measurements):
        ours, best = 100 * m.roof / m.ours, 100 * m.roof / m.best
        axes.barh(row - 0.1, ours, height=0.28, color=OURS)
        axes.barh(row + 0.18, best, height=0.28, color=NUMPY)
        axes.text(0, row - 0.29, m.name, weight="bold", va="bottom", size=11)
        axes.text(98.5, row - 0.29, m.shape, va="bottom", ha="right", size=8.5)
        axes.text(
            ours + 1.5, row - 0.1, f"{m.best / m.ours:.1f}×", va="center", weight="bold", color=OURS
        )
        axes.text(1.5, row + 0.18, m.line, va="center", size=8)
    axes.axvline(100, color=INK, lw=1.6)
    axes.set_xlim(0, 110)
    axes.set_ylim(len(measurements) - 0.55, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25 %", "50 %", "75 %", "roof"])
    axes.get_xticklabels()[-1].set_fontweight("bold")
    axes.grid(axis="x")
    axes.set_axisbelow(True)
