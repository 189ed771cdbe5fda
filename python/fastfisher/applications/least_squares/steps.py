"""How far to go: damping that follows the gain ratio, and steps that are halved."""

from typing import Any, NamedTuple, Protocol

import numpy as np

from fastfisher.applications.least_squares.model import Model, Point
from fastfisher.applications.nielsen import Nielsen
from fastfisher.errors import ConvergenceError, NonFiniteError, NotPositiveDefiniteError

__all__ = ["Damped", "Halved", "Proposal", "Rule"]

# How fast the scale D² forgets. With 0.5 and 0.7 all 54 runs on the sets of NIST converge, whether
# the first damping is 1e-6 or 1; with 1 (MINPACK's) and with 0 (the diagonal as it is) some do not.
_MEMORY = 0.5
# Of Transtrum and Sethna: the share of the step over which the bend is measured, and the largest
# bend 2‖a‖/‖v‖ at which the first two terms of a path still stand for it.
_PROBE, _MOST_BENT = 0.1, 0.75


class Proposal(NamedTuple):
    """A step δ and what the linear model says of it."""

    delta: Any
    predicted: float  # the fall of the loss
    size: float = 1.0  # as a multiple of the step that was solved for


class Rule(Protocol):
    """What a loop asks for steps, and tells how they went."""

    @property
    def damping(self) -> float:
        """λ of the next step."""

    def propose(self, model: Model, point: Point) -> Proposal | None:
        """Return the next step to try; None where the path bends too much for this one."""

    def whole(self, point: Point) -> Proposal:
        """Return the longest step of the linear model there, after one was proposed."""

    def accept(self, gain: float) -> None:
        """Take note that the step was taken; `gain` is the actual fall over the predicted one."""

    def reject(self) -> bool:
        """Take note that it was not; return whether another one can be proposed."""


class Damped:
    """Levenberg's damping with Marquardt's scale, by Nielsen's rule, along a path that may bend.

    D² is 1, or the largest diagonal of JᵀWJ so far, halved with each step.
    """

    def __init__(self, damping: Nielsen, relative: bool, accelerated: bool) -> None:
        self._lambda, self._relative, self._accelerated = damping, relative, accelerated
        self._squares: Any = 0.0
        self._scale: Any = 1.0

    @property
    def damping(self) -> float:
        """λ of the next step."""
        return self._lambda.value

    def propose(self, model: Model, point: Point) -> Proposal | None:
        """Return v + a/2 with v = −(JᵀWJ + λD²)⁻¹ JᵀWr and a the same of r's bend along v."""
        self._look(point)
        linear, shift = point.linear, self.damping * self._scale
        v = linear.step(shift)
        curvature, damped = linear.curvature(v), _square(v, shift)
        proposal = Proposal(v, 0.5 * curvature + damped)
        if not (self._accelerated and linear.rows):
            return proposal
        if curvature <= (10 * 2 / _PROBE**2 * point.noise) ** 2:  # a tenth of the bend were noise
            return proposal
        bend = model.bend(point, v, _PROBE)
        if bend is None:  # not finite so close by: the step itself will tell
            return proposal
        a = linear.step(shift, bend)
        if 4 * _square(a, shift) > _MOST_BENT**2 * damped:
            return None
        return proposal._replace(delta=v + a / 2)

    def whole(self, point: Point) -> Proposal:
        """Return v of the least λ that can be solved, in the units that parameters have there.

        D² of larger diagonals before, or 1, would hide that residuals still follow a parameter
        whose column has become small, as that of a rate on a plateau.
        """
        scale = _units(point.linear.diagonal)
        if not self._relative:
            scale = np.minimum(self._scale, scale)
        for damping in self._lambda.lower():
            shift = damping * scale
            try:
                v = point.linear.step(shift)
            except (NotPositiveDefiniteError, ConvergenceError, NonFiniteError):
                continue
            return Proposal(v, 0.5 * point.linear.curvature(v) + _square(v, shift))
        return Proposal(np.full_like(point.theta, np.inf), np.inf)  # nothing is known of it

    def _look(self, point: Point) -> None:
        """Let D² follow the point."""
        if self._relative:
            self._squares = np.maximum(_MEMORY * self._squares, point.linear.diagonal)
            self._scale = _units(self._squares)

    def accept(self, gain: float) -> None:
        """Lower λ by as much as the model was right."""
        self._lambda.follow(gain)

    def reject(self) -> bool:
        """Raise λ, faster each time."""
        return self._lambda.grow()


class Halved:
    """The step of Gauss and Newton, times a factor that is halved until the loss falls."""

    damping = 0.0
    _LEAST = 2.0**-30  # about √eps: what fails that close is no direction of descent

    def __init__(self) -> None:
        self._factor = 1.0
        self._point: Point | None = None
        self._delta: Any = None

    def propose(self, model: Model, point: Point) -> Proposal:  # noqa: ARG002
        """Return a multiple of −(JᵀWJ)⁻¹ JᵀWr."""
        if point is not self._point:
            self._delta = None
            self._delta = point.linear.step(0.0)
            self._point, self._curvature = point, point.linear.curvature(self._delta)
        a = self._factor
        return Proposal(a * self._delta, (a - a * a / 2) * self._curvature, a)

    def whole(self, point: Point) -> Proposal:  # noqa: ARG002
        """Return −(JᵀWJ)⁻¹ JᵀWr."""
        return Proposal(self._delta, self._curvature / 2)

    def accept(self, gain: float) -> None:  # noqa: ARG002
        """Go twice as far the next time."""
        self._factor = min(1.0, 2 * self._factor)

    def reject(self) -> bool:
        """Go half as far."""
        self._factor /= 2
        return self._delta is not None and self._factor >= self._LEAST


def _units(squares: Any) -> Any:
    """Return D² of the diagonal; a parameter that changes nothing is held by a unit of its own."""
    return np.where(squares > 0, squares, 1.0)


def _square(v: Any, shift: Any) -> float:
    """Return vᵀ diag(shift) v; infinite where it overflows, so that the step is not taken."""
    with np.errstate(over="ignore"):
        return float(np.sum(shift * v * v, dtype=np.float64))
