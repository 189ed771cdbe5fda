"""Shifted conjugate gradients on a device: one Krylov space for a whole path of dampings."""

from collections.abc import Callable

from fastfisher._ops.engine import Array, Engine

__all__ = ["shifted_conjugate_gradients"]


def shifted_conjugate_gradients(
    engine: Engine,
    apply: Callable[[Array], Array],
    shifts: list[float],
    rhs: Array,
    rtol: float,
    atol: float,
    max_iterations: int,
) -> tuple[Array, Array, Array, Array]:
    """Solve apply(x) + shift · x = rhs for every shift, x (p, m·k)."""
    raise NotImplementedError
