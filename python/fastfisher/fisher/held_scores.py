"""Held scores: what a Fisher can do that still has its n scores, in whatever form they are kept."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from fastfisher import _check, _memory
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.fisher.factor import DualFactor, Factor
from fastfisher.fisher.protocol import Fisher
from fastfisher.fisher.spectrum import cutoff, squares

__all__ = ["HeldScores"]


class HeldScores(Fisher):
    """F = c UᴴU with U = W½ (S − 1mᵀ): the algebra of the dual, which sees U by its products alone.

    `ScoreFisher` keeps S as an array, `LayerFisher` as the two sides of each layer.
    """

    _weights: Any
    _root: Any
    _mean: Any

    # ---- what a subclass writes ----
    @abstractmethod
    def _column_mean(self, threads: int) -> Any:
        """Return the (weighted) mean of the rows of S, (p,)."""

    @abstractmethod
    def _rooted_dot(self, V: Any, threads: int) -> Any:
        """Return U V, (n, k)."""

    @abstractmethod
    def _rooted_transpose_dot(self, Y: Any, threads: int) -> Any:
        """Return Uᴴ Y, (p, k)."""

    @abstractmethod
    def _rooted_columns(self, block: slice) -> Any:
        """Return some columns of U, (n, block), as an array of its own."""

    @abstractmethod
    def _gram_triangle(self, threads: int) -> Any:
        """Return U Uᴴ, n × n."""

    @abstractmethod
    def _stretched(self, factors: Any) -> "HeldScores":
        """Return the Fisher of the scores with each column multiplied."""

    # ---- what every representation has ----
    def quadratic_form(self, v: Any) -> Any:
        """Return v* F v as a sum of squares, so never below 0."""
        v, _ = self._unfolded("v", v)
        columns = _check.finite_columns(self._ops, "v", v, self._params, self._dtype)
        projected = self._rooted_dot(columns.reshape(self._params, -1), 0)
        values = squares(projected).sum(axis=0) * self._scale
        return values if columns.ndim == 2 else float(values[0])

    # ---- the mean score ----
    def _mean_or_none(self) -> Any:
        return self._mean

    def _mean_score(self, threads: int) -> Any:
        mean = self._column_mean(threads) if self._mean is None else self._mean
        return mean.reshape(-1, 1).conj()

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

    def _dual_factor(self, shift: Any, *, threads: int = 0, with_norm: bool = True) -> DualFactor:
        self._refuse_singular(shift)
        return DualFactor(self, shift, threads, with_norm)

    def _from_dual(self, rhs: Any, Z: Any, shifts: list[float], threads: int) -> Any:
        """Return (g − c Uᴴ z) / λ for every λ side by side, z = (c UUᴴ + λI)⁻¹ U g."""
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
            return super()._spectral_solver(rhs, threads)
        values, Q = self._gram_spectrum()
        cutoff(values, self._n_samples)  # refuses what is not finite
        inner = Q.conj().T @ self._rooted_dot(rhs, threads)

        def solve(shifts: list[float]) -> Any:
            return self._from_dual(rhs, Q @ self._divided(inner, values, shifts), shifts, threads)

        return values, 0.0, solve  # the scores have a null space

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
        if not self._dual:
            return super()._effective_dimension(shift)
        if not isinstance(shift, float):
            if not bool((shift > 0).all()):
                return super()._effective_dimension(shift)
            stretch = (1.0 / self._ops.xp.sqrt(shift)).astype(self._real_dtype)
            return self._stretched(stretch)._effective_dimension(1.0)
        factor = self._dual_factor(shift, with_norm=False)
        gram = self._gram_triangle(0).to_dense(self._scale)
        return float(self._ops.xp.trace(factor.solve_gram(gram)).real)
