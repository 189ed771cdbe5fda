"""What fastfisher raises; each error says where, what was found, and what would do."""

from typing import Any

import numpy as np

__all__ = [
    "ConvergenceError",
    "FileFormatError",
    "FisherError",
    "MemoryLimitError",
    "NonFiniteError",
    "NotPositiveDefiniteError",
]


class FisherError(Exception):
    """Base of the errors that numbers cause, as opposed to arguments of the wrong kind or shape.

    Arguments of the wrong type or shape raise Python's own ``TypeError`` and ``ValueError``.

    Attributes
    ----------
    solution : Solution or None
        Where an iteration failed: its last iterate, true residual and status.

    Examples
    --------
    >>> import fastfisher as ff
    >>> issubclass(ff.NotPositiveDefiniteError, ff.FisherError)
    True
    >>> import numpy as np
    >>> scores = ff.ScoreFisher(np.random.default_rng(0).standard_normal((50, 20)))
    >>> try:
    ...     ff.solve(scores, np.ones(20), solver=ff.CG(max_iterations=2))
    ... except ff.FisherError as error:
    ...     print(error.solution.status.name, error.solution.iterations)
    MAX_ITERATIONS 2
    """

    solution: Any = None


class NotPositiveDefiniteError(FisherError, np.linalg.LinAlgError):
    """The damped Fisher is not positive definite, or numerically singular.

    A pivot counts as zero when it is no larger than ``p * eps`` times its diagonal entry: what is
    left of it then is rounding.

    Attributes
    ----------
    pivot : int or None
        Index of the first parameter whose pivot failed; None when no single one is to blame.
    value : float or None
        The pivot (Cholesky) or the curvature (conjugate gradients) that was found.
    damping : float or None
        Damping to add to every diagonal entry, on top of what was there, that would do.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> try:
    ...     ff.solve(np.diag([1.0, 0.0]), np.ones(2))
    ... except ff.NotPositiveDefiniteError as error:
    ...     print(error.pivot, error.value)
    1 0.0
    >>> print(ff.NotPositiveDefiniteError("F is singular.").with_damping(1e-3))
    F is singular. Adding 0.001 to the damping would do.
    """

    def __init__(
        self,
        message: str,
        *,
        pivot: int | None = None,
        value: float | None = None,
        damping: float | None = None,
    ) -> None:
        super().__init__(message)
        self.pivot = pivot
        self.value = value
        self.damping = damping

    def with_damping(self, damping: float) -> "NotPositiveDefiniteError":
        """Return the same error, saying which damping would do."""
        message = f"{self} Adding {damping:.3g} to the damping would do."
        return NotPositiveDefiniteError(
            message, pivot=self.pivot, value=self.value, damping=damping
        )


class NonFiniteError(FisherError, ValueError):
    """An input, or a result, holds NaN or infinity.

    Attributes
    ----------
    row, column : int or None
        Where the first one stands.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> try:
    ...     ff.empirical_fisher([[1.0, 2.0], [np.nan, 3.0]])
    ... except ff.NonFiniteError as error:
    ...     print(error.row, error.column)
    1 0
    """

    def __init__(self, message: str, *, row: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.row = row
        self.column = column


class ConvergenceError(FisherError):
    """An iteration ended without reaching its tolerance; `solution` has how far it came.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = np.diag(np.logspace(0, 3, 50))
    >>> try:
    ...     ff.solve(F, np.ones(50), solver=ff.CG(max_iterations=2, preconditioner=None))
    ... except ff.ConvergenceError as error:
    ...     print(error.solution.status.name)
    MAX_ITERATIONS
    """


class MemoryLimitError(FisherError, MemoryError):
    """An array of p² or n² numbers would not fit in the memory that is left.

    Examples
    --------
    >>> import fastfisher as ff
    >>> try:
    ...     ff.DenseFisher(10_000_000)
    ... except ff.MemoryLimitError as error:
    ...     print(str(error).split(",")[0])
    DenseFisher: expected at most the memory that is left
    """


class FileFormatError(FisherError, ValueError):
    """A file is not one that ``save`` wrote, is damaged, or is from a newer version.

    Examples
    --------
    >>> import fastfisher as ff
    >>> issubclass(ff.FileFormatError, ValueError)
    True
    """
