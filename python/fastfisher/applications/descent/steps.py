"""Steps: from a gradient and a Fisher to a change of the parameters, and the gain it promises."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher.applications.descent.model import Point
from fastfisher.applications.nielsen import Nielsen
from fastfisher.errors import NonFiniteError
from fastfisher.solvers.solve import solve_system

__all__ = ["Damping", "Fixed", "Step", "Steps"]


class Fixed:
    """λ that stays as it is given."""

    adaptive = may_grow = False

    def __init__(self, damping: Any) -> None:
        self.value = damping

    def lower(self) -> Iterator[Any]:
        """Give λ alone: it is part of what was asked for."""
        yield self.value

    def grow(self) -> bool:
        """Return False: it may not."""
        return False

    def follow(self, ratio: float) -> None:
        """Stay."""


Damping = Fixed | Nielsen


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

    def direction(self, point: Point, damping: Damping) -> tuple[Any, float]:
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

    def arrived(self, point: Point, decrement: float, damping: Damping, tolerance: float) -> bool:
        """Tell whether the decrement is small, that of the least λ that can be solved too."""
        if decrement > tolerance:
            return False
        for value in damping.lower():
            if value is damping.value:
                break
            least = self._solved(point, value, "nan")[1]
            if math.isfinite(least):
                return least <= tolerance
        return True

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
