"""BlockDiagonalFisher: the diagonal blocks of F, and if wished the blocks beside them."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, Self

import numpy as np

from fastfisher import _check, _memory
from fastfisher._ops import ops_of
from fastfisher.errors import NonFiniteError
from fastfisher.fisher.accumulator import Accumulator
from fastfisher.fisher.block_factor import BlockFactor
from fastfisher.fisher.spectrum import cutoff, eigenvalue_powers

__all__ = ["BlockDiagonalFisher"]


class BlockDiagonalFisher(Accumulator):
    """The Fisher with everything zero but blocks along the diagonal, or a block-tridiagonal band.

    Equivalent to ``[scores[:, b].T @ scores[:, b] / len(scores) for b in blocks]``, and with
    ``tridiagonal=True`` also ``scores[:, c].T @ scores[:, b]`` for every b and the next block c.
    For layers, for the neurons of a layer (unit-wise: one small block each) and for chains: the
    precision of a state-space model is block-tridiagonal.

    Masking a Fisher to its block diagonal keeps it positive semi-definite. Masking it to
    block-tridiagonal may not: then `factor` and `solve` raise `NotPositiveDefiniteError`, which
    names the block and the damping that would do. It is never repaired silently.

    Parameters
    ----------
    block_sizes : sequence of int
        Parameters of each block, in their order, each at least 1; their sum is p.
    tridiagonal : bool
        Keep the neighbours F[b + 1, b] too.
    dtype : dtype
        float64, float32, complex128 or complex64, to sum in: real or complex as the scores are.
    center : bool
        Subtract the (weighted) mean score.
    reduction : {"mean", "sum"}
        Whether reading divides by Σw.
    like : array, optional
        An array of the kind that the scores will have.

    Raises
    ------
    MemoryLimitError
        If it would not fit; says the size.

    See Also
    --------
    DenseFisher, DiagonalFisher, BlockJacobi

    Notes
    -----
    An update costs n Σ size² multiplications, one reading of the scores and no temporary of their
    size. Factor, solve, `logdet`, samples and the diagonal blocks of the inverse cost Σ size³ and
    Σ size², linear in the number of blocks, for any p; small blocks share the registers of one
    panel. Of blocks of at most 192 bytes a row every number is held once, of larger ones half.
    Spectral functions of a block-tridiagonal F (`apply_power`, `eigsh`) make it dense.

    References
    ----------
    H. E. Rauch, F. Tung and C. T. Striebel, "Maximum likelihood estimates of linear dynamic
    systems", AIAA J. 3 (1965) 1445, for the inverse.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> scores = np.array([[1.0, 2.0, 1.0], [1.0, 0.0, 3.0]])
    >>> F = ff.BlockDiagonalFisher([2, 1]).update(scores)
    >>> F.to_dense()
    array([[1., 1., 0.],
           [1., 2., 0.],
           [0., 0., 5.]])
    >>> F.factor(damping=1.0).inverse_blocks()[1].round(4)
    array([[0.1667]])
    >>> chain = ff.BlockDiagonalFisher.from_scores(scores, [1, 1, 1], tridiagonal=True)
    >>> chain.neighbours()[1]
    array([[1.]])
    >>> F.block_sizes, [block.shape for block in F.blocks()]
    ((2, 1), [(2, 2), (1, 1)])
    """

    _composition = "blocks"

    def __init__(
        self,
        block_sizes: Any,
        *,
        tridiagonal: bool = False,
        dtype: Any = np.float64,
        center: bool = False,
        reduction: str = "mean",
        like: Any = None,
    ) -> None:
        self._sizes = _check.block_sizes(block_sizes)
        self._tridiagonal = _check.flag("tridiagonal", tridiagonal)
        super().__init__(
            int(self._sizes.sum()), dtype=dtype, center=center, reduction=reduction, like=like
        )

    @classmethod
    def from_scores(  # type: ignore[override]
        cls,
        scores: Any,
        block_sizes: Any,
        *,
        tridiagonal: bool = False,
        weights: Any = None,
        dtype: Any = None,
        center: bool = False,
        reduction: str = "mean",
        check_finite: bool = True,
        n_threads: int | None = None,
    ) -> Self:
        """Return the Fisher of these scores.

        Parameters
        ----------
        scores : array (n, p), float64, float32, complex128 or complex64
            One row per sample: ∇θ log p(xᵢ | θ).
        block_sizes : sequence of int
            They add up to p.
        tridiagonal : bool
        weights : array (n,), optional
            Not negative; a weight of 2 counts a sample twice.
        dtype : dtype, optional
            To sum in; default that of the scores.
        center : bool
        reduction : {"mean", "sum"}
        check_finite : bool
        n_threads : int, optional
        """
        rows = _check.scores(ops_of(scores), scores)
        fisher = cls(
            block_sizes,
            tridiagonal=tridiagonal,
            dtype=_check.accumulation_dtype(dtype, rows.dtype),
            center=center,
            reduction=reduction,
            like=rows,
        )
        return fisher._of_samples(rows, weights, check_finite, n_threads)

    def update(
        self,
        scores: Any,
        weights: Any = None,
        *,
        check_finite: bool = True,
        n_threads: int | None = None,
    ) -> Self:
        """Add samples, and return self; see `DenseFisher.update`."""
        rows = _check.scores(self._ops_for(scores), scores)
        if rows.shape[1] != self._params:
            raise ValueError(
                f"block_sizes: expected sizes that add up to the {rows.shape[1]} columns of the "
                f"scores, got {self._params}. Every parameter belongs to one block."
            )
        return super().update(rows, weights, check_finite=check_finite, n_threads=n_threads)

    # ---- what it is ----
    @property
    def block_sizes(self) -> tuple[int, ...]:
        """Parameters of each block."""
        return tuple(self._sizes.tolist())

    @property
    def tridiagonal(self) -> bool:
        """Whether the neighbours of the diagonal blocks are kept."""
        return self._tridiagonal

    def blocks(self) -> list[Any]:
        """Return the diagonal blocks of F, arrays (size, size) of their own."""
        with self._lock:
            blocks: list[Any] = self._sums.diagonal_blocks(self._scale)
            return blocks

    def neighbours(self) -> list[Any]:
        """Return the blocks F[b + 1, b] below the diagonal; an empty list if there are none."""
        with self._lock:
            blocks: list[Any] = self._sums.neighbours(self._scale)
            return blocks

    def __repr__(self) -> str:
        told = f", {len(self._sizes)} blocks, tridiagonal={self._tridiagonal}, dtype"
        return super().__repr__().replace(", dtype", told, 1)

    # ---- reading ----
    def diagonal(self) -> Any:
        """Return the diagonal of F, (p,)."""
        with self._lock:
            return self._sums.diagonal() * self._scale

    def to_dense(self) -> Any:
        """Return F as a full array (p, p), zero where it holds nothing."""
        self._guard_matrix()
        out = self._ops.zeros((self._params, self._params), self._dtype)
        ends = np.cumsum(self._sizes).tolist()
        starts = [end - size for end, size in zip(ends, self._sizes.tolist(), strict=True)]
        for start, end, block in zip(starts, ends, self.blocks(), strict=True):
            out[start:end, start:end] = block
        for b, block in enumerate(self.neighbours()):
            below, across = slice(ends[b], ends[b + 1]), slice(starts[b], ends[b])
            out[below, across] = block
            out[across, below] = block.conj().T
        return out

    def _product(self, V: Any, threads: int) -> Any:
        with self._lock:
            return self._sums.product(V, self._scale, threads)

    def _eigenvalue_bound(self) -> float:
        with self._lock:
            return float(self._sums.norm1() * self._scale)

    # ---- factor ----
    @property
    def _matrix_rows(self) -> int:
        return int(self._sizes.max())

    def _matrix_triangle(self, threads: int) -> tuple[Any, float]:
        return self._ops.Triangle.from_dense(self.to_dense(), threads=threads), 1.0

    def _matrix_factor(
        self, shift: Any, *, threads: int = 0, with_norm: bool = True
    ) -> BlockFactor:
        _memory.guard(
            self._ops.Blocks.factor_bytes(self._sizes, self._tridiagonal, self._dtype),
            "BlockDiagonalFisher's factor",
            "Use solver=CG(), which needs none, or smaller blocks.",
            self._ops,
        )
        with self._lock:
            factor = self._sums.cholesky(self._scale, shift, threads=threads, with_norm=with_norm)
        return BlockFactor(self._ops, factor, threads)

    def _effective_dimension(self, shift: Any) -> float:
        factor = self._matrix_factor(shift, with_norm=False)
        with self._lock:
            return self._scale * factor.trace_with(self._sums)

    # ---- spectrum, block by block where there are no neighbours ----
    def _spectra(self, shift: Any) -> list[tuple[Any, Any, Any]]:
        """Return rows (m, s), eigenvalues (m, s), vectors (m, s, s) for each size s of blocks."""
        with self._lock:
            stacks = list(self._sums.stacks(self._scale))
        found = []
        damping = self._shift_vector(shift)
        for rows, blocks in stacks:
            inside = self._ops.xp.arange(rows.shape[1])
            blocks[:, inside, inside] += damping[rows]
            found.append((rows, *self._ops.eigh(blocks)))
        return found

    def _spectral_power(
        self, V: Any, power: float, shift: Any, *, truncate: bool
    ) -> tuple[Any, int]:
        if self._tridiagonal:
            return super()._spectral_power(V, power, shift, truncate=truncate)
        xp, spectra = self._ops.xp, self._spectra(shift)
        values = xp.concat([values.ravel() for _, values, _ in spectra])
        powers, rank = eigenvalue_powers(xp, values, power, truncate)
        out, start = xp.empty_like(V), 0
        for rows, values, Q in spectra:
            own = powers[start : start + values.size].reshape(values.shape)
            out[rows] = Q @ (own[..., None] * (Q.conj().swapaxes(1, 2) @ V[rows]))
            start += values.size
        return out, rank

    def _spectral_solver(
        self, rhs: Any, threads: int
    ) -> tuple[Any, float, Callable[[list[float]], Any]]:
        if self._tridiagonal:
            return super()._spectral_solver(rhs, threads)
        xp, spectra = self._ops.xp, self._spectra(0.0)
        values = xp.sort(xp.concat([values.ravel() for _, values, _ in spectra]))
        cutoff(values, self._params)  # refuses what is not finite
        parts = [(Q, w, rows, Q.conj().swapaxes(1, 2) @ rhs[rows]) for rows, w, Q in spectra]

        def solve(shifts: list[float]) -> Any:
            columns = rhs.shape[1]
            out = xp.empty((self._params, len(shifts) * columns), rhs.dtype)
            for place, shift in enumerate(shifts):
                at = slice(place * columns, (place + 1) * columns)
                for Q, w, rows, inner in parts:
                    out[rows, at] = Q @ (inner / (w + shift).astype(self._real_dtype)[..., None])
            return out

        return values, float(values[0]), solve

    def _leading(self, k: int) -> tuple[Any, Any]:
        if self._tridiagonal:
            return super()._leading(k)
        xp, spectra = self._ops.xp, self._spectra(0.0)
        values = xp.concat([values.reshape(-1) for _, values, _ in spectra])
        order = xp.argsort(-values, kind="stable")[:k]
        vectors = self._ops.zeros((self._params, k), self._dtype)
        chosen, from_host, start = self._ops.to_host(order), self._ops.from_host, 0
        for rows, own, Q in spectra:
            columns = np.flatnonzero((chosen >= start) & (chosen < start + own.size))
            block, j = map(from_host, np.divmod(chosen[columns] - start, own.shape[1]))
            vectors[rows[block], from_host(columns)[:, None]] = Q[block, :, j]
            start += own.size
        return values[order], vectors

    # ---- the sums ----
    def _empty_sums(self) -> Any:
        _memory.guard(
            self._ops.Blocks.length(self._sizes, self._tridiagonal, self._dtype)
            * self._ops.held_dtype(self._dtype).itemsize,
            type(self).__name__,
            "Use smaller blocks, or DiagonalFisher.",
            self._ops,
        )
        return self._ops.Blocks(self._sizes, self._tridiagonal, self._dtype)

    def _add_scores(self, scores: Any, weights: Any, check_finite: bool, threads: int) -> Any:
        fresh = self._n_samples == 0
        if check_finite:
            self._refuse_overflow_of(scores, weights, threads)
        try:
            return self._sums.add_scores(
                scores,
                weights,
                centred=self._center,
                fresh=fresh,
                check_finite=check_finite,
                threads=threads,
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

    def _structure(self) -> dict[str, Any]:
        return {"block_sizes": self._sizes.astype(np.int64), "tridiagonal": self._tridiagonal}

    @classmethod
    def _structure_of(cls, state: dict[str, Any]) -> dict[str, Any]:
        return {
            "block_sizes": _check.block_sizes(state["block_sizes"]),
            "tridiagonal": _check.flag("tridiagonal", state["tridiagonal"]),
        }

    @classmethod
    def _sums_shapes(
        cls, ops: ModuleType, structure: dict[str, Any], dtype: Any
    ) -> dict[str, tuple[tuple[int | None, ...], Any]]:
        length = ops.Blocks.length(structure["block_sizes"], structure["tridiagonal"], dtype)
        return {"sums": ((length,), ops.held_dtype(dtype))}

    def _sums_arrays(self) -> dict[str, Any]:
        return {"sums": self._sums.numbers}

    def _set_sums(self, arrays: dict[str, Any]) -> None:
        self._sums.numbers[...] = arrays["sums"]
