"""The step of a trust region: the most ascent for a given KL divergence, to second order."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops.border import takes_tensors
from fastfisher.applications.metric import as_metric
from fastfisher.errors import FisherError, NonFiniteError, NotPositiveDefiniteError
from fastfisher.fisher.operator import OperatorFisher
from fastfisher.fisher.protocol import Fisher
from fastfisher.functions import solve
from fastfisher.solvers.solution import Solution, Status

__all__ = ["trust_region_step"]

_POLICIES = ("raise", "zero", "shift", "pinv")
# Below this many eps of Σ F_jj x_j² a quadratic form xᵀFx is taken for rounding: F_jk² ≤ F_jj F_kk
# bounds the error of each of its terms by that, and CG takes no smaller tolerance either.
_ROUNDING = 32.0


@takes_tensors
def trust_region_step(
    fisher: Any,
    grad: Any,
    max_kl: float,
    *,
    damping: Any = 0.0,
    damping_mode: str = "absolute",
    solver: Any = "auto",
    on_failure: str = "raise",
    n_threads: int | None = None,
) -> Solution:
    """Return the step Δ that ascends most among those of a given KL: max gᵀΔ with ½ΔᵀFΔ = max_kl.

    Equivalent to ``x = ff.solve(F, grad, damping=damping).value`` and
    ``x * np.sqrt(2 * max_kl / (x @ F @ x))``.

    Parameters
    ----------
    fisher : Fisher, array (p, p), operator or callable
        Any representation or a symmetric matrix; or its products alone, as an operator with a
        shape and ``fisher @ v`` or as a function of v (p,), which are solved by conjugate
        gradients. F is taken as it stands: if it is a mean over samples, so is `max_kl`.
    grad : array (p,)
        Gradient of what is to be *maximised*; of a loss give minus its gradient. For a layered
        Fisher also the list of the weights' gradients.
    max_kl : float
        δ > 0, the KL divergence in nats that the step spends, to second order.
    damping : float or array (p,)
        Of the direction (F + damping)⁻¹g alone: the length is that of the undamped F.
    damping_mode : {"absolute", "trace", "diagonal", "factored"}
        As in ``ff.solve``.
    solver : "auto", Cholesky(…), CG(…), Dual(…), QR(…) or Eigh()
        ``CG(max_iterations=10, allow_truncated=True)`` is TRPO's.
    on_failure : {"raise", "zero", "shift", "pinv"}
        As in ``ff.solve``, with zeros in place of NaN: a step is always finite. "shift" and "pinv"
        cure a matrix that cannot be solved with, not a direction along which F is zero.
    n_threads : int, optional
        For the solve.

    Returns
    -------
    Solution
        Its value is Δ, of the form of `grad`. ``status`` is that of the solve, ``MAX_ITERATIONS``
        after truncated conjugate gradients, or ``ZERO_GRADIENT`` (Δ = 0); with
        ``on_failure="zero"`` also ``NON_FINITE``, ``NEGATIVE_CURVATURE``, ``NOT_POSITIVE_DEFINITE``
        or ``STAGNATED`` (Δ = 0). ``residual`` is that of the direction, before it was scaled.

    Raises
    ------
    NotPositiveDefiniteError
        If F + damping is not positive definite, or ΔᵀFΔ is negative or zero to rounding.
    NonFiniteError
        If the gradient or a product with F is not finite; for a matrix with NaN always.
    ConvergenceError, MemoryLimitError, TypeError, ValueError
        As ``ff.solve``; for `max_kl` that is not above 0. Errors that numbers cause have a
        ``solution``, if the solve got so far.

    See Also
    --------
    trpo_step

    Notes
    -----
    One solve, one product with F and its diagonal. With the damped F in place of F under the root,
    as many codes have it, the step spends less than `max_kl`, by the factor
    xᵀFx / xᵀ(F + damping)x. To second order the KL of Δ is `max_kl`; the true one is
    max_kl (1 + O(√max_kl)). ΔᵀFΔ is zero to rounding when it is not above 32 eps Σ F_jj Δ_j², or
    (32 eps)² p of that where held scores or a square root make it a sum of squares; of products
    alone, when it is not above zero.

    References
    ----------
    J. Schulman, S. Levine, P. Moritz, M. I. Jordan and P. Abbeel, "Trust region policy
    optimization", ICML 2015, appendix C.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = np.diag([1.0, 4.0])
    >>> step = ff.trust_region_step(F, np.array([3.0, 8.0]), 0.125).value
    >>> step.round(12), round(float(step @ F @ step / 2), 12)
    (array([0.3, 0.2]), 0.125)
    """
    max_kl = _check.positive("max_kl", max_kl)
    if on_failure not in _POLICIES:
        raise ValueError(
            f"on_failure: expected one of {', '.join(_POLICIES)}, got {on_failure!r}. "
            "A step is never NaN: 'zero' leaves parameters where they are."
        )
    F = as_metric(fisher, grad)
    flat, fold = F._unfolded("grad", grad)
    g = _check.columns(F._ops, "grad", flat, F.shape[0], F.dtype)
    if g.ndim != 1:
        raise ValueError(
            f"grad: expected shape ({F.shape[0]},), got {g.shape}. Each step has a length of its "
            "own: take them one by one."
        )
    nothing = fold(F._ops.xp.zeros_like(g))
    if not F._ops.all_finite(g):
        error = NonFiniteError(
            "grad: expected finite values, got NaN or infinity. Find out where it comes from."
        )
        return _refused(error, Solution(nothing, Status.NON_FINITE, None, 0.0, "none"), on_failure)
    if not g.any():
        message = "the gradient is zero: no step is better than another"
        return Solution(nothing, Status.ZERO_GRADIENT, 0.0, 0.0, "none", message=message)
    direction = solve(
        F,
        g,
        damping=damping,
        damping_mode=damping_mode,
        solver=solver,
        on_failure="nan" if on_failure == "zero" else on_failure,
        n_threads=n_threads,
    )
    if direction.method == "none":
        return replace(direction, value=nothing)
    # Largest entry 1, so that what is squared neither overflows nor vanishes.
    x, size = direction.value, float(abs(direction.value).max())
    x = x / size if 0.0 < size < math.inf else x
    curvature, rounding = _curvature(F, x, size)
    length = math.sqrt(2 * max_kl / curvature) if curvature > rounding else math.nan
    if length <= float(np.finfo(F.dtype).max):
        return replace(direction, value=fold(x * length))
    lost, status = _no_length(curvature, rounding)
    return _refused(lost, replace(direction, value=nothing, status=status), on_failure)


def _curvature(F: Fisher, x: Any, size: float) -> tuple[float, float]:
    """Return xᵀFx and below what size it is rounding, of x whose largest entry was `size`."""
    if size == 0.0 or not math.isfinite(size):
        return size, 0.0  # nothing is spent along no direction, and what is not finite is told
    if isinstance(F, OperatorFisher):
        return F.quadratic_form(x), 0.0  # its diagonal would take p products
    apart = float((abs(F.diagonal()) * abs(x) ** 2).sum())
    relative = _ROUNDING * float(np.finfo(F.dtype).eps)
    if F._sums_squares:  # of U x, whose entries have that error beside Σ |u_j x_j|
        relative = relative**2 * F.shape[0]
    return F.quadratic_form(x), relative * apart


def _no_length(curvature: float, rounding: float) -> tuple[FisherError, Status]:
    """Return the error of a direction that has no length, and its status."""
    if not math.isfinite(curvature):
        return NonFiniteError(
            f"fisher: expected a finite ΔᵀFΔ, got {curvature}. Look for NaN or overflow in the "
            "scores."
        ), Status.NON_FINITE
    if curvature < -rounding:
        return NotPositiveDefiniteError(
            f"fisher: expected ΔᵀFΔ > 0, got {curvature:.3g} along a step whose largest entry is "
            "1. A Fisher has no negative curvature: a Hessian has, or the curvature of a KL whose "
            "first argument is not the distribution at the parameters.",
            value=curvature,
        ), Status.NEGATIVE_CURVATURE
    return NotPositiveDefiniteError(
        f"fisher: expected ΔᵀFΔ > 0, got {curvature:.3g}, which is zero to rounding. Along this "
        "direction the model does not change, so that no KL divergence bounds a step; more damping "
        "turns it towards the gradient.",
        value=curvature,
    ), Status.NOT_POSITIVE_DEFINITE


def _refused(error: FisherError, solution: Solution, policy: str) -> Solution:
    """Return the step of zeros that says the same as `error`, or raise it."""
    solution = replace(solution, message=str(error))
    if policy == "zero":
        return solution
    error.solution = solution
    raise error
