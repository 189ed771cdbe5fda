"""The triangle on a device: a symmetric or Hermitian matrix and its Cholesky factor, dense."""

from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops.array_engine import BLOCK, CHUNK_BYTES, blocks
from fastfisher._ops.conjugates import squares
from fastfisher._ops.device_finite import column_mean, raise_if_bad, raise_if_spoilt
from fastfisher._ops.engine import Bound, bound
from fastfisher._ops.types import Array, DType

__all__ = ["Factor", "Triangle", "norm1_of_inverse"]

# Solves of the estimate of ‖A⁻¹‖₁: Hager's steps, which end after two nearly always. A device
# would wait to be asked whether they may end, so there is a fixed number of them.
NORM_STEPS = 3


class Triangle(Bound):
    """A symmetric (Hermitian) p × p matrix, zero at first, held as the lower half of an array.

    Equivalent to the `Triangle` of ``numpy_triangle``. Libraries factor and multiply whole arrays,
    so it takes p² numbers; above the diagonal lies whatever they leave there.
    """

    __slots__ = ("lower", "size")

    def __init__(self, size: int, dtype: DType) -> None:
        self.size = size
        self.lower: Array = self.engine.xp.zeros((size, size), dtype=dtype)

    @property
    def dtype(self) -> DType:
        """Dtype of the entries."""
        return self.lower.dtype  # type: ignore[no-any-return]

    @property
    def panels(self) -> Array:
        """The numbers held, in one run: sums of matrices are sums of these."""
        return self.lower.reshape(-1)

    @staticmethod
    def length(size: int, dtype: DType) -> int:  # noqa: ARG004
        """Return how many numbers a triangle of this size holds."""
        return size * size

    @staticmethod
    def bytes_for(size: int, dtype: DType) -> int:
        """Return the bytes that a triangle of this size takes."""
        return size * size * dtype.itemsize

    @classmethod
    def bytes_to_sum(cls, samples: int, size: int, dtype: DType, *, dense: bool = False) -> int:
        """Return the bytes of a triangle and of adding scores to it, or if more of `to_dense`."""
        after = size * size * dtype.itemsize if dense else 0
        return cls.bytes_for(size, dtype) + max(cls.scratch_bytes(samples, size, dtype), after)

    @staticmethod
    def scratch_bytes(samples: int, size: int, dtype: DType) -> int:
        """Return the bytes that `add_scores` takes beside the triangle, at most."""
        return 2 * min(CHUNK_BYTES, samples * size * dtype.itemsize)

    @classmethod
    def from_dense(cls, matrix: Array, threads: int = 0) -> "Triangle":
        """Take over the lower half of `matrix` (p, p)."""
        triangle = cls(matrix.shape[0], matrix.dtype)
        triangle.set_dense(matrix, threads)
        return triangle

    def set_dense(self, matrix: Array, threads: int = 0) -> None:  # noqa: ARG002
        """Become the lower half of `matrix` (p, p); an error leaves neither."""
        lower = self.engine.xp.tril(matrix)
        raise_if_bad(self.engine, lower, "matrix")
        self.lower[...] = lower
        self._real_diagonal()

    @classmethod
    def from_panels(cls, size: int, panels: Array) -> "Triangle":
        """Take over the panels of another triangle, copied."""
        triangle = object.__new__(cls)
        triangle.size, triangle.lower = size, panels.copy().reshape(size, size)
        return triangle

    def copy(self) -> "Triangle":
        """Return a triangle of its own."""
        return self.from_panels(self.size, self.panels)

    def add_scores(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        *,
        fresh: bool,
        check_finite: bool,
        threads: int,  # noqa: ARG002
    ) -> None:
        """Add Σ w (s − m)* (s − m)ᵀ. `fresh` says the triangle is zero; an error then spoils it.

        To check costs one pass over the scores, unless fresh, and one wait for the device: no entry
        of a positive semi-definite sum is larger than the largest of its diagonal.
        """
        if check_finite and not fresh:
            squared = self.engine.square_sums(scores, weights, mean, self.dtype)
            raise_if_spoilt(self.engine, squared + self.diagonal(), scores)
        self.engine.add_scores(self.lower, scores, weights, mean)
        self._real_diagonal()
        if check_finite and fresh:
            raise_if_spoilt(self.engine, self.diagonal(), scores)

    def add_scores_fast(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        *,
        check_finite: bool,
        threads: int,
    ) -> None:
        """Add as `add_scores`: no device has Strassen's products here."""
        self.add_scores(
            scores, weights, mean, fresh=True, check_finite=check_finite, threads=threads
        )

    def add_centred_scores(
        self,
        scores: Array,
        weights: Array | None,
        *,
        fresh: bool,
        check_finite: bool,
        threads: int,
    ) -> Array:
        """Add Σ w (s − m)* (s − m)ᵀ about their own mean m, and return m; else as `add_scores`."""
        mean = column_mean(self.engine, scores, weights, self.dtype, check_finite)
        self.add_scores(
            scores, weights, mean, fresh=fresh, check_finite=check_finite, threads=threads
        )
        return mean

    def set_gram(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        check_finite: bool,
        threads: int,  # noqa: ARG002
    ) -> None:
        """Turn a zero triangle (n × n) into W½ (S − 1mᵀ)(S − 1mᵀ)ᴴ W½."""
        self.engine.add_gram(self.lower, scores, weights, mean)
        self._real_diagonal()
        if check_finite:
            raise_if_spoilt(self.engine, self.diagonal(), scores, by_row=True)

    def add(self, other: "Triangle") -> None:
        """Add another triangle of the same size."""
        self.lower += other.lower

    def scale(self, factor: float) -> None:
        """Multiply every entry."""
        self.lower *= factor

    def add_outer(self, x: Array, alpha: float, threads: int = 0) -> None:  # noqa: ARG002
        """Add alpha · x* xᵀ."""
        for part in blocks(self.size):
            self.lower[part, : part.stop] += (alpha * x[part].conj())[:, None] * x[: part.stop]
        self._real_diagonal()

    def to_dense(self, scale: float, out: Array | None = None, threads: int = 0) -> Array:  # noqa: ARG002
        """Return scale times the full symmetric (Hermitian) matrix, in `out` if given."""
        if out is None:
            out = self.engine.xp.empty((self.size, self.size), dtype=self.dtype)
        self.engine.mirror(self.lower, scale, out)
        return out

    def block(self, start: int, stop: int) -> "Triangle":
        """Return the diagonal block of some rows, a triangle of its own."""
        triangle = object.__new__(type(self))
        triangle.size, triangle.lower = stop - start, self.lower[start:stop, start:stop].copy()
        return triangle

    def narrowed(self, scale: float, threads: int = 0) -> "Triangle":  # noqa: ARG002
        """Return scale times a triangle, rounded to float32 (complex64)."""
        narrow = np.dtype(np.complex64 if self.dtype.kind == "c" else np.float32)
        triangle = object.__new__(type(self))
        triangle.size = self.size
        triangle.lower = self.engine.xp.empty((self.size, self.size), dtype=narrow)
        for part in blocks(self.size):
            triangle.lower[part] = (scale * self.lower[part]).astype(narrow)
        return triangle

    def product(self, V: Array, scale: float, threads: int = 0) -> Array:  # noqa: ARG002
        """Return scale · F V for V of shape (p, k)."""
        out = self.engine.symmetric_product(self.lower, V)
        out *= scale
        return out

    def diagonal(self) -> Array:
        """Return the diagonal, (p,), real, of its own."""
        return _diagonal(self.lower).real.copy()

    def norm1(self, threads: int = 0) -> float:  # noqa: ARG002
        """Return the largest column sum of absolute values."""
        return self.engine.read(self._norm1().reshape(1))[0]

    def _norm1(self) -> Array:
        """Return the largest column sum of absolute values, on the device."""
        xp = self.engine.xp
        sums = xp.zeros(self.size, dtype=_check.real_of(self.dtype))
        for part in blocks(self.size):
            left = xp.abs(self.lower[part, : part.start])
            corner = xp.tril(xp.abs(self.lower[part, part]))
            sums[: part.start] += left.sum(axis=0)
            sums[part] += left.sum(axis=1) + corner.sum(axis=0)
            sums[part] += xp.tril(corner, k=-1).sum(axis=1)
        return xp.max(sums)

    def cholesky(
        self,
        scale: float,
        shift: float | Array,
        *,
        threads: int = 0,  # noqa: ARG002
        with_norm: bool = True,
    ) -> "Factor":
        """Factor scale · F + diag(shift) in place: the triangle is used up, also by a failure.

        `with_norm` reads the matrix once more beforehand, which `Factor.rcond` needs. It waits for
        the device once, to learn whether all pivots are above p · eps times their diagonal entries.
        """
        xp, engine, lower, p = self.engine.xp, self.engine, self.lower, self.size
        norm: Any = None
        if with_norm:
            # ‖scale·F + D‖₁ ≤ scale·‖F‖₁ + max D, with equality where the damping is one number.
            norm = scale * self._norm1() + (
                shift if isinstance(shift, float | int) else xp.max(shift)
            )
        lower *= scale
        diagonal = _diagonal(lower)
        diagonal += shift if isinstance(shift, float | int) else shift.astype(self.dtype)
        before = diagonal.real.copy()
        info = engine.cholesky(lower)
        tolerance = p * float(np.finfo(self.dtype).eps)
        factored, j = _diagonal(lower).real, xp.arange(p)
        pivots = xp.where((info == 0) | (j < info - 1), factored * factored, factored)
        bad = (j == info - 1) | ~((pivots > tolerance * before) & xp.isfinite(pivots))
        place = xp.argmax(bad.astype(np.int8))
        numbers = [xp.any(bad), place, xp.take(pivots, place.reshape(1))[0]]
        told = engine.read(xp.stack([x.astype(np.float64) for x in numbers]))
        if told[0]:
            status = 1 if np.isfinite(told[2]) else 2
            _check.positive_definite_report((status, int(told[1]), -1, told[2]), tolerance)
        return self._factor(lower, norm)

    def _factor(self, lower: Array, norm: Any) -> "Factor":
        factor = object.__new__(bound(Factor, self.engine))
        factor.lower, factor.size, factor.held_norm = lower, self.size, norm
        return factor

    def host(self) -> Any:
        """Return the same triangle of NumPy's, copied to the host."""
        from fastfisher._ops import for_dtype, numpy_ops

        lower = self.engine.to_host(self.lower)
        return for_dtype(numpy_ops, lower.dtype).Triangle.from_dense(lower)

    @classmethod
    def from_host(cls, triangle: Any) -> "Triangle":
        """Return a triangle of NumPy's, copied to the device."""
        return cls.from_dense(cls.engine.from_host(triangle.to_dense(1.0)))

    def _real_diagonal(self) -> None:
        """Take off the diagonal what rounding left of imaginary parts."""
        if self.dtype.kind == "c":
            diagonal = _diagonal(self.lower)
            diagonal[...] = diagonal.real.astype(self.dtype)


class Factor(Bound):
    """The Cholesky factor L of a matrix A = L Lᴴ, the lower half of an array."""

    __slots__ = ("held_norm", "lower", "size")

    lower: Array
    size: int
    held_norm: Any

    @property
    def dtype(self) -> DType:
        """Dtype of what it solves."""
        return self.lower.dtype  # type: ignore[no-any-return]

    @property
    def norm(self) -> float:
        """The norm ‖A‖₁ that `rcond` uses; NaN if it was not asked for."""
        return float("nan") if self.held_norm is None else float(self.held_norm)

    def solve(self, B: Array, threads: int = 0) -> Array:
        """Return A⁻¹ B for B of shape (p, k)."""
        return self.half_solve(self.half_solve(B, threads=threads), transposed=True)

    def half_solve(self, B: Array, *, transposed: bool = False, threads: int = 0) -> Array:  # noqa: ARG002
        """Return L⁻¹ B, or L⁻ᴴ B."""
        B = B.astype(self.dtype, copy=False)
        return self.engine.triangular_solve(self.lower, B, adjoint=transposed)

    def logdet(self) -> float:
        """Return log det A."""
        diagonal = _diagonal(self.lower).real.astype(np.float64)
        return 2 * float(self.engine.xp.log(diagonal).sum())

    def inverse(self, threads: int = 0) -> Triangle:  # noqa: ARG002
        """Return A⁻¹ as a triangle."""
        triangle = object.__new__(bound(Triangle, self.engine))
        triangle.size, triangle.lower = self.size, self.engine.inverse(self.lower)
        triangle._real_diagonal()
        return triangle

    def inverse_diagonal(self, threads: int = 0) -> Array:  # noqa: ARG002
        """Return the diagonal of A⁻¹, (p,), real."""
        xp = self.engine.xp
        out = xp.empty(self.size, dtype=_check.real_of(self.dtype))
        for part in blocks(self.size, 8 * BLOCK):  # columns of L⁻¹, a few at a time
            columns = xp.zeros((self.size, part.stop - part.start), dtype=self.dtype)
            columns[part] = xp.eye(part.stop - part.start, dtype=self.dtype)
            out[part] = squares(self.half_solve(columns)).sum(axis=0)
        return out

    def rcond(self, threads: int = 0) -> float:  # noqa: ARG002
        """Return an estimate of 1 / κ₁(A), by Hager and Higham."""
        if self.held_norm is None:
            return float("nan")
        return float(1.0 / (self.held_norm * norm1_of_inverse(self)))


def norm1_of_inverse(factor: Any) -> Array:
    """Return an estimate of ‖A⁻¹‖₁ from below, on the device, from solves with a factor of A.

    Steps x ← e_j with j where |A⁻¹ sign(A⁻¹ x)| is largest, and one vector of alternating signs
    that they may have missed.
    """
    xp, p = factor.engine.xp, factor.size
    j = xp.arange(p)
    real = _check.real_of(factor.dtype)
    x = xp.full((p, 1), 1.0 / p, dtype=factor.dtype)
    found = []
    for _ in range(NORM_STEPS):
        y = factor.solve(x)
        size = xp.abs(y)
        found.append(size.sum())
        sign = xp.where(size > 0, y / xp.where(size > 0, size, 1.0), xp.ones_like(y))
        z = xp.abs(factor.solve(sign))
        x = (j[:, None] == xp.argmax(z)).astype(real).astype(factor.dtype)
    ramp = 1.0 + j.astype(real) / max(p - 1, 1)
    ramp = xp.where(j % 2 == 0, ramp, -ramp).astype(factor.dtype)[:, None]
    found.append(xp.abs(factor.solve(ramp)).sum() * (2 / (3 * p)))
    return xp.max(xp.stack(found))


def _diagonal(matrix: Array) -> Array:
    """Return the diagonal of a C-contiguous matrix, a view."""
    return matrix.reshape(-1)[:: matrix.shape[1] + 1]
