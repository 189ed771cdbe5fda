"""OperatorFisher: F of which only products F v are known, from a function or a linear operator."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops import for_dtype, ops_of
from fastfisher._ops.conjugates import hermitian_part
from fastfisher.fisher.protocol import Fisher
from fastfisher.solvers.cg import CG

__all__ = ["OperatorFisher", "is_operator"]


def is_operator(value: Any) -> bool:
    """Tell whether this is no array, but has a shape and products: SciPy's operators do."""
    arrays = ("__array__", "__array_interface__", "__dlpack__")
    return (
        hasattr(value, "shape")
        and hasattr(value, "__matmul__")
        and not any(hasattr(value, word) for word in arrays)
    )


class OperatorFisher(Fisher):
    """F by its products; ``as_fisher`` makes it of what is given for a Fisher.

    Solves are by conjugate gradients without a preconditioner. Whatever needs the matrix itself
    (a factor, ``to_dense``) takes p products; what needs the diagonal is refused, since it would
    take as many, unasked.

    Parameters
    ----------
    product : callable
        Maps v (p,) to F v (p,). F is taken as it is given: total information, like a matrix.
    n_params : int
        p.
    dtype : dtype
        Of vectors.
    like : array, optional
        An array of the kind that vectors are.
    """

    _own_solver = CG(preconditioner=None)

    def __init__(
        self, product: Callable[[Any], Any], n_params: int, dtype: Any, *, like: Any = None
    ) -> None:
        self._dtype = _check.native_dtype("fisher", dtype)
        self._ops = for_dtype(ops_of(like), self._dtype)
        self._apply = product
        self._params = _check.count("n_params", n_params, 1)
        self._center, self._reduction = False, "sum"
        self._weight_sum, self._n_samples = 1.0, 1

    @classmethod
    def from_operator(cls, operator: Any) -> "OperatorFisher":
        """Take whatever has a square shape and ``operator @ v``."""
        shape = tuple(operator.shape)
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(
                f"fisher: expected a square operator (p, p), got shape {shape}. "
                "It maps steps of the p parameters to gradients."
            )
        dtype = getattr(operator, "dtype", None)
        return cls(operator.__matmul__, shape[0], np.dtype(np.float64) if dtype is None else dtype)

    def _product(self, V: Any, threads: int) -> Any:  # noqa: ARG002
        out = self._ops.empty(V.shape, self._dtype)
        for j in range(V.shape[1]):
            # A copy, which the function may work in.
            column = self._ops.to_vector("fisher", self._apply(V[:, j].copy()), self._dtype)
            if column.shape != (self._params,):
                raise ValueError(
                    f"fisher: expected a product of shape ({self._params},), got {column.shape}. "
                    "It maps a vector to one of the same length."
                )
            out[:, j] = column
        return out

    def diagonal(self) -> Any:
        """Raise: only products are known."""
        raise TypeError(
            "fisher: expected a representation that knows its diagonal, got products alone. "
            "Write CG(preconditioner=None), and give damping as it is to be added."
        )

    def to_dense(self) -> Any:
        """Return F as a full symmetric array (p, p), by p products."""
        self._guard_matrix(copies=2)
        return hermitian_part(self._product(self._ops.xp.eye(self._params, dtype=self._dtype), 0))

    def _matrix_triangle(self, threads: int) -> tuple[Any, float]:
        return self._ops.Triangle.from_dense(self.to_dense(), threads=threads), 1.0

    def _eigenvalue_bound(self) -> float:
        return 1.0  # none is known: ladders of dampings begin at eps

    def _state(self) -> dict[str, Any]:
        raise TypeError(
            "fisher: expected a representation made of arrays, got a function. It cannot be saved "
            "or pickled: F.to_dense() can."
        )

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> "Fisher":  # noqa: ARG003
        raise TypeError(f"{cls.__name__}: expected nothing, got a state. It is never saved.")
