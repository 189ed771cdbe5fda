"""Frequent directions: few rows that stand for many, with a bound on what was lost."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from fastfisher.errors import NonFiniteError
from fastfisher.fisher.spectrum import cutoff

__all__ = ["Sketch"]

# Rows to hold are 3 r: a shrink from m to r rows then costs 7.5 r p flops per new row, the least
# there is of (m² + 2 r m) p / (m − r).
_CAPACITY = 3


class Sketch:
    """Rows B for the sum A = Σ b* bᵀ of all rows ever added: BᴴB ⪯ A ⪯ BᴴB + shift · I.

    Rows are added as they are until 3 r are held. Then, with BBᴴ = Q diag(w) Qᴴ and
    δ = w_{r+1} the first eigenvalue that has no place, B becomes
    diag(1 − δ/w)^½ Qᴴ B, r rows whose BᴴB has the eigenvalues w − δ (Liberty 2013; Ghashami,
    Liberty, Phillips and Woodruff, "Frequent directions", SIAM J. Comput. 45 (2016) 1762).
    `shift` = Σ δ, and `lost` = tr A − tr BᴴB ≥ (r + 1) shift.

    A sketch is a value: adding gives a new one, and rows that were once written stay, so those who
    read them need no lock and no copy.

    Eigenvalues of BBᴴ no larger than m · eps · w_max are rounding of the Gram matrix, and their
    directions are dropped: those of scores smaller than √(m eps) of the largest, which a sketch by
    QR would keep, and which are below the rounding of A itself.
    """

    __slots__ = ("_buffer", "_count", "_kept", "lost", "ops", "rank", "shift")

    def __init__(
        self,
        ops: ModuleType,
        rank: int,
        rows: Any,
        *,
        lost: float = 0.0,
        shift: float = 0.0,
        kept: float | None = None,
    ) -> None:
        self.ops, self.rank, self._buffer, self._count = ops, rank, rows, rows.shape[0]
        self.lost, self.shift = lost, shift
        self._kept = _squares(ops, rows) if kept is None else kept  # tr BᴴB

    @property
    def spread(self) -> float:
        """What is to be spread over all directions: `lost`, or 0 while that is mere rounding."""
        return self.lost if self.shift > 0.0 else 0.0

    @staticmethod
    def capacity(rank: int) -> int:
        """Return how many rows are held at most."""
        return _CAPACITY * rank

    @property
    def rows(self) -> Any:
        """B, (m, p), m ≤ 3 r."""
        return self._buffer[: self._count]

    def moved(self, source: ModuleType, target: ModuleType) -> "Sketch":
        """Return a copy for the arrays of another library."""
        rows = target.from_host(source.to_host(self.rows))
        return Sketch(target, self.rank, rows, lost=self.lost, shift=self.shift)

    def scaled(self, factor: float) -> "Sketch":
        """Return the sketch of factor · A."""
        return Sketch(
            self.ops,
            self.rank,
            self.rows * self._buffer.real.dtype.type(math.sqrt(factor)),
            lost=self.lost * factor,
            shift=self.shift * factor,
        )

    def extended(
        self,
        count: int,
        write: Callable[[slice, Any], None],
        *,
        lost: float = 0.0,
        shift: float = 0.0,
        threads: int = 0,
    ) -> "Sketch":
        """Return the sketch with `count` more rows, which ``write(which, out)`` writes to `out`.

        `lost` and `shift` are what another sketch, whose rows they are, had lost already.

        Raises
        ------
        NonFiniteError
            If rows, or their squares, are not finite.
        """
        new = Sketch(
            self.ops,
            self.rank,
            self.rows,
            lost=self.lost + lost,
            shift=self.shift + shift,
            kept=self._kept,
        )
        new._buffer = self._buffer  # what others do not read of it may be written to
        private, start, checked = False, 0, self._count
        while start < count:
            if new._count == self.capacity(self.rank):
                new._shrink(private, threads)
                private, checked = True, new._count
            elif new._count == new._buffer.shape[0]:
                grown = self.ops.empty(
                    (self.capacity(self.rank), self._buffer.shape[1]), self._buffer.dtype
                )
                grown[: new._count] = new.rows
                new._buffer, private = grown, True
            stop = min(count, start + new._buffer.shape[0] - new._count)
            end = new._count + stop - start
            write(slice(start, stop), new._buffer[new._count : end])
            start, new._count = stop, end
        new._kept += _squares(self.ops, new.rows[checked:])
        _finite(new._kept, np.float64)
        dtype = self._buffer.dtype
        if new._kept + new.lost > float(np.finfo(dtype).max):
            # The trace has left the range, which the diagonal, a share of it each, need not have.
            with np.errstate(over="ignore"):
                largest = (abs(new.rows) ** 2).sum(axis=0).max() + new.lost / new.rows.shape[1]
            _finite(float(largest), dtype)
        return new

    def _shrink(self, private: bool, threads: int) -> None:
        """Go back to r rows, in the same memory if nobody else can have seen it."""
        xp, rows = self.ops.xp, self.rows
        gram = self.ops.Triangle(self._count, rows.dtype)
        gram.set_gram(rows, None, None, False, threads)
        with np.errstate(over="ignore"):
            _finite(float(gram.diagonal().sum()), rows.dtype)
        values, Q = self.ops.eigh(gram.to_dense(1.0))
        least = cutoff(values, self._count)
        delta = float(values[-self.rank - 1])
        delta = delta if delta > least else 0.0
        self.shift += delta
        kept = values > max(delta, least)  # at most r: the one that gave δ is not
        left = values[kept] - delta
        # Signed: the rounding of eigenvalues adds up to that of their sum, which is far less.
        gone = float(values.sum(dtype="float64")) - float(left.sum(dtype="float64"))
        self.lost = max(self.lost + gone, 0.0)
        self._kept = float(left.sum(dtype="float64"))
        turn = (Q[:, kept] * xp.sqrt(left / values[kept])).astype(rows.dtype, copy=False)
        to = self._buffer if private else self.ops.empty(self._buffer.shape, rows.dtype)
        count = turn.shape[1]
        self.ops.recombine(turn, rows, to[:count], threads)
        self._buffer, self._count = to, count


def _squares(ops: ModuleType, rows: Any) -> float:
    """Return the sum of the squares of all entries."""
    flat = rows.reshape(-1)  # in one run, so that this is no copy
    with np.errstate(over="ignore", invalid="ignore"):
        return float(ops.xp.vdot(flat, flat).real)


def _finite(size: float, dtype: Any) -> None:
    if not size <= float(np.finfo(dtype).max):
        raise NonFiniteError(
            f"scores: expected finite sums, got {size}, though every value is finite. "
            "Scale the scores down."
        )
