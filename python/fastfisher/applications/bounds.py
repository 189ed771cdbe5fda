"""Bounds: what total information says about parameters, and about functions of them."""

from typing import Any

import numpy as np

from fastfisher import _check, _memory
from fastfisher._ops import on_host
from fastfisher._ops.border import takes_tensors
from fastfisher._ops.conjugates import hermitian_part
from fastfisher._ops.numpy_ops import read
from fastfisher.applications.total import advised, as_total, finite, precisions
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.fisher.protocol import Fisher
from fastfisher.functions import as_fisher

__all__ = ["add_prior", "condition_on", "cramer_rao_bound", "marginalize", "reparametrize"]


@takes_tensors
@finite
def cramer_rao_bound(
    fisher: Any,
    jacobian: Any = None,
    *,
    prior: Any = 0.0,
    diagonal: bool = False,
    solver: Any = "auto",
) -> Any:
    """Return the least covariance that an unbiased estimate of φ(θ) can have: J F⁻¹ Jᵀ.

    Equivalent to ``J @ inv(F) @ J.T`` with J = ∂φ/∂θ and F the total information: a mean-reduced
    Fisher contributes its weight sum times the mean.

    Parameters
    ----------
    fisher : Fisher or array (p, p)
        About θ. A plain matrix is taken as total information; its lower triangle is read.
    jacobian : array (q, p), optional
        ∂φ/∂θ, one row per function: of new by old. None is φ = θ. Of an estimate that is biased,
        it is the Jacobian of its mean, ∂E[T]/∂θ.
    prior : float or array (p,)
        Precisions 1/σ² of independent Gaussian priors, added to the diagonal; 0 where there is
        none. `add_prior` takes matrices.
    diagonal : bool
        Return the variances alone.
    solver : "auto", Cholesky(…), Dual(…), QR(…), and with a `jacobian` also CG(…) or Eigh()
        As in ``F.factor`` and ``F.solve``. ``QR()`` of a `ScoreFisher` has errors that grow with
        the condition number of the scores instead of its square.

    Returns
    -------
    array (q, q), symmetric, or (q,) with `diagonal`; q is p without a `jacobian`

    Raises
    ------
    NotPositiveDefiniteError
        Where a parameter is not determined; names it, and a prior that would do.
    ConvergenceError, NonFiniteError, MemoryLimitError, TypeError, ValueError

    Notes
    -----
    One factorisation, and q right-hand sides; without a `jacobian` the inverse, or of it no more
    than the diagonal. F is not made dense, but where its own factor is.

    Units do not matter: rescaling parameters changes Cholesky and QR factors by rounding only, so
    what counts is the condition number of F with a unit diagonal. A `LowRankFisher`, the dual, CG
    and Kronecker factors compare parameters with each other: scale those. The dual, "auto" for a
    `ScoreFisher` of fewer samples than parameters, wants a prior on each; ``Cholesky()`` does not.

    The bound needs the conditions under which F is defined (a support that does not depend on θ).
    Few estimates attain it with a finite sample; the most likely parameters do as the sample
    grows. With a `prior` it is the bound of estimates that know it, on average over it, if F is the
    average of F(θ). Of complex parameters φ must be holomorphic, and J F⁻¹ J* bounds E[δ δ*].

    References
    ----------
    C. R. Rao, "Information and the accuracy attainable in the estimation of statistical
    parameters", Bull. Calcutta Math. Soc. 37 (1945) 81.
    H. L. Van Trees, "Detection, Estimation, and Modulation Theory", part I, Wiley 1968, ch. 2.4.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = 100 * ff.Gaussian(0.0, 2.0).fisher_information()  # of 100 observations
    >>> ff.cramer_rao_bound(F)  # of mean and scale
    array([[0.04, 0.  ],
           [0.  , 0.02]])
    >>> ff.cramer_rao_bound(F, [[0.0, 4.0]], diagonal=True)  # of the variance σ²
    array([0.32])
    """
    F, total = as_total(fisher)
    diagonal = _check.flag("diagonal", diagonal)
    damping = F._scale * precisions(F, prior)
    with advised(total):
        if jacobian is None:
            factor = F.factor(damping=damping, solver=solver)
            return (factor.inverse_diagonal() if diagonal else factor.inverse()) / total
        J = _rows(F, jacobian)
        spread = F.solve(J.conj().T, damping=damping, solver=solver)
    if diagonal:
        return (J * spread.T).sum(axis=1).real / total
    return hermitian_part(J @ spread) / total


@takes_tensors
@finite
def marginalize(fisher: Any, keep: Any, *, prior: Any = 0.0, solver: Any = "auto") -> Any:
    """Return the total information about some parameters when the others are not known.

    Equivalent to ``inv(inv(F)[np.ix_(keep, keep)])``, which is the Schur complement
    F_kk − F_kr F_rr⁻¹ F_rk; the inverse of F is never formed.

    Parameters
    ----------
    fisher : Fisher or array (p, p)
        About all parameters. A plain matrix is taken as total information; its lower triangle is
        read.
    keep : array (k,) of int, or of bool (p,)
        Which parameters to keep, in this order; negative indices count from the end.
    prior : float or array (p,)
        Precisions 1/σ² of independent Gaussian priors, added to the diagonal before.
    solver : "auto", Cholesky(…), CG(…), Dual(…), QR(…) or Eigh()
        As in ``F.solve``.

    Returns
    -------
    array (k, k), symmetric, positive definite

    Raises
    ------
    NotPositiveDefiniteError
        Where a parameter, kept or not, is not determined; names it.
    ConvergenceError, NonFiniteError, MemoryLimitError, TypeError, ValueError

    See Also
    --------
    condition_on : where the others are known.

    Notes
    -----
    One factorisation and k right-hand sides give the covariance of the kept parameters, which alone
    is inverted. The difference in Schur's complement would leave rounding, of either sign, where
    parameters are nearly degenerate; this fails with a name instead.

    For Gaussian likelihoods to integrate the others out and to maximise over them (to profile) are
    the same.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = np.array([[4.0, 2.0], [2.0, 2.0]])
    >>> ff.marginalize(F, [0])
    array([[2.]])
    >>> ff.condition_on(F, [0])
    array([[4.]])
    """
    F, _ = as_total(fisher)
    kept = _kept(F, keep)
    covariance = cramer_rao_bound(F, _units(F, kept).T, prior=prior, solver=solver)
    try:
        return as_fisher(covariance).factor().inverse()
    except NotPositiveDefiniteError as error:
        pivot = None if error.pivot is None else int(kept[error.pivot])
        raise NotPositiveDefiniteError(
            "keep: expected parameters that the samples tell apart, got errors that move together "
            f"to rounding, found at parameter {pivot}. Keep fewer, "
            "or read their errors from cramer_rao_bound.",
            pivot=pivot,
            value=error.value,
        ) from error


@takes_tensors
@finite
def condition_on(fisher: Any, keep: Any) -> Any:
    """Return the total information about some parameters when the others are known.

    Equivalent to ``F[np.ix_(keep, keep)]``.

    Parameters
    ----------
    fisher : Fisher or array (p, p)
        About all parameters. A plain matrix is taken as total information; its lower triangle is
        read.
    keep : array (k,) of int, or of bool (p,)
        Which parameters remain unknown, in this order; negative indices count from the end.

    Returns
    -------
    array (k, k), symmetric

    Raises
    ------
    NonFiniteError, TypeError, ValueError

    See Also
    --------
    marginalize : where the others are not known.

    Notes
    -----
    One product with k unit vectors, so no representation is made dense.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = ff.ScoreFisher(np.array([[1.0, 0.0, 3.0], [1.0, 2.0, 0.0]]))
    >>> ff.condition_on(F, [2, 0])  # sums over both samples
    array([[9., 3.],
           [3., 2.]])
    """
    F, total = as_total(fisher)
    kept = _kept(F, keep)
    return hermitian_part((F @ _units(F, kept))[F._ops.from_host(kept)]) * total


@takes_tensors
@finite
def add_prior(fisher: Any, prior: Any) -> Any:
    """Return total information with that of a Gaussian prior added to it.

    Equivalent to ``F + np.diag(prior)``, or ``F + prior`` for a matrix.

    Parameters
    ----------
    fisher : Fisher or array (p, p)
        A plain matrix is taken as total information; its lower triangle is read.
    prior : float, array (p,), array (p, p) or Fisher
        Precision: 1/σ² of each parameter, 0 where there is no prior; the inverse of a covariance;
        or what another experiment says, as a Fisher or its total information.

    Returns
    -------
    array (p, p), symmetric

    Raises
    ------
    NonFiniteError, MemoryLimitError, TypeError, ValueError

    Notes
    -----
    The result is dense. `cramer_rao_bound` and `marginalize` take a `prior` of numbers themselves,
    which keeps the structure of F.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = np.array([[4.0, 2.0], [2.0, 1.0]])  # determines 2 θ₀ + θ₁ alone
    >>> ff.add_prior(F, [0.0, 1 / 0.5**2])  # θ₁ is known to ± 0.5
    array([[4., 2.],
           [2., 5.]])
    """
    F, total = as_total(fisher)
    out = F.to_dense() * total
    if isinstance(prior, Fisher) or np.ndim(prior) == 2:
        return out + _prior_information(F, prior)
    rows = F._ops.xp.arange(F.shape[0])
    out[rows, rows] += precisions(F, prior)
    return out


@takes_tensors
@finite
def reparametrize(fisher: Any, jacobian: Any) -> Any:
    """Return the total information about other parameters φ: F_φ = Jᵀ F_θ J with J = ∂θ/∂φ.

    Equivalent to ``jacobian.T @ F @ jacobian``, where F of a mean-reduced Fisher is its weight sum
    times the mean.

    Parameters
    ----------
    fisher : Fisher or array (p, p)
        About θ. A plain matrix is taken as total information; its lower triangle is read.
    jacobian : array (p, q)
        ∂θ/∂φ, one column per new parameter: of old by new. q < p restricts θ to a surface.

    Returns
    -------
    array (q, q), symmetric

    Raises
    ------
    NonFiniteError, TypeError, ValueError

    Notes
    -----
    One product with q vectors, so no representation is made dense. The score of φ is Jᵀ times that
    of θ.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> rate = 4.0  # of an exponential distribution, whose mean is θ = 1/rate
    >>> F = ff.Exponential(1 / rate).fisher_information()
    >>> ff.reparametrize(F, [[-1 / rate**2]])  # 1 / rate²
    array([[0.0625]])
    """
    F, total = as_total(fisher)
    J = _check.finite_columns(F._ops, "jacobian", jacobian, F.shape[0], F.dtype)
    if J.ndim != 2 or J.shape[1] == 0:
        raise ValueError(
            f"jacobian: expected shape ({F.shape[0]}, q) with q ≥ 1, got {J.shape}. "
            "It has one row per old parameter and one column per new one."
        )
    return hermitian_part(J.conj().T @ (F @ J)) * total


def _rows(F: Fisher, jacobian: Any) -> Any:
    """Return the Jacobian (q, p) of functions of θ, finite, in the dtype of F."""
    J = F._ops.to_vector("jacobian", jacobian, F.dtype)
    if J.ndim != 2 or J.shape[0] == 0 or J.shape[1] != F.shape[0]:
        raise ValueError(
            f"jacobian: expected shape (q, {F.shape[0]}) with q ≥ 1, got {J.shape}. "
            "It has one row per function and one column per parameter."
        )
    _check.finite_columns(F._ops, "jacobian", J, J.shape[0], F.dtype)
    return J


def _kept(F: Fisher, keep: Any) -> Any:
    """Return indices 0 … p − 1 of the parameters to keep, each once, in the order given."""
    params = F.shape[0]
    on_host("keep", keep)
    array = read("keep", keep)
    if array.ndim != 1 or array.shape[0] == 0:
        raise ValueError(
            f"keep: expected at least one parameter as a list, got shape {array.shape}. "
            "Give indices, or a mask with one bool per parameter."
        )
    if array.dtype.kind == "b":
        if array.shape[0] != params or not array.any():
            raise ValueError(
                f"keep: expected a mask of shape ({params},) that is true somewhere, got shape "
                f"{array.shape} with {int(array.sum())} true. Give one bool per parameter."
            )
        return np.flatnonzero(array)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"keep: expected whole numbers or bools, got {array.dtype.name}. "
            "Give the indices of the parameters."
        )
    outside = (array < -params) | (array >= params)
    if outside.any():
        raise ValueError(
            f"keep: expected indices from {-params} to {params - 1}, got "
            f"{array[outside.argmax()]}. There are {params} parameters."
        )
    kept = array.astype(np.intp)
    kept[kept < 0] += params
    once, counts = np.unique(kept, return_counts=True)
    if once.shape[0] != kept.shape[0]:
        raise ValueError(
            f"keep: expected each parameter once, got {once[counts.argmax()]} "
            f"{counts.max()} times. Leave the others out."
        )
    return kept


def _units(F: Fisher, kept: Any) -> Any:
    """Return the columns of the identity (p, k) that belong to these parameters."""
    _memory.guard(
        3 * F.shape[0] * len(kept) * F.dtype.itemsize,  # these, and what comes of them
        "keep",
        "Keep fewer parameters.",
    )
    columns = F._ops.zeros((F.shape[0], len(kept)), F.dtype)
    columns[F._ops.from_host(kept), F._ops.xp.arange(len(kept))] = 1
    return columns


def _prior_information(F: Fisher, prior: Any) -> Any:
    """Return the matrix of a prior, about the same parameters as F and in its dtype."""
    if not isinstance(prior, Fisher):
        prior = as_fisher(_check.matrix(F._ops, prior, "prior"))
    P, total = as_total(prior)
    if P.shape != F.shape or P.dtype.kind != F.dtype.kind:
        raise ValueError(
            f"prior: expected shape {F.shape} and numbers like {F.dtype}, got {P.shape} and "
            f"{P.dtype}. It is information about the same parameters."
        )
    if not bool((P.diagonal() >= 0).all()):
        raise ValueError(
            f"prior: expected a diagonal that is not negative, got {P.diagonal().min():.3g}. "
            "It is a precision, the inverse of a covariance."
        )
    return (P.to_dense() * total).astype(F.dtype, copy=False)
