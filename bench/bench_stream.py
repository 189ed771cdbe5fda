"""Streams of a memory-mapped file beside the NumPy loop over its chunks, from memory and disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import fastfisher as ff
from fastfisher.demo.clock import medians, stopwatch

from . import oracle
from .bench_fisher import work
from .job import Job, Real, as_test

BYTES = 64 * 2**20  # of a chunk, on both sides


def mapped_scores(rng: np.random.Generator, n: int, p: int, dtype: Real) -> tuple[np.ndarray]:
    """Scores in a file that is gone once its map is."""
    with tempfile.TemporaryFile() as file:
        for start in range(0, n, 8192):
            rng.standard_normal((min(8192, n - start), p), dtype=dtype).tofile(file)
        file.flush()
        return (np.memmap(file, dtype, "r", shape=(n, p)),)


def parts(G: np.ndarray) -> Any:
    rows = max(1, BYTES // G[0].nbytes)
    return (G[start : start + rows] for start in range(0, len(G), rows))


def fisher(G: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.DenseFisher(G.shape[1], dtype=G.dtype).update_from(G).to_dense()
    return answer


def fisher_by_numpy(G: np.ndarray) -> np.ndarray:
    F = np.zeros((G.shape[1], G.shape[1]), G.dtype)
    for part in parts(G):
        F += part.T @ part
    F /= len(G)
    return F


def diagonal(G: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.DiagonalFisher(G.shape[1], dtype=G.dtype).update_from(G).diagonal()
    return answer


def diagonal_by_numpy(G: np.ndarray) -> np.ndarray:
    d = np.zeros(G.shape[1], G.dtype)
    for part in parts(G):
        d += np.einsum("ij,ij->j", part, part)
    d /= len(G)
    return d


JOBS = [
    Job(
        "Fisher of a file in memory",
        (200_000, 256),
        make=mapped_scores,
        ours=fisher,
        lines={"for part in memmap: F += part.T @ part": fisher_by_numpy},
        error=oracle.fisher_error,
        tolerance=1e-13,
        work=work,
    ),
    Job(
        "diagonal of a file in memory",
        (200_000, 256),
        make=mapped_scores,
        ours=diagonal,
        lines={"for part in memmap: d += einsum('ij,ij->j', part, part)": diagonal_by_numpy},
        error=oracle.diagonal_error,
        tolerance=1e-12,
        work=lambda n, p, itemsize: (2 * n * p, n * p * itemsize),
    ),
]

test_stream = as_test(JOBS)


def cold_stream(full: bool) -> tuple[str, str, str]:
    """Gigabytes per second of a file that the system has forgotten, and of reading it alone."""
    n, p = (128_000 if full else 8192), 256
    what = f"Fisher of a file of {8 * n * p / 1e9:.2g} GB on the disk, streamed"
    if not hasattr(os, "posix_fadvise"):
        return what, "not measurable on this system", "≥ 0.9 of reading alone"
    with tempfile.NamedTemporaryFile() as file:
        for start in range(0, n, 4096):
            np.random.default_rng(start).standard_normal((min(4096, n - start), p)).tofile(file)
        file.flush()
        os.fsync(file.fileno())

        def forget() -> None:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

        def read() -> None:
            buffer = bytearray(2**20)
            with Path(file.name).open("rb", buffering=0) as reader:
                while reader.readinto(buffer):
                    pass

        def scores() -> np.ndarray:
            return np.memmap(file.name, np.float64, "r", shape=(n, p))

        def cold(call: Any) -> Any:
            def seconds() -> float:
                forget()
                return stopwatch(call)()

            return seconds

        ours, numpy, alone = medians(
            [
                cold(lambda: fisher(scores())),
                cold(lambda: fisher_by_numpy(scores())),
                cold(read),
            ],
            rounds=5 if full else 1,
            pause=0.0,
            budget=10.0,
        )
    speeds = [f"{8 * n * p / seconds / 1e9:.2f}" for seconds in (ours, numpy, alone)]
    return (
        what,
        f"{speeds[0]} GB/s, NumPy's loop {speeds[1]}, reading alone {speeds[2]}",
        "≥ 0.9 of reading alone",
    )
