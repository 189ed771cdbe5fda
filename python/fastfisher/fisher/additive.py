"""Additive representations: sums over samples that merge, decay and copy, whatever they are of."""

from abc import abstractmethod
from typing import Any, Self

import numpy as np

from fastfisher import _check
from fastfisher._turns import Whole
from fastfisher.fisher.protocol import Fisher

__all__ = ["Additive"]


class Additive(Fisher):
    """A representation that holds sums over samples, with the sum of their weights.

    Several threads may use one: they take turns, and what one reads belongs together. A batch is
    in it wholly or not at all, also after Ctrl-C.
    """

    _lock: Any

    # ---- what a representation writes ----
    @abstractmethod
    def _add_sums(self, other: Any) -> None:
        """Add another representation's sums."""

    @abstractmethod
    def _scale_sums(self, factor: float) -> None:
        """Multiply the sums."""

    def _structure(self) -> dict[str, Any]:
        """Return the arguments that tell representations of one class apart, for the state too."""
        return {"n_params": self._params}

    @classmethod
    def _structure_of(cls, state: dict[str, Any]) -> dict[str, Any]:
        """Return these arguments from a state, checked."""
        return {"n_params": _check.count("n_params", state["n_params"], 1)}

    def _conventions(self) -> dict[str, Any]:
        """Return what the numbers mean, as the constructor takes it."""
        return {
            **self._structure(),
            "dtype": str(self._dtype),
            "center": self._center,
            "reduction": self._reduction,
        }

    # ---- what follows ----
    def copy(self) -> Self:
        """Return one of its own with the same content."""
        return type(self)._from_state(self._state())  # type: ignore[return-value]

    def merge(self, *others: Self) -> Self:
        """Add what the others hold, in the order given, and return self.

        They must agree in class, size, dtype, center and reduction.
        """
        for other in others:
            self._check_mergeable(other)
        for other in others:
            # Always in the same order, so that a.merge(b) beside b.merge(a) cannot dead-lock.
            first, second = sorted((self._lock, other._lock), key=id)
            with first, second, Whole():
                self._add_sums(other)
                self._join(other._mean_or_none(), other._weight_sum, other._n_samples)
        return self

    def decay(self, factor: float) -> Self:
        """Keep `factor` (0 … 1) of the old sums and their weight, and return self.

        ``F.decay(0.95).update(batch)`` is an exponentially weighted average: the mean of a
        mean-reduced F is unchanged by decay alone.
        """
        kept = _check.cut("factor", factor)
        if kept > 1.0:
            raise ValueError(
                f"factor: expected at most 1, got {factor}. It is what is kept of the old: 0.95 "
                "forgets a twentieth."
            )
        with self._lock, Whole():
            self._scale_sums(kept)
            self._weight_sum *= kept
        return self

    def __add__(self, other: Any) -> Any:
        """Return the Fisher of both sets of samples."""
        if type(other) is not type(self):
            return NotImplemented
        return self.copy().merge(other)

    def _still(self) -> Any:
        return self._lock

    def _join(self, mean: Any, total: float, samples: int) -> None:  # noqa: ARG002
        """Account for sums that were added, taken about `mean` with the weight `total`."""
        self._weight_sum += total
        self._n_samples += samples

    def _check_mergeable(self, other: Any) -> None:
        if type(other) is not type(self):
            raise TypeError(
                f"others: expected {type(self).__name__}, got {type(other).__name__}. "
                "Only representations of one class merge."
            )
        ours, theirs = self._conventions(), other._conventions()
        if not all(np.array_equal(ours[name], theirs[name]) for name in ours):
            name = type(self).__name__
            raise ValueError(
                f"others: expected (class, {', '.join(ours)}) = {(name, *ours.values())}, got "
                f"{(name, *theirs.values())}. Build both the same way."
            )
