"""Patches on a device: one side of a layer, unfolded a few rows at a time."""

from fastfisher._ops.engine import Bound

__all__ = ["Patches"]


class Patches(Bound):
    """Not yet."""
