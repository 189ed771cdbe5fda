"""The randomised Nyström approximation of F, from its products with vectors alone."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from fastfisher import _check, _memory
from fastfisher._ops.conjugates import hermitian_part, squares
from fastfisher.errors import NonFiniteError

__all__ = ["nystrom"]


def nystrom(
    ops: ModuleType,
    product: Callable[[Any], Any],
    params: int,
    dtype: Any,
    rank: int,
    rng: Any,
    *,
    power_iterations: int = 0,
    name: str = "Nystrom",
) -> tuple[Any, Any]:
    """Return U (p, r) and Λ (r,), largest first, in double, with F ⪰ U Λ Uᴴ to rounding.

    U Λ Uᴴ = Y (ΩᴴY)⁻¹ Yᴴ with Y = F Ω and Ω an orthonormal basis of random vectors, or of
    F^q times them after q `power_iterations`: algorithm 2.1 of Frangella, Tropp and Udell,
    "Randomized Nyström preconditioning", SIAM J. Matrix Anal. Appl. 44 (2023) 718. Where F is zero
    there are no columns.
    """
    xp = ops.xp
    if rank > params:
        raise ValueError(
            f"rank: expected at most p = {params}, got {rank}. F has no more eigenvalues."
        )
    wide = np.result_type(dtype, np.float64)
    _memory.guard(6 * wide.itemsize * params * rank, name, "Use a smaller rank.", ops)
    generator = _check.generator(rng)
    normal = generator.standard_normal((params, rank))
    if wide.kind == "c":
        normal = normal + 1j * generator.standard_normal((params, rank))
    normal = ops.from_host(normal)
    for _ in range(power_iterations):
        start, _ = xp.linalg.qr(normal)
        normal = _finite(product(start.astype(dtype)).astype(wide))[0]
    start, _ = xp.linalg.qr(normal)
    start = start.astype(dtype)
    Y, size = _finite(product(start).astype(wide))
    if size == 0.0:
        return Y[:, :0], xp.zeros(0, dtype=np.float64)
    # F + νI, with ν above the rounding of Y, has eigenvalues of at least ν in any basis.
    nu = math.sqrt(params) * float(np.finfo(dtype).eps) * size
    Y += nu * start
    values, Q = ops.eigh(hermitian_part(start.conj().T @ Y))
    U, singular, _ = xp.linalg.svd(Y @ (Q / xp.sqrt(xp.maximum(values, nu))), full_matrices=False)
    return U, xp.maximum(singular**2 - nu, 0.0)


def _finite(Y: Any) -> tuple[Any, float]:
    """Return Y and its norm, which is finite."""
    size = math.sqrt(float(squares(Y).sum()))
    if not math.isfinite(size):
        raise NonFiniteError(
            f"fisher: expected finite products, got a norm of {size}. Look for overflow."
        )
    return Y, size
