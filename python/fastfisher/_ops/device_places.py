"""Places: where the blocks of each size stand, so that all of one size are handled at once."""

from typing import Any

import numpy as np

from fastfisher._ops.array_batches import Columns
from fastfisher._ops.engine import Engine
from fastfisher._ops.types import Array

__all__ = ["Places"]

Integers = np.ndarray[Any, np.dtype[np.intp]]


class Places:
    """Blocks of rows, sorted into stacks of one kind each.

    Parameters
    ----------
    starts, lengths : array of int
        The rows of each block; the blocks follow on one another.
    kinds : array of int
        Blocks of one kind, which have one length, make a stack, in their order.

    Attributes
    ----------
    members : list of array of int
        The blocks of each stack.
    columns : list of Columns
        Their rows, one block after another.
    """

    __slots__ = ("_back", "_order", "_xp", "columns", "first", "last", "members")

    def __init__(
        self, engine: Engine, starts: Integers, lengths: Integers, kinds: Integers
    ) -> None:
        self._xp = engine.xp
        self.members = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
        rows = [
            (starts[some][:, None] + np.arange(lengths[some[0]])).reshape(-1)
            for some in self.members
        ]
        order = np.concatenate(rows)
        self.first, self.last = int(starts[0]), int(starts[0]) + len(order)
        self._order = self._back = None
        if (order[1:] < order[:-1]).any():  # not in one run already
            self._order = engine.from_host(order)
            self._back = engine.from_host(np.argsort(order))
        self.columns, at = [], 0
        for some, own in zip(self.members, rows, strict=True):
            index = None if self._order is None else self._order[at : at + len(own)]
            at += len(own)
            self.columns.append(Columns(len(some), int(lengths[some[0]]), int(own[0]), index))

    def gathered(self, V: Array) -> list[Array]:
        """Return the rows of V (p, …) in stacks (blocks, length, …)."""
        rows = V[self.first : self.last]
        if self._order is not None:
            rows = self._xp.take(V, self._order, axis=0)
        out, at = [], 0
        for one in self.columns:
            end = at + one.blocks * one.length
            out.append(rows[at:end].reshape(one.blocks, one.length, *V.shape[1:]))
            at = end
        return out

    def joined(self, stacks: list[Array]) -> Array:
        """Return what `gathered` takes apart, from `first` to `last`."""
        flat = [one.reshape(one.shape[0] * one.shape[1], *one.shape[2:]) for one in stacks]
        rows = flat[0] if len(flat) == 1 else self._xp.concat(flat)
        return rows if self._back is None else self._xp.take(rows, self._back, axis=0)
