"""ScoreFisher: the Fisher as the scores themselves, for p far above memory's square root."""

from collections.abc import Callable
from typing import Any, Self

from fastfisher import _check, _memory
from fastfisher._ops import for_dtype, ops_of
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.fisher.factor import DualFactor, Factor
from fastfisher.fisher.protocol import Fisher
from fastfisher.fisher.spectrum import cutoff, smooth_inverse, squares

__all__ = ["ScoreFisher"]


class ScoreFisher(Fisher):
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

    def quadratic_form(self, v: Any) -> Any:
        """Return v* F v as a sum of squares, so never below 0."""
        columns = _check.finite_columns(self._ops, "v", v, self._params, self._dtype)
        projected = self._rooted_dot(columns.reshape(self._params, -1), 0)
        values = squares(projected).sum(axis=0) * self._scale
        return values if columns.ndim == 2 else float(values[0])

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

    # ---- the mean score ----
    def _mean_or_none(self) -> Any:
        return self._mean

    def _mean_score(self, threads: int) -> Any:
        mean = self._column_mean(threads) if self._mean is None else self._mean
        return mean.reshape(-1, 1).conj()

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

    def _root_weights(self) -> Any:
        """Return √w, (n, 1)."""
        if self._root is None:
            return self._ops.xp.ones((self._n_samples, 1), self._dtype)
        return self._root.reshape(-1, 1)

    # ---- the dual ----
    @property
    def _scores_held(self) -> int | None:
        return self._n_samples

    @property
    def _dual(self) -> bool:
        return self._n_samples < self._params

    def _gram_triangle(self, threads: int) -> Any:
        """Return U Uᴴ, n × n."""
        _memory.guard(
            self._ops.Triangle.bytes_to_sum(self._params, self._n_samples, self._dtype),
            "gram",
            "Use solver=CG(), which needs no matrix, or DenseFisher if p is small.",
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
        )
        fisher = object.__new__(ScoreFisher)
        fisher.__dict__.update(self.__dict__)
        fisher._scores = self._scores * factors
        if self._mean is not None:
            fisher._mean = self._mean * factors
        return fisher

    def _dual_factor(self, shift: Any, *, threads: int = 0, with_norm: bool = True) -> DualFactor:
        self._refuse_singular(shift)
        return DualFactor(self, shift, threads, with_norm)

    def _dual_rhs(self, rhs: Any, threads: int) -> Any:
        """Return g, or None for the mean score where it has a formula of its own.

        Of centred scores it has none: their mean does not lie in the row space of U, and what lies
        outside, m / λ, makes up the most of the answer, so that nothing cancels.
        """
        return self._mean_score(threads) if rhs is None and self._center else rhs

    def _dual_inner(self, rhs: Any, threads: int) -> Any:
        """Return what the n × n matrix is solved with: U g, or √w for the mean score Uᴴ√w / Σw."""
        return self._root_weights() if rhs is None else self._rooted_dot(rhs, threads)

    def _from_dual(self, rhs: Any, Z: Any, shifts: list[float], threads: int) -> Any:
        """Return (g − c Uᴴ z) / λ for every λ side by side, z = (c UUᴴ + λI)⁻¹ U g.

        For the mean score (None) it is Uᴴ z / Σw with z = (c UUᴴ + λI)⁻¹ √w.
        """
        if rhs is None:
            return self._rooted_transpose_dot(Z, threads) / self.weight_sum
        xp, columns = self._ops.xp, rhs.shape[1]
        X = xp.tile(rhs, len(shifts)) - self._scale * self._rooted_transpose_dot(Z, threads)
        return X / xp.repeat(xp.asarray(shifts, self._real_dtype), columns)

    def _refuse_singular(self, shift: Any) -> None:
        """Raise if the damping leaves the null space of the scores as it is."""
        if not bool(self._ops.xp.all(shift > 0)):
            raise NotPositiveDefiniteError(
                "damping: expected a positive damping in the dual, got zero. The Fisher of "
                f"{self._n_samples} scores alone is singular in {self._params} parameters.",
                pivot=min(self._n_samples, self._params),
                value=0.0,
            )

    def _factor(self, shift: Any, threads: int) -> Factor:
        if self._dual:
            return self._dual_factor(shift, threads=threads)
        return self._matrix_factor(shift, threads=threads)

    def _spectral_power(
        self, V: Any, power: float, shift: Any, *, truncate: bool
    ) -> tuple[Any, int]:
        """Use f(F + λ) V = f(λ) V + c Uᴴ Q diag((f(w + λ) − f(λ)) / w) Qᴴ U V, c UUᴴ = Q w Qᴴ."""
        if not self._dual or not isinstance(shift, float):
            return super()._spectral_power(V, power, shift, truncate=truncate)
        xp = self._ops.xp
        values, Q = self._gram_spectrum()
        limit = cutoff(values, self._n_samples)
        kept = values > limit
        rank = int(kept.sum())
        safe = xp.where(kept, values, 1.0)
        if shift > (limit if truncate else 0.0):
            base = shift**power
            slope = base * xp.expm1(power * xp.log1p(safe / shift)) / safe
            divided = xp.where(kept, slope, power * base / shift)
            rank = self._params
        elif power < 0 and not truncate:
            raise NotPositiveDefiniteError(
                f"fisher: expected a positive definite F + damping for the power {power}, got "
                f"{self._n_samples} scores in {self._params} parameters. Add damping.",
                value=0.0,
            )
        else:
            base = 1.0 if power == 0 and not truncate else 0.0
            divided = xp.where(kept, ((safe + shift) ** power - base) / safe, 0.0)
        inner = Q @ (divided[:, None] * (Q.conj().T @ self._rooted_dot(V, 0)))
        inner = inner.astype(self._dtype)
        return base * V + self._scale * self._rooted_transpose_dot(inner, 0), rank

    def _spectral_solver(
        self, rhs: Any, threads: int
    ) -> tuple[Any, float, Callable[[list[float]], Any]]:
        if not self._dual:
            rhs = self._mean_score(threads) if rhs is None else rhs
            return super()._spectral_solver(rhs, threads)
        rhs = self._dual_rhs(rhs, threads)
        values, Q = self._gram_spectrum()
        cutoff(values, self._n_samples)  # refuses what is not finite
        inner = Q.conj().T @ self._dual_inner(rhs, threads)

        def solve(shifts: list[float]) -> Any:
            return self._from_dual(rhs, Q @ self._divided(inner, values, shifts), shifts, threads)

        return values, 0.0, solve  # the scores have a null space

    def _truncated(
        self, rhs: Any, shifts: list[float], rtol: float, rtol_smooth: float, threads: int
    ) -> tuple[Any, list[int]]:
        """Return f(F + λ) g for every λ side by side, (p, m·k), f by `smooth_inverse`, and ranks.

        f(F + λ) g = f(λ) g + c Uᴴ Q diag((f(w + λ) − f(λ)) / w) Qᴴ U g with c UUᴴ = Q w Qᴴ, and
        Uᴴ Q diag(f(w + λ)) Qᴴ √w / Σw for the mean score.
        """
        xp, rhs = self._ops.xp, self._dual_rhs(rhs, threads)
        values, Q = self._gram_spectrum()
        present = values > cutoff(values, self._n_samples)
        safe = xp.where(present, values, 1.0)
        null = self._params - int(present.sum())  # directions in which F is zero
        inner = Q.conj().T @ self._dual_inner(rhs, threads)
        weighed, bases, ranks = [inner[:, :0]], [], []
        for shift in shifts:
            f, kept = smooth_inverse(
                xp, xp.r_[values, 0.0] + values.dtype.type(shift), rtol, rtol_smooth
            )
            base = float(f[-1]) if null else 0.0
            f = f[:-1] if rhs is None else self._scale * (f[:-1] - base) / safe
            weighed.append(xp.where(present, f, 0.0)[:, None] * inner)
            bases.append(base)
            ranks.append(int((kept[:-1] & present).sum()) + (null if bool(kept[-1]) else 0))
        Z = Q @ xp.hstack(weighed).astype(self._dtype, copy=False)
        X = self._rooted_transpose_dot(Z, threads)
        if rhs is None:
            return X / self.weight_sum, ranks
        return X + xp.hstack([rhs[:, :0], *(rhs * self._real_dtype.type(b) for b in bases)]), ranks

    def _leading(self, k: int) -> tuple[Any, Any]:
        if not self._dual or k > self._n_samples:
            return super()._leading(k)
        values, Q = self._gram_spectrum()
        values, Q = values[: -k - 1 : -1], Q[:, : -k - 1 : -1]
        if not float(values[-1]) > cutoff(values, self._n_samples):
            return super()._leading(k)  # the null space is asked for, which the scores do not hold
        vectors = self._rooted_transpose_dot(Q / self._ops.xp.sqrt(values / self._scale), 0)
        vectors, _ = self._ops.xp.linalg.qr(vectors)  # small eigenvalues lose orthogonality
        return values, vectors

    def _gram_spectrum(self) -> tuple[Any, Any]:
        """Return eigenvalues, ascending, and vectors of c U Uᴴ."""
        _memory.guard(
            3 * self._n_samples**2 * self._dtype.itemsize,
            "gram",
            "Eigenvalues need the Gram matrix: use fewer samples.",
        )
        values, vectors = self._ops.eigh(self._gram_triangle(0).to_dense(self._scale))
        return values, vectors

    def _effective_dimension(self, shift: Any) -> float:
        if not self._dual or not bool(self._ops.xp.all(shift > 0)):
            return super()._effective_dimension(shift)
        return float(self._dual_factor(shift, with_norm=False).own_leverages().sum())

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
