"""CG: preconditioned conjugate gradients, which need products with F alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastfisher import _check
from fastfisher.errors import (
    ConvergenceError,
    FisherError,
    NonFiniteError,
    NotPositiveDefiniteError,
)
from fastfisher.solvers.damping import FactoredDamping
from fastfisher.solvers.outcome import Outcome, one_by_one, outcomes
from fastfisher.solvers.solution import Solution, Status

if TYPE_CHECKING:
    from fastfisher.fisher.protocol import Fisher

__all__ = ["CG"]

# More than a lifetime of them; the core counts in 64 bits.
_MOST_ITERATIONS = 2**60

# The worst outcome of several columns is the outcome.
_WORST_FIRST = (
    Status.NON_FINITE,
    Status.NEGATIVE_CURVATURE,
    Status.STAGNATED,
    Status.MAX_ITERATIONS,
    Status.SUCCESS,
)


@dataclass(frozen=True, slots=True)
class CG:
    """Solve by preconditioned conjugate gradients; each right-hand side stops on its own.

    Stops where ‖g − (F + damping) x‖ ≤ max(rtol · ‖g‖, atol). The residual in the `Solution` is
    the true one, computed from x afterwards.

    Parameters
    ----------
    rtol, atol : float
        Tolerances. No dtype reaches every `rtol`: below 32 eps it is taken as 32 eps.
    max_iterations : int, optional
        Default 10 p, but at least 100. Coming here is a failure unless `allow_truncated`.
    preconditioner : "jacobi", None, BlockJacobi(…), Nystrom(…), array (p,) or callable
        ``"jacobi"`` divides by the diagonal of F + damping, `BlockJacobi` solves with its diagonal
        blocks, `Nystrom` with its leading eigenvalues, an array divides by itself, and a callable
        maps residuals (p, k) to approximate solutions (p, k).
    allow_truncated : bool
        Take the iterate that `max_iterations` gives, as in truncated Newton methods; the status
        says ``MAX_ITERATIONS``.

    Notes
    -----
    Negative curvature (F + damping is not positive definite) raises `NotPositiveDefiniteError`; an
    exhausted or stagnating iteration raises `ConvergenceError`, which carries the last iterate.

    References
    ----------
    M. R. Hestenes and E. Stiefel, "Methods of conjugate gradients for solving linear systems",
    J. Res. Natl. Bur. Stand. 49 (1952) 409.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = ff.ScoreFisher(np.array([[1.0, 0.0], [1.0, 2.0]]))
    >>> solution = ff.solve(F, np.array([2.0, 3.0]), solver=ff.CG(rtol=1e-12))
    >>> solution.value.round(9), solution.method
    (array([1., 1.]), 'cg')
    >>> ff.CG(max_iterations=1, preconditioner=None, atol=1e-9, allow_truncated=True)
    CG(rtol=1e-08, atol=1e-09, max_iterations=1, preconditioner=None, allow_truncated=True)
    >>> path = F.solve_path(np.ones(2), [0.1, 1.0], solver=ff.CG(preconditioner=None))
    >>> path.value.shape
    (2, 2)
    """

    rtol: float = 1e-8
    atol: float = 0.0
    max_iterations: int | None = None
    preconditioner: Literal["jacobi"] | Any | Callable[[Any], Any] | None = field(
        default="jacobi", compare=False
    )
    allow_truncated: bool = False

    def __post_init__(self) -> None:
        _check.cut("rtol", self.rtol)
        _check.cut("atol", self.atol)
        if self.max_iterations is not None:
            _check.count("max_iterations", self.max_iterations, most=_MOST_ITERATIONS)
        _check.flag("allow_truncated", self.allow_truncated)
        if isinstance(self.preconditioner, str) and self.preconditioner != "jacobi":
            raise ValueError(
                f"preconditioner: expected 'jacobi', None, BlockJacobi(), Nystrom(), an array or a "
                f"callable, got {self.preconditioner!r}. 'jacobi' divides by the diagonal."
            )

    def solve(
        self,
        fisher: "Fisher",
        rhs: Any,
        shift: Any,
        *,
        threads: int = 0,
        diagnose: bool = True,  # noqa: ARG002  (the residual comes for free)
    ) -> Solution:
        """Solve (F + shift) x = rhs; see `fastfisher.solvers` for the arguments."""
        if isinstance(shift, FactoredDamping):
            raise ValueError(
                "damping_mode: expected one of absolute, trace, diagonal for CG(), got 'factored'. "
                "Iterations need a shift of the diagonal: Cholesky() solves with damped factors."
            )
        if rhs is None:
            rhs = fisher._mean_score(threads)
        rtol, steps = self._limits(fisher)
        value, statuses, iterations, residuals = fisher._conjugate_gradients(
            rhs,
            shift,
            self._preconditioner(fisher, shift, threads),
            rtol,
            self.atol,
            steps,
            threads,
        )
        return self._concluded(value, shift, statuses, iterations, residuals, rtol, "cg")

    def solve_path(
        self, fisher: "Fisher", rhs: Any, shifts: list[float], *, threads: int = 0
    ) -> list[Outcome]:
        """Solve (F + shift) x = rhs for every shift.

        Without a preconditioner all share one Krylov space: one product with F per iteration serves
        every damping, and the hardest sets their number. A preconditioner would need a space of its
        own for each, so with one they are solved one by one.
        """
        if self.preconditioner is not None:
            return one_by_one(self, fisher, rhs, shifts, threads)
        if rhs is None:
            rhs = fisher._mean_score(threads)
        rtol, steps = self._limits(fisher)
        X, statuses, iterations, residuals = fisher._shifted_conjugate_gradients(
            rhs, shifts, rtol, self.atol, steps, threads
        )
        columns = rhs.shape[1]
        blocks = {s: slice(i * columns, (i + 1) * columns) for i, s in enumerate(shifts)}

        def attempt(shift: float) -> Solution:
            at = blocks[shift]
            return self._concluded(
                X[:, at], shift, statuses[at], iterations[at], residuals[at], rtol, "shifted cg"
            )

        return outcomes(attempt, shifts)

    def _limits(self, fisher: "Fisher") -> tuple[float, int]:
        """Return rtol, no less than the dtype reaches, and the most iterations."""
        steps = self.max_iterations
        if steps is None:
            steps = max(10 * fisher.shape[0], 100)
        return max(self.rtol, 32 * float(np.finfo(fisher.dtype).eps)), steps

    def _concluded(
        self,
        value: Any,
        shift: Any,
        statuses: Any,
        iterations: Any,
        residuals: Any,
        rtol: float,
        method: str,
    ) -> Solution:
        """Return the Solution of some columns, or raise what the worst of them ended with."""
        found = {Status(int(s)) for s in statuses}
        status = next((s for s in _WORST_FIRST if s in found), Status.SUCCESS)
        solution = Solution(
            value=value,
            status=status,
            residual=max(map(float, residuals), default=0.0),
            damping_used=shift,
            method=method,
            iterations=max(map(int, iterations), default=0),
            message="" if status == Status.SUCCESS else _in_words(status),
        )
        if status == Status.SUCCESS:
            return solution
        if status == Status.MAX_ITERATIONS and self.allow_truncated:
            return solution
        raise _failure(solution, rtol)

    def _preconditioner(self, fisher: "Fisher", shift: Any, threads: int) -> Any:
        """Return None, a callable, or a positive vector (p,) to divide by."""
        given: Any = self.preconditioner
        if isinstance(given, type):
            raise TypeError(
                f"preconditioner: expected a value, got the class {given.__name__}. "
                f"Write {given.__name__}()."
            )
        if hasattr(given, "prepare"):
            return given.prepare(fisher, shift, threads=threads)
        if given is None or callable(given):
            return given
        ops, params = fisher._ops, fisher.shape[0]
        if isinstance(given, str):
            divisor = fisher.diagonal() + fisher._shift_vector(shift)
            return ops.xp.where(divisor > 0, divisor, ops.xp.ones_like(divisor))
        divisor = ops.to_vector("preconditioner", given, fisher._real_dtype)
        if divisor.shape != (params,) or not bool(((divisor > 0) & (divisor < math.inf)).all()):
            raise ValueError(
                f"preconditioner: expected ({params},) positive finite numbers, got shape "
                f"{divisor.shape}. It stands for the diagonal of F + damping."
            )
        return ops.xp.ascontiguousarray(divisor)


def _in_words(status: Status) -> str:
    return {
        Status.NON_FINITE: "a product with F was not finite",
        Status.NEGATIVE_CURVATURE: "a direction of negative or zero curvature",
        Status.STAGNATED: "the residual stopped falling",
        Status.MAX_ITERATIONS: "max_iterations was reached",
    }[status]


def _failure(solution: Solution, rtol: float) -> FisherError:
    rounds = f"{solution.iterations} iteration{'s' * (solution.iterations != 1)}"
    what = f"{solution.residual:.2g} after {rounds}: {solution.message}"
    error: FisherError
    if solution.status == Status.NEGATIVE_CURVATURE:
        error = NotPositiveDefiniteError(
            f"fisher: expected a positive definite F + damping, got a relative residual of {what}. "
            "Add damping."
        )
    elif solution.status == Status.NON_FINITE:
        error = NonFiniteError(
            f"fisher: expected finite values, got a relative residual of {what}. Look for NaN, "
            "overflow or underflow in the scores."
        )
    else:
        error = ConvergenceError(
            f"CG: expected a relative residual of {rtol:.2g}, got {what}. Add damping, "
            "precondition, or allow more (allow_truncated=True takes the iterate)."
        )
    error.solution = solution
    return error
