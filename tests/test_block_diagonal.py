"""BlockDiagonalFisher: blocks are those of the dense Fisher; it solves the masked matrix."""

import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfisher as ff
import oracle

# Sharing a panel, on both sides of one (24 float64, 48 float32), of the size from which the engine
# takes a block alone (192), and large beside small.
LISTS = [
    [1],
    [1] * 30,
    [3, 5, 2, 8, 7, 1],
    [24, 24, 1, 23],
    [25, 7, 49, 2],
    [192, 3, 193, 1],
    [200, 30],
]
both = pytest.mark.parametrize("tridiagonal", [False, True])
each_list = pytest.mark.parametrize("sizes", LISTS, ids=lambda sizes: f"{len(sizes)}x{max(sizes)}")


def built(S, sizes, tridiagonal=False, weights=None, **keywords):
    return ff.BlockDiagonalFisher.from_scores(
        S, sizes, tridiagonal=tridiagonal, weights=weights, **keywords
    )


def size_of(S, weights):
    return np.abs(oracle.fisher(S, weights)).max()


@each_list
@both
@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("center", [False, True])
def test_blocks_are_those_of_the_dense_fisher(sizes, tridiagonal, dtype, center):
    p = sum(sizes)
    for n in (1, 9, 1100):
        S = oracle.draw(n, p, dtype) + dtype(2)
        weights = oracle.draw_weights(n)
        F = built(S, sizes, tridiagonal, weights, center=center)
        expected = oracle.masked(oracle.fisher(S, weights, center), sizes, tridiagonal)
        bound = (dtype, min(n, 128) + n / 64, size_of(S, weights))
        oracle.close(F.to_dense(), expected, *bound)
        starts = np.cumsum([0, *sizes])
        for b, block in enumerate(F.blocks()):
            own = slice(starts[b], starts[b + 1])
            oracle.close(block, expected[own, own], *bound)
        assert len(F.neighbours()) == (len(sizes) - 1 if tridiagonal else 0)
        assert F.block_sizes == tuple(sizes)
        assert F.tridiagonal is tridiagonal


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_widened(dtype):
    S = oracle.draw(300, 60).astype(dtype)
    for sizes in ([20] * 3, [50, 10]):
        F = built(S, sizes, True)
        assert F.dtype == np.float32
        expected = oracle.masked(oracle.fisher(S.astype(float)), sizes, True)
        oracle.close(F.to_dense(), expected, np.float32, 300)
        wide = built(S, sizes, True, dtype=np.float64)
        oracle.close(wide.to_dense(), expected, np.float64, 300)


@both
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_every_layout(tridiagonal, dtype):
    for n, sizes in ((40, [3, 30, 5]), (5, [200, 10, 10])):
        S = oracle.draw(n, sum(sizes), dtype)
        expected = oracle.masked(oracle.fisher(S), sizes, tridiagonal)
        for name, array in oracle.layouts(S):
            before = array.copy()
            F = built(array, sizes, tridiagonal)
            oracle.close(F.to_dense(), expected, float, 40, 4.0)
            assert np.array_equal(array, before), name


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.booleans(), st.integers(0, 2**20))
def test_random_blocks_solve_the_masked_matrix(sizes, tridiagonal, seed):
    rng = np.random.default_rng(seed)
    p = sum(sizes)
    S = rng.standard_normal((3 * p + 5, p))
    F = built(S, sizes, tridiagonal)
    masked = oracle.masked(oracle.fisher(S), sizes, tridiagonal)
    damping = 1.0  # eigenvalues of F lie between 0 and 3, and the mask shifts them by less than 1
    A = masked + damping * np.eye(p)
    rhs = rng.standard_normal((p, int(rng.integers(1, 30))))
    expected, kappa = np.linalg.solve(A, rhs), np.linalg.cond(A)
    for solver in ("auto", ff.CG(rtol=1e-13)):
        x = F.solve(rhs, damping=damping, solver=solver)
        oracle.close(x, expected, float, 10 * p * kappa)
    factor = F.factor(damping=damping)
    inverse = np.linalg.inv(A)
    starts = np.cumsum([0, *sizes])
    scale = np.abs(inverse).max()
    for b, block in enumerate(factor.inverse_blocks()):
        own = slice(starts[b], starts[b + 1])
        oracle.close(block, inverse[own, own], float, 10 * p * kappa, scale)
    for b, block in enumerate(factor.inverse_neighbours()):
        own, next_one = slice(starts[b], starts[b + 1]), slice(starts[b + 1], starts[b + 2])
        oracle.close(block, inverse[next_one, own], float, 10 * p * kappa, scale)
    true = 1 / np.linalg.cond(A, 1)
    assert 0.9 * true < factor.rcond < 10 * true


@both
@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_damping_in_every_mode(tridiagonal, dtype):
    sizes = [4, 30, 2]
    S = oracle.draw(400, sum(sizes), dtype)
    F = built(S, sizes, tridiagonal)
    M = oracle.masked(oracle.fisher(S), sizes, tridiagonal)
    g = np.linspace(1, 2, len(M))
    diagonal = np.diag(M).real
    vector = np.linspace(0.5, 3, len(M))
    for damping, mode, added in (
        (0.5, "absolute", 0.5),
        (vector, "absolute", vector),
        (0.5, "trace", 0.5 * diagonal.mean()),
        (0.5, "diagonal", 0.5 * diagonal),
    ):
        A = M + np.diag(np.broadcast_to(added, len(M)))
        solution = ff.solve(F, g, damping=damping, damping_mode=mode)
        oracle.close(solution.value, np.linalg.solve(A, g), dtype, 400 * np.linalg.cond(A))
        assert solution.method == "cholesky"
    path = F.solve_path(g, [0.5, 2.0])
    for damping, value in zip([0.5, 2.0], path.value, strict=True):
        A = M + damping * np.eye(len(M))
        oracle.close(value, np.linalg.solve(A, g), dtype, 400 * np.linalg.cond(A))


@pytest.mark.parametrize("solver", ["auto", ff.Eigh(), ff.CG(preconditioner=None)])
def test_long_paths(solver):
    S, sizes = oracle.draw(90, 40), [7, 7, 20, 6]
    F, g = built(S, sizes), np.ones(40)
    dampings = np.geomspace(0.1, 10, 120)
    M = oracle.masked(oracle.fisher(S), sizes)
    path = F.solve_path(g, dampings, solver=solver)
    for damping, value in zip(dampings, path.value, strict=True):
        oracle.close(value, np.linalg.solve(M + damping * np.eye(40), g), np.float32, 4)
    assert path.method == {"auto": "cholesky"}.get(solver, path.method)


def test_auto_takes_the_block_factor_at_any_size():
    count, p = 9000, 18000
    assert p > ff.solvers.auto.DIRECT_LIMIT
    S = oracle.draw(30, p)
    for tridiagonal in (False, True):
        F = built(S, [2] * count, tridiagonal)
        solution = ff.solve(F, np.ones(p), damping=4.0)
        assert solution.method == "cholesky"
        assert solution.residual is not None
        assert solution.residual < 1e-13
        assert "blocks" in ff.solve(F, np.ones(p), damping=4.0, solver=ff.Cholesky("mixed")).message


def test_masking_to_tridiagonal_can_lose_definiteness_and_is_named():
    # One score (1, 1, 1): F is all ones. Without its corner the eigenvalue 1 − √2 is negative.
    F = ff.BlockDiagonalFisher([1, 1, 1], tridiagonal=True).update(np.ones((1, 3)))
    assert np.linalg.eigvalsh(F.to_dense())[0] == pytest.approx(1 - np.sqrt(2))
    for call in (F.factor, lambda: F.solve(np.ones(3)), F.logdet):
        with pytest.raises(ff.NotPositiveDefiniteError) as caught:
            call()
        error = caught.value
        assert error.pivot == 1
        assert "at parameter 1 in block 1" in str(error)
        assert "Masking a Fisher to its block tridiagonal can lose" in str(error)
        assert error.damping > np.sqrt(2) - 1
        assert f"Adding {error.damping:.3g} to the damping would do" in str(error)
        assert F.factor(damping=error.damping).rcond > 0
    with pytest.raises(ff.NotPositiveDefiniteError, match=r"curvature"):
        F.solve(np.array([1.0, -np.sqrt(2), 1.0]), solver=ff.CG())
    shifted = ff.solve(F, np.ones(3), on_failure="shift")
    assert shifted.status == ff.Status.SHIFTED
    # The block diagonal of the same scores keeps it.
    whole = ff.BlockDiagonalFisher([1, 1, 1]).update(np.ones((1, 3)))
    assert np.array_equal(whole.solve(np.ones(3)), np.ones(3))


@pytest.mark.parametrize("sizes", [[2, 3, 1], [2, 50, 2], [400, 5, 9]])
@pytest.mark.parametrize("dtype", [np.float64, np.complex64])
def test_a_singular_block_is_named(sizes, dtype):
    S = oracle.draw(3 * sum(sizes), sum(sizes), dtype)
    last = sum(sizes) - 1
    S[:, last] = 0
    for tridiagonal in (False, True):
        F = built(S, sizes, tridiagonal)
        with pytest.raises(ff.NotPositiveDefiniteError) as caught:
            F.factor()
        assert caught.value.pivot == last
        assert f"at parameter {last} in block {len(sizes) - 1}" in str(caught.value)
        assert ("tridiagonal" in str(caught.value)) is tridiagonal
    # Less samples than parameters of a block: zero to rounding counts as zero.
    few = built(oracle.draw(3, 12, dtype), [2, 9, 1])
    with pytest.raises(ff.NotPositiveDefiniteError, match=r"in block 1, not above"):
        few.factor()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_streaming_and_merging_are_one_shot(parts, center, tridiagonal):
    n, sizes = sum(parts) + 1, [3, 1, 5]
    S, weights = oracle.draw(n, 9) + 2.0, oracle.draw_weights(n) + 0.1
    rows = np.split(np.arange(n), np.cumsum(parts))
    kind = {"tridiagonal": tridiagonal, "center": center}
    streamed = ff.BlockDiagonalFisher(sizes, **kind)
    for some in rows:
        streamed.update(S[some], weights[some])
    own = [ff.BlockDiagonalFisher(sizes, **kind).update(S[some], weights[some]) for some in rows]
    merged = ff.BlockDiagonalFisher(sizes, **kind).merge(*own)
    expected = oracle.masked(oracle.fisher(S, weights, center), sizes, tridiagonal)
    scale = 4 * size_of(S, weights)
    oracle.close(streamed.to_dense(), expected, float, n, scale)
    oracle.close(merged.to_dense(), expected, float, n, scale)
    assert (own[0] + own[-1]).n_samples == own[0].n_samples + own[-1].n_samples


@both
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_later_updates_read_once_or_in_advance(tridiagonal, center, dtype):
    # Sums larger than the scores are not held twice; smaller ones are.
    for sizes in ([30, 2, 220], [3, 4]):
        n, p = 40, sum(sizes)
        S = oracle.draw(2 * n, p, dtype) + dtype(5)
        F = ff.BlockDiagonalFisher(sizes, tridiagonal=tridiagonal, center=center, dtype=dtype)
        F.update(S[:n]).decay(0.5).update(S[n:])
        weights = np.r_[np.full(n, 0.5), np.ones(n)]
        expected = oracle.masked(oracle.fisher(S, weights, center), sizes, tridiagonal)
        oracle.close(F.to_dense(), expected, float, 2 * n, 4 * size_of(S, weights))


@each_list
def test_offsets_cost_no_digits(sizes):
    p = sum(sizes)
    S = oracle.draw(800, p)
    moved = S + 1e8  # exact to 1.5e-8
    F = built(moved, sizes, True, center=True)
    expected = oracle.masked(oracle.fisher(moved, center=True), sizes, True)
    assert np.abs(F.to_dense() - expected).max() < 1e-7


@both
def test_a_bad_update_changes_nothing(tridiagonal):
    for sizes in ([2, 1], [250, 2]):
        p = sum(sizes)
        for F in (
            ff.BlockDiagonalFisher(sizes, tridiagonal=tridiagonal),
            built(oracle.draw(5, p), sizes, tridiagonal),
            built(oracle.draw(5, p), sizes, tridiagonal, center=True),
        ):
            before = pickle.dumps(F)
            bad = np.ones((4, p))
            bad[2, p - 1] = np.nan
            with pytest.raises(ff.NonFiniteError, match=rf"row 2, column {p - 1}"):
                F.update(bad)
            assert pickle.dumps(F) == before
        huge = np.ones((2, p))
        huge[:, 1] = 1e200
        with pytest.raises(ff.NonFiniteError, match="overflow in column 1"):
            ff.BlockDiagonalFisher(sizes).update(huge)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
def test_the_same_bits_for_any_number_of_threads(dtype):
    half = 2 if np.dtype(dtype).kind == "c" else 1
    for n, sizes in (
        (5000, [4] * 30),
        (300, [64] * 10 + [3]),
        (150, [400 // half, 20, 390 // half]),
    ):
        S = oracle.draw(n, sum(sizes), dtype)
        for tridiagonal in (False, True):
            found = []
            for threads in (1, 2, 3, 8):
                F = ff.BlockDiagonalFisher(
                    sizes, tridiagonal=tridiagonal, center=True, dtype=dtype
                ).update(S, n_threads=threads)
                factor = F.factor(damping=5.0, n_threads=threads)
                x = F.solve(S[:30].T, damping=5.0, n_threads=threads)
                arrays = [*F.blocks(), *F.neighbours(), x, factor.inverse_diagonal()]
                found.append([array.tobytes() for array in arrays] + [factor.logdet, factor.rcond])
            assert all(other == found[0] for other in found[1:])


def test_work_is_linear_in_the_number_of_blocks():
    # What is held, of the matrix and of its factor, is all that a solve reads.
    for tridiagonal in (False, True):
        held, factored = [], []
        for count in (10, 100, 1000):
            F = ff.BlockDiagonalFisher([30] * count, tridiagonal=tridiagonal, reduction="sum")
            held.append(len(F._sums_arrays()["sums"]))
            factor: Any = F.factor(damping=1.0)
            factored.append(len(factor._factor.panels))
        for lengths in (held, factored):
            assert lengths[2] - lengths[1] == 10 * (lengths[1] - lengths[0])
            assert lengths[2] < 4 * 1000 * 30 * 48


def test_many_small_blocks_are_held_tightly():
    F = ff.BlockDiagonalFisher([4] * 100_000)
    assert F._sums_arrays()["sums"].nbytes == 100_000 * 16 * 8
    F.update(oracle.draw(3, 400_000))
    assert F.solve(np.ones(400_000), damping=1.0).shape == (400_000,)
    assert F.factor(damping=1.0).inverse_diagonal().min() > 0


@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("size", [1, 3, 16, 24])
def test_stacks_of_small_blocks(size, dtype):
    count = 37  # more than enough for a stack, and an odd number of lanes
    S = oracle.draw(3 * size + 2, count * size, dtype)
    F = built(S, [size] * count)
    stacked = F.factor(damping=0.5)
    A = np.array(F.blocks(), oracle.wide(S).dtype) + 0.5 * np.eye(size)
    inverse, rhs = np.linalg.inv(A), oracle.draw(count * size, 3, dtype)
    solution = inverse @ rhs.reshape(count, size, 3)
    terms = 20 * size * np.linalg.cond(A).max()
    oracle.close(stacked.solve(rhs), solution.reshape(-1, 3), dtype, terms)
    oracle.close(np.array(stacked.inverse_blocks()), inverse, dtype, terms)
    diagonal = np.diagonal(inverse, axis1=1, axis2=2).real.ravel()
    oracle.close(stacked.inverse_diagonal(), diagonal, dtype, terms)
    oracle.close(stacked.logdet, np.linalg.slogdet(A)[1].sum(), dtype, terms * count)
    norms = [np.abs(x).sum(axis=1).max() for x in (A, inverse)]
    assert 0.4 < stacked.rcond * norms[0] * norms[1] < 1.001
    half = stacked._factor.half_solve(rhs)
    squares = (rhs.conj().reshape(count, size, 3) * solution).real.sum(axis=(0, 1))
    oracle.close((np.abs(half) ** 2).sum(axis=0), squares, dtype, terms)
    free = np.einsum("bij,bji->", inverse, np.array(F.blocks())).real
    oracle.close(F.effective_dimension(0.5), free, dtype, terms)


def test_a_bad_block_of_a_stack_is_named():
    S = oracle.draw(20, 200)
    S[:, 87] = S[:, 86]
    with pytest.raises(ff.NotPositiveDefiniteError, match="at parameter 87 in block 21, not above"):
        built(S, [4] * 50).factor()


def test_uniform_stacks_have_the_spectrum_of_the_blocks():
    S, sizes = oracle.draw(60, 24), [5, 5, 9, 5]
    F = built(S, sizes)
    values, vectors = F.eigsh(24)
    expected = np.sort(np.concatenate([np.linalg.eigvalsh(block) for block in F.blocks()]))[::-1]
    oracle.close(values, expected, float, 24)
    oracle.close(F @ vectors, vectors * values, float, 100)
    assert (np.count_nonzero(vectors, axis=0) <= 9).all()


@pytest.mark.parametrize("dtype", oracle.EVERY)
@both
def test_files_and_pickles(tridiagonal, dtype, tmp_path):
    S, sizes = oracle.draw(20, 36, dtype), [3, 30, 2, 1]
    F = built(S, sizes, tridiagonal, oracle.draw_weights(20), center=True)
    F.save(tmp_path / "f.npz")
    again: Any
    for again in (ff.load(tmp_path / "f.npz"), pickle.loads(pickle.dumps(F)), F.copy()):
        assert again.block_sizes == F.block_sizes
        assert again.tridiagonal is tridiagonal
        assert np.array_equal(again.to_dense(), F.to_dense())
        assert np.array_equal(again.update(S).to_dense(), F.copy().update(S).to_dense())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_sizes": np.array([2, 2])}, "sums: expected shape"),
        ({"block_sizes": np.array([1, 2, 3])}, "sums: expected shape"),
        ({"block_sizes": np.array([2, 0, 1])}, "block_sizes: expected sizes of at least 1"),
        ({"block_sizes": np.array([2.0, 1.0])}, "block_sizes: expected whole numbers"),
        ({"block_sizes": np.array([2**31, 1])}, "block_sizes: expected a sum of at most"),
        ({"tridiagonal": True}, "sums: expected shape"),
        ({"tridiagonal": 1}, "tridiagonal: expected True or False"),
        ({"mean": np.ones(2)}, "mean: expected shape"),
    ],
)
def test_damaged_states(change, message):
    state = built(oracle.draw(5, 3), [2, 1], center=True)._state()
    with pytest.raises((ValueError, TypeError), match=message):
        ff.BlockDiagonalFisher._from_state(state | change)


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ([], ValueError, r"block_sizes: expected a list of at least one size, got shape \(0,\)"),
        (3, ValueError, r"block_sizes: expected a list of at least one size, got shape \(\)"),
        ([[1, 2]], ValueError, r"block_sizes: expected a list .* got shape \(1, 2\)"),
        ([2, 0], ValueError, "block_sizes: expected sizes of at least 1, got 0 at place 1"),
        ([-1, 2], ValueError, "block_sizes: expected sizes of at least 1, got -1 at place 0"),
        ([1.0, 2.0], TypeError, "block_sizes: expected whole numbers, got float64"),
        ([True, True], TypeError, "block_sizes: expected whole numbers, got bool"),
        (["a"], TypeError, "block_sizes: expected whole numbers, got str"),
    ],
)
def test_bad_sizes(sizes, error, message):
    with pytest.raises(error, match=message):
        ff.BlockDiagonalFisher(sizes)


def test_sizes_that_do_not_add_up():
    with pytest.raises(
        ValueError,
        match=r"block_sizes: expected sizes that add up to the 5 columns of the scores, got 4",
    ):
        built(np.ones((2, 5)), [3, 1])
    with pytest.raises(TypeError, match="tridiagonal: expected True or False, got str"):
        ff.BlockDiagonalFisher([1], tridiagonal="yes")  # type: ignore[arg-type]


def test_other_structures_do_not_merge():
    F = built(oracle.draw(3, 4), [2, 2])
    for other in (ff.BlockDiagonalFisher([1, 3]), ff.BlockDiagonalFisher([2, 2], tridiagonal=True)):
        with pytest.raises(
            ValueError, match=r"others: expected \(class, block_sizes, tridiagonal, "
        ):
            F.merge(other)
        assert F.n_samples == 3
    with pytest.raises(ValueError, match=r"others: expected \(class"):
        F.merge(ff.BlockDiagonalFisher([4], center=True))
    with pytest.raises(TypeError, match="others: expected BlockDiagonalFisher"):
        F.merge(ff.DenseFisher(4))


def test_sizes_that_wrap_are_refused():
    for sizes in ([2**62, 2**62], [2**62] * 4 + [5], np.array([5, 2**64 - 2], np.uint64)):
        with pytest.raises(ValueError, match="block_sizes: expected a sum of at most"):
            ff.BlockDiagonalFisher(sizes)


@pytest.mark.parametrize("blocks", [8, 40])  # one by one, and stacked
def test_an_inverse_that_leaves_the_range_is_named(blocks: int) -> None:
    S = oracle.draw(60, 2 * blocks)
    S[:, 4:6] *= 1e-156  # squares that float64 has, and whose inverses it has not
    factor = ff.BlockDiagonalFisher.from_scores(S, [2] * blocks).factor()
    for name in ("inverse", "inverse_diagonal", "inverse_blocks"):
        with pytest.raises(ff.NonFiniteError, match=f"BlockFactor.{name}: expected a result with"):
            getattr(factor, name)()
    assert factor.rcond == 0.0
    assert np.isfinite(factor.logdet)
