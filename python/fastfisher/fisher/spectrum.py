"""Powers of the eigenvalues of a positive semi-definite matrix, with the cut-off stated once."""

from typing import Any

import numpy as np

from fastfisher.errors import NonFiniteError, NotPositiveDefiniteError

__all__ = ["all_positive", "cutoff", "eigenvalue_powers", "signed", "smooth_inverse"]


def all_positive(shift: Any) -> bool:
    """Tell whether a damping, one number or an array of them, is positive throughout."""
    return shift > 0 if isinstance(shift, float) else bool((shift > 0).all())


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


def smooth_inverse(xp: Any, values: Any, rtol: float, rtol_smooth: float) -> tuple[Any, Any]:
    """Return f(w) = 1 / (w (1 + (s/w)⁶)) with s = rtol_smooth · w_max, and which w count.

    It is 0 up to rtol · w_max, or to the rounding of eigenvalues if that is more. Those count that
    are not cut off, and of whose inverse at least half is left: w ≥ s. After M. Schmitt and
    M. Heyl, Phys. Rev. Lett. 125 (2020) 100503.
    """
    limit = cutoff(values, values.shape[0])
    largest = float(values.max())
    kept = values > max(rtol * largest, limit)
    safe = xp.where(kept, values, 1.0)
    smooth = rtol_smooth * largest
    f = xp.where(kept, 1.0 / (safe * (1.0 + (smooth / safe) ** 6)), 0.0).astype(values.dtype)
    return f, kept & (values >= smooth)


def signed(xp: Any, vectors: Any) -> Any:
    """Return the columns with their largest entry positive, so that they are the same each time."""
    rows = abs(vectors).argmax(axis=0)
    largest = vectors[rows, xp.arange(vectors.shape[1])]
    return vectors * (abs(largest) / largest)
