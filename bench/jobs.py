"""All jobs, in the order of the table."""

from __future__ import annotations

from . import (
    bench_batch,
    bench_block_diagonal,
    bench_cg,
    bench_cholesky,
    bench_complex,
    bench_descent,
    bench_diagonal,
    bench_evolution,
    bench_fisher,
    bench_fvp,
    bench_gram,
    bench_kronecker,
    bench_layer,
    bench_low_rank,
    bench_natural_gradient,
    bench_overhead,
    bench_path,
    bench_qr,
    bench_sandwich,
    bench_stream,
)
from .job import Job

TOPICS = (
    bench_fisher,
    bench_stream,
    bench_gram,
    bench_diagonal,
    bench_fvp,
    bench_cholesky,
    bench_batch,
    bench_block_diagonal,
    bench_natural_gradient,
    bench_descent,
    bench_layer,
    bench_cg,
    bench_kronecker,
    bench_complex,
    bench_path,
    bench_low_rank,
    bench_qr,
    bench_evolution,
    bench_sandwich,
    bench_overhead,
)
JOBS: list[Job] = [job for topic in TOPICS for job in topic.JOBS]


def find(key: str) -> Job:
    """Return the job of that key."""
    return next(job for job in JOBS if job.key == key)
