"""A metric as people give it: a representation, a matrix, an operator, or a function of vectors."""

from typing import Any

import numpy as np

from fastfisher.fisher.operator import OperatorFisher
from fastfisher.fisher.protocol import Fisher
from fastfisher.functions import as_fisher

__all__ = ["as_metric"]


def as_metric(fisher: Any, grad: Any) -> Fisher:
    """Return a representation; of a function of vectors, the operator on vectors like `grad`."""
    if isinstance(fisher, Fisher) or hasattr(fisher, "shape") or not callable(fisher):
        return as_fisher(fisher)
    dtype = grad.dtype if hasattr(grad, "dtype") else np.asarray(grad).dtype
    kept = dtype if dtype.kind in "fc" else np.float64
    return OperatorFisher(fisher, np.size(grad), kept, like=grad)
