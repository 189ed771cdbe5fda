"""Preconditioners: iterations fall as theory says, and the answer stays that of Cholesky."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastfisher as ff
import oracle

KINDS: dict[str, Any] = {
    "dense": ff.DenseFisher.from_scores,
    "score": ff.ScoreFisher,
    "diagonal": ff.DiagonalFisher.from_scores,
}


def iterations(
    F: Any, rhs: np.ndarray, damping: float | np.ndarray, preconditioner: Any, rtol: float = 1e-8
) -> int:
    solver = ff.CG(rtol=rtol, preconditioner=preconditioner)
    return ff.solve(F, rhs, damping=damping, solver=solver).iterations


def rotated(values: np.ndarray, dtype: npt.DTypeLike = np.float64) -> np.ndarray:
    Q, _ = np.linalg.qr(oracle.draw(len(values), len(values), dtype))
    answer: np.ndarray = (Q * values) @ Q.conj().T
    return answer


# ---- the answer ----
@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "preconditioner",
    [
        ff.BlockJacobi(),
        ff.BlockJacobi(block_size=7),
        ff.BlockJacobi(blocks=[1, 25, 24, 3]),
        ff.Nystrom(),
        ff.Nystrom(rank=5, rng=3),
    ],
    ids=str,
)
def test_same_answer_as_cholesky(
    preconditioner: ff.BlockJacobi | ff.Nystrom,
    kind: str,
    weighted: bool,
    center: bool,
    dtype: type[np.inexact],
) -> None:
    n, p = 90, 53
    S = (oracle.draw(n, p, dtype) * np.geomspace(1, 0.1, p)).astype(dtype)
    F = KINDS[kind](S, weights=oracle.draw_weights(n) if weighted else None, center=center)
    eps = oracle.EPS[np.dtype(dtype)]
    for damping in (0.05, np.linspace(0.02, 0.2, p)):
        for rhs in (oracle.draw(p, k, dtype) for k in (1, 9, 0)):
            cg = ff.CG(rtol=100 * eps, preconditioner=preconditioner)
            found = ff.solve(F, rhs, damping=damping, solver=cg)
            exact = ff.solve(F, rhs, damping=damping, solver=ff.Cholesky())
            condition = 1 + np.linalg.norm(F.to_dense(), 2) / np.min(damping)
            scale = np.linalg.norm(exact.value) * condition
            oracle.close(found.value, exact.value, dtype, 100 + p, scale)
            assert found.value.dtype == dtype
            assert found.status == ff.Status.SUCCESS


# ---- block-Jacobi ----
@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("sizes", [[5], [1, 1, 1], [24, 25, 23, 48, 49], [200, 3], [64] * 5])
def test_block_diagonal_needs_one_step(sizes: Sequence[int], dtype: type[np.inexact]) -> None:
    p = sum(sizes)
    F = np.zeros((p, p), dtype)
    start = 0
    for size in sizes:
        block = oracle.fisher(oracle.draw(3 * size, size, dtype))
        F[start : start + size, start : start + size] = block
        start += size
    for k in (1, 8, 25, 60):
        rhs = oracle.draw(p, k, dtype)
        assert iterations(F, rhs, 0.1, ff.BlockJacobi(blocks=sizes), 1e-5) <= 2


def test_blocks_hold_what_couples_most() -> None:
    p, size = 120, 12
    F = 1e-3 * rotated(np.linspace(0, 1, p))
    for start in range(0, p, size):
        S = oracle.rng(start).standard_normal((size, size))
        F[start : start + size, start : start + size] += S.T @ S
    scores = np.linalg.cholesky(F).T * np.sqrt(p)
    rhs = oracle.draw(p, 2)
    for held in (ff.ScoreFisher(scores), ff.DenseFisher.from_scores(scores)):
        within = iterations(held, rhs, 1e-3, ff.BlockJacobi(size))
        assert within <= 20
        assert iterations(held, rhs, 1e-3, "jacobi") >= 4 * within


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("kind", KINDS)
def test_a_singular_block_is_named(kind: str, dtype: npt.DTypeLike) -> None:
    S = oracle.draw(30, 10, dtype)
    S[:, 7] = 0.0
    F = KINDS[kind](S)
    solver = ff.CG(preconditioner=ff.BlockJacobi(4))
    with pytest.raises(ff.NotPositiveDefiniteError, match="pivot 0 at parameter 7") as caught:
        ff.solve(F, np.ones(10), solver=solver)
    assert caught.value.pivot == 7
    assert ff.solve(F, np.ones(10), damping=0.1, solver=solver).status == ff.Status.SUCCESS


@pytest.mark.parametrize("dtype", [float, complex])
def test_blocks_read_the_scores_in_any_layout(dtype: npt.DTypeLike) -> None:
    S = oracle.draw(20, 13, dtype)
    reference = None
    for name, scores in oracle.layouts(S):
        solver = ff.CG(rtol=1e-12, preconditioner=ff.BlockJacobi(5))
        x = ff.solve(ff.ScoreFisher(scores), np.ones(13), damping=0.1, solver=solver).value
        reference = x if reference is None else reference
        assert np.allclose(x, reference, rtol=1e-9), name


@pytest.mark.parametrize("dtype", [float, complex])
def test_a_representation_that_has_only_products(dtype: npt.DTypeLike) -> None:
    class Plain(ff.ScoreFisher):
        _block_triangle = ff.Fisher._block_triangle

    S, rhs = oracle.draw(40, 25, dtype), oracle.draw(25, 2, dtype)
    value = ff.BlockJacobi(7)
    plain, native = value.prepare(Plain(S), 0.1), value.prepare(ff.ScoreFisher(S), 0.1)
    assert plain is not None
    assert native is not None
    assert np.allclose(plain(rhs), native(rhs), rtol=1e-12)


def test_bad_scores_are_named_by_a_block() -> None:
    S = oracle.draw(20, 13)
    S[3, 7] = np.nan
    with pytest.raises(ff.NonFiniteError):
        ff.solve(
            ff.ScoreFisher(S), np.ones(13), damping=1.0, solver=ff.CG(preconditioner=ff.Nystrom())
        )
    with pytest.raises(ff.NonFiniteError):
        ff.solve(
            ff.ScoreFisher(S),
            np.ones(13),
            damping=1.0,
            solver=ff.CG(preconditioner=ff.BlockJacobi(5)),
        )


# ---- Nyström ----
@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("damping", [1e-2, 1.0])
def test_outliers_that_fit_in_the_sketch_cost_nothing(
    damping: float, dtype: type[np.inexact]
) -> None:
    """With r ≥ the outliers the condition left is about 1 + λ_{r+1} / μ, here 2 or less."""
    p, outliers = 150, 20
    values = np.r_[np.geomspace(1e3, 10, outliers), np.full(p - outliers, 1e-2)] * damping
    F, rhs = rotated(values, dtype).astype(dtype), oracle.draw(p, 2, dtype)
    enough = iterations(F, rhs, damping, ff.Nystrom(rank=2 * outliers), 1e-3)
    assert enough <= 3
    assert iterations(F, rhs, damping, None, 1e-3) >= 4 * enough
    assert iterations(F, rhs, damping, ff.Nystrom(rank=2), 1e-3) > enough


@pytest.mark.parametrize("dtype", [float, complex])
def test_a_full_sketch_is_the_matrix(dtype: npt.DTypeLike) -> None:
    F, rhs = rotated(np.geomspace(1, 1e-6, 40), dtype), np.ones(40)
    assert iterations(F, rhs, 1e-6, ff.Nystrom(rank=40)) <= 2
    assert iterations(F, rhs, 0.0, ff.Nystrom(rank=40)) <= 4


def test_fewer_scores_than_the_rank() -> None:
    S = oracle.draw(10, 90) * np.geomspace(1, 1e-2, 90)
    for damping in (1e-6, np.geomspace(1e-6, 1e-3, 90)):
        assert iterations(ff.ScoreFisher(S), np.ones(90), damping, ff.Nystrom()) <= 3


def test_a_vector_damping_is_split_off_first() -> None:
    p = 100
    F, rhs = rotated(np.r_[np.geomspace(1e4, 1e2, 10), np.full(p - 10, 1e-3)]), np.ones(p)
    damping = np.geomspace(0.1, 10, p)
    assert iterations(F, rhs, damping, ff.Nystrom(rank=30)) <= 6
    damping[3] = 0.0
    with pytest.raises(ValueError, match="damping: expected a positive vector for Nystrom"):
        iterations(F, rhs, damping, ff.Nystrom(rank=30))


def test_zero_and_singular_matrices() -> None:
    assert iterations(np.zeros((5, 5)), np.ones(5), 1.0, ff.Nystrom(rank=2)) == 1
    F = np.diag([1.0, 2.0, 0.0, 4.0])
    rhs = np.array([1.0, 2.0, 0.0, 4.0])
    solution = ff.solve(F, rhs, solver=ff.CG(preconditioner=ff.Nystrom(rank=4)))
    assert np.allclose(solution.value, [1, 1, 0, 1])


@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_a_range_beyond_the_dtype_keeps_it_positive(dtype: type[np.inexact]) -> None:
    F = rotated(np.geomspace(1, 1e-30, 60), dtype).astype(dtype)
    for damping in (1e-2, 1e-4):
        solver = ff.CG(rtol=1e-3, preconditioner=ff.Nystrom(rank=30))
        assert ff.solve(F, np.ones(60), damping=damping, solver=solver).status == 0


def test_an_int_gives_the_same_sketch_each_time() -> None:
    F, rhs = rotated(np.geomspace(1, 1e-4, 50)), np.ones(50)

    def solve(rng: int | np.random.Generator | None) -> np.ndarray:
        answer: np.ndarray = ff.solve(
            F, rhs, solver=ff.CG(preconditioner=ff.Nystrom(rank=9, rng=rng))
        ).value
        return answer

    assert np.array_equal(solve(0), solve(0))
    assert np.array_equal(solve(5), solve(5))
    assert not np.array_equal(solve(0), solve(5))
    solve(None)
    solve(np.random.default_rng(1))


# ---- as values ----
@pytest.mark.parametrize("dtype", [float, complex])
def test_prepared_once_used_often(dtype: npt.DTypeLike) -> None:
    F, rhs = ff.DenseFisher.from_matrix(rotated(np.geomspace(1, 1e-4, 50), dtype)), np.ones(50)
    for value in (ff.Nystrom(rank=30), ff.BlockJacobi(10)):
        prepared = value.prepare(F, 1e-3)
        assert iterations(F, rhs, 1e-3, prepared) == iterations(F, rhs, 1e-3, value)
        assert prepared is not None
        image = prepared(np.eye(50, dtype=dtype))
        assert np.allclose(image, image.conj().T)
        assert np.linalg.eigvalsh(image).min() > 0


def test_values_are_frozen_and_compare() -> None:
    assert ff.BlockJacobi(blocks=[2, 3]) == ff.BlockJacobi(blocks=(2, 3))
    assert hash(ff.BlockJacobi(blocks=[2, 3])) == hash(ff.BlockJacobi(blocks=(2, 3)))
    assert ff.Nystrom() == ff.Nystrom()
    for value in (ff.Nystrom(), ff.BlockJacobi()):
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            value.rank = 2  # type: ignore[union-attr, misc]


def test_bad_arguments() -> None:
    F, rhs = np.eye(6), np.ones(6)
    for make, text in (
        (lambda: ff.Nystrom(rank=0), "rank: expected at least 1, got 0"),
        (lambda: ff.BlockJacobi(0), "block_size: expected at least 1, got 0"),
        (lambda: ff.BlockJacobi(blocks=[2, 0]), "blocks: expected at least 1, got 0"),
        (lambda: ff.CG(preconditioner="nystrom"), r"preconditioner: expected .* Nystrom\(\)"),
        (
            lambda: iterations(F, rhs, 0.0, ff.Nystrom(rank=7)),
            "rank: expected at most p = 6, got 7",
        ),
        (
            lambda: iterations(F, rhs, 0.0, ff.BlockJacobi(blocks=[2, 3])),
            "blocks: expected sizes that add up to p = 6, got 5",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            make()
    for make, text in (
        (lambda: ff.Nystrom(rank=1.5), "rank: expected a whole number"),  # type: ignore[arg-type]
        (lambda: ff.Nystrom(rng="seed"), "rng: expected None, an int"),
        (lambda: iterations(F, rhs, 0.0, ff.Nystrom), r"got the class Nystrom. Write Nystrom\(\)"),
    ):
        with pytest.raises(TypeError, match=text):
            make()


def test_an_iteration_is_one_pass_over_the_scores() -> None:
    class Counted(ff.ScoreFisher):
        products = 0

        def _product(self, V: np.ndarray, threads: int) -> np.ndarray:
            self.products += 1
            answer: np.ndarray = super()._product(V, threads)
            return answer

    S = oracle.draw(100, 60) * np.geomspace(1, 0.1, 60)
    for value, products in ((ff.Nystrom(), 1), (ff.BlockJacobi(), 0)):
        F = Counted(S)
        steps = iterations(F, oracle.draw(60, 5), 1e-3, value)
        assert F.products <= steps + 1 + products
    for k in (1, 24, 25, 50):  # right-hand sides beside each other have the same bits as alone
        rhs = oracle.draw(60, k)
        prepared = ff.BlockJacobi(13).prepare(ff.ScoreFisher(S), 0.1)
        assert prepared is not None
        both = prepared(np.c_[rhs, rhs[:, :1]])
        assert np.array_equal(both[:, -1], both[:, 0])


@pytest.mark.parametrize(("p", "dtype"), [(2000, float), (1000, complex)])
def test_same_bits_for_any_number_of_threads(p: int, dtype: npt.DTypeLike) -> None:
    S, rhs = oracle.draw(300, p, dtype), oracle.draw(p, 3, dtype)
    F = ff.ScoreFisher(S)
    value = ff.BlockJacobi(blocks=[500, p // 4, 1, p - 501 - p // 4])
    solves = [value.prepare(F, 0.1, threads=threads) for threads in (1, 2, 8)]
    one, two, eight = (solve(rhs) for solve in solves if solve is not None)
    assert one.tobytes() == two.tobytes() == eight.tobytes()
