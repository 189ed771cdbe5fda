"""Nielsen's rule: a damping between bounds that follows how far steps keep their promise."""

from collections.abc import Iterator
from typing import Any

from fastfisher import _check

__all__ = ["Nielsen"]


class Nielsen:
    """λ between its bounds: times max(1/3, 1 − (2ρ − 1)³) after a step of gain ratio ρ is taken.

    After steps in a row that are not, it grows by 2, 4, 8, … The rule is of H. B. Nielsen,
    "Damping parameter in Marquardt's method", IMM-REP-1999-05, DTU, 1999.
    """

    adaptive = True

    def __init__(self, damping: Any, bounds: Any) -> None:
        self.value = _check.positive("damping", damping)
        try:
            least, most = bounds
        except (TypeError, ValueError):
            raise ValueError(
                f"damping_bounds: expected (least, most), got {bounds!r}. Give two floats."
            ) from None
        self.least = _check.positive("damping_bounds", least)
        self._most = _check.positive("damping_bounds", most)
        if self.least > self._most:
            raise ValueError(
                f"damping_bounds: expected the lesser one first, got {bounds!r}. "
                "Give (least, most)."
            )
        if not self.least <= self.value <= self._most:
            raise ValueError(
                f"damping: expected a start within damping_bounds, {self.least:g} to "
                f"{self._most:g}, got {self.value:g}. Give a start or bounds that agree."
            )
        self._growth = 2.0

    @property
    def may_grow(self) -> bool:
        """Whether it is below its upper bound."""
        return self.value < self._most

    def lower(self) -> Iterator[float]:
        """Give what is below it, the least first and 16 times as much each time, and then itself.

        Every step and gain that is damped looks small: the first of these that can be solved tells.
        """
        value = self.least
        while value < self.value:
            yield value
            value *= 16.0
        yield self.value

    def grow(self) -> bool:
        """Raise λ after a step that was refused; False at the upper bound."""
        if not self.may_grow:
            return False
        self.value = min(self._most, self.value * self._growth)
        self._growth *= 2.0
        return True

    def follow(self, ratio: float) -> None:
        """Shrink λ after a step that kept its promise, raise it a little after one that did not."""
        factor = max(1 / 3, 1 - (2 * min(ratio, 1.0) - 1) ** 3)
        self.value = min(self._most, max(self.least, self.value * factor))
        self._growth = 2.0
