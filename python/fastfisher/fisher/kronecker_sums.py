"""Sums over a network's samples: the factors of its layers, and what EKFAC and chains add."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate, pairwise
from types import ModuleType
from typing import Any, Self

import numpy as np

from fastfisher import _check, _memory
from fastfisher._ops import is_numpys, ops_of
from fastfisher._ops.border import takes_tensors
from fastfisher._turns import Whole
from fastfisher.errors import NonFiniteError
from fastfisher.fisher.additive import Additive
from fastfisher.fisher.kronecker_factor import Eigenbasis
from fastfisher.fisher.layered import Layered
from fastfisher.fisher.layers import layers_of, weight_shapes

__all__ = ["KroneckerSums"]

SHARING = ("expand", "reduce")


class KroneckerSums(Layered, Additive):
    """What a `KroneckerFisher` holds and how it grows: sums, streamed, merged, decayed and saved.

    Per layer Σ w a aᵀ and Σ w g gᵀ as triangles, `_sums` = [A, G, A, G, …]; for a chain the cross
    moments of neighbours, `_crosses` in the same order; for EKFAC the `_bases` (U_G, U_A) and in
    them the `_moments` Σ w (U_Gᵀ (Σ_t g aᵀ) U_A)². Positions are averaged in Σ w a aᵀ, so that all
    sums have the weight Σw.
    """

    _held_names = ("_sums", "_crosses", "_bases", "_moments")

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        *,
        eigen: bool = False,
        tridiagonal: bool = False,
        weight_sharing: str = "expand",
        dtype: Any = np.float64,
        center: bool = False,
        reduction: str = "mean",
        like: Any = None,
    ) -> None:
        self._shapes = weight_shapes(shapes)
        self._params = sum(rows * columns for rows, columns in self._shapes)
        self._dtype = _check.native_dtype("dtype", dtype)
        if self._dtype.kind == "c":
            raise TypeError(
                f"dtype: expected float64 or float32, got {self._dtype}. "
                "Complex scores are served as arrays: use ScoreFisher or DenseFisher."
            )
        self._eigen = _check.flag("eigen", eigen)
        self._tridiagonal = _check.flag("tridiagonal", tridiagonal)
        if self._eigen and self._tridiagonal:
            raise ValueError(
                "tridiagonal: expected False with eigen=True, got both. The chain is made of the "
                "factors, for which corrected eigenvalues have no meaning."
            )
        if weight_sharing not in SHARING:
            raise ValueError(
                f"weight_sharing: expected one of {', '.join(SHARING)}, got {weight_sharing!r}. "
                "'expand' takes each position for a sample."
            )
        self._weight_sharing = weight_sharing
        if _check.flag("center", center):
            raise ValueError(
                "center: expected False for KroneckerFisher, got True. "
                "Factors know no mean score: use LayerFisher or ScoreFisher."
            )
        self._center = False
        self._reduction = _check.reduction(reduction)
        self._begin(like)

    def _make_empty(self) -> None:
        _memory.guard(
            self._bytes(),
            type(self).__name__,
            "Split the widest layers, or use ScoreFisher.",
            self._ops,
        )
        self._sums = [self._empty(size) for shape in self._shapes for size in reversed(shape)]
        self._crosses = [
            self._ops.zeros(shape, self._dtype) for pair in self._cross_shapes() for shape in pair
        ]
        self._bases: list[tuple[Any, Any]] = []
        self._moments: list[Any] = []
        self._made: dict[Any, Any] = {}  # what was computed from the sums since they changed

    @classmethod
    def from_layers(
        cls,
        layers: Any,
        *,
        weights: Any = None,
        eigen: bool = False,
        tridiagonal: bool = False,
        weight_sharing: str = "expand",
        dtype: Any = None,
        center: bool = False,
        reduction: str = "mean",
        check_finite: bool = True,
        n_threads: int | None = None,
    ) -> Self:
        """Return the Fisher of these layers; their shapes are read from them.

        Parameters
        ----------
        layers : list of pairs (inputs, gradients), LinearLayer or Conv2dLayer
        weights : array (n,), optional
        eigen, tridiagonal, weight_sharing, dtype, center, reduction
            As in the constructor; `dtype` is by default that of the layers.
        check_finite : bool
        n_threads : int, optional

        Examples
        --------
        >>> import numpy as np, fastfisher as ff
        >>> K = ff.KroneckerFisher.from_layers([(np.ones((5, 3)), np.ones((5, 2)))])
        >>> K.shapes, K.n_samples
        ([(2, 3)], 5)
        >>> A, G = K.factors[0]
        >>> A.shape, G.shape
        ((3, 3), (2, 2))
        """
        found = layers_of(layers)
        held = max((_check.sum_dtype(s.a.x.dtype) for s in found), key=lambda d: d.itemsize)
        fisher = cls(
            [scores.shape for scores in found],
            eigen=eigen,
            tridiagonal=tridiagonal,
            weight_sharing=weight_sharing,
            dtype=_check.accumulation_dtype(dtype, held),
            center=center,
            reduction=reduction,
            like=found[0].a.x,
        )
        return fisher.update(layers, weights, check_finite=check_finite, n_threads=n_threads)

    # ---- streaming ----
    def update(
        self,
        layers: Any,
        weights: Any = None,
        *,
        check_finite: bool = True,
        n_threads: int | None = None,
    ) -> Self:
        """Add samples, and return self.

        Parameters
        ----------
        layers : list of pairs (inputs, gradients), LinearLayer or Conv2dLayer
            One for each of the shapes, of the same n samples; n = 0 changes nothing.
        weights : array (n,), optional
            Not negative; a weight of 2 counts a sample twice. All may be zero: the samples are
            counted and add nothing.
        check_finite : bool
            Raise on NaN and infinity, naming layer, row and column.
        n_threads : int, optional

        Raises
        ------
        NonFiniteError, TypeError, ValueError
            The accumulator is unchanged.
        """
        found = layers_of(layers, self._shapes)
        for scores in found:
            _check.narrowing(scores.a.x.dtype, self._dtype)
        ops = self._ops_for(found[0].a.x)
        for scores in found:
            for side in (scores.a, scores.g):  # of the library of the others
                ops.to_array("layers", side.x, halves=True)
        weights, total = _check.weights(ops, weights, found[0].samples, self._dtype, part=True)
        check = _check.flag("check_finite", check_finite)
        threads = _check.threads(n_threads)
        samples = found[0].samples
        if samples == 0:
            return self
        with self._settled(ops):
            # Summed beside what is held, so that an error leaves that as it is.
            sums, crosses = self._sums_of(found, weights, check, threads)
            with self._lock, Whole():
                bases, moments = self._bases, []
                if self._eigen and total > 0.0:
                    if not bases:
                        scale = 1 / total
                        bases = [
                            self._decomposed(sums, i, scale, scale).bases for i in range(len(found))
                        ]
                    if weights is not None and not weights.all():
                        # The squares of what weighs nothing may overflow, and 0 · inf is no sum.
                        some = weights > 0
                        found = [replace(s, a=s.a.some(some), g=s.g.some(some)) for s in found]
                        weights = weights[some]
                    moments = [
                        scores.squares(weights, self._dtype, threads, pair)
                        for scores, pair in zip(found, bases, strict=True)
                    ]
                if total > 0.0:
                    nothing = self._weight_sum == 0.0
                    with np.errstate(all="ignore"):  # what raises half-way would leave half a batch
                        self._take_in(nothing, sums, crosses, bases, moments)
                self._join(None, total, samples)
        return self

    def refresh(self) -> Self:
        """Take the eigenbasis of the factors held now, and return self.

        For EKFAC, whose basis is otherwise that of the first update. The moments become the
        diagonal, in the new basis, of the Fisher held so far, which keeps the trace. Nothing else
        has a basis that could be stale.

        Examples
        --------
        >>> import numpy as np, fastfisher as ff
        >>> rng = np.random.default_rng(0)
        >>> layers = [(rng.standard_normal((9, 3)), rng.standard_normal((9, 2)))]
        >>> K = ff.KroneckerFisher([(2, 3)], eigen=True).update(layers)
        >>> K.decay(0.9).update(layers).refresh().shape  # the basis is that of today's factors
        (6, 6)
        """
        with self._lock, Whole():
            if self._bases:
                A, G = self._scales()
                pairs = [
                    self._decomposed(self._sums, i, A, G).bases for i in range(len(self._shapes))
                ]
                self._moments = [
                    self._carried(moments, old, new)
                    for moments, old, new in zip(self._moments, self._bases, pairs, strict=True)
                ]
                self._bases = pairs
                self._made.clear()
        return self

    @property
    @takes_tensors
    def factors(self) -> list[tuple[Any, Any]]:
        """The factors (A, G) of each layer, dense: the block is ``np.kron(G, A)`` in KFAC."""
        with self._lock:
            a, g = self._scales()
            return [
                (A.to_dense(a), G.to_dense(g))
                for A, G in zip(self._sums[::2], self._sums[1::2], strict=True)
            ]

    # ---- the sums ----
    def _decomposed(self, sums: list[Any], place: int, a: float, g: float) -> Eigenbasis:
        """Return the eigenbasis of the factors of a layer; `a` and `g` scale their sums."""
        A, G = sums[2 * place : 2 * place + 2]
        return Eigenbasis.of_factors(self._ops, A.to_dense(a), G.to_dense(g), f"layer {place}")

    def _scales(self) -> tuple[float, float]:
        """Return what makes the factors A and G of their sums."""
        return (1 / self._weight_sum if self._weight_sum > 0.0 else 1.0), self._scale

    def _empty(self, size: int) -> Any:
        return self._ops.Triangle(size, self._dtype)

    def _cross_shapes(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Return the shapes of the cross moments of a and g of each two neighbours."""
        if not self._tridiagonal:
            return []
        return [((one[1], two[1]), (one[0], two[0])) for one, two in pairwise(self._shapes)]

    def __sizeof__(self) -> int:
        return super().__sizeof__() + self._bytes()  # see Accumulator

    def _bytes(self) -> int:
        sides = [size for shape in self._shapes for size in shape]
        numbers = sum(rows * columns for pair in self._cross_shapes() for rows, columns in pair)
        if self._eigen:
            numbers += self._params + sum(size * size for size in sides)
        triangles = sum(self._ops.Triangle.bytes_for(size, self._dtype) for size in sides)
        return int(triangles + numbers * self._dtype.itemsize)

    def _sums_of(
        self, found: list[Any], weights: Any, check_finite: bool, threads: int
    ) -> tuple[list[Any], list[Any]]:
        """Return sums and cross moments of some layers."""
        sides = [self._sides(scores, weights) for scores in found]
        if self._tridiagonal:
            _check_chain([a.positions for a, _, _ in sides])
        sums, crosses = [], []
        for place, (a, g, shared) in enumerate(sides):
            for rows, own, given, name in (
                (a, shared, found[place].a, "inputs"),
                (g, weights, found[place].g, "gradients"),
            ):
                triangle = self._empty(rows.width)
                with _named(given, f"layers[{place}].{name}"):
                    rows.add_moment(
                        triangle, own, fresh=True, check_finite=check_finite, threads=threads
                    )
                sums.append(triangle)
        if self._tridiagonal:
            for (a, g, shared), (next_a, next_g, _) in pairwise(sides):
                crosses.append(a.cross(next_a, shared, self._dtype, threads))
                crosses.append(g.cross(next_g, weights, self._dtype, threads))
        return sums, crosses

    def _sides(self, scores: Any, weights: Any) -> tuple[Any, Any, Any]:
        """Return the rows a and g that the factors are of, and the weights of those of a."""
        positions = scores.a.positions
        if positions == 1:
            return scores.a, scores.g, weights
        if self._weight_sharing == "reduce":
            a = scores.a.reduced(mean=True, dtype=self._dtype)
            return a, scores.g.reduced(mean=False, dtype=self._dtype), weights
        if weights is None:
            weights = self._ops.xp.ones(scores.samples, self._dtype)
        return scores.a, scores.g, weights / positions

    def _carried(self, moments: Any, old: tuple[Any, Any], new: tuple[Any, Any]) -> Any:
        """Return the diagonal, in the basis `new`, of the matrix with these moments in `old`."""
        product = self._ops.product
        left, right = (product(n.T, o, 0) ** 2 for n, o in zip(new, old, strict=True))
        return product(product(left, moments, 0), right.T, 0)

    def _add_sums(self, other: Any) -> None:
        nothing = self._weight_sum == 0.0  # also the basis of what weighs nothing gives way
        if nothing:
            other = other.copy()
        self._take_in(nothing, other._sums, other._crosses, other._bases, other._moments)

    def _take_in(self, first: bool, sums: Any, crosses: Any, bases: Any, moments: Any) -> None:
        """Add sums, or keep them if they are the first; moments are carried over to our basis."""
        self._made.clear()
        if first:
            self._sums, self._crosses, self._bases, self._moments = sums, crosses, bases, moments
            return
        for mine, theirs in zip(self._sums, sums, strict=True):
            mine.add(theirs)
        for mine, theirs in zip(self._crosses, crosses, strict=True):
            mine += theirs
        if bases:
            for mine, one, old, new in zip(self._moments, moments, bases, self._bases, strict=True):
                same = all(map(self._ops.xp.array_equal, old, new))
                mine += one if same else self._carried(one, old, new)

    def _scale_sums(self, factor: float) -> None:
        for triangle in self._sums:
            triangle.scale(factor)
        for array in (*self._crosses, *self._moments):
            array *= factor
        self._made.clear()

    # ---- copies, pickle and files ----
    def copy(self) -> Self:
        """Return one of its own with the same content."""
        with self._lock:
            twin = type(self)(**self._conventions(), like=self._sums[0].panels)
            for mine, theirs in zip(twin._sums, self._sums, strict=True):
                mine.panels[...] = theirs.panels
            twin._crosses, twin._moments = _copies(self._crosses), _copies(self._moments)
            twin._bases = [(U_G.copy(), U_A.copy()) for U_G, U_A in self._bases]
            twin._weight_sum, twin._n_samples = self._weight_sum, self._n_samples
        twin._open = twin._n_samples == 0 and is_numpys(twin._sums[0].panels)
        return twin

    def _structure(self) -> dict[str, Any]:
        return {
            "shapes": [list(shape) for shape in self._shapes],
            "eigen": self._eigen,
            "tridiagonal": self._tridiagonal,
            "weight_sharing": self._weight_sharing,
        }

    def _state(self) -> dict[str, Any]:
        join = self._ops.xp.concat
        with self._lock:
            state: dict[str, Any] = self._conventions()
            state["weight_sum"] = self._weight_sum
            state["n_samples"] = self._n_samples
            state["sums"] = join([triangle.panels for triangle in self._sums])
            if self._crosses:
                state["crosses"] = join([array.reshape(-1) for array in self._crosses])
            if self._bases:
                arrays = [array for pair in self._bases for array in pair]
                state["bases"] = join([array.reshape(-1) for array in arrays])
                state["moments"] = join([array.reshape(-1) for array in self._moments])
            return state

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        conventions = ("dtype", "center", "reduction")
        structure = ("shapes", "eigen", "tridiagonal", "weight_sharing")
        told = {name: state[name] for name in (*structure, *conventions)}
        # Before anything is allocated: is what the file holds as long as what the shapes ask for?
        shapes, dtype = weight_shapes(told["shapes"]), _check.native_dtype("dtype", told["dtype"])
        ops = ops_of(state["sums"])
        triangles = [
            ops.Triangle.length(size, dtype) for shape in shapes for size in reversed(shape)
        ]
        sums = _pieces("sums", state["sums"], [(length,) for length in triangles], dtype)
        fisher = cls(**told, like=state["sums"])
        for triangle, panels in zip(fisher._sums, sums, strict=True):
            triangle.panels[...] = panels
        crosses = [shape for pair in fisher._cross_shapes() for shape in pair]
        if crosses:
            fisher._crosses = _copies(_pieces("crosses", state["crosses"], crosses, dtype))
        if fisher._eigen and "bases" in state:
            squares = [(size, size) for shape in shapes for size in shape]
            flat = _copies(_pieces("bases", state["bases"], squares, dtype))
            fisher._bases = list(zip(flat[::2], flat[1::2], strict=True))
            fisher._moments = _copies(_pieces("moments", state["moments"], shapes, dtype))
        fisher._weight_sum = _check.cut("weight_sum", state["weight_sum"])
        fisher._n_samples = _check.count("n_samples", state["n_samples"])
        fisher._open = fisher._n_samples == 0 and is_numpys(state["sums"])
        return fisher

    def _moved(self, ops: ModuleType) -> Self:
        twin = super()._moved(ops)
        twin._made = {}
        return twin


def _pieces(name: str, array: Any, shapes: Sequence[tuple[int, ...]], dtype: Any) -> list[Any]:
    """Return views of the arrays that stand one after another in a flat one."""
    sizes = [math.prod(shape) for shape in shapes]
    if array.shape != (sum(sizes),) or array.dtype != dtype:
        raise ValueError(
            f"{name}: expected shape ({sum(sizes)},) of {dtype}, got {array.shape} of "
            f"{array.dtype}. The state is damaged."
        )
    ends = list(accumulate(sizes))
    return [
        array[end - size : end].reshape(shape)
        for end, size, shape in zip(ends, sizes, shapes, strict=True)
    ]


def _copies(arrays: list[Any]) -> list[Any]:
    return [array.copy() for array in arrays]


def _check_chain(positions: list[int]) -> None:
    if len(set(positions)) > 1:
        raise ValueError(
            "layers: expected as many positions in every layer of a chain, got "
            f"{positions}. With weight_sharing='reduce' they may differ."
        )


@contextmanager
def _named(patches: Any, name: str) -> Iterator[None]:
    """Give what is not finite the name of the array that it came from."""
    try:
        yield
    except NonFiniteError:
        patches.check_finite(name)
        raise NonFiniteError(
            f"{name}: expected finite sums, got overflow, though every value is finite. "
            "Scale them down."
        ) from None
