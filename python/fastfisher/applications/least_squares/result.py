"""What a fit tells: records of its steps, what a callback sees, parameters and their errors."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfisher._ops.border import takes_tensors
from fastfisher.applications.total import as_total
from fastfisher.fisher.factor import Factor
from fastfisher.fisher.protocol import Fisher
from fastfisher.fisher.score import ScoreFisher
from fastfisher.solvers.qr import QR
from fastfisher.solvers.solution import Status

__all__ = ["LeastSquaresRecord", "LeastSquaresResult", "LeastSquaresState"]


@dataclass(frozen=True, slots=True, eq=False)
class LeastSquaresRecord:
    """One step that was tried, and where the fit is after it.

    Attributes
    ----------
    iteration : int
        Steps tried so far; 0 is the start.
    loss : float
        ½ Σ (r_i/σ_i)² at the parameters that are best so far.
    damping : float
        λ of the step; 0 for Gauss–Newton.
    step_size : float
        What the step was multiplied by: 1 or, of Gauss–Newton, what halving left of it; 0 at the
        start, and where there was no step to try, as where the path bends too much.
    gain_ratio : float
        The fall of the loss over what the linear model predicted; 1 where both are lost in
        rounding, −∞ where the residuals were not finite, NaN at the start and where nothing was
        evaluated.
    accepted : bool
        Whether the step was taken; if not, the parameters are those of the record before. True at
        the start.

    See Also
    --------
    DescentRecord : the same of a descent, which has one for each step taken.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> x, y = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 4.0])
    >>> fit = ff.gauss_newton(lambda b: b[0] + b[1] * x - y, [0.0, 0.0], max_iterations=1)
    >>> for record in fit.history:
    ...     print(record.iteration, round(record.loss, 6), record.step_size, record.accepted)
    0 13.0 0.0 True
    1 0.083333 1.0 True
    """

    iteration: int
    loss: float
    damping: float
    step_size: float
    gain_ratio: float
    accepted: bool


@dataclass(frozen=True, slots=True, eq=False)
class LeastSquaresState(LeastSquaresRecord):
    """What the callback of a fit sees: the record of this step, and the vectors.

    Attributes
    ----------
    theta : array (p,)
        The best parameters so far; a copy.
    gradient : array (p,)
        Of the loss there, Jᵀ W r; a copy.

    See Also
    --------
    LeastSquaresRecord, levenberg_marquardt, gauss_newton

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> path = []
    >>> fit = ff.gauss_newton(
    ...     lambda b: b**2 - 2, [1.0], jacobian=lambda b: np.diag(2 * b),
    ...     callback=lambda state: path.append(state.theta[0]), max_iterations=3,
    ... )
    >>> [round(float(x), 6) for x in path]
    [1.0, 1.5, 1.416667, 1.414216]
    """

    theta: Any
    gradient: Any


@dataclass(frozen=True, slots=True, eq=False)
class LeastSquaresResult:
    """The parameters of a least-squares fit, how it ended, and how sure they are.

    Attributes
    ----------
    theta : array (p,)
        The best parameters found.
    loss : float
        ½ Σ (r_i/σ_i)² there, half the residual sum of squares.
    residuals : array (n,)
        r(θ), as the function returned them.
    jacobian : array (n, p) or None
        J = ∂r/∂θ there; None if the caller gave a Fisher in its place.
    gradient : array (p,)
        Of the loss, Jᵀ W r with W = diag(1/σ²).
    fisher : Fisher
        JᵀWJ: the Fisher information about θ of observations with deviations σ, or, in units of
        s⁻², of ones whose common s is estimated.
    status : Status
        ``SUCCESS`` (`message` tells by which rule, or that the gradient was zero at the start),
        ``STAGNATED``, ``NON_FINITE``, ``NOT_POSITIVE_DEFINITE``, ``MAX_ITERATIONS`` or
        ``INTERRUPTED``.
    message : str
        The same in words.
    iterations : int
        Steps that were tried; a `DescentResult` counts those that were taken.
    evaluations : int
        Calls of the residual function, those for differences included.
    history : tuple of LeastSquaresRecord
        One of each step, after that of the start: ``[record.loss for record in fit.history]``.
    damping_used : float
        λ after the last step, a multiple of D² as `damping` is; 0 for Gauss–Newton.
    degrees_of_freedom : int
        n − p.
    absolute_sigma : bool
        Whether σ is known, so that it is not estimated.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 3.1, 4.9, 7.0])
    >>> fit = ff.gauss_newton(lambda b: b[0] + b[1] * x - y, [0.0, 0.0])
    >>> fit.theta.round(6), fit.standard_errors().round(6), fit.degrees_of_freedom
    (array([1.03, 1.98]), array([0.079373, 0.042426]), 2)
    """

    theta: Any
    loss: float
    residuals: Any
    jacobian: Any
    gradient: Any
    fisher: Fisher
    status: Status
    message: str
    iterations: int
    evaluations: int
    history: tuple[LeastSquaresRecord, ...]
    damping_used: float
    degrees_of_freedom: int
    absolute_sigma: bool

    @property
    def residual_standard_deviation(self) -> float:
        """Estimated deviation of an observation with σ = 1, s = √(Σ (r_i/σ_i)² / (n − p))."""
        if self.degrees_of_freedom <= 0:
            raise ValueError(
                f"degrees_of_freedom: expected at least 1, got {self.degrees_of_freedom}. The "
                "scatter of as many residuals as parameters tells nothing: give sigma with "
                "absolute_sigma=True."
            )
        return float(np.sqrt(2 * self.loss / self.degrees_of_freedom))

    @takes_tensors
    def standard_errors(self) -> Any:
        """Return the standard errors of the parameters, (p,), the roots of `covariance`'s diagonal.

        By QR of the Jacobian, whose errors grow with its condition number and not with the square.

        Raises
        ------
        NotPositiveDefiniteError
            If the Jacobian does not determine all parameters.
        """
        factor, scale = self._factor()
        return scale * np.sqrt(factor.inverse_diagonal())

    @takes_tensors
    def covariance(self) -> Any:
        """Return the covariance of the parameters, s² (JᵀWJ)⁻¹, (p, p); s = 1 if σ is known.

        Raises
        ------
        NotPositiveDefiniteError
            If the Jacobian does not determine all parameters.
        """
        factor, scale = self._factor()
        return scale**2 * factor.inverse()

    def _factor(self) -> tuple[Factor, float]:
        """Return the factor of F and √(s²/c), where c F is the total information."""
        s = 1.0 if self.absolute_sigma else self.residual_standard_deviation
        F, scale = as_total(self.fisher)
        factor = F.factor(solver=QR() if isinstance(F, ScoreFisher) else "auto")
        return factor, s / scale**0.5
