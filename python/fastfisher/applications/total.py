"""Total information: what all samples say together, of a Fisher or a plain matrix."""

from typing import Any

from fastfisher.fisher.protocol import Fisher
from fastfisher.functions import as_fisher

__all__ = ["as_total"]


def as_total(fisher: Any) -> tuple[Fisher, float]:
    """Return F and c with c F the total information: nothing is copied or formed.

    A mean-reduced Fisher contributes its weight sum times F, one of sums itself; a plain matrix is
    taken as total, and its lower triangle is read. Then (c F)⁻¹ g is ``F.factor().solve(g) / c``.
    """
    F = as_fisher(fisher)
    return F, 1.0 if F.reduction == "sum" else F.weight_sum
