"""Hypothesis tests: the score test at a restricted estimate, the Wald test at a free one."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops import is_numpys, ops_of
from fastfisher._ops.border import takes_tensors
from fastfisher._ops.conjugates import hermitian_part
from fastfisher.applications.inference.pooled import real_scores
from fastfisher.applications.total import as_total
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.fisher import DenseFisher
from fastfisher.functions import as_fisher

__all__ = ["ChiSquaredTest", "score_test", "wald_test"]


@dataclass(frozen=True, slots=True, eq=False)
class ChiSquaredTest:
    """A statistic that is χ² distributed if the null hypothesis is true.

    Attributes
    ----------
    statistic : float
        Large where the data contradict the null hypothesis.
    df : int
        Degrees of freedom of χ²: the number of restrictions.
    p_value : float
        Probability of a statistic at least as large under the null hypothesis; needs SciPy.

    Examples
    --------
    >>> import fastfisher as ff
    >>> likelihood_ratio = ff.ChiSquaredTest(2 * (-10.0 - -12.5), df=1)
    >>> round(likelihood_ratio.p_value, 4)
    0.0253
    >>> likelihood_ratio.statistic, likelihood_ratio.df
    (5.0, 1)
    """

    statistic: Any
    df: int

    @property
    @takes_tensors
    def p_value(self) -> Any:
        """P(χ²_df ≥ statistic)."""
        try:
            from scipy.special import gammaincc
        except ImportError:
            raise ImportError(
                "p_value: expected SciPy, got none installed. Install scipy, which the extra "
                "fastfisher[examples] has, or look up `statistic` with `df` degrees of freedom."
            ) from None
        value = gammaincc(self.df / 2, np.asarray(self.statistic) / 2)
        return value if np.ndim(self.statistic) else float(value)


@takes_tensors
def score_test(
    scores: Any,
    fisher: Any = None,
    *,
    df: int | None = None,
    R: Any = None,
    covariance: Any = None,
    weights: Any = None,
    n_threads: int | None = None,
) -> ChiSquaredTest:
    """Test restrictions by the score at the restricted estimate: gᵀF⁻¹g (Rao, Lagrange multiplier).

    Equivalent to ``g @ solve(F, g)`` with the total score ``g = scores.sum(axis=0)`` and
    the total information F, ``scores.T @ scores`` if none is given.

    Parameters
    ----------
    scores : array (n, p), or the total score (p,)
        At the estimate that obeys the restrictions, by *all* parameters of the larger model.
    fisher : Fisher or array (p, p), optional
        Information there, expected or observed; a plain matrix is taken as total. None is the outer
        product of the scores (OPG), n times the R² of ones regressed on them.
    df : int, optional
        How many restrictions the null hypothesis makes. Not p, but where it leaves nothing to
        estimate: the total score by estimated parameters is zero.
    R : array (k, p) or (p,), optional
        In place of `df`, the restrictions Rθ = r themselves. The statistic is then that of the
        efficient score, (RF⁻¹g)ᵀ(RF⁻¹Rᵀ)⁻¹RF⁻¹g: the same number at the restricted maximum
        likelihood estimate, and right to first order at any other consistent one (C(α)).
    covariance : array (p, p), optional
        Of estimates, evaluated there, for example ``ff.sandwich_covariance(fisher, scores,
        clusters=…)``: it replaces F⁻¹ in the middle, for a test that needs no correct model. Needs
        R.
    weights : array (n,), optional
        A weight of w counts a sample w times.
    n_threads : int, optional

    Returns
    -------
    ChiSquaredTest
        ``.statistic``, ``.df`` and ``.p_value``.

    Raises
    ------
    NotPositiveDefiniteError
        If F is singular, or rows of R are linearly dependent.
    NonFiniteError, TypeError, ValueError

    See Also
    --------
    score_tests : one test for each of many covariates.
    wald_test

    Notes
    -----
    A solve with F; with R one with k + 1 right-hand sides. No inverse is formed.

    References
    ----------
    C. R. Rao, "Large sample tests of statistical hypotheses concerning several parameters", Proc.
    Camb. Phil. Soc. 44 (1948) 50.
    D. D. Boos, "On generalized score tests", Amer. Statist. 46 (1992) 327.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> heads = np.repeat([1.0, 0.0], [62, 38])  # is the coin fair?
    >>> null = ff.Bernoulli(0.5)
    >>> test = ff.score_test(null.score(heads), 100 * null.fisher_information(), df=1)
    >>> round(test.statistic, 2), test.df, round(test.p_value, 4)
    (5.76, 1, 0.0164)
    """
    F, scale, g = _with_total_score(scores, fisher, weights, n_threads)
    if R is None:
        if df is None or covariance is not None:
            raise ValueError(
                f"{'df' if df is None else 'R'}: expected the restrictions, got None. Give df, "
                "their number, or the matrix R of Rθ = r, which a `covariance` needs."
            )
        df = _check.count("df", df, 1, F.shape[0])
        return ChiSquaredTest(float(g @ F.factor(n_threads=n_threads).solve(g)) / scale, df)
    if df is not None:
        raise ValueError("df: expected None beside R, got a number. R has one row per restriction.")
    restrict = _restrictions(F, R)
    factor = F.factor(n_threads=n_threads)
    estimate = factor.solve(g) / scale  # one step from the restricted estimate
    if covariance is None:
        spread = restrict @ factor.solve(restrict.T) / scale
    else:
        V = _covariance(covariance)
        if V.shape != F.shape:
            raise ValueError(
                f"covariance: expected shape {F.shape} as the information has, got {V.shape}. "
                "Give both for the same parameters."
            )
        spread = restrict @ (V @ restrict.T)
    return _chi_squared(restrict @ estimate, spread)


@takes_tensors
def wald_test(
    theta: Any,
    fisher: Any = None,
    *,
    covariance: Any = None,
    R: Any = None,
    value: Any = 0.0,
    n_threads: int | None = None,
) -> ChiSquaredTest:
    """Test restrictions Rθ = r at the free estimate: (Rθ̂ − r)ᵀ (R V Rᵀ)⁻¹ (Rθ̂ − r).

    Equivalent to ``d @ solve(R @ V @ R.T, d)`` with ``d = R @ theta - value`` and V the
    covariance of the estimate, the inverse of the total information if `fisher` is given.

    Parameters
    ----------
    theta : array (p,)
        The estimate.
    fisher : Fisher or array (p, p)
        Information at the estimate; a plain matrix is taken as total. Either this or `covariance`.
    covariance : array (p, p)
        Covariance of the estimate, such as that of `sandwich_covariance`.
    R : array (k, p) or (p,), optional
        One row per restriction; None restricts every parameter.
    value : float or array (k,)
        r.
    n_threads : int, optional

    Returns
    -------
    ChiSquaredTest
        ``.statistic``, ``.df`` and ``.p_value``.

    Raises
    ------
    NotPositiveDefiniteError
        If F or the covariance is singular, or rows of R are linearly dependent.
    NonFiniteError, TypeError, ValueError

    See Also
    --------
    score_test

    Notes
    -----
    Without R and with `fisher` it is a quadratic form, and F is factored to see that it determines
    every parameter, as the degrees of freedom say. χ² is the limit for many
    samples; with few, F_{k, n−p} of statistic / k is closer for least squares.

    References
    ----------
    A. Wald, "Tests of statistical hypotheses concerning several parameters when the number of
    observations is large", Trans. Amer. Math. Soc. 54 (1943) 426.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> V = np.array([[0.04, 0.01], [0.01, 0.09]])
    >>> test = ff.wald_test([0.5, 0.1], covariance=V, R=[1.0, -1.0])  # are they equal?
    >>> round(test.statistic, 3), test.df, round(test.p_value, 3)
    (1.455, 1, 0.228)
    """
    if (fisher is None) == (covariance is None):
        raise ValueError(
            f"fisher: expected it or `covariance`, got {'none' if fisher is None else 'both'}. "
            "A matrix alone does not say which of the two it is."
        )
    F, scale = _real_total(fisher) if covariance is None else (_covariance(covariance), 1.0)
    estimate = _check.finite_columns(F._ops, "theta", theta, F.shape[0], F.dtype)
    if estimate.ndim != 1:
        raise ValueError(
            f"theta: expected shape ({F.shape[0]},), got {estimate.shape}. "
            "Test one estimate at a time."
        )
    if R is None:
        difference = estimate - _restricted_values(F, value, F.shape[0])
        factor = F.factor(n_threads=n_threads)
        if covariance is None:
            return ChiSquaredTest(scale * F.quadratic_form(difference), F.shape[0])
        solved = factor.solve(difference)
        return ChiSquaredTest(float(difference @ solved), F.shape[0])
    restrict = _restrictions(F, R)
    difference = restrict @ estimate - _restricted_values(F, value, restrict.shape[0])
    if covariance is None:
        spread = restrict @ F.factor(n_threads=n_threads).solve(restrict.T) / scale
    else:
        spread = restrict @ (F @ restrict.T)
    return _chi_squared(difference, spread)


def _real_total(fisher: Any) -> tuple[Any, float]:
    """Return F and c with c F the total information, of real parameters."""
    F, scale = as_total(fisher)
    if F.dtype.kind == "c":
        raise TypeError(
            f"fisher: expected real numbers, got {F.dtype}. "
            "Give a complex parameter as its real and its imaginary part."
        )
    return F, scale


def _with_total_score(
    scores: Any, fisher: Any, weights: Any, n_threads: int | None
) -> tuple[Any, float, Any]:
    """Return F, c and g: c F the total information, of the scores if none is given, g their sum."""
    if np.ndim(scores) == 1:
        if fisher is None:
            raise ValueError(
                "fisher: expected the information beside a total score (p,), got None. "
                "Give the scores of each sample, (n, p), to use their outer product."
            )
        if weights is not None:
            raise ValueError(
                "weights: expected None beside a total score (p,), got an array. "
                "Weights belong to the scores of each sample."
            )
        F, scale = _real_total(fisher)
        return F, scale, _check.finite_columns(F._ops, "scores", scores, F.shape[0], F.dtype)
    S, threads = real_scores(scores), _check.threads(n_threads)
    ops, wide = ops_of(S), np.dtype(np.float64)
    w, total = _check.weights(ops, weights, S.shape[0], wide)
    g = total * ops.column_mean(S, w, wide, True, threads)
    if fisher is None:
        fisher = DenseFisher.from_scores(
            S, weights=w, dtype=wide, reduction="sum", n_threads=n_threads
        )
    F, scale = _real_total(fisher)
    return F, scale, _check.columns(F._ops, "scores", g, F.shape[0], F.dtype)


def _covariance(value: Any) -> Any:
    """Return a covariance (p, p) as a matrix that multiplies and solves."""
    return _real_total(_check.matrix(ops_of(value), value, "covariance"))[0]


def _restrictions(F: Any, R: Any) -> Any:
    """Return R as (k, p)."""
    array, params = np.asarray(R) if is_numpys(R) else R, F.shape[0]
    if array.ndim == 1:
        array = array.reshape(1, -1)
    if array.ndim != 2 or not 0 < array.shape[0] <= params or array.shape[1] != params:
        raise ValueError(
            f"R: expected shape (k, {params}) with 1 ≤ k ≤ {params}, got {np.shape(R)}. "
            "Give one row per restriction, and one column per parameter."
        )
    return _check.finite_columns(F._ops, "R", array, array.shape[0], F.dtype)


def _restricted_values(F: Any, value: Any, count: int) -> Any:
    """Return r as a number or (k,)."""
    array = F._ops.to_vector("value", value, F.dtype)
    if array.shape not in ((), (count,)):
        raise ValueError(
            f"value: expected a number or shape ({count},), got shape {array.shape}. "
            "Give one number per restriction."
        )
    if array.ndim == 0:
        array = F._ops.xp.full((count,), array.item(), dtype=F.dtype)
    return _check.finite_columns(F._ops, "value", array, count, F.dtype)


def _chi_squared(difference: Any, spread: Any) -> ChiSquaredTest:
    """Return the test of d ~ N(0, spread) of k restrictions."""
    try:
        solved = as_fisher(hermitian_part(spread)).solve(difference)
    except NotPositiveDefiniteError as error:
        raise NotPositiveDefiniteError(
            "R: expected restrictions whose differences have a positive definite covariance, got "
            f"one that is singular or indefinite at row {error.pivot}. Leave that row out if "
            "others imply it; a covariance clustered in two ways, or of fewer clusters than "
            "restrictions, may be at fault as well.",
            pivot=error.pivot,
            value=error.value,
        ) from None
    return ChiSquaredTest(float(difference @ solved), len(difference))
