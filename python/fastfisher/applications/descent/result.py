"""What a descent tells: a record of each iterate, the state that a callback sees, the result."""

from dataclasses import dataclass
from typing import Any

from fastfisher.solvers.solution import Status

__all__ = ["DescentRecord", "DescentResult", "DescentState"]


@dataclass(frozen=True, slots=True, eq=False)
class DescentRecord:
    """One iterate, and the step that led to it.

    Attributes
    ----------
    iteration : int
        Steps taken so far; 0 is the start.
    loss : float
        L at this iterate.
    decrement : float
        ½ gᵀ(F + damping)⁻¹g at this iterate: what a full step would gain if L were the quadratic
        that g and F + damping describe. NaN where that could not be solved.
    damping : float or array (p,)
        λ of the step that led here, a multiple of what `damping_mode` says.
    step_size : float
        α of that step, after every shortening; 0 at the start.
    kl : float
        ½ ΔᵀFΔ of that step Δ, with F undamped: its Kullback–Leibler divergence to second order,
        where F is the mean Fisher of one observation.
    gain_ratio : float
        The fall of the loss over −gᵀΔ − ½ ΔᵀFΔ, what the step promised; 1 where both are lost in
        rounding, NaN at the start.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> def model(theta):  # the mean of N(θ, 1) whose sample mean is 3
    ...     return 0.5 * (theta[0] - 3) ** 2, theta - 3, ff.DenseFisher.from_matrix(np.eye(1))
    >>> for record in ff.natural_gradient_descent(model, [0.0]).history:
    ...     print(record.iteration, record.loss, record.kl, record.gain_ratio)
    0 4.5 0.0 nan
    1 0.0 4.5 1.0
    >>> record.damping, record.decrement, record.step_size
    (0.0, 0.0, 1.0)
    """

    iteration: int
    loss: float
    decrement: float
    damping: Any
    step_size: float
    kl: float
    gain_ratio: float


@dataclass(frozen=True, slots=True, eq=False)
class DescentState(DescentRecord):
    """What the callback of a descent sees: the record of this iterate, and its vectors.

    Attributes
    ----------
    theta : array (p,)
        The parameters; a copy.
    gradient : array (p,)
        ∇L there; a copy.

    See Also
    --------
    DescentRecord, natural_gradient_descent

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> def model(theta):
    ...     return 0.5 * (theta[0] - 3) ** 2, theta - 3, ff.DenseFisher.from_matrix(np.eye(1))
    >>> path = []
    >>> result = ff.natural_gradient_descent(
    ...     model, [0.0], step_size=0.5, callback=lambda state: path.append(state.theta[0]),
    ...     max_iterations=3,
    ... )
    >>> [float(x) for x in path]
    [0.0, 1.5, 2.25, 2.625]
    >>> result = ff.natural_gradient_descent(
    ...     model, [0.0], callback=lambda state: bool(abs(state.gradient).max() < 1e-6)
    ... )
    >>> result.status.name
    'INTERRUPTED'
    """

    theta: Any
    gradient: Any


@dataclass(frozen=True, slots=True, eq=False)
class DescentResult:
    """Where a descent ended, and why.

    Attributes
    ----------
    theta : array (p,)
        The last good parameters: finite, with a finite loss and gradient.
    loss : float
        L there, as the model gave it.
    gradient : array (p,)
        ∇L there.
    decrement : float
        ½ gᵀ(F + damping)⁻¹g there; NaN where that could not be solved.
    status : Status
        ``SUCCESS``: a stopping rule was met, or the gradient was zero at the start.
        ``MAX_ITERATIONS``, ``INTERRUPTED`` (by the callback, or by a model out of data),
        ``STAGNATED`` (no step that was tried lowers the loss),
        ``NON_FINITE`` (what lies ahead is not finite), ``NOT_POSITIVE_DEFINITE`` or what else a
        solve after the first ended with.
    message : str
        The same in words.
    iterations : int
        Steps taken; a `LeastSquaresResult` counts those that were tried.
    damping_used : float or array (p,)
        λ of the last step that was solved for; adapted, if it was. It is in the units of `damping`,
        a multiple of what `damping_mode` says, where ``Solution.damping_used`` is what was added.
    history : tuple of DescentRecord
        One of each iterate, the start first: ``[record.loss for record in result.history]``.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> def model(theta):
    ...     return 0.5 * (theta[0] - 3) ** 2, theta - 3, ff.DenseFisher.from_matrix(np.eye(1))
    >>> result = ff.natural_gradient_descent(model, [0.0])
    >>> result.theta, result.status.name, result.iterations
    (array([3.]), 'SUCCESS', 1)
    >>> result.loss, result.gradient, result.decrement, result.damping_used
    (0.0, array([0.]), 0.0, 0.0)
    >>> result.message, len(result.history)
    ('the decrement is at most 1e-12', 2)
    """

    theta: Any
    loss: float
    gradient: Any
    decrement: float
    status: Status
    message: str
    iterations: int
    damping_used: Any
    history: tuple[DescentRecord, ...]
