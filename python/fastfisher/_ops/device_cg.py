"""Preconditioned conjugate gradients on a device: all columns in step, their states there too.

The iteration is that of ``cg.cpp``, whose branches are masks here. The host waits for the device
once per round, to learn whether any column asks for another product.
"""

import math
from collections.abc import Callable

import numpy as np

from fastfisher import _check
from fastfisher._ops.engine import Engine
from fastfisher._ops.types import Array, CGOutcome
from fastfisher._status import Status

__all__ = ["conjugate_gradients", "patience", "with_exponent"]

RESTARTS = 3  # from a true residual that the recurrence did not know of
# Right-hand sides beyond 2^±SCALE_LIMIT are solved for b / 2^e: squares of them stay in range.
SCALE_LIMIT = 60
# What a column puts into the next product: its direction d, its iterate x to learn the true
# residual, or nothing any more.
STEP, CHECK, DONE = range(3)

Operator = Callable[[Array], Array]


def patience(params: int) -> int:
    """Return after how many steps that do not halve the residual a column has stagnated."""
    return max(100, 2 * params)


def conjugate_gradients(
    engine: Engine,
    apply: Operator,
    precondition: Operator | None,
    rhs: Array,
    rtol: float,
    atol: float,
    max_iterations: int,
    start: Array | None = None,
) -> CGOutcome:
    """Solve apply(x) = rhs; return x, and NumPy's status, iterations, true residual per column."""
    if rhs.shape[1] == 0:
        return _nothing(engine, rhs)
    columns = _Columns(engine, apply, precondition, rhs, rtol, atol, max_iterations, start)
    while columns.ask():
        columns.directions()
        columns.products()
    return columns.outcome()


class _Columns:
    """The state of every column: x, r, d (p, k), and numbers (k,), all on the device."""

    def __init__(
        self,
        engine: Engine,
        apply: Operator,
        precondition: Operator | None,
        rhs: Array,
        rtol: float,
        atol: float,
        max_iterations: int,
        start: Array | None,
    ) -> None:
        xp = self.xp = engine.xp
        self.engine, self.apply, self.precondition = engine, apply, precondition
        self.max_iterations, self.patience = max_iterations, patience(rhs.shape[0])
        self.real = _check.real_of(rhs.dtype)
        self.eps = float(np.finfo(self.real).eps)
        size = engine.norms(rhs)
        finite = xp.isfinite(size)
        if start is not None:
            finite = finite & xp.all(xp.isfinite(start), axis=0)
        exponent = xp.floor(xp.log2(xp.where(finite & (size > 0), size, 1.0)))
        self.exponent = xp.where(xp.abs(exponent) > SCALE_LIMIT, exponent, 0.0)
        self.b = with_exponent(engine, rhs, -self.exponent)
        self.x = xp.zeros_like(rhs)
        if start is not None:
            self.x = xp.where(finite, with_exponent(engine, start, -self.exponent), self.x)
        unit = 2.0**-self.exponent
        self.rhs_norm = size * unit
        self.tolerance = xp.maximum(rtol * self.rhs_norm, atol * unit)
        zeros = xp.zeros_like(size)
        self.asks = self._whole(CHECK)
        self.status = self._whole(Status.SUCCESS)
        self.verdict = self._whole(Status.SUCCESS)
        self.restarts, self.iterations, self.best_at = (self._whole(0) for _ in range(3))
        self.residual, self.rho, self.size, self.best = zeros, zeros, zeros, zeros
        self.r, self.d = self.b.copy(), xp.zeros_like(rhs)
        self.started = finite & (size < 0)  # none yet: a first check only tells where x0 stands
        none = size == 0
        self.x = xp.where(none, 0.0, self.x)
        self._end(none, self._whole(Status.SUCCESS), zeros)
        self._end(~finite, self._whole(Status.NON_FINITE), zeros + math.nan)
        if start is None:
            self._proceed(finite & ~none, self.rhs_norm)

    def ask(self) -> bool:
        """Tell whether any column is not done; waits for the device."""
        asking = self.xp.any(self.asks != DONE)
        return bool(self.engine.read(asking.reshape(1))[0])

    def directions(self) -> None:
        """Take z = M⁻¹ r and d ← z + β d where a step is asked for."""
        xp, stepping = self.xp, self.asks == STEP
        z = self.r if self.precondition is None else self.precondition(self.r)
        rho = self.engine.dots(self.r, z)
        finite = xp.isfinite(rho)
        self._claim(stepping & ~finite, Status.NON_FINITE)
        # A residual so small that its square is zero, or M is not positive definite.
        lost = stepping & finite & (rho <= 0)
        some = self.engine.dots(z, z) > 0
        self._claim(lost & some, Status.NEGATIVE_CURVATURE)
        self._claim(lost & ~some, Status.STAGNATED)
        going = self.asks == STEP
        again = self.rho != 0
        beta = xp.where(going & again, rho / xp.where(again, self.rho, 1.0), 0.0)
        self.d = xp.where(going, z + beta.astype(self.real) * self.d, self.d)
        self.rho = xp.where(going, rho, self.rho)

    def products(self) -> None:
        """Multiply with A what each column puts in, and take the step or the check."""
        stepping = self.asks == STEP
        checking = self.asks == CHECK
        product = self.apply(self.xp.where(stepping, self.d, self.x))
        self._step(stepping, product)
        self._check(checking, product)

    def _step(self, stepping: Array, Ad: Array) -> None:
        """Take α = rᵀz / dᵀAd, x ← x + α d, r ← r − α A d."""
        xp, engine = self.xp, self.engine
        curvature = engine.dots(self.d, Ad)
        d_norm, Ad_norm = engine.norms(self.d), engine.norms(Ad)
        finite = xp.isfinite(curvature) & xp.isfinite(Ad_norm) & xp.isfinite(d_norm)
        self._claim(stepping & ~finite, Status.NON_FINITE)
        some = d_norm > 0
        self._claim(stepping & finite & ~some, Status.STAGNATED)
        on = stepping & finite & some
        ratio = Ad_norm / xp.where(some, d_norm, 1.0)
        self.size = xp.where(on, xp.maximum(self.size, ratio), self.size)
        rounding = self.eps * (self.size * d_norm) * d_norm
        self._claim(on & (curvature <= -rounding), Status.NEGATIVE_CURVATURE)
        self._claim(on & (curvature > -rounding) & (curvature <= rounding), Status.STAGNATED)
        on = on & (curvature > rounding)
        alpha = xp.where(on, self.rho / xp.where(on, curvature, 1.0), 0.0).astype(self.real)
        r, x = self.r - alpha * Ad, self.x + alpha * self.d
        residual = engine.norms(r)
        fits = xp.isfinite(residual) & xp.all(xp.isfinite(x), axis=0)
        self._claim(on & ~fits, Status.NON_FINITE)
        on = on & fits
        self.x, self.r = xp.where(on, x, self.x), xp.where(on, r, self.r)
        self.iterations = self.iterations + on.astype(np.int64)
        met = on & (residual <= self.tolerance)
        better = on & (residual < self.best / 2)
        stuck = on & ~better & (self.iterations - self.best_at > self.patience)
        self._progress(better, residual)
        self._claim(on & (self.iterations >= self.max_iterations), Status.MAX_ITERATIONS)
        self._claim(stuck, Status.STAGNATED)
        self._claim(met, Status.SUCCESS)

    def _check(self, checking: Array, Ax: Array) -> None:
        """Take r = b − A x, and what follows from it."""
        xp = self.xp
        r = self.b - Ax
        self.r = xp.where(checking, r, self.r)
        residual = self.engine.norms(r)
        known = xp.where(self.rhs_norm > 0, self.rhs_norm, 1.0)
        finite = xp.isfinite(residual)
        self._end(checking & ~finite, self._whole(Status.NON_FINITE), residual / known)
        on = checking & finite
        spoilt = (self.verdict == int(Status.NEGATIVE_CURVATURE)) | (
            self.verdict == int(Status.NON_FINITE)
        )
        first = on & ~self.started
        met = on & self.started & (residual <= self.tolerance) & ~spoilt
        failed = on & self.started & ~met & (self.verdict != int(Status.SUCCESS))
        doubtful = on & self.started & ~met & ~failed
        self._end(met, self._whole(Status.SUCCESS), residual / known)
        self._end(failed, self.verdict, residual / known)
        spent = doubtful & (self.restarts == RESTARTS)
        self._end(spent, self._whole(Status.STAGNATED), residual / known)
        self.restarts = self.restarts + doubtful.astype(np.int64)
        self._proceed(first | (doubtful & ~spent), residual)

    def _proceed(self, which: Array, residual: Array) -> None:
        """Go on from a true residual r that is not yet small."""
        xp = self.xp
        self.started = self.started | which
        self.rho = xp.where(which, 0.0, self.rho)
        self._progress(which, residual)
        relative = residual / xp.where(self.rhs_norm > 0, self.rhs_norm, 1.0)
        met = which & (residual <= self.tolerance)
        spent = which & ~met & (self.iterations >= self.max_iterations)
        self._end(met, self._whole(Status.SUCCESS), relative)
        self._end(spent, self._whole(Status.MAX_ITERATIONS), relative)
        self.asks = xp.where(which & ~met & ~spent, self._whole(STEP), self.asks)

    def _progress(self, which: Array, residual: Array) -> None:
        self.best = self.xp.where(which, residual, self.best)
        self.best_at = self.xp.where(which, self.iterations, self.best_at)

    def _claim(self, which: Array, verdict: Status) -> None:
        """Ask for the true residual; the column ends with `verdict` unless that disagrees."""
        self.verdict = self.xp.where(which, self._whole(verdict), self.verdict)
        self.asks = self.xp.where(which, self._whole(CHECK), self.asks)

    def _end(self, which: Array, status: Array, residual: Array) -> None:
        xp = self.xp
        self.asks = xp.where(which, self._whole(DONE), self.asks)
        self.status = xp.where(which, status, self.status)
        self.residual = xp.where(which, residual, self.residual)

    def _whole(self, number: int) -> Array:
        return self.xp.full(self.b.shape[1], int(number), dtype=np.int64)

    def outcome(self) -> CGOutcome:
        """Return x as it is without the exponent, and what is told of each column."""
        xp = self.xp
        x = with_exponent(self.engine, self.x, self.exponent)
        # What x loses, of its largest entry, where 2^e x falls below the normal numbers.
        back = with_exponent(self.engine, x, -self.exponent)
        most = xp.max(xp.abs(self.x), axis=0).astype(np.float64)
        loss = xp.max(xp.abs(self.x - back), axis=0).astype(np.float64)
        loss = loss / xp.where(most > 0, most, 1.0)
        lost = (self.exponent < 0) & (loss > 4 * self.eps)
        self._end(lost, self._whole(Status.STAGNATED), xp.maximum(self.residual, loss))
        beyond = ~xp.all(xp.isfinite(x), axis=0)  # the solution itself is beyond the numbers
        self._end(beyond, self._whole(Status.NON_FINITE), xp.ones_like(self.residual))
        x = xp.where(beyond, 0.0, x)
        numbers = [n.astype(np.float64) for n in (self.status, self.iterations, self.residual)]
        told = np.array(self.engine.read(xp.concat(numbers))).reshape(3, -1)
        return x, told[0].astype(np.int64), told[1].astype(np.int64), told[2]


def with_exponent(engine: Engine, X: Array, exponent: Array) -> Array:
    """Return 2^e x of each column, exactly; in two halves, each of which is a number of float64."""
    half = engine.xp.floor(exponent / 2)
    wide = X.astype(np.complex128 if X.dtype.kind == "c" else np.float64)
    return (wide * 2.0**half * 2.0 ** (exponent - half)).astype(X.dtype)


def _nothing(engine: Engine, rhs: Array) -> CGOutcome:
    whole = np.zeros(0, np.int64)
    return engine.xp.zeros_like(rhs), whole, whole, np.zeros(0)
