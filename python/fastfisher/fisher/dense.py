"""DenseFisher: the whole matrix, held as the lower half of its sums."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Self

from fastfisher import _check, _memory
from fastfisher._ops import ops_of
from fastfisher.errors import NonFiniteError
from fastfisher.fisher.accumulator import Accumulator

__all__ = ["DenseFisher"]


class DenseFisher(Accumulator):
    """The Fisher as an explicit matrix, held in p²/2 numbers (p² of a Hermitian one).

    Equivalent to ``scores.T @ scores / len(scores)``, streamed, weighted, centred and merged.

    Parameters
    ----------
    n_params : int
        p, at least 1.
    dtype : dtype
        float64, float32, complex128 or complex64, to sum in: real or complex as the scores are.
    center : bool
        Subtract the (weighted) mean score.
    reduction : {"mean", "sum"}
        Whether reading divides by Σw; the sums inside are the same.
    like : array, optional
        An array of the kind that the scores will have.

    Raises
    ------
    MemoryLimitError
        If it would not fit; says the size.

    See Also
    --------
    DiagonalFisher, ScoreFisher

    Notes
    -----
    An update costs n p² multiplications and no temporary; results have the same bits for any
    number of threads.

    References
    ----------
    T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", Stanford STAN-CS-79-773 (1979).

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = ff.DenseFisher(2)
    >>> F = F.update(np.array([[1.0, 0.0], [1.0, 2.0]])).update(np.array([[0.0, 1.0]]))
    >>> F.to_dense() * 3
    array([[2., 2.],
           [2., 5.]])
    >>> F.solve(np.ones(2), damping=1.0).round(4)
    array([0.5 , 0.25])
    >>> ff.DenseFisher.from_matrix([[2.0, 1.0], [1.0, 2.0]], n_samples=10).trace()
    4.0
    """

    @classmethod
    def from_matrix(
        cls,
        matrix: Any,
        *,
        n_samples: int = 1,
        reduction: str = "mean",
        n_threads: int | None = None,
    ) -> Self:
        """Return a DenseFisher of an explicit symmetric or Hermitian matrix.

        Parameters
        ----------
        matrix : array (p, p)
            Only its lower triangle is read, and of a Hermitian diagonal the real part.
        n_samples : int
            How many samples it is the mean (or the sum) of: its weight in a later merge or update.
        reduction : {"mean", "sum"}
            Which of the two `matrix` is.
        n_threads : int, optional

        Raises
        ------
        NonFiniteError
            Names the row and column.
        """
        array = _check.matrix(ops_of(matrix), matrix)
        samples = _check.count("n_samples", n_samples, 1)
        fisher = cls(array.shape[0], dtype=array.dtype, reduction=reduction, like=array)
        fisher._sums.set_dense(array, threads=_check.threads(n_threads))
        if fisher._reduction == "mean" and samples > 1:
            # The norm is a sum of sizes, so it overflows before an entry goes unseen.
            if not math.isfinite(fisher._sums.norm1() * samples):
                raise NonFiniteError(
                    f"matrix: expected a matrix whose sum over {samples} samples is finite, got "
                    f"overflow in {array.dtype}. Scale it down, or give fewer samples."
                )
            fisher._sums.scale(float(samples))
        fisher._weight_sum = float(samples)
        fisher._n_samples = samples
        return fisher

    def diagonal(self) -> Any:
        """Return the diagonal of F, (p,)."""
        with self._lock:
            return self._sums.diagonal() * self._scale

    def to_dense(self) -> Any:
        """Return F as a full symmetric (Hermitian) array (p, p)."""
        self._guard_matrix()
        with self._lock:
            return self._sums.to_dense(self._scale)

    def _product(self, V: Any, threads: int) -> Any:
        with self._lock:
            return self._sums.product(V, self._scale, threads)

    def _matrix_triangle(self, threads: int) -> tuple[Any, float]:  # noqa: ARG002
        _memory.guard(
            self._ops.Triangle.bytes_for(self._params, self._dtype),
            "DenseFisher's factor",
            "Use solver=CG(), which needs no copy.",
            self._ops,
        )
        with self._lock:
            return self._sums.copy(), self._scale

    @contextmanager
    def _borrowed_triangle(self, threads: int) -> Iterator[tuple[Any, float]]:  # noqa: ARG002
        with self._lock:
            yield self._sums, self._scale

    def _block_triangle(self, start: int, stop: int, threads: int) -> tuple[Any, float]:  # noqa: ARG002
        with self._lock:
            return self._sums.block(start, stop), self._scale

    def _eigenvalue_bound(self) -> float:
        with self._lock:
            return self._sums.norm1() * self._scale  # type: ignore[no-any-return]

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
        diagonal = self._shift_vector(shift)
        with self._lock:
            return self._ops.cg_triangle(
                self._sums, self._scale, diagonal, rhs, preconditioner, rtol, atol, steps, threads
            )

    def _shifted_conjugate_gradients(
        self, rhs: Any, shifts: list[float], rtol: float, atol: float, steps: int, threads: int
    ) -> Any:
        with self._lock:
            return self._ops.shifted_cg_triangle(
                self._sums, self._scale, shifts, rhs, rtol, atol, steps, threads
            )

    # ---- the sums ----
    def _empty_sums(self) -> Any:
        _memory.guard(
            self._ops.Triangle.bytes_for(self._params, self._dtype),
            type(self).__name__,
            "Use ScoreFisher (solved by the dual or by CG) or DiagonalFisher.",
            self._ops,
        )
        return self._ops.Triangle(self._params, self._dtype)

    def _add_scores(self, scores: Any, weights: Any, check_finite: bool, threads: int) -> Any:
        if self._params > _memory.SMALL:
            _memory.guard(
                self._ops.Triangle.scratch_bytes(scores.shape[0], self._params, self._dtype),
                "DenseFisher.update",
                "Give fewer rows at a time.",
                self._ops,
            )
        fresh = self._n_samples == 0
        if check_finite:
            self._refuse_overflow_of(scores, weights, threads)
        try:
            if self._center:
                return self._sums.add_centred_scores(
                    scores, weights, fresh=fresh, check_finite=check_finite, threads=threads
                )
            self._sums.add_scores(
                scores, weights, None, fresh=fresh, check_finite=check_finite, threads=threads
            )
        except NonFiniteError:
            if fresh:
                self._sums = self._empty_sums()
            raise

    def _sums_diagonal(self) -> Any:
        return self._sums.diagonal()

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
        length = ops.Triangle.length(structure["n_params"], dtype)
        return {"sums": ((length,), ops.held_dtype(dtype))}

    def _sums_arrays(self) -> dict[str, Any]:
        return {"sums": self._sums.panels}

    def _set_sums(self, arrays: dict[str, Any]) -> None:
        self._sums = self._ops.Triangle.from_panels(self._params, arrays["sums"])
