"""Block-diagonal and block-tridiagonal Fishers beside NumPy's loop and SciPy's bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg as sla
import scipy.sparse as sparse
import scipy.sparse.linalg as spla

import fastfisher as ff

from .job import Job, Real, as_test

DAMPING = 1e-1


# ---- scores to blocks ----
def scores(
    rng: np.random.Generator, n: int, count: int, size: int, dtype: Real
) -> tuple[np.ndarray, int]:
    return rng.standard_normal((n, count * size), dtype=dtype), size


def summed(S: np.ndarray, size: int) -> list[np.ndarray]:
    return ff.BlockDiagonalFisher.from_scores(S, [size] * (S.shape[1] // size)).blocks()


def summed_by_loop(S: np.ndarray, size: int) -> list[np.ndarray]:
    slices = [slice(i, i + size) for i in range(0, S.shape[1], size)]
    return [S[:, b].T @ S[:, b] / len(S) for b in slices]


def summed_by_matmul(S: np.ndarray, size: int) -> np.ndarray:
    T = S.reshape(len(S), -1, size)
    answer: np.ndarray = np.matmul(T.transpose(1, 2, 0), T.transpose(1, 0, 2)) / len(S)
    return answer


def summed_by_einsum(S: np.ndarray, size: int) -> np.ndarray:
    T = S.reshape(len(S), -1, size)
    answer: np.ndarray = np.einsum("nbi,nbj->bij", T, T) / len(S)
    return answer


def summed_error(blocks: np.ndarray | Sequence[np.ndarray], S: np.ndarray, size: int) -> float:
    some = range(0, len(blocks), max(1, len(blocks) // 16))
    wanted = [S[:, b * size : (b + 1) * size] for b in some]
    wanted = [(x.T.astype(np.longdouble) @ x.astype(np.longdouble)) / len(S) for x in wanted]
    error = max(np.abs(blocks[b] - w).max() for b, w in zip(some, wanted, strict=True))
    return float(error / max(w.max() for w in wanted))


# ---- systems ----
def system(
    rng: np.random.Generator, count: int, size: int, dtype: Real
) -> tuple[ff.BlockDiagonalFisher, np.ndarray, np.ndarray]:
    """Return F of 4 · size samples, its diagonal blocks and neighbours, and a right-hand side."""
    S = rng.standard_normal((4 * size, count * size), dtype=dtype)
    F = ff.BlockDiagonalFisher.from_scores(S, [size] * count)
    return F, np.array(F.blocks()), rng.standard_normal(count * size, dtype=dtype)


def chain(
    rng: np.random.Generator, count: int, size: int, dtype: Real
) -> tuple[ff.BlockDiagonalFisher, np.ndarray, np.ndarray, np.ndarray]:
    """Return the precision of a stable autoregression in blocks, as in `system`."""
    white = np.tril(rng.standard_normal((count, size, size)) / size) + 2 * np.eye(size)
    step = rng.standard_normal((count - 1, size, size)) / size
    D = np.swapaxes(white, 1, 2) @ white
    D[:-1] += np.swapaxes(step, 1, 2) @ step
    B = -np.swapaxes(white, 1, 2)[1:] @ step
    F = ff.BlockDiagonalFisher([size] * count, tridiagonal=True, reduction="sum", dtype=dtype)
    state = F._state()
    state |= {"sums": _sums(F, D, B), "n_samples": 1, "weight_sum": 1.0}
    F = ff.BlockDiagonalFisher._from_state(state)
    return F, D, B, rng.standard_normal(count * size, dtype=dtype)


def _sums(F: ff.BlockDiagonalFisher, D: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return blocks of at most a panel as the file format has them: squares, then neighbours."""
    sums = np.concatenate([D.ravel(), B.ravel()]).astype(F.dtype)
    assert sums.shape == F._sums_arrays()["sums"].shape
    return sums


def solve(F: ff.BlockDiagonalFisher, D: np.ndarray, b: np.ndarray) -> np.ndarray:
    answer: np.ndarray = F.solve(b, damping=DAMPING)
    return answer


def solve_by_loop(F: ff.BlockDiagonalFisher, D: np.ndarray, b: np.ndarray) -> np.ndarray:
    damping = DAMPING * np.eye(D.shape[1])
    parts = zip(D, b.reshape(len(D), -1), strict=True)
    return np.concatenate(
        [
            sla.cho_solve(sla.cho_factor(block + damping, lower=True, check_finite=False), x)
            for block, x in parts
        ]
    )


def solve_by_numpy(F: ff.BlockDiagonalFisher, D: np.ndarray, b: np.ndarray) -> np.ndarray:
    size = D.shape[1]
    return np.linalg.solve(D + DAMPING * np.eye(size), b.reshape(-1, size, 1)).ravel()


def solve_error(x: np.ndarray, F: ff.BlockDiagonalFisher, D: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(F @ x + DAMPING * x - b).max() / np.abs(b).max())


def chain_solve(
    F: ff.BlockDiagonalFisher, D: np.ndarray, B: np.ndarray, b: np.ndarray
) -> np.ndarray:
    answer: np.ndarray = F.solve(b, damping=DAMPING)
    return answer


def chain_by_banded(
    F: ff.BlockDiagonalFisher, D: np.ndarray, B: np.ndarray, b: np.ndarray
) -> np.ndarray:
    count, size, _ = D.shape
    bands = np.zeros((2 * size, count * size))
    columns = np.arange(count * size).reshape(count, size)
    for r in range(size):
        for c in range(size):
            if r >= c:
                bands[r - c, columns[:, c]] = D[:, r, c]
            bands[size + r - c, columns[:-1, c]] = B[:, r, c]
    bands[0] += DAMPING
    answer: np.ndarray = sla.solveh_banded(
        bands, b, lower=True, overwrite_ab=True, check_finite=False
    )
    return answer


def _sparse(D: np.ndarray, B: np.ndarray) -> Any:
    count, size, _ = D.shape
    damped = D + DAMPING * np.eye(size)
    blocks = np.concatenate([damped, B, np.swapaxes(B, 1, 2)])
    own = np.arange(count)
    row = np.concatenate([own, own[1:], own[:-1]])
    column = np.concatenate([own, own[:-1], own[1:]])
    order = np.lexsort((column, row))
    starts = np.searchsorted(row[order], np.arange(count + 1))
    return sparse.bsr_array((blocks[order], column[order], starts)).tocsc()


def chain_by_splu(
    F: ff.BlockDiagonalFisher, D: np.ndarray, B: np.ndarray, b: np.ndarray
) -> np.ndarray:
    options: dict[str, Any] = {"SymmetricMode": True}
    answer: np.ndarray = spla.splu(
        _sparse(D, B), permc_spec="NATURAL", diag_pivot_thresh=0.0, options=options
    ).solve(b)
    return answer


def chain_by_loop(
    F: ff.BlockDiagonalFisher, D: np.ndarray, B: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Block Cholesky as one would write it."""
    damping = DAMPING * np.eye(D.shape[1])
    x = b.reshape(len(D), -1).copy()
    factors, coupled = [], []
    A = D[0] + damping
    for t in range(len(D)):
        factors.append(sla.cholesky(A, lower=True, check_finite=False))
        x[t] = sla.solve_triangular(factors[t], x[t], lower=True, check_finite=False)
        if t + 1 < len(D):
            W = sla.solve_triangular(factors[t], B[t].T, lower=True, check_finite=False).T
            coupled.append(W)
            x[t + 1] -= W @ x[t]
            A = D[t + 1] + damping - W @ W.T
    for t in range(len(D) - 1, -1, -1):
        if t + 1 < len(D):
            x[t] -= coupled[t].T @ x[t + 1]
        x[t] = sla.solve_triangular(factors[t], x[t], lower=True, trans=1, check_finite=False)
    return x.ravel()


def chain_error(
    x: np.ndarray, F: ff.BlockDiagonalFisher, D: np.ndarray, B: np.ndarray, b: np.ndarray
) -> float:
    return solve_error(x, F, D, b)


def covariances(
    F: ff.BlockDiagonalFisher, D: np.ndarray, B: np.ndarray, b: np.ndarray
) -> np.ndarray:
    factor: Any = F.factor(damping=DAMPING)
    return np.array(factor.inverse_blocks())


def covariances_by_loop(
    F: ff.BlockDiagonalFisher, D: np.ndarray, B: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Rauch, Tung and Striebel's recursion on the block Cholesky factor."""
    size = D.shape[1]
    A, gains, own = D[0] + DAMPING * np.eye(size), [], []
    for t in range(len(D)):
        own.append(np.linalg.inv(A))
        if t + 1 < len(D):
            gains.append(B[t] @ own[t])
            A = D[t + 1] + DAMPING * np.eye(size) - gains[t] @ B[t].T
    for t in range(len(D) - 2, -1, -1):
        own[t] = own[t] + gains[t].T @ own[t + 1] @ gains[t]
    return np.array(own)


def covariances_error(
    found: np.ndarray, F: ff.BlockDiagonalFisher, D: np.ndarray, B: np.ndarray, b: np.ndarray
) -> float:
    wanted = covariances_by_loop(F, D, B, b)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def factor_work(k: Any, neighbours: Any) -> Any:
    """Flops of the factor and k right-hand sides, and one read of the blocks."""

    def of(count: int, size: int, itemsize: Any) -> Any:
        flops = count * size**3 / 3 + 2 * k * count * size**2
        flops += neighbours * count * (2 * size**3 + 4 * k * size**2)
        return flops, count * size**2 * itemsize * (0.5 + neighbours)

    return of


JOBS = [
    *(
        Job(
            "block Fisher",
            shape,
            make=scores,
            ours=summed,
            lines={
                "[S[:, b].T @ S[:, b] for b in blocks]": summed_by_loop,
                "matmul(Tᵀ, T) of S as (blocks, n, size)": summed_by_matmul,
                **({"einsum('nbi,nbj->bij', T, T)": summed_by_einsum} if shape[2] <= 16 else {}),
            },
            error=summed_error,
            tolerance=1e-14,
            work=lambda n, count, size, itemsize: (
                n * count * size * (size + 1),
                n * count * size * itemsize,
            ),
        )
        for shape in ((5000, 200, 64), (1000, 4096, 16), (400, 50_000, 4))
    ),
    *(
        Job(
            "block-diagonal solve",
            shape,
            make=system,
            ours=solve,
            lines={
                "cho_solve(cho_factor(F_b + λI), g_b) for each b": solve_by_loop,
                "np.linalg.solve(F + λI, g) of the stack": solve_by_numpy,
            },
            error=solve_error,
            tolerance=1e-12,
            work=factor_work(1, 0),
        )
        for shape in ((200, 64), (4096, 16), (50_000, 4))
    ),
    *(
        Job(
            "block-tridiagonal solve",
            shape,
            make=chain,
            ours=chain_solve,
            lines={
                "solveh_banded": chain_by_banded,
                "splu of the sparse matrix": chain_by_splu,
                "block Cholesky in NumPy": chain_by_loop,
            },
            error=chain_error,
            tolerance=1e-12,
            work=factor_work(1, 1),
        )
        for shape in ((10_000, 4), (2000, 16))
    ),
    Job(
        "covariances of a chain",
        (10_000, 4),
        make=chain,
        ours=covariances,
        lines={"Rauch–Tung–Striebel in NumPy": covariances_by_loop},
        error=covariances_error,
        tolerance=1e-12,
    ),
]

test_block_diagonal = as_test(JOBS)
