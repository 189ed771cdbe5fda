"""The model of a fit: the caller's residuals and Jacobian, checked, copied and differenced."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops import on_host, ops_of
from fastfisher._ops.numpy_ops import read
from fastfisher.applications.total import as_total
from fastfisher.errors import NonFiniteError
from fastfisher.fisher.operator import is_operator
from fastfisher.fisher.protocol import Fisher
from fastfisher.fisher.score import ScoreFisher
from fastfisher.solvers.qr import QR

__all__ = ["Linearisation", "Model", "Point"]

# Balance of truncation, h and h², with the rounding eps/h of a difference.
_DIFFERENCES = {"2-point": 1 / 2, "3-point": 1 / 3}


class Model:
    """r(θ) and J(θ) of a caller, who may return views of one buffer: what is kept is copied."""

    def __init__(
        self, residuals: Callable[[Any], Any], jacobian: Any, theta: Any, sigma: Any, solver: Any
    ) -> None:
        on_host("theta", theta)
        start = np.array(read("theta", theta), subok=False)
        if start.dtype.kind in "biu":
            start = start.astype(np.float64)
        if start.ndim != 1 or start.shape[0] == 0:
            raise ValueError(
                f"theta: expected shape (p,) with p ≥ 1, got {start.shape}. Give the parameters "
                "to start from as one vector."
            )
        dtype = _check.native_dtype("theta", start.dtype)
        if dtype.kind == "c":
            raise TypeError(
                f"theta: expected real numbers, got {dtype}. Give real and imaginary parts as "
                "parameters of their own."
            )
        if not callable(jacobian) and jacobian not in (None, *_DIFFERENCES):
            raise ValueError(
                f"jacobian: expected a function, None, '2-point' or '3-point', got {jacobian!r}. "
                "None takes differences of three points."
            )
        self.start = start.astype(dtype)
        self.dtype = dtype
        self.eps = float(np.finfo(dtype).eps)  # of what is known less well, θ or r
        self.params = start.shape[0]
        self.evaluations = 0
        self.weights: Any = None
        self._function, self._jacobian, self._solver = residuals, jacobian or "3-point", solver
        self._ops = ops_of(self.start)
        _check.finite_columns(self._ops, "theta", self.start, self.params, dtype)
        r = self._evaluate(self.start, None)
        self.samples = r.shape[0]
        if sigma is not None:
            self.weights = self._weights(sigma)
        loss = self._loss(r)
        if not np.isfinite(loss):
            raise NonFiniteError(
                "residuals: expected finite values and a finite sum of squares at the start, got "
                "NaN, infinity or overflow. Start from other parameters."
            )
        self._first = r

    def first(self) -> "Point":
        """Return the start, with its Jacobian."""
        point = self.point(self.start, self._first, self._loss(self._first))
        if point is None:
            raise NonFiniteError(
                "jacobian: expected finite values at the start, got NaN or infinity. Start from "
                "other parameters, or look at the derivatives there."
            )
        return point

    def at(self, theta: Any) -> Any:
        """Return r(θ) and the loss, or None where they are not finite."""
        r = self._evaluate(theta, self.samples)
        loss = self._loss(r)
        return (r, loss) if np.isfinite(loss) else None

    def point(self, theta: Any, r: Any, loss: float) -> "Point | None":
        """Return the point with its Jacobian, or None where that is not finite."""
        linear = self._linearise(theta, r)
        if linear is None or not np.isfinite(linear.diagonal).all():
            return None
        scale = float(np.sum(np.sqrt(linear.diagonal) * np.abs(theta), dtype=np.float64))
        noise = self.eps * (math.sqrt(2 * loss) + scale)
        untrue = 0.0  # falls that a J of this error may promise though they are not there
        if isinstance(self._jacobian, str):  # eps/h, as large as the truncation
            error = scale * self.eps ** (1 - _DIFFERENCES[self._jacobian])
            # Not above steps of eps^¼ of a standard error: a worse J tells of no minimum. On
            # the sets of NIST at most 4e-9 of the loss is promised, on powers of years up to all.
            untrue = min(0.5 * error**2, math.sqrt(self.eps) * loss)
        return Point(theta, r, loss, linear, noise, untrue)

    def fall(self, point: "Point", r: Any, loss: float) -> float:
        """Return the fall of the loss to r₊ as ½ (r − r₊)ᵀ W (r + r₊), which does not cancel."""
        with np.errstate(over="ignore", invalid="ignore"):
            twice = np.sum(self.weighed(point.r - r) * (point.r + r), dtype=np.float64)
        return 0.5 * float(twice) if np.isfinite(twice) else point.loss - loss

    def bend(self, point: "Point", v: Any, h: float) -> Any:
        """Return the second derivative of r along v by a step h v, None where it is not finite."""
        r = self._evaluate(point.theta + self.dtype.type(h) * v, self.samples)
        with np.errstate(over="ignore", invalid="ignore"):
            bend = ((r - point.r) / h - point.linear.jacobian @ v) * (2 / h)
        return bend if np.isfinite(bend).all() else None

    def weighed(self, r: Any) -> Any:
        """Return W r, W = diag(1/σ²)."""
        return r if self.weights is None else self.weights * r

    def _evaluate(self, theta: Any, samples: int | None) -> Any:
        self.evaluations += 1
        found = self._function(theta.copy())
        on_host("residuals", found)
        r = np.array(self._ops.to_vector("residuals", found, self.dtype))
        dtype = getattr(found, "dtype", None)
        if samples is None and getattr(dtype, "kind", "") == "f":  # ml_dtypes are of kind V
            self.eps = max(self.eps, float(np.finfo(dtype).eps))
        if r.ndim != 1 or r.shape[0] == 0 or (samples is not None and r.shape[0] != samples):
            expected = "(n,) with n ≥ 1" if samples is None else f"({samples},) as at the start"
            raise ValueError(
                f"residuals: expected shape {expected}, got {r.shape}. Return one number per "
                "observation, the same ones for all parameters."
            )
        return r

    def _loss(self, r: Any) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            return 0.5 * float(np.sum(self.weighed(r) * r, dtype=np.float64))

    def _weights(self, sigma: Any) -> Any:
        scale = self._ops.to_vector("sigma", sigma, self.dtype)
        if scale.ndim > 1 or (scale.ndim == 1 and scale.shape[0] != self.samples):
            raise ValueError(
                f"sigma: expected a number or shape ({self.samples},), got {scale.shape}. Give "
                "the standard deviation of each observation."
            )
        if not bool(((scale > 0) & (scale < np.inf)).all()):
            raise ValueError(
                "sigma: expected positive finite numbers, got another. Leave an observation out "
                "rather than give it an infinite one."
            )
        with np.errstate(over="ignore", divide="ignore"):  # then the loss is not finite
            return np.broadcast_to(1 / scale**2, (self.samples,)).astype(self.dtype)

    def _linearise(self, theta: Any, r: Any) -> "Linearisation | None":
        if isinstance(self._jacobian, str):
            return self._of_rows(r, self._differences(theta, r))
        found = self._jacobian(theta.copy())
        if _is_pair(found):
            F, scale = as_total(found[0])
            gradient = self._ops.to_vector("jacobian", found[1], self.dtype)
            if F.shape[0] != self.params or gradient.shape != (self.params,):
                raise ValueError(
                    f"jacobian: expected a Fisher of {self.params} parameters and a gradient "
                    f"({self.params},), got {F.shape} and {gradient.shape}. They are JᵀWJ and JᵀWr."
                )
            if not np.isfinite(gradient).all():
                return None
            return Linearisation(F, scale, gradient.copy(), None, None, self._solver or "auto")
        J = np.array(self._ops.to_array("jacobian", found), dtype=self.dtype)
        if J.shape != (self.samples, self.params):
            raise ValueError(
                f"jacobian: expected shape ({self.samples}, {self.params}), one row per residual, "
                f"got {J.shape}. Its entries are ∂r_i/∂θ_j."
            )
        return self._of_rows(r, J)

    def _of_rows(self, r: Any, J: Any) -> "Linearisation | None":
        with np.errstate(over="ignore", invalid="ignore"):
            gradient = J.T @ self.weighed(r)
        if not (np.isfinite(J).all() and np.isfinite(gradient).all()):
            return None
        F = ScoreFisher(J, weights=self.weights, reduction="sum", check_finite=False)
        return Linearisation(F, 1.0, gradient, J, r, self._solver or QR())

    def _differences(self, theta: Any, r: Any) -> Any:
        """Return J by differences, whose steps are what θ ± h really differ by."""
        J = np.empty((self.samples, self.params), self.dtype)
        central = self._jacobian == "3-point"
        relative = self.eps ** _DIFFERENCES[self._jacobian]
        for j in range(self.params):
            h = self.dtype.type(relative * (abs(theta[j]) or 1.0))
            ahead, behind = theta.copy(), theta.copy()
            ahead[j] += h
            behind[j] -= h if central else 0
            other = self._evaluate(behind, self.samples) if central else r
            with np.errstate(over="ignore", invalid="ignore"):
                difference = self._evaluate(ahead, self.samples) - other
                J[:, j] = difference / (ahead[j] - behind[j])
        return J


def _is_pair(found: Any) -> bool:
    """Tell whether this is (JᵀWJ, JᵀWr), and not the two rows of a Jacobian."""
    if not isinstance(found, tuple | list) or len(found) != 2:
        return False
    if is_operator(found[0]) and not isinstance(found[0], Fisher):
        raise TypeError(
            "jacobian: expected J, or a Fisher or matrix JᵀWJ with the gradient, got products "
            "alone. Steps and stopping rules need its diagonal: F.to_dense() has it."
        )
    return isinstance(found[0], Fisher) or np.ndim(found[0]) == 2


class Linearisation:
    """r(θ + δ) ≈ r + J δ as a Fisher: c F = JᵀWJ, of the rows of J or of any representation."""

    def __init__(
        self, fisher: Fisher, scale: float, gradient: Any, jacobian: Any, r: Any, solver: Any
    ) -> None:
        self.fisher, self.gradient, self.jacobian = fisher, gradient, jacobian
        self.diagonal = scale * fisher.diagonal()
        self._scale, self._r, self._solver = scale, r, solver

    @property
    def rows(self) -> bool:
        """Whether F holds the rows of J, so that residuals can be its targets."""
        return self.jacobian is not None

    def step(self, shift: Any, r: Any = None) -> Any:
        """Return δ that minimises ½ ‖√W (r + J δ)‖² + ½ δᵀ diag(shift) δ, r(θ) if none is given."""
        if self.rows:
            F: Any = self.fisher
            targets = -(self._r if r is None else r)
            return F.least_squares(targets, damping=shift, solver=self._solver).value
        damping = shift / self._scale
        return self.fisher.solve(-self.gradient, damping=damping, solver=self._solver) / self._scale

    def curvature(self, delta: Any) -> float:
        """Return δᵀ JᵀWJ δ."""
        return self._scale * float(self.fisher.quadratic_form(delta))


class Point:
    """Parameters that a fit has reached, with all that is known there."""

    __slots__ = ("blur", "linear", "loss", "noise", "r", "rounding", "theta")

    def __init__(
        self,
        theta: Any,
        r: Any,
        loss: float,
        linear: Linearisation,
        noise: float,
        untrue: float,
    ) -> None:
        self.theta, self.r, self.loss, self.linear = theta, r, loss, linear
        # What rounding of r and θ does to ‖r‖, eps (‖r‖ + Σ ‖J_j‖ |θ_j|), and what it does to the
        # loss; and what may be promised there though the loss cannot fall any more.
        self.noise = noise
        self.rounding = math.sqrt(2 * loss) * noise
        self.blur = self.rounding + untrue
