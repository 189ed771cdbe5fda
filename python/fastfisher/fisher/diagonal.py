"""DiagonalFisher: the diagonal alone, p numbers."""

import math
from types import ModuleType
from typing import Any, Self

from fastfisher import _check, _memory
from fastfisher._ops import ops_of
from fastfisher._ops.conjugates import squares
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.fisher.accumulator import Accumulator, is_far
from fastfisher.fisher.factor import DiagonalFactor, Factor
from fastfisher.fisher.spectrum import eigenvalue_powers

__all__ = ["DiagonalFisher"]


class DiagonalFisher(Accumulator):
    """The diagonal of the Fisher, as elastic weight consolidation and Adam-like scaling use it.

    Equivalent to ``(scores**2).mean(axis=0)``: the mean of squares per sample. It is not the
    square of the mean gradient, which is what squaring a batch gradient gives.

    Parameters
    ----------
    n_params : int
        p, at least 1.
    dtype : dtype
        float64, float32, complex128 or complex64, to sum in: real or complex as the scores are.
    center : bool
        Subtract the (weighted) mean score, which gives the variances of the scores.
    reduction : {"mean", "sum"}
        Whether reading divides by Σw.
    like : array, optional
        An array of the kind that the scores will have.

    See Also
    --------
    DenseFisher, fisher_diagonal

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = ff.DiagonalFisher.from_scores(np.array([[1.0, 0.0], [1.0, 2.0]]))
    >>> F.diagonal()
    array([1., 2.])
    >>> F.solve(np.ones(2), damping=1.0).round(4)
    array([0.5   , 0.3333])
    >>> ff.DiagonalFisher.from_diagonal([2.0, 4.0]).solve([1.0, 1.0])
    array([0.5 , 0.25])
    """

    @classmethod
    def from_diagonal(cls, diagonal: Any, *, n_samples: int = 1, reduction: str = "mean") -> Self:
        """Return a DiagonalFisher of an explicit diagonal.

        Parameters
        ----------
        diagonal : array (p,)
            Finite, not negative; float32 is kept, anything else becomes float64.
        n_samples : int
            How many samples it is the mean (or the sum) of: its weight in a later merge or update.
        reduction : {"mean", "sum"}
            Which of the two `diagonal` is.
        """
        array = _check.diagonal(ops_of(diagonal), diagonal)
        samples = _check.count("n_samples", n_samples, 1)
        fisher = cls(array.shape[0], dtype=array.dtype, reduction=reduction, like=array)
        fisher._sums += array * (samples if fisher._reduction == "mean" else 1)
        fisher._weight_sum = float(samples)
        fisher._n_samples = samples
        return fisher

    def diagonal(self) -> Any:
        """Return the diagonal of F, (p,)."""
        with self._lock:
            return self._sums * self._scale

    def to_dense(self) -> Any:
        """Return F as a full array (p, p), zero off the diagonal."""
        self._guard_matrix()
        return self._ops.xp.diag(self.diagonal().astype(self._dtype))

    def _product(self, V: Any, threads: int) -> Any:  # noqa: ARG002
        return self.diagonal()[:, None] * V

    def _matrix_triangle(self, threads: int) -> tuple[Any, float]:
        return self._ops.Triangle.from_dense(self.to_dense(), threads=threads), 1.0

    def _block_triangle(self, start: int, stop: int, threads: int) -> tuple[Any, float]:
        block = self._ops.xp.diag(self.diagonal()[start:stop].astype(self._dtype))
        return self._ops.Triangle.from_dense(block, threads=threads), 1.0

    _composition = "a diagonal"

    def _matrix_factor(self, shift: Any, *, threads: int = 0, with_norm: bool = True) -> Factor:  # noqa: ARG002
        damped = self._damped(shift)
        bad = ~((damped > 0) & (damped < math.inf))
        if bool(bad.any()):
            place = int(bad.argmax())
            if not math.isfinite(damped[place]):
                _check.positive_definite_report((2, place, place, float(damped[place])), 0.0)
            raise NotPositiveDefiniteError(
                f"fisher: expected a positive definite F + damping, got {float(damped[place]):.3g} "
                f"on the diagonal at parameter {place}.",
                pivot=place,
                value=float(damped[place]),
            )
        return DiagonalFactor(self._ops, damped, self._dtype, threads)

    def _eigenvalue_bound(self) -> float:
        return float(self.diagonal().max())

    def _spectral_power(
        self,
        V: Any,
        power: float,
        shift: Any,
        *,
        truncate: bool,
    ) -> tuple[Any, int]:
        powers, rank = eigenvalue_powers(self._ops.xp, self._damped(shift), power, truncate)
        return powers[:, None] * V, rank

    def _leading(self, k: int) -> tuple[Any, Any]:
        diagonal = self.diagonal()
        order = self._ops.xp.argsort(-diagonal, kind="stable")[:k]
        vectors = self._ops.zeros((self._params, k), self._dtype)
        vectors[order, self._ops.xp.arange(k)] = 1
        return diagonal[order], vectors

    def _effective_dimension(self, shift: Any) -> float:
        self._matrix_factor(shift)
        diagonal = self.diagonal()
        return float((diagonal / (diagonal + shift)).sum(dtype="float64"))

    def _damped(self, shift: Any) -> Any:
        return (self.diagonal() + shift).astype(self._real_dtype)

    # ---- the sums ----
    def _empty_sums(self) -> Any:
        _memory.guard(
            self._params * self._dtype.itemsize,
            "DiagonalFisher",
            "Split the parameters in parts.",
            self._ops,
        )
        return self._ops.zeros(self._params, self._real_dtype)

    def _add_scores(self, scores: Any, weights: Any, check_finite: bool, threads: int) -> Any:
        mean = None
        if self._center:
            mean = self._ops.column_mean(scores, weights, self._dtype, check_finite, threads)
        added = self._ops.diagonal(scores, weights, mean, self._dtype, check_finite, threads)
        if check_finite and not (self._far and mean is None and is_far(added)):
            total = scores.shape[0] if weights is None else weights.sum(dtype="float64")
            self._refuse_overflow(added, mean, float(total) if mean is not None else 0.0)
        self._sums += added
        return mean

    def _refuse_spoilt(self) -> None:  # `_add_scores` refuses before anything has changed
        self._far = not self._ops.here() and is_far(self._sums)

    def _sums_diagonal(self) -> Any:
        return self._sums

    def _add_sums(self, other: Any) -> None:
        self._sums += other._sums

    def _add_outer(self, x: Any, alpha: float) -> None:
        self._sums += alpha * squares(x)

    def _scale_sums(self, factor: float) -> None:
        self._sums *= factor

    @classmethod
    def _sums_shapes(
        cls,
        ops: ModuleType,  # noqa: ARG003
        structure: dict[str, Any],
        dtype: Any,
    ) -> dict[str, tuple[tuple[int | None, ...], Any]]:
        return {"sums": ((structure["n_params"],), _check.real_of(dtype))}

    def _sums_arrays(self) -> dict[str, Any]:
        return {"sums": self._sums}

    def _set_sums(self, arrays: dict[str, Any]) -> None:
        self._sums = arrays["sums"].copy()
