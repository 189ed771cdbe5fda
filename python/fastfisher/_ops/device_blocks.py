"""Blocks on a device: block-diagonal and block-tridiagonal sums, and their factors."""

from fastfisher._ops.engine import Bound

__all__ = ["BlockFactor", "Blocks"]


class Blocks(Bound):
    """Not yet."""


class BlockFactor(Bound):
    """Not yet."""
