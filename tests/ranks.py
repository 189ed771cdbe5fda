"""What every rank of an MPI communicator must find; run by ``mpiexec``, or over pipes without MPI.

``PipeCommunicator`` is no MPI: it has the few methods that ``ff.distributed.allreduce`` calls, over
pipes between real processes, so that the logic is tested where no MPI is.
"""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import fastfisher as ff
from fastfisher.fisher.accumulator import Accumulator

P, ROWS = 30, (70, 0, 41, 200, 13)  # of rank 0, 1, …; one has nothing to add
EPS = np.finfo(np.float64).eps


def scores(rank: int, dtype: type[np.inexact] = np.float64) -> np.ndarray:
    rng = np.random.default_rng([rank, 7])
    S = rng.standard_normal((ROWS[rank], P)) + 5.0
    if np.dtype(dtype).kind == "c":
        S = S * np.exp(1j * rng.standard_normal((ROWS[rank], 1)))
    return S.astype(dtype)


def weights(rank: int) -> np.ndarray:
    return np.linspace(0.5, 1.5, ROWS[rank])


def cases() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield (name, what makes a rank's accumulator)."""
    sizes = [4, 20, 6]
    for center in (False, True):
        for dtype in (np.float64, np.float32, np.complex128):
            tail = f"{np.dtype(dtype)} {'centred' if center else 'plain'}"
            for kind, structure in (
                (ff.DenseFisher, {"n_params": P}),
                (ff.DiagonalFisher, {"n_params": P}),
                (ff.BlockDiagonalFisher, {"block_sizes": sizes, "tridiagonal": True}),
                (ff.SquareRootFisher, {"n_params": P}),
                (ff.LowRankFisher, {"n_params": P, "rank": 5}),
            ):
                keywords = {**structure, "dtype": dtype, "center": center}

                def make(
                    rank: int,
                    kind: type[Any] = kind,
                    keywords: dict[str, Any] = keywords,
                    dtype: type[np.inexact] = dtype,
                ) -> Accumulator:
                    answer: Accumulator = kind(**keywords).update(
                        scores(rank, dtype), weights(rank)
                    )
                    return answer

                yield f"{kind.__name__} {tail}", make
    for options in ({}, {"tridiagonal": True}, {"eigen": True}):

        def network(rank: int, options: dict[str, Any] = options) -> ff.KroneckerFisher:
            a, g = scores(rank)[:, :4].copy(), scores(rank)[:, 4:7].copy()
            return ff.KroneckerFisher([(3, 4), (3, 4)], **options).update([(a, g), (a, g)])

        yield f"KroneckerFisher {options}", network


def check(comm: PipeCommunicator) -> None:
    """Raise unless this rank finds what it must."""
    rank, size = comm.Get_rank(), comm.Get_size()
    for name, make in cases():
        parts = [make(other) for other in range(size)]
        before = pickle.dumps(parts[rank])
        tree = ff.distributed.merge_tree(parts)
        found = ff.distributed.allreduce(parts[rank], comm, fixed_order=True)
        assert np.array_equal(found.to_dense(), tree.to_dense()), f"{name}: other bits"
        found = ff.distributed.allreduce(parts[rank], comm)
        tolerance = 10 * sum(ROWS) * np.finfo(found.dtype).eps * np.abs(tree.to_dense()).max()
        assert np.abs(found.to_dense() - tree.to_dense()).max() <= tolerance, name
        assert found.n_samples == tree.n_samples, name
        assert abs(found.weight_sum - tree.weight_sum) <= 10 * EPS * tree.weight_sum, name
        assert pickle.dumps(parts[rank]) == before, f"{name}: changed"
        digests = comm.allgather(found.to_dense().tobytes())
        assert len(set(digests)) == 1, f"{name}: ranks differ"
    empty = ff.distributed.allreduce(ff.DenseFisher(3, center=True, reduction="sum"), comm)
    assert empty.n_samples == 0
    assert not empty.to_dense().any()
    for mixed in (ff.DiagonalFisher(3 + (rank == size - 1)), ff.DiagonalFisher(3, center=rank > 0)):
        if size > 1:
            try:
                ff.distributed.allreduce(mixed, comm)
            except ValueError as error:
                assert "fisher: expected ('DiagonalFisher'" in str(error)  # noqa: PT017
            else:
                raise AssertionError("ranks that differ were merged")
    check_refusals(comm)


def check_refusals(comm: PipeCommunicator) -> None:
    """Raise unless all ranks refuse alike what one of them gives; else the others would hang."""
    last = comm.Get_rank() == comm.Get_size() - 1
    good = ff.DiagonalFisher(2)
    large = ff.DenseFisher.from_scores(np.full((1, 2), 1.6e19, np.float32))  # twice it overflows
    row = ff.LowRankFisher.from_scores(np.full((1, 2), 1.2e19, np.float32), 1)
    sketch = row + row
    refused: list[tuple[Any, Any, type[Exception], str]] = [
        (np.eye(2) if last else good, False, TypeError, "expected an accumulator, got ndarray"),
        (good, 1 if last else False, TypeError, "fixed_order: expected True or False, got int"),
    ]
    if comm.Get_size() > 1:
        refused += [
            (good, last, ValueError, "'fixed_order': "),
            (large, False, ff.NonFiniteError, "fisher: expected finite sums, got inf"),
            (large, True, ff.NonFiniteError, "fisher: expected finite sums, got inf"),
            # Here it is merging that raises, in one rank alone.
            (sketch, False, ff.NonFiniteError, "expected finite sums"),
        ]
    for fisher, fixed_order, kind, message in refused:
        try:
            ff.distributed.allreduce(fisher, comm, fixed_order=fixed_order)
        except kind as error:
            assert message in str(error)  # noqa: PT017
        else:
            raise AssertionError(f"not refused: {message}")


class PipeCommunicator:
    """The methods of a communicator over one pipe between each two processes."""

    def __init__(self, rank: int, pipes: Sequence[None]) -> None:
        self._rank, self._pipes = rank, pipes

    def Get_rank(self) -> int:
        return self._rank

    def Get_size(self) -> int:
        return len(self._pipes)

    def send(self, value: Any, dest: Any) -> None:
        self._pipes[dest].send(value)

    def recv(self, source: Any) -> Any:
        return self._pipes[source].recv()

    def bcast(self, value: Any, root: int) -> Any:
        if self._rank != root:
            return self.recv(root)
        for other in range(self.Get_size()):
            if other != root:
                self.send(value, other)
        return value

    def allgather(self, value: Any) -> list[Any]:
        return [self.bcast(value, root) for root in range(self.Get_size())]

    def Allreduce(self, sendbuf: None, recvbuf: np.ndarray) -> None:
        assert sendbuf is None  # in place
        assert recvbuf.flags.c_contiguous
        recvbuf[...] = np.sum(self.allgather(recvbuf.copy()), axis=0)


def _run(
    job: Callable[[PipeCommunicator], None], rank: int, pipes: Sequence[None], answer: Any
) -> None:
    try:
        job(PipeCommunicator(rank, pipes))
        answer.send("")
    except BaseException:  # noqa: BLE001
        answer.send(traceback.format_exc())


def over_pipes(job: Callable[[PipeCommunicator], None], size: int, timeout: float) -> list[str]:
    """Run ``job(comm)`` in `size` processes, and return what they complain about."""
    context = multiprocessing.get_context("spawn")
    pipes: list[list[Any]] = [[None] * size for _ in range(size)]
    for one in range(size):
        for two in range(one):
            pipes[one][two], pipes[two][one] = context.Pipe()
    answers = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        context.Process(target=_run, args=(job, rank, pipes[rank], answers[rank][1]))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        return [receive.recv() if receive.poll(timeout) else "no answer" for receive, _ in answers]
    finally:
        for process in processes:
            process.kill()
            process.join()
            process.close()
        for row in [*pipes, *answers]:
            for pipe in row:
                if pipe is not None:
                    pipe.close()


if __name__ == "__main__":
    from mpi4py import MPI
    from mpi4py.util import pkl5

    try:
        check(MPI.COMM_WORLD)
        check(pkl5.Intracomm(MPI.COMM_WORLD))
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(1)  # the others would wait for ever
    print(f"rank {MPI.COMM_WORLD.Get_rank()} agrees", flush=True)
