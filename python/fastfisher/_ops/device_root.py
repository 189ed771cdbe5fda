"""Root on a device: the R of a QR factorisation of scores, streamed, real or complex."""

import math
from typing import Any, Self

import numpy as np

from fastfisher import _check
from fastfisher._ops.array_engine import CHUNK_BYTES, blocks
from fastfisher._ops.conjugates import adjoint_of, squares
from fastfisher._ops.device_finite import raise_if_spoilt
from fastfisher._ops.device_triangle import Factor, Triangle
from fastfisher._ops.engine import Bound, bound
from fastfisher._ops.types import Array, DType

__all__ = ["Root"]


class Root(Bound):
    """An upper triangular R (p, p) with F = Rᴴ R, zero at first, that absorbs rows.

    Equivalent to the `Root` of ``numpy_root``, with the same last column of √w, or of √w y, which
    `split` takes out. Libraries factor whole arrays, so R takes p² numbers and is stacked on
    at least as many rows as it has: 4 p² multiplications a row then, and up to 2 p² for more.
    """

    __slots__ = ("R", "dtype", "extra", "size")

    def __init__(
        self, size: int, dtype: DType, *, with_root: bool = False, with_targets: bool = False
    ) -> None:
        self.size, self.dtype = size, dtype
        self.extra = int(with_root or with_targets)
        order = size + self.extra
        self.R: Array = self.engine.xp.zeros((order, order), dtype=dtype)

    @property
    def panels(self) -> Array:
        """The numbers held, in one run."""
        return self.R.reshape(-1)

    @staticmethod
    def length(size: int, dtype: DType) -> int:  # noqa: ARG004
        """Return how many numbers a root of this size holds."""
        return size * size

    @staticmethod
    def bytes_for(size: int, dtype: DType) -> int:
        """Return the bytes that a root of this size takes."""
        return size * size * dtype.itemsize

    @classmethod
    def bytes_to_sum(cls, samples: int, size: int, dtype: DType, threads: int = 0) -> int:  # noqa: ARG003
        """Return the bytes of a root and absorbing scores, at most."""
        rows = size + min(samples, cls._rows(size, dtype))
        return cls.bytes_for(size, dtype) + 3 * rows * size * dtype.itemsize

    @staticmethod
    def _rows(size: int, dtype: DType) -> int:
        """Return how many rows are absorbed at a time."""
        return max(size, CHUNK_BYTES // (size * dtype.itemsize))

    @classmethod
    def from_panels(cls, size: int, dtype: DType, panels: Array) -> Self:
        """Take over the panels of another root, copied."""
        root = cls(size, dtype)
        root.R[...] = panels.reshape(size, size)
        return root

    def copy(self) -> "Root":
        """Return a root of its own."""
        root = object.__new__(type(self))
        root.size, root.dtype, root.extra = self.size, self.dtype, self.extra
        root.R = self.R.copy()
        return root

    # ---- absorbing ----
    def add_scores(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        *,
        check_finite: bool,
        threads: int,  # noqa: ARG002
        targets: Array | None = None,
    ) -> None:
        """Add Σ w (s − m)* (s − m)ᵀ to F; an error spoils the root. Targets are (n, 1).

        To check waits for the device once.
        """
        xp = self.engine.xp
        root = None if weights is None else xp.sqrt(weights)
        for part in blocks(scores.shape[0], self._rows(self.size, self.dtype)):
            own = None if root is None else root[part]
            rows = self.engine.prepared(scores[part], own, mean, self.dtype)
            if self.extra:
                column = xp.ones((rows.shape[0], 1), dtype=self.dtype)
                if targets is not None:
                    column = targets[part].astype(self.dtype, copy=False)
                rows = xp.concat([rows, column if own is None else column * own[:, None]], axis=1)
            self._absorb(rows)
        if check_finite:
            # The sums of F, as everywhere: R fits where its squares no longer do.
            raise_if_spoilt(self.engine, self.diagonal()[: self.size], scores)

    def _absorb(self, rows: Array) -> None:
        """Become the R of R above some rows, its diagonal real and not negative."""
        xp = self.engine.xp
        R = xp.triu(self.engine.triangular_root(xp.concat([self.R, rows])))
        sign = _signs(xp, R.reshape(-1)[:: R.shape[0] + 1])
        # C-contiguous, whatever the order of the factorisation's: runs of it are views.
        self.R = xp.ascontiguousarray(sign.astype(self.dtype)[:, None] * R)
        if self.dtype.kind == "c":
            diagonal = self.R.reshape(-1)[:: R.shape[0] + 1]
            diagonal[...] = diagonal.real.astype(self.dtype)

    def add(self, other: "Root", threads: int = 0) -> None:  # noqa: ARG002
        """Add the F of another root of the same size."""
        self._absorb(other.R)

    def add_outer(self, x: Array, alpha: float, threads: int = 0) -> None:  # noqa: ARG002
        """Add alpha · x* xᵀ to F, alpha not negative."""
        self._absorb((math.sqrt(alpha) * x).astype(self.dtype).reshape(1, -1))

    def scale(self, factor: float) -> None:
        """Multiply F."""
        self.R *= math.sqrt(factor)

    def damp(self, scale: float, shift: float | Array, threads: int = 0) -> None:  # noqa: ARG002
        """Become the root of scale · F + diag(shift): rows √shift are absorbed, nothing squared."""
        if scale != 1.0:
            self.scale(scale)
        if isinstance(shift, float) and shift == 0.0:
            return
        xp, order = self.engine.xp, self.size + self.extra
        added = xp.zeros((self.size,), dtype=_check.real_of(self.dtype)) + shift
        rows = xp.zeros((self.size, order), dtype=self.dtype)
        diagonal = rows.reshape(-1)[:: order + 1]
        diagonal[...] = xp.sqrt(added).astype(self.dtype)
        self._absorb(rows)

    def split(self) -> Array:
        """Take out z, (p, 1)."""
        z = self.R[: self.size, self.size :].copy()
        self.R, self.extra = self.R[: self.size, : self.size].copy(), 0
        return z

    # ---- reading ----
    def diagonal(self) -> Array:
        """Return the diagonal of F, (p,), real."""
        return squares(self.R).sum(axis=0)

    def square(self, threads: int = 0) -> Triangle:  # noqa: ARG002
        """Return F = Rᴴ R."""
        triangle = bound(Triangle, self.engine)(self.size + self.extra, self.dtype)
        self.engine.rank_update(triangle.lower, self.R)
        triangle._real_diagonal()
        return triangle

    def dense(self) -> Array:
        """Return R as an array (p, p), zero below the diagonal."""
        return self.R.copy()

    def factor(self, tolerance: float, *, threads: int = 0, with_norm: bool = True) -> Factor:  # noqa: ARG002
        """Return the factor of F, L = Rᴴ.

        A diagonal entry of R that is not above `tolerance` times the norm of its column raises.
        `with_norm` multiplies F out, which `rcond` needs. Waits for the device once.
        """
        xp = self.engine.xp
        pivots = self.R.reshape(-1)[:: self.R.shape[0] + 1].real
        bad = ~((pivots > tolerance * self.engine.norms(self.R)) & xp.isfinite(pivots))
        place = xp.argmax(bad.astype(np.int8))
        numbers = [xp.any(bad), place, xp.take(pivots, place.reshape(1))[0]]
        failed, at, pivot = self.engine.read(xp.stack([x.astype(np.float64) for x in numbers]))
        if failed:
            status = 1 if math.isfinite(pivot) else 2
            # Not pivot**2, which raises where the square is beyond the numbers.
            _check.positive_definite_report((status, int(at), -1, pivot * pivot), tolerance**2)
        norm: Any = self.square()._norm1() if with_norm else None
        factor = object.__new__(bound(Factor, self.engine))
        factor.lower = adjoint_of(self.R).copy()
        factor.size, factor.held_norm = self.size, norm
        return factor

    # ---- to the host and back ----
    def host(self) -> Any:
        """Return the same root of NumPy's, copied to the host."""
        from fastfisher._ops import numpy_ops

        return numpy_ops.Root.from_dense(self.engine.to_host(self.R))

    @classmethod
    def from_host(cls, held: Any) -> "Root":
        """Return a root of NumPy's, copied to the device."""
        R = held.dense()
        return cls.from_panels(held.size, held.dtype, cls.engine.from_host(R).reshape(-1))


def _signs(xp: Any, diagonal: Array) -> Array:
    """Return x* / |x| of each number, 1 for 0.

    Of a complex one in two steps, for |x| below the normal numbers has few digits, and no inverse.
    """
    if diagonal.dtype.kind != "c":
        return xp.where(diagonal < 0, -1.0, xp.ones_like(diagonal))
    unit = xp.maximum(xp.abs(diagonal.real), xp.abs(diagonal.imag))
    safe = xp.where(unit > 0, unit, xp.ones_like(unit))
    real, imag = ((x / safe).astype(diagonal.dtype) for x in (diagonal.real, diagonal.imag))
    conjugate = real - 1j * imag
    return xp.where(unit > 0, conjugate / xp.abs(conjugate).astype(diagonal.dtype), 1.0)
