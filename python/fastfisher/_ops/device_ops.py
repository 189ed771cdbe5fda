"""The array verbs for arrays on a device, written once over an array namespace and an engine."""

import math
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops.device_block_factor import BlockFactor
from fastfisher._ops.device_blocks import Blocks
from fastfisher._ops.device_cg import conjugate_gradients
from fastfisher._ops.device_finite import all_finite, column_mean, raise_if_spoilt
from fastfisher._ops.device_layer import LayerScores
from fastfisher._ops.device_patches import Patches
from fastfisher._ops.device_root import Root
from fastfisher._ops.device_shifted_cg import shifted_conjugate_gradients
from fastfisher._ops.device_triangle import Factor, Triangle
from fastfisher._ops.engine import Engine, bound
from fastfisher._ops.types import Array, CGOutcome, DType

__all__ = ["DeviceOps"]


class DeviceOps:
    """The verbs of ``_ops`` for the arrays of one engine, real and complex.

    Arrays stay on the device and calls on its current stream. What waits for the device says so.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.xp = engine.xp
        self.name = engine.name
        self.ndarray = engine.ndarray
        self.Triangle = bound(Triangle, engine)
        self.Factor = bound(Factor, engine)
        self.Blocks = bound(Blocks, engine)
        self.BlockFactor = bound(BlockFactor, engine)
        self.Patches = bound(Patches, engine)
        self.LayerScores = bound(LayerScores, engine)
        self.Root = bound(Root, engine)

    # ---- in and out ----
    def empty(self, shape: Any, dtype: Any = np.float64) -> Array:
        """Return an array that is not filled."""
        return self.xp.empty(shape, dtype=dtype)

    def zeros(self, shape: Any, dtype: Any = np.float64) -> Array:
        """Return an array of zeros."""
        return self.xp.zeros(shape, dtype=dtype)

    def held_dtype(self, dtype: DType) -> DType:
        """Return the dtype of the numbers that sums of `dtype` are held in: that itself."""
        return dtype

    def here(self) -> str:
        """Return the name of the current device."""
        return self.engine.here()

    def available_bytes(self) -> int | None:
        """Return the bytes that can still be allocated on the device."""
        return self.engine.free_bytes()

    def to_array(self, name: str, value: Any, *, halves: bool = False) -> Array:
        """Return `value` as an array of a dtype we take; with `halves` that may be a half."""
        array = self._ours(name, value)
        if not (halves and _check.is_half(array.dtype)):
            array = array.astype(_check.native_dtype(name, array.dtype), copy=False)
        return array

    def to_vector(self, name: str, value: Any, dtype: DType) -> Array:
        """Return numbers as an array of `dtype`, contiguous if 1-D; no copy if it is so.

        A single number of the host's stays there.
        """
        single = isinstance(value, np.generic | float | int | complex)
        array = np.asarray(value) if single else self._ours(name, value)
        if array.dtype.kind not in ("fiubc" if dtype.kind == "c" else "fiub"):
            raise TypeError(
                f"{name}: expected {'' if dtype.kind == 'c' else 'real '}numbers, got "
                f"{array.dtype.name}. Give an array of {dtype}."
            )
        array = array.astype(dtype, copy=False)
        return array.copy() if array.ndim == 1 and array.strides[0] != array.itemsize else array

    def to_output(self, out: Any, shape: tuple[int, ...], dtype: DType, *inputs: Any) -> Array:
        """Return `out` if a result of this shape and dtype may be written there, else raise."""
        out = self._ours("out", out)
        if out.shape != shape or out.dtype != dtype:
            raise ValueError(
                f"out: expected shape {shape} and dtype {dtype}, got shape {out.shape} and dtype "
                f"{out.dtype}. Leave it out to get a new array."
            )
        _check.own_places(out)
        if any(x is not None and self.xp.may_share_memory(out, x) for x in inputs):
            raise ValueError(
                "out: expected memory of its own, got an array that overlaps an input. "
                "Inputs are never written to: give another array."
            )
        return out

    def to_host(self, held: Any) -> Any:
        """Return NumPy's copy of an array, or of a triangle and the like."""
        return held.host() if hasattr(held, "host") else self.engine.to_host(held)

    def from_host(self, held: Any) -> Any:
        """Return a copy on the device of what `to_host` gives."""
        if isinstance(held, np.ndarray):
            return self.engine.from_host(held)
        return getattr(self, type(held).__name__).from_host(held)

    def _ours(self, name: str, value: Any) -> Array:
        """Return `value` if it is an array of this library on the current device."""
        engine = self.engine
        if not isinstance(value, self.ndarray):
            raise _check.other_library(name, f"a {engine.name} array", value)
        if engine.where(value) != engine.here():
            raise ValueError(
                f"{name}: expected an array on the current device, {engine.here()}, got one on "
                f"{engine.where(value)}. Copy it there, or change the current device."
            )
        return value

    # ---- looking; all of these wait for the device ----
    def least_and_sum(self, weights: Array) -> tuple[float, float]:
        """Return the smallest weight and the sum of all, in float64; NaN stays NaN."""
        xp = self.xp
        both = xp.stack([xp.min(weights).astype(np.float64), xp.sum(weights, dtype=np.float64)])
        least, total = self.engine.read(both)
        return least, total

    def first_bad_weight(self, weights: Array) -> tuple[int, float]:
        """Return place and value of the first weight that is negative or not finite."""
        bad = ~((weights >= 0) & self.xp.isfinite(weights))
        if not bool(bad.any()):
            return -1, math.inf
        place = int(bad.argmax())
        return place, float(weights[place])

    def all_finite(self, array: Array) -> bool:
        """Tell whether every number is finite."""
        return all_finite(self.engine, array)

    def worst_residual(self, rhs: Array, product: Array) -> float:
        """Return max over the columns of ‖b − Ax‖ / ‖b‖, and 0 for b = 0."""
        if rhs.shape[1] == 0:
            return 0.0
        xp = self.xp
        wide = np.dtype(np.complex128 if rhs.dtype.kind == "c" else np.float64)
        # In float64, and with the largest entry of each b as the unit: no square leaves the range.
        b = rhs.astype(wide)
        unit = xp.max(xp.abs(b), axis=0)
        unit = xp.where(unit == 0, 1.0, unit)
        error, size = (self.engine.norms(X / unit) for X in (b - product, b))
        worst = xp.max(error / xp.where(size > 0, size, 1.0))
        return self.engine.read(worst.reshape(1))[0]

    # ---- on scores ----
    def column_mean(
        self,
        scores: Array,
        weights: Array | None,
        dtype: DType,
        check_finite: bool,
        threads: int,  # noqa: ARG002
    ) -> Array:
        """Return Σ w s / Σ w, (p,) of `dtype`."""
        return column_mean(self.engine, scores, weights, dtype, check_finite)

    def diagonal(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        dtype: DType,
        check_finite: bool,
        threads: int,  # noqa: ARG002
    ) -> Array:
        """Return Σ w |s − m|², (p,) of the real dtype that belongs to `dtype`."""
        out = self.engine.square_sums(scores, weights, mean, dtype)
        if check_finite:
            raise_if_spoilt(self.engine, out, scores)
        return out

    def fvp(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        V: Array,
        scale: float,
        damping: float,
        threads: int,  # noqa: ARG002
    ) -> Array:
        """Return scale · Σ w (s − m)* (s − m)ᵀ V + damping · V, (p, k), in one pass."""
        return self.engine.fvp(scores, weights, mean, V, scale, damping)

    def scores_dot(self, scores: Array, mean: Array | None, V: Array, threads: int) -> Array:  # noqa: ARG002
        """Return (S − 1mᵀ) V, (n, k)."""
        return self.engine.scores_dot(scores, mean, V)

    def scores_transpose_dot(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        Y: Array,
        threads: int,  # noqa: ARG002
    ) -> Array:
        """Return (S − 1mᵀ)ᴴ diag(w) Y, (p, k)."""
        return self.engine.scores_transpose_dot(scores, weights, mean, Y)

    def recombine(self, turn: Array, rows: Array, out: Array, threads: int) -> None:  # noqa: ARG002
        """Write turnᴴ rows, (k, p), to `out`, which may be the first of the rows."""
        out[...] = self.engine.product(turn.T.conj(), rows)

    def product(self, X: Array, Y: Array, threads: int) -> Array:  # noqa: ARG002
        """Return X Y."""
        return self.engine.product(X, Y)

    def eigh(self, matrix: Array) -> tuple[Array, Array]:
        """Return eigenvalues, ascending, and eigenvectors; the lower triangle is read."""
        return self.engine.eigh(matrix)

    # ---- iterations: (x, status, iterations, true relative residual), the last 3 per column ----
    def cg_scores(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        scale: float,
        shift: Array,
        rhs: Array,
        preconditioner: Array | None,
        rtol: float,
        atol: float,
        max_iterations: int,
        threads: int,  # noqa: ARG002
    ) -> CGOutcome:
        """Solve (scale · Σ w (s − m)* (s − m)ᵀ + diag(shift)) x = rhs; the matrix is not formed."""

        def apply(V: Array) -> Array:
            return self.engine.fvp(scores, weights, mean, V, scale, 0.0) + shift[:, None] * V

        return self._jacobi_cg(apply, preconditioner, rhs, rtol, atol, max_iterations)

    def cg_triangle(
        self,
        triangle: Triangle,
        scale: float,
        shift: Array,
        rhs: Array,
        preconditioner: Array | None,
        rtol: float,
        atol: float,
        max_iterations: int,
        threads: int,
    ) -> CGOutcome:
        """Solve (scale · T + diag(shift)) x = rhs."""

        def apply(V: Array) -> Array:
            return triangle.product(V, scale, threads) + shift[:, None] * V

        return self._jacobi_cg(apply, preconditioner, rhs, rtol, atol, max_iterations)

    def cg_callable(
        self,
        apply: Any,
        precondition: Any,
        rhs: Array,
        rtol: float,
        atol: float,
        max_iterations: int,
    ) -> CGOutcome:
        """Solve apply(x) = rhs; `precondition` gives an approximate solution, or is None."""
        return conjugate_gradients(
            self.engine, apply, precondition, rhs, rtol, atol, max_iterations
        )

    def _jacobi_cg(
        self,
        apply: Any,
        diagonal: Array | None,
        rhs: Array,
        rtol: float,
        atol: float,
        max_iterations: int,
    ) -> CGOutcome:
        precondition = None
        if diagonal is not None:
            divisor = diagonal[:, None]

            def precondition(R: Array) -> Array:
                return R / divisor

        return self.cg_callable(apply, precondition, rhs, rtol, atol, max_iterations)

    def shifted_cg_scores(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        scale: float,
        shifts: list[float],
        rhs: Array,
        rtol: float,
        atol: float,
        max_iterations: int,
        threads: int,
    ) -> CGOutcome:
        """Solve (scale · Σ w (s − m)* (s − m)ᵀ + shift) x = rhs for every shift, x (p, m·k)."""

        def apply(V: Array) -> Array:
            return self.engine.fvp(scores, weights, mean, V, scale, 0.0)

        return self.shifted_cg_callable(apply, shifts, rhs, rtol, atol, max_iterations, threads)

    def shifted_cg_triangle(
        self,
        triangle: Triangle,
        scale: float,
        shifts: list[float],
        rhs: Array,
        rtol: float,
        atol: float,
        max_iterations: int,
        threads: int,
    ) -> CGOutcome:
        """Solve (scale · T + shift) x = rhs for every shift, x (p, m·k)."""

        def apply(V: Array) -> Array:
            return triangle.product(V, scale, threads)

        return self.shifted_cg_callable(apply, shifts, rhs, rtol, atol, max_iterations, threads)

    def shifted_cg_callable(
        self,
        apply: Any,
        shifts: list[float],
        rhs: Array,
        rtol: float,
        atol: float,
        max_iterations: int,
        threads: int,  # noqa: ARG002
    ) -> CGOutcome:
        """Solve apply(x) + shift · x = rhs for every shift, x (p, m·k)."""
        return shifted_conjugate_gradients(
            self.engine, apply, shifts, rhs, rtol, atol, max_iterations
        )
