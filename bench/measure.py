"""Measures one job: every contender in turn, errors against the oracle, and the roof."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastfisher.demo.clock import Roofs, Stopwatch, medians, stopwatch

from .job import Job
from .worker import Worker, fingerprint

# Of one job: 3 to 9 rounds, fewer where the readings lie together or the seconds run out.
ROUNDS, SPREAD, BUDGET = 9, 0.03, 5.0


@dataclass(frozen=True)
class Row:
    """One line of the table; seconds, and errors relative to the oracle."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    numpy: float
    line: str
    other: float | None
    other_name: str
    ours: float
    roof: float | None
    error: float
    numpy_error: float


def measure(job: Job, roofs: Roofs, workers: Sequence[Worker], *, full: bool) -> Row:
    """Assert all answers, choose the fastest line of each side, then time the sides in turn."""
    inputs = job.inputs(full)
    watch: Callable[..., Stopwatch] = lambda call: stopwatch(partial(call, *inputs), job.repeat)  # noqa: E731

    line, numpy_watch = _fastest({name: watch(call) for name, call in job.lines.items()})
    error = _checked(job, job.ours, inputs, "ours")
    numpy_error = _checked(job, job.lines[line], inputs, line)

    others = {}
    for worker in workers:
        lines = _load(worker, job, full, inputs)
        if lines:
            _, others[worker.name] = _fastest({line: _remote(worker, line) for line in lines})
    watches = [watch(job.ours), numpy_watch, *others.values()]
    ours, numpy, *rest = medians(watches, rounds=ROUNDS, spread=SPREAD, budget=BUDGET)
    other, other_name = min(zip(rest, others, strict=True), default=(None, ""))
    return Row(
        job.name, job.size(full), job.dtype, numpy, line, other, other_name, ours,
        job.roof(roofs, full), error, numpy_error,
    )  # fmt: skip


def _fastest(watches: dict[str, Stopwatch]) -> tuple[str, Stopwatch]:
    """Choose by the median of three readings, where there is a choice."""
    names = list(watches)
    if len(names) == 1:
        return names[0], watches[names[0]]
    seconds = medians(list(watches.values()), rounds=3)
    name = names[int(np.argmin(seconds))]
    return name, watches[name]


def _checked(job: Job, call: Callable[..., Any], inputs: tuple[Any, ...], who: str) -> float:
    error = float(job.error(call(*inputs), *inputs))
    if not error <= job.tolerance:
        raise AssertionError(f"{job.key}, {who}: error {error:.1e}, expected {job.tolerance:.0e}")
    return error


def _load(worker: Worker, job: Job, full: bool, inputs: tuple[Any, ...]) -> list[str]:
    """Make the worker's inputs; its answers must be those of NumPy here."""
    answers = worker.ask(do="load", job=job.key, full=full)
    expected = fingerprint(next(iter(job.lines.values()))(*inputs))
    scale = max(abs(x) for x in expected)
    for line, answer in answers.items():
        # twice the tolerance each side may have, and room for its condition number
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e3 * job.tolerance * scale,
                                   err_msg=f"{job.key}, {worker.name}: {line}")  # fmt: skip
    return list(answers)


def _remote(worker: Worker, line: str) -> Stopwatch:
    return lambda: float(worker.ask(do="time", line=line))
