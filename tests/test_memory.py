"""Memory: nothing leaks when calls work or raise, and want of it is a MemoryError."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastfisher as ff
from fastfisher import _native
from sanitizer import memory_is_as_asked_for

FOLDER = Path(__file__).parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux")


def printed(program: Any, *arguments: Any) -> Any:
    """Return the lines of a program beside this file, with one thread for NumPy's BLAS.

    OpenBLAS ends the process where it finds no memory for another one.
    """
    done = subprocess.run(
        [sys.executable, FOLDER / program, *arguments],
        check=False,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@linux
@memory_is_as_asked_for
@pytest.mark.slow
def test_little_memory_is_enough_or_a_memory_error() -> None:
    lines = printed("memory_limits.py", "8")
    found = {line.split(" MB ")[1] for line in lines[:-1]}
    assert found == {"works", "raises MemoryError"}


@linux
@pytest.mark.skipif(not _native.core.openmp, reason="a build without OpenMP")
def test_threads_that_cannot_start_are_done_without() -> None:
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import memory_limits, numpy as np, fastfisher as ff
S = np.random.default_rng(0).standard_normal((4000, 60))
expected = ff.empirical_fisher(S, n_threads=1)
limit = memory_limits.used() + 40 * 2**20  # some stacks of 8 MB
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for n_threads in (2, 64, 3, 64):
    assert np.array_equal(ff.empirical_fisher(S, n_threads=n_threads), expected)
"""
    subprocess.run([sys.executable, "-c", code, FOLDER], check=True, timeout=60)


@linux
@pytest.mark.slow
def test_nothing_leaks() -> None:
    leaking = [line for line in printed("leaks.py", "6") if line.endswith("LEAKS")]
    assert not leaking


def test_a_size_that_no_memory_has_is_refused_before_it_is_asked_for() -> None:
    with pytest.raises(ff.MemoryLimitError):
        ff.DenseFisher(10**8)
    with pytest.raises(MemoryError):
        ff.DiagonalFisher(10**15)
