"""The loop of a least-squares fit: propose, try, judge, until a stopping rule is met."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastfisher.applications.endings import INTERRUPTED, STATIONARY, interrupts
from fastfisher.applications.least_squares.model import Model, Point
from fastfisher.applications.least_squares.result import LeastSquaresRecord, LeastSquaresState
from fastfisher.applications.least_squares.steps import Proposal, Rule
from fastfisher.errors import ConvergenceError, NonFiniteError, NotPositiveDefiniteError
from fastfisher.solvers.solution import Status

__all__ = ["Ending", "Tolerances", "iterate"]

# The least part of the predicted fall that must be met; that of MINPACK's lmder.
_LEAST_GAIN = 1e-4


class Tolerances(NamedTuple):
    """When a fit has arrived."""

    gradient: float
    step: float
    reduction: float


class Ending(NamedTuple):
    """Where and why a fit ended."""

    point: Point
    status: Status
    message: str
    history: tuple[LeastSquaresRecord, ...]


class Trial(NamedTuple):
    """One step: where it led, or why it was not taken."""

    proposal: Proposal | None
    gain: float
    after: Point | None
    failure: tuple[Status, str] | None
    hopeless: bool = False


def iterate(
    model: Model,
    rule: Rule,
    tolerances: Tolerances,
    max_iterations: int,
    callback: Callable[[LeastSquaresState], Any] | None,
) -> Ending:
    """Follow the rule's steps from the model's start."""
    point = model.first()
    history: list[LeastSquaresRecord] = []
    last: tuple[Status, str] | None = None  # why the step before was not taken
    settling = np.inf  # the smallest of the predicted falls that rounding hides

    def ending(status: Status, message: str) -> Ending:
        idle = np.flatnonzero(_idle(point))
        if status is Status.SUCCESS and point.loss > 0 and idle.size:
            message += f"; the residuals there do not depend on parameter {int(idle[0])}"
        return Ending(point, status, message, tuple(history))

    def noted(damping: float, size: float, ratio: float, accepted: bool) -> bool:
        """Add a record, and tell whether the callback ends the fit."""
        record = LeastSquaresRecord(len(history), point.loss, damping, size, ratio, accepted)
        history.append(record)
        vectors = {"theta": point.theta, "gradient": point.linear.gradient}
        return interrupts(callback, LeastSquaresState, record, **vectors)

    if noted(rule.damping, 0.0, np.nan, accepted=True):
        return ending(*INTERRUPTED)
    if point.loss > 0 and not point.linear.gradient.any():
        return Ending(point, *STATIONARY, tuple(history))
    while True:
        if point.loss > 0 and _idle(point).all():
            return ending(Status.STAGNATED, _FLAT)
        rest = "" if last else _at_rest(point, tolerances)
        if rest:
            return ending(Status.SUCCESS, rest)
        if len(history) > max_iterations:
            return ending(Status.MAX_ITERATIONS, f"not converged in {max_iterations} iterations")
        damping = rule.damping
        trial = _try(model, rule, point, last)
        proposal, after = trial.proposal, trial.after
        small = "" if last or proposal is None else _small(proposal, point, tolerances)
        if small:  # by damping, perhaps
            small = _small(rule.whole(point), point, tolerances)
        if after is not None and proposal is not None:
            if proposal.predicted > point.rounding:
                settling = np.inf
            elif proposal.predicted < settling:
                settling = proposal.predicted
            elif rule.whole(point).predicted <= point.blur:
                # The loss says nothing any more, and the gradient no longer falls.
                after, small = None, _SETTLED
        if after is not None:
            point, last = after, None
            rule.accept(trial.gain)
        size = 0.0 if proposal is None else proposal.size
        if noted(damping, size, trial.gain, accepted=after is not None):
            return ending(*INTERRUPTED)
        if small:
            return ending(Status.SUCCESS, small)
        if after is None:
            last = trial.failure or (Status.STAGNATED, _NO_DESCENT)
            if trial.hopeless or not rule.reject():
                if proposal is not None and rule.whole(point).predicted <= point.blur:
                    return ending(Status.SUCCESS, _SETTLED)
                return ending(*last)


_SETTLED = "the loss has settled to rounding"
_FLAT = "the residuals do not depend on any parameter there: a plateau, or underflow"
_NO_DESCENT = "no step along the linear model lowers the loss"


def _try(model: Model, rule: Rule, point: Point, last: tuple[Status, str] | None) -> Trial:
    """Take the rule's next step and judge it; `last` is why the one before was not taken."""
    try:
        proposal = rule.propose(model, point)
    except NotPositiveDefiniteError as error:
        return Trial(None, np.nan, None, (Status.NOT_POSITIVE_DEFINITE, str(error)))
    except ConvergenceError as error:
        return Trial(None, np.nan, None, (Status.MAX_ITERATIONS, str(error)))
    except NonFiniteError as error:
        return Trial(None, np.nan, None, (Status.NON_FINITE, str(error)))
    if proposal is None:
        return Trial(None, np.nan, None, (Status.STAGNATED, _NO_DESCENT))
    blurred = proposal.predicted <= point.rounding
    if last and blurred:  # shorter still would not be seen
        return Trial(proposal, np.nan, None, last, hopeless=True)
    theta = point.theta + proposal.delta
    tried = model.at(theta)
    if tried is None:
        return Trial(proposal, -np.inf, None, (Status.NON_FINITE, _non_finite("residuals", point)))
    fall = model.fall(point, *tried)
    if blurred and fall >= -point.rounding:
        gain = 1.0  # as far as rounding lets one see
    else:
        gain = fall / proposal.predicted if proposal.predicted > 0 else -np.inf
    if not gain >= _LEAST_GAIN:
        return Trial(proposal, gain, None, (Status.STAGNATED, _NO_DESCENT))
    after = model.point(theta, *tried)
    if after is None:
        return Trial(proposal, gain, None, (Status.NON_FINITE, _non_finite("Jacobian", point)))
    return Trial(proposal, gain, after, None)


def _idle(point: Point) -> Any:
    """Tell of each parameter whether its column of J is zero; of one, only its square may be."""
    return (point.linear.diagonal == 0) & (point.linear.gradient == 0)


def _at_rest(point: Point, tolerances: Tolerances) -> str:
    """Return why no step is needed, or an empty string."""
    if point.loss == 0.0:
        return "the residuals are zero"
    norms = np.sqrt(point.linear.diagonal.astype(np.float64)) * np.sqrt(2 * point.loss)
    sizes = np.abs(point.linear.gradient)
    # A column whose square underflows has no cosine, but it may have a gradient.
    cosine = float(np.where(norms > 0, sizes / np.where(norms > 0, norms, 1.0), sizes > 0).max())
    if cosine <= tolerances.gradient:
        return (
            f"the cosine between residuals and the columns of the Jacobian is at most {cosine:.1e}"
        )
    return ""


def _small(proposal: Proposal, point: Point, tolerances: Tolerances) -> str:
    """Return why this is the last step, or an empty string."""
    if proposal.predicted <= tolerances.reduction * point.loss:
        return f"the loss can fall by {proposal.predicted / point.loss:.1e} of itself"
    if (np.abs(proposal.delta) <= tolerances.step * np.abs(point.theta)).all():
        return "the step is small beside every parameter"
    return ""


def _non_finite(what: str, point: Point) -> str:
    return (
        f"{what} not finite however short the step; the parameters returned are the last good ones,"
        f" of loss {point.loss:g}"
    )
