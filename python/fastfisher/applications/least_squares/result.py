"""What a least-squares fit returns: parameters, how it ended, and how sure they are."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfisher.applications.total import as_total
from fastfisher.fisher.factor import Factor
from fastfisher.fisher.protocol import Fisher
from fastfisher.fisher.score import ScoreFisher
from fastfisher.solvers.qr import QR
from fastfisher.solvers.solution import Status

__all__ = ["LeastSquaresResult"]


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
        ``SUCCESS`` (`message` tells by which rule), ``ZERO_GRADIENT`` at the start, ``STAGNATED``,
        ``NON_FINITE``, ``NOT_POSITIVE_DEFINITE``, ``MAX_ITERATIONS`` or ``INTERRUPTED``.
    message : str
        The same in words.
    iterations : int
        Steps that were tried.
    evaluations : int
        Calls of the residual function, those for differences included.
    history : dict of arrays
        ``"loss"`` (iterations + 1,): at the start and after each step; ``"damping"`` and ``"gain"``
        (iterations,): of each step, the gain being the fall of the loss over the predicted one.
    damping_used : float
        λ after the last step; 0 for Gauss–Newton.
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
    history: dict[str, Any]
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
