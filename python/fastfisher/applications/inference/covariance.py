"""Covariances of estimates: the outer product of scores (OPG, BHHH), and the sandwich."""

from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops import ops_of
from fastfisher._ops.border import takes_tensors
from fastfisher._ops.conjugates import hermitian_part
from fastfisher.applications.inference.pooled import Term, one_block, real_scores, terms
from fastfisher.applications.total import as_total
from fastfisher.errors import NonFiniteError, NotPositiveDefiniteError
from fastfisher.fisher import DenseFisher, DiagonalFisher, ScoreFisher

__all__ = ["opg_covariance", "sandwich_covariance", "score_covariance"]


@takes_tensors
def opg_covariance(
    scores: Any, *, weights: Any = None, solver: Any = "auto", n_threads: int | None = None
) -> Any:
    """Return the outer-product-of-gradients covariance of an estimate, (SᵀS)⁻¹ (BHHH).

    Equivalent to ``inv(scores.T @ scores)``, or with weights
    ``inv(scores.T @ (weights[:, None] * scores))``.

    Parameters
    ----------
    scores : array (n, p), float64, float32, float16 or bfloat16
        Scores of each sample at the estimate.
    weights : array (n,), optional
        A weight of w counts a sample w times.
    solver : "auto", Cholesky() or QR()
        ``QR()`` has the error of the condition number of the scores instead of its square.
    n_threads : int, optional

    Returns
    -------
    array (p, p), float64
        Symmetric. The roots of its diagonal are standard errors.

    Raises
    ------
    NotPositiveDefiniteError
        Where scores are linearly dependent.
    NonFiniteError, MemoryLimitError, TypeError, ValueError

    See Also
    --------
    sandwich_covariance : where the model may be wrong.

    Notes
    -----
    n p²/2 + p³ multiplications by Cholesky. It estimates F⁻¹ where the model is right; for scores
    that do not fit in memory it is ``F.factor().inverse()`` of any accumulator of sums.

    References
    ----------
    E. K. Berndt, B. H. Hall, R. E. Hall, J. A. Hausman, "Estimation and inference in nonlinear
    structural models", Ann. Econ. Soc. Meas. 3 (1974) 653.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> x = np.array([1.0, 3.0, 4.0, 8.0])  # the mean of x as the rate of a Poisson distribution
    >>> scores = ff.Poisson(x.mean()).score(x)
    >>> ff.opg_covariance(scores).round(3)
    array([[0.615]])
    """
    S = real_scores(scores)
    samples, params = S.shape
    if samples < params:
        raise NotPositiveDefiniteError(
            f"scores: expected at least as many samples as parameters, got shape {S.shape}. "
            "SᵀS is singular: use more samples, or the expected information."
        )
    if S.dtype != np.float64 and solver == "auto":
        F = DenseFisher.from_scores(
            S, weights=weights, dtype=np.float64, reduction="sum", n_threads=n_threads
        )
        return F.factor(n_threads=n_threads).inverse()
    held = ScoreFisher(S.astype(np.float64, copy=False), weights=weights, reduction="sum")
    return held.factor(solver=solver, n_threads=n_threads).inverse()


@takes_tensors
def score_covariance(
    scores: Any,
    *,
    weights: Any = None,
    clusters: Any = None,
    lags: int | None = None,
    kernel: str = "bartlett",
    correction: str = "none",
    n_threads: int | None = None,
) -> Any:
    """Return M, the estimated covariance of the total score: the filling of the sandwich.

    Equivalent to ``scores.T @ scores`` for independent samples, to ``Y.T @ Y`` with a row
    ``scores[clusters == c].sum(axis=0)`` for each cluster, and to
    ``sum(w[d] * (scores[d:].T @ scores[:-d] + …))`` over the lags of a series.

    Parameters
    ----------
    scores : array (n, p), float64, float32, float16 or bfloat16
        Of each sample; summed in float64. A sampling weight belongs in them: multiply the rows.
    weights : array (n,), optional
        A weight of w counts a sample w times: Σ w s sᵀ, or Σ w s within a cluster.
    clusters : array (n,), or two of them as a tuple or an array (n, 2), optional
        Labels, of any type that can be sorted. Samples with the same label may depend on each
        other; with two labels, those that share either one.
    lags : int, optional
        Samples are a series in time order, and those up to so many steps apart may depend on each
        other.
    kernel : {"bartlett", "parzen", "uniform"}
        How products at lag d ≤ L weigh: 1 − d/(L + 1) (Newey and West), Parzen's, or 1.
    correction : {"none", "CR1"}
        For few samples: multiply by G/(G − 1) · (n − 1)/(n − p) with G clusters, by n/(n − p)
        without clusters (known as HC1); of two ways of clustering, each term by its own.
    n_threads : int, optional

    Returns
    -------
    array (p, p), float64
        Symmetric, and positive semi-definite for independent samples, one way of clustering and
        ``kernel="bartlett"``. Two ways, M₁ + M₂ − M₁₂, and the other kernels may give a matrix with
        negative eigenvalues: it is returned as it is.

    Raises
    ------
    NonFiniteError, MemoryLimitError, TypeError, ValueError

    See Also
    --------
    sandwich_covariance

    Notes
    -----
    Every case is a sum of terms c YᵀY, with rows of Y that are sums of scores: of the samples of a
    cluster, or of L + 1 consecutive ones, which make Bartlett's kernel in one symmetric product
    (``"uniform"`` takes two, ``"parzen"`` L + 1). n p²/2 multiplications for each term at most.
    Rows are made in blocks of 2 MiB, so memory beside the result is that and a few indices per
    sample.

    References
    ----------
    A. C. Cameron, J. B. Gelbach, D. L. Miller, "Robust inference with multiway clustering", J. Bus.
    Econ. Stat. 29 (2011) 238.
    W. K. Newey, K. D. West, "A simple, positive semi-definite, heteroskedasticity and
    autocorrelation consistent covariance matrix", Econometrica 55 (1987) 703.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> scores = np.array([[1.0, 0.0], [1.0, 2.0], [-2.0, 1.0], [0.0, -3.0]])
    >>> ff.score_covariance(scores, clusters=["a", "a", "b", "b"])
    array([[8., 8.],
           [8., 8.]])
    >>> ff.score_covariance(scores, lags=1)
    array([[ 5. ,  2.5],
           [ 2.5, 13. ]])
    """
    S = real_scores(scores)
    parts = terms(S, weights, clusters, lags, kernel, correction)
    return _sum_of_squares(S, parts, DenseFisher, None, n_threads)


@takes_tensors
def sandwich_covariance(
    information: Any,
    scores: Any,
    *,
    weights: Any = None,
    clusters: Any = None,
    lags: int | None = None,
    kernel: str = "bartlett",
    correction: str = "none",
    diagonal: bool = False,
    n_threads: int | None = None,
) -> Any:
    """Return the sandwich covariance of an estimate, A⁻¹ M A⁻¹, which needs no correct model.

    Equivalent to ``inv(A) @ M @ inv(A)`` with the A of `information` and
    ``M = ff.score_covariance(scores, …)``, by two solves.

    Parameters
    ----------
    information : Fisher or array (p, p)
        A, observed or expected, positive definite. A plain matrix is taken as total information;
        a mean-reduced Fisher contributes its weight sum times itself. Of a ``SquareRootFisher``
        the factor is QR, which keeps twice the digits where A is ill-conditioned.
    scores : array (n, p), float64, float32, float16 or bfloat16
        Of each sample at the estimate. Both may lack the same constant: of least squares
        ``X.T @ X`` and ``X * residuals[:, None]`` will do, as σ² cancels.
    weights, clusters, lags, kernel, correction
        As in `score_covariance`.
    diagonal : bool
        Return the variances alone, (p,), without any p × p matrix but what A's factor is.
    n_threads : int, optional

    Returns
    -------
    array (p, p), symmetric, or (p,)
        In the dtype of A.

    Raises
    ------
    NotPositiveDefiniteError
        If A is not positive definite; or if a variance comes out negative, as it may with two ways
        of clustering and kernels other than Bartlett's.
    NonFiniteError, MemoryLimitError, TypeError, ValueError

    See Also
    --------
    score_covariance, opg_covariance, wald_test

    Notes
    -----
    2 p³ multiplications beside M by Cholesky. By QR, and for the diagonal alone, it is the sum of
    squares of the influences A⁻¹s of samples (of clusters, of windows), for n p² multiplications
    or what the factor of a structured A takes.

    References
    ----------
    H. White, "Maximum likelihood estimation of misspecified models", Econometrica 50 (1982) 1.
    P. J. Huber, "The behavior of maximum likelihood estimates under nonstandard conditions",
    Proc. Fifth Berkeley Symp. 1 (1967) 221.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> x = np.array([1.0, 3.0, 4.0, 8.0])
    >>> mean = ff.Poisson(x.mean())  # says that the variance is the mean, 4, where it is 6.5
    >>> information = 4 * mean.fisher_information()
    >>> ff.sandwich_covariance(information, mean.score(x))  # 6.5 / 4, against 1 by the model
    array([[1.625]])
    """
    S = real_scores(scores)
    A, scale = as_total(information)
    if A.shape[0] != S.shape[1]:
        raise ValueError(
            f"information: expected shape ({S.shape[1]}, {S.shape[1]}) as the scores have "
            f"{S.shape[1]} parameters, got {A.shape}. Give both for the same parameters."
        )
    if A.dtype.kind == "c":
        raise TypeError(
            f"information: expected real numbers, got {A.dtype}. "
            "Give a complex parameter as its real and its imaginary part."
        )
    into = DiagonalFisher if _check.flag("diagonal", diagonal) else DenseFisher
    parts = terms(S, weights, clusters, lags, kernel, correction)
    factor = A.factor(n_threads=n_threads)
    # A sum of squares of A⁻¹y has the accuracy of R, which is lost where M is formed first; that
    # is a product of matrices instead of a solve for each row, and as good as Cholesky's A⁻¹ is.
    if into is DiagonalFisher or factor.method == "qr":
        V = _sum_of_squares(S, parts, into, factor, n_threads) / scale**2
    else:
        M = _sum_of_squares(S, parts, into, None, n_threads)
        half = factor.solve(factor.solve(M / scale).T) / scale
        V = hermitian_part(half)
    _refuse_negative(V.diagonal() if V.ndim == 2 else V)
    return V.astype(A.dtype, copy=False)


def _sum_of_squares(S: Any, parts: list[Term], into: Any, factor: Any, n_threads: Any) -> Any:
    """Return Σ c YᵀY, or Σ c A⁻¹YᵀY A⁻¹ with the factor of A, or the diagonal `into` holds."""
    out: Any = 0.0
    try:
        for term in parts:
            F = into(S.shape[1], reduction="sum")
            for rows, w in term.blocks():
                if factor is None:
                    F.update(rows, w, n_threads=n_threads)
                    continue
                step = one_block(S.shape[1])
                for start in range(0, rows.shape[0], step):
                    part = slice(start, start + step)
                    share = None if w is None else w[part]
                    if share is None or share.any():  # of others there may be none in a block
                        solved = factor.solve(rows[part].T.astype(np.float64)).T
                        F.update(solved, share, n_threads=n_threads)
            out = out + term.coefficient * (
                F.diagonal() if into is DiagonalFisher else F.to_dense()
            )
    except NonFiniteError:  # of a sum: name the score that is not finite
        ops_of(S).column_mean(S, None, _check.sum_dtype(S.dtype), True, 0)
        raise
    return out


def _refuse_negative(variances: Any) -> None:
    """Raise if a variance is negative, naming the first."""
    negative = variances < 0
    if negative.any():
        place = int(negative.argmax())
        raise NotPositiveDefiniteError(
            f"scores: expected variances that are not negative, got {variances[place]:.3g} for "
            f"parameter {place}. Two ways of clustering and kernels other than 'bartlett' promise "
            "no positive semi-definite matrix: cluster one way, or take that kernel.",
            pivot=place,
            value=float(variances[place]),
        )
