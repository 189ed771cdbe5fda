"""Times calls in turn, A B A B, and measures the roofs of this machine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .._native import core

Stopwatch = Callable[[], float]


def stopwatch(call: Callable[[], object], repeat: int = 1) -> Stopwatch:
    """Make a function that returns the seconds one call takes, the mean of `repeat` in a row."""

    def seconds() -> float:
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        return (time.perf_counter() - start) / repeat

    return seconds


def medians(
    stopwatches: Sequence[Stopwatch],
    *,
    rounds: int = 7,
    pause: float = 0.15,
    spread: float = 0.0,
    budget: float = math.inf,
) -> list[float]:
    """Median seconds of each, read in turn so that whatever slows the machine slows them all.

    Each runs once before, unread. The pause before a reading lets the threads of the library that
    ran before it fall asleep; without it one of the two would be charged for the other's spinning.
    From the third round on it ends where the readings of each lie within `spread` of their median,
    or where `budget` seconds have passed.
    """
    for seconds in stopwatches:
        seconds()
    readings: list[list[float]] = [[] for _ in stopwatches]
    start = time.perf_counter()
    for done in range(rounds):
        late = time.perf_counter() - start > budget
        if done >= 3 and (late or all(_spread(record) <= spread for record in readings)):
            break
        for record, seconds in zip(readings, stopwatches, strict=True):
            time.sleep(pause)
            record.append(seconds())
    return [statistics.median(record) for record in readings]


def _spread(readings: list[float]) -> float:
    return (max(readings) - min(readings)) / statistics.median(readings)


@dataclass(frozen=True)
class Roofs:
    """What this machine can do: flop/s of float64 and float32, bytes read per second."""

    float64: float
    float32: float
    bandwidth: float

    def seconds(self, flops: float, bytes_read: float, dtype: str = "float64") -> float:
        """Shortest possible time: the slower of the arithmetic and one reading of the data."""
        peak = self.float64 if dtype in ("float64", "complex128") else self.float32
        return max(flops / peak, bytes_read / self.bandwidth)


def measure_roofs(*, bytes_read: int = 1 << 28, rounds: int = 3) -> Roofs:
    """Measure the roofs with the native probe: the best of a few rounds."""
    return Roofs(
        float64=max(core.fma_peak(8, 0) for _ in range(rounds)),
        float32=max(core.fma_peak(4, 0) for _ in range(rounds)),
        bandwidth=max(core.read_bandwidth(bytes_read, 0) for _ in range(rounds)),
    )
