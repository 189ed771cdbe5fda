"""TRPO: a natural step by truncated conjugate gradients, then backtracking on the true KL."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops.border import takes_tensors
from fastfisher.applications.metric import as_metric
from fastfisher.applications.trust_region.step import trust_region_step
from fastfisher.errors import NonFiniteError
from fastfisher.fisher.protocol import Fisher
from fastfisher.solvers.cg import CG
from fastfisher.solvers.solution import Status

__all__ = ["TRPOStep", "trpo_step"]

# Schulman's codes stop at a squared residual of 1e-10, of a gradient of norm near 1.
_CG_RTOL = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class TRPOStep:
    """What one TRPO update did: new parameters, or the old ones and the reason.

    Attributes
    ----------
    theta : array (p,)
        The parameters after the update; a copy of the old ones unless ``status`` is ``SUCCESS``.
    step : array (p,)
        What was added, zeros if nothing was.
    kl : float
        True KL divergence of ``theta`` from the old parameters.
    objective : float
        Surrogate objective at ``theta``.
    improvement : float
        What of that is new.
    predicted : float
        gᵀ step, what the gradient promised.
    status : Status
        ``SUCCESS``; ``STAGNATED`` if no trial was accepted; ``ZERO_GRADIENT``; ``NON_FINITE`` if
        the gradient, the objective at the old parameters, F or every trial was not finite;
        ``NEGATIVE_CURVATURE``, ``NOT_POSITIVE_DEFINITE`` and others that the solver may end with.
    message : str
        The same in words; empty after success.
    iterations : int
        Of conjugate gradients.
    backtracks : int
        How often the step was shrunk.
    damping_used : float or array
        What was added to the diagonal of F for the direction.

    Examples
    --------
    >>> import fastfisher as ff
    >>> ff.TRPOStep.__slots__[:5]
    ('theta', 'step', 'kl', 'objective', 'improvement')
    """

    theta: Any
    step: Any
    kl: float
    objective: float
    improvement: float
    predicted: float
    status: Status
    message: str = ""
    iterations: int = 0
    backtracks: int = 0
    damping_used: Any = 0.0


@takes_tensors
def trpo_step(
    objective: Callable[[Any], float],
    kl: Callable[[Any], float],
    theta: Any,
    grad: Any,
    fisher: Any,
    *,
    max_kl: float = 0.01,
    cg_iters: int = 10,
    cg_damping: float = 0.1,
    backtrack_coeff: float = 0.8,
    backtrack_iters: int = 10,
    accept_ratio: float = 0.0,
    solver: Any = None,
    n_threads: int | None = None,
) -> TRPOStep:
    """Do one update of trust-region policy optimisation: a natural step, then backtracking.

    Equivalent to trying ``theta + backtrack_coeff**j * step`` for j = 0, 1, …, with the step of
    ``trust_region_step``, until the true KL is at most `max_kl` and the objective improves.

    Parameters
    ----------
    objective : callable
        Maps parameters to the surrogate objective, a number to be *maximised*: the mean over the
        samples of π(a∣s) / π_old(a∣s) times the advantage.
    kl : callable
        Maps parameters to the mean KL divergence from the old ones, KL(π_old ‖ π): 0 at `theta`.
    theta : array (p,), floating point
        The parameters; for a layered Fisher also the list of the weights. Never written to.
    grad : array (p,)
        Gradient of the objective at `theta`.
    fisher : Fisher, array (p, p), operator or callable
        The curvature of `kl` at `theta`; see ``trust_region_step``.
    max_kl : float
        δ > 0 in nats; 0.01 is Schulman's.
    cg_iters : int
        Conjugate gradients are truncated here, at least 1. None of it is a failure.
    cg_damping : float or array (p,)
        Added to F for the direction alone.
    backtrack_coeff : float
        By which a step that was not accepted is multiplied, between 0 and 1; 0.5 is common too.
    backtrack_iters : int
        How often at most; 0 tries the full step alone.
    accept_ratio : float
        The least improvement, as a share of what the gradient promises for the trial. Zero takes
        any; 0.1 is common.
    solver : solver, optional
        In place of the conjugate gradients that `cg_iters` describes, for example ``Cholesky()``,
        or ``"auto"``.
    n_threads : int, optional
        For the solve.

    Returns
    -------
    TRPOStep
        Also where no step was possible: then the parameters are the old ones, and ``status`` and
        ``message`` say why.

    Raises
    ------
    NonFiniteError, MemoryLimitError, TypeError, ValueError
        For arguments of the wrong kind, shape or range, or with NaN in `theta` or in a matrix.
        Whatever the caller's functions raise passes through.

    See Also
    --------
    trust_region_step

    Notes
    -----
    A trial costs one call of `kl`, and one of `objective` if that was at most max_kl (1 + √eps).
    NaN or infinity from either is a trial that failed. Conjugate gradients run without a
    preconditioner, as published, and stop early at a relative residual of 1e-5. The defaults are
    those of OpenAI's Spinning Up; the paper says *until the objective improves* and gives none.

    References
    ----------
    J. Schulman, S. Levine, P. Moritz, M. I. Jordan and P. Abbeel, "Trust region policy
    optimization", ICML 2015.

    Examples
    --------
    One Gaussian policy and the reward −(a − 1)²; the old mean is 0:

    >>> import numpy as np, fastfisher as ff
    >>> old = ff.Gaussian(0.0, 0.5, fixed_scale=True)
    >>> def kl(mean):
    ...     return old.kl(old.with_parameters(mean))
    >>> update = ff.trpo_step(
    ...     lambda mean: -float((mean[0] - 1) ** 2), kl, np.zeros(1), np.array([2.0]),
    ...     old.fisher_information(), max_kl=0.02,
    ... )
    >>> update.theta.round(9), round(update.kl, 9), update.status.name
    (array([0.1]), 0.02, 'SUCCESS')
    """
    max_kl = _check.positive("max_kl", max_kl)
    backtracks = _check.count("backtrack_iters", backtrack_iters)
    ratio = _check.cut("accept_ratio", accept_ratio)
    shrink = _check.positive("backtrack_coeff", backtrack_coeff)
    if shrink >= 1.0:
        raise ValueError(
            f"backtrack_coeff: expected a number between 0 and 1, got {backtrack_coeff!r}. "
            "It multiplies a step that was too long."
        )
    iterations = _check.count("cg_iters", cg_iters, 1)
    for name, function in (("objective", objective), ("kl", kl)):
        if not callable(function):
            raise TypeError(
                f"{name}: expected a function of the parameters, got {type(function).__name__}. "
                "It is called at each trial."
            )
    if solver is None:
        solver = CG(_CG_RTOL, max_iterations=iterations, preconditioner=None, allow_truncated=True)

    F = as_metric(fisher, grad)
    old, fold = _parameters(F, theta)
    before = _number("objective", objective(fold(old.copy())))
    g, _ = F._unfolded("grad", grad)
    full = trust_region_step(
        F,
        g,
        max_kl,
        damping=cg_damping,
        solver=solver,
        on_failure="zero",
        n_threads=n_threads,
    )
    unchanged = TRPOStep(
        theta=fold(old.copy()),
        step=fold(F._ops.xp.zeros_like(old)),
        kl=0.0,
        objective=before,
        improvement=0.0,
        predicted=0.0,
        status=full.status,
        message=full.message,
        iterations=full.iterations,
        damping_used=full.damping_used,
    )
    if not math.isfinite(before):
        message = f"the objective at the old parameters is {before}"
        return replace(unchanged, status=Status.NON_FINITE, message=message)
    if not full.value.any():
        return unchanged

    slope = float((F._ops.to_vector("grad", g, F.dtype).conj() * full.value).sum().real)
    # Where KL is quadratic the full step is at max_kl to rounding, on either side of it.
    eps = max(float(np.finfo(dtype).eps) for dtype in (old.dtype, F.dtype))
    farthest = max_kl * (1 + math.sqrt(eps))
    spent = astray = idle = 0  # trials that failed: too far, not finite, not better
    for j in range(backtracks + 1):
        step = (shrink**j * full.value).astype(old.dtype)
        theta = old + step
        divergence, after = _number("kl", kl(fold(theta.copy()))), math.nan
        if farthest < divergence < math.inf:
            spent += 1
            continue
        if math.isfinite(divergence):
            after = _number("objective", objective(fold(theta.copy())))
        if not math.isfinite(after):
            astray += 1
            continue
        promised = shrink**j * slope
        if not (after > before and after - before >= ratio * promised):
            idle += 1
            continue
        return replace(
            unchanged,
            theta=fold(theta),
            step=fold(step),
            kl=divergence,
            objective=after,
            improvement=after - before,
            predicted=promised,
            status=Status.SUCCESS,
            message="",
            backtracks=j,
        )
    return replace(
        unchanged,
        status=Status.NON_FINITE if astray == backtracks + 1 else Status.STAGNATED,
        message=f"no step was accepted in {backtracks + 1} trials: the KL divergence was above "
        f"max_kl in {spent}, something was not finite in {astray}, the objective did not improve "
        f"enough in {idle}",
        backtracks=backtracks,
    )


def _parameters(F: Fisher, theta: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the parameters as a finite vector of their own dtype, and what gives their form."""
    flat, fold = F._unfolded("theta", theta)
    array = F._ops.to_array("theta", flat)
    if array.shape != (F.shape[0],):
        raise ValueError(
            f"theta: expected shape ({F.shape[0]},), got {array.shape}. "
            "One number for each parameter of the Fisher."
        )
    if array.dtype.kind != F.dtype.kind:
        raise TypeError(
            f"theta: expected {'complex' if F.dtype.kind == 'c' else 'real'} numbers as the Fisher "
            f"has ({F.dtype}), got {array.dtype}. Steps are of the Fisher's kind."
        )
    if not F._ops.all_finite(array):
        raise NonFiniteError(
            "theta: expected finite values, got NaN or infinity. No step leads away from there."
        )
    return array, fold


def _number(name: str, value: Any) -> float:
    """Return what a caller's function gave as a float, NaN and infinity included."""
    try:
        if np.ndim(value) == 0:
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(
        f"{name}: expected a function that returns a number, got {type(value).__name__} of shape "
        f"{np.shape(value)}. Return the mean over the samples."
    )
