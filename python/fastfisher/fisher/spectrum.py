"""Powers of the eigenvalues of a positive semi-definite matrix, with the cut-off stated once."""

from typing import Any

import numpy as np

from fastfisher.errors import NonFiniteError, NotPositiveDefiniteError

__all__ = ["cutoff", "eigenvalue_powers", "signed", "squares"]


def squares(X: Any) -> Any:
    """Return |x|² of each entry, real."""
    return X.real * X.real + X.imag * X.imag if X.dtype.kind == "c" else X * X


def cutoff(values: Any, size: int) -> float:
    """Return size · eps · max|λ|: eigenvalues no larger are rounding."""
    largest = float(abs(values).max()) if values.shape[0] else 0.0
    if not np.isfinite(largest):
        raise NonFiniteError(
            f"fisher: expected finite eigenvalues, got {largest}. Look for overflow in the scores."
        )
    return size * float(np.finfo(values.dtype).eps) * largest


def eigenvalue_powers(xp: Any, values: Any, power: float, truncate: bool) -> tuple[Any, int]:
    """Return λ ** power, and how many eigenvalues are above the cut-off.

    `truncate` gives 0 for those that are not (negative ones too). Otherwise they raise
    `NotPositiveDefiniteError` where the power needs positive numbers.
    """
    least = float(values.min())
    limit = cutoff(values, values.shape[0])
    kept = values > limit
    rank = int(kept.sum())
    if truncate:
        return xp.where(kept, xp.where(kept, values, 1.0) ** power, 0.0), rank
    if (power < 0 and least <= limit) or (power % 1 != 0 and least < -limit):
        raise NotPositiveDefiniteError(
            f"fisher: expected a positive definite F + damping for the power {power}, got the "
            f"eigenvalue {least:.3g}. Add damping.",
            value=least,
        )
    if power % 1 != 0:
        values = xp.maximum(values, 0.0)
    return values**power, rank


def signed(xp: Any, vectors: Any) -> Any:
    """Return the columns with their largest entry positive, so that they are the same each time."""
    rows = abs(vectors).argmax(axis=0)
    largest = vectors[rows, xp.arange(vectors.shape[1])]
    return vectors * (abs(largest) / largest)
