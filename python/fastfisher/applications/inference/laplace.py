"""The quadratic approximation of a log-likelihood: divergences, and draws from the posterior."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops.border import takes_tensors
from fastfisher.applications.semidefinite import semidefinite
from fastfisher.applications.total import advised, as_total, finite, precisions
from fastfisher.fisher.factor import as_it_is

__all__ = ["kl_quadratic", "laplace_sample"]


@takes_tensors
@finite
def kl_quadratic(fisher: Any, d: Any) -> Any:
    """Return ½ dᵀF d, the leading term of KL(θ ‖ θ + d), with F the total information.

    Equivalent to ``0.5 * d @ F @ d``, where F of a mean-reduced Fisher is its weight sum times the
    mean. Of complex parameters it is ``d.conj() @ F @ d``, without the half.

    Parameters
    ----------
    fisher : Fisher or array (p, p)
        At θ. A plain matrix is taken as total information, ``family.fisher_information()`` for
        example, which is that of one observation; its lower triangle is read.
    d : array (p,) or (p, k)
        One step or several as columns; for a Fisher of layers also the list of the weights.

    Returns
    -------
    float, or array (k,) for several, in nats

    Raises
    ------
    NotPositiveDefiniteError
        Where it comes out negative by more than rounding.
    NonFiniteError
        Also where it overflows.
    TypeError, ValueError

    Notes
    -----
    One product with F. What is left of the divergence is O(‖d‖³). Every f-divergence has f″(1)
    times this as its leading term: χ² twice, the squared Hellinger distance a quarter or a half of
    it by their usual definitions. 2 · kl_quadratic(F, θ̂ − θ) is χ²_p in the limit, which gives the
    elliptical confidence regions.

    A complex F = E[s* sᵀ] has scores s = ∂/∂θ = ½ (∂/∂x − i ∂/∂y), so by the real pair x, y of a
    circular model the information is 2 F: ½ dᵀF d of the pair is d* F d, and twice that is χ²_2p.

    References
    ----------
    S. Kullback, "Information theory and statistics", Wiley (1959), section 2.6.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> here, there = ff.Poisson(4.0), ff.Poisson(4.1)
    >>> quadratic = ff.kl_quadratic(here.fisher_information(), np.array([0.1]))
    >>> round(quadratic, 6), round(here.kl(there), 6)
    (0.00125, 0.00123)
    """
    F, scale = as_total(fisher)
    d, _ = F._unfolded("d", d)
    columns = _check.finite_columns(F._ops, "d", d, F.shape[0], F.dtype)
    form = F.quadratic_form(columns)
    semidefinite(F, columns, form)
    return (1.0 if F.dtype.kind == "c" else 0.5) * scale * form


@takes_tensors
@finite
def laplace_sample(
    fisher: Any,
    theta: Any = None,
    *,
    size: int | None = None,
    prior: Any = 0.0,
    solver: Any = "auto",
    rng: Any = None,
    n_threads: int | None = None,
) -> Any:
    """Draw from N(θ̂, (F + prior)⁻¹), with F the total information.

    Equivalent to ``rng.multivariate_normal(theta, C, size)`` with C the inverse of
    ``F + prior * np.eye(p)``, which is never formed; F of a mean-reduced Fisher is its
    weight sum times the mean.

    Parameters
    ----------
    fisher : Fisher or array (p, p)
        At θ̂. A plain matrix is taken as total information.
    theta : array (p,), optional
        θ̂, the mode of the posterior; default 0. For a Fisher of layers also the list of weights.
    size : int, optional
        How many draws; None gives one, without the leading axis.
    prior : float or array (p,)
        Precisions 1/σ² of independent Gaussian priors, added to the diagonal of the total
        information, so not a damping per sample. They must be positive where the data say nothing.
    solver : "auto", Cholesky(…), Dual() or QR(…)
        What factors, as in ``Fisher.factor``.
    rng : None, int or numpy.random.Generator
        An int gives the same draws each time.
    n_threads : int, optional

    Returns
    -------
    array (p,) or (size, p)
        In double precision where `theta` is given, else in the dtype of F. About a list of weights
        it is such a list, of arrays (d_out, d_in) or (size, d_out, d_in).

    Raises
    ------
    NotPositiveDefiniteError
        If total information and prior leave a direction free; names a prior that would do.
    NonFiniteError, TypeError, ValueError

    See Also
    --------
    Fisher.factor : its ``sample`` draws about 0; its ``inverse_diagonal`` has the variances.

    Notes
    -----
    One factorisation of the representation at hand, and p² multiplications a draw, or less. Draws
    of complex parameters are circular.

    References
    ----------
    D. J. C. MacKay, "A practical Bayesian framework for backpropagation networks", Neural Comput. 4
    (1992) 448.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> scores = np.random.default_rng(0).standard_normal((400, 2))
    >>> F = ff.DenseFisher.from_scores(scores)
    >>> draws = ff.laplace_sample(F, np.array([1.0, 2.0]), size=10_000, rng=0)
    >>> draws.mean(axis=0).round(2), draws.std(axis=0).round(2)  # 1 / √400
    (array([1., 2.]), array([0.05, 0.05]))
    """
    F, total = as_total(fisher)
    mean: Any = 0.0
    fold: Callable[[Any], Any] = as_it_is
    if theta is not None:
        theta, fold = F._unfolded("theta", theta)
        # In double precision: θ̂ may have more digits than F, and draws stand close about it.
        dtype = np.result_type(F.dtype, np.float64)
        mean = _check.finite_columns(F._ops, "theta", theta, F.shape[0], dtype)
        if mean.ndim != 1:
            raise ValueError(
                f"theta: expected shape ({F.shape[0]},), got {mean.shape}. Give one mode."
            )
    damping = F._scale * precisions(F, prior)
    # c F + Λ = c (F + Λ / c), whose inverse has the root (F + Λ / c)^-½ / √c.
    with advised(total):
        factor = F.factor(damping=damping, solver=solver, n_threads=n_threads)
    return fold(mean + factor.sample(rng, size) / math.sqrt(total))
