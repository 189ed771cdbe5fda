"""LowRankFisher: a few directions and a multiple of the identity, for p that nothing else fits."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, Self

import numpy as np

from fastfisher import _check, _memory
from fastfisher._ops import ops_of
from fastfisher.errors import NonFiniteError, NotPositiveDefiniteError
from fastfisher.fisher.accumulator import Accumulator
from fastfisher.fisher.factor import Factor
from fastfisher.fisher.protocol import Fisher
from fastfisher.fisher.score import ScoreFisher
from fastfisher.fisher.sketch import Sketch
from fastfisher.fisher.spectrum import all_positive, cutoff
from fastfisher.solvers.eigh import Eigh
from fastfisher.solvers.nystrom import nystrom

__all__ = ["LowRankFisher"]

METHODS = ("frequent_directions", "randomized")
# Vectors of a randomised sketch beyond the rank: Halko, Martinsson and Tropp, SIAM Rev. 53 (2011)
# 217, section 4.2, find five to ten enough.
_OVERSAMPLING = 10


class LowRankFisher(Accumulator):
    """The Fisher as F̂ = c BᴴB + ρI: a few rows B, and what they do not hold spread evenly.

    ρ = (tr F − c tr BᴴB) / p, so that F̂ has the trace of F. Scores are streamed into B by frequent
    directions, which is deterministic: 0 ⪯ F − c BᴴB ⪯ Δ with a known Δ, so that

        ‖F − F̂‖₂ ≤ max(ρ, Δ − ρ) ≤ Δ ≤ (λ_{k+1} + … + λ_p) / (r + 1 − k)    for each k ≤ r,

    λ the eigenvalues of F, largest first. `error_bound` is max(ρ, Δ − ρ). F̂ is F, to rounding,
    while F has at most r directions or 3 r samples.

    Parameters
    ----------
    n_params : int
        p, at least 1.
    rank : int
        r, 1 … p: the rows that B is shrunk to whenever there are 3 r. All that there are serve.
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
        If 3 r rows would not fit; says the size.

    See Also
    --------
    ScoreFisher, DenseFisher

    Notes
    -----
    An update costs about 8 r p multiplications and additions per sample, beyond what eigh takes of
    3 r × 3 r matrices; the memory is 3 r p numbers, and twice that during an update. Nothing has p²
    numbers. Solves take any damping, by Woodbury's identity with the m ≤ 3 r rows held: m² p
    multiplications to factor, 2 m p for each right-hand side. As in the dual, answers lose digits
    by ‖F‖ / (λ + ρ).

    Merging adds the rows of one to those of the other and the bounds too, so it is approximate but
    keeps every inequality above. Decay does as well. Where different orders of updates or merges
    differ, they do so by no more than the bounds of both.

    The sketch works with Gram matrices: directions whose eigenvalue is smaller than 3 r · eps of
    the largest are taken for rounding and not kept. Where nothing else was ever lost, ρ is 0.

    References
    ----------
    M. Ghashami, E. Liberty, J. M. Phillips and D. P. Woodruff, "Frequent directions: simple and
    deterministic matrix sketching", SIAM J. Comput. 45 (2016) 1762.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = ff.LowRankFisher(4, rank=1)
    >>> F = F.update(np.array([[3.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [3, 0, 0, 0]]))
    >>> F.trace()
    5.0
    >>> F.error_bound
    0.1875
    >>> F.solve(np.ones(4), damping=1.0).round(3)
    array([0.184, 0.842, 0.842, 0.842])
    >>> F.rank, round(F.residual, 6)
    (1, 0.1875)
    """

    _composition = "a sketch"
    _own_path_solver = Eigh()  # most of the time goes into a Gram matrix, which all dampings share

    def __init__(
        self,
        n_params: int,
        rank: int,
        *,
        dtype: Any = np.float64,
        center: bool = False,
        reduction: str = "mean",
        like: Any = None,
    ) -> None:
        self._rank = _check.count("rank", rank, 1)
        params = _check.count("n_params", n_params, 1)
        if self._rank > params:
            raise ValueError(
                f"rank: expected at most p = {params}, got {rank}. F has no more directions."
            )
        super().__init__(params, dtype=dtype, center=center, reduction=reduction, like=like)

    @classmethod
    def from_scores(  # type: ignore[override]
        cls,
        scores: Any,
        rank: int,
        *,
        method: str = "frequent_directions",
        rng: Any = 0,
        power_iterations: int = 1,
        weights: Any = None,
        dtype: Any = None,
        center: bool = False,
        reduction: str = "mean",
        check_finite: bool = True,
        n_threads: int | None = None,
    ) -> Self:
        """Return the sketch of the Fisher of these scores.

        Parameters
        ----------
        scores : array (n, p)
            One row per sample.
        rank : int
            r, 1 … p; it may exceed n.
        method : {"frequent_directions", "randomized"}
            The sketch that streams, in one pass with a proven bound; or what `from_fisher` makes
            of all scores at once, which comes closer to the r leading directions.
        rng, power_iterations
            For ``"randomized"``, see `from_fisher`.
        weights : array (n,), optional
            Not negative; a weight of 2 counts a sample twice.
        dtype : dtype, optional
            To sum in; default that of the scores.
        center : bool
            Subtract the (weighted) mean score.
        reduction : {"mean", "sum"}
            Divide by Σw or not.
        check_finite : bool
            Name row and column of NaN and infinity.
        n_threads : int, optional
        """
        if method not in METHODS:
            raise ValueError(
                f"method: expected one of {', '.join(METHODS)}, got {method!r}. "
                "'frequent_directions' is the one that streams."
            )
        rows = _check.scores(ops_of(scores), scores)
        held = _check.accumulation_dtype(dtype, rows.dtype)
        conventions: dict[str, Any] = {"center": center, "reduction": reduction}
        if method == "randomized":
            fisher = ScoreFisher(
                rows,
                weights=weights,
                check_finite=check_finite,
                n_threads=n_threads,
                **conventions,
            )
            return cls._from_products(fisher, rank, rng, power_iterations, held, n_threads)
        empty = cls(rows.shape[1], rank, dtype=held, like=rows, **conventions)
        return empty._of_samples(rows, weights, check_finite, n_threads)

    @classmethod
    def from_fisher(
        cls,
        fisher: Fisher,
        rank: int,
        *,
        rng: Any = 0,
        power_iterations: int = 1,
        n_threads: int | None = None,
    ) -> Self:
        """Return the r leading directions of another Fisher, found from F @ V alone.

        By the randomised Nyström approximation with r + 10 vectors: exact, to rounding, where F
        has no more directions than r. The rest of the trace becomes ρ, and `error_bound` is
        tr F − c tr BᴴB or less, a bound that holds for every draw.

        Parameters
        ----------
        fisher : Fisher
            Any representation; its samples, weights, mean and conventions are taken over.
        rank : int
            r, 1 … p.
        rng : int, numpy.random.Generator or None
            An int, the default, gives the same directions each time.
        power_iterations : int
            Products with F before the one that counts; each sharpens slowly falling spectra.
        n_threads : int, optional

        Examples
        --------
        >>> import numpy as np, fastfisher as ff
        >>> F = ff.DenseFisher.from_matrix(np.diag([9.0, 4.0, 0.0, 0.0]))
        >>> ff.LowRankFisher.from_fisher(F, rank=2).diagonal().round(12)
        array([9., 4., 0., 0.])
        """
        if not isinstance(fisher, Fisher):
            raise TypeError(
                f"fisher: expected a representation, got {type(fisher).__name__}. "
                "Use DenseFisher.from_matrix first."
            )
        with fisher._still():
            return cls._from_products(fisher, rank, rng, power_iterations, fisher.dtype, n_threads)

    @classmethod
    def _from_products(
        cls,
        fisher: Fisher,
        rank: int,
        rng: Any,
        power_iterations: int,
        dtype: Any,
        n_threads: int | None,
    ) -> Self:
        params, xp, scale = fisher.shape[0], fisher._ops.xp, fisher._scale
        threads = _check.threads(n_threads)
        mean = fisher._mean_or_none()
        found = cls(
            params,
            rank,
            dtype=dtype,
            center=fisher.center,
            reduction=fisher.reduction,
            like=mean,
        )
        vectors = min(found._rank + _OVERSAMPLING, params)
        U, values = nystrom(
            fisher._ops,
            lambda V: fisher._product(V, threads),
            params,
            fisher.dtype,
            vectors,
            rng,
            power_iterations=_check.count("power_iterations", power_iterations),
            name="LowRankFisher.from_fisher",
        )
        trace = fisher.trace()
        # The digits that the trace and the eigenvalues, 1 + r numbers of that size, do not have.
        rounding = vectors * float(np.finfo(fisher.dtype).eps) * abs(trace)
        if float(values.sum()) > trace + rounding:
            raise NotPositiveDefiniteError(
                "fisher: expected a positive semi-definite F, got eigenvalues that add up to more "
                f"than its trace, {float(values.sum()):.3g} and {trace:.3g}. Negative ones have no "
                "place in BᴴB: use a representation that is a sum of squares.",
                value=trace - float(values.sum()),
            )
        U, values = U[:, : found._rank], values[: found._rank]
        lost = trace - float(values.sum())
        if not lost > rounding:
            lost = 0.0
        rows = (U * xp.sqrt(values / scale)).conj().T.astype(found._dtype, order="C")
        lost /= scale
        found._sums = Sketch(found._ops, found._rank, rows, lost=lost, shift=lost)
        if mean is not None:
            found._mean = mean.astype(found._dtype)
        found._weight_sum, found._n_samples = fisher.weight_sum, fisher.n_samples
        return found

    # ---- what it is ----
    @property
    def rank(self) -> int:
        """r, the directions that are kept when the sketch shrinks."""
        return self._rank

    @property
    def residual(self) -> float:
        """ρ of F̂ = c BᴴB + ρI."""
        return self._parts()[1]

    @property
    def error_bound(self) -> float:
        """A number that ‖F − F̂‖₂ does not exceed, but for rounding."""
        with self._lock:
            sums, scale = self._sums, self._scale
        rho = sums.spread / self._params
        return float(max(rho, sums.shift - rho) * scale)

    def __repr__(self) -> str:
        return super().__repr__().replace(", dtype", f", rank={self._rank}, dtype", 1)

    def diagonal(self) -> Any:
        """Return the diagonal of F̂, (p,)."""
        sketch, rho = self._parts()
        return sketch.diagonal() + self._real_dtype.type(rho)

    def to_dense(self) -> Any:
        """Return F̂ as a full symmetric (Hermitian) array (p, p)."""
        self._guard_matrix(2)
        sketch, rho = self._parts()
        matrix = sketch.to_dense()
        rows = self._ops.xp.arange(self._params)
        matrix[rows, rows] += self._real_dtype.type(rho)
        return matrix

    def _product(self, V: Any, threads: int) -> Any:
        sketch, rho = self._parts()
        return self._ops.fvp(sketch._scores, None, None, V, sketch._scale, rho, threads)

    def _matrix_triangle(self, threads: int) -> tuple[Any, float]:
        return self._ops.Triangle.from_dense(self.to_dense(), threads=threads), 1.0

    def _block_triangle(self, start: int, stop: int, threads: int) -> tuple[Any, float]:
        sketch, rho = self._parts()
        triangle, scale = sketch._block_triangle(start, stop, threads)
        block = triangle.to_dense(scale)
        rows = self._ops.xp.arange(stop - start)
        block[rows, rows] += self._real_dtype.type(rho)
        return self._ops.Triangle.from_dense(block, threads=threads), 1.0

    def _parts(self) -> tuple[ScoreFisher, float]:
        """Return c BᴴB as the Fisher of the rows B, and ρ: whatever F̂ answers, these two do.

        (F̂ + D)⁻¹ = (c BᴴB + (D + ρ))⁻¹ is Woodbury's identity, which is the dual of the rows.
        """
        with self._lock:
            sums, scale, weight_sum = self._sums, self._scale, self._weight_sum
        rows = sums.rows
        if rows.shape[0] == 0:
            rows = self._ops.zeros((1, self._params), self._dtype)
        sketch = ScoreFisher(rows, reduction=self._reduction, check_finite=False)
        sketch._weight_sum = weight_sum
        return sketch, sums.spread / self._params * scale

    # ---- solves ----
    @property
    def _cancels(self) -> bool:
        return self._matrix_rows < self._params

    @property
    def _matrix_rows(self) -> int:
        held: int = self._sums.rows.shape[0]
        return min(max(held, 1), self._params)

    def _matrix_factor(self, shift: Any, *, threads: int = 0, with_norm: bool = True) -> Factor:
        sketch, rho = self._parts()
        if not sketch._dual:
            return sketch._matrix_factor(shift + rho, threads=threads, with_norm=with_norm)
        if not all_positive(shift + rho):
            rows = sketch.n_samples
            raise NotPositiveDefiniteError(
                "damping: expected a positive damping, got zero. "
                f"{rows} directions without a residual are singular in {self._params} parameters.",
                pivot=rows,
                value=0.0,
            )
        return sketch._dual_factor(shift + rho, threads=threads, with_norm=with_norm)

    def _spectral_power(
        self, V: Any, power: float, shift: Any, *, truncate: bool
    ) -> tuple[Any, int]:
        sketch, rho = self._parts()
        return sketch._spectral_power(V, power, shift + rho, truncate=truncate)

    def _spectral_solver(
        self, rhs: Any, threads: int
    ) -> tuple[Any, float, Callable[[list[float]], Any]]:
        sketch, rho = self._parts()
        values, least, solve = sketch._spectral_solver(rhs, threads)
        return values + rho, least + rho, lambda shifts: solve([shift + rho for shift in shifts])

    def _leading(self, k: int) -> tuple[Any, Any]:
        sketch, rho = self._parts()
        xp = self._ops.xp
        values, Q = sketch._gram_spectrum()
        kept = values > cutoff(values, values.shape[0])
        values, Q = values[kept][: -k - 1 : -1], Q[:, kept][:, : -k - 1 : -1]
        vectors = sketch._rooted_transpose_dot(Q / xp.sqrt(values / sketch._scale), 0)
        more = k - values.shape[0]
        # Whatever is orthogonal to these has the eigenvalue ρ: random vectors, made so by QR.
        normal = _check.generator(0).standard_normal((self._params, more)).astype(self._dtype)
        others = self._ops.from_host(normal)
        vectors, _ = xp.linalg.qr(xp.concat([vectors, others], axis=1))
        return xp.concat([values, xp.zeros(more, dtype=values.dtype)]) + rho, vectors

    def _effective_dimension(self, shift: Any) -> float:
        # tr F̂A⁻¹ = tr c BᴴB A⁻¹ + ρ tr A⁻¹, and both are sums of positive numbers.
        sketch, rho = self._parts()
        if not all_positive(shift + rho):
            self._matrix_factor(shift)  # says that it is singular, or
            return sketch._effective_dimension(shift)
        held = sketch._effective_dimension(shift + rho)
        if isinstance(shift, float):
            return held + rho * (self._params - held) / (rho + shift)
        variances = self._matrix_factor(shift, with_norm=False).inverse_diagonal()
        return held + rho * float(variances.sum(dtype="float64"))

    # ---- the sums ----
    def _structure(self) -> dict[str, Any]:
        return {"n_params": self._params, "rank": self._rank}

    @classmethod
    def _structure_of(cls, state: dict[str, Any]) -> dict[str, Any]:
        return {**super()._structure_of(state), "rank": _check.count("rank", state["rank"], 1)}

    def _empty_sums(self) -> Any:
        rows = Sketch.capacity(self._rank)
        _memory.guard(
            rows * self._params * self._dtype.itemsize,
            type(self).__name__,
            "Use a smaller rank.",
            self._ops,
        )
        nothing = self._ops.empty((0, self._params), self._dtype)
        return Sketch(self._ops, self._rank, nothing)

    def _add_scores(self, scores: Any, weights: Any, check_finite: bool, threads: int) -> Any:
        mean = root = None
        if self._center:
            mean = self._ops.column_mean(scores, weights, self._dtype, check_finite, threads)
        if weights is not None:
            root = self._ops.xp.sqrt(weights)[:, None]

        def write(which: slice, out: Any) -> None:
            out[...] = scores[which]
            with np.errstate(over="ignore", invalid="ignore"):  # `extended` looks
                if mean is not None:
                    out -= mean
                if root is not None:
                    out *= root[which]

        try:
            self._sums = self._sums.extended(scores.shape[0], write, threads=threads)
        except NonFiniteError:
            self._ops.column_mean(scores, weights, self._dtype, True, threads)  # names the place
            raise
        return mean

    def _add_sums(self, other: Any) -> None:
        theirs = other._sums

        def write(which: slice, out: Any) -> None:
            out[...] = theirs.rows[which]

        self._sums = self._sums.extended(
            theirs.rows.shape[0], write, lost=theirs.lost, shift=theirs.shift
        )

    def _add_outer(self, x: Any, alpha: float) -> None:
        row = x * self._real_dtype.type(alpha**0.5)

        def write(which: slice, out: Any) -> None:  # noqa: ARG001
            out[...] = row

        self._sums = self._sums.extended(1, write)

    def _scale_sums(self, factor: float) -> None:
        self._sums = self._sums.scaled(factor)

    @classmethod
    def _sums_shapes(
        cls,
        ops: ModuleType,  # noqa: ARG003
        structure: dict[str, Any],
        dtype: Any,
    ) -> dict[str, tuple[tuple[int | None, ...], Any]]:
        return {
            "rows": ((None, structure["n_params"]), dtype),
            "lost": ((2,), np.dtype(np.float64)),
        }

    def _sums_arrays(self) -> dict[str, Any]:
        return {"rows": self._sums.rows, "lost": np.array([self._sums.lost, self._sums.shift])}

    def _set_sums(self, arrays: dict[str, Any]) -> None:
        rows, most = arrays["rows"], Sketch.capacity(self._rank)
        if rows.shape[0] > most:
            raise ValueError(
                f"rows: expected at most {most}, got {rows.shape[0]}. The state is damaged."
            )
        lost, shift = (_check.cut("lost", float(number)) for number in arrays["lost"])
        self._sums = Sketch(self._ops, self._rank, rows.copy(), lost=lost, shift=shift)
