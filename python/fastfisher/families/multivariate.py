"""MultivariateGaussian: the normal distribution of d numbers, by mean, or mean and covariance."""

import math
from typing import Any, Self

import numpy as np

from fastfisher import _check
from fastfisher._ops.border import Shown, takes_tensors
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.families import domain
from fastfisher.families.divergence import divergence
from fastfisher.families.domain import Array
from fastfisher.families.family import Family

__all__ = ["MultivariateGaussian"]


class MultivariateGaussian(Family):
    """The normal distribution N(mean, covariance) of d numbers.

    Parameters
    ----------
    mean : array (d,) or (n, d)
    covariance : array (d, d) or (n, d, d)
        Positive definite; only its lower triangle is read.
    fixed_covariance : bool
        Whether the covariance is known: θ is then the mean, else the mean followed by the lower
        triangle of the covariance row by row, Σ₀₀, Σ₁₀, Σ₁₁, Σ₂₀, …

    Raises
    ------
    NotPositiveDefiniteError

    See Also
    --------
    Gaussian

    Notes
    -----
    F = Σ⁻¹ for the mean; ½ Dᵀ (Σ⁻¹ ⊗ Σ⁻¹) D for the triangle, where D repeats its entries to the
    full matrix; and 0 between the two.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> family = ff.MultivariateGaussian(np.zeros(2), np.diag([1.0, 4.0]))
    >>> family.fisher_information()
    array([[1.  , 0.  ],
           [0.  , 0.25]])
    >>> family.score([[1.0, 2.0]])
    array([[1. , 0.5]])
    """

    mean = Shown()
    covariance = Shown()
    _held = ("mean", "covariance")
    _derived = ("_whitener", "_precision", "_half_logdet")

    def __init__(self, mean: Any, covariance: Any, *, fixed_covariance: bool = True) -> None:
        mu = domain.real("mean", mean)
        sigma = domain.real("covariance", covariance)
        if mu.ndim == 0 or mu.shape[-1] == 0:
            raise ValueError(
                f"mean: expected shape (d,) or (n, d), got {mu.shape}. "
                "Gaussian is the distribution of a single number."
            )
        d = mu.shape[-1]
        if sigma.shape[-2:] != (d, d):
            raise ValueError(
                f"covariance: expected shape ({d}, {d}) or (n, {d}, {d}), got {sigma.shape}. "
                "Give numpy.diag of the variances if all are independent."
            )
        self._event = (d,)
        self._batch = domain.joint_shape("mean", mu.shape[:-1], "covariance", sigma.shape[:-2])
        self.fixed_covariance = _check.flag("fixed_covariance", fixed_covariance)
        L = _factor(sigma)
        A = np.linalg.inv(L)
        logs = np.log(np.diagonal(L, axis1=-2, axis2=-1)).sum(axis=-1)
        symmetric = np.tril(sigma) + np.tril(sigma, -1).swapaxes(-1, -2)
        square = (*self._batch, d, d)
        self.mean = domain.own(mu, (*self._batch, d))
        self.covariance = domain.own(symmetric, square)
        self._whitener = np.broadcast_to(A, square)  # Σ⁻¹ = AᵀA
        self._precision = np.broadcast_to(A.swapaxes(-1, -2) @ A, square)
        self._half_logdet = np.broadcast_to(logs, self._batch)

    @property
    @takes_tensors
    def parameters(self) -> Any:
        """The mean, or the mean and the lower triangle of the covariance row by row."""
        if self.fixed_covariance:
            return self.mean
        rows, columns = np.tril_indices(self._event[0])
        return np.concatenate([self.mean, self.covariance[..., rows, columns]], axis=-1)

    def with_parameters(self, parameters: Any) -> Self:
        """Return the same family at other parameters."""
        theta, d = self._new_parameters(parameters), self._event[0]
        sigma = self.covariance
        if not self.fixed_covariance:
            rows, columns = np.tril_indices(d)
            sigma = np.zeros((*theta.shape[:-1], d, d))
            sigma[..., rows, columns] = theta[..., d:]
        return type(self)(theta[..., :d], sigma, fixed_covariance=self.fixed_covariance)

    def _whitened(self, x: Array) -> Any:
        """Return z = A (x − μ), of covariance I."""
        return np.einsum("...ij,...j->...i", self._whitener, x - self.mean)

    def _log_prob(self, x: Array) -> Any:
        z = self._whitened(x)
        d = self._event[0]
        return -0.5 * (z * z).sum(axis=-1) - self._half_logdet - 0.5 * d * math.log(2 * math.pi)

    def _score(self, x: Array) -> Any:
        q = np.einsum("...ji,...j->...i", self._whitener, self._whitened(x))  # Σ⁻¹ (x − μ)
        if self.fixed_covariance:
            return q
        # ∂/∂Σ_ij = ½ (q_i q_j − Σ⁻¹_ij), twice for i ≠ j, where Σ_ji moves along
        rows, columns = np.tril_indices(self._event[0])
        slopes = q[..., rows] * q[..., columns] - self._precision[..., rows, columns]
        return np.concatenate([q, 0.5 * _repeats(rows, columns) * slopes], axis=-1)

    def _fisher_information(self) -> Any:
        P = self._precision
        if self.fixed_covariance:
            return P.copy()
        # ½ tr(Σ⁻¹ E_ij Σ⁻¹ E_kl) = ¼ m_ij m_kl (P_ik P_jl + P_il P_jk), m = 2 off the diagonal
        rows, columns = np.tril_indices(self._event[0])
        i, j, k, m = rows[:, None], columns[:, None], rows, columns
        pairs = P[..., i, k] * P[..., j, m] + P[..., i, m] * P[..., j, k]
        repeats = _repeats(rows, columns)
        return _beside(P, 0.25 * np.outer(repeats, repeats) * pairs)

    def _information_root(self) -> Any:
        A, d = self._whitener, self._event[0]
        if self.fixed_covariance:
            return A
        # √½ (A ⊗ A) D, so that no matrix of squared condition is factored
        rows, columns = np.tril_indices(d)
        down, across = A[..., :, None, :], A[..., None, :, :]
        pairs = down[..., rows] * across[..., columns] + down[..., columns] * across[..., rows]
        root = math.sqrt(0.125) * _repeats(rows, columns) * pairs
        return _beside(A, root.reshape(*self._batch, d * d, len(rows)))

    def _draw(self, count: int, generator: np.random.Generator) -> Any:
        z = generator.standard_normal((count, *self._batch, *self._event))
        return self.mean + np.einsum("...ij,...j->...i", _factor(self.covariance), z)

    def _kl(self, other: Self) -> Any:
        # ½ Σ (r − 1 − log r) + ½ ‖A₂ (μ₁ − μ₂)‖², r the eigenvalues of Σ₂⁻¹ Σ₁
        r = np.linalg.svd(other._whitener @ _factor(self.covariance), compute_uv=False) ** 2
        z = other._whitened(self.mean)
        return 0.5 * divergence(1.0, r).sum(axis=-1) + 0.5 * (z * z).sum(axis=-1)


def _factor(sigma: Array) -> Any:
    """Return the Cholesky factors, or raise, naming the first matrix that has none."""
    try:
        return np.linalg.cholesky(sigma)
    except np.linalg.LinAlgError:
        for place in np.ndindex(sigma.shape[:-2]):
            try:
                np.linalg.cholesky(sigma[place])
            except np.linalg.LinAlgError:
                where = f" at index {place[0] if len(place) == 1 else place}" if place else ""
                raise NotPositiveDefiniteError(
                    f"covariance: expected a positive definite matrix, got one that is not{where}. "
                    "Leave out variables that are linear in others."
                ) from None
        raise


def _repeats(rows: Any, columns: Any) -> Any:
    """Return how often an entry of the triangle stands in the matrix: 1 or 2."""
    return np.where(rows == columns, 1.0, 2.0)


def _beside(first: Array, second: Array) -> Array:
    """Return the block-diagonal matrix of the two."""
    (a, b), (c, d) = first.shape[-2:], second.shape[-2:]
    out = np.zeros((*first.shape[:-2], a + c, b + d))
    out[..., :a, :b] = first
    out[..., a:, b:] = second
    return out
