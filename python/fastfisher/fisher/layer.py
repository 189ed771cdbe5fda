"""LayerFisher: the exact empirical Fisher of a network, from its layers' inputs and gradients."""

from collections.abc import Callable
from functools import reduce
from typing import Any, Self

from fastfisher import _check, _memory
from fastfisher._ops import ops_of
from fastfisher._range import in_range
from fastfisher.fisher.held_scores import HeldScores
from fastfisher.fisher.influence import Influence, Points
from fastfisher.fisher.layered import Layered
from fastfisher.fisher.layers import Conv2dLayer, layers_of
from fastfisher.fisher.network_scores import NetworkScores
from fastfisher.solvers.damping import diagonal_shift

__all__ = ["LayerFisher"]

# Columns that are formed at a time where a matrix is summed from all of them.
_COLUMNS = 1024


class LayerFisher(Layered, HeldScores):
    """The exact empirical Fisher of a network, without the per-sample gradients.

    Row i of the scores is the concatenation over the layers of vec(Σ_t g_it a_itᵀ), with the inputs
    a and the output gradients g of each layer; no (n, p) array is ever formed. What `ScoreFisher`
    is to an array of scores, this is to layers: with n < p everything that needs a matrix uses the
    n × n Gram matrix, which is a sum over layers of elementwise products of small Gram matrices.

    ``solve(None, damping=λ)`` is the damped natural gradient (F + λI)⁻¹ m of the mean score m, as a
    list of weights, by the formula that loses no digits.

    Parameters
    ----------
    layers : list of pairs (inputs, gradients), `LinearLayer` or `Conv2dLayer`
        Real; n ≥ 1 samples in each. They are not copied: do not change them while this object is in
        use. `gradients` are those of each sample's own log-likelihood, not divided by n.
    weights : array (n,), optional
        Not negative, not all zero.
    center : bool
        Subtract the (weighted) mean score. Errors are then relative to the scores before that.
    reduction : {"mean", "sum"}
        Divide by Σw or not.
    dtype : dtype, optional
        Of the sums, float64 or float32; default the widest of the layers, float32 for halves.
    check_finite : bool
        Whether every use looks for NaN and infinity in the layers.

    Notes
    -----
    The Gram matrix takes n² Σ(d_in + d_out) multiplications where a layer has one position. A
    vector damping D stretches the columns of the scores by D^-½, whose Gram matrix has no such
    form: it takes n² p, formed some columns at a time.

    See Also
    --------
    ScoreFisher, LinearLayer, Conv2dLayer

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> rng = np.random.default_rng(0)
    >>> a, g = rng.standard_normal((5, 30)), rng.standard_normal((5, 10))
    >>> L = ff.LayerFisher([(a, g), (g, g[:, :2])])
    >>> L.shape
    (320, 320)
    >>> [step.shape for step in L.solve(None, damping=0.1)]
    [(10, 30), (2, 10)]
    >>> L.gram().shape, [mean.shape for mean in L.mean_score()]
    ((5, 5), [(10, 30), (2, 10)])
    >>> L.influence(0, [1, 2], damping=0.1).shape, L.shapes
    ((2,), [(10, 30), (2, 10)])
    >>> ff.LayerFisher.from_layers([(a, g)]).n_samples
    5
    """

    def __init__(
        self,
        layers: Any,
        *,
        weights: Any = None,
        center: bool = False,
        reduction: str = "mean",
        dtype: Any = None,
        check_finite: bool = True,
    ) -> None:
        found = layers_of(layers)
        ops, samples = ops_of(found[0].a.x), found[0].samples
        if samples == 0:
            raise ValueError(
                "layers: expected at least one sample, got none. "
                "Row i of every layer belongs to sample i."
            )
        self._ops = ops
        self._dtype = _sum_dtype(found, dtype)
        self._scores = NetworkScores(found, ops, self._dtype)
        self._shapes, self._params = self._scores.shapes, self._scores.params
        self._weights, self._weight_sum = _check.weights(ops, weights, samples, self._dtype)
        self._n_samples = samples
        self._center = _check.flag("center", center)
        self._reduction = _check.reduction(reduction)
        self._check_finite = _check.flag("check_finite", check_finite)
        self._root: Any = None if self._weights is None else ops.xp.sqrt(self._weights)
        self._factors: Any = None
        self._mean: Any = self._column_mean(0) if self._center else None
        self._influence: Influence | None = None

    @classmethod
    def from_layers(cls, layers: Any, **options: Any) -> Self:
        """Return ``LayerFisher(layers, **options)``, as the other representations have it."""
        return cls(layers, **options)

    # ---- what every representation has ----
    def diagonal(self) -> Any:
        """Return the diagonal of F, (p,)."""
        sums = self._scores.squares(self._weights, 0)
        if self._mean is not None:
            sums -= self._dtype.type(self._weight_sum) * self._mean**2
            sums = self._ops.xp.maximum(sums, 0)
        self._raise_if_scores_spoil(sums)
        return sums * self._scale

    @in_range
    def trace(self) -> float:
        """Return tr F, without its diagonal."""
        norms = self._scores.norms().astype("float64")
        total = float(norms.sum() if self._weights is None else norms @ self._weights)
        if self._mean is not None:
            mean = self._mean.astype("float64")
            total = max(total - self._weight_sum * float(mean @ mean), 0.0)
        self._raise_if_scores_spoil(norms)
        return total * self._scale

    def to_dense(self) -> Any:
        """Return F as a full symmetric array (p, p)."""
        self._guard_matrix(2)
        triangle, scale = self._matrix_triangle(0)
        return triangle.to_dense(scale)

    def mean_score(self) -> list[Any]:
        """Return the (weighted) mean score as a list of weights: the gradient of the mean."""
        mean = self._column_mean(0) if self._mean is None else self._mean.copy()
        _, fold = self._unfolded("rhs", None)
        weights: list[Any] = fold(mean)
        return weights

    def gram(self, *, n_threads: int | None = None) -> Any:
        """Return the Gram matrix of the scores, (n, n), as ``fastfisher.gram`` has it of an array.

        Centred, weighted by √(wᵢ wⱼ) and divided by Σw as F is, so that it has F's eigenvalues.
        """
        triangle = self._gram_triangle(_check.threads(n_threads))
        return triangle.to_dense(self._scale)

    # ---- single samples ----
    def influence(self, i: Any, j: Any, *, damping: Any, damping_mode: str = "absolute") -> Any:
        """Return sᵢᵀ (F + λI)⁻¹ sⱼ between samples, from Gram matrices alone.

        Parameters
        ----------
        i, j : int, slice, array of int or bool, or list of layers
            Samples of this Fisher by their place, or other samples of the same network by the
            layers that they give, such as the test points of influence functions.
        damping : float
            λ > 0; the factor is kept until another one is asked for.
        damping_mode : {"absolute", "trace"}

        Returns
        -------
        float for two ints, (len(j),) or (len(i),) for one, else (len(i), len(j))
            A centred F subtracts its mean score from both. Where `i` or `j` is in F with a weight,
            the product is K (cK + λI)⁻¹, which loses no digits however small the damping;
            otherwise it is a difference, which loses them by ‖F‖ / λ.

        Raises
        ------
        IndexError, NotPositiveDefiniteError, NonFiniteError, TypeError, ValueError

        References
        ----------
        P. W. Koh and P. Liang, "Understanding black-box predictions via influence functions",
        ICML (2017).

        Examples
        --------
        >>> import numpy as np, fastfisher as ff
        >>> L = ff.LayerFisher([(np.eye(2), np.eye(2))])
        >>> L.influence(0, slice(None), damping=0.5)
        array([1., 0.])
        """
        held = self._influence_at(damping, damping_mode)
        left, right = self._points("i", i, held), self._points("j", j, held)
        products = held.products(left, right)
        self._raise_if_scores_spoil(products)
        if left.single and right.single:
            return float(products[0, 0])
        return products[0] if left.single else products[:, 0] if right.single else products

    @in_range
    def leverage(
        self, scores: Any = None, damping: Any = 0.0, *, damping_mode: str = "absolute"
    ) -> Any:
        """Return hᵢ = sᵢᵀ (F + damping)⁻¹ sᵢ per sample, (n,), divided by Σw when F is a mean.

        Parameters
        ----------
        scores : list of layers or array (m, p), optional
            None means the samples of this Fisher, by their Gram matrix; Σ wᵢ hᵢ is then the
            effective dimension. A centred F subtracts its mean score first.
        damping : float
        damping_mode : {"absolute", "trace", "diagonal"}
            An array of scores takes vector dampings and "diagonal" too.
        """
        if not (scores is None or isinstance(scores, (list, tuple))):
            return super().leverage(scores, damping, damping_mode=damping_mode)
        held = self._influence_at(damping, damping_mode)
        points = self._points("scores", slice(None) if scores is None else scores, held)
        out = held.own(points) * self._scale
        self._raise_if_scores_spoil(out)
        return out

    def _influence_at(self, damping: Any, damping_mode: str) -> Influence:
        """Return the influence products of this damping, those of last time if it was the same."""
        shift = diagonal_shift(self, damping, damping_mode)
        if not isinstance(shift, float):
            raise ValueError(
                "damping: expected a number, got a vector. Influence products come from Gram "
                "matrices: solve() takes a damping for each parameter."
            )
        self._refuse_singular(shift)
        held = self._influence  # another thread may put another one there
        if held is None or held.damping != shift:
            self._guard_gram(6)
            gram = self._scores.gram(0).to_dense(1.0)
            self._raise_if_scores_spoil(gram)
            self._influence = held = Influence(self, gram, shift)
        return held

    def _points(self, name: str, value: Any, held: Influence) -> Points:
        if isinstance(value, (list, tuple)) and not all(map(_is_place, value)):
            network = NetworkScores(layers_of(value, self._shapes, name), self._ops, self._dtype)
            if self._check_finite:
                network.check_finite(name)
            return held.outside(network)
        places = self._ops.xp.arange(self._n_samples)
        try:
            empty = isinstance(value, (list, tuple)) and not value
            chosen = places[
                value
                if isinstance(value, slice)
                else self._ops.xp.asarray([] if empty else value, int if empty else None)
            ]
        except IndexError as error:
            raise IndexError(
                f"{name}: expected places of {self._n_samples} samples, got {error}. "
                "Give an int, a slice, an array of them, or a list of layers."
            ) from None
        if chosen.ndim > 1:
            raise ValueError(
                f"{name}: expected one axis of places, got shape {chosen.shape}. Ravel it."
            )
        return held.inside(chosen.reshape(-1), single=chosen.ndim == 0)

    # ---- the scores, weighted and centred ----
    def _unfolded(self, name: str, v: Any) -> tuple[Any, Callable[[Any], Any]]:
        if v is not None:
            return super()._unfolded(name, v)

        def fold(flat: Any) -> list[Any]:
            return [
                flat[..., where].reshape(*flat.shape[:-1], *shape)
                for where, shape in zip(self._slices(), self._shapes, strict=True)
            ]

        return None, fold

    def _product(self, V: Any, threads: int) -> Any:
        product = self._rooted_transpose_dot(self._rooted_dot(V, threads), threads)
        product *= self._dtype.type(self._scale)
        self._raise_if_scores_spoil(product)
        return product

    def _column_mean(self, threads: int) -> Any:
        xp, weights = self._ops.xp, self._weights
        shares = xp.ones(self._n_samples, self._dtype) if weights is None else weights
        mean = self._scores.transpose_dot((shares / self._weight_sum)[:, None], threads)[:, 0]
        self._raise_if_scores_spoil(mean)
        return mean

    def _rooted_dot(self, V: Any, threads: int) -> Any:
        if self._factors is not None:
            V = V * self._factors[:, None]
        product = self._scores.dot(V, threads)
        if self._mean is not None:
            product -= self._mean @ V
        return product if self._root is None else product * self._root[:, None]

    def _rooted_transpose_dot(self, Y: Any, threads: int) -> Any:
        if self._root is not None:
            Y = Y * self._root[:, None]
        product = self._scores.transpose_dot(Y, threads)
        if self._mean is not None:
            product -= self._mean[:, None] * Y.sum(axis=0)
        return product if self._factors is None else product * self._factors[:, None]

    def _rooted_columns(self, block: slice) -> Any:
        columns = self._scores.columns(block)
        if self._mean is not None:
            columns -= self._mean[block]
        if self._root is not None:
            columns *= self._root[:, None]
        if self._factors is not None:
            columns *= self._factors[block]
        return columns

    def _gram_triangle(self, threads: int) -> Any:
        self._guard_gram(3)
        if self._factors is not None:
            triangle = self._ops.Triangle(self._n_samples, self._dtype)
            for start in range(0, self._params, _COLUMNS):
                columns = self._rooted_columns(slice(start, start + _COLUMNS))
                self._add_rows(triangle, columns.T, fresh=start == 0, threads=threads)
            return triangle
        triangle = self._scores.gram(threads)
        self._raise_if_scores_spoil(triangle.panels)
        if self._mean is None and self._root is None:
            return triangle
        return self._ops.Triangle.from_dense(self._rooted_gram(triangle.to_dense(1.0)))

    def _rooted_gram(self, gram: Any) -> Any:
        """Return W½ (S − 1mᵀ)(S − 1mᵀ)ᵀ W½ from S Sᵀ: S m is a mean of its columns."""
        if self._mean is not None:
            dots, square = self._mean_dots(gram)
            gram = gram - dots[:, None] - dots[None, :] + square
        return gram if self._root is None else gram * self._root[:, None] * self._root[None, :]

    def _mean_dots(self, gram: Any) -> tuple[Any, Any]:
        """Return S m and m · m from S Sᵀ."""
        weights = self._weights
        if weights is None:
            dots = gram.mean(axis=1)
            return dots, dots.mean()
        dots = gram @ weights / self._weight_sum
        return dots, weights @ dots / self._weight_sum

    def _matrix_triangle(self, threads: int) -> tuple[Any, float]:
        _memory.guard(
            self._ops.Triangle.bytes_to_sum(self._n_samples, self._params, self._dtype),
            "LayerFisher as a matrix",
            "Use solver=Dual() (n < p) or CG(), which need no p².",
            self._ops,
        )
        triangle = self._ops.Triangle(self._params, self._dtype)
        for block in self._scores.row_blocks():
            rows = self._scores.rows(block)
            if self._mean is not None:
                rows -= self._mean
            if self._root is not None:
                rows *= self._root[block, None]
            self._add_rows(triangle, rows, fresh=block.start == 0, threads=threads)
        return triangle, self._scale

    def _square_root(self, threads: int, *, with_root: bool = False) -> Any:
        Root = self._ops.Root
        _memory.guard(
            Root.bytes_to_sum(self._n_samples, self._params, self._dtype, threads),
            "LayerFisher as a root",
            "Use solver=Dual() (n < p) or CG(), which need no p².",
            self._ops,
        )
        targets = self._targets if with_root else None
        root = Root(
            self._params, self._dtype, with_root=with_root, with_targets=targets is not None
        )
        for block in self._scores.row_blocks():
            rows = self._scores.rows(block)
            self._raise_if_scores_spoil(rows)
            weights = None if self._weights is None else self._weights[block]
            root.add_scores(
                rows,
                weights,
                self._mean,
                check_finite=True,
                threads=threads,
                targets=None if targets is None else targets[block],
            )
        return root

    def _block_triangle(self, start: int, stop: int, threads: int) -> tuple[Any, float]:
        triangle = self._ops.Triangle(stop - start, self._dtype)
        columns = self._rooted_columns(slice(start, stop))
        self._add_rows(triangle, columns, fresh=True, threads=threads)
        return triangle, self._scale

    def _add_rows(self, triangle: Any, rows: Any, *, fresh: bool, threads: int) -> None:
        """Add rowsᵀ rows to `triangle`."""
        self._raise_if_scores_spoil(rows)
        triangle.add_scores(rows, None, None, fresh=fresh, check_finite=True, threads=threads)

    def _stretched(self, factors: Any) -> "LayerFisher":
        """Return the Fisher of the scores with each column multiplied: the layers stay shared."""
        fisher = object.__new__(LayerFisher)
        fisher.__dict__.update(self.__dict__)
        fisher._factors = factors
        fisher._influence = None
        return fisher

    def _guard_gram(self, copies: int) -> None:
        _memory.guard(
            copies * self._n_samples**2 * self._dtype.itemsize,
            "gram",
            "Use solver=CG(), which needs no matrix, or fewer samples.",
            self._ops,
        )

    def _raise_if_scores_spoil(self, product: Any) -> None:
        """Name the place of a NaN that reached a product; one that has none costs nothing."""
        if self._check_finite and not self._ops.all_finite(product):
            self._scores.check_finite()

    # ---- pickle and files ----
    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_influence": None}  # made again when asked for

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "center": self._center,
            "reduction": self._reduction,
            "check_finite": self._check_finite,
            "dtype": str(self._dtype),
            "geometry": [
                {
                    "kernel_size": list(layer.a.kernel),
                    "stride": list(layer.a.stride),
                    "padding": list(layer.a.padding),
                    "dilation": list(layer.a.dilation),
                    "bias": layer.a.ones,
                }
                for layer in self._scores.layers
            ],
        }
        for place, layer in enumerate(self._scores.layers):
            # Files know no bfloat16, whose every number is one of float32.
            for name, x in (("inputs", layer.a.x), ("gradients", layer.g.x)):
                state[f"{name}{place}"] = x.astype("float32") if _check.is_half(x.dtype) else x
        if self._weights is not None:
            state["weights"] = self._weights
        return state

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        # A linear layer is the convolution with one pixel.
        layers = [
            Conv2dLayer(state[f"inputs{place}"], state[f"gradients{place}"], **geometry)
            for place, geometry in enumerate(state["geometry"])
        ]
        return cls(
            layers,
            weights=state.get("weights"),
            center=state["center"],
            reduction=state["reduction"],
            dtype=state["dtype"],
            check_finite=state["check_finite"],
        )


def _sum_dtype(layers: list[Any], requested: Any) -> Any:
    """Return the dtype of the sums: `requested`, or the widest of the layers."""
    held = [_check.sum_dtype(layer.a.x.dtype) for layer in layers]
    widest = reduce(lambda one, other: one if one.itemsize >= other.itemsize else other, held)
    return _check.accumulation_dtype(requested, widest)


def _is_place(value: Any) -> bool:
    """Tell whether this is one whole number, and no array."""
    return hasattr(value, "__index__") and getattr(value, "ndim", 0) == 0
