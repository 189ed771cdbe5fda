"""The loop of an evolution strategy: ask, evaluate, tell, until a reason to stop, and restarts."""

import math
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any

from fastfisher import _check
from fastfisher.applications.endings import INTERRUPTED, ends
from fastfisher.applications.evolution.result import EvolutionRecord, EvolutionResult
from fastfisher.errors import NonFiniteError
from fastfisher.solvers.solution import Status

if TYPE_CHECKING:
    from fastfisher.applications.evolution.strategy import EvolutionStrategy

__all__ = ["minimize"]


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
    begun, done = strategy.evaluations, 0
    history: list[EvolutionRecord] = []
    while True:
        if strategy.best_loss <= goal:
            status, message = Status.SUCCESS, f"the loss is at or below the target {goal:g}"
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
            message = f"the next generation would take more than {budget} evaluations"
            break
        losses = evaluate(strategy.ask())
        try:
            strategy.tell(losses)
        except NonFiniteError as error:
            # Nothing was learned, but the losses were evaluated, and asking on would be no use.
            strategy.evaluations += strategy.population
            strategy.status, strategy.message = status, message = Status.NON_FINITE, str(error)
            break
        history.append(
            EvolutionRecord(
                iteration=len(history) + 1,
                evaluations=strategy.evaluations - begun,
                loss=strategy.generation_loss,
                best_loss=strategy.best_loss,
                sigma=float(strategy.sigma.max()),
                population=strategy.population,
            )
        )
        if ends(callback, strategy):
            status, message = INTERRUPTED
            break
    best = strategy.best
    return EvolutionResult(
        theta=strategy.mean if best is None else best,
        loss=strategy.best_loss,
        status=status,
        message=message,
        iterations=len(history),
        evaluations=strategy.evaluations - begun,
        restarts=done,
        history=tuple(history),
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
