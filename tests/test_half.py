"""Half-precision scores: widened exactly, summed in float32 or wider, named like any others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

import fastfisher as ff
import oracle

HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
SHAPES = [(1, 1), (7, 3), (300, 25), (40, 130), (700, 48), (2100, 131), (520, 300), (4000, 9)]
EPS = float(np.finfo(np.float32).eps)

both = pytest.mark.parametrize("dtype", HALVES, ids=str)


def draw(n: int, p: int, dtype: np.dtype) -> np.ndarray:
    return oracle.draw(n, p, np.float64).astype(dtype)


def close(
    found: np.ndarray, exact: np.ndarray, terms: int, size: float, dtype: npt.DTypeLike = np.float32
) -> None:
    assert found.dtype == dtype
    assert np.abs(found - exact).max() <= 4 * terms * np.finfo(dtype).eps * size


@both
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_every_function_is_that_of_the_widened_scores(n: int, p: int, dtype: np.dtype) -> None:
    S = draw(n, p, dtype)
    wide = S.astype(np.float64)
    size = (wide**2).mean(0).max()
    for order in "CF":
        held = np.asarray(S, order=cast(Any, order))
        for weights in (None, oracle.draw_weights(n)):
            for center in (False, True):
                both: dict[str, Any] = {"weights": weights, "center": center}
                F, K = oracle.fisher(wide, **both), oracle.gram(wide, **both)
                close(ff.empirical_fisher(held, **both), F, n + 8, size)
                close(ff.empirical_fisher(held, dtype=np.float64, **both), F, n + 8, size, float)
                close(ff.fisher_diagonal(held, **both), np.diag(F), n + 8, size)
                close(ff.gram(held, **both), K, p + 8, max(size, np.abs(K).max()))
                for shape in ((p,), (p, 4)):
                    v = oracle.rng(p).standard_normal(shape).astype(np.float32)
                    bound = size * np.abs(v).sum(0).max()
                    close(ff.fvp(held, v, **both), F @ v.astype(float), n + p + 8, bound)


@both
@pytest.mark.parametrize(("n", "p"), [(60, 20), (20, 60)])
@pytest.mark.parametrize("solver", [ff.Cholesky(), ff.CG(rtol=1e-6)], ids=["cholesky", "cg"])
def test_natural_gradient(n: int, p: int, solver: ff.CG | ff.Cholesky, dtype: np.dtype) -> None:
    S, g = draw(n, p, dtype), oracle.rng(p).standard_normal(p)
    exact = oracle.natural_gradient(S.astype(float), 0.5, g)
    for damping in (0.5, np.full(p, 0.5)):
        found = ff.natural_gradient(S, g, damping=damping, solver=solver)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, exact, rtol=0, atol=2e-4 * np.abs(exact).max())
    if n < p:
        found = ff.natural_gradient(S, g, damping=np.full(p, 0.5), solver=ff.Dual())
        np.testing.assert_allclose(found, exact, rtol=0, atol=2e-4 * np.abs(exact).max())


@both
def test_accumulators_take_them(dtype: np.dtype) -> None:
    S = draw(900, 12, dtype)
    wide = S.astype(np.float64)
    for kind in (ff.DenseFisher, ff.DiagonalFisher, ff.SquareRootFisher):
        assert kind.from_scores(S).dtype == np.float32
        for held in (np.float32, np.float64):
            F = kind(12, dtype=held, center=True)
            for part in np.array_split(S, 5):
                F.update(part)
            exact = oracle.fisher(wide, center=True)
            exact = np.diag(np.diag(exact)) if kind is ff.DiagonalFisher else exact
            close(F.to_dense(), exact, 900, exact.max(), held)
    F = ff.DenseFisher.from_scores(wide.astype(np.float32))
    np.testing.assert_allclose(
        F.leverage(S, 0.1), F.leverage(wide.astype(np.float32), 0.1), rtol=1e-5
    )


@both
def test_files_keep_every_number(tmp_path: Path, dtype: np.dtype) -> None:
    """As float32, which may be summed in another order than bfloat16 is."""
    S = draw(30, 7, dtype)
    ff.ScoreFisher(S).save(tmp_path / "f.npz")
    same = ff.ScoreFisher(S.astype(np.float32))
    assert np.array_equal(ff.load(tmp_path / "f.npz").to_dense(), same.to_dense())


def test_every_float16_is_widened_exactly() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    S = every[np.isfinite(every)].reshape(-1, 1)
    eye = np.ones(1, np.float32)
    for rows in (S, S[::-1], np.repeat(S, 3, axis=1)[:, 1:2]):
        found = [ff.gram(rows[i : i + 8, :], reduction="sum")[:, 0] for i in (0, 8, 31000)]
        for i, column in zip((0, 8, 31000), found, strict=True):
            some = rows[i : i + 8].astype(np.float32)
            assert np.array_equal(column, some[:, 0] * some[0])
    total = ff.empirical_fisher(S, dtype=np.float64, reduction="sum")
    assert total[0, 0] == pytest.approx((S.astype(np.float64) ** 2).sum(), rel=1e-12)
    assert ff.fisher_diagonal(S[:3000]).shape == eye.shape


@both
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(500, 6), (40, 60)])
def test_bad_scores_are_named(shape: tuple[int, int], bad: float, dtype: np.dtype) -> None:
    n, p = shape
    S = draw(n, p, dtype)
    S[17, 3] = bad
    calls: tuple[Callable[..., Any], ...] = (
        ff.empirical_fisher,
        ff.fisher_diagonal,
        ff.gram,
        lambda S: ff.fvp(S, np.ones(S.shape[1])),
    )
    for call in calls:
        for center in (False, True):
            if center and call is not ff.empirical_fisher:
                continue
            with pytest.raises(ff.NonFiniteError) as caught:
                call(S, center=center) if center else call(S)
            assert (caught.value.row, caught.value.column) == (17, 3)


@both
def test_bits_do_not_depend_on_threads(dtype: np.dtype) -> None:
    for n, p in ((9000, 60), (900, 500)):
        S = draw(n, p, dtype)
        first = ff.empirical_fisher(S, n_threads=1)
        for threads in (2, 3, 8):
            for _ in range(3):
                assert np.array_equal(ff.empirical_fisher(S, n_threads=threads), first)


def test_other_layouts() -> None:
    S = draw(50, 8, np.dtype(np.float16))
    exact = ff.empirical_fisher(S)
    np.testing.assert_array_equal(ff.empirical_fisher(S.astype(">f2")), exact)
    misaligned = np.frombuffer(b"." + S.tobytes(), np.float16, 400, 1).reshape(50, 8)
    np.testing.assert_array_equal(ff.empirical_fisher(misaligned), exact)
    read_only = S.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(ff.empirical_fisher(read_only), exact)


def test_halves_are_for_scores_alone() -> None:
    S = draw(50, 8, np.dtype(np.float16))
    with pytest.raises(TypeError, match=r"dtype: expected .*, got float16"):
        ff.empirical_fisher(S, dtype=np.float16)
    with pytest.raises(TypeError, match=r"dtype: expected .*, got bfloat16"):
        ff.DenseFisher(8, dtype=ml_dtypes.bfloat16)
    with pytest.raises(TypeError, match="for scores alone"):
        ff.solve(np.eye(3, dtype=np.float16), np.ones(3))
    with pytest.raises(TypeError, match="got uint16"):
        ff.empirical_fisher(S.view(np.uint16))
