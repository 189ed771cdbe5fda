"""What came of each damping of a path: a Solution, or the error that it raised."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastfisher._range import OutOfRangeError
from fastfisher.errors import FisherError, MemoryLimitError, NonFiniteError
from fastfisher.solvers.solution import Solution

if TYPE_CHECKING:
    from fastfisher.fisher.protocol import Fisher

__all__ = ["Outcome", "finite", "kept", "one_by_one", "outcomes", "shifts_of", "with_values"]

Outcome = Solution | FisherError


def finite(fisher: "Fisher", solution: Solution) -> Solution:
    """Return the solution of a finite system, or raise if it has left the range of its dtype."""
    if not fisher._ops.all_finite(solution.value):
        raise OutOfRangeError(
            f"x: expected a solution within the range of {fisher.dtype}, got overflow. "
            "Add damping, or scale the scores up or the right-hand side down."
        )
    return solution


def kept(fisher: "Fisher", solution: Solution) -> Outcome:
    """Return the solution, or the error that it has left the range."""
    try:
        return finite(fisher, solution)
    except NonFiniteError as error:
        return error


def outcomes(attempt: Callable[[float], Solution], shifts: list[float]) -> list[Outcome]:
    """Return what `attempt` gives or raises for each damping; want of memory ends them all."""

    def outcome(shift: float) -> Outcome:
        try:
            return attempt(shift)
        except MemoryLimitError:
            raise
        except FisherError as error:
            return error

    return [outcome(shift) for shift in shifts]


def one_by_one(
    solver: Any, fisher: "Fisher", rhs: Any, shifts: list[float], threads: int
) -> list[Outcome]:
    """Return what `solver` makes of each damping by itself."""
    return outcomes(lambda shift: solver.solve(fisher, rhs, shift, threads=threads), shifts)


def shifts_of(found: list[Outcome]) -> list[float]:
    """Return the dampings that did not fail."""
    return [outcome.damping_used for outcome in found if isinstance(outcome, Solution)]


def with_values(
    fisher: "Fisher", rhs: Any, found: list[Outcome], X: Any, threads: int
) -> list[Outcome]:
    """Return `found` with values and residuals; one product with F serves them all.

    X (p, m·k) has the values of those that did not fail, side by side.
    """
    product, columns = fisher._product(X, threads), rhs.shape[1]
    blocks = (slice(at, at + columns) for at in range(0, max(X.shape[1], 1), max(columns, 1)))

    def complete(solution: Solution) -> Solution:
        block = next(blocks) if columns else slice(0)
        value = X[:, block]
        image = product[:, block] + solution.damping_used * value
        residual = fisher._ops.worst_residual(rhs, image)
        return replace(solution, value=value, residual=residual)

    return [o if isinstance(o, FisherError) else complete(o) for o in found]
