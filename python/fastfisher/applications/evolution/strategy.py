"""EvolutionStrategy: what natural evolution strategies share, from utilities to restarts."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from fastfisher import _check
from fastfisher._ops import on_host, ops_of
from fastfisher._ops.border import Shown, TakesTensors, takes_tensors
from fastfisher.applications.evolution.minimize import minimize
from fastfisher.applications.evolution.result import EvolutionResult
from fastfisher.applications.evolution.utilities import Array, by_rank, of_population
from fastfisher.errors import NonFiniteError
from fastfisher.families import domain
from fastfisher.solvers.solution import Status

__all__ = ["EvolutionStrategy", "rate"]

# Stopping rules of the CMA evolution strategy (Hansen, "The CMA evolution strategy: a tutorial",
# arXiv:1604.00772, appendix B.3), like the default tolerance of 1e-12: the largest condition of the
# covariance, the share of sigma that must still move the mean, and for how many generations,
# 10 + ⌈30 p / population⌉, the best loss may stay the same.
_WORST_CONDITION = 1e14
_SHARE = 0.2
_PATIENCE = (10, 30)


class EvolutionStrategy(TakesTensors, ABC):
    """A search distribution N(mean, A Aᵀ) that follows the natural gradient of the expected loss.

    A subclass says what the first A is, held as `_scale`, how normal draws become steps from the
    mean, which variances that gives, and how utilities move A.
    """

    mean = Shown()
    best = Shown()
    _scale: Array

    def __init__(
        self,
        mean: Any,
        sigma: Any,
        *,
        population: int | None = None,
        utilities: Any = None,
        mean_rate: float = 1.0,
        sigma_rate: float | None = None,
        mirrored: bool = False,
        tolerance: float = 1e-12,
        rng: Any = None,
    ) -> None:
        start = domain.real("mean", mean)
        if start.ndim != 1 or start.shape[0] == 0:
            raise ValueError(
                f"mean: expected shape (p,) with p ≥ 1, got {start.shape}. "
                "Give an array also for a single parameter."
            )
        self.mean = domain.own(start, start.shape)
        self.best = None
        self.best_loss = self.generation_loss = math.inf
        self.evaluations = self.generations = self.non_finite = 0
        self.status: Status | None = None
        self.message = ""
        if population is None:
            population = 4 + math.floor(3 * math.log(start.shape[0]))
        self._given_utilities = utilities
        self._set_population(population)
        self._given_utilities = None if utilities is None else self._utilities  # our own copy
        self.mean_rate = rate("mean_rate", mean_rate)
        self.mirrored = _check.flag("mirrored", mirrored)
        self.tolerance = _check.cut("tolerance", tolerance)
        self._rng = _check.generator(rng)
        self._draws: Array | None = None
        self._steps: Array
        params = len(self.mean)
        usual = self._usual_sigma_rate(params)
        self.sigma_rate = usual if sigma_rate is None else rate("sigma_rate", sigma_rate)
        scale = self._first_scale(sigma, params)
        with np.errstate(over="ignore", under="ignore"):
            variances = self._variances(scale)
        if not _held(variances):
            raise ValueError(
                "sigma: expected numbers whose squares float64 holds, got variances from "
                f"{variances.min():.3g} to {variances.max():.3g}. Bring parameters to a scale near "
                "1."
            )
        self._scale = scale
        self._start = self.mean, scale, variances
        self._unchanged = 0

    @property
    def _filled(self) -> bool:
        return True  # the first mean decides

    # ---- what a strategy writes ----
    @abstractmethod
    def _usual_sigma_rate(self, params: int) -> float:
        """Return the learning rate of A that the literature recommends."""

    @abstractmethod
    def _first_scale(self, sigma: Any, params: int) -> Array:
        """Return the A that the caller's sigma says."""

    @abstractmethod
    def _spread(self, scale: Array, draws: Array) -> Any:
        """Return A z of each draw."""

    @abstractmethod
    def _variances(self, scale: Array) -> Any:
        """Return the diagonal of A Aᵀ."""

    @abstractmethod
    def _moved(self, draws: Array, utilities: Array) -> Any:
        """Return A one natural gradient step on."""

    @abstractmethod
    def covariance(self) -> Any:
        """Return the covariance A Aᵀ of the search distribution, (p, p)."""

    @abstractmethod
    def condition(self) -> float:
        """Return the condition of the covariance, parameters in units of their first sigma."""

    def _condition_now(self) -> float:
        """Return the condition, or 1 if it is not looked at this time."""
        return self.condition()

    # ---- what all of them have ----
    @property
    @takes_tensors
    def sigma(self) -> Any:
        """Standard deviations of the search distribution, (p,)."""
        return np.sqrt(self._variances(self._scale))

    def ask(self) -> Any:
        """Return the population to evaluate, drawn from the search distribution.

        Returns
        -------
        array (population, p)
            The same until its losses are told.
        """
        if self._draws is None:
            half = -(-self.population // 2) if self.mirrored else self.population
            draws = self._rng.standard_normal((half, len(self.mean)))
            if self.mirrored:
                draws = np.concatenate([draws, -draws])[: self.population]
            self._draws, self._steps = draws, self._spread(self._scale, draws)
        return self.mean + self._steps

    def tell(self, losses: Any) -> None:
        """Move the search distribution by the losses of the population that was asked for.

        Only their order counts. Equal losses share their utilities; NaN ranks last, as infinity
        does, and where no loss is finite nothing is learned. An error changes nothing: the
        population can be told again.

        Parameters
        ----------
        losses : array (population,)
            Of the rows of `ask`, the smaller the better.

        Raises
        ------
        NonFiniteError
            If a loss is −∞.
        RuntimeError
            If no population was asked for.
        TypeError, ValueError
        """
        if self._draws is None:
            raise RuntimeError(
                "tell: expected the losses of a population that was asked for, got none asked. "
                "Call ask before each tell."
            )
        losses, finite = self._ranked(losses)
        utilities = by_rank(self._utilities, losses) if finite else np.zeros(self.population)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            mean = self.mean + self.mean_rate * (utilities @ self._steps)
            scale = self._moved(self._draws, utilities)
            variances = self._variances(scale)
        first = int(losses.argmin())
        same = bool(losses[first] == self.generation_loss)
        self._unchanged = self._unchanged + 1 if same else 0
        self.generation_loss = float(losses[first])
        if self.generation_loss < self.best_loss:
            point = self.mean + self._steps[first]
            self.best, self.best_loss = domain.own(point, point.shape), self.generation_loss
        self.evaluations += self.population
        self.generations += 1
        self.non_finite += self.population - finite
        self._draws = None
        if not (np.isfinite(mean).all() and _held(variances)):
            self._stop(Status.NON_FINITE, "the search distribution left the range of float64")
            return
        self.mean, self._scale = domain.own(mean, mean.shape), scale
        self._look(np.sqrt(variances))

    def restart(self, mean: Any = None, population: int | None = None) -> Self:
        """Begin again with the first covariance and, unless told otherwise, a larger population.

        The best point, the counts and the stream of random numbers go on.

        Parameters
        ----------
        mean : array (p,), optional
            Where to begin. Default: a draw from the first search distribution.
        population : int, optional
            Default: twice the present one, after Auger and Hansen; the present one where
            `utilities` were given, which are of one population.

        Returns
        -------
        The strategy itself.

        References
        ----------
        A. Auger and N. Hansen, "A restart CMA evolution strategy with increasing population size",
        CEC 2005, 1769.
        """
        centre, scale, _ = self._start
        start = centre if mean is None else domain.real("mean", mean)
        if start.shape != centre.shape:
            raise ValueError(
                f"mean: expected shape {centre.shape}, got {start.shape}. "
                "A restart keeps the number of parameters."
            )
        self._set_population(self._next_population if population is None else population)
        if mean is None:
            draw = self._rng.standard_normal((1, len(centre)))
            start = centre + self._spread(scale, draw)[0]
        self.mean, self._scale = domain.own(start, start.shape), scale
        self.status, self.message, self._draws = None, "", None
        self._unchanged = 0
        return self

    def minimize(
        self,
        loss: Callable[[Any], Any],
        *,
        max_evaluations: int,
        target: float | None = None,
        restarts: int = 0,
        vectorized: bool = False,
        callback: Callable[[Any], Any] | None = None,
    ) -> EvolutionResult:
        """Ask, evaluate and tell until there is a reason to stop; going on later is possible.

        Parameters
        ----------
        loss : callable
            ``loss(theta) -> float`` for one point (p,).
        max_evaluations : int
            Never more than these in this call; at least one population.
        target : float, optional
            Stop at a loss that is not above it.
        restarts : int
            How often to `restart` where the search comes to rest.
        vectorized : bool
            Whether it is ``loss(population) -> (population,)`` for all rows (population, p).
        callback : callable, optional
            Called after each generation with the strategy, which is the state of the search itself;
            a true answer, or StopIteration, ends it.

        Returns
        -------
        EvolutionResult

        Raises
        ------
        TypeError, ValueError
            And whatever `loss` raises.
        """
        return minimize(self, loss, max_evaluations, target, restarts, vectorized, callback)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.mean)} parameters, population={self.population}, "
            f"generations={self.generations}, best_loss={self.best_loss:g})"
        )

    # ---- shared steps ----
    @property
    def _next_population(self) -> int:
        """How many draws a restart takes unless it is told."""
        return self.population * (2 if self._given_utilities is None else 1)

    def _set_population(self, value: int) -> None:
        """Hold the number of draws and their utilities, best first."""
        population = _check.count("population", value, 2)
        self._utilities = of_population(self._given_utilities, population)
        self.population = population

    def _ranked(self, value: Any) -> tuple[Array, int]:
        """Return the losses with NaN as infinity, and how many are finite."""
        on_host("losses", value)
        losses = ops_of(value).to_vector("losses", value, np.dtype(np.float64))
        if losses.shape != (self.population,):
            raise ValueError(
                f"losses: expected shape ({self.population},), one per row of ask, got "
                f"{losses.shape}. Give one number per point."
            )
        if (losses == -math.inf).any():
            raise NonFiniteError(
                f"losses: expected numbers above -inf, got -inf at row {int(losses.argmin())}. "
                "A loss without a lower bound has no minimum: find out where it comes from.",
                row=int(losses.argmin()),
            )
        return np.where(np.isnan(losses), math.inf, losses), int(np.isfinite(losses).sum())

    def _look(self, sigma: Array) -> None:
        """Find a reason to stop, none of which depends on more than the order of losses."""
        least, per_share = _PATIENCE
        patience = least + math.ceil(per_share * len(self.mean) / self.population)
        if (sigma <= self.tolerance * np.sqrt(self._start[2])).all():
            self._stop(Status.SUCCESS, f"sigma fell below {self.tolerance:g} of its start")
        elif (self.mean + _SHARE * sigma == self.mean).any():
            self._stop(Status.STAGNATED, "sigma is below the rounding of the mean")
        elif self._unchanged >= patience and self.generation_loss == math.inf:
            self._stop(Status.NON_FINITE, f"no loss has been finite for {patience} generations")
        elif self._unchanged >= patience:
            self._stop(
                Status.STAGNATED, f"the best loss has not changed for {patience} generations"
            )
        elif (condition := self._condition_now()) > _WORST_CONDITION:
            self._stop(
                Status.STAGNATED, f"the condition of the covariance has grown to {condition:.1g}"
            )
        else:
            self.status, self.message = None, ""

    def _stop(self, status: Status, message: str) -> None:
        if self.non_finite:
            message += f"; {self.non_finite} of {self.evaluations} losses were not finite"
        self.status, self.message = status, message


def _held(variances: Array) -> bool:
    """Tell whether all are normal numbers: the covariance is formed of them."""
    limits = np.finfo(np.float64)
    return bool(((variances >= limits.tiny) & (variances <= limits.max)).all())


def rate(name: str, value: float) -> float:
    """Return a learning rate."""
    number = _check.cut(name, value)
    if number == 0.0:
        raise ValueError(
            f"{name}: expected a positive number, got 0. Leave it out for the default."
        )
    return number
