"""One solve, from arguments as the caller wrote them to a Solution."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastfisher import _check
from fastfisher._turns import still
from fastfisher.errors import FisherError
from fastfisher.solvers.auto import choose
from fastfisher.solvers.damping import FactoredDamping, diagonal_shift
from fastfisher.solvers.failure import POLICIES, recover
from fastfisher.solvers.outcome import finite
from fastfisher.solvers.solution import Solution

if TYPE_CHECKING:
    from fastfisher.fisher.protocol import Fisher

__all__ = ["solve_system"]


@still
def solve_system(
    fisher: "Fisher",
    rhs: Any,
    *,
    damping: Any = 0.0,
    damping_mode: str = "absolute",
    solver: Any = "auto",
    on_failure: str = "raise",
    check_finite: bool = True,
    threads: int = 0,
    diagnose: bool = True,
    name: str = "rhs",
) -> Solution:
    """Check the arguments, choose the solver, solve, and apply `on_failure`.

    `rhs` None stands for the mean score of a `ScoreFisher`. The value is (p, k) for a `rhs` of that
    shape and (p,) otherwise. Messages call it `name`.
    """
    if on_failure not in POLICIES:
        raise ValueError(
            f"on_failure: expected one of {', '.join(POLICIES)}, got {on_failure!r}. "
            "'raise' names what is wrong."
        )
    rhs, fold = fisher._unfolded(name, rhs)
    columns, flat = rhs, True
    if rhs is not None:
        columns = _check.columns(fisher._ops, name, rhs, fisher.shape[0], fisher.dtype)
        flat = columns.ndim == 1
        if flat:
            columns = columns.reshape(-1, 1)
    shift = diagonal_shift(fisher, damping, damping_mode)
    chosen = choose(fisher, solver, shift)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows shows in the solution
        try:
            if check_finite and columns is not None:
                _check.finite_columns(fisher._ops, name, columns, fisher.shape[0], fisher.dtype)
            solution: Solution = chosen.solve(
                fisher, columns, shift, threads=threads, diagnose=diagnose
            )
            if check_finite:
                finite(fisher, solution)
        except FisherError as error:
            if flat and isinstance(error.solution, Solution):
                error.solution = _flattened(error.solution, fold)
            solution = recover(on_failure, error, chosen, fisher, columns, shift, threads)
    if isinstance(solution.damping_used, FactoredDamping):
        solution = replace(solution, damping_used=solution.damping_used.damping)
    return _flattened(solution, fold) if flat else solution


def _flattened(solution: Solution, fold: Callable[[Any], Any]) -> Solution:
    return replace(solution, value=fold(solution.value.reshape(-1)))
