"""The panel triangle: to and from dense, times a matrix, outer products and norms."""

import numpy as np
import pytest

from fastfisher._native import core
from fastfisher.solvers import Status
from oracle import DTYPES, EPS, SIZES, rng

CASES = [(p, dtype) for p in (*SIZES, 500) for dtype in DTYPES]


def symmetric(p: int, dtype: type[np.floating]) -> np.ndarray:
    A = rng(p).standard_normal((p, p)).astype(dtype)
    return (A + A.T).astype(dtype)


def packed(A: np.ndarray) -> np.ndarray:
    triangle = core.triangle_zeros(len(A), A.itemsize)
    assert core.triangle_from_dense(A, triangle, 0)[0] == Status.SUCCESS
    return triangle


@pytest.mark.parametrize(("p", "dtype"), CASES)
def test_there_and_back(p: int, dtype: type[np.floating]) -> None:
    A = symmetric(p, dtype)
    triangle = packed(A)
    assert triangle.size == core.triangle_size(p, A.itemsize)
    assert triangle.ctypes.data % 64 == 0
    for out in (np.empty_like(A), np.empty_like(A, order="F"), np.empty((2 * p, p), dtype)[::-2]):
        core.triangle_to_dense(triangle, 2.0, out, 0)
        np.testing.assert_array_equal(out, 2 * A)
    np.testing.assert_array_equal(core.triangle_diagonal(triangle, p), A.diagonal())
    lower_only = np.tril(A) + np.triu(np.full_like(A, np.nan), 1)
    np.testing.assert_array_equal(packed(lower_only), triangle)


@pytest.mark.parametrize(("p", "dtype"), [*CASES, (1500, np.float64)])
def test_copy_and_blocks(p: int, dtype: type[np.floating]) -> None:
    A = symmetric(p, dtype)
    triangle = packed(A)
    for threads in (1, 3):
        copy = core.triangle_copy(triangle, threads)
        assert copy.ctypes.data % 64 == 0
        np.testing.assert_array_equal(copy, triangle)
    for start, stop in ((0, p), (p // 3, p), (0, p // 2), (p - 1, p), (p // 2, p // 2)):
        out = np.empty((stop - start, stop - start), dtype)
        core.triangle_block(triangle, p, start, 2.0, out)
        np.testing.assert_array_equal(out, 2 * A[start:stop, start:stop])
    with pytest.raises(ValueError, match="start: expected a block inside the matrix"):
        core.triangle_block(triangle, p, p, 1.0, np.empty((1, 1), dtype))


@pytest.mark.parametrize(("p", "dtype"), CASES)
@pytest.mark.parametrize("k", [0, 1, 3, 4, 9])
def test_product(p: int, dtype: type[np.floating], k: int) -> None:
    A = symmetric(p, dtype)
    triangle, V = packed(A), rng(k).standard_normal((p, k)).astype(dtype)
    expected = 0.5 * A.astype(np.float64) @ V + 3.0 * V
    bound = (p + 4) * EPS[A.dtype] * (0.5 * abs(A.astype(np.float64)) @ abs(V) + 3.0 * abs(V))
    answers = []
    for threads in (1, 2, 3, 8):
        out = np.empty_like(V)
        core.triangle_product(triangle, np.asfortranarray(V), 0.5, 3.0, out, threads)
        answers.append(out)
        np.testing.assert_array_equal(out, answers[0])
    assert (abs(answers[0] - expected) <= bound).all()


@pytest.mark.parametrize(("p", "dtype"), CASES)
def test_add_outer_and_norm(p: int, dtype: type[np.floating]) -> None:
    A, x = symmetric(p, dtype), rng(p).standard_normal(p).astype(dtype)
    triangle = packed(A)
    np.testing.assert_allclose(
        core.triangle_norm1(triangle, p, 0),
        abs(A.astype(np.float64)).sum(axis=0).max(),
        rtol=(p + 4) * EPS[A.dtype],
    )
    core.triangle_add_outer(triangle, x, 0.5, 0)
    out = np.empty_like(A)
    core.triangle_to_dense(triangle, 1.0, out, 0)
    expected = A + 0.5 * np.outer(x.astype(np.float64), x)
    np.testing.assert_allclose(out, expected, rtol=0, atol=4 * EPS[A.dtype] * abs(expected).max())


@pytest.mark.parametrize("p", [3, 25, 97])
def test_the_first_bad_entry_of_the_lower_half_is_named(p: int) -> None:
    A = symmetric(p, np.float64)
    A[0, p - 1] = np.nan  # above the diagonal: never read
    A[p - 1, 1] = np.inf
    report = core.triangle_from_dense(A, core.triangle_zeros(p, 8), 0)
    assert report[:3] == (Status.NON_FINITE, p - 1, 1)
