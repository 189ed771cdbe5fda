"""The six functions beside the best NumPy or SciPy lines, as a share of what the machine can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg as sla
from numpy.typing import NDArray

import fastfisher as ff

from .clock import Roofs, measure_roofs, medians, stopwatch

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measurement:
    """Median seconds of our call and of the fastest line, and the shortest possible time."""

    name: str
    shape: str
    line: str
    ours: float
    best: float
    roof: float


@dataclass(frozen=True)
class Case:
    """One function, the lines an expert would write instead, and its work."""

    name: str
    ours: Callable[[], Array]
    lines: dict[str, Callable[[], Array]]
    shape: tuple[int, ...]
    flops: float
    bytes_read: float

    def measure(self, roofs: Roofs, rounds: int) -> Measurement:
        """Check that all give the same answer, then time them in turn."""
        answer = self.ours()
        for line, call in self.lines.items():
            error = np.abs(call() - answer).max() / np.abs(answer).max()
            if not error < 1e-9:  # both are within n·ε·κ, far below this
                raise AssertionError(f"{self.name}: differs from {line} by {error:.1e}")
        ours, *others = medians(
            [stopwatch(call) for call in (self.ours, *self.lines.values())], rounds=rounds
        )
        best, line = min(zip(others, self.lines, strict=True))
        shape = " × ".join(str(size) for size in self.shape)
        roof = roofs.seconds(self.flops, self.bytes_read)
        return Measurement(self.name, shape, line, ours, best, roof)


def measure_speed(
    tick: Callable[[], object], *, quick: bool, seed: int
) -> tuple[list[Measurement], Roofs]:
    """Measure all six in float64; `quick` takes small sizes."""
    rng = np.random.default_rng(seed)
    roofs = measure_roofs(bytes_read=1 << (24 if quick else 28))
    shrink, rounds = (8, 3) if quick else (1, 7)
    measurements = []
    for make in (_products, _streams, _dual, _solves):
        for case in make(rng, shrink):
            measurements.append(case.measure(roofs, rounds))
            tick()
    return measurements, roofs


def _products(rng: np.random.Generator, shrink: int) -> list[Case]:
    n, p, damping = 4096 // shrink, 2048 // shrink, 1e-2
    G = rng.standard_normal((n, p))

    def by_cholesky() -> Array:
        F = G.T @ G / n
        F.flat[:: p + 1] += damping
        factor = sla.cho_factor(F, overwrite_a=True, check_finite=False)
        return np.asarray(sla.cho_solve(factor, G.mean(axis=0), check_finite=False))

    fisher_flops = n * p * (p + 1)
    return [
        Case(
            "empirical_fisher",
            lambda: ff.empirical_fisher(G),
            {"G.T @ G / n": lambda: G.T @ G / n},
            (n, p),
            fisher_flops,
            G.nbytes,
        ),
        Case(
            "natural_gradient",
            lambda: ff.natural_gradient(G, damping=damping),
            {"cho_solve(cho_factor(G.T @ G / n + λI), G.mean(0))": by_cholesky},
            (n, p),
            fisher_flops + p**3 / 3,
            G.nbytes,
        ),
    ]


def _streams(rng: np.random.Generator, shrink: int) -> list[Case]:
    n, p = 60_000 // shrink, 500
    G, v = rng.standard_normal((n, p)), rng.standard_normal(p)
    return [
        Case(
            "fisher_diagonal",
            lambda: ff.fisher_diagonal(G),
            {
                "np.einsum('ij,ij->j', G, G) / n": lambda: np.einsum("ij,ij->j", G, G) / n,
                "(G**2).mean(0)": lambda: (G**2).mean(0),
            },
            (n, p),
            2 * n * p,
            G.nbytes,
        ),
        Case(
            "fvp",
            lambda: ff.fvp(G, v),
            {"G.T @ (G @ v) / n": lambda: G.T @ (G @ v) / n},
            (n, p),
            4 * n * p,
            G.nbytes,
        ),
    ]


def _dual(rng: np.random.Generator, shrink: int) -> list[Case]:
    n, p = 500, 20_000 // shrink
    G = rng.standard_normal((n, p))
    return [
        Case(
            "gram",
            lambda: ff.gram(G),
            {"G @ G.T / n": lambda: G @ G.T / n},
            (n, p),
            p * n * (n + 1),
            G.nbytes,
        )
    ]


def _solves(rng: np.random.Generator, shrink: int) -> list[Case]:
    p, damping = 2048 // shrink, 1e-2
    G, b = rng.standard_normal((2 * p, p)), rng.standard_normal(p)
    F = G.T @ G / (2 * p)

    def by_cholesky() -> Array:
        factor = sla.cho_factor(F + damping * np.eye(p), overwrite_a=True, check_finite=False)
        return np.asarray(sla.cho_solve(factor, b, check_finite=False))

    return [
        Case(
            "solve",
            lambda: ff.solve(F, b, damping=damping).value,
            {
                "cho_solve(cho_factor(F + λI), b)": by_cholesky,
                "scipy.linalg.solve(F + λI, b, assume_a='pos')": lambda: sla.solve(
                    F + damping * np.eye(p), b, assume_a="pos", check_finite=False
                ),
            },
            (p, p),
            p**3 / 3,
            F.nbytes / 2,
        )
    ]
