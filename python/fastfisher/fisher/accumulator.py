"""Accumulators: representations that are sums over samples, so they stream, merge and decay."""

from abc import abstractmethod
from types import ModuleType
from typing import Any, Self

import numpy as np

from fastfisher import _check
from fastfisher._native import get_num_threads
from fastfisher._ops import for_dtype, is_numpys, ops_of
from fastfisher._turns import Whole
from fastfisher.errors import NonFiniteError
from fastfisher.fisher.additive import Additive
from fastfisher.fisher.streaming import Chunks, Progress, pair, stream

__all__ = ["Accumulator", "is_far"]

# By itemsize, 2⁻²⁰ of the largest number: sums above it may overflow by one more batch of scores
# that would not do so alone, and those are looked at first.
_FAR = {8: 2.0**1004, 4: 2.0**108}


class Accumulator(Additive):
    """A representation that holds Σ w (s − m)* (s − m)ᵀ, or the part of it that it keeps.

    Sums of different samples add, so accumulators are commutative monoids to rounding: the empty
    one changes nothing, and any split of the samples gives the same F. Centred sums are about the
    mean m of their own samples, and are joined by the exact update of Chan, Golub and LeVeque:
    M = M₁ + M₂ + (w₁w₂ / (w₁ + w₂)) (m₂ − m₁)* (m₂ − m₁)ᵀ, which no offset of the scores disturbs.

    Several threads may use one accumulator: they take turns.
    """

    # Whether the sums were found to be far from the end of the range, and have not been joined
    # with others since.
    _far = False

    def __init__(
        self,
        n_params: int,
        *,
        dtype: Any = np.float64,
        center: bool = False,
        reduction: str = "mean",
        like: Any = None,
    ) -> None:
        self._params = _check.count("n_params", n_params, 1)
        self._dtype = _check.native_dtype("dtype", dtype)
        self._center = _check.flag("center", center)
        self._reduction = _check.reduction(reduction)
        self._mean: Any
        self._sums: Any
        self._begin(like)

    def _make_empty(self) -> None:
        self._mean = self._ops.zeros(self._params, self._dtype) if self._center else None
        self._sums = self._empty_sums()

    # ---- what a representation writes about its sums ----
    @abstractmethod
    def _empty_sums(self) -> Any:
        """Return the sums over no samples."""

    @abstractmethod
    def _add_scores(self, scores: Any, weights: Any, check_finite: bool, threads: int) -> Any:
        """Add Σ w (s − m)* (s − m)ᵀ and return their own mean m if centred, else None for m = 0.

        An error changes nothing.
        """

    @abstractmethod
    def _add_outer(self, x: Any, alpha: float) -> None:
        """Add alpha · x* xᵀ."""

    @classmethod
    @abstractmethod
    def _sums_shapes(
        cls, ops: ModuleType, structure: dict[str, Any], dtype: Any
    ) -> dict[str, tuple[tuple[int | None, ...], Any]]:
        """Return shape and dtype of each array of the sums, without building them.

        None in a shape stands for any length.
        """

    @abstractmethod
    def _sums_arrays(self) -> dict[str, Any]:
        """Return the sums as arrays by their names, to be copied."""

    @abstractmethod
    def _set_sums(self, arrays: dict[str, Any]) -> None:
        """Take over copies of what `_sums_arrays` gave."""

    # ---- building ----
    @classmethod
    def from_scores(
        cls,
        scores: Any,
        *,
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
        weights : array (n,), optional
            Not negative; a weight of 2 counts a sample twice.
        dtype : dtype, optional
            To sum in; default that of the scores.
        center : bool
            Subtract the (weighted) mean score.
        reduction : {"mean", "sum"}
            Divide by Σw or not.
        check_finite : bool
            Raise on NaN and infinity, naming row and column.
        n_threads : int, optional
        """
        rows = _check.scores(ops_of(scores), scores)
        fisher = cls(
            rows.shape[1],
            dtype=_check.accumulation_dtype(dtype, rows.dtype),
            center=center,
            reduction=reduction,
            like=rows,
        )
        return fisher._of_samples(rows, weights, check_finite, n_threads)

    def _of_samples(
        self, rows: Any, weights: Any, check_finite: bool, n_threads: int | None
    ) -> Self:
        """Add all samples that there are, so some of them must count in a mean."""
        self.update(rows, weights, check_finite=check_finite, n_threads=n_threads)
        if self._reduction == "mean" and rows.shape[0] > 0:
            _check.weight_sum(self._weight_sum, rows.shape[0], self._real_dtype)
        return self

    # ---- streaming ----
    def update(
        self,
        scores: Any,
        weights: Any = None,
        *,
        check_finite: bool = True,
        n_threads: int | None = None,
    ) -> Self:
        """Add samples, and return self.

        Parameters
        ----------
        scores : array (n, p)
            No wider than `dtype`; n = 0 changes nothing.
        weights : array (n,), optional
            All zero, as those of a chunk that is masked out, they add to `n_samples` alone.
        check_finite : bool
        n_threads : int, optional

        Raises
        ------
        NonFiniteError
            Names the row and column; the accumulator is unchanged, but for a batch that overflows
            by itself, which the message then says to have spoilt it.

        Examples
        --------
        >>> import numpy as np, fastfisher as ff
        >>> F = ff.DiagonalFisher(2).update([[1.0, 0.0], [1.0, 2.0]])
        >>> F = F.update([[2.0, 0.0]], weights=[2.0])
        >>> F.diagonal(), F.n_samples, F.weight_sum
        (array([2.5, 1. ]), 3, 4.0)
        """
        ops = self._ops_for(scores)
        rows = _check.scores(ops, scores, self._params)
        _check.narrowing(rows.dtype, self._dtype)
        weights, total = _check.weights(ops, weights, rows.shape[0], self._dtype, part=True)
        threads = _check.threads(n_threads)
        if rows.shape[0] == 0:
            return self
        # Once there are samples, nothing is left to settle: the lock is held already.
        with self._lock, Whole(), self._settled(ops) if self._open else self._lock:
            mean = None
            if total > 0.0:
                mean = self._add_scores(rows, weights, check_finite, threads)
            elif check_finite:  # names what is not, as where one of them counts
                ops.diagonal(rows, weights, None, self._dtype, True, threads)
            self._join(mean, total, rows.shape[0])
            if check_finite:
                self._refuse_spoilt()
        return self

    def update_from(
        self,
        chunks: Any,
        *,
        progress: Progress | None = None,
        check_finite: bool = True,
        n_threads: int | None = None,
    ) -> Self:
        """Add samples chunk by chunk, each one summed while the next is read, and return self.

        Equivalent to ``for part in chunks: F.update(part)``, with the same bits.

        Parameters
        ----------
        chunks : iterable, or array (n, p)
            Of score arrays or pairs ``(scores, weights)``: a generator, a list, a file reader,
            ``ff.chunks(…)``. An array or ``np.memmap`` is cut by ``ff.chunks`` itself. It is
            iterated over in the calling thread, one chunk ahead of the sums; one that fills the
            same buffer again and again is not read ahead.
        progress : callable, optional
            ``progress(done, total)`` in samples, after each chunk, in the calling thread; `total`
            is None unless the chunks come from an array.
        check_finite : bool
        n_threads : int, optional

        Raises
        ------
        NonFiniteError, TypeError, ValueError
            As `update` does. Whatever ends the stream (a bad chunk, an error in the iterator or in
            `progress`, Ctrl-C), the accumulator holds exactly the chunks before, and a note on the
            error says how many those are and which rows were not added; but for a chunk that
            overflows by itself, as in `update`.

        See Also
        --------
        chunks

        Examples
        --------
        >>> import numpy as np, fastfisher as ff
        >>> scores = np.random.default_rng(0).standard_normal((5000, 4))
        >>> F = ff.DenseFisher(4).update_from(scores[i : i + 1000] for i in range(0, 5000, 1000))
        >>> F.n_samples
        5000

        A file larger than memory, and a bar of tqdm that follows:

        >>> scores = np.memmap("scores.f64", mode="r").reshape(-1, 2000)  # doctest: +SKIP
        >>> with tqdm(total=len(scores)) as bar:  # doctest: +SKIP
        ...     F.update_from(scores, progress=lambda done, total: bar.update(done - bar.n))
        """
        if getattr(chunks, "ndim", None) == 2:
            chunks = Chunks(chunks)
        threads = _check.threads(n_threads) or get_num_threads()  # of this thread, not the adder's

        def prepared(chunk: Any) -> tuple[Any, Any]:
            scores, weights = pair(chunk)
            ops = self._ops_for(scores)
            rows = _check.scores(ops, scores, self._params)
            return rows, _check.weights(ops, weights, rows.shape[0], self._dtype, part=True)[0]

        def add(scores: Any, weights: Any) -> None:
            self.update(scores, weights, check_finite=check_finite, n_threads=threads)

        stream(chunks, prepared, add, progress)
        return self

    def _join(self, mean: Any, total: float, samples: int) -> None:
        """Account for sums that were added, taken about `mean` with the weight `total`."""
        if mean is not None and total > 0.0:
            if self._weight_sum == 0.0:
                self._mean = mean.copy()
            else:
                share = total / (self._weight_sum + total)
                with np.errstate(all="ignore"):  # what raises half-way would leave half a batch
                    step = mean - self._mean
                    self._add_outer(step, self._weight_sum * share)
                    self._mean = self._mean + step * share
        self._far = False
        super()._join(mean, total, samples)

    def _refuse_overflow_of(self, scores: Any, weights: Any, threads: int) -> None:
        """Raise as `_refuse_overflow`, of scores that are still to be added: one pass over them.

        Sums that are known to be far from the end of the range need none; see `_refuse_spoilt`.
        """
        if self._far or self._n_samples == 0 or self._ops.here():
            return
        mean, total = None, float(scores.shape[0])
        if weights is not None:
            total = float(weights.sum(dtype="float64"))
        if self._center:
            mean = self._ops.column_mean(scores, weights, self._dtype, True, threads)
        added = self._ops.diagonal(scores, weights, mean, self._dtype, True, threads)
        self._refuse_overflow(added, mean, total)

    def _refuse_spoilt(self) -> None:
        """Raise if scores that were just added overflow by themselves: the old sums are lost.

        One look after each batch tells this, and whether the next one has to be looked at first.
        """
        if self._ops.here():
            return
        diagonal = self._sums_diagonal()
        self._far = diagonal is None or is_far(diagonal)
        if not (self._far or self._ops.all_finite(diagonal)):
            place = int(np.argmin(np.isfinite(diagonal)))
            raise NonFiniteError(
                f"scores: expected squares whose sum is within the range of {self._dtype}, got "
                f"overflow in column {place}, of this batch or one before. It has spoilt this "
                "Fisher: begin a new one, with smaller scores or a wider dtype.",
                column=place,
            )

    def _mean_or_none(self) -> Any:
        return self._mean

    def __sizeof__(self) -> int:
        # Dask goes by it when it decides where to merge and what to keep.
        return super().__sizeof__() + sum(int(x.nbytes) for x in self._sums_arrays().values())

    # ---- copies, pickle and files ----
    def copy(self) -> Self:
        """Return one of its own with the same content."""
        with self._lock:
            return self._from_state(self._held())  # which takes over copies

    def _held(self) -> dict[str, Any]:
        """Return the state with the arrays themselves, to be read while the lock is held."""
        state: dict[str, Any] = {
            **self._conventions(),
            "weight_sum": self._weight_sum,
            "n_samples": self._n_samples,
            **self._sums_arrays(),
        }
        if self._mean is not None:
            state["mean"] = self._mean
        return state

    def _state(self) -> dict[str, Any]:
        with self._lock:
            return {
                name: value.copy() if hasattr(value, "shape") else value
                for name, value in self._held().items()
            }

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        structure = cls._structure_of(state)
        dtype = _check.native_dtype("dtype", state["dtype"])
        held = [value for value in state.values() if hasattr(value, "dtype")]
        like = next((value for value in held if not is_numpys(value)), held[-1])
        expected = cls._sums_shapes(for_dtype(ops_of(like), dtype), structure, dtype)
        arrays = {name: _intact(name, state[name], *kind) for name, kind in expected.items()}
        fisher = cls(
            **structure,
            dtype=dtype,
            center=state["center"],
            reduction=state["reduction"],
            like=like,
        )
        fisher._set_sums(arrays)
        if fisher._center:
            fisher._mean = _intact("mean", state["mean"], (fisher._params,), dtype).copy()
        fisher._weight_sum = _check.cut("weight_sum", state["weight_sum"])
        fisher._n_samples = _check.count("n_samples", state["n_samples"])
        fisher._open = fisher._n_samples == 0 and is_numpys(like)
        return fisher


def is_far(diagonal: Any) -> bool:
    """Tell whether all of it is finite and far from the end of the range."""
    largest: float = diagonal.item(diagonal.argmax())  # NaN, if there is one
    return largest < _FAR[diagonal.itemsize]


def _intact(name: str, found: Any, shape: tuple[int | None, ...], held: Any) -> Any:
    """Return an array of a state if it has the shape, None being any length, and the dtype."""
    agrees = len(found.shape) == len(shape) and all(
        wanted in (None, extent) for wanted, extent in zip(shape, found.shape, strict=True)
    )
    if not agrees or found.dtype != held:
        raise ValueError(
            f"{name}: expected shape {shape} of {held}, got {found.shape} of {found.dtype}. "
            "The state is damaged."
        )
    return found
