"""Mixed precision: factor in float32, then refine x in float64 until it is as good as float64's.

A complex128 matrix is factored as complex64; what is said of float32 is said of its parts.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastfisher.errors import FisherError
from fastfisher.solvers.solution import Solution, Status

if TYPE_CHECKING:
    from fastfisher.fisher.protocol import Fisher

__all__ = ["solve_mixed"]

# LAPACK's dsposv takes as many before it gives up; what converges here does so in 2 to 6.
_MOST_STEPS = 30
# Refinement gains digits while κ₂ · p · eps32 is small, but what is estimated is κ₁, up to √p times
# κ₂ (at p = 4000 scores of independent normals have κ₁ = 2300 where κ₂ = 34). Where this lets too
# much pass, the residual says so after one step.
_MARGIN = 8.0
# The least unit of a residual: NumPy divides complex numbers by way of the inverse.
_SMALLEST = float(np.finfo(np.float64).tiny)


def solve_mixed(
    fisher: "Fisher", triangle: Any, scale: float, rhs: Any, shift: Any, threads: int
) -> Solution | str:
    """Return the Solution of (scale · T + shift) x = rhs, or in words why float32 will not do.

    A step is r = g − A x in float64 and x ← x + (L Lᵀ)⁻¹ r with the float32 factor L; each gains
    about log10(rcond / eps32) digits. It ends by LAPACK's criterion for every column,
    max|r| ≤ max|x| · ‖A‖₁ · eps/2 · √p, which is that of a backward stable float64 solve.

    References
    ----------
    J. Langou et al., "Exploiting the performance of 32 bit floating point arithmetic in obtaining
    64 bit accuracy", SC '06 (2006).
    """
    xp, params = fisher._ops.xp, fisher.shape[0]
    largest = float((scale * triangle.diagonal() + shift).max())
    if not 0.0 < largest < math.inf:
        return "no positive diagonal"
    # Brings A into the range of float32; 2^1023 is the largest power of two.
    unit = math.ldexp(1.0, min(-math.frexp(largest)[1], 1023))
    if not 0.0 < unit * scale < math.inf:
        return "a scale out of range"
    with np.errstate(all="ignore"):  # what leaves the range shows in the residual
        try:
            narrow = triangle.narrowed(scale * unit, threads)
            factor = narrow.cholesky(1.0, shift * unit, threads=threads)
        except FisherError:
            return "no float32 factor"
        rcond = factor.rcond(threads)
        if not rcond > _MARGIN * math.sqrt(params) * float(np.finfo(np.float32).eps):
            return f"rcond {rcond:.2g} in float32"
        size = factor.norm / unit * math.sqrt(params) * float(np.finfo(np.float64).eps) / 2
        x, r = xp.zeros_like(rhs), rhs
        for step in range(_MOST_STEPS):
            most = xp.maximum(abs(r).max(axis=0), _SMALLEST)
            x = x + factor.solve((r / most).astype(factor.dtype), threads) * (unit * most)
            product = triangle.product(x, scale, threads) + fisher._times(shift, x)
            r = rhs - product
            left = abs(r).max(axis=0)
            short = ~(left <= abs(x).max(axis=0) * size)
            if not bool(short.any()):
                return Solution(
                    value=x,
                    status=Status.SUCCESS,
                    residual=fisher._ops.worst_residual(rhs, product),
                    damping_used=shift,
                    method="cholesky-mixed",
                    iterations=step,
                    rcond=rcond,
                )
            if not bool((left < most / 2)[short].all()):
                return "refinement stopped gaining digits"
    return f"refinement took more than {_MOST_STEPS} steps"
