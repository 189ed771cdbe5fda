"""What becomes of the items of a batch that have no factor: raise, NaN, shift or pinv."""

import numpy as np

from fastfisher._ops import batch_of
from fastfisher._ops.numpy_batch import Job
from fastfisher._ops.types import Array
from fastfisher.batch.solution import BatchSolution
from fastfisher.errors import FisherError, NonFiniteError, NotPositiveDefiniteError
from fastfisher.solvers.solution import Status

__all__ = ["failure", "shifted", "truncated"]


def failure(solution: BatchSolution) -> FisherError:
    """Return the error that names the first failed item and how many failed."""
    bad = batch_of(solution.status).xp.flatnonzero(solution.status)
    first, others = int(bad[0]), len(bad) - 1
    found = f"item {first}" + (f" and {others} more" if others else "")
    advice = "on_failure='nan', 'shift' or 'pinv' gives the others their answers."
    error: FisherError
    if int(solution.status[first]) == Status.NON_FINITE:
        error = NonFiniteError(
            f"F: expected finite matrices, right-hand sides and answers in all "
            f"{len(solution.status)} items, got failure of {found}, the first with NaN, infinity "
            f"or overflow. {advice}",
            row=first,
        )
    else:
        error = NotPositiveDefiniteError(
            f"F: expected {len(solution.status)} positive definite F + damping, got failure of "
            f"{found}, the first not positive definite. {advice}"
        )
    error.solution = solution
    return error


def shifted(
    job: Job, solution: BatchSolution, F: Array, shift: Array, rhs: Array | None, threads: int
) -> BatchSolution:
    """Return the solution with each failed item on the first rung of a ladder that works.

    The rungs are 2ʲ · eps · ‖F‖_∞, j = 0, 1, …, of each item; the first that works is found by
    bisection, for all failed items together.
    """
    ops = batch_of(F)
    xp = ops.xp
    bad = xp.flatnonzero(solution.status == int(Status.NOT_POSITIVE_DEFINITE))
    if bad.size == 0:
        return solution
    p, dtype = F.shape[1], F.dtype
    matrices, extra = _symmetric(F[bad]), shift[bad]
    right = None if rhs is None else rhs[bad]
    eps = np.finfo(dtype).eps
    with np.errstate(over="ignore"):
        norm = xp.minimum(xp.abs(matrices).sum(axis=2).max(axis=1), np.finfo(dtype).max / 8)
    first = (eps * xp.where(norm > 0, norm, 1)).astype(dtype)

    def attempt(rung: Array, some: Array) -> tuple[Array, Array, Array]:
        more = xp.ldexp(first[some], rung[some]).astype(dtype)
        given = None if right is None else right[some]
        found: tuple[Array, Array, Array] = ops.factored(
            job, matrices[some], extra[some] + more[:, None], given, threads
        )
        return found

    # A diagonal of 4 p ‖F‖ outweighs what stands beside it and the pivots' own tolerance.
    low = xp.full(bad.size, -1)
    high = xp.full(bad.size, int(np.ceil(np.log2(4 * p / eps))))
    while (open_ := xp.flatnonzero(high - low > 1)).size:
        middle = (low + high) // 2
        good = attempt(middle, open_)[1] != int(Status.NOT_POSITIVE_DEFINITE)
        high[open_[good]] = middle[open_[good]]
        low[open_[~good]] = middle[open_[~good]]
    value, status, rcond = attempt(high, xp.arange(bad.size))
    used = xp.array(solution.damping_used)
    added = xp.ldexp(first, high).astype(dtype)
    used[bad] += added if used.ndim == 1 else added[:, None]
    solution.value[bad], solution.rcond[bad] = value, rcond
    status[status == int(Status.SUCCESS)] = int(Status.SHIFTED)
    solution.status[bad] = status
    return BatchSolution(solution.value, solution.status, solution.rcond, used)


def truncated(
    job: Job, solution: BatchSolution, F: Array, shift: Array, rhs: Array | None
) -> BatchSolution:
    """Return the solution with the eigenvalues up to p·eps·λ_max of each failed item left out."""
    count, p = F.shape[:2]
    rank = np.full(count, p)
    rank[solution.status == Status.NON_FINITE] = 0
    bad = np.flatnonzero(solution.status == Status.NOT_POSITIVE_DEFINITE)
    if bad.size:
        matrices = _symmetric(F[bad])
        np.einsum("bii->bi", matrices)[...] += shift[bad]
        # Of the size of one, so that no eigenvalue leaves the range.
        _, power = np.frexp(np.abs(matrices).max(axis=(1, 2)))
        matrices = np.ldexp(matrices, -power[:, None, None])
        values, vectors = np.linalg.eigh(matrices)
        top = np.abs(values).max(axis=1, keepdims=True)
        kept = values > p * np.finfo(F.dtype).eps * top
        values = np.ldexp(values, power[:, None])
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            inverses = np.where(kept, 1 / values, 0).astype(F.dtype)
            right = None if rhs is None else rhs[bad]
            value = _pseudo(job, inverses, np.where(kept, values, 1), vectors, right)
        finite = np.isfinite(value.reshape(bad.size, -1)).all(axis=1)
        solution.value[bad] = value
        solution.value[bad[~finite]] = np.nan
        solution.status[bad] = np.where(finite, Status.TRUNCATED, Status.NON_FINITE)
        rank[bad] = kept.sum(axis=1)
    return BatchSolution(
        solution.value, solution.status, solution.rcond, solution.damping_used, rank=rank
    )


def _symmetric(F: Array) -> Array:
    """Return full matrices of the lower triangles, a copy."""
    xp = batch_of(F).xp
    lower: Array = xp.tril(F)
    lower += xp.swapaxes(xp.tril(F, -1), 1, 2)
    return lower


def _pseudo(job: Job, inverses: Array, values: Array, vectors: Array, rhs: Array | None) -> Array:
    """Return what `job` asks of V diag(values) Vᵀ; cut eigenvalues have value 1 and inverse 0."""
    answer: Array
    if rhs is not None:
        columns = rhs if rhs.ndim == 3 else rhs[:, :, None]
        answer = vectors @ (inverses[:, :, None] * (np.swapaxes(vectors, 1, 2) @ columns))
        return answer.reshape(rhs.shape)
    if job == "inverse":
        answer = (vectors * inverses[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    elif job == "inverse_diagonal":
        answer = (vectors * vectors * inverses[:, None, :]).sum(axis=2)
    else:
        answer = np.log(values).sum(axis=1)
    return answer
