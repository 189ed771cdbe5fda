"""MPI: every process holds the Fisher of all, by MPI's own sum or along the tree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import mpi_fisher
import ranks

TIMEOUT = 120.0  # seconds; what hangs, hangs for ever


def mpiexec() -> str | None:
    """Return the launcher of this Python's MPI, None where there is none."""
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        return None
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


MPIEXEC = mpiexec()
mpi = pytest.mark.skipif(MPIEXEC is None, reason="needs mpi4py and its mpiexec")


def in_processes(script: Path | str, size: int) -> Any:
    folders = [str(Path(ff.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [str(MPIEXEC), "-n", str(size), sys.executable, str(script)],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@mpi
@pytest.mark.parametrize("size", [2, 5])
def test_all_ranks_agree_under_mpi(size: Any) -> None:
    assert in_processes(ranks.__file__, size).count("agrees") == size


def test_all_ranks_agree_over_pipes() -> None:
    assert ranks.over_pipes(ranks.check, 3, TIMEOUT) == [""] * 3


def test_one_rank_needs_no_messages() -> None:
    ranks.check(ranks.PipeCommunicator(0, [None]))


class Counting(ranks.PipeCommunicator):
    """Counts the bytes that its arrays sum."""

    summed = 0

    def Allreduce(self, sendbuf: None, recvbuf: np.ndarray) -> None:
        self.summed += recvbuf.nbytes
        super().Allreduce(sendbuf, recvbuf)


@pytest.mark.parametrize("center", [False, True])
def test_what_is_summed_is_half_a_matrix(center: bool) -> None:
    p = 480  # a whole number of panels
    comm = Counting(0, [None])
    F = ff.DenseFisher.from_scores(np.ones((3, p)), center=center)
    ff.distributed.allreduce(F, comm)
    assert comm.summed == p * (p + 24) // 2 * 8 + center * p * 8


def test_bad_input() -> None:
    comm = ranks.PipeCommunicator(0, [None])
    with pytest.raises(TypeError, match="fisher: expected an accumulator, got ScoreFisher"):
        ff.distributed.allreduce(ff.ScoreFisher(np.eye(2)), comm)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="fixed_order: expected True or False, got int"):
        ff.distributed.allreduce(ff.DiagonalFisher(2), comm, fixed_order=1)  # type: ignore[arg-type]


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    alone = ranks.PipeCommunicator(0, [None])
    theta, errors = mpi_fisher.main(alone, rows=2000, params=5)
    printed = capsys.readouterr().out
    X, y = mpi_fisher.samples(0, 2000, 5)
    mean = 1 / (1 + np.exp(-X @ theta))
    F = X.T @ ((mean * (1 - mean))[:, None] * X)
    # Newton's steps double the digits: the last one is at rounding.
    assert np.abs(X.T @ (y - mean)).max() <= 1e-10 * len(X)
    np.testing.assert_allclose(errors, np.sqrt(np.diag(np.linalg.inv(F))), rtol=1e-10)
    assert "step 7" in printed
    assert f"theta[0] = {theta[0]:.4f} ±" in printed


@mpi
def test_the_example_under_mpi() -> None:
    assert "80000 samples" in in_processes(mpi_fisher.__file__, 4)
