"""SNES: a natural evolution strategy whose coordinates are searched independently."""

import math
from typing import Any

import numpy as np

from fastfisher import _memory
from fastfisher.applications.evolution.strategy import EvolutionStrategy
from fastfisher.applications.evolution.utilities import Array, signed_sum
from fastfisher.families import domain
from fastfisher.functions import fisher_diagonal

__all__ = ["SNES", "standard_deviations"]


class SNES(EvolutionStrategy):
    """Separable natural evolution strategy: minimises a loss of which only values are known.

    Draws x = μ + σ z, z ~ N(0, I), and follows the natural gradient F⁻¹ ∇E[ℓ(x)] of the search
    distribution, with utilities u of the ranks of the losses in place of the losses themselves:

        μ ← μ + η_μ σ Σ u z,    σ ← σ exp(½ η_σ Σ u (z² − 1)).

    Parameters
    ----------
    mean : array (p,)
        Where the search begins.
    sigma : float or array (p,)
        Standard deviations to begin with: about the distance to the minimum.
    population : int, optional
        Draws per generation, at least 2; default 4 + ⌊3 log p⌋.
    utilities : array (population,), optional
        Of the draws from the best to the worst; default max(0, log(population/2 + 1) − log rank),
        scaled to sum to 1, less 1/population. Where they are given a restart keeps the population.
    mean_rate, sigma_rate : float, optional
        η_μ, default 1, and η_σ, default (3 + log p) / (5 √p).
    mirrored : bool
        Whether every draw z comes with −z.
    tolerance : float
        The search has converged where every sigma is at most this times its start.
    rng : None, int or numpy.random.Generator
        An int gives the same draws each time.

    Attributes
    ----------
    mean, sigma : array (p,)
        Of the search distribution.
    best : array (p,) or None
        The best point so far.
    best_loss : float
        Its loss; infinite before the first.
    status : Status or None
        None while there is no reason to stop: ``SUCCESS`` where sigma fell below the tolerance;
        ``STAGNATED`` where the best loss stays the same, the mean no longer moves in float64 or
        `condition` has grown past 1e14; ``NON_FINITE`` where losses are no longer finite, or in
        `minimize` one was −∞, or the next search distribution is out of the range of float64 and
        the last one was kept.
    message : str
        The same in words.
    population, generations, evaluations : int
    non_finite : int
        Losses so far that were NaN or infinite.

    Raises
    ------
    TypeError, ValueError

    See Also
    --------
    XNES

    Notes
    -----
    A generation costs O(population · p), in time and memory. In the coordinates z and ½ log σ² of
    the search distribution F is the identity and ½ I, which is why no system is solved. The search
    depends on the order of the losses alone, and so does every rule that stops it.

    References
    ----------
    D. Wierstra, T. Schaul, T. Glasmachers, Y. Sun, J. Peters and J. Schmidhuber, "Natural evolution
    strategies", J. Mach. Learn. Res. 15 (2014) 949.
    T. Schaul, T. Glasmachers and J. Schmidhuber, "High dimensions and heavy tails for natural
    evolution strategies", GECCO 2011, 845.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> search = ff.SNES(np.ones(4), 0.5, rng=0)
    >>> while search.best_loss > 1e-8:
    ...     x = search.ask()
    ...     search.tell((x**2).sum(axis=1))
    >>> bool((abs(search.best) < 1e-4).all())
    True
    >>> search.covariance().shape, search.condition() >= 1, bool(search.sigma.max() < 1e-3)
    ((4, 4), True, True)
    >>> search = search.restart()  # from where it began, with a larger population
    >>> result = search.minimize(lambda x: (x**2).sum(), max_evaluations=2000, target=1e-6)
    >>> result.status.name
    'SUCCESS'
    >>> bool(search.best_loss <= 1e-6), search.best.shape, search.mean.shape
    (True, (4,), (4,))
    """

    def _usual_sigma_rate(self, params: int) -> float:
        return (3 + math.log(params)) / (5 * math.sqrt(params))

    def _first_scale(self, sigma: Any, params: int) -> Array:
        return standard_deviations("sigma", sigma, params)

    def _spread(self, scale: Array, draws: Array) -> Any:
        return scale * draws

    def _variances(self, scale: Array) -> Any:
        return scale * scale

    def _moved(self, draws: Array, utilities: Array) -> Any:
        gradient = signed_sum(fisher_diagonal, draws, utilities) - utilities.sum()
        return self._scale * np.exp(0.5 * self.sigma_rate * gradient)

    def covariance(self) -> Any:
        """Return the covariance diag(σ²) of the search distribution.

        Returns
        -------
        array (p, p)
            `sigma` has its diagonal's roots without p² numbers.

        Raises
        ------
        MemoryLimitError
        """
        _memory.guard(8 * len(self.mean) ** 2, "SNES.covariance", "Use sigma**2, its diagonal.")
        return np.diag(self._variances(self._scale))

    def condition(self) -> float:
        """Return the condition of the covariance, parameters in units of their first sigma."""
        with np.errstate(over="ignore", under="ignore"):
            grown = self._scale / self._start[1]
            return float(np.square(grown.max() / grown.min()))


def standard_deviations(name: str, value: Any, params: int) -> Array:
    """Return one standard deviation per parameter."""
    sigma = domain.positive(name, value, "It is a standard deviation of the first draws.")
    if sigma.shape not in ((), (params,)):
        raise ValueError(
            f"{name}: expected a number or shape ({params},), got {sigma.shape}. "
            "Give one standard deviation for all parameters, or one for each."
        )
    own: Array = domain.own(sigma, (params,))
    return own
