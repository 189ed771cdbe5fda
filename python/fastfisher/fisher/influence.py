"""Influence: products sᵢᵀ (F + λI)⁻¹ sⱼ of scores, from their Gram matrices alone."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastfisher.fisher.layer import LayerFisher
    from fastfisher.fisher.network_scores import NetworkScores

__all__ = ["Influence", "Points"]


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Samples x, held ones by their places or others by their scores.

    Attributes
    ----------
    cross : array (m, n)
        x · s of every held s.
    dots : array (m,) or 0
        x · m of the mean m that is subtracted.
    places : array (m,) of int, or None
    network : NetworkScores, or None
    single : bool
        Whether one was asked for by its number.
    """

    cross: Any
    dots: Any
    places: Any = None
    network: "NetworkScores | None" = None
    single: bool = False


class Influence:
    """The products under one damping, with the factor of cUUᵀ + λI kept.

    With U the rooted scores, S̃ the centred ones, and x, y centred,
    xᵀ (cUᵀU + λI)⁻¹ y = (x·y − c (Ux)ᵀ (cUUᵀ + λI)⁻¹ Uy) / λ, a difference that loses digits by
    ‖F‖ / λ. A y = Uᵀeⱼ / √wⱼ of the held has (Ux)ᵀ (cUUᵀ + λI)⁻¹ eⱼ / √wⱼ, which loses none.
    """

    def __init__(self, fisher: "LayerFisher", gram: Any, damping: float) -> None:
        self.damping = damping
        self._xp, self._ops = fisher._ops.xp, fisher._ops
        self._scale = fisher._scale
        self._root = fisher._root_weights()[:, 0]
        self._gram = gram
        self._scores = fisher._scores
        self._shares: Any = None
        self._dots: Any = 0
        self._square: Any = 0
        if fisher.center:
            self._dots, self._square = fisher._mean_dots(gram)
            self._shares = self._root**2 / fisher.weight_sum
        rooted = fisher._ops.Triangle.from_dense(fisher._rooted_gram(gram))
        self._factor = rooted.cholesky(self._scale, damping, threads=0, with_norm=False)

    # ---- samples ----
    def inside(self, places: Any, *, single: bool) -> Points:
        """Return some of the held samples."""
        dots = self._dots if self._shares is None else self._dots[places]
        return Points(self._gram[places], dots, places, single=single)

    def outside(self, network: "NetworkScores") -> Points:
        """Return other samples."""
        cross = self._scores.cross(network, 0).T
        dots = 0 if self._shares is None else cross @ self._shares
        return Points(cross, dots, network=network)

    # ---- products ----
    def products(self, x: Points, y: Points) -> Any:
        """Return xᵀ (F + λI)⁻¹ y, (len(x), len(y))."""
        if y.places is None:
            return self._differences(x, y) if x.places is None else self.products(y, x).T
        roots = self._root[y.places]
        weighed = self._xp.flatnonzero(roots)
        unit = self._ops.zeros((len(self._root), len(weighed)), self._gram.dtype)
        unit[y.places[weighed], self._xp.arange(len(weighed))] = 1 / roots[weighed]
        known = self._rooted(x) @ self._factor.solve(unit, 0)
        if len(weighed) == len(roots):
            return known
        out = self._ops.empty((len(x.cross), len(roots)), self._gram.dtype)
        out[:, weighed] = known
        rest = self._xp.flatnonzero(roots == 0)
        others = self.inside(y.places[rest], single=False)
        swap = x.places is not None and bool((self._root[x.places] > 0).all())
        out[:, rest] = self.products(others, x).T if swap else self._differences(x, others)
        return out

    def own(self, x: Points) -> Any:
        """Return xᵀ (F + λI)⁻¹ x, (len(x),)."""
        if x.places is not None and bool((self._root[x.places] > 0).all()):
            return self._xp.diagonal(self.products(x, x)).copy()
        half = self._factor.half_solve(self._xp.ascontiguousarray(self._rooted(x).T), threads=0)
        squares = self._diagonal(x) - 2 * x.dots + self._square
        return self._xp.maximum(squares - self._scale * (half**2).sum(axis=0), 0) / self.damping

    def _differences(self, x: Points, y: Points) -> Any:
        inner = self._factor.solve(self._xp.ascontiguousarray(self._rooted(y).T), 0)
        return (self._products(x, y) - self._scale * (self._rooted(x) @ inner)) / self.damping

    def _rooted(self, x: Points) -> Any:
        """Return x Uᵀ, (len(x), n), x centred."""
        if self._shares is None:
            return x.cross * self._root
        return (x.cross - x.dots[:, None] - self._dots + self._square) * self._root

    def _products(self, x: Points, y: Points) -> Any:
        """Return x · y, both centred."""
        if y.places is not None:
            plain = x.cross[:, y.places]
        elif x.places is not None:
            plain = y.cross[:, x.places].T
        else:
            plain = x.network.cross(y.network, 0)  # type: ignore[union-attr, arg-type]
        if self._shares is None:
            return plain
        return plain - x.dots[:, None] - y.dots + self._square

    def _diagonal(self, x: Points) -> Any:
        if x.network is not None:
            return x.network.norms()
        return self._xp.diagonal(self._gram)[x.places]
