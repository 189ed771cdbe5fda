"""One-pass kernels of the native core against the NumPy lines that define them."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from fastfisher._native import core

SIZES = [
    (0, 3),
    (1, 1),
    (2, 3),
    (3, 17),
    (5, 8),
    (10, 10),
    (50, 2),
    (101, 50),
    (7, 1000),
    (1000, 37),
    (3, 0),
]
DTYPES = [(np.float64, np.float64), (np.float32, np.float32), (np.float32, np.float64)]
RIGHT_SIDES = (0, 1, 3, 8, 11)


def _layouts(array: np.ndarray) -> list[np.ndarray]:
    """The same values in C order, Fortran order, with gaps, and with negative strides."""
    gaps = np.zeros((2 * array.shape[0], 3 * array.shape[1]), array.dtype)[::2, ::3]
    flipped = np.empty_like(array)[::-1, ::-1]
    upside_down = np.empty_like(array)[::-1]
    for view in (gaps, flipped, upside_down):
        view[:] = array
    return [array, np.asfortranarray(array), gaps, flipped, upside_down]


def _close(result: np.ndarray, expected: np.ndarray, magnitude: np.ndarray, samples: int) -> None:
    """|result − expected| ≤ c·n·ε·(the same sum over absolute values), entry by entry."""
    eps = np.finfo(result.dtype).eps
    bound = 8 * (np.sqrt(samples) + 2) * eps * magnitude
    assert np.all(np.abs(result - expected) <= bound)


@pytest.fixture(params=SIZES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int]:
    """Rows and columns of the scores."""
    answer: tuple[int, int] = request.param
    return answer


@pytest.fixture(params=DTYPES, ids=lambda pair: f"{pair[0].__name__}-{pair[1].__name__}")
def problem(
    request: pytest.FixtureRequest, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, weights and mean, with the accumulation dtype."""
    dtype, accumulation = request.param
    rng = np.random.default_rng(0)
    n, p = shape
    scores = rng.standard_normal((n, p)).astype(dtype)
    return scores, rng.random(n).astype(accumulation), rng.standard_normal(p).astype(accumulation)


def _cases(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray, np.ndarray]]:
    scores, w, m = problem
    wide = scores.astype(np.float64)
    for layout, weights, mean in itertools.product(_layouts(scores), (None, w), (None, m)):
        W = np.ones(len(scores)) if weights is None else weights.astype(np.float64)
        X = wide if mean is None else wide - mean
        yield layout, weights, mean, W, X


def test_diagonal(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Σ w (s − m)², from any strides."""
    n, p = problem[0].shape
    for scores, weights, mean, W, X in _cases(problem):
        out = np.full(p, 7, problem[1].dtype)
        assert core.diagonal(scores, weights, mean, out, True, 2) == (0, -1, -1, 0.0)
        _close(out, W @ X**2, W @ X**2, n + p)


def test_column_mean(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Σ w s / Σ w; zero where there are no rows."""
    n, p = problem[0].shape
    for scores, weights, mean, W, X in _cases(problem):
        if mean is not None:
            continue
        out = np.full(p, 7, problem[1].dtype)
        assert core.column_mean(scores, weights, out, True, 2)[0] == 0
        total = max(W.sum(), 1e-300)
        _close(out, W @ X / total, W @ np.abs(X) / total, n + p)


@pytest.mark.parametrize("k", RIGHT_SIDES)
def test_fvp(problem: tuple[np.ndarray, np.ndarray, np.ndarray], k: int) -> None:
    """scale Σ w (s − m)((s − m)ᵀV) + damping V."""
    n, p = problem[0].shape
    V = np.random.default_rng(1).standard_normal((k, p)).T.astype(problem[1].dtype, order="K")
    for scores, weights, mean, W, X in _cases(problem):
        out = np.full((p, k), 7, V.dtype)
        core.fvp(scores, weights, mean, V, 0.5, 0.25, out, 2)
        magnitude = 0.5 * np.abs(X).T @ (W[:, None] * (np.abs(X) @ np.abs(V))) + 0.25 * np.abs(V)
        _close(out, 0.5 * X.T @ (W[:, None] * (X @ V)) + 0.25 * V, magnitude, n + p)


@pytest.mark.parametrize("k", RIGHT_SIDES)
def test_dot_and_its_transpose(problem: tuple[np.ndarray, np.ndarray, np.ndarray], k: int) -> None:
    """(S − m)V and (S − m)ᵀ(wY)."""
    n, p = problem[0].shape
    rng = np.random.default_rng(2)
    V, Y = (rng.standard_normal((rows, k)).astype(problem[1].dtype) for rows in (p, n))
    for scores, weights, mean, W, X in _cases(problem):
        out = np.full((n, k), 7, V.dtype)
        core.scores_dot(scores, mean, V, out, 2)
        _close(out, X @ V, np.abs(X) @ np.abs(V), n + p)
        out = np.full((p, k), 7, V.dtype)
        core.scores_transpose_dot(scores, weights, mean, Y, out, 2)
        _close(out, X.T @ (W[:, None] * Y), np.abs(X).T @ (W[:, None] * np.abs(Y)), n + p)


@pytest.mark.parametrize("order", ["C", "F", "gaps"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_same_bits_for_any_thread_count(order: str, dtype: type[np.floating]) -> None:
    """Rows are cut by the shape alone."""
    rng = np.random.default_rng(3)
    scores = rng.standard_normal((3001, 67)).astype(dtype)
    scores = {"C": scores, "F": np.asfortranarray(scores), "gaps": scores[:, ::-1]}[order]
    w, m = rng.random(3001).astype(dtype), rng.standard_normal(67).astype(dtype)
    V, Y = rng.standard_normal((67, 5)).astype(dtype), rng.standard_normal((3001, 5)).astype(dtype)

    def everything(threads: int) -> list[bytes]:
        mean, diagonal = np.empty(67, dtype), np.empty(67, dtype)
        product, dot, transposed = (
            np.empty((67, 5), dtype),
            np.empty((3001, 5), dtype),
            np.empty((67, 5), dtype),
        )
        core.column_mean(scores, w, mean, True, threads)
        core.diagonal(scores, w, m, diagonal, True, threads)
        core.fvp(scores, w, m, V, 1.0, 0.5, product, threads)
        core.scores_dot(scores, m, V, dot, threads)
        core.scores_transpose_dot(scores, w, m, Y, transposed, threads)
        return [a.tobytes() for a in (mean, diagonal, product, dot, transposed)]

    one = everything(1)
    assert all(everything(threads) == one for threads in (2, 3, 8, 0))


def test_offset_of_1e8_is_centred_away() -> None:
    """The mean is subtracted as rows are read, not from the products afterwards."""
    rng = np.random.default_rng(4)
    scores = rng.standard_normal((20_000, 13)) + 1e8
    mean, out = np.empty(13), np.empty((13, 1))
    core.column_mean(scores, None, mean, True, 2)
    exact = 1e8 + (scores - 1e8).mean(0)
    assert np.all(np.abs(mean - exact) <= 16 * np.spacing(1e8))
    V = np.ones((13, 1))
    core.fvp(scores, None, mean, V, 1 / 20_000, 0.0, out, 2)
    X = scores - mean
    np.testing.assert_allclose(out, X.T @ (X @ V) / 20_000, rtol=1e-11)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("order", ["C", "F", "gaps"])
def test_non_finite_scores_are_named(value: float, order: str) -> None:
    """The first bad entry, row by row, even where its weight is zero."""
    scores = np.ones((300, 21))
    scores[250, 3] = scores[211, 20] = value
    scores = {"C": scores, "F": np.asfortranarray(scores), "gaps": scores[::-1, ::-1]}[order]
    row, col = (49, 17) if order == "gaps" else (211, 20)
    weights, out = np.zeros(300), np.empty(21)
    for report in (
        core.column_mean(scores, None, out, True, 2),
        core.diagonal(scores, None, None, out, True, 2),
        core.diagonal(scores, weights, None, out, True, 2),
    ):
        assert report[:3] == (2, row, col)
        np.testing.assert_equal(report[3], value)
    assert core.diagonal(scores, None, None, out, False, 2)[0] == 0


def test_broadcast_and_read_only_scores() -> None:
    """Zero strides are as good as any."""
    scores = np.broadcast_to(np.arange(20.0), (30, 20))
    column = np.broadcast_to(np.arange(30.0)[:, None], (30, 20))
    out = np.empty(20)
    core.diagonal(scores, None, None, out, True, 1)
    np.testing.assert_allclose(out, 30 * np.arange(20.0) ** 2)
    core.diagonal(column, None, None, out, True, 1)
    np.testing.assert_allclose(out, np.full(20, (np.arange(30.0) ** 2).sum()))


def test_bad_arrays_are_refused() -> None:
    """Rank, shape, alignment, contiguity, writability and dtype."""
    scores, out = np.ones((4, 3)), np.empty(3)
    for arguments, message in [
        ((np.ones(3), None, None, out), "scores: expected shape"),
        ((scores, np.ones(3), None, out), r"weights: expected shape \(4,\), got \(3,\)"),
        ((scores, np.ones(8)[::2], None, out), "weights: expected a contiguous vector"),
        ((scores, None, None, np.empty(4)), "out: expected shape"),
        (
            (np.frombuffer(bytes(100), np.float64, 12, 1).reshape(4, 3), None, None, out),
            "misaligned",
        ),
        ((scores, None, None, np.broadcast_to(1.0, 1)), "out: expected"),
    ]:
        with pytest.raises(ValueError, match=message):
            core.diagonal(*arguments, True, 1)
    read_only = np.empty(3)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        core.diagonal(scores, None, None, read_only, True, 1)
    for wrong in (scores.astype(int), scores.astype(">f8"), scores.astype(">f2")):
        with pytest.raises(TypeError):
            core.diagonal(wrong, None, None, out, True, 1)
    packed = np.zeros(4, np.dtype([("tag", "i4"), ("value", "f8")]))["value"]
    with pytest.raises(ValueError, match=r"misaligned|whole elements"):
        core.diagonal(packed[:, None], None, None, np.empty(1), True, 1)
