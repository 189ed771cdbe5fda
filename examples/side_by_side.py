"""Two ways to the same answer, timed in turn, printed and drawn: what the drop-ins share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt


def in_turn(*jobs: Callable[[], Any], rounds: int = 5) -> tuple[list[float], list[Any]]:
    """Return the median seconds of each job, run A B A B …, and their last answers."""
    seconds = np.empty((rounds, len(jobs)))
    answers: list[Any] = [None] * len(jobs)
    for row in seconds:
        for which, job in enumerate(jobs):
            start = time.perf_counter()
            answers[which] = job()
            row[which] = time.perf_counter() - start
    return np.median(seconds, axis=0).tolist(), answers


def show(rows: list[tuple[str, float, float]], theirs: str, path: str) -> None:
    """Print stage by stage what both took, and draw it as bars."""
    width = max(len(name) for name, *_ in rows)
    print(f"{'':{width}} {theirs:>14} {'fastfisher':>12} {'ratio':>7}")
    for name, before, after in rows:
        print(f"{name:{width}} {before:12.4f} s {after:10.4f} s {before / after:7.1f}")
    places = np.arange(len(rows))[::-1]
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.55 * len(rows)), layout="constrained")
    for shift, column, label, colour in (
        (0.2, 1, theirs, "0.6"),
        (-0.2, 2, "with fastfisher", "#1f4e79"),
    ):
        relative = [row[column] / row[1] for row in rows]
        axes.barh(places + shift, relative, 0.38, label=label, color=colour)
    for place, (_, before, after) in zip(places, rows, strict=True):
        axes.text(after / before + 0.01, place - 0.2, f"{before / after:.1f}×", va="center")
    axes.set_yticks(places, [name for name, *_ in rows])
    axes.set(xlabel="time, relative", xlim=(0, max(1.12, *(a / b + 0.12 for _, b, a in rows))))
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"The picture is in {path}.")
