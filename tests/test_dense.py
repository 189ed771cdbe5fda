"""DenseFisher: streaming, merging and decay are the sums that they claim to be."""

import copy
import pickle
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfisher as ff
import oracle

LAWS = settings(deadline=None, max_examples=25)
splits = st.lists(st.integers(0, 12), min_size=1, max_size=6)


def built(scores: np.ndarray, weights: None = None, **keywords: Any) -> ff.DenseFisher:
    return ff.DenseFisher(scores.shape[1], **keywords).update(scores, weights)


@LAWS
@given(splits, st.booleans(), st.booleans())
def test_streaming_is_one_shot(sizes: Sequence[int], center: bool, weighted: bool) -> None:
    n, p = sum(sizes) + 1, 7
    S = oracle.draw(n, p) + 3.0
    weights = oracle.draw_weights(n) + 0.1 if weighted else None
    F = ff.DenseFisher(p, center=center)
    for block in np.split(np.arange(n), np.cumsum(sizes)):
        F.update(S[block], None if weights is None else weights[block])
    scale = np.abs(oracle.fisher(S, weights)).max()
    oracle.close(F.to_dense(), oracle.fisher(S, weights, center), float, n, 4 * scale)
    assert F.n_samples == n


@LAWS
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_merge_is_associative_and_commutative(i: int, j: int, k: int, center: bool) -> None:
    a, b, c = (built(oracle.draw(n, 5) + n, center=center) for n in (i, j, k))
    left, right = (a + b) + c, a + (b + c)
    scale = np.abs(left.to_dense()).max() + 100
    oracle.close(left.to_dense(), right.to_dense(), float, 40, scale)
    assert np.array_equal((a + b).diagonal(), (b + a).diagonal()) or center
    oracle.close((a + b).to_dense(), (b + a).to_dense(), float, 40, scale)
    assert left.weight_sum == right.weight_sum == i + j + k


@pytest.mark.parametrize("center", [False, True])
def test_the_empty_one_changes_nothing(center: bool) -> None:
    F = built(oracle.draw(10, 4), center=center)
    before = F.to_dense()
    F.merge(ff.DenseFisher(4, center=center)).update(np.empty((0, 4)))
    assert np.array_equal(F.to_dense(), before)
    empty = ff.DenseFisher(4, center=center).merge(F)
    assert np.array_equal(empty.to_dense(), before)


def test_merging_with_itself_doubles() -> None:
    F = built(oracle.draw(10, 4), reduction="sum", center=True)
    before = F.to_dense()
    F.merge(F)
    oracle.close(F.to_dense(), 2 * before, float, 10)
    assert F.weight_sum == 20.0


@pytest.mark.parametrize("center", [False, True])
def test_decay_weighs_the_old(center: bool) -> None:
    old, new = oracle.draw(20, 6) + 1, oracle.draw(30, 6) - 1
    F = built(old, center=center).decay(0.5).update(new)
    weights = np.r_[np.full(20, 0.5), np.ones(30)]
    both = np.r_[old, new]
    scale = np.abs(oracle.fisher(both)).max()
    oracle.close(F.to_dense(), oracle.fisher(both, weights, center), float, 50, 4 * scale)
    assert F.weight_sum == 40.0
    assert F.n_samples == 50
    forgotten = built(old, center=center).decay(0.0).update(new)
    oracle.close(forgotten.to_dense(), oracle.fisher(new, None, center), float, 50, scale)


def test_a_bad_update_changes_nothing() -> None:
    for F in (ff.DenseFisher(3), built(oracle.draw(5, 3)), built(oracle.draw(5, 3), center=True)):
        before = pickle.dumps(F)
        bad = np.ones((4, 3))
        bad[2, 1] = np.inf
        with pytest.raises(ff.NonFiniteError, match=r"row 2, column 1"):
            F.update(bad)
        with pytest.raises(ValueError, match="weights"):
            F.update(np.ones((4, 3)), np.ones(3))
        assert pickle.dumps(F) == before
        assert F.update(np.ones((4, 3))).n_samples >= 4


def test_from_matrix() -> None:
    A = oracle.fisher(oracle.draw(30, 6))
    F = ff.DenseFisher.from_matrix(np.tril(A) + np.triu(np.full((6, 6), np.nan), 1), n_samples=30)
    oracle.close(F.to_dense(), A, float, 4)
    S = oracle.draw(10, 6)
    F.update(S)
    oracle.close(F.to_dense(), (30 * A + S.T @ S) / 40, float, 40)
    total = ff.DenseFisher.from_matrix(A, reduction="sum", n_samples=30)
    oracle.close(total.to_dense(), A, float, 4)


def test_float32_scores_go_into_float64_sums_but_not_back() -> None:
    S = oracle.draw(40, 5, np.float32)
    F = ff.DenseFisher(5, center=True).update(S)
    oracle.close(F.to_dense(), oracle.fisher(S, center=True), np.float64, 40)
    with pytest.raises(TypeError, match=r"scores: expected float32"):
        ff.DenseFisher(5, dtype=np.float32).update(S.astype(np.float64))
    assert ff.DenseFisher.from_scores(S).dtype == np.float32


def test_copies_are_their_own() -> None:
    F = built(oracle.draw(10, 4))
    before = F.to_dense()
    for other in (F.copy(), copy.deepcopy(F), pickle.loads(pickle.dumps(F))):
        other.update(np.ones((1, 4)))
    assert np.array_equal(F.to_dense(), before)


def test_several_threads_may_update() -> None:
    F = ff.DenseFisher(8, reduction="sum")
    S = np.ones((5, 8))
    threads = [threading.Thread(target=lambda: [F.update(S) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(F.to_dense(), np.full((8, 8), 400.0))
    assert F.n_samples == 400


def test_merging_crosswise_does_not_lock_up() -> None:
    a, b = built(oracle.draw(3, 4)), built(oracle.draw(3, 4))
    threads = [
        threading.Thread(target=lambda x=x, y=y: [x.merge(y) for _ in range(10)], daemon=True)
        for x, y in ((a, b), (b, a))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_other_kinds_do_not_merge() -> None:
    F = built(oracle.draw(3, 4))
    for other in (
        ff.DenseFisher(5),
        ff.DenseFisher(4, center=True),
        ff.DenseFisher(4, dtype=np.float32),
        ff.DenseFisher(4, reduction="sum"),
    ):
        with pytest.raises(ValueError, match=r"others: expected \(class"):
            F.merge(other)
    with pytest.raises(TypeError, match="others: expected DenseFisher"):
        F.merge(ff.DiagonalFisher(4))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        F + ff.DiagonalFisher(4)
    with pytest.raises(ValueError, match="factor: expected at most 1"):
        F.decay(1.5)


def test_nothing_to_average() -> None:
    F = ff.DenseFisher(3)
    for read in (F.to_dense, F.diagonal, lambda: F @ np.ones(3), lambda: F.solve(np.ones(3))):
        with pytest.raises(ValueError, match="expected at least one sample"):
            read()
    assert np.array_equal(ff.DenseFisher(3, reduction="sum").to_dense(), np.zeros((3, 3)))
