"""One call for a whole path of dampings."""

from typing import Any

from fastfisher import _check
from fastfisher._ops.border import takes_tensors
from fastfisher.functions import as_fisher
from fastfisher.solvers.path import PathSolution, solve_path_system

__all__ = ["solve_path"]


@takes_tensors
def solve_path(
    fisher: Any,
    rhs: Any,
    dampings: Any,
    *,
    damping_mode: str = "absolute",
    solver: Any = "auto",
    on_failure: str = "raise",
    check_finite: bool = True,
    n_threads: int | None = None,
) -> PathSolution:
    """Solve (F + λI) x = rhs for every damping λ of a path, sharing what can be shared.

    Equivalent to ``np.stack([np.linalg.solve(F + λ * np.eye(p), rhs) for λ in dampings])``.

    Parameters
    ----------
    fisher : Fisher or array (p, p)
        Any representation, or a symmetric or Hermitian matrix, of which only the lower triangle is
        read.
    rhs : array (p,) or (p, k), or None
        One right-hand side or several as columns. None means the mean score of a `ScoreFisher`, for
        which ``Dual()`` and ``Eigh()`` have a formula that loses no digits, as `natural_gradient`.
    dampings : array (m,), m ≥ 1
        Finite and not negative, in any order.
    damping_mode : {"absolute", "trace"}
        λ, or λ tr(F) / p.
    solver : "auto" or a solver
        ``Cholesky()`` sums F once and factors it for each λ; ``Dual()`` does so with the Gram
        matrix of the scores; ``QR()`` factors the scores once and absorbs each λ; ``Eigh()``
        decomposes once for all; ``CG(preconditioner=None)`` builds one Krylov space for all. Any
        other solver is asked once per λ. "auto" is the first or the second (``QR()`` for a
        `SquareRootFisher`), ``Eigh()`` from 100 dampings on, and CG where the matrix would be too
        large.
    on_failure : {"raise", "nan"}
        Raise at the first λ that cannot be solved, or give NaN and a status there. No λ disturbs
        another.
    check_finite : bool
        Raise on NaN and infinity in the right-hand side.
    n_threads : int, optional
        For this call.

    Returns
    -------
    PathSolution
        ``.value`` (m, p) or (m, p, k), and status, residual and condition per damping.

    Raises
    ------
    NotPositiveDefiniteError, ConvergenceError
        Names the first damping that failed.
    NonFiniteError, MemoryLimitError, TypeError, ValueError

    Notes
    -----
    Past the shared part, each damping costs p³/3 multiplications by Cholesky, p² by Eigh (2np and
    n² where n < p), and 4p per iteration by CG. Residuals are true ones for every damping.

    References
    ----------
    A. Frommer and P. Maass, "Fast CG-based methods for Tikhonov-Phillips regularization", SIAM J.
    Sci. Comput. 20 (1999) 1831.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> path = ff.solve_path(np.ones((2, 2)), np.ones(2), [0.0, 1.0, 2.0], on_failure="nan")
    >>> path.value.round(3)
    array([[  nan,   nan],
           [0.333, 0.333],
           [0.25 , 0.25 ]])
    >>> [solution.status.name for solution in path]
    ['NOT_POSITIVE_DEFINITE', 'SUCCESS', 'SUCCESS']
    """
    return solve_path_system(
        as_fisher(fisher, n_threads),
        rhs,
        dampings,
        damping_mode=damping_mode,
        solver=solver,
        on_failure=on_failure,
        check_finite=_check.flag("check_finite", check_finite),
        threads=_check.threads(n_threads),
    )
