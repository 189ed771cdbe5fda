"""Preconditioned conjugate gradients on a device: all columns in step, their states there too."""

from collections.abc import Callable

from fastfisher._ops.engine import Array, Engine

__all__ = ["conjugate_gradients"]


def conjugate_gradients(
    engine: Engine,
    apply: Callable[[Array], Array],
    precondition: Callable[[Array], Array] | None,
    rhs: Array,
    rtol: float,
    atol: float,
    max_iterations: int,
) -> tuple[Array, Array, Array, Array]:
    """Solve apply(x) = rhs; return x, and status, iterations and true residual per column."""
    raise NotImplementedError
