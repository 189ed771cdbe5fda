"""Weak scaling: as many rows for each worker process, on 1, 2, … of them; messages are counted.

``python -m bench.weak_scaling`` measures it alone; it needs Dask's distributed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from distributed import Client, LocalCluster, wait

import fastfisher as ff
from fastfisher._ops.numpy_ops import Triangle
from fastfisher.demo.clock import Stopwatch, medians

from .table import duration, put

PARTITIONS = 4  # of each worker


@dataclass(frozen=True)
class Point:
    """What one number of workers took, and what its workers sent in one call."""

    workers: int
    params: int
    rows: int
    alone: float  # summing a worker's rows in this process, on one thread
    seconds: float
    messages: float
    sent: float

    @property
    def model(self) -> int:
        """Bytes: a triangle from each worker, of which one is the answer."""
        return self.workers * Triangle.bytes_for(self.params, np.dtype(np.float64))


def draw(place: int, rows: int, params: int) -> np.ndarray:
    """Make a block of scores where it will be summed."""
    return np.random.default_rng(place).standard_normal((rows, params))


def measure(full: bool, most: int) -> list[Point]:
    """Time a call on 1, 2, … worker processes of one thread each."""
    params, rows = (1000, 2000) if full else (100, 200)
    alone = partial(_alone, [draw(place, rows, params) for place in range(PARTITIONS)])
    return [_point(workers, params, rows, alone, full) for workers in range(1, most + 1)]


def _alone(blocks: list[np.ndarray]) -> float:
    start = time.perf_counter()
    ff.distributed.merge_tree(ff.DenseFisher.from_scores(block, n_threads=1) for block in blocks)
    return time.perf_counter() - start


def _point(workers: int, params: int, rows: int, alone: Stopwatch, full: bool) -> Point:
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        owners = list(client.scheduler_info(n_workers=-1)["workers"])
        blocks = [
            client.submit(draw, place, rows, params, workers=[owners[place // PARTITIONS]])
            for place in range(workers * PARTITIONS)
        ]
        wait(blocks)
        calls = 0

        def call() -> float:
            nonlocal calls
            calls += 1
            start = time.perf_counter()
            ff.distributed.empirical_fisher(blocks, client=client)
            return time.perf_counter() - start

        by_itself, seconds = medians([alone, call], rounds=9 if full else 3, pause=0.05)
        sent = [size for log in client.run(_outgoing).values() for size in log]
    return Point(workers, params, rows, by_itself, seconds, len(sent) / calls, sum(sent) / calls)


def _outgoing(dask_worker: Any) -> list[int]:
    """Bytes on the wire of every message that a worker has sent to another, or to the client."""
    return [one["compressed"] for one in dask_worker.transfer_outgoing_log]


def table(points: list[Point]) -> str:
    """Time against one worker, messages against the model."""
    first = points[0]
    head = (
        f"{PARTITIONS} partitions of {first.rows} × {first.params} float64 for each worker; one "
        f"thread each. Summing those of one worker without Dask: {duration(first.alone)}.\n"
    )
    rows = [
        head,
        "| workers | seconds | efficiency | messages | sent | model | sent / model |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for point in points:
        cells = [
            str(point.workers),
            duration(point.seconds),
            f"{first.seconds / point.seconds:.2f}",
            f"{point.messages:.1f}",
            f"{point.sent / 2**20:.2f} MiB",
            f"{point.model / 2**20:.2f} MiB",
            f"{point.sent / point.model:.3f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def report(full: bool) -> str:
    """Measure, and return the table."""
    return table(measure(full, max(2, ff.get_num_threads())))


if __name__ == "__main__":
    text = report(True)
    print(text)
    put("weak_scaling", text)
