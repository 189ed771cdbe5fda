"""The Fisher of the samples of all MPI processes: triangles summed by MPI, or in a fixed tree."""

from typing import Any, TypeVar

import numpy as np

from fastfisher import _check
from fastfisher._ops.border import takes_tensors
from fastfisher.distributed.tree import finite, tree
from fastfisher.errors import FisherError
from fastfisher.fisher.additive import Additive
from fastfisher.fisher.block_diagonal import BlockDiagonalFisher
from fastfisher.fisher.dense import DenseFisher
from fastfisher.fisher.diagonal import DiagonalFisher
from fastfisher.fisher.kronecker import KroneckerFisher

__all__ = ["allreduce"]

Sum = TypeVar("Sum", bound=Additive)


@takes_tensors
def allreduce(fisher: Sum, comm: Any, *, fixed_order: bool = False) -> Sum:
    """Return, in every process, the Fisher of the samples of all processes of an MPI communicator.

    Equivalent to ``comm.allreduce(fisher, op=operator.add)``, but that what travels are the bare
    triangles, in MPI's own sum.

    Parameters
    ----------
    fisher : accumulator
        Of this process's samples, built the same way in every process; it is not changed. One that
        is empty adds nothing.
    comm : mpi4py.MPI.Comm
        Or what has its `Get_rank`, `Get_size`, `Allreduce` (of an array in place, to a sum),
        `allgather`, `bcast`, `send` and `recv`.
    fixed_order : bool
        Join in the tree of `merge_tree` over the ranks: the bits then depend on the ranks'
        samples alone. The order of MPI's sum is its own, and may differ between libraries, numbers
        of nodes and placements.

    Returns
    -------
    accumulator, of the class of `fisher`

    Raises
    ------
    TypeError, ValueError
        In every process alike, if one gives no accumulator, or not all were built and called the
        same way.
    NonFiniteError
        In every process alike, if the sum is not finite: it overflows, or a part was not.

    Notes
    -----
    MPI's sum sends, from each of w processes, 2 (w − 1) / w times the triangle when it works in a
    ring: p² numbers in all, whatever w. The tree takes ⌈log₂ w⌉ rounds to one process and as many
    back. Either needs memory for up to three more accumulators. Centred sums are first shifted to
    the common mean, which takes one more sum of p numbers.

    The sums of a `SquareRootFisher`, a `LowRankFisher` and of EKFAC are no plain sums: these
    always take the tree. Only they, and `fixed_order`, send pickles, which a copy is made of
    and an older MPI limits to 2 GiB; ``mpi4py.util.pkl5.Intracomm(comm)`` does away with both.

    Examples
    --------
    In a file that ``mpiexec -n 4 python file.py`` runs:

    >>> from mpi4py import MPI  # doctest: +SKIP
    >>> F = ff.DenseFisher.from_scores(my_scores)  # doctest: +SKIP
    >>> F = ff.distributed.allreduce(F, MPI.COMM_WORLD)  # doctest: +SKIP
    """
    _check_alike(fisher, fixed_order, comm)
    with np.errstate(over="ignore", invalid="ignore"):
        in_order = fixed_order or not _adds(fisher)
        total = _joined(fisher, comm) if in_order else _summed(fisher, comm)
    return finite(total)


def _adds(fisher: Additive) -> bool:
    """Tell whether the arrays of the state, but for the mean, are sums that add."""
    if isinstance(fisher, KroneckerFisher):
        return not fisher._eigen
    return isinstance(fisher, DenseFisher | DiagonalFisher | BlockDiagonalFisher)


def _check_alike(fisher: Any, fixed_order: Any, comm: Any) -> None:
    """Raise, in every process, if not all can be merged; else one would wait for ever."""
    given = comm.allgather(_told(fisher, fixed_order))
    for rank, told in enumerate(given):
        if isinstance(told, TypeError):
            told.add_note(f"fisher: this is the process of rank {rank}.")
            raise told
        if told != given[0]:
            raise ValueError(
                f"fisher: expected {given[0]} in every process, got {told} in that of rank {rank}. "
                "Build them, and call, the same way."
            )


def _told(fisher: Any, fixed_order: Any) -> tuple[str, dict[str, Any]] | TypeError:
    """Return how this process's accumulator was built and is to be joined, or why it cannot be."""
    try:
        if not isinstance(fisher, Additive):
            raise TypeError(
                f"fisher: expected an accumulator, got {type(fisher).__name__}. "
                "Use what merges, such as DenseFisher or DiagonalFisher."
            )
        conventions = {
            **fisher._conventions(),
            "fixed_order": _check.flag("fixed_order", fixed_order),
        }
    except TypeError as error:
        return error
    return type(fisher).__name__, {
        name: getattr(value, "tolist", lambda value=value: value)()  # sizes of blocks
        for name, value in conventions.items()
    }


def _joined(fisher: Sum, comm: Any) -> Sum:
    """Join along the tree, whose leaves are ranks: the right one sends, the left one merges.

    An error travels in the place of a sum, so that no process waits for one.
    """
    rank = comm.Get_rank()
    total: Any = fisher.copy()

    def join(left: int, right: int) -> int:
        nonlocal total
        if rank == right:
            comm.send(total, dest=left)
        elif rank == left:
            total = _merged(total, comm.recv(source=right))
        return left

    root = tree(range(comm.Get_size()), join)
    total = comm.bcast(total if rank == root else None, root=root)
    if isinstance(total, FisherError):
        raise total
    return total  # type: ignore[no-any-return]


def _merged(one: Any, two: Any) -> Any:
    """Return `one` with `two` merged into it, or the error of either or of merging."""
    for part in (one, two):
        if isinstance(part, FisherError):
            return part
    try:
        return one._merge((two,), check_finite=False)
    except FisherError as error:
        return error


def _summed(fisher: Sum, comm: Any) -> Sum:
    """Sum the arrays of the state, after those about own means were moved to the common one."""
    counts = comm.allgather((fisher._weight_sum, fisher._n_samples))  # a few numbers, in rank order
    total = sum(weight for weight, _ in counts)
    own, weight = fisher._mean_or_none(), fisher._weight_sum
    mean = None
    if own is not None:
        # Σ w (s − m)* (s − m)ᵀ over all samples is Σ_r M_r + w_r (m_r − m)* (m_r − m)ᵀ.
        mean = own * (weight / total if total > 0.0 else 0.0)
        comm.Allreduce(None, mean)
        fisher = fisher.copy()
        fisher._add_outer(own - mean, weight)  # type: ignore[attr-defined]
    state = fisher._state()
    for name, array in state.items():
        if hasattr(array, "shape") and name not in fisher._conventions() and name != "mean":
            comm.Allreduce(None, array)
    state["weight_sum"], state["n_samples"] = total, sum(samples for _, samples in counts)
    if mean is not None:
        state["mean"] = mean
    return type(fisher)._from_state(state)  # type: ignore[return-value]
