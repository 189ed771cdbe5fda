"""The Hermitian triangle: a complex matrix held as a real panel triangle of twice the rows."""

from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._native import core
from fastfisher._ops import numpy_triangle as real
from fastfisher._ops.types import NumpyArray as Array

__all__ = ["Factor", "Triangle", "interleaved", "joined"]


def interleaved(V: Array, *, conjugate: bool = False) -> Array:
    """Return the real form of V (p, k): rows Re, Im, Re, Im, …, (2p, k)."""
    rows, columns = V.shape
    out = np.empty((rows, 2, columns), V.real.dtype)
    out[:, 0] = V.real
    out[:, 1] = V.imag
    if conjugate:
        np.negative(out[:, 1], out=out[:, 1])
    return out.reshape(2 * rows, columns)


def joined(X: Array, *, conjugate: bool = False) -> Array:
    """Return the complex V (p, k) of a real form (2p, k)."""
    out = np.empty((X.shape[0] // 2, X.shape[1]), _check.complex_of(X.dtype))
    out.real = X[0::2]
    out.imag = -X[1::2] if conjugate else X[1::2]
    return out


class Triangle:
    """A Hermitian p × p matrix F, zero at first, with the verbs of the real `Triangle`.

    What is held is the real triangle of ½ conj(F), written with a 2 × 2 block for each complex
    number (``hermitian.hpp``): as much memory as p² complex numbers. The real matrix has the
    eigenvalues of ½ F, each twice, so sums, products, factors and solves are real ones.
    """

    __slots__ = ("held", "size")

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        self.size = size
        self.held = real.Triangle(2 * size, _check.real_of(dtype))

    @property
    def panels(self) -> Array:
        """The real numbers held, whose sums are sums of matrices."""
        return self.held.panels

    @staticmethod
    def length(size: int, dtype: np.dtype[Any]) -> int:
        """Return how many numbers a triangle of this size holds."""
        return real.Triangle.length(2 * size, _check.real_of(dtype))

    @staticmethod
    def bytes_for(size: int, dtype: np.dtype[Any]) -> int:
        """Return the bytes that a triangle of this size takes, p² complex numbers."""
        return real.Triangle.bytes_for(2 * size, _check.real_of(dtype))

    @staticmethod
    def bytes_to_sum(samples: int, size: int, dtype: np.dtype[Any], *, dense: bool = False) -> int:
        """Return the bytes of a triangle and of adding scores to it, or if more of `to_dense`."""
        scratch = Triangle.scratch_bytes(samples, size, dtype)
        after = size * size * dtype.itemsize if dense else 0
        return Triangle.bytes_for(size, dtype) + max(scratch, after)

    @staticmethod
    def scratch_bytes(samples: int, size: int, dtype: np.dtype[Any]) -> int:
        """Return the bytes that `add_scores` takes beside the triangle, nearly."""
        return real.Triangle.scratch_bytes(samples, 2 * size, _check.real_of(dtype))

    @classmethod
    def from_dense(cls, matrix: Array, threads: int = 0) -> "Triangle":
        """Take over the lower half of `matrix` (p, p) and the real part of its diagonal."""
        triangle = cls(matrix.shape[0], matrix.dtype)
        triangle.set_dense(matrix, threads)
        return triangle

    def set_dense(self, matrix: Array, threads: int = 0) -> None:
        """Become the lower half of `matrix` (p, p); an error leaves neither."""
        report = core.hermitian_from_dense(matrix, self.panels, threads)
        _check.finite_report(report, "matrix")

    @classmethod
    def from_panels(cls, size: int, panels: Array) -> "Triangle":
        """Take over the panels of another triangle, copied."""
        triangle = cls(size, _check.complex_of(panels.dtype))
        triangle.panels[...] = panels
        return triangle

    @classmethod
    def _of(cls, held: real.Triangle) -> "Triangle":
        """Return the triangle that holds `held`, which has the form already."""
        triangle = object.__new__(cls)
        triangle.size, triangle.held = held.size // 2, held
        return triangle

    def copy(self) -> "Triangle":
        """Return a triangle of its own."""
        return Triangle._of(self.held.copy())

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
        """Add Σ w (s − m)* (s − m)ᵀ. `fresh` says the triangle is zero; an error then spoils it."""
        report = core.accumulate(
            scores, weights, _parts(mean), self.panels, fresh, check_finite, threads
        )
        _check.finite_report(report, "scores")
        core.hermitian_project(self.panels, self.size, False, threads)

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
        mean = np.empty(self.size, _check.complex_of(self.panels.dtype))
        report = core.accumulate_centred(
            scores, weights, _parts(mean), self.panels, fresh, check_finite, threads
        )
        _check.finite_report(report, "scores")
        core.hermitian_project(self.panels, self.size, False, threads)
        return mean

    def set_gram(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        check_finite: bool,
        threads: int,
    ) -> None:
        """Turn a zero triangle (n × n) into W½ (S − 1mᵀ)(S − 1mᵀ)ᴴ W½."""
        report = core.gram(scores, weights, _parts(mean), self.panels, check_finite, threads)
        _check.finite_report(report, "scores")
        core.hermitian_project(self.panels, self.size, True, threads)

    def add(self, other: "Triangle") -> None:
        """Add another triangle of the same size."""
        self.held.add(other.held)

    def scale(self, factor: float) -> None:
        """Multiply every entry."""
        self.held.scale(factor)

    def add_outer(self, x: Array, alpha: float, threads: int = 0) -> None:
        """Add alpha · x* xᵀ."""
        self.held.add_outer(interleaved(x[:, None])[:, 0], alpha, threads)
        core.hermitian_project(self.panels, self.size, False, threads)

    def to_dense(self, scale: float, out: Array | None = None, threads: int = 0) -> Array:
        """Return scale times the full Hermitian matrix, in `out` if given."""
        if out is None:
            out = np.empty((self.size, self.size), _check.complex_of(self.panels.dtype))
        core.hermitian_to_dense(self.panels, scale, out, threads)
        return out

    def block(self, start: int, stop: int) -> "Triangle":
        """Return the diagonal block of some rows, a triangle of its own."""
        return Triangle._of(self.held.block(2 * start, 2 * stop))

    def narrowed(self, scale: float, threads: int = 0) -> "Triangle":
        """Return scale times a complex128 triangle, rounded to complex64."""
        return Triangle._of(self.held.narrowed(scale, threads))

    def product(self, V: Array, scale: float, threads: int = 0) -> Array:
        """Return scale · F V for V of shape (p, k)."""
        X = self.held.product(interleaved(V, conjugate=True), 2 * scale, threads)
        return joined(X, conjugate=True)

    def diagonal(self) -> Array:
        """Return the diagonal, (p,), real."""
        parts: Array = self.held.diagonal().reshape(-1, 2)
        return parts[:, 0] + parts[:, 1]

    def norm1(self, threads: int = 0) -> float:
        """Return the largest column sum of |Re| + |Im|: between ‖F‖₁ and √2 ‖F‖₁."""
        return 2 * self.held.norm1(threads)

    def cholesky(
        self, scale: float, shift: float | Array, *, threads: int = 0, with_norm: bool = True
    ) -> "Factor":
        """Factor scale · F + diag(shift) in place: the triangle is used up, also by a failure.

        `with_norm` reads the matrix once more beforehand, which `Factor.rcond` needs.
        """
        if isinstance(shift, np.ndarray):
            shift = np.repeat(shift, 2)
        return Factor(
            self.held.cholesky(2 * scale, shift, threads=threads, with_norm=with_norm, parts=2)
        )


class HeldFactor:
    """The Cholesky factor of a Hermitian A, held as that of its real form.

    The real factor is the real form of the complex one, so half solves are complex ones too.
    """

    __slots__ = ("dtype", "held", "size")

    def __init__(self, held: Any) -> None:
        self.held = held
        self.size: int = held.size // 2
        self.dtype = _check.complex_of(held.dtype)

    def solve(self, B: Array, threads: int = 0) -> Array:
        """Return A⁻¹ B for B of shape (p, k)."""
        return joined(self.held.solve(interleaved(B, conjugate=True), threads), conjugate=True)

    def half_solve(self, B: Array, *, transposed: bool = False, threads: int = 0) -> Array:
        """Return L⁻¹ B, or L⁻ᴴ B, for A = L Lᴴ."""
        X = interleaved(B, conjugate=True)
        return joined(
            self.held.half_solve(X, transposed=transposed, threads=threads), conjugate=True
        )

    def logdet(self) -> float:
        """Return log det A; the real form has its eigenvalues twice."""
        return float(self.held.logdet()) / 2

    def rcond(self, threads: int = 0) -> float:
        """Return an estimate of 1 / κ₁ of the real form, which is within a factor of 2 of A's."""
        return float(self.held.rcond(threads))


class Factor(HeldFactor):
    """The Cholesky factor of a Hermitian matrix."""

    __slots__ = ()

    @property
    def norm(self) -> float:
        """The norm of A that `rcond` uses, from ‖A‖₁ to √2 ‖A‖₁; NaN if it was not asked for."""
        return float(self.held.norm)

    def inverse(self, threads: int = 0) -> Triangle:
        """Return A⁻¹ as a triangle."""
        held = self.held.inverse(threads)
        held.scale(0.5)
        core.hermitian_project(held.panels, self.size, False, threads)
        return Triangle._of(held)

    def inverse_diagonal(self, threads: int = 0) -> Array:
        """Return the diagonal of A⁻¹, (p,), real."""
        parts: Array = self.held.inverse_diagonal(threads).reshape(-1, 2)
        return (parts[:, 0] + parts[:, 1]) / 2


def _parts(mean: Array | None) -> Any:
    """Return the numbers as a view of their parts: Re and Im in turn."""
    return None if mean is None else mean.view(_check.real_of(mean.dtype))
