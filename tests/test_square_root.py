"""SquareRootFisher: rows absorbed, merged and forgotten by R, without the squares of sums."""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfisher as ff
import oracle

LAWS = settings(deadline=None, max_examples=20)
splits = st.lists(st.integers(0, 12), min_size=1, max_size=6)
Root = ff.SquareRootFisher


def built(scores: np.ndarray, weights: None = None, **keywords: Any) -> ff.SquareRootFisher:
    return Root(scores.shape[1], dtype=scores.dtype, **keywords).update(scores, weights)


@LAWS
@given(splits, st.booleans(), st.booleans(), st.sampled_from([float, complex]))
def test_streaming_is_one_shot(
    sizes: Sequence[int], center: bool, weighted: bool, dtype: npt.DTypeLike
) -> None:
    n, p = sum(sizes) + 1, 7
    S = oracle.draw(n, p, dtype) + 3.0
    weights = oracle.draw_weights(n) + 0.1 if weighted else None
    F = Root(p, dtype=dtype, center=center)
    for block in np.split(np.arange(n), np.cumsum(sizes)):
        F.update(S[block], None if weights is None else weights[block])
    scale = np.abs(oracle.fisher(S, weights)).max()
    oracle.close(F.to_dense(), oracle.fisher(S, weights, center), float, n + 8, 4 * scale)
    assert F.n_samples == n


@LAWS
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_merge_is_associative_and_commutative(i: int, j: int, k: int, center: bool) -> None:
    a, b, c = (built(oracle.draw(n, 25) + n, center=center) for n in (i, j, k))
    left, right = (a + b) + c, a + (b + c)
    scale = np.abs(left.to_dense()).max() + 100
    oracle.close(left.to_dense(), right.to_dense(), float, 80, scale)
    oracle.close((a + b).to_dense(), (b + a).to_dense(), float, 80, scale)
    whole = np.vstack([oracle.draw(n, 25) + n for n in (i, j, k)])
    oracle.close(left.to_dense(), oracle.fisher(whole, center=center), float, 80, 4 * scale)


@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("p", [1, 5, 24, 49, 300])
def test_merging_parts_is_the_whole(p: int, dtype: type[np.inexact]) -> None:
    S = oracle.draw(400, p, dtype)
    parts = [built(part) for part in np.array_split(S, 3)]
    F = built(S)
    merged = parts[0].copy().merge(*parts[1:])
    oracle.close(
        merged.to_dense(), oracle.fisher(S), dtype, 400, np.linalg.norm(F.diagonal(), np.inf)
    )
    R = merged.root()
    assert np.array_equal(R, np.triu(R))
    oracle.close(R.conj().T @ R, oracle.fisher(S), dtype, 400, np.abs(F.diagonal()).max())


@pytest.mark.parametrize("center", [False, True])
def test_the_empty_one_changes_nothing(center: bool) -> None:
    F = built(oracle.draw(30, 4), center=center)
    before = F.to_dense()
    F.merge(Root(4, center=center)).update(np.empty((0, 4)))
    oracle.close(F.to_dense(), before, float, 8)
    empty = Root(4, center=center).merge(F)
    oracle.close(empty.to_dense(), before, float, 8)


@pytest.mark.parametrize("center", [False, True])
def test_decay_weighs_the_old(center: bool) -> None:
    old, new = oracle.draw(20, 6) + 1, oracle.draw(30, 6) - 1
    F = built(old, center=center).decay(0.5).update(new)
    weights = np.r_[np.full(20, 0.5), np.ones(30)]
    both = np.r_[old, new]
    scale = np.abs(oracle.fisher(both)).max()
    oracle.close(F.to_dense(), oracle.fisher(both, weights, center), float, 50, 4 * scale)
    assert F.weight_sum == 40.0
    forgotten = built(old, center=center).decay(0.0).update(new)
    oracle.close(forgotten.to_dense(), oracle.fisher(new, None, center), float, 50, scale)


def test_a_bad_update_changes_nothing() -> None:
    for F in (Root(3), built(oracle.draw(5, 3)), built(oracle.draw(5, 3), center=True)):
        before = pickle.dumps(F)
        bad = np.ones((4, 3))
        bad[2, 1] = np.inf
        with pytest.raises(ff.NonFiniteError, match=r"row 2, column 1"):
            F.update(bad)
        with pytest.raises(ValueError, match="weights"):
            F.update(np.ones((4, 3)), np.ones(3))
        assert pickle.dumps(F) == before
        assert F.update(np.eye(4, 3)).n_samples >= 4


def test_streamed_scores_keep_the_digits_that_sums_lose() -> None:
    n, p, kappa = 600, 12, 1e7
    U, V = np.linalg.qr(oracle.draw(n, p))[0], np.linalg.qr(oracle.draw(p, p))[0]
    S = (U * np.geomspace(1, 1 / kappa, p)) @ V.T
    # Each singular value is known to eps, so the least to eps·κ.
    F, D = Root(p, reduction="sum"), ff.DenseFisher(p, reduction="sum")
    for part in np.array_split(S, 9):
        F.update(part)
        D.update(part)
    singular = np.linalg.svd(F.root())[1]
    exact = np.geomspace(1, 1 / kappa, p)
    assert abs(singular / exact - 1).max() < 1e-7
    assert F.effective_dimension() == pytest.approx(p, abs=1e-7)
    lost = np.sqrt(np.abs(np.linalg.eigvalsh(D.to_dense())))[::-1]
    assert abs(lost / exact - 1).max() > 1e-5


def test_float32_scores_go_into_float64_but_not_back() -> None:
    S = oracle.draw(40, 5, np.float32)
    oracle.close(Root(5).update(S).to_dense(), oracle.fisher(S), np.float64, 40)
    with pytest.raises(TypeError, match=r"scores: expected float32"):
        Root(5, dtype=np.float32).update(S.astype(np.float64))


def test_auto_is_qr_and_others_can_be_asked() -> None:
    F = built(oracle.draw(40, 5))
    assert ff.solve(F, np.ones(5)).method == "qr"
    assert F.factor().method == "qr"
    assert F.solve_path(np.ones(5), np.linspace(0, 1, 200)).method == "qr"
    for solver, method in ((ff.Cholesky(), "cholesky"), (ff.CG(), "cg"), (ff.Eigh(), "eigh")):
        assert ff.solve(F, np.ones(5), solver=solver).method == method
    with pytest.raises(TypeError, match="others: expected SquareRootFisher, got DenseFisher"):
        F.merge(ff.DenseFisher(5))  # type: ignore[arg-type]


def test_it_needs_samples_for_a_mean() -> None:
    with pytest.raises(ValueError, match="SquareRootFisher: expected at least one sample"):
        Root(3).root()
    assert np.array_equal(Root(3, reduction="sum").root(), np.zeros((3, 3)))
