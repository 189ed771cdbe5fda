"""LayerScores on a device: the two sides of a layer, whose products are the scores."""

from fastfisher._ops.engine import Bound

__all__ = ["LayerScores"]


class LayerScores(Bound):
    """Not yet."""
