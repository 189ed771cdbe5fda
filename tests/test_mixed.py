"""Mixed precision: as accurate as double precision, or that after all and saying so."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle
from fastfisher._native import core

MIXED = ff.Cholesky(precision="mixed")
each_dtype = pytest.mark.parametrize("dtype", [np.float64, np.complex128])


def matrix(p: int, kappa: float, dtype: type[np.inexact] = np.float64) -> np.ndarray:
    Q, _ = np.linalg.qr(oracle.draw(p, p, dtype))
    F = (Q * np.geomspace(1, 1 / kappa, p)) @ Q.conj().T
    answer: np.ndarray = (F + F.conj().T) / 2
    return answer


def backward_error(F: np.ndarray, x: np.ndarray, rhs: np.ndarray) -> float:
    """LAPACK's criterion: max|r| / (max|x| · ‖A‖ · eps/2 · √p), at most about 1 when refined."""
    r = rhs - F @ x
    size = np.abs(x).max(axis=0) * np.abs(F).sum(axis=0).max() * 2.0**-53 * np.sqrt(len(F))
    return float((np.abs(r).max(axis=0) / size).max())


@pytest.mark.parametrize("p", [1, 2, 23, 24, 25, 47, 48, 49, 95, 97, 200])
def test_narrowed_is_the_matrix_rounded(p: int) -> None:
    F = oracle.fisher(oracle.draw(p + 3, p))
    wide, narrow = core.triangle_zeros(p, 8), core.triangle_zeros(p, 4)
    narrow[...] = 7
    assert core.triangle_from_dense(F, wide, 0)[0] == 0
    for threads in (1, 2):
        core.triangle_narrow(wide, p, 3.0, narrow, threads)
        expected = core.triangle_zeros(p, 4)
        assert core.triangle_from_dense((3.0 * F).astype(np.float32), expected, 0)[0] == 0
        found, same = np.empty((p, p), np.float32), np.empty((p, p), np.float32)
        core.triangle_to_dense(narrow, 1.0, found, 0)
        core.triangle_to_dense(expected, 1.0, same, 0)
        assert np.array_equal(found, same)


@pytest.mark.parametrize("kappa", [2.0, 1e2, 1e4])
@pytest.mark.parametrize("p", [2, 25, 48, 101, 300])
@each_dtype
def test_as_good_as_double_precision(dtype: type[np.inexact], p: int, kappa: float) -> None:
    F = matrix(p, min(kappa, 1e6 / p), dtype)
    for k in (1, 9):
        rhs = oracle.draw(p, k, dtype)
        mixed, plain = ff.solve(F, rhs, solver=MIXED), ff.solve(F, rhs, solver=ff.Cholesky())
        if mixed.method == "cholesky-mixed":
            assert mixed.message == ""
            assert 1 <= mixed.iterations <= 8
            assert backward_error(F, mixed.value, rhs) <= 4
            assert mixed.rcond == pytest.approx(plain.rcond, rel=0.05)
        # Refinement ends √p above the rounding of a plain solve, at the latest; few rows are luck.
        assert mixed.residual is not None
        assert plain.residual is not None
        assert plain.rcond is not None
        assert mixed.residual <= (10 + 3 * np.sqrt(p)) * max(plain.residual, 2.0**-52)
        scale = np.abs(plain.value).max() / plain.rcond
        oracle.close(mixed.value, plain.value, dtype, p, scale)
        assert mixed.value.dtype == dtype
    if kappa <= 100:
        assert mixed.method == "cholesky-mixed"


@pytest.mark.parametrize("kappa", [1e8, 1e12])
@each_dtype
def test_ill_conditioned_falls_back_and_says_so(dtype: type[np.inexact], kappa: float) -> None:
    F, rhs = matrix(60, kappa, dtype), oracle.draw(60, 2, dtype)
    for fisher in (F, ff.ScoreFisher(np.linalg.cholesky(F).conj().T, reduction="sum")):
        mixed = ff.solve(fisher, rhs, solver=MIXED)
        plain = ff.solve(fisher, rhs, solver=ff.Cholesky())
        assert mixed.method == "cholesky"
        assert "float32" in mixed.message
        assert mixed.iterations == 0
        assert np.array_equal(mixed.value, plain.value)
        assert mixed.residual is not None
        assert plain.residual is not None
        assert plain.residual / 10 <= mixed.residual <= 10 * plain.residual
        assert mixed.rcond == plain.rcond


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [ff.DenseFisher.from_scores, ff.ScoreFisher])
@each_dtype
def test_scores_weights_and_damping_modes(
    dtype: type[np.inexact], kind: Callable[..., Any], weighted: bool, center: bool
) -> None:
    S = oracle.draw(200, 61, dtype)
    weights = oracle.draw_weights(200) if weighted else None
    fisher, F = kind(S, weights=weights, center=center), oracle.fisher(S, weights, center)
    rhs = oracle.draw(61, 3, dtype)
    before = fisher.to_dense()
    for damping, mode in ((0.1, "absolute"), (0.1, "trace"), (0.1, "diagonal")):
        found = ff.solve(fisher, rhs, damping=damping, damping_mode=mode, solver=MIXED)
        assert found.method == "cholesky-mixed"
        A = F + np.diag(np.broadcast_to(found.damping_used, 61))
        oracle.close(found.value, np.linalg.solve(A, rhs), float, 61, 10 * np.abs(rhs).max())
    vector = np.linspace(0.1, 1, 61)
    found = ff.solve(fisher, rhs[:, 0], damping=vector, solver=MIXED)
    A = F + np.diag(vector)
    oracle.close(found.value, np.linalg.solve(A, rhs[:, 0]), float, 61, 10 * np.abs(rhs).max())
    assert np.array_equal(fisher.to_dense(), before)
    assert fisher.solve(rhs, damping=0.1, solver=MIXED).shape == rhs.shape


def test_the_mean_score_and_no_columns() -> None:
    S = oracle.draw(100, 20)
    x = ff.natural_gradient(S, damping=0.1, solver=MIXED)
    oracle.close(x, oracle.natural_gradient(S, 0.1), float, 200)
    assert ff.solve(np.eye(5), np.ones((5, 0)), solver=MIXED).value.shape == (5, 0)
    assert np.array_equal(ff.solve(np.eye(5), np.zeros(5), solver=MIXED).value, np.zeros(5))


@pytest.mark.parametrize("scale", [1e-300, 1e-60, 1e60, 1e300])
@each_dtype
def test_scales_beyond_float32(dtype: type[np.inexact], scale: float) -> None:
    F, rhs = matrix(50, 10.0, dtype), oracle.draw(50, 2, dtype)
    exact = np.linalg.solve(F, rhs)
    for a, b, x in ((scale, scale, 1.0), (1.0, scale, scale)):
        found = ff.solve(F * a, rhs * b, solver=MIXED)
        assert found.status == ff.Status.SUCCESS
        assert np.allclose(found.value / x, exact, rtol=1e-12)
    assert ff.solve(F * scale, rhs * scale, solver=MIXED).method == "cholesky-mixed"
    both = ff.solve(F, np.c_[rhs[:, 0], rhs[:, 1] * scale, 0 * rhs[:, 0]], solver=MIXED)
    assert both.method == "cholesky-mixed"
    assert np.allclose(both.value / [1, scale, 1], np.c_[exact, 0 * exact[:, 0]], rtol=1e-12)


def test_what_is_not_positive_definite_is_named_as_always() -> None:
    for F in (np.diag([1.0, 0.0]), -np.eye(3), np.zeros((2, 2))):
        with pytest.raises(ff.NotPositiveDefiniteError, match="would do"):
            ff.solve(F, np.ones(len(F)), solver=MIXED)
    shifted = ff.solve(np.diag([1.0, -0.5]), np.ones(2), solver=MIXED, on_failure="shift")
    assert shifted.status == ff.Status.SHIFTED


def test_where_there_is_nothing_narrower() -> None:
    for fisher, what in (
        (np.eye(4, dtype=np.float32), "a float32 matrix"),
        (np.eye(4, dtype=np.complex64), "a complex64 matrix"),
        (ff.DiagonalFisher.from_scores(np.eye(4)), "a diagonal"),
        (np.eye(1), "a diagonal"),
    ):
        found = ff.solve(fisher, np.ones(fisher.shape[0]), solver=MIXED)
        assert found.method == "cholesky"
        assert found.message.endswith(f"precision: {what}")


@each_dtype
def test_a_path_in_mixed_precision(dtype: type[np.inexact]) -> None:
    F, rhs = matrix(50, 1e12, dtype), oracle.draw(50, 2, dtype)
    path = ff.solve_path(F, rhs, [0.0, 0.1, 1.0], solver=MIXED)
    assert path.methods == ("cholesky", "cholesky-mixed", "cholesky-mixed")
    assert path.method == "cholesky, cholesky-mixed"
    assert [solution.iterations > 0 for solution in path] == [False, True, True]
    for solution in path:
        assert solution.residual is not None
        assert solution.rcond is not None
        assert solution.residual <= 50 * 2.0**-52 / solution.rcond
    single = ff.solve(F, rhs, damping=0.1, solver=MIXED)
    assert np.array_equal(path.value[1], single.value)


@each_dtype
def test_same_bits_for_any_number_of_threads(dtype: type[np.inexact]) -> None:
    F, rhs = matrix(300, 50.0, dtype), oracle.draw(300, 3, dtype)
    found = [ff.solve(F, rhs, solver=MIXED, n_threads=threads) for threads in (1, 2, 8)]
    assert len({solution.value.tobytes() for solution in found}) == 1


def test_bad_precision() -> None:
    with pytest.raises(ValueError, match="precision: expected 'working' or 'mixed', got 'half'"):
        ff.Cholesky(precision="half")  # type: ignore[arg-type]
