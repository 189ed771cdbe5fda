"""One job of the table: its inputs, our call, the lines an expert would write, work and error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pytest

from fastfisher.demo.clock import Roofs

Inputs = tuple[Any, ...]
Make = Callable[..., Inputs]
Real = Literal["float32", "float64"]


@dataclass(frozen=True, eq=False)  # a job is itself: hashable, though it holds dictionaries
class Job:
    """What is measured. All callables take the inputs that `make(rng, *shape, dtype)` returned.

    `lines` spells each NumPy or SciPy line beside the function that runs it; the fastest counts.
    `error` measures an answer against an oracle of higher precision and may not pass `tolerance`.
    `work` gives (flops, bytes read) of the shape; None where there is no honest roof.
    """

    name: str
    shape: tuple[int, ...]
    make: Make = field(repr=False)
    ours: Callable[..., Any] = field(repr=False)
    lines: Mapping[str, Callable[..., Any]] = field(repr=False)
    error: Callable[..., float] = field(repr=False)
    tolerance: float
    work: Callable[..., tuple[float, float]] | None = field(default=None, repr=False)
    torch: Callable[..., Any] | None = field(default=None, repr=False)
    dtype: str = "float64"
    repeat: int = 1

    @property
    def key(self) -> str:
        """Unique, readable, without spaces."""
        sizes = "x".join(str(size) for size in self.shape)
        return f"{self.name}-{sizes}-{self.dtype}".replace(" ", "-")

    def size(self, full: bool) -> tuple[int, ...]:
        """The shape of the table, or one with its long sides cut to an eighth."""
        return self.shape if full else tuple(s // 8 if s >= 256 else s for s in self.shape)

    def inputs(self, full: bool) -> Inputs:
        """Make the inputs; the same for the same shape."""
        return self.make(np.random.default_rng(0), *self.size(full), self.dtype)

    def roof(self, roofs: Roofs, full: bool) -> float | None:
        """Shortest possible seconds."""
        if self.work is None:
            return None
        flops, bytes_read = self.work(*self.size(full), np.dtype(self.dtype).itemsize)
        return roofs.seconds(flops, bytes_read, self.dtype)


@lru_cache(maxsize=1)
def _cached_inputs(job: Job, full: bool) -> Inputs:
    return job.inputs(full)


def as_test(jobs: Sequence[Job]) -> Callable[..., None]:
    """Make the pytest-benchmark test of a file: every job, ours and each line, answers asserted."""
    contenders = [
        pytest.param(job, contender, id=f"{job.key}-{contender or 'ours'}")
        for job in jobs
        for contender in [None, *job.lines]
    ]

    @pytest.mark.parametrize(("job", "line"), contenders)
    def test(benchmark: Any, full_size: bool, job: Job, line: str | None) -> None:
        inputs = _cached_inputs(job, full_size)
        benchmark.group = job.key
        answer = benchmark(job.ours if line is None else job.lines[line], *inputs)
        assert job.error(answer, *inputs) <= job.tolerance

    result: Callable[..., None] = test
    return result
