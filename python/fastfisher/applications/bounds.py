"""Bounds: what total information says about parameters, and about functions of them."""

from typing import Any

from fastfisher import _check
from fastfisher.applications.total import as_total

__all__ = ["reparametrize"]


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
    F, scale = as_total(fisher)
    J = _check.finite_columns(F._ops, "jacobian", jacobian, F.shape[0], F.dtype)
    if J.ndim != 2 or J.shape[1] == 0:
        raise ValueError(
            f"jacobian: expected shape ({F.shape[0]}, q) with q ≥ 1, got {J.shape}. "
            "It has one row per old parameter and one column per new one."
        )
    half = J.conj().T @ (F @ J)
    return scale * (half + half.conj().T) / 2
