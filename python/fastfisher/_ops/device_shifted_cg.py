"""Shifted conjugate gradients on a device: one Krylov space for a whole path of dampings.

The iteration is that of ``shifted_cg.cpp``: one Lanczos step per product, then each damping its own
recurrence, here all at once. The host waits for the device once per step.
"""

from collections.abc import Callable

import numpy as np

from fastfisher import _check
from fastfisher._ops.device_cg import conjugate_gradients, patience
from fastfisher._ops.engine import Engine
from fastfisher._ops.types import Array, CGOutcome
from fastfisher._status import Status

__all__ = ["shifted_conjugate_gradients"]


def shifted_conjugate_gradients(
    engine: Engine,
    apply: Callable[[Array], Array],
    shifts: list[float],
    rhs: Array,
    rtol: float,
    atol: float,
    max_iterations: int,
) -> CGOutcome:
    """Solve apply(x) + shift · x = rhs for every shift, x (p, m·k), side by side.

    Returns x, and NumPy's status, iterations and true residual of each of the m·k.
    """
    if rhs.shape[1] == 0 or not shifts:
        nothing = np.zeros(0, np.int64)
        return engine.xp.zeros((rhs.shape[0], 0), dtype=rhs.dtype), nothing, nothing, np.zeros(0)
    path = _Path(engine, apply, shifts, rhs, rtol, atol)
    for _ in range(max_iterations):
        if not path.ask():
            break
        path.lanczos()
        path.advance()
    return path.outcome(max_iterations)


class _Path:
    """Lanczos vectors v (p, k) in units of ‖b‖, and x, d (p, m·k) of every damping."""

    def __init__(
        self,
        engine: Engine,
        apply: Callable[[Array], Array],
        shifts: list[float],
        rhs: Array,
        rtol: float,
        atol: float,
    ) -> None:
        xp = self.xp = engine.xp
        self.engine, self.apply, self.times = engine, apply, len(shifts)
        self.real = _check.real_of(rhs.dtype)
        self.eps = float(np.finfo(self.real).eps)
        self.patience = patience(rhs.shape[0])
        norm = engine.norms(rhs)
        usable = (norm > 0) & xp.isfinite(norm)
        safe = xp.where(usable, norm, 1.0)
        wide = rhs.astype(np.complex128 if rhs.dtype.kind == "c" else np.float64)
        self.b = xp.where(usable, wide / safe, 0.0).astype(rhs.dtype)
        self.v, self.before = self.b.copy(), xp.zeros_like(rhs)
        zeros = xp.zeros_like(norm)
        self.alpha, self.beta, self.next, self.size = zeros, zeros, zeros, zeros
        # One number for every damping and right-hand side from here on.
        self.norm, self.usable = self._all(norm), self._all(usable)
        self.tolerance = self._all(xp.maximum(zeros + rtol, atol / safe))
        self.damping = xp.asarray(
            [shift for shift in shifts for _ in range(rhs.shape[1])], dtype=np.float64
        )
        self.active = self.usable & (self.tolerance < 1.0)
        begun = xp.where(self.active, self._whole(Status.MAX_ITERATIONS), 0)
        bad = ~xp.isfinite(self.norm)
        self.verdict = xp.where(bad, self._whole(Status.NON_FINITE), begun)
        self.iterations, self.best_at = self._whole(0), self._whole(0)
        self.inverse = xp.zeros_like(self.norm)
        self.sigma, self.best = xp.ones_like(self.norm), xp.ones_like(self.norm)
        self.d = self._all(self.b)
        self.x = xp.zeros_like(self.d)

    def _all(self, of_columns: Array) -> Array:
        """Return what every damping has of each column: (k,) or (p, k) side by side."""
        return self.xp.concat([of_columns] * self.times, axis=of_columns.ndim - 1)

    def _whole(self, number: int) -> Array:
        return self.xp.full(self.damping.shape[0], int(number), dtype=np.int64)

    def ask(self) -> bool:
        """Tell whether any system is at work; waits for the device."""
        return bool(self.engine.read(self.xp.any(self.active).reshape(1))[0])

    def lanczos(self) -> None:
        """Take β₊ v₊ = A v − α v − β v₋ for every right-hand side."""
        xp, engine = self.xp, self.engine
        Av = self.apply(self.v)
        self.beta = self.next
        self.size = xp.maximum(self.size, engine.norms(Av))
        Av = Av - self.beta.astype(self.real) * self.before
        self.alpha = engine.dots(self.v, Av)
        Av = Av - self.alpha.astype(self.real) * self.v
        self.next = engine.norms(Av)
        some = self.next > 0
        inverse = xp.where(some, 1.0 / xp.where(some, self.next, 1.0), 0.0)
        self.before, self.v = self.v, inverse.astype(self.real) * Av

    def advance(self) -> None:
        """Step every system along its direction, and take its next direction."""
        xp, engine = self.xp, self.engine
        alpha, beta, following, size = map(self._all, (self.alpha, self.beta, self.next, self.size))
        pivot = alpha + self.damping - beta * (beta * self.inverse)
        # The curvature dᵀ(A + λI)d is σ²δ, and no more of it is known than this.
        square = xp.where(self.active, self.sigma * self.sigma, 1.0)
        rounding = self.eps * (size + self.damping) * engine.dots(self.d, self.d) / square
        finite = xp.isfinite(pivot) & xp.isfinite(following) & xp.isfinite(rounding)
        on = self.active
        self._stop(on & ~finite, Status.NON_FINITE)
        self._stop(on & finite & (pivot <= -rounding), Status.NEGATIVE_CURVATURE)
        self._stop(on & finite & (pivot > -rounding) & (pivot <= rounding), Status.STAGNATED)
        on = self.active
        inverse = xp.where(on, 1.0 / xp.where(on, pivot, 1.0), 0.0)
        ratio = xp.where(on, following * inverse, 0.0)
        self.inverse = xp.where(on, inverse, self.inverse)
        self.sigma = xp.where(on, -self.sigma * ratio, self.sigma)
        x = self.x + inverse.astype(self.real) * self.d
        sigma, keep = self.sigma.astype(self.real), (ratio * ratio).astype(self.real)
        d = sigma * self._all(self.v) + keep * self.d
        self.x, self.d = xp.where(on, x, self.x), xp.where(on, d, self.d)
        residual = xp.abs(self.sigma)
        self.iterations = self.iterations + on.astype(np.int64)
        better = on & (residual < self.best / 2)
        stuck = on & ~better & (self.iterations - self.best_at > self.patience)
        self.best = xp.where(better, residual, self.best)
        self.best_at = xp.where(better, self.iterations, self.best_at)
        self._stop(stuck, Status.STAGNATED)
        self._stop(on & (residual <= self.tolerance), Status.SUCCESS)

    def _stop(self, which: Array, verdict: Status) -> None:
        self.active = self.active & ~which
        self.verdict = self.xp.where(which, self._whole(verdict), self.verdict)

    def outcome(self, max_iterations: int) -> CGOutcome:
        """Return x in the caller's units, and what the true residuals say of each system."""
        xp, engine = self.xp, self.engine
        spoilt = ~xp.all(xp.isfinite(self.x), axis=0)
        self.x = xp.where(spoilt, 0.0, self.x)
        self._stop(spoilt, Status.NON_FINITE)
        damped = self.apply(self.x) + self.damping.astype(self.real) * self.x
        residual = engine.norms(self._all(self.b) - damped)
        numbers = (self.verdict, self.iterations, residual, self.tolerance, self.norm, self.damping)
        told = np.array(engine.read(xp.concat([n.astype(np.float64) for n in numbers])))
        status, iterations, residual, tolerance, norm, damping = told.reshape(6, -1)
        bad = ~np.isfinite(residual)
        failed = (status == Status.NEGATIVE_CURVATURE) | (status == Status.NON_FINITE)
        met = residual <= tolerance
        doubtful = np.flatnonzero((status == Status.SUCCESS) & ~met & ~bad & (norm > 0))
        status[met & ~failed] = Status.SUCCESS
        status[bad] = Status.NON_FINITE
        for c in doubtful.tolist():
            # The recurrence was too sure of itself: from its x on, one system alone.
            at, j = slice(c, c + 1), c % self.b.shape[1]
            shift = float(damping[c])
            x, *ended = conjugate_gradients(
                engine,
                lambda V, shift=shift: self.apply(V) + shift * V,  # type: ignore[misc]
                None,
                self.b[:, j : j + 1],
                float(tolerance[c]),
                0.0,
                max_iterations - int(iterations[c]),
                self.x[:, at],
            )
            self.x[:, at] = x
            status[c], residual[c] = float(ended[0][0]), float(ended[2][0])
            iterations[c] += float(ended[1][0])
        X, beyond, small = self._in_units()
        told = np.array(
            engine.read(xp.concat([beyond.astype(np.float64), small.astype(np.float64)]))
        )
        status[told[len(norm) :] > 0] = Status.STAGNATED  # it lost digits below the normal numbers
        status[told[: len(norm)] > 0] = Status.NON_FINITE  # the solution is beyond the numbers
        return X, status.astype(np.int64), iterations.astype(np.int64), residual

    def _in_units(self) -> tuple[Array, Array, Array]:
        """Return ‖b‖ x, and which columns leave the numbers or fall below the normal ones."""
        xp = self.xp
        unit = xp.where(self.usable, self.norm, 0.0)
        wide = self.x.astype(np.complex128 if self.x.dtype.kind == "c" else np.float64)
        X = (wide * unit).astype(self.x.dtype)
        largest = xp.max(xp.abs(X), axis=0).astype(np.float64)
        beyond = ~xp.all(xp.isfinite(X), axis=0)
        small = (largest > 0) & (largest < float(np.finfo(self.real).tiny))
        return xp.where(beyond, 0.0, X), beyond, small
