"""The root: R of a QR factorisation of scores, held as a panel triangle, real or complex."""

import math
from typing import Any, Self

import numpy as np

from fastfisher import _check
from fastfisher._native import core, get_num_threads
from fastfisher._ops import numpy_hermitian as hermitian
from fastfisher._ops import numpy_triangle as real
from fastfisher._ops.types import NumpyArray as Array

__all__ = ["Root"]


# Rows that are reflected together, see ``qr.cpp``.
BLOCK_ROWS = 256


class Root:
    """An upper triangular R (p, p) with F = Rᴴ R, zero at first, that absorbs rows.

    Orthogonal reflections alone make it, so it has the digits of the scores, where their Fisher
    has lost half. What is held is L = Rᵀ as a panel triangle, so it serves as the Cholesky factor
    that it is. Complex numbers are held in the real form of ``numpy_hermitian``: L Lᵀ is that of
    ½ conj(F).

    With `with_root` the vector √w is a last column beside the scores, and `with_targets` it is √w y
    for the y that comes with them. `split` takes out what became of it, z = Qᴴ √w y, and R⁻¹ z
    solves F x = Σ w s* y, the least-squares problem min Σ w |sᵀx − y|².
    """

    __slots__ = ("dtype", "extra", "panels", "parts", "size")

    def __init__(
        self,
        size: int,
        dtype: np.dtype[Any],
        *,
        with_root: bool = False,
        with_targets: bool = False,
    ) -> None:
        self.size = size
        self.dtype = dtype
        self.parts = 2 if dtype.kind == "c" else 1
        self.extra = self.parts if with_targets else int(with_root)
        self.panels: Array = core.triangle_zeros(self._order, _check.real_of(dtype).itemsize)

    @property
    def _order(self) -> int:
        return self.parts * self.size + self.extra

    @staticmethod
    def length(size: int, dtype: np.dtype[Any]) -> int:
        """Return how many numbers a root of this size holds."""
        return real.Triangle.length(*_real_form(size, dtype))

    @staticmethod
    def bytes_for(size: int, dtype: np.dtype[Any]) -> int:
        """Return the bytes that a root of this size takes, p²/2 numbers for the largest."""
        return real.Triangle.bytes_for(*_real_form(size, dtype))

    @staticmethod
    def bytes_to_sum(samples: int, size: int, dtype: np.dtype[Any], threads: int = 0) -> int:
        """Return the bytes of a root, its square and absorbing scores, nearly; see ``qr.cpp``.

        Tall scores have a root for each slab; a block of rows is held for each thread.
        """
        slabs = samples // (16 * size)
        roots = 2 + (min(slabs, 64) if slabs >= 8 and size * dtype.itemsize <= 48 * 192 else 0)
        parts = 2 if dtype.kind == "c" else 1
        block = min(BLOCK_ROWS, parts * samples) * size * dtype.itemsize
        return roots * Root.bytes_for(size, dtype) + (1 + (threads or get_num_threads())) * block

    @classmethod
    def from_panels(cls, size: int, dtype: np.dtype[Any], panels: Array) -> Self:
        """Take over the panels of another root, copied."""
        root = cls(size, dtype)
        root.panels[...] = panels
        return root

    @classmethod
    def from_dense(cls, R: Array) -> Self:
        """Take over R (p, p), whose upper triangle counts."""
        root = cls(R.shape[0], R.dtype)
        L = R.T
        if root.parts == 2:
            L = np.empty((root._order, root._order), root.panels.dtype)
            L[0::2, 0::2] = L[1::2, 1::2] = R.real.T * math.sqrt(0.5)
            L[0::2, 1::2] = -R.imag.T * math.sqrt(0.5)
            L[1::2, 0::2] = R.imag.T * math.sqrt(0.5)
        core.triangle_from_dense(np.ascontiguousarray(L), root.panels, 0)
        return root

    def copy(self) -> "Root":
        """Return a root of its own."""
        root = object.__new__(Root)
        root.size, root.dtype, root.parts, root.extra = (
            self.size, self.dtype, self.parts, self.extra,
        )  # fmt: skip
        root.panels = core.triangle_copy(self.panels, 0)
        return root

    # ---- absorbing ----
    def add_scores(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        *,
        check_finite: bool,
        threads: int,
        targets: Array | None = None,
    ) -> None:
        """Add Σ w (s − m)* (s − m)ᵀ to F; an error spoils the root. Targets are (n, 1)."""
        with_root = bool(self.extra)
        if targets is not None:  # one more score
            with_root = False
            scores = np.hstack([scores, targets], dtype=self.dtype)
            mean = None if mean is None else np.append(mean, np.zeros(1, mean.dtype))
        if mean is not None:
            mean = mean.view(_check.real_of(mean.dtype))
        report = core.qr_scores(
            real.bits(scores), weights, mean, with_root, self.panels, check_finite, threads
        )
        _check.finite_report(report, "scores")

    def add(self, other: "Root", threads: int = 0) -> None:
        """Add the F of another root of the same size."""
        core.qr_merge(other.panels, self.panels, self._order, threads)

    def add_outer(self, x: Array, alpha: float, threads: int = 0) -> None:
        """Add alpha · x* xᵀ to F, alpha not negative."""
        row = (math.sqrt(alpha) * x).astype(self.dtype).reshape(1, -1)
        self.add_scores(row, None, None, check_finite=False, threads=threads)

    def scale(self, factor: float) -> None:
        """Multiply F."""
        self.panels *= math.sqrt(factor)

    def damp(self, scale: float, shift: float | Array, threads: int = 0) -> None:
        """Become the root of scale · F + diag(shift): rows √shift are absorbed, nothing squared."""
        if scale != 1.0:
            self.scale(scale)
        if not np.any(shift):
            return
        rows = np.zeros(self._order, self.panels.dtype)
        root = np.sqrt(np.asarray(shift) / self.parts)
        rows[: self.parts * self.size] = np.repeat(root, self.parts) if root.ndim else root
        core.qr_diagonal(rows, self.panels, threads)

    def split(self) -> Array:
        """Take out z, (p, 1)."""
        while self.extra:  # of a complex column the second half says nothing new
            z = np.empty((self._order, 1), self.panels.dtype)
            core.qr_split(self.panels, z[:, 0])
            self.extra -= 1
        self.panels = self.panels[: self.length(self.size, self.dtype)]
        z = math.sqrt(self.parts) * z[:-1]
        return z if self.parts == 1 else hermitian.joined(z, conjugate=True)

    # ---- reading ----
    def diagonal(self) -> Array:
        """Return the diagonal of F, (p,), real."""
        squares = np.empty(self._order, self.panels.dtype)
        core.qr_squares(self.panels, squares)
        return squares if self.parts == 1 else squares.reshape(-1, 2).sum(axis=1)

    def square(self, threads: int = 0) -> "real.Triangle | hermitian.Triangle":
        """Return F = Rᴴ R."""
        held = self._held_square(threads)
        return held if self.parts == 1 else hermitian.Triangle._of(held)

    def dense(self) -> Array:
        """Return R as an array (p, p), zero below the diagonal."""
        full = np.empty((self._order, self._order), self.panels.dtype)
        core.triangle_to_dense(self.panels, 1.0, full, 0)
        R = np.triu(full)
        if self.parts == 1:
            return R
        out = np.empty((self.size, self.size), self.dtype)
        out.real = R[0::2, 0::2]
        out.imag = -R[1::2, 0::2]
        out *= math.sqrt(2)
        return out

    def factor(
        self, tolerance: float, *, threads: int = 0, with_norm: bool = True
    ) -> "real.Factor | hermitian.Factor":
        """Return the factor of F, which takes over the panels.

        A diagonal entry of R that is not above `tolerance` times the norm of its column raises.
        `with_norm` multiplies F out, which `rcond` needs; where F underflows that is NaN.
        """
        if self.parts == 2:
            self.scale(2.0)
        order = self._order
        pivots = core.triangle_diagonal(self.panels, order)
        bad = ~(pivots > tolerance * self._norms())
        if bad.any():
            place = int(bad.argmax())
            root = float(pivots[place])
            pivot = root * root  # not root**2, which raises where that is beyond the numbers
            status = 1 if math.isfinite(pivot) else 2
            _check.positive_definite_report((status, place // self.parts, -1, pivot), tolerance**2)
        norm = math.nan
        if with_norm:
            norm = self._held_square(threads).norm1(threads)
            norm = math.nan if norm < self._least_square else norm  # F has lost what R holds
        held = real.Factor(self.panels, order, norm)
        return held if self.parts == 1 else hermitian.Factor(held)

    @property
    def _least_square(self) -> float:
        """From here on squares have all their digits, see ``reflectors.cpp``."""
        info = np.finfo(self.panels.dtype)
        return float(info.tiny) / float(info.eps)

    def _norms(self) -> Array:
        """Return the norms of the columns of the R that is held, also where squares underflow."""
        squares = np.empty(self._order, self.panels.dtype)
        core.qr_squares(self.panels, squares)
        norms = np.sqrt(squares)
        lost = squares < self._least_square
        if lost.any():
            unit = self.panels.dtype.type(1 / self._least_square)
            with np.errstate(over="ignore"):  # of the columns that are not lost
                core.qr_squares(self.panels * unit, squares)
            norms[lost] = np.sqrt(squares[lost]) / unit
        return norms

    def _held_square(self, threads: int) -> real.Triangle:
        """Return L Lᵀ of the real L that is held."""
        triangle = real.Triangle(self._order, self.panels.dtype)
        core.qr_square(self.panels, self._order, triangle.panels, threads)
        return triangle


def _real_form(size: int, dtype: np.dtype[Any]) -> tuple[int, np.dtype[Any]]:
    return (2 * size if dtype.kind == "c" else size), _check.real_of(dtype)
