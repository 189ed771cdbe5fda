"""Streams: scores cut into chunks, each one summed while the next is read."""

import mmap
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops.border import TakesTensors

__all__ = ["Chunks", "Progress", "chunks", "pair", "stream"]

Progress = Callable[[int, int | None], object]

# Bytes of a chunk. Measured on 2 GB: with 16 MiB a diagonal takes 7 to 30 % longer, with 256 MiB
# 4 % less; a DenseFisher (p = 256) takes the same from 16 MiB on.
CHUNK = 64 * 2**20


def chunks(scores: Any, weights: Any = None, *, rows: int | None = None) -> "Chunks":
    """Cut scores into chunks of rows, to be streamed by ``update_from``.

    Equivalent to ``[scores[i : i + rows] for i in range(0, len(scores), rows)]``, but lazily, and
    for a memory-mapped file with the pages read ahead of use and let go after it: however large
    the file, it takes no more memory than two chunks.

    Parameters
    ----------
    scores : array (n, p), np.memmap or anything with `shape` that gives arrays when sliced
        One row per sample; an HDF5 data set will do. A map is fastest in C order.
    weights : array (n,), optional
        Cut along.
    rows : int, optional
        Of each chunk but the last; default as many as make 64 MiB.

    Returns
    -------
    Chunks
        An iterable of score arrays, or of pairs with weights. It has ``len`` and `n_samples`, and
        may be iterated over again.

    Raises
    ------
    TypeError, ValueError
        For arguments of the wrong kind or shape.

    See Also
    --------
    DenseFisher.update_from, DiagonalFisher.update_from

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> scores = np.arange(10.0).reshape(5, 2)
    >>> [part.shape for part in ff.chunks(scores, rows=2)]
    [(2, 2), (2, 2), (1, 2)]
    """
    return Chunks(scores, weights, rows)


class Chunks(TakesTensors):
    """Scores, and weights if there are any, as an iterable of consecutive rows."""

    def __init__(self, scores: Any, weights: Any = None, rows: int | None = None) -> None:
        if not hasattr(scores, "shape"):
            scores = np.asarray(scores)
        if len(scores.shape) != 2:
            raise ValueError(
                f"scores: expected a 2-D array (n_samples, n_params), got shape {scores.shape}. "
                "Give one row per sample."
            )
        self.n_samples = int(scores.shape[0])
        if weights is not None:
            if not hasattr(weights, "shape"):
                weights = np.asarray(weights)
            if weights.shape != (self.n_samples,):
                raise ValueError(
                    f"weights: expected shape ({self.n_samples},), one per sample, got "
                    f"{weights.shape}. Weights are given per row of the scores."
                )
        if rows is None:
            width = np.dtype(getattr(scores, "dtype", np.float64)).itemsize * int(scores.shape[1])
            rows = max(1, CHUNK // max(1, width))
        self.rows = _check.count("rows", rows, 1)
        self._scores = scores
        self._weights = weights

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(range(0, self.n_samples, self.rows))

    def __iter__(self) -> Iterator[Any]:
        """Give one chunk after the other; the caller may hold the last two."""
        pages = _Pages.behind(self._scores)
        used = in_use = None
        for start in range(0, self.n_samples, self.rows):
            part = slice(start, min(start + self.rows, self.n_samples))
            scores = self._scores[part]
            if pages is not None:
                if used is not None:
                    pages.release(used)
                pages.read(scores)
            yield scores if self._weights is None else (scores, self._weights[part])
            used, in_use = in_use, scores  # who asks for the next may be at work on this one


class _Pages:
    """The pages of a memory-mapped file, to be read before they are used and let go after."""

    def __init__(self, file: mmap.mmap) -> None:
        self._file = file
        self._start = np.frombuffer(file, np.uint8, 1).__array_interface__["data"][0]

    @classmethod
    def behind(cls, scores: Any) -> "_Pages | None":
        """Return the pages behind `scores`; None unless it lies in a map that rows cut in pieces.

        A copy-on-write map is left alone: it would lose what was written to it.
        """
        if not (isinstance(scores, np.ndarray) and scores.flags.c_contiguous):
            return None
        owner: Any = scores
        while isinstance(owner, np.ndarray):
            base: Any = owner.base
            if isinstance(owner, np.memmap) and isinstance(base, mmap.mmap):
                releases = hasattr(mmap, "MADV_DONTNEED") and owner.mode != "c"
                return cls(base) if releases else None
            owner = base
        return None

    def read(self, chunk: Any) -> None:
        """Touch every page, without holding the interpreter.

        Measured: as fast as the disk alone (1.9 GB/s), hints to the system (WILLNEED) add nothing;
        35 GB/s where the system has the file in memory, and 3 GB/s of reading it into a buffer.
        """
        chunk.reshape(-1).view(np.uint8)[:: mmap.PAGESIZE].max(initial=0)

    def release(self, chunk: Any) -> None:
        """Give the pages back, but the last, which may hold the beginning of the next chunk."""
        first = chunk.__array_interface__["data"][0] - self._start
        last = (first + chunk.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        first = first // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._file.madvise(mmap.MADV_DONTNEED, first, last - first)


def pair(chunk: Any) -> tuple[Any, Any]:
    """Return scores and weights of a chunk; None for weights that there are not."""
    if not isinstance(chunk, tuple):
        return chunk, None
    if len(chunk) != 2:
        raise ValueError(
            f"chunks: expected score arrays or pairs (scores, weights), got a tuple of "
            f"{len(chunk)}. Give None for the weights where there are none."
        )
    return chunk


def stream(
    source: Iterable[Any],
    prepared: Callable[[Any], tuple[Any, Any]],
    add: Callable[[Any, Any], object],
    progress: Progress | None,
) -> None:
    """Call ``add(*prepared(chunk))`` for every chunk, in order, each while the next is read.

    Reading and `progress` belong to the caller's thread, so that files, generators and bars need
    not know of threads; adding belongs to another one, which no Ctrl-C interrupts half-way. Arrays
    on a device are added in the caller's thread, whose current stream orders all, and do not wait.
    """
    if progress is not None and not callable(progress):
        raise TypeError(
            f"progress: expected a callable or None, got {type(progress).__name__}. "
            "It is called with the samples done and the total."
        )
    from concurrent.futures import Future, ThreadPoolExecutor  # 10 ms, for those who stream

    total = source.n_samples if isinstance(source, Chunks) else None
    # An iterator may fill one buffer again and again. Its second chunk tells: until then, and if
    # it lies where the first did, nothing is read ahead.
    ahead: bool | None = True if isinstance(source, Chunks) else None
    count = samples = rows = 0  # what is summed, and what is being summed
    adding: Future[Any] | None = None

    def finish() -> None:
        nonlocal adding, count, samples
        if adding is not None:
            adding.result()
            adding, count, samples = None, count + 1, samples + rows
            if progress is not None:
                progress(samples, total)

    with ThreadPoolExecutor(1, "fastfisher-stream") as pool:
        try:
            before: tuple[Any, Any] | None = None
            for chunk in source:
                present = prepared(chunk)
                if before is not None:
                    reused = _overlap(before, present)
                    if reused and ahead:
                        raise ValueError(
                            "chunks: expected arrays that keep their values while the next one is "
                            f"read, got chunk {count + 1} in the memory of chunk {count}, whose "
                            "sum is spoiled. Yield copies."
                        )
                    ahead = not reused if ahead is None else ahead
                finish()
                before, rows = present, present[0].shape[0]
                if isinstance(present[0], np.ndarray):
                    # In our context, so that what the border made of tensors is known there too.
                    try:
                        adding = pool.submit(copy_context().run, add, *present)
                    except RuntimeError as error:  # the first one starts the thread
                        raise MemoryError(f"chunks: {error}") from error
                else:
                    adding = Future()
                    try:
                        adding.set_result(add(*present))
                    except Exception as error:  # noqa: BLE001 (`finish` raises it)
                        adding.set_exception(error)
                if not ahead:
                    finish()
            finish()
        except BaseException as error:
            failure = None if adding is None else adding.exception()  # waits
            if adding is not None and failure is None:
                count, samples = count + 1, samples + rows  # what had begun is summed
            where = f"from row {samples}"
            if failure is not None:
                where = f"rows {samples} to {samples + rows - 1}"
            (failure or error).add_note(
                f"chunks: stopped at chunk {count}, {where} of the stream. The {count} chunks "
                f"before it, {samples} samples in all, are summed."
            )
            if failure is not None and failure is not error:
                raise failure from error
            raise


def _overlap(first: tuple[Any, Any], second: tuple[Any, Any]) -> bool:
    # Exactly: rows of Fortran order lie between each other, and bounds alone would call that one
    # memory. For two strides each that is solved at once.
    return any(
        isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and np.shares_memory(x, y)
        for x, y in zip(first, second, strict=True)
    )
