"""SquareRootFisher: R with F = RᵀR / Σw, streamed by QR, for scores whose Fisher loses digits."""

from types import ModuleType
from typing import Any

from fastfisher import _check, _memory
from fastfisher._ops.conjugates import squares
from fastfisher._range import in_range
from fastfisher._turns import still
from fastfisher.fisher.accumulator import Accumulator
from fastfisher.solvers.qr import QR

__all__ = ["SquareRootFisher"]


class SquareRootFisher(Accumulator):
    """The Fisher as its square root R, upper triangular, in the p²/2 numbers of a `DenseFisher`.

    Equivalent to ``np.linalg.qr(np.vstack([R, scores]), mode="r")`` for each batch. No square is
    ever formed, so what is streamed, merged and decayed keeps the digits of the scores: with κ
    their condition number, covariances and solves have errors that grow as those of `QR` do, where
    the sums of a `DenseFisher` have lost all digits at κ ≈ 10⁸. In filtering this R is the square-
    root information matrix, and an update the data step of the square-root information filter.

    Parameters
    ----------
    n_params : int
        p, at least 1.
    dtype : dtype
        float64, float32, complex128 or complex64: real or complex as the scores are.
    center : bool
        Subtract the (weighted) mean score.
    reduction : {"mean", "sum"}
        Whether reading divides by Σw; the R inside is the same.
    like : array, optional
        An array of the kind that the scores will have.

    Raises
    ------
    MemoryLimitError
        If it would not fit; says the size.

    See Also
    --------
    DenseFisher, QR

    Notes
    -----
    "auto" is ``QR()``. An update costs 2 n p² multiplications, twice that of a `DenseFisher`, and a
    batch of few rows as much as one of eight; merging costs 2p³/3. Results have the same bits for
    any number of threads; the order of batches changes rounding alone.

    References
    ----------
    G. J. Bierman, "Factorization Methods for Discrete Sequential Estimation", Academic Press, 1977.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = ff.SquareRootFisher(2)
    >>> F = F.update(np.array([[1.0, 0.0], [1.0, 2.0]])).update(np.array([[0.0, 1.0]]))
    >>> F.to_dense().round(12) * 3
    array([[2., 2.],
           [2., 5.]])
    >>> ff.solve(F, np.ones(2), damping=1.0).method
    'qr'
    >>> R = F.root()
    >>> bool(np.allclose(R.T @ R, F.to_dense()))
    True
    """

    _own_solver = QR()
    _sums_squares = True

    def root(self) -> Any:
        """Return R (p, p), upper triangular, real diagonal ≥ 0, with F = RᴴR."""
        self._guard_matrix(3)
        with self._lock:
            return self._sums.dense() * self._scale**0.5

    def diagonal(self) -> Any:
        """Return the diagonal of F, (p,), sums of squares."""
        with self._lock:
            return self._sums.diagonal() * self._scale

    def to_dense(self) -> Any:
        """Return F as a full symmetric (Hermitian) array (p, p)."""
        self._guard_matrix(2)
        triangle, scale = self._matrix_triangle(0)
        return triangle.to_dense(scale)

    @in_range
    @still
    def quadratic_form(self, v: Any) -> Any:
        """Return v* F v as a sum of squares, so never below 0."""
        columns = _check.finite_columns(self._ops, "v", v, self._params, self._dtype)
        projected = self._ops.scores_dot(self._dense(), None, columns.reshape(self._params, -1), 0)
        values = squares(projected).sum(axis=0) * self._scale
        return values if columns.ndim == 2 else float(values[0])

    @still
    def _product(self, V: Any, threads: int) -> Any:
        return self._ops.fvp(self._dense(), None, None, V, self._scale, 0.0, threads)

    def _matrix_triangle(self, threads: int) -> tuple[Any, float]:
        _memory.guard(
            self._ops.Triangle.bytes_for(self._params, self._dtype),
            "SquareRootFisher as a matrix",
            "Use F @ v, F.diagonal() or solver=CG(), which need no matrix.",
            self._ops,
        )
        with self._lock:
            return self._sums.square(threads), self._scale

    def _square_root(self, threads: int, *, with_root: bool = False) -> Any:  # noqa: ARG002
        _memory.guard(
            2 * self._ops.Root.bytes_for(self._params, self._dtype),
            "SquareRootFisher's factor",
            "Use solver=CG(), which needs no copy.",
            self._ops,
        )
        with self._lock:
            return self._sums.copy()

    def _effective_dimension(self, shift: Any) -> float:
        # tr F A⁻¹ = Σ v* A⁻¹ v over the columns v of Rᴴ: squares, where p − tr D A⁻¹ would cancel.
        factor = self._own_solver.factor(self, shift)
        return float(factor.quadratic_columns(self.root().conj().T).sum(dtype="float64"))

    def _dense(self) -> Any:
        self._guard_matrix(3)
        with self._lock:
            return self._sums.dense()

    # ---- the sums ----
    def _empty_sums(self) -> Any:
        _memory.guard(
            self._ops.Root.bytes_for(self._params, self._dtype),
            type(self).__name__,
            "Use ScoreFisher (solved by the dual or by CG) or DiagonalFisher.",
            self._ops,
        )
        return self._ops.Root(self._params, self._dtype)

    def _add_scores(self, scores: Any, weights: Any, check_finite: bool, threads: int) -> Any:
        _memory.guard(
            self._ops.Root.bytes_to_sum(scores.shape[0], self._params, self._dtype, threads),
            "SquareRootFisher.update",
            "Give fewer rows at a time.",
            self._ops,
        )
        mean = None
        if self._center:
            mean = self._ops.column_mean(scores, weights, self._dtype, check_finite, threads)
        root = self._sums.copy()  # an error spoils it
        root.add_scores(scores, weights, mean, check_finite=check_finite, threads=threads)
        self._sums = root
        return mean

    def _add_sums(self, other: Any) -> None:
        self._sums.add(other._sums)

    def _add_outer(self, x: Any, alpha: float) -> None:
        self._sums.add_outer(x, alpha)

    def _scale_sums(self, factor: float) -> None:
        self._sums.scale(factor)

    @classmethod
    def _sums_shapes(
        cls, ops: ModuleType, structure: dict[str, Any], dtype: Any
    ) -> dict[str, tuple[tuple[int | None, ...], Any]]:
        length = ops.Root.length(structure["n_params"], dtype)
        return {"sums": ((length,), ops.held_dtype(dtype))}

    def _sums_arrays(self) -> dict[str, Any]:
        return {"sums": self._sums.panels}

    def _set_sums(self, arrays: dict[str, Any]) -> None:
        self._sums = self._ops.Root.from_panels(self._params, self._dtype, arrays["sums"])
