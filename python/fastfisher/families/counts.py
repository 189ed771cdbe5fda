"""Counts: Poisson, Binomial and Bernoulli, by rate and by probability."""

from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from fastfisher._ops.border import Shown, takes_tensors
from fastfisher.families import domain
from fastfisher.families.divergence import divergence, log_peak
from fastfisher.families.domain import Array
from fastfisher.families.family import Family

__all__ = ["Bernoulli", "Binomial", "Poisson"]

_WHOLE = "A count is a whole number."


class Poisson(Family):
    """The Poisson distribution of counts, λˣ exp(−λ)/x!.

    Parameters
    ----------
    rate : float or array (n,)
        λ, above 0: the mean count.

    Notes
    -----
    F = 1/λ. Log-probabilities keep their digits for large counts too: see ``divergence.py``.

    Examples
    --------
    >>> import fastfisher as ff
    >>> family = ff.Poisson(4.0)
    >>> family.fisher_information()
    array([[0.25]])
    >>> family.score([4, 6])
    array([[0. ],
           [0.5]])
    >>> float(family.rate)
    4.0
    """

    rate = Shown()
    _held = ("rate",)

    def __init__(self, rate: Any) -> None:
        rate = domain.positive("rate", rate, "It is the mean count; give exp of a log-rate.")
        self._batch = rate.shape
        self.rate = domain.own(rate, self._batch)

    @property
    @takes_tensors
    def parameters(self) -> Any:
        """(rate,)."""
        return np.stack((self.rate,), axis=-1)

    def with_parameters(self, parameters: Any) -> Self:
        """Return the same family at another rate."""
        return type(self)(self._new_parameters(parameters)[..., 0])

    def _check_support(self, x: Array) -> None:
        domain.whole("x", x, _WHOLE)

    def _log_prob(self, x: Array) -> Any:
        return log_peak(x) - divergence(x, self.rate)

    def _score(self, x: Array) -> Any:
        return np.stack(((x - self.rate) / self.rate,), axis=-1)

    def _fisher_information(self) -> Any:
        return np.asarray(1 / self.rate)[..., None, None]

    def _draw(self, count: int, generator: np.random.Generator) -> Any:
        return generator.poisson(self.rate, (count, *self._batch))

    def _kl(self, other: Self) -> Any:
        return divergence(self.rate, other.rate)


class Binomial(Family):
    """The binomial distribution of successes in N trials; N is known.

    Parameters
    ----------
    trials : int or array (n,)
        N, not negative.
    probability : float or array (n,)
        p, from 0 to 1. On the edge there are probabilities and divergences, but no score and no
        Fisher information.

    Notes
    -----
    F = N / (p (1 − p)).

    Examples
    --------
    >>> import fastfisher as ff
    >>> family = ff.Binomial(10, 0.5)
    >>> family.fisher_information()
    array([[40.]])
    >>> family.score([5, 7])
    array([[0.],
           [8.]])
    >>> int(family.trials), float(family.probability)
    (10, 0.5)
    """

    trials = Shown()
    probability = Shown()
    _held: ClassVar[tuple[str, ...]] = ("trials", "probability")

    def __init__(self, trials: Any, probability: Any) -> None:
        trials = domain.whole("trials", trials, "It counts how often it was tried.")
        probability = domain.probability("probability", probability)
        self._batch = domain.joint_shape("trials", trials.shape, "probability", probability.shape)
        self.trials = domain.own(trials, self._batch)
        self.probability = domain.own(probability, self._batch)

    @property
    @takes_tensors
    def parameters(self) -> Any:
        """(probability,)."""
        return np.stack((self.probability,), axis=-1)

    def with_parameters(self, parameters: Any) -> Self:
        """Return the same family, with as many trials, at another probability."""
        return type(self)(self.trials, self._new_parameters(parameters)[..., 0])

    @classmethod
    def _kind(cls) -> type[Family]:
        return Binomial

    def _check_support(self, x: Array) -> None:
        domain.whole("x", x, _WHOLE)
        domain.at_most("x", x, self.trials, "There are no more successes than trials.")

    def _log_prob(self, x: Array) -> Any:
        # log p(x | N, p) = log p(x | N, x/N) − D(x‖Np) − D(N−x‖N(1−p))
        N, p, failures = self.trials, self.probability, self.trials - x
        peak = log_peak(x) + log_peak(failures) - log_peak(np.asarray(N))
        return peak - divergence(x, N * p) - divergence(failures, N * (1 - p))

    def _score(self, x: Array) -> Any:
        p = self.probability
        return np.stack(((x - self.trials * p) / (p * (1 - p)),), axis=-1)

    def _fisher_information(self) -> Any:
        p = self.probability
        return np.asarray(self.trials / (p * (1 - p)))[..., None, None]

    def _draw(self, count: int, generator: np.random.Generator) -> Any:
        trials = np.asarray(self.trials).astype(np.int64)
        return generator.binomial(trials, self.probability, (count, *self._batch))

    def _kl(self, other: Self) -> Any:
        if not np.all(self.trials == other.trials):
            raise ValueError(
                f"other: expected as many trials, {self.trials}, got {other.trials}. "
                "Distributions of different counts have no divergence in closed form."
            )
        p, q = self.probability, other.probability
        # 0 · ∞ does not arise: without trials nothing differs.
        return np.where(
            self.trials > 0,
            np.maximum(self.trials, 1) * (divergence(p, q) + divergence(1 - p, 1 - q)),
            0.0,
        )


class Bernoulli(Binomial):
    """One trial: 1 with a probability p, else 0.

    Parameters
    ----------
    probability : float or array (n,)
        p, from 0 to 1; on the edge there is no score and no Fisher information.

    Notes
    -----
    F = 1 / (p (1 − p)).

    Examples
    --------
    >>> import fastfisher as ff
    >>> ff.Bernoulli(0.5).fisher_information()
    array([[4.]])
    >>> round(ff.Bernoulli(0.5).kl(ff.Bernoulli(0.25)), 4)
    0.1438
    >>> int(ff.Bernoulli(0.5).trials), float(ff.Bernoulli(0.5).probability)
    (1, 0.5)
    """

    _held = ("probability",)
    _derived = ("trials",)

    def __init__(self, probability: Any) -> None:
        super().__init__(1, probability)

    if TYPE_CHECKING:  # one trial has a divergence to one trial, whichever way it is written

        def kl(self, other: Binomial) -> Any: ...  # noqa: D102

    def with_parameters(self, parameters: Any) -> Self:
        """Return the same family at another probability."""
        return type(self)(self._new_parameters(parameters)[..., 0])
