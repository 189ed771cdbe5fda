"""Names of types in the verbs: arrays of any library and of NumPy, dtypes, pairs, outcomes."""

from typing import Any

import numpy as np

__all__ = ["Array", "CGOutcome", "DType", "NumpyArray", "Pair"]

Array = Any
NumpyArray = np.ndarray[Any, np.dtype[Any]]
DType = np.dtype[Any]
# Down and across; rows and columns.
Pair = tuple[int, int]
# Of conjugate gradients: x (p, k), and NumPy's status, iterations and true residual per column.
CGOutcome = tuple[Array, Any, Any, Any]
