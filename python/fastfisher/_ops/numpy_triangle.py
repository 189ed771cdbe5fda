"""The panel triangle: a symmetric matrix held by its lower half, and its Cholesky factor."""

from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._native import core
from fastfisher._ops.types import NumpyArray as Array

__all__ = ["Factor", "Triangle"]

# No machine holds a matrix of so many rows, and below it the core's integers do not overflow.
LARGEST = 2**30
# One row of a panel, in bytes, on every machine.
PANEL_BYTES = 192

# Parameters and samples from which Strassen's products are used where they are asked for. Sums of
# blocks are read at the latency of memory: with 2048 here, 4096 × 4096 takes 1.10 of the classical
# time, with 4096 1.08; 8192 × 8192 takes 1.07 in float64 and 1.04 in float32 (two threads of
# Granite Rapids).
STRASSEN_LEAST = 4096


def bits(scores: Array) -> Array:
    """Return scores as the core takes them: NumPy knows no bfloat16, so those as their bits."""
    return scores.view(np.uint16) if scores.dtype.kind == "V" else scores


class Triangle:
    """A symmetric p × p matrix, zero at first, in half the memory.

    The entries lie in the order in which the native engine writes and reads them, so sums of
    matrices are sums of `panels`. What that order is only the core knows.
    """

    __slots__ = ("panels", "size")

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        self.size = size
        self.panels: Array = core.triangle_zeros(size, dtype.itemsize)

    @staticmethod
    def length(size: int, dtype: np.dtype[Any]) -> int:
        """Return how many numbers a triangle of this size holds."""
        if size > LARGEST:
            raise ValueError(
                f"n_params: expected at most {LARGEST}, got {size}. No machine holds such a matrix."
            )
        return core.triangle_size(size, dtype.itemsize)

    @staticmethod
    def bytes_for(size: int, dtype: np.dtype[Any]) -> int:
        """Return the bytes that a triangle of this size takes, p²/2 for the largest."""
        half = size * size // 2 * dtype.itemsize
        return half if size > LARGEST else core.triangle_size(size, dtype.itemsize) * dtype.itemsize

    @staticmethod
    def bytes_to_sum(samples: int, size: int, dtype: np.dtype[Any], *, dense: bool = False) -> int:
        """Return the bytes of a triangle and of adding scores to it, or if more of `to_dense`."""
        scratch = Triangle.scratch_bytes(samples, size, dtype)
        after = size * size * dtype.itemsize if dense else 0
        return Triangle.bytes_for(size, dtype) + max(scratch, after)

    @staticmethod
    def scratch_bytes(samples: int, size: int, dtype: np.dtype[Any]) -> int:
        """Return the bytes that `add_scores` takes beside the triangle, nearly.

        Of tall scores each slab of rows is summed in a triangle of its own; other scores are
        packed in two buffers, p/8 rows each, between 256 and 1024. See ``symmetric.cpp``.
        """
        if samples == 0:
            return 0
        panels = -(-size * dtype.itemsize // PANEL_BYTES)
        if samples >= 8 * size and panels <= 48:
            slabs = min(max(samples // (16 * size), 8), 64)
            return slabs * Triangle.bytes_for(size, dtype)
        rows = min(max(size // 8 // 256 * 256, 256), 1024, samples)
        return 2 * rows * panels * PANEL_BYTES

    @classmethod
    def from_dense(cls, matrix: Array, threads: int = 0) -> "Triangle":
        """Take over the lower half of `matrix` (p, p)."""
        triangle = cls(matrix.shape[0], matrix.dtype)
        triangle.set_dense(matrix, threads)
        return triangle

    def set_dense(self, matrix: Array, threads: int = 0) -> None:
        """Become the lower half of `matrix` (p, p); an error leaves neither."""
        report = core.triangle_from_dense(matrix, self.panels, threads)
        _check.finite_report(report, "matrix")

    @classmethod
    def from_panels(cls, size: int, panels: Array) -> "Triangle":
        """Take over the panels of another triangle, copied."""
        triangle = cls(size, panels.dtype)
        triangle.panels[...] = panels
        return triangle

    def copy(self) -> "Triangle":
        """Return a triangle of its own."""
        triangle = object.__new__(Triangle)
        triangle.size, triangle.panels = self.size, core.triangle_copy(self.panels, 0)
        return triangle

    def add_scores(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        *,
        fresh: bool,
        check_finite: bool,
        threads: int,
    ) -> None:
        """Add Σ w (s − m)(s − m)ᵀ. `fresh` says the triangle is zero; an error then spoils it."""
        report = core.accumulate(
            bits(scores), weights, mean, self.panels, fresh, check_finite, threads
        )
        if report[0]:
            _check.finite_report(report, "scores")

    def add_scores_fast(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        *,
        check_finite: bool,
        threads: int,
    ) -> None:
        """Add as `add_scores` to a zero triangle of real numbers, by Strassen's products."""
        report = core.accumulate_fast(
            bits(scores), weights, mean, self.panels, STRASSEN_LEAST, check_finite, threads
        )
        _check.finite_report(report, "scores")

    def add_centred_scores(
        self,
        scores: Array,
        weights: Array | None,
        *,
        fresh: bool,
        check_finite: bool,
        threads: int,
    ) -> Array:
        """Add Σ w (s − m)(s − m)ᵀ about their own mean m, and return m; else as `add_scores`."""
        mean = np.empty(self.size, self.panels.dtype)
        report = core.accumulate_centred(
            bits(scores), weights, mean, self.panels, fresh, check_finite, threads
        )
        _check.finite_report(report, "scores")
        return mean

    def set_gram(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        check_finite: bool,
        threads: int,
    ) -> None:
        """Turn a zero triangle (n × n) into W½ (S − 1mᵀ)(S − 1mᵀ)ᵀ W½."""
        report = core.gram(bits(scores), weights, mean, self.panels, check_finite, threads)
        _check.finite_report(report, "scores")

    def add(self, other: "Triangle") -> None:
        """Add another triangle of the same size."""
        self.panels += other.panels

    def scale(self, factor: float) -> None:
        """Multiply every entry."""
        self.panels *= factor

    def add_outer(self, x: Array, alpha: float, threads: int = 0) -> None:
        """Add alpha · x xᵀ."""
        core.triangle_add_outer(self.panels, x, alpha, threads)

    def to_dense(self, scale: float, out: Array | None = None, threads: int = 0) -> Array:
        """Return scale times the full symmetric matrix, in `out` if given."""
        if out is None:
            out = np.empty((self.size, self.size), self.panels.dtype)
        core.triangle_to_dense(self.panels, scale, out, threads)
        return out

    def block(self, start: int, stop: int) -> "Triangle":
        """Return the diagonal block of some rows, a triangle of its own."""
        out = np.empty((stop - start, stop - start), self.panels.dtype)
        core.triangle_block(self.panels, self.size, start, 1.0, out)
        return Triangle.from_dense(out)

    def narrowed(self, scale: float, threads: int = 0) -> "Triangle":
        """Return scale times a float64 triangle, rounded to float32."""
        out = Triangle(self.size, np.dtype(np.float32))
        core.triangle_narrow(self.panels, self.size, scale, out.panels, threads)
        return out

    def product(self, V: Array, scale: float, threads: int = 0) -> Array:
        """Return scale · T V for V of shape (p, k)."""
        out = np.empty(V.shape, V.dtype)
        core.triangle_product(self.panels, V, scale, 0.0, out, threads)
        return out

    def diagonal(self) -> Array:
        """Return the diagonal, (p,)."""
        return core.triangle_diagonal(self.panels, self.size)

    def norm1(self, threads: int = 0) -> float:
        """Return the largest column sum of absolute values."""
        return core.triangle_norm1(self.panels, self.size, threads)

    def cholesky(
        self,
        scale: float,
        shift: float | Array,
        *,
        threads: int = 0,
        with_norm: bool = True,
        parts: int = 1,
    ) -> "Factor":
        """Factor scale · T + diag(shift) in place: the triangle is used up, also by a failure.

        `with_norm` reads the matrix once more beforehand, which `Factor.rcond` needs. `parts` rows
        make a parameter, the number by which a failure names its place.
        """
        p, panels = self.size, self.panels
        diagonal = np.empty(p, panels.dtype)
        diagonal[...] = shift
        norm = np.nan
        if with_norm:
            # ‖scale·T + D‖₁ ≤ scale·‖T‖₁ + max D, with equality where the damping is one number.
            norm = scale * self.norm1(threads) + float(diagonal.max())
        tolerance = p * float(np.finfo(panels.dtype).eps)
        report = core.cholesky(panels, p, scale, diagonal, tolerance, threads)
        if report[0]:
            status, pivot, _, value = report
            _check.positive_definite_report((status, pivot // parts, -1, value), tolerance)
        return Factor(panels, p, norm)


class Factor:
    """The Cholesky factor L of a matrix A = L Lᵀ, held as a panel triangle."""

    __slots__ = ("norm", "panels", "size")

    def __init__(self, panels: Array, size: int, norm: float) -> None:
        self.panels = panels
        self.size = size
        self.norm = norm

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what it solves."""
        return self.panels.dtype

    def solve(self, B: Array, threads: int = 0) -> Array:
        """Return A⁻¹ B for B of shape (p, k)."""
        out = np.empty(B.shape, B.dtype)
        core.cholesky_solve(self.panels, B, out, threads)
        return out

    def half_solve(self, B: Array, *, transposed: bool = False, threads: int = 0) -> Array:
        """Return L⁻¹ B, or L⁻ᵀ B."""
        out = np.empty(B.shape, B.dtype)
        core.cholesky_half_solve(self.panels, B, transposed, out, threads)
        return out

    def logdet(self) -> float:
        """Return log det A."""
        return core.cholesky_logdet(self.panels, self.size)

    def inverse(self, threads: int = 0) -> Triangle:
        """Return A⁻¹ as a triangle."""
        out = Triangle(self.size, self.panels.dtype)
        core.cholesky_inverse(self.panels, self.size, out.panels, threads)
        return out

    def inverse_diagonal(self, threads: int = 0) -> Array:
        """Return the diagonal of A⁻¹, (p,)."""
        out = np.empty(self.size, self.panels.dtype)
        core.cholesky_inverse_diagonal(self.panels, out, threads)
        return out

    def rcond(self, threads: int = 0) -> float:
        """Return an estimate of 1 / κ₁(A)."""
        return core.cholesky_rcond(self.panels, self.size, self.norm, threads)
