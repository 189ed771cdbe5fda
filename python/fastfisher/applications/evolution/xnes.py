"""XNES: a natural evolution strategy that learns the whole covariance of its steps."""

import math
from typing import Any

import numpy as np

from fastfisher import _check, _memory
from fastfisher._ops import ops_of
from fastfisher.applications.evolution.snes import standard_deviations
from fastfisher.applications.evolution.strategy import EvolutionStrategy, rate
from fastfisher.applications.evolution.utilities import Array, signed_sum
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.functions import empirical_fisher, gram

__all__ = ["XNES"]


class XNES(EvolutionStrategy):
    """Exponential natural evolution strategy: minimises a loss of which only values are known.

    Draws x = μ + A z, z ~ N(0, I), and follows the natural gradient F⁻¹ ∇E[ℓ(x)] of the search
    distribution, with utilities u of the ranks of the losses in place of the losses themselves:

        μ ← μ + η_μ A Σ u z,    A ← A exp(½ η M),  M = Σ u (z zᵀ − I).

    Parameters
    ----------
    mean : array (p,)
        Where the search begins.
    sigma : float, array (p,) or array (p, p)
        Standard deviations to begin with, about the distance to the minimum; or a covariance, of
        which the lower triangle is read.
    population : int, optional
        Draws per generation, at least 2; default 4 + ⌊3 log p⌋.
    utilities : array (population,), optional
        Of the draws from the best to the worst; default max(0, log(population/2 + 1) − log rank),
        scaled to sum to 1, less 1/population. Where they are given a restart keeps the population.
    mean_rate, sigma_rate, shape_rate : float, optional
        η_μ, default 1; η of the size of A, det A, default 3 (3 + log p) / (5 p √p), and η of its
        shape, A / (det A)^(1/p), default that of the size.
    mirrored : bool
        Whether every draw z comes with −z.
    tolerance : float
        The search has converged where every sigma is at most this times its start.
    rng : None, int or numpy.random.Generator
        An int gives the same draws each time.

    Attributes
    ----------
    mean, sigma, best, best_loss, status, message, population, generations, evaluations, non_finite
        As those of `SNES`; sigma is the root of the diagonal of the covariance.

    Raises
    ------
    NotPositiveDefiniteError
        If the covariance is not positive definite to rounding.
    TypeError, ValueError

    See Also
    --------
    SNES

    Notes
    -----
    In the coordinates z and M of the search distribution, A exp(½ M), F is the identity for z and
    for the diagonal of M ½, so its inverse costs nothing and the natural gradient is one product,
    Σ u z zᵀ. The exponential takes its eigenvectors. Of a population n < p there are n: they are
    found from the Gram matrix of the draws, and a generation costs 4 n p² + O(n² p)
    multiplications instead of O(p³). The condition number of the covariance, p³, is looked at as
    often as that costs no more than the rest.

    References
    ----------
    T. Glasmachers, T. Schaul, Y. Sun, D. Wierstra and J. Schmidhuber, "Exponential natural
    evolution strategies", GECCO 2010, 393.
    D. Wierstra, T. Schaul, T. Glasmachers, Y. Sun, J. Peters and J. Schmidhuber, "Natural evolution
    strategies", J. Mach. Learn. Res. 15 (2014) 949.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> def rosenbrock(x):
    ...     return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    >>> search = ff.XNES([-1.0, 1.0], 0.5, rng=0)
    >>> result = search.minimize(rosenbrock, max_evaluations=10_000, target=1e-10)
    >>> result.status.name, result.theta.round(3)
    ('SUCCESS', array([1., 1.]))
    >>> search = ff.XNES([-1.0, 1.0], 0.5, rng=0)
    >>> for _ in range(300):
    ...     search.tell([rosenbrock(x) for x in search.ask()])  # the same in a loop of one's own
    >>> search.covariance().shape, search.condition() > 1, bool(search.sigma.max() < 0.1)
    ((2, 2), True, True)
    >>> search.restart().sigma
    array([0.5, 0.5])
    >>> search.best.round(3), search.mean.shape
    (array([1., 1.]), (2,))
    """

    def __init__(
        self,
        mean: Any,
        sigma: Any,
        *,
        population: int | None = None,
        utilities: Any = None,
        mean_rate: float = 1.0,
        sigma_rate: float | None = None,
        shape_rate: float | None = None,
        mirrored: bool = False,
        tolerance: float = 1e-12,
        rng: Any = None,
    ) -> None:
        super().__init__(
            mean,
            sigma,
            population=population,
            utilities=utilities,
            mean_rate=mean_rate,
            sigma_rate=sigma_rate,
            mirrored=mirrored,
            tolerance=tolerance,
            rng=rng,
        )
        self.shape_rate = self.sigma_rate if shape_rate is None else rate("shape_rate", shape_rate)

    def _usual_sigma_rate(self, params: int) -> float:
        return 3 * (3 + math.log(params)) / (5 * params * math.sqrt(params))

    def _first_scale(self, sigma: Any, params: int) -> Array:
        _memory.guard(
            4 * 8 * params * params, "XNES", "SNES keeps no more than p standard deviations."
        )
        return _root("sigma", sigma, params)

    def _spread(self, scale: Array, draws: Array) -> Any:
        return draws @ scale.T

    def _variances(self, scale: Array) -> Any:
        return np.einsum("ij,ij->i", scale, scale)

    def _moved(self, draws: Array, utilities: Array) -> Any:
        p, total = draws.shape[1], float(utilities.sum())
        values, vectors, images = self._spectrum(draws, utilities)
        # M is Σ u z zᵀ − Σu I, its part in the size of A (tr M / p) I. With Σ u z zᵀ = V Λ Vᵀ,
        # A exp(½ η Σ u z zᵀ) = A + A V (exp(½ η Λ) − 1) Vᵀ, whatever A does outside of V.
        size = float(values.sum()) / p - total
        exponent = (self.sigma_rate - self.shape_rate) * size - self.shape_rate * total
        growth = np.expm1(0.5 * self.shape_rate * values)
        return np.exp(0.5 * exponent) * (self._scale + (images * growth) @ vectors.T)

    def _spectrum(self, draws: Array, utilities: Array) -> tuple[Any, Any, Any]:
        """Return Λ, V and A V of Σ u z zᵀ = V Λ Vᵀ; where draws are few, no more columns than they.

        With the Gram matrix Z Zᵀ = P κ Pᵀ, the rows of H = κ^(−½) Pᵀ Z are orthonormal and span
        the draws, and H (Σ u z zᵀ) Hᵀ = κ^½ Pᵀ diag(u) P κ^½ has the eigenvalues Λ.
        """
        samples, p = draws.shape
        if samples >= p:
            values, V = np.linalg.eigh(signed_sum(empirical_fisher, draws, utilities))
            return values, V, self._scale @ V
        kappa, P = np.linalg.eigh(gram(draws, reduction="sum"))
        kept = kappa > samples * np.finfo(np.float64).eps * kappa[-1]  # mirrored draws repeat
        root, P = np.sqrt(kappa[kept]), P[:, kept]
        rooted = P * root
        values, turn = np.linalg.eigh(rooted.T @ (utilities[:, None] * rooted))
        combine = (P / root) @ turn
        return values, draws.T @ combine, self._steps.T @ combine

    def covariance(self) -> Any:
        """Return the covariance A Aᵀ of the search distribution.

        Returns
        -------
        array (p, p), symmetric
        """
        return gram(self._scale, reduction="sum")

    def condition(self) -> float:
        """Return the condition of the covariance, parameters in units of their first sigma.

        What is past 1e16 may read as infinite.
        """
        A = self._scale / np.sqrt(self._start[2])[:, None]
        values = np.linalg.eigvalsh(gram(A / abs(A).max(), reduction="sum"))
        return float(values[-1] / values[0]) if values[0] > 0.0 else math.inf

    def _condition_now(self) -> float:
        often = -(-len(self.mean) // self.population)  # p³ every p / n generations of n p²
        return self.condition() if self.generations % often == 0 else 1.0


def _root(name: str, value: Any, params: int) -> Array:
    """Return A with A Aᵀ the covariance: standard deviations D times the root of correlations R.

    R does not see the units of the parameters, so neither does what is positive definite.
    """
    given = ops_of(value).to_vector(name, value, np.dtype(np.float64))
    if given.ndim < 2:
        return np.diag(standard_deviations(name, given, params))
    if given.shape != (params, params):
        raise ValueError(
            f"{name}: expected a number, shape ({params},) or ({params}, {params}), got "
            f"{given.shape}. A vector holds standard deviations, a matrix is a covariance."
        )
    lower = np.tril(_check.finite_columns(ops_of(given), name, given, params, given.dtype))
    variances = lower.diagonal()
    D = np.sqrt(np.where(variances > 0.0, variances, 1.0))
    with np.errstate(over="ignore"):
        R = np.clip(lower / D / D[:, None], -2.0, 2.0)  # past 1 is not positive definite
    values, V = np.linalg.eigh(R)
    if not values[0] > params * np.finfo(np.float64).eps * values[-1]:
        raise NotPositiveDefiniteError(
            f"{name}: expected a positive definite covariance, got an eigenvalue of "
            f"{values[0]:.3g} beside one of {values[-1]:.3g} among correlations. Leave out what "
            "does not vary, or give a vector of standard deviations."
        )
    root: Array = D[:, None] * ((V * np.sqrt(values)) @ V.T)
    return root
