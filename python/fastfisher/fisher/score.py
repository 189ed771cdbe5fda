"""ScoreFisher: the Fisher as the scores themselves, for p far above memory's square root."""

from typing import Any, Self

from fastfisher import _check, _memory
from fastfisher._ops import for_dtype, ops_of
from fastfisher._range import in_range
from fastfisher.fisher.held_scores import HeldScores

__all__ = ["ScoreFisher"]


class ScoreFisher(HeldScores):
    """The Fisher held as a view of its scores: products are one pass, and no p² exists.

    Equivalent to ``scores.T @ (weights[:, None] * scores) / weights.sum()``, never formed unless
    ``Cholesky()`` is asked for. With n < p everything that needs a matrix uses the n × n Gram
    matrix instead.

    Parameters
    ----------
    scores : array (n, p), float64, float32, complex128 or complex64; n ≥ 1
        One row per sample. They are not copied: do not change them while this object is in use.
    weights : array (n,), optional
        Not negative, not all zero.
    center : bool
        Subtract the (weighted) mean score.
    reduction : {"mean", "sum"}
        Divide by Σw or not.
    check_finite : bool
        Whether every use looks for NaN and infinity in the scores.
    n_threads : int, optional
        For computing the mean of centred scores.

    See Also
    --------
    DenseFisher, fvp, gram

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> scores = np.random.default_rng(0).standard_normal((5, 1000))
    >>> F = ff.ScoreFisher(scores)
    >>> x = F.solve(np.ones(1000), damping=0.1)
    >>> bool(np.allclose(F @ x + 0.1 * x, 1.0))
    True
    """

    def __init__(
        self,
        scores: Any,
        *,
        weights: Any = None,
        center: bool = False,
        reduction: str = "mean",
        check_finite: bool = True,
        n_threads: int | None = None,
    ) -> None:
        self._scores = _check.scores(ops_of(scores), scores)
        samples, self._params = self._scores.shape
        _check.has_rows(self._scores)
        self._dtype = _check.sum_dtype(self._scores.dtype)
        self._ops = for_dtype(ops_of(scores), self._dtype)
        self._weights, self._weight_sum = _check.weights(self._ops, weights, samples, self._dtype)
        self._n_samples = samples
        self._center = _check.flag("center", center)
        self._reduction = _check.reduction(reduction)
        self._check_finite = _check.flag("check_finite", check_finite)
        self._root: Any = None if self._weights is None else self._ops.xp.sqrt(self._weights)
        threads = _check.threads(n_threads)
        self._mean: Any = self._column_mean(threads) if self._center else None

    @classmethod
    def from_scores(cls, scores: Any, **options: Any) -> Self:
        """Return ``ScoreFisher(scores, **options)``, as the other representations have it."""
        return cls(scores, **options)

    # ---- what every representation has ----
    def diagonal(self) -> Any:
        """Return the diagonal of F, (p,)."""
        sums = self._ops.diagonal(
            self._scores, self._weights, self._mean, self._dtype, self._check_finite, 0
        )
        return sums * self._scale

    def to_dense(self) -> Any:
        """Return F as a full symmetric (Hermitian) array (p, p)."""
        self._guard_matrix(2)
        triangle, scale = self._matrix_triangle(0)
        return triangle.to_dense(scale)

    @in_range
    def leverage(self, scores: Any, damping: Any = 0.0, *, damping_mode: str = "absolute") -> Any:
        """Return hᵢ = sᵢᵀ (F + damping)⁻¹ sᵢ* per row, (n,), divided by Σw when F is a mean.

        Over the samples that F was made of, Σ wᵢ hᵢ is the effective dimension. A centred F
        subtracts its mean score first. Given the very array that it holds, F with n < p takes the
        diagonal of K (K + λI)⁻¹ / w, K its Gram matrix, which loses no digits however small the
        damping; rows of weight zero and other scores lose them by ‖F‖ / λ.
        """
        if not (self._dual and scores is self._scores):
            return super().leverage(scores, damping, damping_mode=damping_mode)
        factor: Any = self.factor(damping=damping, damping_mode=damping_mode)
        out = factor.own_leverages()
        if self._weights is None:
            return out
        weighed = self._weights > 0
        out = out / self._ops.xp.where(weighed, self._weights, 1)
        if not bool(weighed.all()):
            rest = scores[~weighed]
            out[~weighed] = super().leverage(rest, damping, damping_mode=damping_mode)
        return out

    def _product(self, V: Any, threads: int) -> Any:
        product = self._ops.fvp(
            self._scores, self._weights, self._mean, V, self._scale, 0.0, threads
        )
        self._raise_if_scores_spoil(product)
        return product

    def _matrix_triangle(self, threads: int) -> tuple[Any, float]:
        _memory.guard(
            self._ops.Triangle.bytes_to_sum(self._n_samples, self._params, self._dtype),
            "ScoreFisher as a matrix",
            "Use solver=Dual() (n < p) or CG(), which need no p².",
            self._ops,
        )
        triangle = self._ops.Triangle(self._params, self._dtype)
        triangle.add_scores(
            self._scores,
            self._weights,
            self._mean,
            fresh=True,
            check_finite=self._check_finite,
            threads=threads,
        )
        return triangle, self._scale

    def _square_root(self, threads: int, *, with_root: bool = False) -> Any:
        Root, targets = self._ops.Root, self._targets if with_root else None
        copy = 0 if targets is None else (self._scores.size + len(targets)) * self._dtype.itemsize
        _memory.guard(
            Root.bytes_to_sum(self._n_samples, self._params, self._dtype, threads) + copy,
            "ScoreFisher as a root",
            "Use solver=Dual() (n < p) or CG(), which need no p².",
            self._ops,
        )
        root = Root(
            self._params, self._dtype, with_root=with_root, with_targets=targets is not None
        )
        root.add_scores(
            self._scores,
            self._weights,
            self._mean,
            check_finite=self._check_finite,
            threads=threads,
            targets=targets,
        )
        return root

    def _block_triangle(self, start: int, stop: int, threads: int) -> tuple[Any, float]:
        triangle = self._ops.Triangle(stop - start, self._dtype)
        triangle.add_scores(
            self._scores[:, start:stop],
            self._weights,
            None if self._mean is None else self._mean[start:stop],
            fresh=True,
            check_finite=self._check_finite,
            threads=threads,
        )
        return triangle, self._scale

    def _column_mean(self, threads: int) -> Any:
        return self._ops.column_mean(
            self._scores, self._weights, self._dtype, self._check_finite, threads
        )

    # ---- U = W½ (S − 1mᵀ), the rooted scores, with F = c UᴴU ----
    def _rooted_dot(self, V: Any, threads: int) -> Any:
        """Return U V, (n, k)."""
        product = self._ops.scores_dot(self._scores, self._mean, V, threads)
        return product if self._root is None else product * self._root[:, None]

    def _rooted_transpose_dot(self, Y: Any, threads: int) -> Any:
        """Return Uᴴ Y, (p, k)."""
        if self._root is not None:
            Y = Y * self._root[:, None]
        return self._ops.scores_transpose_dot(self._scores, None, self._mean, Y, threads)

    def _rooted_columns(self, block: slice) -> Any:
        """Return some columns of U, (n, block), as an array of its own."""
        columns = self._scores[:, block]
        if self._mean is not None:
            columns = columns - self._mean[block]
        if self._root is not None:
            columns = columns * self._root[:, None]
        return columns.astype(self._dtype, copy=False)

    # ---- the dual ----
    def _gram_triangle(self, threads: int) -> Any:
        """Return U Uᴴ, n × n."""
        _memory.guard(
            self._ops.Triangle.bytes_to_sum(self._params, self._n_samples, self._dtype),
            "gram",
            "Use solver=CG(), which needs no matrix, or DenseFisher if p is small.",
            self._ops,
        )
        triangle = self._ops.Triangle(self._n_samples, self._dtype)
        triangle.set_gram(self._scores, self._weights, self._mean, self._check_finite, threads)
        return triangle

    def _stretched(self, factors: Any) -> "ScoreFisher":
        """Return the Fisher of the scores with each column multiplied; takes a copy of them."""
        _memory.guard(
            self._scores.size * self._dtype.itemsize,
            "vector damping in the dual",
            "Use CG(), which needs no copy.",
            self._ops,
        )
        fisher = object.__new__(ScoreFisher)
        fisher.__dict__.update(self.__dict__)
        fisher._scores = self._scores * factors
        if self._mean is not None:
            fisher._mean = self._mean * factors
        return fisher

    # ---- iterations ----
    def _conjugate_gradients(
        self,
        rhs: Any,
        shift: Any,
        preconditioner: Any,
        rtol: float,
        atol: float,
        steps: int,
        threads: int,
    ) -> Any:
        if callable(preconditioner):
            return super()._conjugate_gradients(
                rhs, shift, preconditioner, rtol, atol, steps, threads
            )
        return self._ops.cg_scores(
            self._scores,
            self._weights,
            self._mean,
            self._scale,
            self._shift_vector(shift),
            rhs,
            preconditioner,
            rtol,
            atol,
            steps,
            threads,
        )

    def _shifted_conjugate_gradients(
        self, rhs: Any, shifts: list[float], rtol: float, atol: float, steps: int, threads: int
    ) -> Any:
        return self._ops.shifted_cg_scores(
            self._scores,
            self._weights,
            self._mean,
            self._scale,
            shifts,
            rhs,
            rtol,
            atol,
            steps,
            threads,
        )

    def _raise_if_scores_spoil(self, product: Any) -> None:
        """Name the place of a NaN that reached a product; one that has none costs nothing."""
        if self._check_finite and not self._ops.all_finite(product):
            self._column_mean(0)

    # ---- pickle and files ----
    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "center": self._center,
            "reduction": self._reduction,
            "check_finite": self._check_finite,
            # Files know no bfloat16, whose every number is one of float32.
            "scores": self._scores.astype(self._dtype, copy=False)
            if _check.is_half(self._scores.dtype)
            else self._scores,
        }
        if self._weights is not None:
            state["weights"] = self._weights
        return state

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        return cls(
            state["scores"],
            weights=state.get("weights"),
            center=state["center"],
            reduction=state["reduction"],
            check_finite=state["check_finite"],
        )
