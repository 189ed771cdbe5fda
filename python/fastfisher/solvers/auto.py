"""The automatic choice of a solver, from shapes alone, so that it is the same on every machine."""

from typing import TYPE_CHECKING, Any

from fastfisher.solvers.cg import CG
from fastfisher.solvers.cholesky import Cholesky
from fastfisher.solvers.dual import Dual
from fastfisher.solvers.eigh import Eigh

if TYPE_CHECKING:
    from fastfisher.fisher.protocol import Fisher

__all__ = ["DIRECT_LIMIT", "choose", "choose_for_factor", "choose_for_path"]

# The largest matrix that "auto" factors: half of 16384² float64 numbers are 1 GiB.
DIRECT_LIMIT = 16384
# Dampings from which one eigendecomposition (NumPy's) is faster than one factorisation each: it
# took as long as 70 to 75 of them at p = 300, 1000 and 2000 (two cores of Zen 4).
EIGH_PAYS = 100


def choose(fisher: "Fisher", solver: Any = "auto", shift: Any = 0.0) -> Any:
    """Return `solver`, or for ``"auto"`` the one that suits the shape of `fisher` and the damping.

    Dual where F holds n < p scores, Cholesky otherwise, and CG where the matrix to factor would
    have more than `DIRECT_LIMIT` rows: of a block-diagonal F the largest block.
    """
    if solver == "auto":
        if fisher._own_solver is not None:
            return fisher._own_solver
        rows = fisher._scores_held
        if rows is not None and rows < fisher.shape[0]:
            return Dual() if rows <= DIRECT_LIMIT else CG()
        return Cholesky() if fisher._rows_to_factor(shift) <= DIRECT_LIMIT else CG()
    if not hasattr(solver, "solve"):
        got = repr(solver) if isinstance(solver, str) else type(solver).__name__
        raise TypeError(
            f"solver: expected 'auto' or a solver such as Cholesky(), CG() or Dual(), got {got}. "
            "Solvers are values: write CG(), not 'cg' or CG."
        )
    if isinstance(solver, type):
        raise TypeError(
            f"solver: expected a value, got the class {solver.__name__}. Write {solver.__name__}()."
        )
    return solver


def choose_for_path(fisher: "Fisher", solver: Any, shifts: list[float]) -> Any:
    """Return `solver`, or for ``"auto"`` the one that suits a path of dampings.

    As `choose`, but an eigendecomposition from `EIGH_PAYS` dampings on, and past `DIRECT_LIMIT`
    conjugate gradients in one Krylov space, which takes no preconditioner.
    """
    chosen = choose(fisher, solver, max(shifts, default=0.0))
    if solver != "auto":
        return chosen
    if fisher._own_path_solver is not None:
        return fisher._own_path_solver
    if fisher._own_solver is not None:
        return chosen
    if isinstance(chosen, CG):
        return CG(preconditioner=None)
    return Eigh() if len(shifts) >= EIGH_PAYS and not fisher._composition else chosen


def choose_for_factor(fisher: "Fisher", solver: Any) -> Any:
    """Return `solver`, which must leave a factor behind, or for ``"auto"`` a direct one."""
    if solver == "auto":
        if hasattr(fisher._own_solver, "factor"):
            return fisher._own_solver
        rows = fisher._scores_held
        return Dual() if rows is not None and rows < fisher.shape[0] else Cholesky()
    chosen = choose(fisher, solver)
    if not hasattr(chosen, "factor"):
        raise TypeError(
            f"solver: expected 'auto', Cholesky(), Dual() or QR() for a factor, got {chosen!r}. "
            "It leaves nothing to solve with again: use F.solve or F.solve_path."
        )
    return chosen
