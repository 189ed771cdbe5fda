"""Held scores: what a Fisher can do that still has its n scores, in whatever form they are kept."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from fastfisher import _check, _memory
from fastfisher._ops.conjugates import squares
from fastfisher._ops.portable import Portable
from fastfisher._range import in_range
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.fisher.factor import DualFactor
from fastfisher.fisher.protocol import Fisher
from fastfisher.fisher.spectrum import all_positive, cutoff, smooth_inverse
from fastfisher.solvers.solution import Solution
from fastfisher.solvers.solve import solve_system

__all__ = ["HeldScores"]


class HeldScores(Portable, Fisher):
    """F = c UᴴU with U = W½ (S − 1mᵀ): the algebra of the dual, which sees U by its products alone.

    `ScoreFisher` keeps S as an array, `LayerFisher` as the two sides of each layer.
    """

    _weights: Any
    _root: Any
    _mean: Any
    _sums_squares = True
    # y (n, 1), by which the right-hand side None is c Uᴴ √w y; None for the mean score.
    _targets: Any = None

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
    def _raise_if_scores_spoil(self, product: Any) -> None:
        """Name the place of a NaN that reached a product; one that has none costs nothing."""

    @abstractmethod
    def _gram_triangle(self, threads: int) -> Any:
        """Return U Uᴴ, n × n."""

    @abstractmethod
    def _stretched(self, factors: Any) -> "HeldScores":
        """Return the Fisher of the scores with each column multiplied."""

    # ---- what every representation has ----
    @in_range
    def quadratic_form(self, v: Any) -> Any:
        """Return v* F v as a sum of squares, so never below 0."""
        v, _ = self._unfolded("v", v)
        columns = _check.finite_columns(self._ops, "v", v, self._params, self._dtype)
        projected = self._rooted_dot(columns.reshape(self._params, -1), 0)
        values = squares(projected).sum(axis=0) * self._scale
        self._raise_if_scores_spoil(values)
        return values if columns.ndim == 2 else float(values[0])

    def least_squares(
        self,
        targets: Any,
        *,
        damping: Any = 0.0,
        damping_mode: str = "absolute",
        solver: Any = "auto",
        on_failure: str = "raise",
        n_threads: int | None = None,
    ) -> Solution:
        """Return the x whose products with the scores come nearest to the targets y.

        Equivalent to ``np.linalg.lstsq(S, y)[0]`` without weights, damping and centring: x
        minimises ``c Σ w |sᵀx − y|² + Σ λ |x|²``, with c = 1/Σw for a mean and 1 for a sum. That is
        (F + damping)⁻¹ g for g = c Σ w s* y, but g is never formed where the solver can do without.

        Parameters
        ----------
        targets : array (n,)
            y, one number per sample; complex if the scores are.
        damping : float or array (p,)
            λ, finite and not negative; a vector adds diag(λ).
        damping_mode : {"absolute", "trace", "diagonal"}
            F + λI, F + λ (tr F / p) I, or F + λ diag(F).
        solver : "auto" or a solver
            ``QR()`` solves the least-squares problem itself, R⁻¹ Qᴴ √w y, with an error that grows
            with the condition number κ of the scores, and the dual is Uᴴ (UUᴴ + λI)⁻¹ √w y; the
            others solve the normal equations, whose error grows with κ².
        on_failure : {"raise", "nan", "shift", "pinv"}
            See ``fastfisher.solve``.
        n_threads : int, optional

        Returns
        -------
        Solution
            Its value is x (p,), of a network in layers the list of weights.

        Raises
        ------
        NotPositiveDefiniteError, NonFiniteError, MemoryLimitError, TypeError, ValueError

        Notes
        -----
        A centred F subtracts the mean score from the scores, and g is their covariance with y: with
        local energies for y this is stochastic reconfiguration, and with ``Dual()`` its form for
        n < p (minSR). ``QR()`` takes a copy of the scores with y beside them.

        References
        ----------
        Å. Björck, "Numerical Methods for Least Squares Problems", SIAM 1996, ch. 2.

        Examples
        --------
        >>> import numpy as np, fastfisher as ff
        >>> x = np.array([0.0, 1.0, 2.0])
        >>> F = ff.ScoreFisher(np.column_stack([np.ones(3), x]), reduction="sum")
        >>> F.least_squares(1 + 2 * x, solver=ff.QR()).value.round(12)
        array([1., 2.])
        """
        y = _check.finite_columns(self._ops, "targets", targets, self._n_samples, self._dtype)
        if y.ndim != 1:
            raise ValueError(
                f"targets: expected shape ({self._n_samples},), got {y.shape}. Give one number per "
                "sample."
            )
        if self._center:  # centred scores do not see the mean, but rounding would
            y = y - self._weighted_mean(y)
        fisher = object.__new__(type(self))
        fisher.__dict__.update(self.__dict__)
        fisher._targets = y.reshape(-1, 1)
        return solve_system(
            fisher,
            None,
            damping=damping,
            damping_mode=damping_mode,
            solver=solver,
            on_failure=on_failure,
            threads=_check.threads(n_threads),
        )

    # ---- the right-hand side None: the mean score, or that of the targets ----
    def _mean_or_none(self) -> Any:
        return self._mean

    @property
    def _row_space_scale(self) -> float | None:
        if self._targets is not None:
            return self._scale
        # The mean of centred scores does not lie in the row space of U.
        return None if self._center else 1.0 / self.weight_sum

    def _mean_score(self, threads: int) -> Any:
        if self._targets is not None:
            return self._scale * self._rooted_transpose_dot(self._rooted_targets(), threads)
        mean = self._column_mean(threads) if self._mean is None else self._mean
        return mean.reshape(-1, 1).conj()

    def _root_weights(self) -> Any:
        """Return √w, (n, 1)."""
        if self._root is None:
            return self._ops.xp.ones((self._n_samples, 1), dtype=self._dtype)
        return self._root.reshape(-1, 1)

    def _weighted_mean(self, y: Any) -> Any:
        """Return Σ w y / Σ w of one number per sample, in the dtype of `y`."""
        total = y.sum() if self._weights is None else (self._weights * y).sum()
        return (total / self._weight_sum).astype(y.dtype)

    def _rooted_targets(self) -> Any:
        """Return √w y, (n, 1), which is √w for the mean score."""
        if self._targets is None:
            return self._root_weights()
        return self._targets if self._root is None else self._targets * self._root[:, None]

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

    def _dual_rhs(self, rhs: Any, threads: int) -> Any:
        """Return g, or None for one of the row space, b Uᴴ √w y, which has a formula of its own.

        The mean of centred scores has none: what lies outside the row space, m / λ, makes up the
        most of the answer, so that nothing cancels.
        """
        return self._mean_score(threads) if rhs is None and self._row_space_scale is None else rhs

    def _dual_inner(self, rhs: Any, threads: int) -> Any:
        """Return what the n × n matrix is solved with: U g, or √w y for g = b Uᴴ √w y (None)."""
        return self._rooted_targets() if rhs is None else self._rooted_dot(rhs, threads)

    def _from_dual(self, rhs: Any, Z: Any, shifts: list[float], threads: int) -> Any:
        """Return (g − c Uᴴ z) / λ for every λ side by side, z = (c UUᴴ + λI)⁻¹ U g.

        For g = b Uᴴ √w y (None) it is b Uᴴ z with z = (c UUᴴ + λI)⁻¹ √w y.
        """
        if rhs is None:
            return self._row_space_scale * self._rooted_transpose_dot(Z, threads)
        xp, columns = self._ops.xp, rhs.shape[1]
        X = xp.tile(rhs, (1, len(shifts))) - self._scale * self._rooted_transpose_dot(Z, threads)
        return X / xp.repeat(xp.asarray(shifts, dtype=self._real_dtype), columns)

    def _refuse_singular(self, shift: Any) -> None:
        """Raise if the damping is not positive, by which the dual divides."""
        if all_positive(shift):
            return
        got = "zero" if isinstance(shift, float) else "a vector with a zero"
        if not self._dual:
            raise NotPositiveDefiniteError(
                f"damping: expected a positive one in the dual, which divides by it, got {got}. "
                f"With n = {self._n_samples} ≥ p = {self._params} use Cholesky() or QR().",
                value=0.0,
            )
        raise NotPositiveDefiniteError(
            f"damping: expected a positive damping in the dual, got {got}. The Fisher of "
            f"{self._n_samples} scores alone is singular in {self._params} parameters.",
            pivot=self._n_samples,
            value=0.0,
        )

    def _refuse_cancelled(self, shift: float, size: float) -> None:
        """Raise if (g − c Uᴴ z) / λ has lost all of its digits, for F of this trace."""
        least = float(np.finfo(self._real_dtype).eps) * size
        if not shift > least:
            raise NotPositiveDefiniteError(
                f"damping: expected more than {least:.2g} in the dual, got {shift:.2g}. The answer "
                "to a general right-hand side would have no correct digit.",
                pivot=self._n_samples,
                value=shift,
            )

    @property
    def _cancels(self) -> bool:
        return self._dual

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
        b Uᴴ Q diag(f(w + λ)) Qᴴ √w y for g = b Uᴴ √w y.
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
                xp, xp.concat([values, values[:1] * 0.0]) + shift, rtol, rtol_smooth
            )
            base = float(f[-1]) if null else 0.0
            f = f[:-1] if rhs is None else self._scale * (f[:-1] - base) / safe
            weighed.append(xp.where(present, f, 0.0)[:, None] * inner)
            bases.append(base)
            ranks.append(int((kept[:-1] & present).sum()) + (null if bool(kept[-1]) else 0))
        Z = Q @ xp.concat(weighed, axis=1).astype(self._dtype, copy=False)
        X = self._rooted_transpose_dot(Z, threads)
        if rhs is None:
            return self._row_space_scale * X, ranks
        return X + xp.concat([rhs[:, :0], *(rhs * base for base in bases)], axis=1), ranks

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
            self._ops,
        )
        values, vectors = self._ops.eigh(self._gram_triangle(0).to_dense(self._scale))
        return values, vectors

    def _effective_dimension(self, shift: Any) -> float:
        if not self._dual or not all_positive(shift):
            return super()._effective_dimension(shift)
        return float(self._dual_factor(shift, with_norm=False).own_leverages().sum())
