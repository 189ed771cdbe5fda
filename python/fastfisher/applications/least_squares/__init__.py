"""Least squares: Gauss–Newton and Levenberg–Marquardt, where JᵀJ stands for the Hessian."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops.border import takes_tensors
from fastfisher.applications.least_squares.iteration import Tolerances, iterate
from fastfisher.applications.least_squares.model import Model
from fastfisher.applications.least_squares.result import (
    LeastSquaresRecord,
    LeastSquaresResult,
    LeastSquaresState,
)
from fastfisher.applications.least_squares.steps import Damped, Halved, Rule
from fastfisher.applications.nielsen import Nielsen

__all__ = [
    "LeastSquaresRecord",
    "LeastSquaresResult",
    "LeastSquaresState",
    "gauss_newton",
    "levenberg_marquardt",
]

# Rows √λ D of half of this, in eps, are what QR takes for zero (`QR.rank_tol`).
_SEEN_BY_QR = 32


@takes_tensors
def levenberg_marquardt(
    residuals: Callable[[Any], Any],
    theta: Any,
    *,
    jacobian: Any = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    damping: float = 1e-3,
    damping_bounds: tuple[float, float] | None = None,
    damping_mode: str = "diagonal",
    acceleration: bool = True,
    gradient_tolerance: float | None = None,
    step_tolerance: float | None = None,
    reduction_tolerance: float | None = None,
    max_iterations: int = 1000,
    callback: Callable[[LeastSquaresState], Any] | None = None,
    solver: Any = None,
) -> LeastSquaresResult:
    """Minimise ½ ‖r(θ)/σ‖² by damped Gauss–Newton steps, the damping led by the gain ratio.

    Equivalent to ``scipy.optimize.least_squares(residuals, theta, method="lm")``. A step v solves
    (JᵀWJ + λD²) v = −JᵀWr with W = diag(1/σ²), as the least-squares problem that it is: by QR of
    the rows √W J with √λ D below them, so that its error grows with the condition number κ of the
    Jacobian and not with κ².

    Parameters
    ----------
    residuals : function of theta (p,) to (n,)
        r(θ), model less data. It may return the same buffer each time. Where it is not finite, or
        the Jacobian is not, the step is not taken and the damping grows.
    theta : array (p,), float64 or float32
        Where to start; never written to. All is computed in its dtype. Default tolerances and the
        steps of differences go by eps, that of the residuals at the start if it is larger.
    jacobian : function, None, "3-point" or "2-point"
        A function of theta that returns J = ∂r/∂θ (n, p). None and "3-point" take central
        differences with steps eps^⅓ ``|θ_j|``, 2p calls; "2-point" forward ones with √eps
        ``|θ_j|``, p calls and about half the digits. A function may also return a pair
        ``(fisher, gradient)``: JᵀWJ as any representation, a new one each time, or as a matrix, and
        JᵀWr.
    sigma : float or array (n,), optional
        Standard deviations of the observations, σ; default 1.
    absolute_sigma : bool
        Whether `sigma` is known. If not, only ratios matter to the standard errors: a common factor
        s is estimated from the residuals.
    damping : float
        The first λ, positive; `gauss_newton` is the method without.
    damping_bounds : (float, float), optional
        Least and largest λ. Default: from what QR can tell from zero, (2 max(p, 32) eps)², to
        eps⁻², where no step changes θ. A least λ that is large is part of the stopping rules.
    damping_mode : {"diagonal", "absolute"}
        D² is the diagonal of JᵀWJ (Marquardt), or rather its running maximum that forgets half of
        itself with each step, so that results do not depend on the units of the parameters; or 1
        (Levenberg).
    acceleration : bool
        Whether to follow the bend of the path: one more call of `residuals` per step gives the
        second derivative of r along v, whose own step a is added as v + a/2, and a step with
        2 ‖Da‖ > 0.75 ‖Dv‖ is not taken. For J as rows.
    gradient_tolerance : float, optional
        Arrived when no column of √W J has a larger cosine, in size, with √W r; default eps.
    step_tolerance : float, optional
        Arrived when ``|δ_j|`` is at most this times ``|θ_j|`` for all j; default eps^⅔.
    reduction_tolerance : float, optional
        Arrived when the linear model promises a fall of at most this times the loss; default
        eps^(4/3), which stands for steps of eps^⅔ of a standard error.
    max_iterations : int
        Most steps to try.
    callback : callable, optional
        Called with a `LeastSquaresState` at the start and after each step. Ends the fit by
        returning what is true, or by raising StopIteration.
    solver : solver, optional
        Default ``QR()`` for J as rows, "auto" for a Fisher. ``Dual()`` is for n < p.

    Returns
    -------
    LeastSquaresResult

    Raises
    ------
    NonFiniteError
        If residuals or Jacobian are not finite at the start.
    TypeError, ValueError
        For arguments of the wrong kind or shape.

    See Also
    --------
    gauss_newton, ScoreFisher.least_squares

    Notes
    -----
    A step costs two QR factorisations of n p² · 2 multiplications, one without acceleration. λ
    follows Nielsen's rule: times max(1/3, 1 − (2ρ − 1)³) after a step of gain ρ ≥ 10⁻⁴, the fall
    of the loss over the predicted one, and times 2, 4, 8, … after steps that fail. Where the
    predicted fall is less than the loss can tell by rounding, steps are taken as long as the
    predicted fall goes down: the gradient says more there than the loss. A small step ends the fit
    only if the one of the least λ is small too, for damping makes all steps small; it costs one
    more factorisation then. None does after a step that failed.

    On the 27 problems of the NIST reference data from both starts, `damping_mode` "absolute" lost
    one run of 54, no acceleration two, and the defaults none (``docs/least_squares.md``).

    References
    ----------
    H. B. Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05, DTU, 1999.
    J. J. Moré, "The Levenberg–Marquardt algorithm: implementation and theory", in Numerical
    Analysis, Lecture Notes in Mathematics 630, Springer 1978, 105.
    M. K. Transtrum and J. P. Sethna, "Improvements to the Levenberg–Marquardt algorithm for
    nonlinear least-squares minimization", arXiv:1201.5885, 2012.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> x = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    >>> y = np.array([5.1, 3.0, 1.9, 1.1, 0.7])
    >>> fit = ff.levenberg_marquardt(lambda b: b[0] * np.exp(-b[1] * x) - y, [1.0, 1.0])
    >>> fit.theta.round(4), fit.standard_errors().round(4), fit.status.name
    (array([5.0787, 0.5049]), array([0.0493, 0.0096]), 'SUCCESS')
    """
    model = Model(residuals, jacobian, theta, sigma, solver)
    if damping_mode not in ("diagonal", "absolute"):
        raise ValueError(
            f"damping_mode: expected 'diagonal' or 'absolute', got {damping_mode!r}. 'diagonal' "
            "does not depend on the units of the parameters."
        )
    first = _check.positive("damping", damping)
    bounds = _bounds(first, model) if damping_bounds is None else damping_bounds
    accelerated = _check.flag("acceleration", acceleration)
    rule = Damped(Nielsen(first, bounds), damping_mode == "diagonal", accelerated)
    tolerances = _tolerances(model, gradient_tolerance, step_tolerance, reduction_tolerance)
    return _fitted(model, rule, absolute_sigma, tolerances, max_iterations, callback)


@takes_tensors
def gauss_newton(
    residuals: Callable[[Any], Any],
    theta: Any,
    *,
    jacobian: Any = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    gradient_tolerance: float | None = None,
    step_tolerance: float | None = None,
    reduction_tolerance: float | None = None,
    max_iterations: int = 1000,
    callback: Callable[[LeastSquaresState], Any] | None = None,
    solver: Any = None,
) -> LeastSquaresResult:
    """Minimise ½ ‖r(θ)/σ‖² by Newton's method with JᵀWJ for the Hessian, steps halved at need.

    Equivalent to ``theta -= lstsq(J(theta), r(theta))[0]`` until it stands still. A linear model
    takes one step. A step that does not lower the loss is halved until it does, and the next one
    may be twice as long again. Start it near the solution; `levenberg_marquardt` comes from further
    away.

    Parameters
    ----------
    residuals, theta, jacobian, sigma, absolute_sigma
        As for `levenberg_marquardt`; n ≥ p.
    gradient_tolerance, step_tolerance, reduction_tolerance, max_iterations, callback, solver
        As for `levenberg_marquardt`.

    Returns
    -------
    LeastSquaresResult
        Its status is ``NOT_POSITIVE_DEFINITE`` where the Jacobian does not determine a step.

    Raises
    ------
    NonFiniteError, TypeError, ValueError

    See Also
    --------
    levenberg_marquardt

    Notes
    -----
    A step costs one QR of 2 n p² multiplications. With residuals that are small or nearly linear at
    the solution convergence is nearly quadratic; it is linear otherwise, for JᵀWJ leaves Σ w r ∇²r
    out of the Hessian.

    References
    ----------
    Å. Björck, "Numerical Methods for Least Squares Problems", SIAM 1996, ch. 9.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> x, y = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0])
    >>> fit = ff.gauss_newton(lambda b: b[0] + b[1] * x - y, np.zeros(2))
    >>> fit.theta.round(9), fit.status.name
    (array([1., 2.]), 'SUCCESS')
    """
    model = Model(residuals, jacobian, theta, sigma, solver)
    if model.samples < model.params:
        raise ValueError(
            f"residuals: expected at least {model.params}, one per parameter, got {model.samples}. "
            "Without damping they do not determine a step: use levenberg_marquardt."
        )
    tolerances = _tolerances(model, gradient_tolerance, step_tolerance, reduction_tolerance)
    return _fitted(model, Halved(), absolute_sigma, tolerances, max_iterations, callback)


def _bounds(first: float, model: Model) -> tuple[float, float]:
    """Return the default bounds of a damping, which has this start."""
    eps = float(np.finfo(model.dtype).eps)  # of the arithmetic, whatever r is known to
    least = (2 * max(model.params, _SEEN_BY_QR) * eps) ** 2
    return min(least, first), max(eps**-2, first)


def _tolerances(model: Model, gradient: Any, step: Any, reduction: Any) -> Tolerances:
    """Return the tolerances that were given, and the default ones for the others."""
    defaults = {
        "gradient_tolerance": (gradient, model.eps),
        "step_tolerance": (step, model.eps ** (2 / 3)),
        "reduction_tolerance": (reduction, model.eps ** (4 / 3)),
    }
    return Tolerances(
        *(
            default if given is None else _check.cut(name, given)
            for name, (given, default) in defaults.items()
        )
    )


def _fitted(
    model: Model,
    rule: Rule,
    absolute_sigma: Any,
    tolerances: Tolerances,
    max_iterations: Any,
    callback: Callable[[LeastSquaresState], Any] | None,
) -> LeastSquaresResult:
    known = _check.flag("absolute_sigma", absolute_sigma)
    most = _check.count("max_iterations", max_iterations)
    point, status, message, history = iterate(model, rule, tolerances, most, callback)
    return LeastSquaresResult(
        theta=point.theta,
        loss=point.loss,
        residuals=point.r,
        jacobian=point.linear.jacobian,
        gradient=point.linear.gradient,
        fisher=point.linear.fisher,
        status=status,
        message=message,
        iterations=len(history) - 1,
        evaluations=model.evaluations,
        history=history,
        damping_used=rule.damping,
        degrees_of_freedom=model.samples - model.params,
        absolute_sigma=known,
    )
