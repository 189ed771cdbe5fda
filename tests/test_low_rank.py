"""LowRankFisher: exact where it can be, within its bound where not, and never p²."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfisher as ff
import oracle

METHODS = ("frequent_directions", "randomized")


def decaying(
    n: int, p: int, dtype: type[np.inexact] = np.float64, least: float = 1e-2
) -> np.ndarray:
    """Return scores whose directions fall off, so that a few of them tell most."""
    Q = np.linalg.qr(oracle.draw(p, p, dtype))[0]
    answer: np.ndarray = (oracle.draw(n, p, dtype) * np.geomspace(1, least, p)) @ Q + 0.1
    return answer


def of_rank(n: int, p: int, rank: int, dtype: type[np.inexact] = np.float64) -> np.ndarray:
    answer: np.ndarray = oracle.draw(n, rank, dtype) @ oracle.draw(rank, p, dtype)
    return answer


def norm(F: np.ndarray) -> float:
    return float(np.linalg.norm(F, 2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize(("n", "p", "rank"), [(97, 23, 4), (5, 49, 7), (60, 5, 5), (1, 1, 1)])
def test_exact_where_the_scores_have_no_more_directions(
    n: int, p: int, rank: int, dtype: type[np.inexact], method: str
) -> None:
    S = of_rank(n, p, min(rank, n), dtype).astype(dtype)
    F = ff.LowRankFisher.from_scores(S, rank, method=method)
    # Shrinking changes the sum by the rounding of a Gram matrix each time, of which there are n/2r.
    oracle.close(F.to_dense(), oracle.fisher(S), dtype, n + p, norm(oracle.fisher(S)))
    assert F.residual <= 1e-5 * F.trace()
    if p > rank:  # no residual that is mere rounding stands for a damping
        with pytest.raises(ff.NotPositiveDefiniteError, match="directions without a residual"):
            F.solve(np.ones(p))


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_trace_is_kept_and_the_bound_holds(
    dtype: type[np.inexact], weighted: bool, center: bool
) -> None:
    n, p = 211, 29
    S = decaying(n, p, dtype).astype(dtype)
    weights = oracle.draw_weights(n) if weighted else None
    F = oracle.fisher(S, weights, center)
    size, eigenvalues = norm(F), np.linalg.eigvalsh(F)[::-1]
    rounding = 4 * n * oracle.EPS[np.dtype(dtype)] * size
    for rank in (1, 2, 5, 13):
        for method in METHODS:
            L = ff.LowRankFisher.from_scores(S, rank, weights=weights, center=center, method=method)
            assert abs(L.trace() - np.trace(F).real) <= rounding
            assert norm(F - L.to_dense()) <= L.error_bound + rounding
            assert (L.rank, L.shape, L.n_samples) == (rank, (p, p), n)
        streamed = ff.LowRankFisher.from_scores(S, rank, weights=weights, center=center)
        below = F - (streamed.to_dense() - streamed.residual * np.eye(p))
        assert np.linalg.eigvalsh(below)[0] >= -rounding  # what is held is below F
        for k in range(rank + 1):
            tail = eigenvalues[k:].sum() / (rank + 1 - k)
            assert streamed.error_bound <= tail + rounding


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 17), min_size=1, max_size=6), st.booleans(), st.integers(1, 4))
def test_streams_and_merges_keep_trace_and_bound(
    sizes: Sequence[int], center: bool, rank: int
) -> None:
    n, p = sum(sizes) + 1, 11
    S, weights = decaying(n, p) + 1.0, oracle.draw_weights(n) + 0.1
    blocks = np.split(np.arange(n), np.cumsum(sizes))
    parts = [ff.LowRankFisher(p, rank, center=center).update(S[b], weights[b]) for b in blocks]
    streamed = ff.LowRankFisher(p, rank, center=center)
    for block in blocks:
        streamed.update(S[block], weights[block])
    F = oracle.fisher(S, weights, center)
    size = norm(oracle.fisher(S, weights))
    for found in (streamed, ff.LowRankFisher(p, rank, center=center).merge(*parts)):
        assert found.n_samples == n
        oracle.close(found.trace(), np.trace(F), float, n, p * size)
        assert norm(F - found.to_dense()) <= found.error_bound + 4 * n * 2.3e-16 * size
        # Δ ≤ (tr F) / (r + 1) survives every split.
        assert found.error_bound <= np.trace(F) / (rank + 1) + 1e-13 * size
    one_shot = ff.LowRankFisher.from_scores(S, rank, weights=weights, center=center)
    gap = norm(one_shot.to_dense() - streamed.to_dense())
    assert gap <= one_shot.error_bound + streamed.error_bound + 1e-13 * size
    if not center:  # the same rows in the same order
        assert np.array_equal(one_shot._sums.rows, streamed._sums.rows)


def test_decay_forgets() -> None:
    S, p = decaying(120, 17), 17
    F, exact = ff.LowRankFisher(p, 4), ff.DenseFisher(p)
    for batch in np.split(S, 12):
        F.decay(0.9).update(batch)
        exact.decay(0.9).update(batch)
    assert F.weight_sum == exact.weight_sum
    oracle.close(F.trace(), exact.trace(), float, 1000)
    assert norm(exact.to_dense() - F.to_dense()) <= F.error_bound * (1 + 1e-12)
    assert F.error_bound <= exact.trace() / 5
    before = F.to_dense()
    oracle.close(F.decay(0.25).to_dense(), before, float, 100)
    assert F.decay(0.0).update(S[:3]).weight_sum == 3
    oracle.close(F.to_dense(), oracle.fisher(S[:3]), float, 100)


def test_a_thousand_shrinks_lose_no_trace() -> None:
    n, p = 20_000, 60
    S = (oracle.draw(n, p) * np.geomspace(1, 1e-3, p)).astype(np.float32)
    F = oracle.fisher(S)
    L = ff.LowRankFisher(p, 8, dtype=np.float32).update_from(ff.chunks(S, rows=37))
    assert L.trace() == pytest.approx(np.trace(F), rel=2e-5)
    assert norm(F - L.to_dense()) <= L.error_bound * (1 + 1e-4)


def test_many_shrinks_of_single_rows_equal_few_of_many() -> None:
    S = decaying(83, 14)
    one_by_one = ff.LowRankFisher(14, 3)
    for row in S:
        one_by_one.update(row[None])
    assert np.array_equal(one_by_one.to_dense(), ff.LowRankFisher.from_scores(S, 3).to_dense())


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_randomized_finds_the_leading_directions(dtype: type[np.inexact]) -> None:
    S = decaying(90, 31, dtype, least=1e-5)
    exact = ff.DenseFisher.from_scores(S, center=True)
    values, vectors = exact.eigsh(5)
    for fisher in (exact, ff.ScoreFisher(S, center=True)):
        L = ff.LowRankFisher.from_fisher(fisher, 5, power_iterations=3)
        found, directions = L.eigsh(5)
        oracle.close(found - L.residual, values, float, 1e6)
        oracle.close(abs(vectors.conj().T @ directions), np.eye(5), float, 1e7)
        assert norm(exact.to_dense() - L.to_dense()) <= L.error_bound
        assert (L.n_samples, L.center, L.weight_sum) == (90, True, 90.0)
    again = ff.LowRankFisher.from_fisher(exact, 5, power_iterations=3)
    assert np.array_equal(again.to_dense(), ff.LowRankFisher.from_fisher(
        exact, 5, power_iterations=3, rng=0).to_dense())  # fmt: skip
    # It goes on as a stream, and shrinks another sketch.
    more = oracle.draw(50, 31, dtype)
    both = ff.DenseFisher.from_scores(S, center=True).update(more)
    assert norm(both.to_dense() - again.update(more).to_dense()) <= again.error_bound
    shrunk = ff.LowRankFisher.from_fisher(ff.LowRankFisher.from_fisher(exact, 9), 5)
    oracle.close(shrunk.trace(), exact.trace(), float, 1000)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_eigenvectors_go_on_where_the_rows_end(dtype: type[np.inexact]) -> None:
    F = ff.LowRankFisher.from_scores(decaying(40, 12, dtype), 2)
    values, vectors = F.eigsh(12)
    oracle.close(values[-6:], np.full(6, F.residual), float, 100, values[0])
    oracle.close(vectors.conj().T @ vectors, np.eye(12), float, 100)
    oracle.close(F @ vectors, vectors * values, float, 1000, values[0])


def test_a_million_parameters_need_no_matrix() -> None:
    p, rank = 1_000_000, 3
    S = oracle.rng(p).standard_normal((13, p), dtype=np.float32)
    F = ff.LowRankFisher.from_scores(S, rank, center=True)
    g = S[0]
    solution = ff.solve(F, g, damping=10.0)
    assert (solution.method, solution.status) == ("dual", ff.Status.SUCCESS)
    eps = np.finfo(np.float32).eps
    assert solution.residual is not None
    assert solution.residual < eps * F.trace() / 10.0  # the digits that Woodbury's identity loses
    path = ff.solve_path(F, g, [10.0, 1e3, 1e5])
    assert path.method == "eigh"
    oracle.close(path.value[0], solution.value, np.float32, 1e3)
    factor = F.factor(damping=1.0)
    for number in (
        factor.logdet,
        factor.rcond,
        F.logdet(np.ones(p)),
        F.effective_dimension(1.0),
        F.quadratic_form(g),
        F.leverage(S[:2], 1.0).sum(),
        factor.inverse_diagonal().sum(),
        factor.sample(0).sum(),
        F.apply_power(g, -0.5, damping=1.0).sum(),
        F.eigsh(2)[0].sum(),
    ):
        assert np.isfinite(number)
    with pytest.raises(ff.MemoryLimitError):
        F.to_dense()


@pytest.mark.parametrize("rows", [5, 40])
@pytest.mark.parametrize("damping_mode", ["absolute", "trace"])
@pytest.mark.parametrize("solver", ["auto", ff.Cholesky(), ff.Cholesky(precision="mixed"),
                                    ff.Eigh(), ff.CG(rtol=1e-12, preconditioner=None)])  # fmt: skip
def test_paths_share_one_factor(solver: Any, damping_mode: str, rows: int) -> None:
    F = ff.LowRankFisher.from_scores(decaying(rows, 17), 4)
    rhs, dampings = oracle.draw(17, 2), [1e-2, 0.3, 4.0]
    path = F.solve_path(rhs, dampings, solver=solver, damping_mode=damping_mode)
    assert (path.status == 0).all()
    for x, damping in zip(path.value, path.damping_used, strict=True):
        A = F.to_dense() + damping * np.eye(17)
        oracle.close(x, np.linalg.solve(A, rhs), float, 1e5)


def test_what_a_failure_becomes() -> None:
    F = ff.LowRankFisher.from_scores(of_rank(50, 9, 2), 2)
    assert ff.solve(F, np.ones(9), on_failure="nan").status == ff.Status.NOT_POSITIVE_DEFINITE
    pinv = ff.solve(F, np.ones(9), on_failure="pinv")
    assert (pinv.rank, pinv.status) == (2, ff.Status.TRUNCATED)
    exact = np.linalg.pinv(F.to_dense(), rcond=1e-10, hermitian=True) @ np.ones(9)
    oracle.close(pinv.value, exact, float, 1e4)
    assert ff.solve(F, np.ones(9), on_failure="shift").method == "dual+shift"
    path = F.solve_path(np.ones(9), [0.0, 1.0], on_failure="nan")
    assert path.status.tolist() == [ff.Status.NOT_POSITIVE_DEFINITE, ff.Status.SUCCESS]
    with pytest.raises(TypeError, match=r"expected Cholesky\(\) or CG\(\) for LowRankFisher"):
        F.solve(np.ones(9), damping=1.0, solver=ff.Dual())


@pytest.mark.parametrize("preconditioner", ["jacobi", ff.BlockJacobi(7), ff.Nystrom(6)], ids=str)
def test_preconditioners_take_its_blocks_and_products(
    preconditioner: str | ff.BlockJacobi | ff.Nystrom,
) -> None:
    F = ff.LowRankFisher.from_scores(decaying(90, 33), 4)
    rhs = oracle.draw(33, 2)
    cg = ff.CG(rtol=1e-12, preconditioner=preconditioner)
    found = F.solve(rhs, damping=0.01, solver=cg)
    oracle.close(found, F.solve(rhs, damping=0.01), float, 1e5)


def test_without_samples_the_sum_is_zero() -> None:
    F = ff.LowRankFisher(4, 2, reduction="sum")
    assert not F.to_dense().any()
    assert F.solve(np.ones(4), damping=2.0).tolist() == [0.5] * 4
    assert (F.logdet(1.0), F.effective_dimension(1.0), F.error_bound) == (0.0, 0.0, 0.0)
    assert F.eigsh(4)[0].tolist() == [0.0] * 4
    again = ff.LowRankFisher._from_state(F._state()).update(np.eye(4))
    oracle.close(again.to_dense(), np.eye(4), float, 10)


def test_halves_are_widened() -> None:
    S = oracle.draw(30, 12).astype(np.float16)
    for method in METHODS:
        F = ff.LowRankFisher.from_scores(S, 12, method=method)
        assert F.dtype == np.float32
        oracle.close(F.to_dense(), oracle.fisher(S), np.float32, 100)
        wide = ff.LowRankFisher.from_scores(S, 12, method=method, dtype=np.float64)
        assert wide.dtype == np.float64


@pytest.mark.parametrize("name", ["plain", "fortran", "strided", "negative", "read-only"])
def test_layouts(name: str) -> None:
    S = decaying(50, 13)
    given_ = dict(oracle.layouts(S))[name]
    before = given_.copy()
    found = ff.LowRankFisher.from_scores(given_, 3, center=True).to_dense()
    plain = ff.LowRankFisher.from_scores(S, 3, center=True).to_dense()
    oracle.close(found, plain, float, 1000)
    assert np.array_equal(given_, before)


def test_the_same_bits_for_any_number_of_threads() -> None:
    S = oracle.rng(3).standard_normal((70, 3001))
    one = ff.LowRankFisher.from_scores(S, 8, n_threads=1)
    for threads in (2, 3):
        other = ff.LowRankFisher.from_scores(S, 8, n_threads=threads)
        assert np.array_equal(one.diagonal(), other.diagonal())


def test_a_factor_and_a_failure_leave_things_as_they_are() -> None:
    S = decaying(40, 9)
    F = ff.LowRankFisher.from_scores(S[:7], 3, center=True)
    factor = F.factor(damping=0.1)
    before, solved = F.to_dense(), factor.solve(np.ones(9))
    for place in (0, 20, 39):
        bad = S.copy()
        bad[place, 4] = np.nan
        with pytest.raises(ff.NonFiniteError, match=f"row {place}, column 4"):
            F.update(bad)
        with pytest.raises(ff.NonFiniteError, match=f"row {place}, column 4"):
            ff.LowRankFisher.from_scores(bad, 3)
    with pytest.raises(ff.NonFiniteError, match="expected finite sums"):
        ff.LowRankFisher.from_scores(np.full((3, 9), 1e300), 3)
    assert np.array_equal(F.to_dense(), before)
    F.update(S)
    F.decay(0.5)
    F.merge(F.copy())
    assert np.array_equal(factor.solve(np.ones(9)), solved)


def test_bad_arguments() -> None:
    S = oracle.draw(6, 4)
    for rank, message in (
        (5, "rank: expected at most p = 4, got 5"),
        (0, "rank: expected"),
        (-1, "rank: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            ff.LowRankFisher(4, rank)
        for method in METHODS:
            with pytest.raises(ValueError, match=message):
                ff.LowRankFisher.from_scores(S, rank, method=method)
    with pytest.raises(TypeError, match="rank: expected"):
        ff.LowRankFisher(4, 2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="method: expected one of frequent_directions"):
        ff.LowRankFisher.from_scores(S, 2, method="svd")
    with pytest.raises(TypeError, match="fisher: expected a representation, got ndarray"):
        ff.LowRankFisher.from_fisher(S, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="power_iterations: expected"):
        ff.LowRankFisher.from_fisher(ff.ScoreFisher(S), 2, power_iterations=-1)
    F = ff.LowRankFisher.from_scores(S, 2)
    with pytest.raises(ValueError, match=r"others: expected \(class, n_params, rank, dtype"):
        F.merge(ff.LowRankFisher.from_scores(S, 3))
    with pytest.raises(TypeError, match="others: expected LowRankFisher, got DenseFisher"):
        F.merge(ff.DenseFisher.from_scores(S))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected at least one sample"):
        ff.LowRankFisher(4, 2).diagonal()
    with pytest.raises(ff.MemoryLimitError, match="LowRankFisher"):
        ff.LowRankFisher(10**12, 100)
    with pytest.raises(TypeError, match="Real and complex scores do not mix"):
        F.update(S + 0j)


def test_damaged_states_are_refused() -> None:
    state = ff.LowRankFisher.from_scores(oracle.draw(6, 4), 2)._state()
    for change, message in (
        ({"rank": 1}, "rows: expected at most 3, got 6"),
        ({"rank": 9}, "rank: expected at most"),
        ({"n_params": 5}, "rows: expected shape"),
        ({"rows": np.zeros((6, 4, 1))}, "rows: expected shape"),
        ({"lost": np.array([1.0])}, "lost: expected shape"),
        ({"lost": np.array([-1.0, 0.0])}, "lost: expected"),
        ({"lost": np.array([0.0, np.nan])}, "lost: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            ff.LowRankFisher._from_state({**state, **change})


def test_an_indefinite_matrix_is_refused() -> None:
    F = ff.DenseFisher.from_matrix(np.diag([3.0, -1.0, 2.0]))
    with pytest.raises(ff.NotPositiveDefiniteError, match="more than its trace"):
        ff.LowRankFisher.from_fisher(F, 2)
