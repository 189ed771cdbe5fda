"""Two ways to the same answer, timed in turn, printed and drawn: what the drop-ins share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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


def show(seconds: Mapping[str, Sequence[float]], theirs: str, path: str) -> None:
    """Print stage by stage what both took, and draw it as bars."""
    width = max(map(len, seconds))
    print(f"{'':{width}} {theirs:>14} {'fastfisher':>12} {'ratio':>7}")
    for name, (before, after) in seconds.items():
        print(f"{name:{width}} {before:12.4f} s {after:10.4f} s {before / after:7.1f}")
    places = np.arange(len(seconds))[::-1]
    before, after = np.array(list(seconds.values())).T
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.55 * len(seconds)), layout="constrained")
    axes.barh(places + 0.2, np.ones(len(seconds)), 0.38, label=theirs, color="0.6")
    bars = axes.barh(places - 0.2, after / before, 0.38, label="with fastfisher", color="#1f4e79")
    axes.bar_label(bars, [f"{ratio:.1f}×" for ratio in before / after], padding=3)
    axes.set_yticks(places, list(seconds))
    axes.set(xlabel="time, relative", xlim=(0, max(1.0, (after / before).max()) + 0.15))
    figure.legend(frameon=False, loc="outside lower center", ncols=2, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"The picture is in {path}.")
