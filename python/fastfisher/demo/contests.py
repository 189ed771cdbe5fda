"""The two tasks on handwritten digits, and who takes part with which settings."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from .models import Network
from .training import (
    Adam,
    Contest,
    EmpiricalNaturalGradient,
    Entrant,
    ExactNaturalGradient,
    GradientDescent,
    Method,
)

TRAIN, VALIDATION = 1000, 300  # of 1797 digits; the rest is held out
TARGET = 0.15  # nats; each method reaches it on both tasks with some of its settings


def digits_contests(seed: int, quick: bool) -> list[Contest]:
    """Softmax regression (650 parameters) and a network with 16 hidden units (1210)."""
    n_train = TRAIN // 10 if quick else TRAIN
    x, y = load_digits(return_X_y=True)
    x, y = x / 16, y.astype(np.intp)
    parts = np.split(
        np.random.default_rng(seed).permutation(len(y)), [n_train, n_train + VALIDATION]
    )
    train, validation, held_out = ((x[rows], y[rows]) for rows in parts)
    return [
        Contest(title, network, train, validation, held_out, TARGET)
        for title, network in [
            ("Softmax regression", Network(64, 10)),
            ("Network with 16 hidden units", Network(64, 16, 10)),
        ]
    ]


def entrants(contest: Contest, quick: bool) -> list[Entrant]:
    """Five methods with six settings each, spaced wide enough that the best is not at an end."""
    rates = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    natural = [(rate, damping) for rate in (1.0, 0.3) for damping in (1e-2, 1e-3, 1e-4)]
    table: list[tuple[str, list[Method], int]] = [
        ("Gradient descent", [GradientDescent(100 * rate) for rate in rates], 1000),
        ("Adam", [Adam(rate) for rate in rates], 500),
        ("Adam, batches of 64", [Adam(rate, 64) for rate in rates], 500),
        ("Natural gradient, empirical", [EmpiricalNaturalGradient(*s) for s in natural], 30),
        ("Natural gradient, exact", [ExactNaturalGradient(*s) for s in natural], 15),
    ]
    if quick:
        return [Entrant(name, grid[:1], min(steps, 5)) for name, grid, steps in table]
    return [Entrant(name, grid, steps) for name, grid, steps in table]


def count_runs(contests: list[Contest], quick: bool) -> int:
    """Trials and final runs in all, for the progress bar."""
    return sum(len(entrant.grid) + 1 for c in contests for entrant in entrants(c, quick))
