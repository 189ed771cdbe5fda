"""The loop of an evolution strategy: ask, evaluate, tell, until a reason to stop, and restarts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from fastfisher import _check
from fastfisher.errors import NonFiniteError
from fastfisher.solvers.solution import Status

if TYPE_CHECKING:
    from fastfisher.applications.evolution.strategy import EvolutionStrategy

__all__ = ["EvolutionResult", "minimize"]

# One row per generation of what it found and where it left the search distribution.
_HISTORY = np.dtype(
    [
        ("evaluations", np.int64),
        ("loss", np.float64),
        ("best_loss", np.float64),
        ("sigma", np.float64),
        ("population", np.int64),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class EvolutionResult:
    """What ``minimize`` of an evolution strategy found, and why it ended.

    Attributes
    ----------
    theta : array (p,)
        The best point that was evaluated; the mean if no loss was finite.
    loss : float
        Its loss; infinite if none was finite.
    status : Status
        ``SUCCESS`` if the target was reached or, without one, sigma fell below the tolerance;
        ``STAGNATED`` if the search came to rest otherwise, ``MAX_ITERATIONS`` if the next
        generation would pass the budget, ``NON_FINITE`` if losses were no longer finite, one was
        −∞, or the search distribution left the range of float64, ``INTERRUPTED`` if the callback
        said so.
    message : str
        The same in words.
    iterations : int
        Generations that the search learned from.
    evaluations : int
        Losses that were evaluated, those of a generation with −∞ too.
    restarts : int
        How often the search began again.
    history : structured array (iterations,)
        Fields ``evaluations`` so far, ``loss`` (the best of the generation), ``best_loss`` so far,
        ``sigma`` (the largest standard deviation) and ``population``.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> result = ff.SNES(np.ones(3), 0.5, rng=0).minimize(
    ...     lambda x: (x**2).sum(axis=1), max_evaluations=5000, target=1e-10, vectorized=True
    ... )
    >>> result.status.name, result.loss <= 1e-10, result.evaluations < 5000
    ('SUCCESS', True, True)
    >>> bool(result.history["best_loss"][-1] == result.loss)
    True
    >>> result.iterations == len(result.history), result.restarts, result.theta.shape
    (True, 0, (3,))
    >>> result.message
    'The loss is at or below the target 1e-10.'
    """

    theta: Any
    loss: float
    status: Status
    message: str
    iterations: int
    evaluations: int
    restarts: int
    history: Any


def minimize(
    strategy: "EvolutionStrategy",
    loss: Callable[[Any], Any],
    max_evaluations: int,
    target: float | None,
    restarts: int,
    vectorized: bool,
    callback: Callable[["EvolutionStrategy"], Any] | None,
) -> EvolutionResult:
    """Run the strategy; ``EvolutionStrategy.minimize`` says what the arguments mean."""
    budget = _check.count("max_evaluations", max_evaluations, strategy.population)
    goal = -math.inf if target is None else _target(target)
    left = _check.count("restarts", restarts)
    evaluate = loss if _check.flag("vectorized", vectorized) else _one_by_one(loss)
    begun, rows, done = strategy.evaluations, [], 0
    while True:
        if strategy.best_loss <= goal:
            status, message = Status.SUCCESS, f"The loss is at or below the target {goal:g}."
            break
        room = budget - (strategy.evaluations - begun)
        if strategy.status is not None:
            if done == left or room < strategy._next_population:
                status, message = strategy.status, strategy.message
                if target is not None and status is Status.SUCCESS:
                    status = Status.STAGNATED  # it came to rest, but not where it was asked to go
                break
            strategy.restart()
            done += 1
        if room < strategy.population:
            status = Status.MAX_ITERATIONS
            message = f"The next generation would take more than {budget} evaluations."
            break
        losses = evaluate(strategy.ask())
        try:
            strategy.tell(losses)
        except NonFiniteError as error:
            # Nothing was learned, but the losses were evaluated, and asking on would be no use.
            strategy.evaluations += strategy.population
            strategy.status, strategy.message = status, message = Status.NON_FINITE, str(error)
            break
        rows.append(
            (
                strategy.evaluations - begun,
                strategy.generation_loss,
                strategy.best_loss,
                strategy.sigma.max(),
                strategy.population,
            )
        )
        if callback is not None and callback(strategy):
            status, message = Status.INTERRUPTED, "The callback ended the search."
            break
    best = strategy.best
    return EvolutionResult(
        theta=strategy.mean if best is None else best,
        loss=strategy.best_loss,
        status=status,
        message=message,
        iterations=len(rows),
        evaluations=strategy.evaluations - begun,
        restarts=done,
        history=np.array(rows, dtype=_HISTORY),
    )


def _target(value: Any) -> float:
    """Return a number that a loss can be compared with."""
    number = float(value) if isinstance(value, Real) else math.nan
    if math.isnan(number):
        raise ValueError(
            f"target: expected a number, got {value!r}. The search ends at a loss not above it."
        )
    return number


def _one_by_one(loss: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the loss of a whole population."""
    return lambda population: [loss(theta) for theta in population]
