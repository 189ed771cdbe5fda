"""A path of dampings: many systems (F + λI) x = g from one factorisation or one Krylov space."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastfisher import _check, _memory
from fastfisher._turns import still
from fastfisher.errors import FisherError
from fastfisher.solvers.auto import choose_for_path
from fastfisher.solvers.failure import unsolved
from fastfisher.solvers.outcome import Outcome, kept, one_by_one
from fastfisher.solvers.solution import Solution, Status

if TYPE_CHECKING:
    from fastfisher.fisher.protocol import Fisher

__all__ = ["PathSolution", "solve_path_system"]

POLICIES = ("raise", "nan")
# Dampings that can be added to the diagonal by shifting the eigenvalues of F.
MODES = ("absolute", "trace")


@dataclass(frozen=True, slots=True, eq=False)
class PathSolution:
    """The solutions of (F + λI) x = g for a path of m dampings λ.

    ``len(path)`` is m, ``path[i]`` the `Solution` of the i-th damping, and a path can be iterated.

    Attributes
    ----------
    value : array (m, p) or (m, p, k)
        One solution per damping, in the order they were given.
    status : array (m,) of int
        `Status` numbers; 0 is success.
    residual : array (m,)
        ‖g − (F + λ) x‖ / ‖g‖ of each, computed from x; NaN where there is no x.
    damping_used : array (m,)
        What was added to the diagonal.
    methods : tuple of str
        What solved each system, also when ``"auto"`` chose it; "none" where nothing did.
    iterations : array (m,) of int
        Of the slowest column; 0 for a direct method.
    rcond : array (m,)
        Reciprocal condition of each F + λI, NaN where it is not known.
    rank : array (m,)
        Eigenvalues kept by a cut-off, NaN where none was asked for.
    messages : tuple of str
        What went wrong or why a fallback was taken, per damping; empty after plain success.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> path = ff.solve_path(np.diag([1.0, 3.0]), np.ones(2), [0.0, 1.0])
    >>> path.value.round(3)
    array([[1.   , 0.333],
           [0.5  , 0.25 ]])
    >>> path[1].status.name, len(path)
    ('SUCCESS', 2)
    >>> path.status, path.damping_used, bool(path.residual.max() < 1e-15)
    (array([0, 0]), array([0., 1.]), True)
    >>> path.method, path.methods, path.iterations, path.messages
    ('cholesky', ('cholesky', 'cholesky'), array([0, 0]), ('', ''))
    >>> path.rcond.round(3), path.rank
    (array([0.333, 0.5  ]), array([nan, nan]))
    """

    value: Any
    status: Any
    residual: Any
    damping_used: Any
    methods: tuple[str, ...]
    iterations: Any
    rcond: Any
    rank: Any
    messages: tuple[str, ...]

    @property
    def method(self) -> str:
        """What solved the path: one name, or several where a fallback was taken."""
        return ", ".join(sorted(set(self.methods) - {"none"})) or "none"

    def __len__(self) -> int:
        """Return the number of dampings."""
        return len(self.messages)

    def __getitem__(self, place: int) -> Solution:
        """Return the Solution of one damping."""
        message = self.messages[place]  # raises IndexError, which ends a loop
        rcond, rank = float(self.rcond[place]), float(self.rank[place])
        return Solution(
            value=self.value[place],
            status=Status(int(self.status[place])),
            residual=float(self.residual[place]),
            damping_used=float(self.damping_used[place]),
            method=self.methods[place],
            iterations=int(self.iterations[place]),
            rcond=None if math.isnan(rcond) else rcond,
            rank=None if math.isnan(rank) else int(rank),
            message=message,
        )

    def __iter__(self) -> Iterator[Solution]:
        """Yield the Solutions in order."""
        return (self[place] for place in range(len(self)))


@still
def solve_path_system(
    fisher: "Fisher",
    rhs: Any,
    dampings: Any,
    *,
    damping_mode: str = "absolute",
    solver: Any = "auto",
    on_failure: str = "raise",
    check_finite: bool = True,
    threads: int = 0,
) -> PathSolution:
    """Check the arguments, choose the solver, solve for every damping, and apply `on_failure`.

    `rhs` None stands for the mean score of a `ScoreFisher`.
    """
    if on_failure not in POLICIES:
        raise ValueError(
            f"on_failure: expected one of {', '.join(POLICIES)} in a path, got {on_failure!r}. "
            "'nan' keeps the dampings that work; ff.solve has the other policies."
        )
    if damping_mode not in MODES:
        raise ValueError(
            f"damping_mode: expected one of {', '.join(MODES)} in a path, got {damping_mode!r}. "
            "A path shifts the eigenvalues of F: call ff.solve for each damping instead."
        )
    ops, params = fisher._ops, fisher.shape[0]
    path = _check.dampings(dampings)
    if rhs is None:
        given, columns, shape = None, fisher._mean_score(threads), (params,)
        _, fold = fisher._unfolded("rhs", columns.reshape(-1))
    else:
        rhs, fold = fisher._unfolded("rhs", rhs)
        columns = _check.columns(ops, "rhs", rhs, params, fisher.dtype)
        if check_finite:
            _check.finite_columns(ops, "rhs", columns, params, fisher.dtype)
        shape = columns.shape
        given = columns = columns.reshape(params, -1)
    _memory.guard(
        2 * len(path) * columns.size * fisher.dtype.itemsize,
        "solve_path",
        "Give fewer dampings at a time.",
        ops,
    )
    unit = fisher.trace() / params if damping_mode == "trace" else 1.0
    shifts = [float(damping) * unit for damping in path]
    chosen = choose_for_path(fisher, solver, shifts)
    solve = getattr(chosen, "solve_path", None)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows shows in the solutions
        if solve is None:
            found = one_by_one(chosen, fisher, given, shifts, threads)
        else:
            found = solve(fisher, given, shifts, threads=threads)
    if check_finite:
        found = [
            outcome if isinstance(outcome, FisherError) else kept(fisher, outcome)
            for outcome in found
        ]
    for place, outcome in enumerate(found):
        if isinstance(outcome, FisherError) and on_failure == "raise":
            if isinstance(outcome.solution, Solution):
                last = outcome.solution
                outcome.solution = replace(last, value=last.value.reshape(shape))
            outcome.args = (f"dampings: at place {place}, damping {shifts[place]:.3g}. {outcome}",)
            raise outcome
    path_solution = _joined(ops.xp, found, shifts, columns, shape)
    return replace(path_solution, value=fold(path_solution.value))


def _joined(
    xp: Any, found: list[Outcome], shifts: list[float], rhs: Any, shape: tuple[int, ...]
) -> PathSolution:
    """Return the path of the outcomes; those that failed are NaN."""
    nothing = xp.full_like(rhs, xp.nan)
    solutions = [
        unsolved(outcome, nothing, shift) if isinstance(outcome, FisherError) else outcome
        for outcome, shift in zip(found, shifts, strict=True)
    ]

    def numbers(name: str) -> Any:
        given = [getattr(solution, name) for solution in solutions]
        return np.asarray([math.nan if x is None else x for x in given], dtype="float64")

    return PathSolution(
        value=xp.stack([solution.value.reshape(shape) for solution in solutions]),
        status=np.asarray([int(solution.status) for solution in solutions]),
        residual=numbers("residual"),
        damping_used=np.asarray(shifts, dtype="float64"),
        methods=tuple(solution.method for solution in solutions),
        iterations=np.asarray([solution.iterations for solution in solutions]),
        rcond=numbers("rcond"),
        rank=numbers("rank"),
        messages=tuple(solution.message for solution in solutions),
    )
