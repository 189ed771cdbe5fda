"""Additive representations: sums over samples that merge, decay and copy, whatever they are of."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Number
from types import ModuleType
from typing import Any, Self

import numpy as np

from fastfisher import _check
from fastfisher._ops import for_dtype, ops_of
from fastfisher._ops.conjugates import squares
from fastfisher._turns import Whole, in_order, new_lock
from fastfisher.errors import NonFiniteError
from fastfisher.fisher.protocol import Fisher, moved

__all__ = ["Additive"]


class Additive(Fisher):
    """A representation that holds sums over samples, with the sum of their weights.

    Several threads may use one: they take turns, and what one reads belongs together. A batch is
    in it wholly or not at all, also after Ctrl-C.
    """

    _lock: Any
    # Whether the first samples may still say of which library the sums are.
    _open: bool
    # What `_moved` copies from library to library.
    _held_names: tuple[str, ...] = ("_sums", "_mean")

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

    @abstractmethod
    def _make_empty(self) -> None:
        """Take the sums over no samples, of the library of `_ops`."""

    # ---- of which library the sums are ----
    def _begin(self, like: Any) -> None:
        """Hold nothing, for arrays of the kind of `like`, or if that is None of the first ones."""
        self._open = like is None
        self._ops = for_dtype(ops_of(like), self._dtype)
        self._weight_sum = 0.0
        self._n_samples = 0
        self._lock = new_lock()
        self._make_empty()

    def _ops_for(self, array: Any) -> ModuleType:
        """Return the verbs for an update with `array`."""
        return for_dtype(ops_of(array), self._dtype) if self._open else self._ops

    @contextmanager
    def _settled(self, ops: ModuleType) -> Iterator[None]:
        """Hold sums of this library from now on, unless the first ones fail to be added."""
        was_open, before = False, self._ops
        try:
            with self._lock:
                was_open, before, self._open = self._open, self._ops, False
                if was_open:
                    self._hold(ops)
            yield
        except BaseException:
            with self._lock:
                if was_open and self._n_samples == 0:
                    self._hold(before)
                    self._open = True
            raise

    def _hold(self, ops: ModuleType) -> None:
        """Hold empty sums of this library."""
        if ops is not self._ops:
            self._ops = ops
            self._make_empty()

    def _moved(self, ops: ModuleType) -> Self:
        ops = for_dtype(ops, self._dtype)
        twin = object.__new__(type(self))
        with self._lock:
            twin.__dict__.update(self.__dict__)
            for name in self._held_names:
                twin.__dict__[name] = moved(self.__dict__[name], self._ops, ops)
        twin._ops, twin._open, twin._lock = ops, False, new_lock()
        return twin

    # ---- what follows ----
    def copy(self) -> Self:
        """Return one of its own with the same content.

        Examples
        --------
        >>> import numpy as np, fastfisher as ff
        >>> F = ff.DiagonalFisher.from_scores([[1.0, 0.0], [1.0, 2.0]])
        >>> later = F.copy().update([[3.0, 0.0]])
        >>> F.n_samples, later.n_samples
        (2, 3)
        """
        return type(self)._from_state(self._state())  # type: ignore[return-value]

    def merge(self, *others: Self) -> Self:
        """Add what the others hold, in the order given, and return self.

        They must agree in class, size, dtype, center and reduction.

        Raises
        ------
        NonFiniteError
            If a diagonal, dense or block-diagonal sum overflows; nothing more is added then.
        TypeError, ValueError
            If they do not agree.

        Examples
        --------
        >>> import numpy as np, fastfisher as ff
        >>> F = ff.DiagonalFisher.from_scores([[1.0, 0.0]])
        >>> F.merge(ff.DiagonalFisher.from_scores([[1.0, 2.0]])).diagonal()
        array([1., 2.])
        """
        return self._merge(others, check_finite=True)

    def _merge(self, others: tuple[Self, ...], *, check_finite: bool) -> Self:
        ops = None if self._open else self._ops
        for other in others:
            self._check_mergeable(other, ops)
            if ops is None and not other._open:  # of its library all will be
                ops = other._ops
        for other in others:
            first, second = in_order(self._lock, other._lock)
            with first, second, Whole(), np.errstate(all="ignore"):  # none may raise half-way
                if other._open:  # nothing yet, and of no library
                    continue
                with self._settled(other._ops):
                    if check_finite:
                        self._refuse_overflow(
                            other._sums_diagonal(), other._mean_or_none(), other._weight_sum
                        )
                    self._add_sums(other)
                    self._join(other._mean_or_none(), other._weight_sum, other._n_samples)
        return self

    def decay(self, factor: float) -> Self:
        """Keep `factor` (0 … 1) of the old sums and their weight, and return self.

        ``F.decay(0.95).update(batch)`` is an exponentially weighted average: the mean of a
        mean-reduced F is unchanged by decay alone.

        Examples
        --------
        >>> import numpy as np, fastfisher as ff
        >>> F = ff.DiagonalFisher.from_scores([[1.0, 0.0], [1.0, 2.0]]).decay(0.5)
        >>> F.weight_sum, F.update([[2.0, 0.0]]).diagonal()  # (0.5 (1 + 1) + 4) / 2, 0.5 · 4 / 2
        (1.0, array([2.5, 1. ]))
        """
        kept = _check.cut("factor", factor)
        if kept > 1.0:
            raise ValueError(
                f"factor: expected at most 1, got {factor}. It is what is kept of the old: 0.95 "
                "forgets a twentieth."
            )
        with self._lock, Whole(), np.errstate(all="ignore"):
            self._scale_sums(kept)
            self._weight_sum *= kept
        return self

    def __add__(self, other: Any) -> Any:
        """Return the Fisher of both sets of samples; so does ``sum`` of any number of them."""
        if isinstance(other, Additive):
            return self.copy().merge(other)
        if isinstance(other, int) and other == 0:  # with which `sum` begins
            return self.copy()
        if isinstance(other, np.ndarray | Number):
            raise TypeError(
                f"+: expected another {type(self).__name__}, got {type(other).__name__}. What a "
                "prior knows is added by add_prior, a ridge by damping=."
            )
        return NotImplemented

    __radd__ = __add__

    def _sums_diagonal(self) -> Any:
        """Return the diagonal of the sums, (p,), None where that is not for the asking."""
        return None

    def _refuse_overflow(self, added: Any, mean: Any, total: float) -> None:
        """Raise if the sums with those of the diagonal `added` would overflow: nothing has changed.

        No entry of a positive semi-definite sum is larger than the largest of its diagonal. Of a
        device nothing is asked, which would be to wait for it.
        """
        held = self._sums_diagonal()
        if held is None or added is None or self._ops.here():
            return
        with np.errstate(all="ignore"):
            diagonal = held + added
            own = self._mean_or_none()
            if mean is not None and own is not None and self._weight_sum > 0.0 < total:
                step = squares(mean - own)  # as `_join` adds it
                diagonal += self._weight_sum * (total / (self._weight_sum + total)) * step
        # What was not finite before came in unchecked.
        bad = ~np.isfinite(diagonal) & np.isfinite(held) & np.isfinite(added)
        if bad.any():
            place = int(bad.argmax())
            raise NonFiniteError(
                f"fisher: expected finite sums, got overflow at parameter {place}, summed in "
                f"{self._dtype}. Scale the scores down, or sum in a wider dtype.",
                column=place,
            )

    def _still(self) -> Any:
        return self._lock

    def _join(self, mean: Any, total: float, samples: int) -> None:  # noqa: ARG002
        """Account for sums that were added, taken about `mean` with the weight `total`."""
        self._weight_sum += total
        self._n_samples += samples

    def _check_mergeable(self, other: Any, ops: ModuleType | None) -> None:
        if type(other) is not type(self):
            raise TypeError(
                f"others: expected {type(self).__name__}, got {type(other).__name__}. "
                "Only representations of one class merge."
            )
        if not (ops is None or other._open or ops.name == other._ops.name):
            raise TypeError(
                f"others: expected sums of {ops.name} arrays, got sums of {other._ops.name} "
                "arrays. Nothing moves between host and device unasked: save one and load it with "
                "like=."
            )
        ours, theirs = self._conventions(), other._conventions()
        if not all(np.array_equal(ours[name], theirs[name]) for name in ours):
            name = type(self).__name__
            raise ValueError(
                f"others: expected (class, {', '.join(ours)}) = {(name, *ours.values())}, got "
                f"{(name, *theirs.values())}. Build both the same way."
            )
