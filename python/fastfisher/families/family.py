"""Family: a distribution with known score and known Fisher information, or one for each sample."""

from abc import ABC, abstractmethod
from copy import copy
from typing import Any, ClassVar, Self

import numpy as np

from fastfisher import _check
from fastfisher._ops.border import TakesTensors
from fastfisher.errors import NonFiniteError
from fastfisher.families import domain
from fastfisher.families.domain import Array

__all__ = ["Family"]


class Family(TakesTensors, ABC):
    """A distribution p(x | θ) of k parameters, with its score s(x) = ∇θ log p(x | θ).

    Parameters may be arrays: the object is then one distribution for each index of the batch, as
    the outputs of a model are, and x broadcasts against the batch. Everything is float64.

    Attributes
    ----------
    parameters : array (…, k)
        θ, in the order of the columns of the score.
    batch_shape : tuple
        () for one distribution, (n,) for one per sample.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> family = ff.Poisson(np.array([1.0, 4.0]))  # a distribution for each of two samples
    >>> family.score([2, 2])
    array([[ 1. ],
           [-0.5]])
    >>> family.fisher_information().shape
    (2, 1, 1)
    >>> family.with_parameters([[2.0], [3.0]]).rate
    array([2., 3.])
    >>> family.parameters, family.batch_shape
    (array([[1.],
           [4.]]), (2,))
    >>> family.log_prob([2, 2]).round(3), family.kl(ff.Poisson([1.0, 5.0])).round(3)
    (array([-1.693, -1.921]), array([0.   , 0.107]))
    >>> family.sample(3, rng=0).shape
    (3, 2)
    """

    # Arrays whose first axes are the batch: what the constructor took, and what follows from it.
    _held: ClassVar[tuple[str, ...]]
    _derived: ClassVar[tuple[str, ...]] = ()
    _batch: tuple[int, ...]
    _event: tuple[int, ...] = ()  # the shape of one observation

    @property
    def _filled(self) -> bool:
        return True  # the first parameters decide

    # ---- what a family writes ----
    @property
    @abstractmethod
    def parameters(self) -> Any:
        """θ, (…, k), in the order of the columns of the score."""

    @abstractmethod
    def with_parameters(self, parameters: Any) -> Self:
        """Return the same family at other parameters, (…, k)."""

    @abstractmethod
    def _log_prob(self, x: Array) -> Any:
        """Return log p(x | θ)."""

    @abstractmethod
    def _score(self, x: Array) -> Any:
        """Return ∇θ log p(x | θ), with a last axis k."""

    @abstractmethod
    def _fisher_information(self) -> Any:
        """Return F, (*batch, k, k)."""

    @abstractmethod
    def _draw(self, count: int, generator: np.random.Generator) -> Any:
        """Return draws, (count, *batch, *event)."""

    @abstractmethod
    def _kl(self, other: Any) -> Any:
        """Return the divergence from a family of the same kind."""

    def _check_support(self, x: Array) -> None:  # any number may occur
        """Raise unless every observation may occur."""

    def _information_root(self) -> Any:
        """Return R, (*batch, r, k), with RᵀR = F; as it stands, for a diagonal F."""
        return np.sqrt(self.fisher_information())

    @classmethod
    def _kind(cls) -> type["Family"]:
        """Return the class that `kl` takes."""
        return cls

    # ---- what all of them have ----
    @property
    def batch_shape(self) -> tuple[int, ...]:
        """() for one distribution, (n,) for one per sample."""
        return self._batch

    def log_prob(self, x: Any) -> Any:
        """Return log p(x | θ).

        Parameters
        ----------
        x : array (n,)
            (n, d) for a multivariate family; anything that broadcasts with the batch.

        Returns
        -------
        array (n,)

        Raises
        ------
        NonFiniteError, ValueError
            If an observation is not finite, or outside the support; names the first one.
        """
        x = self._observed(x)
        with np.errstate(all="ignore"):
            value = self._log_prob(x)
        return self._known("log_prob", value)

    def score(self, x: Any) -> Any:
        """Return the scores s(x) = ∇θ log p(x | θ), one row per observation.

        Parameters
        ----------
        x : array (n,), or (n, d) for a multivariate family

        Returns
        -------
        array (n, k)
            What ``ff.empirical_fisher`` takes.

        Raises
        ------
        NonFiniteError, ValueError
            If an observation is not finite or outside the support, or a parameter on the edge of
            its domain.
        """
        x = self._observed(x)
        with np.errstate(all="ignore"):
            value = self._score(x)
        return self._inside("score", value)

    def fisher_information(self) -> Any:
        """Return F = E[s sᵀ] of one observation, in closed form.

        Returns
        -------
        array (k, k), or (…, k, k)
            n independent observations have n times as much.

        Raises
        ------
        NonFiniteError
            If a parameter is on the edge of its domain.
        """
        with np.errstate(all="ignore"):
            value = self._fisher_information()
        return self._inside("fisher_information", value)

    def sample(self, n: int, rng: Any = None) -> Any:
        """Draw n observations from each distribution.

        Parameters
        ----------
        n : int
        rng : None, int or numpy.random.Generator
            An int gives the same draws each time.

        Returns
        -------
        array (n,), or (n, …); (n, …, d) for a multivariate family
            Counts and labels are integers.
        """
        return self._draw(_check.count("n", n), _check.generator(rng))

    def kl(self, other: Self) -> Any:
        """Return the Kullback–Leibler divergence KL(self ‖ other) ≥ 0, in closed form.

        Near each other it is ½ dᵀF d for a step d of the parameters. Whether parameters are fixed
        makes no difference.

        Parameters
        ----------
        other : Family
            Of the same kind.

        Returns
        -------
        float, or array (…)
            Infinite where `other` excludes what `self` may give.

        Raises
        ------
        TypeError, ValueError
            For another kind of family, or one of other observations.
        """
        kind = self._kind()
        if not isinstance(other, kind):
            raise TypeError(
                f"other: expected {kind.__name__}, got {type(other).__name__}. "
                "Closed forms are known within one family: sample, and average log_prob instead."
            )
        if other._event != self._event:
            raise ValueError(
                f"other: expected observations of shape {self._event}, got {other._event}. "
                "Both must be distributions of the same thing."
            )
        domain.joint_shape("other", other._batch, "self", self._batch)
        with np.errstate(all="ignore"):
            value = self._known("kl", self._kl(other))
        return float(value) if np.ndim(value) == 0 else value

    def __repr__(self) -> str:
        def told(value: Any) -> str:
            return f"{float(value):g}" if np.ndim(value) == 0 else f"array {np.shape(value)}"

        listed = ", ".join(f"{name}={told(vars(self)[name])}" for name in self._held)
        return f"{type(self).__name__}({listed})"

    # ---- shared steps ----
    def _observed(self, value: Any) -> Array:
        """Return observations as float64, checked, with the batch's axes."""
        x = domain.observed(value)
        split = x.ndim - len(self._event)
        if split < 0 or x.shape[split:] != self._event:
            raise ValueError(
                f"x: expected shape (n, {self._event[0]}), got {x.shape}. Give one row per sample."
            )
        shape = domain.joint_shape("x", x.shape[:split], "the parameters", self._batch)
        self._check_support(x)
        return np.broadcast_to(x, (*shape, *self._event))

    def _known(self, what: str, value: Any) -> Any:
        """Return what may be infinite, but is a number."""
        if np.isnan(value).any():
            raise NonFiniteError(
                f"{type(self).__name__}.{what}: expected numbers that float64 can hold, got terms "
                "that overflow. Bring data and parameters to a scale near 1."
            )
        return np.asarray(value)[()]

    def _inside(self, what: str, value: Any) -> Any:
        """Return what must be finite."""
        if not np.isfinite(value).all():
            raise NonFiniteError(
                f"{type(self).__name__}.{what}: expected parameters inside their domain, got some "
                "on its edge or too near it for float64. There is no Fisher information there."
            )
        return value

    def _new_parameters(self, value: Any) -> Array:
        """Return new parameters, whose last axis has the length of ours."""
        array = domain.real("parameters", value)
        length = self.parameters.shape[-1]
        if array.ndim == 0 or array.shape[-1] != length:
            raise ValueError(
                f"parameters: expected shape (…, {length}), got {array.shape}. "
                "The last axis has the parameters of one distribution."
            )
        return array

    def _part(self, block: slice) -> Self:
        """Return the distributions of a part of the batch's first axis."""
        part = copy(self)
        for name in self._held + self._derived:
            vars(part)[name] = vars(self)[name][block]
        part._batch = np.broadcast_to(False, self._batch)[block].shape
        return part
