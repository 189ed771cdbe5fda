"""The loop of natural gradient descent: solve, step, look, and stop with a reason."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from fastfisher import _check
from fastfisher._ops.border import takes_tensors
from fastfisher.applications.descent.iterate import Iterate, Stop
from fastfisher.applications.descent.model import Model, evaluate, starting_point
from fastfisher.applications.descent.result import DescentResult, DescentState
from fastfisher.applications.descent.steps import Damping, Fixed, Steps
from fastfisher.applications.endings import INTERRUPTED, STATIONARY, interrupts
from fastfisher.applications.nielsen import Nielsen
from fastfisher.solvers.solution import Status

__all__ = ["natural_gradient_descent"]


@takes_tensors
def natural_gradient_descent(
    model: Model,
    theta: Any,
    *,
    step_size: float | Callable[[int], float] = 1.0,
    damping: Any = 0.0,
    damping_mode: str = "absolute",
    adaptive: bool = False,
    damping_bounds: tuple[float, float] = (1e-12, 1e12),
    solver: Any = "auto",
    max_kl: float | None = None,
    momentum: float = 0.0,
    backtracking: int = 0,
    loss: Callable[[Any], Any] | None = None,
    tolerance: float = 1e-12,
    loss_tolerance: float = 0.0,
    max_iterations: int = 100,
    callback: Callable[[DescentState], Any] | None = None,
    progress: bool = False,
) -> DescentResult:
    """Minimise a loss by natural gradient descent, θ ← θ − α (F + damping)⁻¹ ∇L.

    Equivalent to ``for _ in range(max_iterations): L, g, F = model(theta); theta = theta -
    step_size * ff.solve(F, g, damping=damping).value``, with a stopping rule and named ends.

    Parameters
    ----------
    model : callable
        ``model(theta)`` returns (loss, gradient, curvature): the number to be minimised, its
        gradient (p,), and F as scores (n, p), as a list of layers, as any `Fisher`, or by its
        products alone, as an operator with ``F @ v`` or a function of v. F is on the scale of the
        loss: a mean of losses takes a mean-reduced F, a sum of them one of sums.
        Scores of shape (p, p) might be a matrix and are refused: wrap either. Where θ is outside
        the domain, return an infinite loss: the rest is not looked at then.
    theta : array (p,)
        The start; float64, or float32. The model gets copies.
    step_size : float or callable
        α, or what gives it for the number of steps taken. 1 is Fisher scoring.
    damping : float or array (p,)
        λ, finite and not negative.
    damping_mode : {"absolute", "trace", "diagonal", "factored"}
        As for ``ff.solve``.
    adaptive : bool
        Let λ follow the gain ratio, the fall of the loss over what −gᵀΔ − ½ ΔᵀFΔ promised: smaller
        after steps that keep the promise, larger after a step that does not lower the loss, which
        is refused, and where F + λ cannot be solved. `damping` is the start.
    damping_bounds : (float, float)
        Of an adaptive λ, as a multiple of what `damping_mode` says.
    solver : "auto" or a solver
        As for ``ff.solve``.
    max_kl : float, optional
        Steps with ½ ΔᵀFΔ above it are shortened to it. Without damping and momentum that is the
        steepest descent of the linearised loss on the ball KL ≤ max_kl, −F⁻¹g √(2 max_kl / gᵀF⁻¹g).
    momentum : float
        μ < 1: adds μ times the step before, unless steps may be refused and that leads uphill.
    backtracking : int
        How often to halve a step that does not lower the loss (by 1e-4 of what its slope says)
        before it is given up.
    loss : callable, optional
        ``loss(theta)``, to look at steps that may be refused (`adaptive`, `backtracking`) without
        the cost of gradient and F. A model of mini-batches needs it: the loss of the batch of the
        last call. Without it the model is asked. Both have to agree at the start.
    tolerance : float
        Success where ½ gᵀ(F + λ)⁻¹g, the gain of a full step on the quadratic model, is at most
        this. It is in units of the loss. A fixed λ is part of the rule, and may hide what is left
        along parameters on which F says little; of an adaptive one the least counts that its bounds
        allow and that can be solved. ``damping_mode="diagonal"`` does not depend on the units of
        parameters. A start of zero gradient is a success too, and so is where rounding of the loss
        hides the decrement and it no longer falls; with 0 that ends nothing.
    loss_tolerance : float
        Success where a step changed the loss by at most this, relatively. 0 never is.
    max_iterations : int
        Most steps.
    callback : callable, optional
        Called with a `DescentState` at each iterate, the start included. Ends the descent by
        returning what is true, or by raising StopIteration.
    progress : bool
        Show a bar; needs ``tqdm``.

    Returns
    -------
    DescentResult
        The last good parameters, `status` and `message`, and the history.

    Raises
    ------
    NotPositiveDefiniteError, NonFiniteError, ConvergenceError
        From the start alone. Afterwards these end the loop with a status.
    ImportError
        If `progress` asks for a bar and there is no ``tqdm``.
    MemoryLimitError, TypeError, ValueError

    See Also
    --------
    natural_gradient : one step from an array of scores.
    Adam : the relative that keeps a diagonal.

    Notes
    -----
    One call of the model, one solve and one product with F per step; a refused step costs a loss,
    and with `adaptive` another solve. Every iterate that is returned was evaluated.

    A loss of mini-batches works with the plain step, momentum and `max_kl` as it stands: nothing
    compares losses then. Set ``tolerance=0``: what a batch says of convergence is noise, and so are
    the gain ratios of the history.

    A model may keep one Fisher and update it (KFAC). If a step may be refused it then needs `loss`,
    for a refused step must not leave traces; that is noticed, and raises. Arrays of scores that the
    model overwrites are not.

    References
    ----------
    S. Amari, "Natural gradient works efficiently in learning", Neural Comput. 10 (1998) 251.
    J. Martens, "New insights and perspectives on the natural gradient method", J. Mach. Learn.
    Res. 21 (2020) 146.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> x = np.linspace(-1, 1, 50)
    >>> X, y = np.column_stack([np.ones(50), x]), np.exp(1 + 0.5 * x).round()
    >>> def model(theta):  # Poisson regression
    ...     rate = np.exp(X @ theta)
    ...     F = ff.DenseFisher.from_scores(X, weights=rate, reduction="sum")
    ...     return -ff.Poisson(rate).log_prob(y).sum(), X.T @ (rate - y), F
    >>> result = ff.natural_gradient_descent(model, [0.0, 0.0])
    >>> result.theta.round(4), result.status.name, result.iterations
    (array([1.0077, 0.4581]), 'SUCCESS', 6)
    """
    steps = Steps(step_size, momentum, max_kl, damping_mode, solver)
    follows = _check.flag("adaptive", adaptive)
    lam = Nielsen(damping, damping_bounds) if follows else Fixed(damping)
    halvings = _check.count("backtracking", backtracking)
    tolerance = _check.cut("tolerance", tolerance)
    loss_tolerance = _check.cut("loss_tolerance", loss_tolerance)
    limit = _check.count("max_iterations", max_iterations)

    at = Iterate(model, loss, steps, lam, halvings, evaluate(model, starting_point(theta)))
    with _bar(progress, limit) as bar:
        while (stop := at.solve()) is None:
            if bar is not None:
                bar.set_postfix(
                    loss=f"{at.point.loss:.6g}", decrement=f"{at.decrement:.1e}", refresh=False
                )
            vectors = {"theta": at.point.theta, "gradient": at.point.gradient}
            if interrupts(callback, DescentState, at.history[-1], **vectors):
                stop = INTERRUPTED
            elif at.iteration == 0 and not at.point.gradient.any():
                stop = STATIONARY
            elif at.arrived(tolerance):
                stop = Status.SUCCESS, f"the decrement is at most {tolerance:g}"
            elif at.settled() and tolerance > 0.0:
                stop = Status.SUCCESS, "the loss has settled to rounding"
            elif at.change <= loss_tolerance and loss_tolerance > 0.0:
                stop = Status.SUCCESS, f"the loss changed by at most {loss_tolerance:g} of itself"
            elif at.iteration == limit:
                stop = Status.MAX_ITERATIONS, f"max_iterations = {limit} was reached"
            else:
                stop = at.advance()
            if stop is not None:
                break
            if bar is not None:
                bar.update()
    return _result(at, lam, stop)


def _result(at: Iterate, lam: Damping, stop: Stop) -> DescentResult:
    status, message = stop
    return DescentResult(
        theta=at.point.theta,
        loss=at.point.loss,
        gradient=at.point.gradient,
        decrement=at.decrement,
        status=status,
        message=message,
        iterations=at.iteration,
        damping_used=lam.value,
        history=tuple(at.history),
    )


def _bar(progress: bool, total: int) -> Any:
    """Return a bar to enter, or what gives None."""
    if not _check.flag("progress", progress):
        return nullcontext()
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError(
            "progress: expected tqdm for the bar, got none. Install it: "
            'pip install "fastfisher[progress]"'
        ) from None
    return tqdm(total=total, unit="step")
