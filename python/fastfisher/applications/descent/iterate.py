"""One iterate of a descent: solved, noted, and left by the first step that may be taken."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastfisher.applications.descent.model import Model, Point, evaluate, finite_loss
from fastfisher.applications.descent.result import DescentRecord
from fastfisher.applications.descent.steps import Damping, Step, Steps
from fastfisher.errors import FisherError, MemoryLimitError, NotPositiveDefiniteError
from fastfisher.solvers.failure import unsolved
from fastfisher.solvers.solution import Status

__all__ = ["Iterate", "Stop"]

Stop = tuple[Status, str]

# The share of its slope that a step must gain: J. Nocedal and S. J. Wright, "Numerical
# Optimization", 2nd ed., Springer 2006, ch. 3.1.
ARMIJO = 1e-4
# Losses that differ by fewer eps, relatively, are equal: a sum of 10⁶ numbers in pairs may err by
# log₂(10⁶) / 2 of them.
ROUNDING = 10


class Iterate:
    """Where a descent is, how it came there, and its history; `solve` and `advance` take turns."""

    def __init__(
        self,
        model: Model,
        loss: Callable[[Any], Any] | None,
        steps: Steps,
        damping: Damping,
        halvings: int,
        point: Point,
    ) -> None:
        self._model, self._loss = model, loss
        self._steps, self._damping, self._halvings = steps, damping, halvings
        self._refuses = damping.adaptive or halvings > 0
        if self._refuses and loss is not None:
            _compare(point.loss, finite_loss(loss(point.theta.copy())), point.theta.dtype)
        self._step: Step | None = None
        self._natural: Any = None
        self._used, self._ratio = damping.value, math.nan
        self.point = point
        self.decrement = math.nan
        self.change = math.inf  # of the loss by the last step, relatively
        self._lost, self._lowest = False, math.inf  # the last step in rounding; decrements of such
        self.history: list[DescentRecord] = []

    @property
    def iteration(self) -> int:
        """Steps taken."""
        return len(self.history) - 1

    def solve(self) -> Stop | None:
        """Find the natural gradient, and note the iterate; a failure at the start raises.

        Where the gradient is zero no F is needed, so that a singular one is no failure.
        """
        failure = None
        try:
            self._natural, self.decrement = self._steps.direction(self.point, self._damping)
        except FisherError as error:
            if isinstance(error, NotPositiveDefiniteError) and not self.point.gradient.any():
                self._natural, self.decrement = self.point.gradient, 0.0
            elif not self.history:
                raise
            else:
                failure = _named(error)
                self.decrement = math.nan
        size, kl = (0.0, 0.0) if self._step is None else (self._step.size, self._step.kl)
        self.history.append(
            DescentRecord(
                iteration=len(self.history),
                loss=self.point.loss,
                decrement=self.decrement,
                damping=self._used,
                step_size=size,
                kl=kl,
                gain_ratio=self._ratio,
            )
        )
        return failure

    def arrived(self, tolerance: float) -> bool:
        """Tell whether the decrement is small, and not by a damping that may still fall."""
        return self._steps.arrived(self.point, self.decrement, self._damping, tolerance)

    def settled(self) -> bool:
        """Tell whether rounding hides what is to gain, and the decrement no longer falls."""
        if not self._lost:
            self._lowest = math.inf
            return False
        falls = self.decrement < self._lowest
        self._lowest = min(self.decrement, self._lowest)
        return not falls and self.arrived(self._noise(abs(self.point.loss)))

    def advance(self) -> Stop | None:
        """Take the first step that is not refused; stay where we are if there is none."""
        stop: Stop | None = None
        try:
            for step in self._candidates():
                stop = self._attempt(step)
                if stop is None:
                    return None
                self._refuse_traces()
        except FisherError as error:
            stop = _named(error)
        except StopIteration:
            stop = Status.INTERRUPTED, "the model ran out of data"
        return stop

    def _candidates(self) -> Iterator[Step]:
        """Give the steps to try: the first, its halves, and those of more and more damping."""
        step = self._steps.first(self.point, self._natural, self._step, self.iteration)
        if self._refuses and step.slope >= 0.0:  # momentum leads uphill
            step = self._steps.first(self.point, self._natural, None, self.iteration)
        yield step
        for halving in range(self._halvings):
            yield step.times(0.5 ** (halving + 1))
        while self._damping.grow():
            natural, _ = self._steps.direction(self.point, self._damping)
            yield self._steps.first(self.point, natural, None, self.iteration)

    def _attempt(self, step: Step) -> Stop | None:
        """Take the step, or say why not."""
        with np.errstate(over="ignore"):
            theta, after = self.point.theta + step.change, None
        try:
            if self._refuses and self._loss is not None:
                loss = finite_loss(self._loss(theta.copy()))
            else:
                after = evaluate(self._model, theta)
                loss = after.loss
        except FisherError as error:
            return _named(error)
        fall = self.point.loss - loss
        scale = max(abs(loss), abs(self.point.loss))
        lost = max(abs(fall), abs(step.promise)) <= self._noise(scale)
        ratio = fall / step.promise if step.promise > 0.0 else 0.0
        if lost:
            ratio = 1.0
        elif self._refuses and not (step.slope < 0.0 and fall >= -ARMIJO * step.slope):
            return Status.STAGNATED, "no step that was tried lowers the loss"
        if after is None:
            after = evaluate(self._model, theta)
        self.change, self._lost = abs(fall) / scale if scale else 0.0, lost
        self._step, self._used, self._ratio, self.point = step, self._damping.value, ratio, after
        self._damping.follow(ratio)
        return None

    def _noise(self, scale: float) -> float:
        """Return by how much losses of that size may differ and still be equal."""
        return ROUNDING * float(np.finfo(self.point.theta.dtype).eps) * scale

    def _refuse_traces(self) -> None:
        """Raise if the model, asked about a step that was refused, updated the Fisher of here."""
        if self.point.fisher.n_samples != self.point.samples:
            raise ValueError(
                "curvature: expected another Fisher at each call of the model, as steps may be "
                "refused, got one that is updated in place. Give loss=, or return a copy."
            )


def _compare(of_model: float, loss: float, dtype: Any) -> None:
    """Raise if the two losses of the start differ: every gain ratio would be wrong."""
    # They may be summed in other ways, and cancel: half the digits, or of 1 nat.
    allowed = math.sqrt(float(np.finfo(dtype).eps)) * max(1.0, abs(of_model), abs(loss))
    if not abs(of_model - loss) <= allowed:
        raise ValueError(
            f"loss: expected that of the model at the start, {of_model:.9g}, got {loss:.9g}. "
            "Steps are judged by their difference: return both as a mean or both as a sum, of the "
            "same batch and with the same constants."
        )


def _named(error: FisherError) -> Stop:
    """Return how an iteration ends that met this error; want of memory is not an end."""
    if isinstance(error, MemoryLimitError):
        raise error
    return unsolved(error, None, None).status, str(error)
