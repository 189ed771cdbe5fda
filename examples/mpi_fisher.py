"""Under MPI: Fisher scoring of a logistic regression whose samples lie in several processes.

mpiexec -n 4 python examples/mpi_fisher.py: each process has samples of its own. The scores stay
where they are; what travels is half a matrix and a vector per step, and every process ends with
the same parameters, to the last bit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastfisher as ff

Array = NDArray[np.float64]


def samples(rank: int, rows: int, params: int) -> tuple[Array, Array]:
    """What a process would read from its own file."""
    truth = np.random.default_rng(0).standard_normal(params) / np.sqrt(params)
    rng = np.random.default_rng([1, rank])
    X = rng.standard_normal((rows, params))
    return X, (rng.random(rows) < 1 / (1 + np.exp(-X @ truth))).astype(float)


def main(comm: Any, rows: int = 20_000, params: int = 50, steps: int = 8) -> tuple[Array, Array]:
    """Return the estimate and its standard errors; the process of rank 0 prints them."""
    rank = comm.Get_rank()
    X, y = samples(rank, rows, params)
    theta = np.zeros(params)
    for step in range(steps):
        mean = 1 / (1 + np.exp(-X @ theta))
        # The model's own Fisher, Σ μ(1 − μ) x xᵀ: weights beside rows that stay as they are.
        F = ff.DenseFisher(params, reduction="sum").update(X, weights=mean * (1 - mean))
        F = ff.distributed.allreduce(F, comm)
        gradient = X.T @ (y - mean)
        comm.Allreduce(None, gradient)  # in place
        move = F.solve(gradient)
        theta += move
        if rank == 0:
            print(f"step {step}: |move| = {np.abs(move).max():.1e}, {F.n_samples} samples")
    errors = np.sqrt(F.factor().inverse_diagonal())
    if rank == 0:
        print(f"theta[0] = {theta[0]:.4f} ± {errors[0]:.4f}")
    return theta, errors


if __name__ == "__main__":
    from mpi4py import MPI

    main(MPI.COMM_WORLD)
