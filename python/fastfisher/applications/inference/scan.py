"""Many score tests at once: each of many candidate covariates against one null model."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops import ops_of
from fastfisher._ops.border import takes_tensors
from fastfisher.applications.inference.hypothesis import ChiSquaredTest
from fastfisher.fisher import DenseFisher
from fastfisher.functions import fisher_diagonal
from fastfisher.solvers import Status

__all__ = ["ScoreTests", "score_tests"]

# Bytes of candidates that are made float64 at a time, to be read again from the cache. Measured for
# 1000 to 50 000 samples on one thread: the same from 1/4 to 8 MiB, up to 3 times as long with 32.
_BLOCK = 8 * 2**20
# But no fewer columns, of which one byte each would cost a line of the cache.
_LEAST_COLUMNS = 16
# Share of Σ w c² that is left of a candidate below which V is no difference any more, of a digit
# less, but the squares of what X leaves, freed of X twice. "Twice is enough": B. N. Parlett, The
# Symmetric Eigenvalue Problem, § 6.9.
_MOSTLY_EXPLAINED = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTests(ChiSquaredTest):
    """One score test for each candidate.

    Attributes
    ----------
    statistic : array (m,)
        U²/V, χ² with one degree of freedom under the null hypothesis; NaN where `status` is not 0.
    df : int
        1.
    p_value : array (m,)
        Probability of a statistic at least as large under the null hypothesis; needs SciPy.
    score : array (m,)
        U, the efficient score: the total score by the candidate's coefficient at 0, less what the
        null model's coefficients explain of it. Its sign is that of the effect.
    variance : array (m,)
        V, the variance of U: the information about the coefficient. U/V estimates it to first
        order, with the standard error 1/√V.
    status : array (m,) of int
        `Status` of each: ``NOT_POSITIVE_DEFINITE`` where the null model's covariates span the
        candidate, or leave no residual where it varies, so that there is nothing to test,
        ``NON_FINITE`` where it holds NaN or infinity or its squares overflow.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> y = np.array([1.0, 2.0, 0.0, 5.0])
    >>> tests = ff.score_tests(np.eye(4), y - 2.0, np.ones((4, 1)), weights=np.full(4, 2.0))
    >>> tests.statistic.round(2), tests.df
    (array([0.67, 0.  , 2.67, 6.  ]), 1)
    """

    score: Any
    variance: Any
    status: Any


@takes_tensors
def score_tests(
    candidates: Any,
    residuals: Any,
    design: Any,
    *,
    weights: Any = None,
    robust: bool = False,
    n_threads: int | None = None,
) -> ScoreTests:
    """Test each of many covariates for a place in one model that has none of them.

    Equivalent, for each column c and ``X = np.column_stack([design, c])``, to
    ``ff.score_test(X.T @ residuals, X.T @ (weights[:, None] * X), R=np.eye(q + 1)[-1])``, but the
    null model is fitted once and factored once.

    Parameters
    ----------
    candidates : array (n, m)
        One column per covariate to test, of any real type; int8 counts of alleles will do.
    residuals : array (n,)
        ∂ log p(yᵢ) / ∂ηᵢ at the null model, η its linear predictor: y − μ for a GLM with its
        canonical link, divided by σ² for a Gaussian.
    design : array (n, q)
        Covariates X of the null model, its constant included; η = Xβ.
    weights : array (n,), optional
        Information about each ηᵢ, −E ∂² log p / ∂η²: μ(1 − μ) in logistic regression, μ in Poisson
        regression, 1/σ². None is the outer product (OPG): the squared residuals.
    robust : bool
        Estimate the variance of U from the residuals, so that `weights` may be wrong (White; Boos).
    n_threads : int, optional

    Returns
    -------
    ScoreTests
        Arrays ``.statistic``, ``.p_value``, ``.score``, ``.variance`` and ``.status``, all (m,). A
        column that cannot be tested has a status of its own and harms no other.

    Raises
    ------
    NotPositiveDefiniteError
        If columns of `design` are linearly dependent.
    NonFiniteError, TypeError, ValueError

    See Also
    --------
    score_test : any restrictions on any model.

    Notes
    -----
    Let A = XᵀWX. Of a candidate c the part that X does not explain is c̃ = c − X A⁻¹XᵀWc, and
    U = Σ r c̃ for residuals r, V = Σ w c̃² = Σ w c² − cᵀWX A⁻¹XᵀWc, or Σ r² c̃² if robust. Where less
    than a tenth is left of Σ w c², V is the sum of squares of c̃ itself, freed of X twice, which
    does not cancel however close to X a candidate is. 2 n (q + 2) operations per candidate, 6 n q
    more with c̃; memory beside the results is some blocks of 8 MiB, or of 16 columns.

    References
    ----------
    J. Neyman, "Optimal asymptotic tests of composite statistical hypotheses", in "Probability and
    Statistics", Wiley 1959, 213.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> rng = np.random.default_rng(0)
    >>> genes = rng.binomial(2, 0.3, size=(500, 2000)).astype(np.int8)
    >>> chance = 1 / (1 + np.exp(0.5 - genes[:, 7]))  # of 2000 only one has an effect
    >>> ill = rng.random(500) < chance
    >>> X, mu = np.ones((500, 1)), ill.mean()
    >>> tests = ff.score_tests(genes, ill - mu, X, weights=np.full(500, mu * (1 - mu)))
    >>> int(tests.p_value.argmin()), bool(tests.p_value.min() < 0.05 / 2000)
    (7, True)
    """
    ops, wide = ops_of(candidates), np.dtype(np.float64)
    X = ops.to_vector("design", design, wide)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(
            f"design: expected shape (n, q) with n ≥ 1 and q ≥ 1, got {X.shape}. "
            "Give the null model's covariates; a column of ones is its constant."
        )
    samples = X.shape[0]
    X = _check.finite_columns(ops, "design", X, samples, wide)
    r = _check.finite_columns(ops, "residuals", residuals, samples, wide)
    if r.ndim != 1:
        raise ValueError(
            f"residuals: expected shape ({samples},), got {r.shape}. Give one per sample."
        )
    if not r.any():
        raise ValueError(
            "residuals: expected at least one that is not zero, got none. "
            "A model without residuals leaves nothing to explain."
        )
    C = np.asanyarray(candidates)
    if isinstance(C, np.ma.MaskedArray):
        raise TypeError(
            "candidates: expected a plain array, got a masked one. "
            "Its mask would be ignored: fill in what is missing, such as the mean of the column."
        )
    if C.ndim != 2 or C.shape[0] != samples:
        raise ValueError(
            f"candidates: expected shape ({samples}, m), got {C.shape}. Give one column each."
        )
    w: Any = r * r if weights is None else _check.weights(ops, weights, samples, wide)[0]
    null = DenseFisher.from_scores(X, weights=w, reduction="sum", n_threads=n_threads)
    factor = null.factor(n_threads=n_threads)
    robust, threads = _check.flag("robust", robust), _check.threads(n_threads)
    Z, left = np.column_stack([w[:, None] * X, r]), X.T @ r

    def squares(part: Any, shares: Any) -> Any:
        return fisher_diagonal(
            part, weights=shares, reduction="sum", check_finite=False, n_threads=n_threads
        )

    def explained(part: Any) -> tuple[Any, Any, Any]:
        """Return XᵀWc, A⁻¹XᵀWc and Σ r c of the columns c."""
        product = ops.scores_transpose_dot(part, None, None, Z, threads).T
        return product[:-1], factor.solve(product[:-1]), product[-1]

    out = np.empty((2, C.shape[1]))
    status = np.full(C.shape[1], int(Status.SUCCESS))
    step = max(_LEAST_COLUMNS, _BLOCK // (8 * samples))
    for start in range(0, C.shape[1], step):
        block = slice(start, start + step)
        columns = ops.to_vector("candidates", C[:, block], wide)
        size = squares(columns, w)
        bad = ~np.isfinite(size)
        if bad.any():
            columns = np.where(bad, 0.0, columns)
        B, beta, U = explained(columns)
        U = U - left @ beta
        V = size - (B * beta).sum(axis=0)
        some = (_MOSTLY_EXPLAINED * size > V) | robust
        if some.any():
            free = columns[:, some] - X @ beta[:, some]
            free -= X @ explained(free)[1]
            U[some], V[some] = r @ free, squares(free, w)
        # What X spans is left as rounding of the column, of n ε of its size at most.
        status[block][(samples * np.finfo(wide).eps) ** 2 * size >= V] = (
            Status.NOT_POSITIVE_DEFINITE
        )
        if robust:  # where the columns vary there may be no residuals
            V, rounding = squares(free, r * r), samples * np.finfo(wide).eps * np.abs(columns)
            status[block][rounding.max(axis=0) ** 2 * (r @ r) >= V] = Status.NOT_POSITIVE_DEFINITE
        status[block][bad] = Status.NON_FINITE
        out[:, block] = U, V
    U, V = out
    U[status != Status.SUCCESS] = np.nan
    V[status != Status.SUCCESS] = np.nan
    return ScoreTests(U * U / V, 1, U, V, status)
