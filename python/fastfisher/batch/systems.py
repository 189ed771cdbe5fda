"""Solve, inverse, inverse diagonal and log-determinant of a batch of matrices."""

from typing import Any

import numpy as np

from fastfisher import _check, _memory
from fastfisher._ops import batch_of, ops_of
from fastfisher._ops.border import takes_tensors
from fastfisher._ops.numpy_batch import Job
from fastfisher._ops.types import Array
from fastfisher.batch import extended, failure
from fastfisher.batch.solution import BatchSolution
from fastfisher.solvers.damping import MODES
from fastfisher.solvers.failure import POLICIES

__all__ = ["inverse", "inverse_diagonal", "logdet", "solve"]


@takes_tensors
def solve(
    F: Any,
    rhs: Any,
    *,
    damping: Any = 0.0,
    damping_mode: str = "absolute",
    on_failure: str = "raise",
    precision: str = "double",
    n_threads: int | None = None,
) -> BatchSolution:
    """Solve (F + damping) x = rhs for every item of a batch.

    Equivalent to ``np.linalg.solve(F + damping * np.eye(p), rhs)``.

    Parameters
    ----------
    F : array (B, p, p), float64 or float32
        Symmetric matrices, of which the lower triangles are read; any strides. (1, p, p) serves
        every right-hand side. With ``precision="extended"`` also a pair (hi, lo) of float64 arrays
        whose exact sum is meant, or `Scores`.
    rhs : array (B, p) or (B, p, k)
        One vector per item, or several as columns.
    damping : float or array (B,)
        λ of each item, finite and not negative.
    damping_mode : {"absolute", "trace", "diagonal"}
        Adds λ, λ · tr(F)/p, or λ · diag(F) (Marquardt) to the diagonal.
    on_failure : {"raise", "nan", "shift", "pinv"}
        What to do about items that are not positive definite: raise, answer NaN, add the smallest
        damping of a doubling ladder that works, or leave out the eigenvalues up to p · eps · λ_max
        (the negative ones too). Items that are not finite raise or are answered by NaN. All is
        told item by item in ``status``.
    precision : {"double", "extended"}
        Extended computes in double-double and fills ``error_bound``: a proven bound of
        ``max|x − x_true| / max|x_true|`` over the parameters, rounding included, for F exactly as
        given; infinity where nothing can be proven. It takes condition numbers up to about 10²⁵, in
        any units, absolute damping, and ``on_failure`` "raise" or "nan".
    n_threads : int, optional
        For this call; the result has the same bits for any number.

    Returns
    -------
    BatchSolution
        With ``value`` of the shape of `rhs`.

    Raises
    ------
    NotPositiveDefiniteError, NonFiniteError
        Names the first item that failed and how many did; only with ``on_failure="raise"``. The
        error's ``solution`` has the answers of all other items.
    MemoryLimitError
        If the answers will not fit.
    TypeError, ValueError
        For arguments of the wrong kind or shape.

    Notes
    -----
    p³/3 + 2 k p² operations per item, on eight float64 items (AVX-512) at a time. An item counts as
    not positive definite where a pivot is at most p · eps times its diagonal entry. Every matrix is
    scaled by powers of two to a diagonal from 1 to 4 first, so the units of the parameters do not
    matter. The bits of an answer depend on nothing but its own item. Extended precision costs about
    p³ operations of 50 flops.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = np.array([[[4.0, 0.0], [0.0, 2.0]], [[1e300, 0.0], [0.0, 1e-300]]])
    >>> ff.batch.solve(F, np.ones((2, 2))).value
    array([[2.5e-001, 5.0e-001],
           [1.0e-300, 1.0e+300]])
    """
    exact = extended.source(F) if _extended(precision, damping_mode, on_failure) else None
    matrices = _matrices(extended.unextended(F)) if exact is None else exact.matrix
    count, p = len(matrices), matrices.shape[2]
    ops = batch_of(matrices)
    right = ops.to_vector("rhs", rhs, matrices.dtype)
    if (
        right.ndim not in (2, 3)
        or right.shape[1] != p
        or (len(right) != count and 1 not in (len(right), count))
    ):
        raise ValueError(
            f"rhs: expected shape ({count}, {p}) or ({count}, {p}, k), got {right.shape}. "
            "Give one vector per item, or several as columns."
        )
    if len(right) != count:
        count = len(right) if count == 1 else count
        matrices = ops.xp.broadcast_to(matrices, (count, *matrices.shape[1:]))
        right = ops.xp.broadcast_to(right, (count, *right.shape[1:]))
    _memory.guard(right.nbytes, "batch.solve", "Split the batch.", ops_of(matrices))
    if exact is not None:
        return _run_extended(exact.extend(count), right, damping, on_failure, n_threads)
    return _run(
        "solve",
        matrices,
        right,
        damping,
        damping_mode,
        on_failure,
        n_threads,
    )


@takes_tensors
def inverse(
    F: Any,
    *,
    damping: Any = 0.0,
    damping_mode: str = "absolute",
    on_failure: str = "raise",
    precision: str = "double",
    n_threads: int | None = None,
) -> BatchSolution:
    """Invert F + damping for every item of a batch.

    Equivalent to ``np.linalg.inv(F + damping * np.eye(p))``.

    Parameters
    ----------
    F, damping, damping_mode, on_failure, precision, n_threads
        As in `solve`.

    Returns
    -------
    BatchSolution
        With ``value`` (B, p, p), symmetric. With ``precision="extended"`` its ``error_bound`` is a
        proven bound of ‖I − X A‖_∞ of the equilibrated A and the double-double X that ``value``
        rounds, plus 2⁻⁵³: the relative error of X in that norm.

    Raises
    ------
    NotPositiveDefiniteError, NonFiniteError, MemoryLimitError, TypeError, ValueError
        As in `solve`.

    Notes
    -----
    p³ operations per item.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> ff.batch.inverse(np.array([[[2.0, 0.0], [0.0, 4.0]]])).value
    array([[[0.5 , 0.  ],
            [0.  , 0.25]]])
    """
    exact = extended.source(F) if _extended(precision, damping_mode, on_failure) else None
    matrices = _matrices(extended.unextended(F)) if exact is None else exact.matrix
    p = matrices.shape[2]
    size = len(matrices) * p * p * matrices.itemsize
    _memory.guard(size, "batch.inverse", "Split the batch, or use solve.", ops_of(matrices))
    if exact is not None:
        return _run_extended(exact, None, damping, on_failure, n_threads)
    return _run(
        "inverse",
        matrices,
        None,
        damping,
        damping_mode,
        on_failure,
        n_threads,
    )


@takes_tensors
def inverse_diagonal(
    F: Any,
    *,
    damping: Any = 0.0,
    damping_mode: str = "absolute",
    on_failure: str = "raise",
    n_threads: int | None = None,
) -> BatchSolution:
    """Return the diagonal of (F + damping)⁻¹ for every item: the variances of the parameters.

    Equivalent to ``np.linalg.inv(F + damping * np.eye(p)).diagonal(axis1=1, axis2=2)``.

    Parameters
    ----------
    F, damping, damping_mode, on_failure, n_threads
        As in `solve`.

    Returns
    -------
    BatchSolution
        With ``value`` (B, p).

    Raises
    ------
    NotPositiveDefiniteError, NonFiniteError, TypeError, ValueError
        As in `solve`.

    Notes
    -----
    2p³/3 operations per item.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> ff.batch.inverse_diagonal(np.array([[[2.0, 0.0], [0.0, 4.0]]])).value
    array([[0.5 , 0.25]])
    """
    return _run(
        "inverse_diagonal",
        _matrices(extended.unextended(F)),
        None,
        damping,
        damping_mode,
        on_failure,
        n_threads,
    )


@takes_tensors
def logdet(
    F: Any,
    *,
    damping: Any = 0.0,
    damping_mode: str = "absolute",
    on_failure: str = "raise",
    n_threads: int | None = None,
) -> BatchSolution:
    """Return log det (F + damping) for every item of a batch.

    Equivalent to ``np.linalg.slogdet(F + damping * np.eye(p))[1]``.

    Parameters
    ----------
    F, damping, damping_mode, on_failure, n_threads
        As in `solve`. After ``on_failure="pinv"`` a truncated item has the logarithm of the product
        of the eigenvalues that were kept.

    Returns
    -------
    BatchSolution
        With ``value`` (B,).

    Raises
    ------
    NotPositiveDefiniteError, NonFiniteError, TypeError, ValueError
        As in `solve`.

    Notes
    -----
    p³/3 operations per item. No determinant overflows: exponents are added apart.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> ff.batch.logdet(np.array([np.eye(3), np.exp(700.0) * np.eye(3)])).value.round(9)
    array([   0., 2100.])
    """
    return _run(
        "logdet",
        _matrices(extended.unextended(F)),
        None,
        damping,
        damping_mode,
        on_failure,
        n_threads,
    )


def _run(
    job: Job,
    F: Array,
    rhs: Array | None,
    damping: Any,
    mode: str,
    policy: str,
    n_threads: int | None,
) -> BatchSolution:
    if policy not in POLICIES:
        raise ValueError(
            f"on_failure: expected one of {', '.join(POLICIES)}, got {policy!r}. "
            "'nan' answers NaN for the failed items and nothing else."
        )
    threads = _check.threads(n_threads)
    ops = batch_of(F)
    if policy not in ops.policies:
        raise ValueError(
            f"on_failure: expected one of {', '.join(ops.policies)} for arrays on a device, got "
            f"{policy!r}. Pass host copies of the items that failed."
        )
    used = _damping(F, damping, mode)
    shift = ops.xp.broadcast_to(used if used.ndim == 2 else used[:, None], F.shape[:2])
    value, status, rcond = ops.factored(job, F, shift, rhs, threads)
    solution = BatchSolution(value, status, rcond, used)
    if policy == "pinv":
        return failure.truncated(job, solution, F, shift, rhs)
    if policy == "nan" or not status.any():
        return solution
    if policy == "shift":
        return failure.shifted(job, solution, F, shift, rhs, threads)
    raise failure.failure(solution)


def _run_extended(
    exact: extended.Source, rhs: Array | None, damping: Any, policy: str, n_threads: int | None
) -> BatchSolution:
    threads = _check.threads(n_threads)
    used = _damping(exact.matrix, damping, "absolute")
    shift = np.broadcast_to(used[:, None], (len(used), exact.matrix.shape[2]))
    solution = exact.answer(rhs, used, shift, threads)
    if policy == "raise" and solution.status.any():
        raise failure.failure(solution)
    return solution


def _extended(precision: str, mode: str, policy: str) -> bool:
    if precision not in extended.PRECISIONS:
        raise ValueError(
            f"precision: expected one of {', '.join(extended.PRECISIONS)}, got {precision!r}. "
            "'extended' is double-double with an error bound."
        )
    if precision == "double":
        return False
    if mode != "absolute":
        raise ValueError(
            f"damping_mode: expected 'absolute' with precision='extended', got {mode!r}. "
            "Give the numbers themselves: the bound holds for exactly those."
        )
    if policy not in ("raise", "nan"):
        raise ValueError(
            f"on_failure: expected 'raise' or 'nan' with precision='extended', got {policy!r}. "
            "A matrix that was changed has no error bound; solve those items in double."
        )
    return True


def _matrices(F: Any) -> Array:
    matrices: Array = batch_of(F).to_array("F", F)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or matrices.shape[1] == 0:
        raise ValueError(
            f"F: expected square matrices (B, p, p) with p ≥ 1, got shape {matrices.shape}. "
            "A single matrix is F[None]."
        )
    return matrices


def _damping(F: Array, damping: Any, mode: str) -> Array:
    """Return what is added to the diagonal, (B,) or (B, p), in F's dtype."""
    ops = batch_of(F)
    xp = ops.xp
    given = ops.to_vector("damping", damping, np.dtype(np.float64))
    if given.ndim > 1 or (given.ndim == 1 and len(given) != len(F)):
        raise ValueError(
            f"damping: expected a number or shape ({len(F)},), one per item, got shape "
            f"{given.shape}. Other diagonals are added to F itself."
        )
    if not bool(((given >= 0.0) & (given <= np.finfo(F.dtype).max)).all()):
        raise ValueError(
            f"damping: expected finite numbers in {F.dtype} that are not negative, got "
            f"{damping}. Damping makes F + λI better conditioned; it never takes away."
        )
    amount: Array = (
        given.astype(F.dtype) if given.ndim else xp.full(len(F), float(given), dtype=F.dtype)
    )
    if mode not in MODES:
        raise ValueError(
            f"damping_mode: expected one of {', '.join(MODES)}, got {mode!r}. 'absolute' is F + λI."
        )
    diagonal = F.diagonal(axis1=1, axis2=2)
    with np.errstate(over="ignore", invalid="ignore"):
        if mode == "trace":
            amount = amount * diagonal.mean(axis=1)
        elif mode == "diagonal":
            amount = amount[:, None] * diagonal
    return amount
