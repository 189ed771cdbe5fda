"""Information is positive semi-definite: refuses quadratic forms that are negative."""

import math
from typing import Any

import numpy as np

from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.fisher.operator import OperatorFisher
from fastfisher.fisher.protocol import Fisher

__all__ = ["semidefinite"]


def semidefinite(F: Fisher, V: Any, forms: Any) -> None:
    """Raise if the form v* F v of v (p,), or one of those of the columns (p, k), is negative.

    Rounding may be. Products alone are trusted: they have no diagonal to tell rounding by.
    """
    least = float(np.min(forms, initial=0.0))
    if least >= 0.0 or isinstance(F, OperatorFisher):
        return
    # |v* F v| ≤ (Σ |vᵢ| √Fᵢᵢ)² of semi-definite F. What lies below half of its digits is rounding:
    # the sums in F have errors of n·eps, and how many samples n a matrix is made of is not known.
    with np.errstate(over="ignore"):
        bound = (abs(F.diagonal()) ** 0.5 @ abs(V)) ** 2
    if bool((forms < -math.sqrt(np.finfo(F.dtype).eps) * bound).any()):
        raise NotPositiveDefiniteError(
            f"fisher: expected information, with v* F v that is not negative, got {least:.3g}. "
            "Look for a sign, or take the expected information instead of the observed.",
            value=least,
        )
