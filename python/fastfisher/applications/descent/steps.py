"""Steps: from a gradient and a Fisher to a change of the parameters, and the gain it promises."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher.applications.descent.model import Point
from fastfisher.errors import NonFiniteError
from fastfisher.solvers.solve import solve_system

__all__ = ["Damping", "Step", "Steps"]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A change Δ of the parameters: its α, ½ ΔᵀFΔ, and its slope gᵀΔ."""

    change: Any
    size: float
    kl: float
    slope: float

    @property
    def promise(self) -> float:
        """What the quadratic model says that the loss falls by."""
        return -self.slope - self.kl

    def times(self, factor: float) -> "Step":
        """Return the same direction, longer or shorter."""
        return Step(
            factor * self.change, factor * self.size, factor**2 * self.kl, factor * self.slope
        )


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """How steps are made: Δ = −α (F + λ)⁻¹ g + μ Δ₋₁, shortened until ½ ΔᵀFΔ ≤ max_kl."""

    step_size: float | Callable[[int], float]
    momentum: float
    max_kl: float | None
    damping_mode: str
    solver: Any

    def __post_init__(self) -> None:
        if not callable(self.step_size):
            _check.positive("step_size", self.step_size)
        if not _check.cut("momentum", self.momentum) < 1.0:
            raise ValueError(
                f"momentum: expected less than 1, got {self.momentum}. "
                "0.9 keeps most of the step before."
            )
        if self.max_kl is not None:
            _check.positive("max_kl", self.max_kl)

    def direction(self, point: Point, damping: "Damping") -> tuple[Any, float]:
        """Return (F + λ)⁻¹ g and ½ gᵀ(F + λ)⁻¹g; λ grows, if it may, until that can be solved."""
        while True:
            on_failure = "nan" if damping.may_grow else "raise"
            natural, decrement = self._solved(point, damping.value, on_failure)
            if math.isfinite(decrement):
                return natural, decrement
            if not damping.grow():
                raise NonFiniteError(
                    "gradient: expected a natural gradient that float64 can hold, got overflow. "
                    "Scale the loss, or add damping."
                )

    def arrived(self, point: Point, decrement: float, damping: "Damping", tolerance: float) -> bool:
        """Tell whether the decrement is small; one of a grown λ always is, so λ's start decides."""
        if decrement > tolerance:
            return False
        if not damping.grown:
            return True
        return self._solved(point, damping.start, "nan")[1] <= tolerance

    def _solved(self, point: Point, damping: Any, on_failure: str) -> tuple[Any, float]:
        solution = solve_system(
            point.fisher,
            point.gradient,
            damping=damping,
            damping_mode=self.damping_mode,
            solver=self.solver,
            on_failure=on_failure,
            diagnose=False,
        )
        natural = solution.value.astype(point.theta.dtype, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            return natural, 0.5 * float(point.gradient @ natural)

    def first(self, point: Point, natural: Any, before: Step | None, iteration: int) -> Step:
        """Return Δ, which goes on along the step `before` if there is one."""
        size = self.step_size
        if callable(size):
            size = _check.positive(f"step_size({iteration})", size(iteration))
        with np.errstate(over="ignore", invalid="ignore"):
            change = -size * natural
            if before is not None and self.momentum > 0.0:
                change = change + self.momentum * before.change
            kl = max(0.5 * point.fisher.quadratic_form(change), 0.0)
        if not math.isfinite(kl):
            raise NonFiniteError(
                f"step: expected a finite ΔᵀFΔ, got {kl}. Take shorter steps, or add damping."
            )
        step = Step(change, float(size), kl, float(point.gradient @ change))
        if self.max_kl is None or kl <= self.max_kl:
            return step
        return step.times(math.sqrt(self.max_kl / kl))


class Damping:
    """λ, which follows the gain ratio between its bounds if it is adaptive.

    Growing doubles the next growth, a good step shrinks λ to a third at most: the rule of
    H. B. Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05 (1999).
    """

    def __init__(self, value: Any, adaptive: bool, bounds: Any) -> None:
        self.value = self.start = value
        self.adaptive = _check.flag("adaptive", adaptive)
        if not self.adaptive:
            return
        self._least, self._most = _bounds(bounds)
        self.value = self.start = _check.positive("damping", value)
        if not self._least <= self.value <= self._most:
            raise ValueError(
                f"damping: expected a start within damping_bounds, {self._least:g} to "
                f"{self._most:g}, got {self.value:g}. Give a start or bounds that agree."
            )
        self._growth = 2.0

    @property
    def may_grow(self) -> bool:
        """Whether it is adaptive and below its upper bound."""
        return self.adaptive and self.value < self._most

    @property
    def grown(self) -> bool:
        """Whether it is adaptive and above its start."""
        return self.adaptive and bool(self.value > self.start)

    def grow(self) -> bool:
        """Raise λ after a step that was refused; False at the upper bound."""
        if not self.may_grow:
            return False
        self.value = min(self._most, self.value * self._growth)
        self._growth *= 2.0
        return True

    def follow(self, ratio: float) -> None:
        """Shrink λ after a step that kept its promise, raise it a little after one that did not."""
        if self.adaptive:
            factor = max(1 / 3, 1 - (2 * min(ratio, 1.0) - 1) ** 3)
            self.value = min(self._most, max(self._least, self.value * factor))
            self._growth = 2.0


def _bounds(bounds: Any) -> tuple[float, float]:
    try:
        least, most = bounds
    except (TypeError, ValueError):
        raise ValueError(
            f"damping_bounds: expected (least, most), got {bounds!r}. Give two floats."
        ) from None
    least, most = _check.positive("damping_bounds", least), _check.positive("damping_bounds", most)
    if least > most:
        raise ValueError(
            f"damping_bounds: expected the lesser one first, got {bounds!r}. Give (least, most)."
        )
    return least, most
