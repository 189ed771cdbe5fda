"""Draws the speed of every job as a share of the roof."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fastfisher.demo.picture import INK, LOOK, NUMPY, OURS

from .measure import Row

OTHER = "#E69F00"


def draw(rows: list[Row], output: Path) -> None:
    """Bars of ours, NumPy and the best other per job; jobs without a roof are left out."""
    drawn = [(row, row.roof) for row in rows if row.roof is not None]
    rows = [row for row, _ in drawn]
    output.parent.mkdir(exist_ok=True)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9, 1.2 + 0.34 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, (row, roof) in enumerate(drawn):
            bars = [(row.ours, OURS), (row.numpy, NUMPY)]
            if row.other is not None:
                bars.append((row.other, OTHER))
            for k, (seconds, colour) in enumerate(bars):
                axes.barh(place + 0.26 * (k - 1), 100 * roof / seconds, 0.24, color=colour)
            axes.text(
                100 * roof / row.ours + 1, place - 0.26, f"{row.numpy / row.ours:.1f}×",
                va="center", size=8, weight="bold", color=OURS,
            )  # fmt: skip
        labels = [
            f"{r.name} {' × '.join(map(str, r.shape))} {r.dtype.replace('float', 'f')}"
            for r in rows
        ]
        axes.set_yticks(range(len(rows)), labels, fontsize=8)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.axvline(100, color=INK, lw=1.5)
        axes.set_xlim(0, 112)
        axes.set_xticks([0, 25, 50, 75, 100], ["0", "25 %", "50 %", "75 %", "roof"])
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_title("Share of what the machine can do", loc="left", weight="bold", size=14)
        names = [(OURS, "fastfisher, × NumPy"), (NUMPY, "NumPy, SciPy"), (OTHER, "best other")]
        figure.legend(
            handles=[Patch(color=colour, label=name) for colour, name in names],
            ncols=3, loc="outside lower center", frameon=False,
        )  # fmt: skip
        figure.savefig(output, dpi=130, facecolor="white")
