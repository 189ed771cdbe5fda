"""Gaussian: the normal distribution of one number, by its mean, or by mean and scale."""

import math
from typing import Any, Self

import numpy as np

from fastfisher import _check
from fastfisher._ops.border import Shown, takes_tensors
from fastfisher.families import domain
from fastfisher.families.divergence import divergence
from fastfisher.families.domain import Array
from fastfisher.families.family import Family

__all__ = ["Gaussian"]


class Gaussian(Family):
    """The normal distribution N(mean, scale²).

    Parameters
    ----------
    mean : float or array (n,)
    scale : float or array (n,)
        The standard deviation, above 0.
    fixed_scale : bool
        Whether the scale is known: θ is then (mean,), else (mean, scale).

    See Also
    --------
    MultivariateGaussian

    Notes
    -----
    F = 1/σ² with the scale known, else diag(1/σ², 2/σ²).

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> family = ff.Gaussian(1.0, 2.0)
    >>> family.fisher_information()
    array([[0.25, 0.  ],
           [0.  , 0.5 ]])
    >>> family.score([1.0, 5.0])
    array([[ 0. , -0.5],
           [ 1. ,  1.5]])
    """

    mean = Shown()
    scale = Shown()
    _held = ("mean", "scale")

    def __init__(self, mean: Any, scale: Any, *, fixed_scale: bool = False) -> None:
        mu = domain.real("mean", mean)
        sigma = domain.positive("scale", scale, "It is a standard deviation, not a variance.")
        self._batch = domain.joint_shape("mean", mu.shape, "scale", sigma.shape)
        self.mean = domain.own(mu, self._batch)
        self.scale = domain.own(sigma, self._batch)
        self.fixed_scale = _check.flag("fixed_scale", fixed_scale)

    @property
    @takes_tensors
    def parameters(self) -> Any:
        """(mean,), or (mean, scale)."""
        held = (self.mean,) if self.fixed_scale else (self.mean, self.scale)
        return np.stack(held, axis=-1)

    def with_parameters(self, parameters: Any) -> Self:
        """Return the same family at other parameters."""
        theta = self._new_parameters(parameters)
        scale = self.scale if self.fixed_scale else theta[..., 1]
        return type(self)(theta[..., 0], scale, fixed_scale=self.fixed_scale)

    def _log_prob(self, x: Array) -> Any:
        z = (x - self.mean) / self.scale
        return -0.5 * z * z - np.log(self.scale) - 0.5 * math.log(2 * math.pi)

    def _score(self, x: Array) -> Any:
        z = (x - self.mean) / self.scale
        columns = [z / self.scale]
        if not self.fixed_scale:
            columns.append((z - 1) * (z + 1) / self.scale)
        return np.stack(columns, axis=-1)

    def _fisher_information(self) -> Any:
        precision = np.asarray(1 / self.scale**2)[..., None, None]
        return precision * np.diag([1.0] if self.fixed_scale else [1.0, 2.0])

    def _draw(self, count: int, generator: np.random.Generator) -> Any:
        return self.mean + self.scale * generator.standard_normal((count, *self._batch))

    def _kl(self, other: Self) -> Any:
        # ½ (r − 1 − log r) + ½ (Δμ/σ₂)², r = (σ₁/σ₂)²
        step = (self.mean - other.mean) / other.scale
        ratio = self.scale / other.scale
        log_ratio = 2 * (np.log(other.scale) - np.log(self.scale))
        return 0.5 * divergence(1.0, ratio * ratio, log_ratio) + 0.5 * step * step
