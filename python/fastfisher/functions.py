"""The six functions: one call on a score array each, without keeping anything."""

from typing import Any

from fastfisher import _check, _memory
from fastfisher._ops import for_dtype, ops_of
from fastfisher._ops.border import takes_tensors
from fastfisher.fisher.dense import DenseFisher
from fastfisher.fisher.operator import OperatorFisher, is_operator
from fastfisher.fisher.protocol import Fisher
from fastfisher.fisher.score import ScoreFisher
from fastfisher.solvers.solution import Solution
from fastfisher.solvers.solve import solve_system

__all__ = [
    "as_fisher",
    "empirical_fisher",
    "fisher_diagonal",
    "fvp",
    "gram",
    "natural_gradient",
    "solve",
]


@takes_tensors
def empirical_fisher(
    scores: Any,
    *,
    weights: Any = None,
    center: bool = False,
    reduction: str = "mean",
    dtype: Any = None,
    out: Any = None,
    algorithm: str = "classical",
    check_finite: bool = True,
    n_threads: int | None = None,
) -> Any:
    """Return the empirical Fisher F = Σ w s* sᵀ / Σ w of the scores.

    Equivalent to ``scores.conj().T @ scores / len(scores)``, or with weights
    ``scores.conj().T @ (weights[:, None] * scores) / weights.sum()``.

    Parameters
    ----------
    scores : array (n, p), float64, float32, float16, bfloat16, complex128 or complex64
        One row per sample: ∇θ log p(xᵢ | θ). Any strides; never written to.
    weights : array (n,), optional
        Finite, not negative, not all zero.
    center : bool
        Subtract the (weighted) mean score.
    reduction : {"mean", "sum"}
        Divide by Σw (n without weights), or not.
    dtype : dtype, optional
        To sum and return in, no narrower than the scores; default theirs.
    out : array (p, p), optional
        Written to and returned; must not overlap the inputs.
    algorithm : {"classical", "strassen"}
        How the product is formed. "strassen" multiplies up to a seventh less, is accurate relative
        to the largest entry only (see Notes), takes real scores, and is the classical one below
        4096 parameters or samples.
    check_finite : bool
        Raise on NaN and infinity; costs next to nothing.
    n_threads : int, optional
        For this call; the result has the same bits for any number.

    Returns
    -------
    array (p, p), symmetric, or Hermitian for complex scores

    Raises
    ------
    NonFiniteError
        Names the first bad row and column.
    MemoryLimitError
        If p² numbers will not fit.
    TypeError, ValueError
        For arguments of the wrong kind or shape, or a mean over no samples.

    Notes
    -----
    n p² multiplications. Memory beside the result: half a matrix, and two blocks of packed rows
    (p/8 rows each, between 256 and 1024) or, for tall scores (n ≥ 8 p, p up to about 1000), 8 to 64
    partial sums of half a matrix each, about half of what the scores take at most.

    Complex scores cost what real ones of 2 p columns cost, 4 times as much as p real columns, and
    a whole matrix of memory where those take half of one.

    ``algorithm="strassen"`` cuts the columns in halves, those again, and forms the blocks below the
    diagonal by ℓ ≤ 2 levels of Strassen's seven products. With S* the scores as they enter the sum
    (times √w, less the mean), no entry of the sum Σ w s sᵀ is further from the exact one than
    3^ℓ · n · (n + 5 · 2^ℓ) · eps/2 · max(S*)² to first order, against n² · eps/2 · max(S*)²
    classically. Entries of parameters whose scores are smaller than the largest lose the digits
    they are smaller by; diagonal entries lose none. Where columns differ much in scale, scale them
    first or stay classical. It multiplies less but reads the scores more often: it took 1.08 of
    the classical time at n = p = 4096 and 1.04 to 1.07 at 8192 on two cores of Granite Rapids, so
    measure before you choose it.

    The *empirical* Fisher has the scores at the observed data; it differs from the exact Fisher
    away from the optimum.

    References
    ----------
    S. Amari, "Natural gradient works efficiently in learning", Neural Comput. 10 (1998) 251.
    N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM 2002, ch. 23.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> ff.empirical_fisher(np.array([[1.0, 0.0], [1.0, 2.0]]))
    array([[1., 1.],
           [1., 2.]])
    """
    centred = center is not False and _check.flag("center", center)
    fast = algorithm != "classical"
    ops, scores, weights, mean, held, scale, check_finite, threads = _prepared(
        scores, weights, centred and fast, reduction, check_finite, n_threads, dtype
    )
    fast = fast and _check.algorithm(algorithm, held)
    params = scores.shape[1]
    if out is not None:
        out = ops.to_output(out, (params, params), held, scores, weights)
    if params > _memory.SMALL:
        _memory.guard(
            ops.Triangle.bytes_to_sum(scores.shape[0], params, held, dense=out is None),
            "empirical_fisher",
            "Use ScoreFisher (products, dual and CG solves) or fisher_diagonal.",
            ops,
        )
    triangle = ops.Triangle(params, held)
    if fast:
        triangle.add_scores_fast(scores, weights, mean, check_finite=check_finite, threads=threads)
    elif centred:
        triangle.add_centred_scores(
            scores, weights, fresh=True, check_finite=check_finite, threads=threads
        )
    else:
        triangle.add_scores(
            scores, weights, None, fresh=True, check_finite=check_finite, threads=threads
        )
    return triangle.to_dense(scale, out, threads)


@takes_tensors
def fisher_diagonal(
    scores: Any,
    *,
    weights: Any = None,
    center: bool = False,
    reduction: str = "mean",
    check_finite: bool = True,
    n_threads: int | None = None,
) -> Any:
    """Return the diagonal of the empirical Fisher.

    Equivalent to ``(abs(scores) ** 2).mean(axis=0)``, in one pass. It needs scores per sample: the
    square of a mean gradient is something else.

    Parameters
    ----------
    scores : array (n, p), float64, float32, float16, bfloat16, complex128 or complex64
        One row per sample.
    weights : array (n,), optional
        Finite, not negative, not all zero.
    center : bool
        Subtract the (weighted) mean score.
    reduction : {"mean", "sum"}
        Divide by Σw or not.
    check_finite : bool
        Raise on NaN and infinity.
    n_threads : int, optional
        For this call.

    Returns
    -------
    array (p,), real

    Raises
    ------
    NonFiniteError, TypeError, ValueError

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> ff.fisher_diagonal(np.array([[1.0, 0.0], [1.0, 2.0]]))
    array([1., 2.])
    """
    ops, scores, weights, mean, held, scale, check_finite, threads = _prepared(
        scores, weights, center, reduction, check_finite, n_threads
    )
    out = ops.diagonal(scores, weights, mean, held, check_finite, threads)
    out *= scale
    return out


@takes_tensors
def fvp(
    scores: Any,
    v: Any,
    *,
    weights: Any = None,
    center: bool = False,
    reduction: str = "mean",
    damping: float = 0.0,
    check_finite: bool = True,
    n_threads: int | None = None,
) -> Any:
    """Return the Fisher-vector product (F + damping · I) v in one pass over the scores.

    Equivalent to ``scores.conj().T @ (scores @ v) / len(scores) + damping * v``; F is never formed.

    Parameters
    ----------
    scores : array (n, p), float64, float32, float16, bfloat16, complex128 or complex64
        One row per sample.
    v : array (p,) or (p, k)
        One vector or several as columns; converted to the dtype of the scores.
    weights : array (n,), optional
        Finite, not negative, not all zero.
    center : bool
        Subtract the (weighted) mean score.
    reduction : {"mean", "sum"}
        Divide by Σw or not.
    damping : float
        λ of F + λI, not negative.
    check_finite : bool
        Raise on NaN and infinity in the scores or in `v`.
    n_threads : int, optional
        For this call.

    Returns
    -------
    array, of the shape of `v`

    Raises
    ------
    NonFiniteError, TypeError, ValueError

    Notes
    -----
    2 n p multiplications per column, one read of the scores. Complex scores whose rows do not lie
    in one run each are read in two passes, real and imaginary parts apart.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> ff.fvp(np.array([[1.0, 0.0], [1.0, 2.0]]), np.array([1.0, 1.0]))
    array([2., 3.])
    """
    ops, scores, weights, mean, held, scale, _, threads = _prepared(
        scores, weights, center, reduction, check_finite, n_threads
    )
    columns = _check.columns(ops, "v", v, scores.shape[1], held)
    damping = _check.cut("damping", damping)
    flat = columns.ndim == 1
    V = columns.reshape(-1, 1) if flat else columns
    out = ops.fvp(scores, weights, mean, V, scale, damping, threads)
    if check_finite and not ops.all_finite(out):
        _check.finite_inputs(ops, scores, V, threads)
    return out.reshape(-1) if flat else out


@takes_tensors
def gram(
    scores: Any,
    *,
    weights: Any = None,
    center: bool = False,
    reduction: str = "mean",
    check_finite: bool = True,
    n_threads: int | None = None,
) -> Any:
    """Return the Gram matrix W½ S Sᴴ W½ / Σw, the n × n dual of F.

    Equivalent to ``scores @ scores.conj().T / len(scores)``. F and it share their non-zero
    eigenvalues.

    Parameters
    ----------
    scores : array (n, p), float64, float32, float16, bfloat16, complex128 or complex64
        One row per sample.
    weights : array (n,), optional
        Finite, not negative, not all zero.
    center : bool
        Subtract the (weighted) mean score.
    reduction : {"mean", "sum"}
        Divide by Σw or not.
    check_finite : bool
        Raise on NaN and infinity.
    n_threads : int, optional
        For this call.

    Returns
    -------
    array (n, n), symmetric, or Hermitian for complex scores

    Raises
    ------
    NonFiniteError, MemoryLimitError, TypeError, ValueError

    Notes
    -----
    n² p multiplications. Memory beside the result as for `empirical_fisher`, with n and p swapped.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> ff.gram(np.array([[1.0, 0.0, 1.0], [1.0, 2.0, 0.0]]), reduction="sum")
    array([[2., 1.],
           [1., 5.]])
    """
    ops, scores, weights, mean, held, scale, check_finite, threads = _prepared(
        scores, weights, center, reduction, check_finite, n_threads
    )
    samples = scores.shape[0]
    if samples == 0:
        return ops.empty((0, 0), held)
    if samples > _memory.SMALL:
        _memory.guard(
            ops.Triangle.bytes_to_sum(scores.shape[1], samples, held, dense=True),
            "gram",
            "Use ScoreFisher with CG(), or DenseFisher if p is small.",
            ops,
        )
    triangle = ops.Triangle(samples, held)
    triangle.set_gram(scores, weights, mean, check_finite, threads)
    return triangle.to_dense(scale, None, threads)


@takes_tensors
def natural_gradient(
    scores: Any,
    grad: Any = None,
    *,
    damping: Any,
    damping_mode: str = "absolute",
    solver: Any = "auto",
    weights: Any = None,
    center: bool = False,
    check_finite: bool = True,
    n_threads: int | None = None,
) -> Any:
    """Return the natural gradient (F + damping)⁻¹ g, with F the empirical Fisher of the scores.

    Equivalent to ``np.linalg.solve(S.T @ S / n + damping * np.eye(p), S.mean(axis=0))``, for
    complex scores ``np.linalg.solve(S.conj().T @ S / n + …, S.conj().mean(axis=0))``.

    Parameters
    ----------
    scores : array (n, p), float64, float32, float16, bfloat16, complex128 or complex64; n ≥ 1
        One row per sample.
    grad : array (p,) or (p, k), optional
        g. None means the (weighted) mean score, the ascent direction of the mean log-likelihood
        (of complex scores the mean of s*), and takes a formula for it that is more accurate where
        `solver` has one: ``Dual()`` and ``QR()``.
    damping : float or array (p,)
        λ, finite and not negative; a vector adds diag(λ).
    damping_mode : {"absolute", "trace", "diagonal"}
        F + λI, F + λ (tr F / p) I, or F + λ diag(F).
    solver : "auto", Cholesky(…), CG(…), Dual(…), QR(…) or Eigh()
        "auto" is the dual when n < p, else Cholesky up to p = 16384, else CG.
    weights : array (n,), optional
        Finite, not negative, not all zero.
    center : bool
        Subtract the (weighted) mean score in F; the gradient stays the plain mean.
    check_finite : bool
        Raise on NaN and infinity.
    n_threads : int, optional
        For this call.

    Returns
    -------
    array (p,), or of the shape of `grad`

    Raises
    ------
    NotPositiveDefiniteError
        Names the pivot and a damping that would do.
    ConvergenceError, NonFiniteError, MemoryLimitError, TypeError, ValueError

    Notes
    -----
    By Cholesky the only p² object is half a matrix, factored where it lies.

    References
    ----------
    S. Amari, "Natural gradient works efficiently in learning", Neural Comput. 10 (1998) 251.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> ff.natural_gradient(np.array([[1.0, 0.0], [1.0, 2.0]]), damping=1.0).round(3)
    array([0.4, 0.2])
    """
    fisher = ScoreFisher(
        scores, weights=weights, center=center, check_finite=check_finite, n_threads=n_threads
    )
    return solve_system(
        fisher,
        grad,
        damping=damping,
        damping_mode=damping_mode,
        solver=solver,
        check_finite=check_finite,
        threads=_check.threads(n_threads),
        diagnose=False,
        name="grad",
    ).value


@takes_tensors
def solve(
    fisher: Any,
    rhs: Any,
    *,
    damping: Any = 0.0,
    damping_mode: str = "absolute",
    solver: Any = "auto",
    on_failure: str = "raise",
    check_finite: bool = True,
    n_threads: int | None = None,
) -> Solution:
    """Solve (F + damping) x = rhs and tell how it went.

    Equivalent to ``np.linalg.solve(F + damping * np.eye(p), rhs)``.

    Parameters
    ----------
    fisher : Fisher or array (p, p)
        Any representation, or a symmetric or Hermitian matrix, of which only the lower triangle is
        read; or what has a shape and products ``fisher @ v`` alone, as SciPy's ``LinearOperator``.
    rhs : array (p,) or (p, k)
        One right-hand side or several as columns; None for the mean score of a representation that
        holds its scores.
    damping : float or array (p,)
        λ, finite and not negative; a vector adds diag(λ).
    damping_mode : {"absolute", "trace", "diagonal", "factored"}
        F + λI, F + λ (tr F / p) I, or F + λ diag(F); `KroneckerFisher` alone has "factored".
    solver : "auto", Cholesky(…), CG(…), Dual(…), QR(…) or Eigh()
        The choice of "auto" is in ``Solution.method``.
    on_failure : {"raise", "nan", "shift", "pinv"}
        Raise; return NaN with the status; add the smallest damping of the ladder 2ʲ eps ‖F‖,
        j = 0, 1, …, that works, from √eps ‖F‖ on where answers lose digits by ‖F‖ / λ as in the
        dual (``SHIFTED``, see ``damping_used``); or drop the eigenvalues that
        are not above p eps λ_max (``TRUNCATED``, see ``rank``). The last two cure a matrix that is
        not positive definite; other failures still raise.
    check_finite : bool
        Raise on NaN and infinity in the right-hand side.
    n_threads : int, optional
        For this call.

    Returns
    -------
    Solution

    Raises
    ------
    NotPositiveDefiniteError
        Names the pivot and a damping that would do.
    ConvergenceError, NonFiniteError, MemoryLimitError, TypeError, ValueError

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> singular = np.ones((2, 2))
    >>> solution = ff.solve(singular, np.array([1.0, 1.0]), on_failure="pinv")
    >>> solution.value.round(12), solution.status.name, solution.rank
    (array([0.5, 0.5]), 'TRUNCATED', 1)
    """
    threads = _check.threads(n_threads)
    fisher = as_fisher(fisher, n_threads)
    return solve_system(
        fisher,
        rhs,
        damping=damping,
        damping_mode=damping_mode,
        solver=solver,
        on_failure=on_failure,
        check_finite=_check.flag("check_finite", check_finite),
        threads=threads,
    )


def as_fisher(fisher: Any, n_threads: int | None = None) -> Fisher:
    """Return a representation as it is, a symmetric matrix as a DenseFisher, or an operator's."""
    if isinstance(fisher, Fisher):
        return fisher
    if is_operator(fisher):
        return OperatorFisher.from_operator(fisher)
    array = _check.matrix(ops_of(fisher), fisher, "fisher")
    return DenseFisher.from_matrix(array, reduction="sum", n_threads=n_threads)


def _prepared(
    scores: Any,
    weights: Any,
    center: bool,
    reduction: str,
    check_finite: bool,
    n_threads: int | None,
    dtype: Any = None,
) -> tuple[Any, Any, Any, Any, Any, float, bool, int]:
    """Return ops, scores, weights, mean, held, scale, check_finite and threads, all checked."""
    ops = ops_of(scores)
    scores = _check.scores(ops, scores)
    ops = for_dtype(ops, scores.dtype)
    if reduction != "mean":
        _check.reduction(reduction)
    threads = 0 if n_threads is None else _check.threads(n_threads)
    samples = scores.shape[0]
    if samples == 0:
        _check.has_rows(scores, reduction)
    held = _check.accumulation_dtype(dtype, scores.dtype)
    total = float(samples)
    if weights is not None:
        weights, total = _check.weights(ops, weights, samples, held)
    mean = None
    if center is not False and _check.flag("center", center) and samples:
        mean = ops.column_mean(scores, weights, held, check_finite, threads)
    scale = 1.0 / total if reduction == "mean" else 1.0
    return ops, scores, weights, mean, held, scale, check_finite, threads
