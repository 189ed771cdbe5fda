"""Root on a device: the R of a QR factorisation, streamed."""

from fastfisher._ops.engine import Bound

__all__ = ["Root"]


class Root(Bound):
    """Not yet."""
