"""Streams: chunk by chunk is what update gives, and whatever ends a stream leaves whole chunks."""

import _thread
import gc
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle
from fastfisher.fisher.accumulator import Accumulator
from sanitizer import memory_is_as_asked_for

KINDS = (ff.DenseFisher, ff.DiagonalFisher, ff.SquareRootFisher)


def by_update(kind: type[Any], parts: Any, **keywords: Any) -> Accumulator:
    F = kind(7, **keywords)
    for part in parts:
        F.update(*(part if isinstance(part, tuple) else (part,)))
    answer: Accumulator = F
    return answer


def same(F: Accumulator, other: Accumulator) -> bool:
    state, expected = F._state(), other._state()
    return all(np.array_equal(state[key], expected[key]) for key in expected)


@pytest.fixture
def mapped(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Return a function that writes an array to a file and maps it."""

    def write(array: np.ndarray, mode: Any = "r") -> np.ndarray:
        path = tmp_path / "scores"
        array.tofile(path)
        answer: np.ndarray = np.memmap(path, array.dtype, mode, shape=array.shape)
        return answer

    return write


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("fastfisher")]


# ---- chunks ----
@pytest.mark.parametrize(("n", "rows"), [(0, 3), (1, 3), (3, 3), (10, 3), (10, 1), (10, 99)])
def test_chunks_are_the_rows_in_order(n: int, rows: int) -> None:
    S, weights = oracle.draw(n, 7), np.arange(n)
    parts = ff.chunks(S, weights, rows=rows)
    assert (parts.n_samples, len(list(parts))) == (n, len(parts))
    for _ in range(2):  # as often as one likes
        assert np.array_equal(np.concatenate([S[:0], *(s for s, _ in parts)]), S)
        assert np.array_equal(np.concatenate([weights[:0], *(w for _, w in parts)]), weights)


def test_chunks_cut_whatever_gives_arrays() -> None:
    class Dataset:  # as HDF5 has them
        shape, dtype = (10, 7), np.dtype(np.float64)

        def __getitem__(self, part: slice) -> np.ndarray:
            return oracle.draw(10, 7)[part]

    assert [len(part) for part in ff.chunks(Dataset(), rows=4)] == [4, 4, 2]
    assert [len(part) for part in ff.chunks([[1.0, 2.0]] * 3, rows=2)] == [2, 1]


def test_chunks_are_some_megabytes_by_default() -> None:
    assert ff.chunks(np.empty((10**6, 100), np.float32)).rows == 2**26 // 400
    assert ff.chunks(np.lib.stride_tricks.as_strided(np.zeros(1), (9, 10**9), (0, 0))).rows == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ff.chunks(np.ones(3)), r"scores: expected a 2-D array .* got shape \(3,\)"),
        (lambda: ff.chunks(np.ones((3, 2)), np.ones(2)), r"weights: expected shape \(3,\)"),
        (lambda: ff.chunks(np.ones((3, 2)), rows=0), "rows: expected at least 1, got 0"),
    ],
)
def test_chunks_refuse(call: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# ---- streams ----
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_has_the_bits_of_updates(
    kind: type[Any],
    center: bool,
    dtype: type[np.floating],
    threads: int,
    mapped: Callable[..., np.ndarray],
) -> None:
    S, w = oracle.draw(100, 7, dtype), np.linspace(0.1, 2, 100)
    parts = [S[i : i + 13] for i in range(0, 100, 13)]
    weighted = [(S[i : i + 13], w[i : i + 13]) for i in range(0, 100, 13)]
    keywords: dict[str, Any] = {"center": center, "dtype": dtype}
    for source, expected in [
        (parts, parts),
        (iter(parts), parts),
        (ff.chunks(S, rows=13), parts),
        (ff.chunks(mapped(S), rows=13), parts),
        (ff.chunks(S, w, rows=13), weighted),
        (np.asfortranarray(S), [np.asfortranarray(S)]),
        (mapped(S), [S]),
        ([], []),
    ]:
        F = kind(7, **keywords).update_from(source, n_threads=threads)
        assert same(F, by_update(kind, expected, **keywords))


def test_centred_streams_are_exact_far_from_zero(
    mapped: Callable[..., np.ndarray],
) -> None:
    n, p = 4000, 7
    S = oracle.draw(n, p)
    # 1e8 on dyadic numbers of 20 bits: what is stored is exact, so the spread is known.
    S = np.round(S * 2**20) / 2**20
    moved = mapped(S + 1e8)
    F = ff.DenseFisher(p, center=True).update_from(ff.chunks(moved, rows=100))
    # The mean of each chunk is off by n eps 1e8, and enters squared; its offset to the next once.
    expected = oracle.fisher(np.asarray(moved) - 1e8, center=True)
    assert np.abs(F.to_dense() - expected).max() < 4 * np.finfo(float).eps * 1e8


def test_progress_counts_samples_in_the_calling_thread() -> None:
    seen = []
    F = ff.DiagonalFisher(7)

    def progress(done: int, total: int | None) -> None:
        assert threading.current_thread() is threading.main_thread()
        seen.append((done, total, F.n_samples))

    F.update_from(ff.chunks(oracle.draw(10, 7), rows=4), progress=progress)
    F.update_from(iter([oracle.draw(3, 7)]), progress=progress)
    assert seen == [(4, 10, 4), (8, 10, 8), (10, 10, 10), (3, None, 13)]


def test_one_chunk_is_read_ahead_and_no_more() -> None:
    F, given = ff.DiagonalFisher(7), []

    def source() -> Iterator[np.ndarray]:
        for i in range(6):
            given.append(i)
            yield oracle.draw(5, 7)

    ahead = []
    F.update_from(source(), progress=lambda done, _: ahead.append(len(given) - done // 5))
    assert ahead == [0, 1, 1, 1, 1, 0]  # the first two chunks show that each has its own memory


@pytest.mark.parametrize("buffers", [1, 2, 3])
def test_iterators_may_use_their_buffers_again(buffers: int) -> None:
    S, ring = oracle.draw(60, 7), [np.empty((5, 7)) for _ in range(buffers)]

    def source() -> Iterator[np.ndarray]:
        for i in range(12):
            ring[i % buffers][:] = S[5 * i : 5 * i + 5]
            yield ring[i % buffers]

    expected = by_update(ff.DenseFisher, [S[i : i + 5] for i in range(0, 60, 5)])
    assert same(ff.DenseFisher(7).update_from(source()), expected)


def test_chunks_may_lie_between_each_other() -> None:
    """In Fortran order, and in wider rows, no chunk has an element of another."""
    S = oracle.draw(50, 12)
    for scores in (np.asfortranarray(S), np.asfortranarray(S)[::-2, ::3], S.T[:, :7]):
        F = ff.DenseFisher(scores.shape[1]).update_from(ff.chunks(scores, rows=8))
        oracle.close(F.to_dense(), oracle.fisher(scores), np.float64, len(scores))


def test_a_buffer_that_is_used_again_later_on_is_named() -> None:
    a, b = oracle.draw(5, 7), oracle.draw(5, 7)
    with pytest.raises(ValueError, match=r"chunks: expected arrays .* got chunk 2 in the"):
        ff.DenseFisher(7).update_from([a, b, b])


# ---- what ends a stream ----
def note(caught: Any) -> str:
    return "".join(caught.value.__notes__)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("bad", [0, 1, 2, 5])
def test_a_bad_chunk_is_named_and_those_before_it_are_summed(
    kind: type[Any], center: bool, bad: int
) -> None:
    parts = [oracle.draw(4 + i, 7) for i in range(6)]
    expected = by_update(kind, parts[:bad], center=center)
    first = sum(len(part) for part in parts[:bad])
    poisoned = parts[bad].copy()
    poisoned[1, 2] = np.nan
    F = kind(7, center=center)
    with pytest.raises(ff.NonFiniteError, match="nan at row 1, column 2") as caught:
        F.update_from([*parts[:bad], poisoned, *parts[bad + 1 :]])
    rows = f"rows {first} to {first + len(poisoned) - 1}"
    assert f"chunk {bad}, {rows} of the stream. The {bad} chunks before it" in note(caught)
    assert same(F, expected)

    for wrong, message in [
        (np.ones((3, 6)), r"scores: expected 7 columns, one per parameter, got shape \(3, 6\)"),
        ((np.ones((3, 7)), np.ones(2)), r"weights: expected shape \(3,\)"),
    ]:
        F = kind(7, center=center)
        with pytest.raises(ValueError, match=message) as refused:
            F.update_from([*parts[:bad], wrong, *parts[bad + 1 :]])
        assert f"chunk {bad}, from row {first} of the stream" in note(refused)
        assert same(F, expected)


def test_what_is_no_stream_is_refused() -> None:
    F = ff.DenseFisher(7)
    with pytest.raises(ValueError, match=r"chunks: expected score arrays .* got a tuple of 3"):
        F.update_from([(np.ones((3, 7)), None, None)])
    with pytest.raises(TypeError, match="progress: expected a callable or None, got str"):
        F.update_from([np.ones((3, 7))], progress="bar")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not iterable"):
        F.update_from(7)
    assert F.n_samples == 0


def test_the_first_of_two_bad_chunks_is_the_one_that_is_named() -> None:
    parts = [oracle.draw(4, 7), oracle.draw(4, 7), np.full((4, 7), np.nan), np.ones((4, 6))]
    with pytest.raises(ff.NonFiniteError) as caught:
        ff.DenseFisher(7).update_from(parts)
    assert "chunk 2, rows 8 to 11" in note(caught)


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_an_iterator_that_fails_leaves_whole_chunks(error: Any) -> None:
    parts = [oracle.draw(4, 7) for _ in range(5)]

    def source() -> Iterator[np.ndarray]:
        yield from parts
        raise error

    F = ff.DenseFisher(7)
    with pytest.raises(type(error)) as caught:
        F.update_from(source())
    assert "chunk 5, from row 20 of the stream. The 5 chunks before it, 20 samples" in note(caught)
    assert same(F, by_update(ff.DenseFisher, parts))


def test_progress_that_fails_leaves_whole_chunks() -> None:
    parts = [oracle.draw(4, 7) for _ in range(5)]

    def progress(done: int, total: int | None) -> None:
        if done == 12:
            raise RuntimeError("enough")

    F = ff.DenseFisher(7)
    with pytest.raises(RuntimeError, match="enough") as caught:
        F.update_from(parts, progress=progress)
    assert "The 3 chunks before it, 12 samples" in note(caught)
    assert same(F, by_update(ff.DenseFisher, parts[:3]))


def test_an_interrupt_during_the_sums_leaves_whole_chunks() -> None:
    S = oracle.draw(2000, 400)
    F = ff.DenseFisher(400, center=True)
    stop = threading.Timer(0.15, _thread.interrupt_main)
    # A shell has what it runs in the background be deaf to Ctrl-C; and then this would go on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        stop.start()
        with pytest.raises(KeyboardInterrupt):
            F.update_from(S for _ in range(2000))  # some 20 seconds
        stop.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert F.n_samples > 0
    assert F.n_samples % 2000 == 0
    expected = ff.DenseFisher(400, center=True).update_from([S] * (F.n_samples // 2000))
    assert same(F, expected)


# ---- larger than memory ----
def resident(field: str = "VmRSS") -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("this system does not tell how much memory is resident")
    found = re.search(rf"{field}:\s+(\d+)", status.read_text())
    assert found is not None
    return 1024 * int(found.group(1))


@memory_is_as_asked_for
@pytest.mark.parametrize("kind", KINDS)
def test_a_long_file_takes_two_chunks_of_memory(
    kind: type[Any], mapped: Callable[..., np.ndarray]
) -> None:
    scores = mapped(np.broadcast_to(oracle.draw(1, 512), (2**14, 512)))  # 64 MiB
    parts = ff.chunks(scores, rows=512)  # 2 MiB each
    kind(512).update_from(scores[:1024])
    gc.collect()
    before, most = resident(), []
    kind(512).update_from(parts, progress=lambda done, total: most.append(resident()))
    # Two chunks, what DenseFisher adds (1 MiB and its blocks), and the allocator's slack, which is
    # 14 MiB where this test is the first of a process; a file that is kept adds 64 MiB.
    assert max(most) - before < 32 * 2**20
    assert resident() - before < 32 * 2**20


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_map_is_as_it_was(mode: str, mapped: Callable[..., np.ndarray]) -> None:
    S = oracle.draw(5000, 7)
    scores = mapped(S, mode)
    if mode != "r":
        scores[:] += 1.0
        S = S + 1.0
    ff.DenseFisher(7).update_from(ff.chunks(scores, rows=1000))
    assert np.array_equal(scores, S)


def test_a_view_of_a_map_is_read_as_a_map(mapped: Callable[..., np.ndarray]) -> None:
    S = oracle.draw(5000, 7)
    for view in (lambda a: a[1:4001], lambda a: np.asarray(a)[8:], lambda a: a[::2], lambda a: a.T):
        part = view(S)
        F = ff.DenseFisher(part.shape[1]) if part.shape[1] == 7 else None
        if F is not None:
            F.update_from(ff.chunks(view(mapped(S)), rows=997))
            assert F.n_samples == len(part)
            oracle.close(F.to_dense(), oracle.fisher(part), float, len(part), 4)
        assert np.array_equal(np.concatenate(list(ff.chunks(view(mapped(S)), rows=997))), part)


def test_score_fisher_takes_a_map_as_it_stands(tmp_path: Path) -> None:
    """Under a limit on private memory of less than half the file, every use of a map works."""
    pytest.importorskip("resource")
    if not Path("/proc/self/status").exists():
        pytest.skip("the limit is Linux's")
    code = """
import re, resource, sys
from pathlib import Path
import numpy as np, fastfisher as ff
path = sys.argv[1]
S = np.random.default_rng(0).standard_normal((256, 2**14))  # 32 MiB
S.tofile(path); n, p = S.shape; del S
ff.set_num_threads(2)
scores = np.memmap(path, mode="r", dtype=np.float64).reshape(n, p)
ff.ScoreFisher(scores[:, :200]).solve(np.ones(200), damping=1.0)  # threads are there
held = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))
resource.setrlimit(resource.RLIMIT_DATA, (held + 15 * 2**20,) * 2)
for center in (False, True):
    F = ff.ScoreFisher(scores, center=center)
    assert np.shares_memory(F._scores, scores)
    v = np.ones(p)
    F @ v; F.diagonal()
    x = F.solve(v, damping=1.0, solver=ff.CG(rtol=1e-10))
    y = F.solve(v, damping=1.0, solver=ff.Dual())
    assert np.abs(x - y).max() < 1e-8, np.abs(x - y).max()
try:
    np.ones(4 * 2**20)
except MemoryError:
    print("and no copy would have fitted")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "scores")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "and no copy would have fitted\n", done.stderr


def test_the_example_runs() -> None:
    example = Path(__file__).parent.parent / "examples" / "out_of_core.py"
    done = subprocess.run(
        [sys.executable, example, "8"], check=True, capture_output=True, text=True
    )
    assert "4096 of 4096 samples" in done.stdout
    assert float(done.stdout.split()[-1]) < 1e-6  # CG's tolerance


# ---- chunks that do not count ----
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("center", [False, True])
def test_a_chunk_that_is_masked_out_adds_its_count_alone(kind: type[Any], center: bool) -> None:
    S, none = oracle.draw(12, 7), np.zeros(4)
    for order in ((0, 4, 8), (4, 0, 8), (0, 8, 4)):
        F = kind(7, center=center).update_from(
            (S[i : i + 4], none if i == 4 else None) for i in order
        )
        expected = by_update(kind, [S[:4], S[8:]], center=center)
        oracle.close(F.to_dense(), expected.to_dense(), np.float64, 8)
        assert (F.weight_sum, F.n_samples) == (8.0, 12)
    with pytest.raises(ff.NonFiniteError, match="nan at row 0, column 0"):
        F.update(np.full((4, 7), np.nan), none)
    zeros = kind.from_scores(S[:4], weights=none, center=center, reduction="sum")
    assert not zeros.to_dense().any()
    with pytest.raises(ValueError, match="expected at least one that is positive"):
        kind.from_scores(S[:4], weights=none, center=center)
