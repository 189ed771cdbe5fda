"""Exponential: waiting times, by their mean."""

from typing import Any, Self

import numpy as np

from fastfisher._ops.border import Shown, takes_tensors
from fastfisher.families import domain
from fastfisher.families.divergence import divergence
from fastfisher.families.domain import Array
from fastfisher.families.family import Family

__all__ = ["Exponential"]


class Exponential(Family):
    """The exponential distribution with density exp(−x/θ)/θ for x ≥ 0, by its mean θ.

    Parameters
    ----------
    mean : float or array (n,)
        θ, above 0: the inverse of the rate.

    Notes
    -----
    F = 1/θ². By the rate r = 1/θ it is 1/r², as reparametrising says.

    Examples
    --------
    >>> import fastfisher as ff
    >>> ff.Exponential(2.0).fisher_information()
    array([[0.25]])
    """

    mean = Shown()
    _held = ("mean",)

    def __init__(self, mean: Any) -> None:
        theta = domain.positive("mean", mean, "It is the inverse of the rate.")
        self._batch = theta.shape
        self.mean = domain.own(theta, self._batch)

    @property
    @takes_tensors
    def parameters(self) -> Any:
        """(mean,)."""
        return np.stack((self.mean,), axis=-1)

    def with_parameters(self, parameters: Any) -> Self:
        """Return the same family at another mean."""
        return type(self)(self._new_parameters(parameters)[..., 0])

    def _check_support(self, x: Array) -> None:
        domain.not_negative("x", x, "Waiting times are.")

    def _log_prob(self, x: Array) -> Any:
        return -x / self.mean - np.log(self.mean)

    def _score(self, x: Array) -> Any:
        return np.stack(((x - self.mean) / self.mean / self.mean,), axis=-1)

    def _fisher_information(self) -> Any:
        return np.asarray(1 / self.mean**2)[..., None, None]

    def _draw(self, count: int, generator: np.random.Generator) -> Any:
        return self.mean * generator.standard_exponential((count, *self._batch))

    def _kl(self, other: Self) -> Any:
        return divergence(1.0, self.mean / other.mean, np.log(other.mean) - np.log(self.mean))
