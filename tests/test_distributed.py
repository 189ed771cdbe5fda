"""Past one process: Dask, joblib and threads give the bits of one tree, whoever sums what."""

import asyncio
import builtins
import doctest
import functools
import operator
import os
import pickle
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

import blocks
import fastfisher as ff
import representations
from fastfisher import _native
from fastfisher.distributed.tree import tree

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

EPS = np.finfo(np.float64).eps
TIMEOUT = 60.0  # seconds; what hangs, hangs for ever
PLACES = range(7)
PARTS = [blocks.block(place) for place in PLACES]
ALL = np.concatenate(PARTS)
WEIGHTS = np.linspace(0.0, 2.0, len(ALL))
INTO: dict[type[Any], dict[str, Any]] = {
    ff.DenseFisher: {},
    ff.DiagonalFisher: {},
    ff.BlockDiagonalFisher: {"block_sizes": [13, 10, 7], "tridiagonal": True},
    ff.SquareRootFisher: {},
}


def lazy(parts=PLACES):
    """The scores as a dask.array, each chunk made by the worker that sums it."""
    shape = (blocks.ROWS, blocks.PARAMS)
    made = [dask.delayed(blocks.block)(place) for place in parts]
    return da.concatenate([da.from_delayed(one, shape, np.float64) for one in made])


def close(found, expected, n=7 * blocks.ROWS):
    """Sums of n products in another order differ by n eps, of the largest."""
    return np.abs(found - expected).max() <= n * EPS * np.abs(expected).max()


# ---- the tree ----
def test_the_tree_joins_neighbours_first():
    def drawn(count):
        return tree([str(i) for i in range(count)], lambda one, two: f"({one} {two})")

    assert drawn(1) == "0"
    assert drawn(4) == "((0 1) (2 3))"
    assert drawn(7) == "(((0 1) (2 3)) ((4 5) 6))"
    assert drawn(11) == "((((0 1) (2 3)) ((4 5) (6 7))) ((8 9) 10))"


@pytest.mark.parametrize("count", range(1, 40))
def test_the_tree_is_that_of_halving_rounds(count):
    def rounds(parts):
        while len(parts) > 1:
            pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
            parts = [("join", *pair) if len(pair) == 2 else pair[0] for pair in pairs]
        return parts[0]

    parts: list[Any] = list(range(count))
    assert tree(parts, lambda one, two: ("join", one, two)) == rounds(list(range(count)))


@pytest.mark.parametrize("beside", ["numpy", "torch"])
def test_few_parts_of_a_generator_are_held_at_a_time(beside: str) -> None:
    pytest.importorskip(beside)  # where torch is imported, calls look for tensors
    alive, most = 0, 0

    class Part(ff.DiagonalFisher):
        def __init__(self, *args, **keywords):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            super().__init__(*args, **keywords)

        def __del__(self):
            nonlocal alive
            alive -= 1

    ff.distributed.merge_tree(Part(3).update(np.ones((1, 3))) for _ in range(64))
    assert most == 6 + 2  # one for each height, the next part, and their sum


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_every_accumulator_merges_in_a_tree(count):
    for name, empty, rows_of in representations.streams():
        if name.startswith("approximate"):
            continue
        parts = [
            empty.copy().update(*rows_of(slice(i * 60 // count, (i + 1) * 60 // count)))
            for i in range(count)
        ]
        before = [pickle.dumps(part) for part in parts]
        merged = ff.distributed.merge_tree(iter(parts))
        assert [pickle.dumps(part) for part in parts] == before, name
        whole = empty.copy().update(*rows_of(slice(60)))
        # The roots of `root` and the sketch of `low-rank` are found by orthogonal rotations.
        assert close(merged.to_dense(), whole.to_dense(), 10 * 60), name
        assert merged.n_samples == 60


def test_merge_tree_refuses_what_does_not_merge():
    D = ff.DiagonalFisher(2)
    for parts, error, message in (
        ([], ValueError, "parts: expected at least one, got none"),
        ([D, np.eye(2)], TypeError, "parts: expected accumulators, got ndarray"),
        ([ff.ScoreFisher(np.eye(2))], TypeError, "parts: expected accumulators, got ScoreFisher"),
        ([D, ff.DiagonalFisher(3)], ValueError, "others: expected"),
    ):
        with pytest.raises(error, match=message):
            ff.distributed.merge_tree(parts)  # type: ignore[type-var]


@pytest.mark.parametrize("kind", INTO)
def test_the_sum_of_one_part_is_not_that_part(kind):
    """Else updating the sum would change the caller's part."""
    one = kind.from_scores(PARTS[0], **INTO[kind])
    before = pickle.dumps(one)
    merged = ff.distributed.merge_tree(iter([one]))
    assert np.array_equal(merged.to_dense(), one.to_dense())
    merged.update(PARTS[1])
    assert pickle.dumps(one) == before


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kind", INTO)
def test_finite_parts_whose_sum_overflows(kind, center):
    """As in memory, no Fisher of infinities is returned; warnings are errors, so there are none."""
    options = INTO[kind] | {"center": center}
    if "block_sizes" in options:
        options["block_sizes"] = [1, 1]
    scores = np.full((4, 2), 1.2e19, np.float32)  # each square is below 2¹²⁸, four are not
    if center:
        scores = np.diag(np.array([1, -1, 1, -1], np.float32)) @ scores
    parts = [kind.from_scores(half, **options) for half in (scores[:2], scores[2:])]
    with pytest.raises(
        ff.NonFiniteError, match=r"fisher: expected finite sums, got .* at parameter"
    ):
        ff.distributed.merge_tree(parts)
    with pytest.raises(
        ff.NonFiniteError, match="Scale the scores down, or sum in a wider"
    ) as caught:
        ff.distributed.empirical_fisher(da.from_array(scores, chunks=(2, 2)), into=kind, **options)
    assert (caught.value.row, caught.value.column) == (None, 0)
    asked = ff.distributed.empirical_fisher(
        [scores[:2], scores[2:]], into=kind, check_finite=False, **options
    )
    assert not np.isfinite(asked.diagonal()).all()


# ---- messages ----
def triangle(params, itemsize=8):
    """Bytes of p (p + 1) / 2 numbers, in panels of 192 bytes whose last block is full."""
    width = 192 // itemsize
    panels = -(-params // width)
    return panels * (panels + 1) // 2 * width**2 * itemsize


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
@pytest.mark.parametrize("p", [1, 24, 100, 501])
@pytest.mark.parametrize("kind", [ff.DenseFisher, ff.SquareRootFisher])
def test_a_message_is_half_a_matrix(kind, p, dtype):
    F = kind.from_scores(np.ones((2, p), dtype))
    buffers: list[Any] = []
    head = pickle.dumps(F, protocol=5, buffer_callback=buffers.append)
    sent = sum(buffer.raw().nbytes for buffer in buffers)
    assert len(head) < 1000
    # A complex row is two real ones.
    rows, size = (2 * p, 8) if np.dtype(dtype).kind == "c" else (p, np.dtype(dtype).itemsize)
    assert rows * (rows + 1) // 2 * size <= sent == triangle(rows, size)
    assert sent <= sys.getsizeof(F) <= sent + 1000


def test_every_accumulator_tells_its_size():
    for name, empty, rows_of in representations.streams():
        F = empty.copy().update(*rows_of(slice(60)))
        held = [x.nbytes for x in F._state().values() if isinstance(x, np.ndarray)]
        assert max(held) <= sys.getsizeof(F), name


def test_a_copy_copies_once():
    """Of a class whose numbers are all NumPy's, so that they can be traced."""
    F = ff.DiagonalFisher.from_scores(np.ones((2, 50_000)))
    tracemalloc.start()
    try:
        copy = F.copy()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * F.diagonal().nbytes  # the empty one that is built, and what it then holds
    copy.update(np.ones((2, 50_000)))
    assert (F.n_samples, copy.n_samples) == (2, 4)


# ---- Dask, in this process ----
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kind", INTO)
def test_dask_arrays(kind, center):
    for reduction, weights in (("mean", None), ("sum", WEIGHTS)):
        keywords = {**INTO[kind], "center": center, "reduction": reduction}
        found = ff.distributed.empirical_fisher(lazy(), weights=weights, into=kind, **keywords)
        whole = kind.from_scores(ALL, weights=weights, **keywords)
        assert type(found) is kind
        assert (found.n_samples, found.center, found.reduction) == (len(ALL), center, reduction)
        assert abs(found.weight_sum - whole.weight_sum) <= len(ALL) * EPS * whole.weight_sum
        # With their mean of 3 the plain sums are ten times as large as the centred ones.
        assert close(found.to_dense(), whole.to_dense(), 10 * len(ALL))


def test_the_same_bits_as_the_tree_by_hand():
    expected = ff.distributed.merge_tree(map(ff.DenseFisher.from_scores, PARTS)).to_dense()
    for scheduler in ("threads", "synchronous"):
        with dask.config.set(scheduler=scheduler):
            found = ff.distributed.empirical_fisher(lazy())
        assert np.array_equal(found.to_dense(), expected)
    found = ff.distributed.empirical_fisher(lazy(), n_threads=3)
    assert np.array_equal(found.to_dense(), expected)
    assert np.array_equal(ff.distributed.empirical_fisher(PARTS).to_dense(), expected)


@pytest.mark.parametrize("center", [False, True])
def test_a_sketch_keeps_its_bound(center):
    with dask.config.set(scheduler="synchronous"):  # NumPy's eigh has threads of its own
        found = ff.distributed.empirical_fisher(
            lazy()[:500], into=ff.LowRankFisher, rank=8, center=center
        )
    whole = ff.DenseFisher.from_scores(ALL[:500], center=center)
    error = np.linalg.norm(found.to_dense() - whole.to_dense(), 2)
    assert 0 < error <= found.error_bound < np.linalg.norm(whole.to_dense(), 2)
    assert abs(found.trace() - whole.trace()) <= 500 * EPS * whole.trace()


@pytest.mark.parametrize("options", [{}, {"eigen": True}, {"tridiagonal": True}])
def test_blocks_of_layers(options):
    made = [dask.delayed(blocks.layers)(place) for place in range(5)]
    found = ff.distributed.empirical_fisher(made, into=ff.KroneckerFisher, **options)
    parts = [ff.KroneckerFisher.from_layers(blocks.layers(place), **options) for place in range(5)]
    assert np.array_equal(found.to_dense(), ff.distributed.merge_tree(parts).to_dense())
    assert found.n_samples == 250


def test_blocks_with_weights():
    pieces = np.array_split(WEIGHTS, len(PARTS))
    whole = ff.DenseFisher.from_scores(ALL, weights=WEIGHTS)
    lists = [pieces, [dask.delayed(piece) for piece in pieces], tuple(pieces)]
    for weights in (*lists, WEIGHTS, da.from_array(WEIGHTS, chunks=1000)):
        scores = PARTS if isinstance(weights, list | tuple) else lazy()
        found = ff.distributed.empirical_fisher(scores, weights=weights)
        assert close(found.to_dense(), whole.to_dense())
    some = ff.distributed.empirical_fisher(PARTS[:2], weights=[None, np.full(blocks.ROWS, 2.0)])
    assert some.weight_sum == 3 * blocks.ROWS


def test_a_block_without_weight_counts_its_samples():
    weights = WEIGHTS.copy()
    weights[: blocks.ROWS] = 0.0
    for center in (False, True):
        found = ff.distributed.empirical_fisher(lazy(), weights=weights, center=center)
        whole = ff.DenseFisher.from_scores(ALL, weights=weights, center=center)
        assert found.n_samples == whole.n_samples
        assert close(found.to_dense(), whole.to_dense(), 10 * len(ALL))
    with pytest.raises(ValueError, match="weights: expected at least one that is positive"):
        ff.distributed.empirical_fisher(lazy(), weights=0 * weights)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", INTO)
def test_scores_without_weight_may_be_of_any_size(kind, dtype):
    parts = [part.astype(dtype) for part in PARTS[:3]]
    parts[1][:] = np.sqrt(np.finfo(dtype).max) * 8  # whose squares overflow
    ones = np.ones(blocks.ROWS, dtype)
    for center in (False, True):
        options = INTO[kind] | {"center": center}
        found = ff.distributed.empirical_fisher(
            parts, weights=[ones, 0 * ones, ones], into=kind, **options
        )
        # With weights too: without them short rows take another way, of other bits.
        rest = ff.distributed.empirical_fisher(
            [parts[0], parts[2]], weights=[ones, ones], into=kind, **options
        )
        assert np.array_equal(found.to_dense(), rest.to_dense())
        assert found.n_samples == 3 * blocks.ROWS
    parts[1][4, 2] = np.nan
    with pytest.raises(ff.NonFiniteError, match=r"at row 4, column 2\..* It is partition 1\."):
        ff.distributed.empirical_fisher(parts, weights=[ones, 0 * ones, ones], into=kind, **options)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("options", [{}, {"eigen": True}, {"tridiagonal": True}])
def test_layers_without_weight_add_nothing(options, bias):
    """Not even the eigenbasis that EKFAC takes of the first that it sees."""
    made = [[ff.LinearLayer(a, g, bias=bias)] for [(a, g)] in map(blocks.layers, range(3))]
    ones = np.ones(50)
    for without in range(3):
        kept = [layers for place, layers in enumerate(made) if place != without]
        rest = ff.distributed.empirical_fisher(kept, into=ff.KroneckerFisher, **options)
        found = ff.distributed.empirical_fisher(
            made,
            weights=[ones * (place != without) for place in range(3)],
            into=ff.KroneckerFisher,
            **options,
        )
        assert found.n_samples == 150
        # Where the middle one is left out, the tree joins the same two.
        assert close(found.to_dense(), rest.to_dense(), 10 * 150)
    pairs = [blocks.layers(0), [tuple(1e200 * side for side in blocks.layers(1)[0])]]
    found = ff.distributed.empirical_fisher(
        pairs, weights=[ones, 0 * ones], into=ff.KroneckerFisher, **options
    )
    alone = ff.KroneckerFisher.from_layers(pairs[0], **options)
    assert np.array_equal(found.to_dense(), alone.to_dense())


@pytest.mark.parametrize(("dtype", "tiny"), [(np.float32, 1e-40), (np.float64, 1e-310)])
@pytest.mark.parametrize("kind", INTO)
def test_a_block_of_tiny_weights_beside_others(kind, dtype, tiny):
    """Its sums may vanish beside theirs, as they do where one array is summed in memory."""
    parts = [part.astype(dtype) for part in PARTS[:2]]
    ones = np.ones(blocks.ROWS, dtype)
    weights = [tiny * ones, ones]
    found = ff.distributed.empirical_fisher(parts, weights=weights, into=kind, **INTO[kind])
    whole = kind.from_scores(np.concatenate(parts), weights=np.concatenate(weights), **INTO[kind])
    assert found.n_samples == whole.n_samples
    error = abs(found.to_dense() - whole.to_dense()).max()
    assert error <= 400 * np.finfo(dtype).eps * abs(whole.to_dense()).max()
    with pytest.raises(ValueError, match="weights: expected a sum from"):
        ff.distributed.empirical_fisher(
            parts, weights=[tiny * ones, 0 * ones], into=kind, **INTO[kind]
        )


def test_tiny_weights_keep_their_ratios():
    weights = [2.0**-80 * np.ones(blocks.ROWS), 2.0**-82 * np.ones(blocks.ROWS)]
    found = ff.distributed.empirical_fisher(PARTS[:2], weights=weights, reduction="sum")
    plain = ff.distributed.empirical_fisher(
        PARTS[:2], weights=[2.0**80 * weight for weight in weights], reduction="sum"
    )
    assert np.array_equal(2.0**80 * found.to_dense(), plain.to_dense())
    assert 2.0**80 * found.weight_sum == plain.weight_sum == 1.25 * blocks.ROWS


def test_empty_blocks_add_nothing():
    parts = [PARTS[0][:0], PARTS[0], PARTS[0][:0]]
    found = ff.distributed.empirical_fisher(parts)
    assert np.array_equal(found.to_dense(), ff.DenseFisher.from_scores(PARTS[0]).to_dense())


def test_scores_of_unknown_length():
    scores = lazy()
    some = scores[scores[:, 0] > 3.0]  # whose chunks Dask cannot know
    kept = ALL[ALL[:, 0] > 3.0]
    found = ff.distributed.empirical_fisher(some)
    assert found.n_samples == len(kept)
    assert close(found.to_dense(), ff.DenseFisher.from_scores(kept).to_dense())
    weighted = ff.distributed.empirical_fisher(some, weights=some[:, 0])
    whole = ff.DenseFisher.from_scores(kept, weights=kept[:, 0].copy())
    assert close(weighted.to_dense(), whole.to_dense())
    with pytest.raises(ValueError, match=r"weights: expected a dask\.array cut as scores of"):
        ff.distributed.empirical_fisher(some, weights=WEIGHTS)
    parts = [*PARTS[:3], PARTS[3] * np.nan]
    scores = da.concatenate([da.from_array(part) for part in parts])
    with pytest.raises(ff.NonFiniteError, match=r"at row 0, column 0\..* It is partition 3\."):
        ff.distributed.empirical_fisher(scores[scores.sum(axis=1) != 0])


def test_widths_of_numbers():
    scores = lazy()
    single = ff.distributed.empirical_fisher(scores.astype(np.float32))
    assert single.dtype == np.float32
    double = ff.distributed.empirical_fisher(scores.astype(np.float16), dtype=np.float64)
    assert double.dtype == np.float64
    rotated = ff.distributed.empirical_fisher(scores * np.exp(0.3j))
    assert close(rotated.to_dense(), ff.DenseFisher.from_scores(ALL).to_dense(), 10 * len(ALL))


# ---- what is refused ----
def test_nan_is_named_among_all_scores():
    parts = [part.copy() for part in PARTS]
    parts[4][7, 5] = np.nan
    scores = da.concatenate([da.from_array(part) for part in parts])
    row = 4 * blocks.ROWS + 7
    for kind, options in INTO.items():
        with pytest.raises(ff.NonFiniteError) as caught:
            ff.distributed.empirical_fisher(scores, into=kind, **options)
        assert f"It is row {row} of all scores, in partition 4." in str(caught.value)
        assert (caught.value.row, caught.value.column) == (row, 5)
    with pytest.raises(ff.NonFiniteError, match=r"It is partition 4\."):
        ff.distributed.empirical_fisher(parts)
    parts[4] = np.full((4, blocks.PARAMS), 1e300)
    with pytest.raises(ff.NonFiniteError, match="overflow"):
        ff.distributed.empirical_fisher(parts)
    assert np.isfinite(ff.distributed.empirical_fisher(parts[:4]).to_dense()).all()


@pytest.mark.parametrize(
    ("scores", "keywords", "error", "message"),
    [
        (lazy().rechunk((200, 10)), {}, ValueError,
         r"scores: expected all 30 columns in one chunk, got 3 .* Use scores.rechunk\({1: -1}\)"),
        (lazy()[:, 0], {}, ValueError, r"scores: expected a 2-D array .* got shape \(1400,\)"),
        (lazy().astype(int), {}, TypeError, "scores: expected float64, .* got int64"),
        (lazy(), {"dtype": np.float32}, TypeError, "dtype: expected float64 or wider, got float32"),
        (lazy(), {"dtype": int}, TypeError, "dtype: expected float64, .* got int64"),
        (ALL, {}, TypeError, "scores: expected a dask.array or a list of blocks, got ndarray"),
        (3, {}, TypeError, "scores: expected a dask.array or a list of blocks, got int"),
        ([], {}, ValueError, "scores: expected at least one block, got none"),
        (lazy(), {"into": ff.ScoreFisher}, TypeError,
         "into: expected a class of accumulators, got 'ScoreFisher'"),
        (lazy(), {"into": ff.DenseFisher(3)}, TypeError, "into: expected a class of accumulators"),
        (lazy(), {"center": 1}, TypeError, "center: expected True or False, got int"),
        (lazy(), {"reduction": "max"}, ValueError, "reduction: expected 'mean' or 'sum'"),
        (lazy(), {"n_threads": 0}, ValueError, "n_threads: expected at least 1"),
        (lazy(), {"client": "tcp://127.0.0.1:8786"}, TypeError,
         "client: expected a distributed.Client that waits, got str"),
        (lazy(), {"weights": WEIGHTS[:-1]}, ValueError,
         r"weights: expected shape \(1400,\), one per sample, got \(1399,\)"),
        (lazy(), {"weights": ALL}, ValueError, r"weights: expected shape \(1400,\)"),
        (lazy(), {"weights": -WEIGHTS}, ValueError, "weights: expected finite numbers"),
        (PARTS, {"weights": WEIGHTS}, ValueError,
         "weights: expected a list of 7 blocks, one for each of the scores, got ndarray"),
        (PARTS, {"weights": [None]}, ValueError, "weights: expected a list of 7 blocks, .* got 1"),
        (PARTS[:2], {"weights": [None, np.zeros(3)]}, ValueError,
         r"weights: expected shape \(200,\), one per sample, got \(3,\)"),
        ([PARTS[0], PARTS[0].astype(np.float32)], {}, ValueError, "others: expected"),
        (lazy(), {"into": ff.LowRankFisher}, TypeError, "rank"),
    ],
)  # fmt: skip
def test_bad_input(scores, keywords, error, message):
    with pytest.raises(error, match=message):
        ff.distributed.empirical_fisher(scores, **keywords)


def test_an_error_says_which_partition_it_was():
    with pytest.raises(ValueError, match=r"scores: expected a 2-D array") as caught:
        ff.distributed.empirical_fisher([PARTS[0], PARTS[0][0]])
    assert caught.value.__notes__ == ["scores: this is partition 1."]


def test_a_client_must_wait():
    async def call():
        async with (
            distributed.LocalCluster(
                n_workers=0, processes=False, dashboard_address="127.0.0.1:0", asynchronous=True
            ) as started,
            distributed.Client(started, asynchronous=True, set_as_default=False) as waiting,
        ):
            ff.distributed.empirical_fisher(PARTS, client=waiting)

    with pytest.raises(TypeError, match=r"client: expected a distributed\.Client that waits"):
        asyncio.run(call())


def test_without_dask(monkeypatch):
    found = builtins.__import__

    def missing(name, *rest):
        if name.partition(".")[0] == "dask":
            raise ModuleNotFoundError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"dask: expected .* Install fastfisher\[dask\]"):
        ff.distributed.empirical_fisher(PARTS)
    assert ff.distributed.merge_tree([ff.DiagonalFisher(2)]).shape == (2, 2)


@pytest.mark.parametrize("name", ff.distributed.__all__)
def test_examples_run(name):
    tests = doctest.DocTestFinder(recurse=False).find(getattr(ff.distributed, name), name, globs={})
    report: list[str] = []
    for test in tests:
        doctest.DocTestRunner().run(test, out=report.append)
    assert any(test.examples for test in tests)
    assert not report, "".join(report)


# ---- Dask, in other processes ----
def cluster(workers):
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    )


@pytest.fixture(scope="module")
def client():
    # Stealing would move tasks about as the clock has it, and messages with them.
    with (
        dask.config.set({"distributed.scheduler.work-stealing": False}),
        cluster(2) as started,
        distributed.Client(started) as connected,
    ):
        yield connected


def held(client, owners, *shape):
    """Make the blocks on these workers, and keep them there."""
    futures = [
        client.submit(blocks.block, place, *shape, workers=[owner], pure=False)
        for place, owner in enumerate(owners)
    ]
    distributed.wait(futures, timeout=TIMEOUT)
    return futures


def outgoing(client):
    """Return [(keys, bytes on the wire), …] of each worker's messages."""
    return client.run(
        lambda dask_worker: [
            (len(one["keys"]), one["compressed"]) for one in dask_worker.transfer_outgoing_log
        ]
    )


@pytest.mark.parametrize("center", [False, True])
def test_the_same_bits_whoever_sums_what(client, center):
    expected = ff.distributed.merge_tree(
        ff.DenseFisher.from_scores(part, center=center) for part in PARTS
    )
    first, second = client.scheduler_info()["workers"]
    for owners in ([first] * 7, [first] * 4 + [second] * 3, [second, first] * 3 + [second]):
        found = ff.distributed.empirical_fisher(held(client, owners), client=client, center=center)
        assert np.array_equal(found.to_dense(), expected.to_dense())
    found = ff.distributed.empirical_fisher(lazy(), center=center)  # by the current client
    assert np.array_equal(found.to_dense(), expected.to_dense())


def test_messages_are_triangles_one_for_each_worker(client):
    first, second = client.scheduler_info()["workers"]
    rows, params = 1000, 200
    futures = held(client, [first] * 4 + [second] * 3, rows, params)
    before = outgoing(client)
    F = ff.distributed.empirical_fisher(futures, client=client)
    messages = [
        message
        for worker, sent in outgoing(client).items()
        for message in sent[len(before[worker]) :]
    ]
    assert F.n_samples == 7 * rows
    # One worker's sum to the other, and the answer; the scores have five times as many bytes.
    assert [keys for keys, _ in messages] == [1, 1]
    for _, size in messages:
        assert params * (params + 1) // 2 * 8 <= size <= triangle(params) + 2000


def test_tasks_use_the_threads_of_their_worker(client):
    from fastfisher.distributed.dask import threads_of_a_task

    assert threads_of_a_task() == 1  # no worker
    # Dask gives its processes OMP_NUM_THREADS=1.
    assert client.submit(threads_of_a_task, pure=False).result(TIMEOUT) == 1
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as threads,
        distributed.Client(threads, set_as_default=False) as inside,
    ):
        found = inside.submit(threads_of_a_task, pure=False).result(TIMEOUT)
    assert found == max(1, ff.get_num_threads() // 2)


def test_errors_come_back(client):
    futures = client.map(blocks.block, range(3))
    bad = client.submit(operator.mul, futures[2], np.nan)
    with pytest.raises(ff.NonFiniteError, match=r"It is partition 2\.") as caught:
        ff.distributed.empirical_fisher([*futures[:2], bad], client=client)
    assert caught.value.column == 0
    with pytest.raises(ValueError, match="scores: expected a 2-D array") as caught:
        ff.distributed.empirical_fisher([futures[0], client.submit(np.ones, 3)], client=client)
    assert caught.value.__notes__ == ["scores: this is partition 1."]
    assert ff.distributed.empirical_fisher(futures, client=client).n_samples == 3 * blocks.ROWS


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="systems that kill")
def test_a_worker_that_is_killed_costs_its_partitions_again(client, tmp_path):
    count = 12
    expected = ff.distributed.merge_tree(
        ff.DenseFisher.from_scores(blocks.block(place)) for place in range(count)
    ).to_dense()
    victim = next(iter(client.run(os.getpid).values()))
    scores = [
        dask.delayed(blocks.waiting_block)(place, str(tmp_path), TIMEOUT) for place in range(count)
    ]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ff.distributed.empirical_fisher, scores, client=client)
        deadline = time.monotonic() + TIMEOUT
        while blocks.makers(tmp_path).count(victim) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        done = answer.done()
        os.kill(victim, signal.SIGKILL)  # at its third block, with the sums of two
        (tmp_path / "go").touch()
        found = answer.result(TIMEOUT)
    assert not done
    made = blocks.makers(tmp_path)
    assert made.count(victim) == 3
    assert len(made) > count  # its third at least was made again, and what of it was needed
    assert np.array_equal(found.to_dense(), expected)
    client.wait_for_workers(2, timeout=TIMEOUT)  # another has taken its place, for other tests
    assert victim not in client.run(os.getpid).values()


# ---- joblib and threads ----
@pytest.fixture(scope="module", autouse=True)
def _no_idle_workers():
    yield
    get_reusable_executor().shutdown(wait=True)


def part(scores, n_threads=None):
    return ff.DenseFisher.from_scores(scores, n_threads=n_threads)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib(backend):
    expected = ff.distributed.merge_tree(map(part, PARTS)).to_dense()
    assert close(expected, ff.DenseFisher.from_scores(ALL).to_dense())
    with joblib.parallel_config(backend, n_jobs=2):
        tasks = [joblib.delayed(ff.DenseFisher.from_scores)(block, n_threads=1) for block in PARTS]
        parts = joblib.Parallel()(tasks)
        assert np.array_equal(ff.distributed.merge_tree(parts).to_dense(), expected)
        parts = joblib.Parallel(return_as="generator")(tasks)
        assert np.array_equal(ff.distributed.merge_tree(parts).to_dense(), expected)


def test_by_itself_joblib_shares_the_cores_among_its_processes():
    workers = 2
    found = joblib.Parallel(workers)(joblib.delayed(ff.get_num_threads)() for _ in range(4))
    assert max(found) * workers <= max(joblib.cpu_count(), workers)


@pytest.mark.skipif(not _native.core.openmp, reason="a build without OpenMP")
@pytest.mark.parametrize("inner", [1, 2])
def test_workers_of_joblib_have_the_threads_that_it_gives_them(inner):
    with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=inner):
        found = joblib.Parallel()(joblib.delayed(ff.get_num_threads)() for _ in range(4))
    assert set(found) == {min(inner, _native.cpu_quota() or inner)}


@pytest.mark.parametrize("n_threads", [1, 2, None])
def test_a_pool_of_threads(n_threads):
    expected = ff.distributed.merge_tree(map(part, PARTS)).to_dense()
    with ThreadPoolExecutor(3) as pool:
        for _ in range(5):
            found = pool.map(functools.partial(part, n_threads=n_threads), PARTS)
            assert np.array_equal(ff.distributed.merge_tree(found).to_dense(), expected)


CROWD = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
import joblib, numpy as np
import fastfisher as ff

scores = np.random.default_rng(0).standard_normal((6, 4000, 200))
F = ff.DenseFisher(200)

def work(part, threads):
    own = ff.DenseFisher.from_scores(part, n_threads=threads)
    own.solve(part[0], damping=1.0, n_threads=threads)
    F.update(part, n_threads=threads)
    return len(os.listdir("/proc/self/task"))

def crowd(threads):
    with ThreadPoolExecutor(3) as pool:
        most = max(pool.map(lambda part: work(part, threads), scores))
    with joblib.parallel_config("threading", n_jobs=3):
        return max(most, *joblib.Parallel()(joblib.delayed(work)(part, threads) for part in scores))

before = work(scores[0], 1)
alone = crowd(1)
ff.set_num_threads(1)
print(alone - before, crowd(None) - before, crowd(4) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux does")
@pytest.mark.skipif(not _native.core.openmp, reason="a build without OpenMP")
def test_workers_of_one_thread_start_no_others():
    """Three workers are three threads more (and joblib's own), unless each is told to take four."""
    found = subprocess.run(
        [sys.executable, "-c", CROWD],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "4"},
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT,
    )
    told, by_default, many = map(int, found.stdout.split())
    assert max(told, by_default) <= 3 + 3 < many


@pytest.mark.parametrize("kind", INTO)
def test_threads_on_one_accumulator_of_any_kind(kind):
    options = INTO[kind]
    F = kind(**options) if "block_sizes" in options else kind(blocks.PARAMS, **options)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(F.update, PARTS, timeout=TIMEOUT))
    assert F.n_samples == F.weight_sum == len(ALL)
    # In whatever order they came: no tree, so no promise of bits.
    assert close(F.to_dense(), kind.from_scores(ALL, **options).to_dense(), 10 * len(ALL))
