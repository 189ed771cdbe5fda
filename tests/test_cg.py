"""Conjugate gradients of the native core: every named outcome, and residuals that are true."""

from collections.abc import Callable

import numpy as np
import pytest

from fastfisher._native import core

SUCCESS, NON_FINITE, MAX_ITERATIONS, NEGATIVE_CURVATURE, STAGNATED = 0, 2, 5, 6, 7
DTYPES = [np.float64, np.float32]


def _solve(
    A: np.ndarray,
    b: np.ndarray,
    *,
    x0: np.ndarray | None = None,
    rtol: float = 1e-10,
    atol: float = 0.0,
    iterations: int = 100,
    precondition: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Solution and (status, iterations, residual) of A x = b for columns b."""
    b = np.asarray(b)
    out = np.full_like(b, 7)
    outcome = core.cg_callable(
        lambda v: A.astype(b.dtype) @ v, precondition, b, x0, rtol, atol, iterations, out
    )
    return out, *outcome


def _column(*values: int) -> np.ndarray:
    return np.array(values, np.float64)[:, None]


B = _column(1, 2, 3, 4, 5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "p", "k"),
    [
        (9, 1, 1),
        (9, 2, 1),
        (30, 3, 2),
        (30, 5, 1),
        (20, 10, 9),
        (70, 50, 3),
        (50, 101, 2),
        (1300, 1000, 2),
        (5, 3, 0),
        (5, 0, 2),
    ],
)
def test_scores(dtype: type[np.floating], n: int, p: int, k: int) -> None:
    """(scale Σ w (s−m)(s−m)ᵀ + diag(damping)) x = b, with and without the Jacobi preconditioner."""
    rng = np.random.default_rng(0)
    scores, B = rng.standard_normal((n, p)).astype(dtype), rng.standard_normal((p, k)).astype(dtype)
    w, m = rng.random(n).astype(dtype), rng.standard_normal(p).astype(dtype)
    damping = (0.1 + rng.random(p)).astype(dtype)
    X = scores.astype(np.float64) - m
    A = X.T @ (w[:, None] * X) / n + np.diag(damping.astype(np.float64))
    eps = np.finfo(dtype).eps
    rtol = 100 * eps * np.sqrt(p + 1)
    for jacobi in (None, np.diag(A).astype(dtype)):
        out = np.full((p, k), 7, dtype)
        status, iterations, residual = core.cg_scores(
            scores, w, m, 1 / n, damping, B, None, jacobi, rtol, 0.0, 10 * p + 10, out, 2
        )
        assert status.shape == iterations.shape == residual.shape == (k,)
        assert np.all(status == SUCCESS)
        assert np.all(residual <= rtol)
        if p and k:
            true = np.linalg.norm(B - A @ out, axis=0)
            norms = np.linalg.norm(A, 2) * np.linalg.norm(out, axis=0) + np.linalg.norm(B, axis=0)
            assert np.all(
                true <= rtol * np.linalg.norm(B, axis=0) + 30 * np.sqrt(p + n) * eps * norms
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1, 3, 50, 101])
def test_triangle(dtype: type[np.floating], p: int) -> None:
    """(scale T + diag(damping)) x = b on a panel triangle."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((2 * p, p))
    F = (X.T @ X).astype(dtype)
    triangle = core.triangle_zeros(p, F.itemsize)
    assert core.triangle_from_dense(F, triangle, 2)[0] == SUCCESS
    damping, b, out = (
        np.full(p, 0.5, dtype),
        rng.standard_normal((p, 2)).astype(dtype),
        np.empty((p, 2), dtype),
    )
    rtol = 100 * float(np.finfo(dtype).eps) * p
    status, _, residual = core.cg_triangle(
        triangle,
        1 / p,
        damping,
        b,
        None,
        np.diag(F) / dtype(p) + damping,
        rtol,
        0.0,
        20 * p,
        out,
        2,
    )
    assert np.all(status == SUCCESS)
    assert np.all(residual <= rtol)
    A = F.astype(np.float64) / p + np.diag(damping)
    assert np.all(
        np.linalg.norm(b - A @ out, axis=0)
        <= 3 * rtol * np.linalg.norm(b, axis=0) * np.linalg.cond(A)
    )


def test_same_bits_for_any_thread_count() -> None:
    """Every reduction has an order fixed by the shape."""
    rng = np.random.default_rng(2)
    scores, b = rng.standard_normal((2001, 53)), rng.standard_normal((53, 3))

    def run(threads: int) -> list[bytes]:
        out = np.empty_like(b)
        outcome = core.cg_scores(
            scores, None, None, 1e-3, np.full(53, 0.1), b, None, None, 1e-9, 0.0, 99, out, threads
        )
        return [a.tobytes() for a in (out, *outcome)]

    one = run(1)
    assert all(run(threads) == one for threads in (2, 3, 8))


def test_columns_do_not_disturb_each_other() -> None:
    """Zero, consistent, singular and NaN right-hand sides, side by side."""
    A = np.diag([1.0, 2, 3, 4, 0])
    out, status, iterations, residual = _solve(A, np.c_[B, 0 * B, A @ B, B * np.nan])
    assert status.tolist() == [STAGNATED, SUCCESS, SUCCESS, NON_FINITE]
    assert iterations[1] == 0
    assert residual[2] < 1e-10
    np.testing.assert_array_equal(out[:, 1], 0)
    np.testing.assert_allclose(A @ out[:, 2], (A @ B)[:, 0])
    assert np.all(np.isfinite(out))


def test_zero_right_side_gives_zero() -> None:
    """x = 0 whatever the start, in no iteration."""
    out, status, iterations, residual = _solve(np.eye(5), 0 * B, x0=B)
    assert (status[0], iterations[0], residual[0]) == (SUCCESS, 0, 0.0)
    np.testing.assert_array_equal(out, 0)


def test_start() -> None:
    """A good start needs no step; any start leads to the same solution."""
    A = np.diag([1.0, 2, 3, 4, 5])
    out, status, iterations, _ = _solve(A, A @ B, x0=B)
    assert (status[0], iterations[0]) == (SUCCESS, 0)
    np.testing.assert_array_equal(out, B)
    out, status, _, _ = _solve(A, A @ B, x0=-3 * B)
    assert status[0] == SUCCESS
    np.testing.assert_allclose(out, B)


def test_max_iterations() -> None:
    """The residual of what was reached is reported, and 0 iterations are allowed."""
    A = np.diag([1.0, 10, 100, 1e3, 1e4])
    out, status, iterations, residual = _solve(A, B, iterations=2)
    assert (status[0], iterations[0]) == (MAX_ITERATIONS, 2)
    np.testing.assert_allclose(residual[0], np.linalg.norm(B - A @ out) / np.linalg.norm(B))
    out, status, iterations, residual = _solve(A, B, iterations=0)
    assert (status[0], iterations[0], residual[0]) == (MAX_ITERATIONS, 0, 1.0)


@pytest.mark.parametrize(
    "A", [-np.eye(5), np.zeros((5, 5)), np.diag([1.0, 2, 3, 4, -1])], ids=["-I", "0", "indefinite"]
)
def test_negative_curvature(A: np.ndarray) -> None:
    """Named, and x is the last good iterate."""
    out, status, _, residual = _solve(A, B)
    assert status[0] == NEGATIVE_CURVATURE
    assert np.all(np.isfinite(out))
    np.testing.assert_allclose(residual[0], np.linalg.norm(B - A @ out) / np.linalg.norm(B))


def test_indefinite_preconditioner() -> None:
    """rᵀM⁻¹r ≤ 0 is negative curvature too."""
    assert _solve(np.eye(5), B, precondition=lambda r: -r)[1][0] == NEGATIVE_CURVATURE


@pytest.mark.parametrize("dtype", DTYPES)
def test_stagnation(dtype: type[np.floating]) -> None:
    """A tolerance that the Hilbert matrix cannot reach is not claimed."""
    i = np.arange(12)
    A = 1 / (i[:, None] + i + 1)
    out, status, _, residual = _solve(
        A, np.ones((12, 1), dtype), rtol=float(np.finfo(dtype).eps), iterations=10_000
    )
    assert status[0] == STAGNATED
    assert np.all(np.isfinite(out))
    np.testing.assert_allclose(residual[0], np.linalg.norm(1 - A @ out) / np.sqrt(12), rtol=0.1)


def test_non_finite() -> None:
    """NaN in b or in a product; x stays finite."""
    for A, b in [(np.eye(5), B * np.nan), (np.eye(5), B * np.inf), (np.eye(5) * np.nan, B)]:
        out, status, _, _ = _solve(A, b)
        assert status[0] == NON_FINITE
        assert np.all(np.isfinite(out))


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_scaled_near_underflow_and_overflow(scale: float) -> None:
    """b, A or both at the ends of the numbers."""
    A = np.diag([1.0, 2, 3, 4, 5])
    for a, b, expected in [(A * scale, A @ B * scale, B), (A, A @ B * scale, B * scale)]:
        out, status, _, _ = _solve(a, b)
        assert status[0] == SUCCESS
        np.testing.assert_allclose(out, expected, rtol=1e-8)


def test_atol() -> None:
    """The tolerance is max(rtol·‖b‖, atol)."""
    out, status, iterations, _ = _solve(np.eye(5), B, rtol=0.0, atol=100.0)
    assert (status[0], iterations[0]) == (SUCCESS, 0)
    np.testing.assert_array_equal(out, 0)


def test_callable_errors_pass_through() -> None:
    """An exception of the callback, and a result of the wrong shape."""
    out = np.empty_like(B)

    def broken(_: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        core.cg_callable(broken, None, B, None, 1e-8, 0.0, 9, out)
    with pytest.raises(ValueError, match="apply: expected a function that returns shape"):
        core.cg_callable(lambda v: v[:3], None, B, None, 1e-8, 0.0, 9, out)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("p", "k", "m"), [(0, 2, 3), (4, 0, 3), (4, 2, 0), (1, 1, 1), (7, 2, 3)])
def test_shifted_sizes(dtype: type[np.floating], p: int, k: int, m: int) -> None:
    """Nothing at all, one, and several; each column of `out` is one damping and one right side."""
    rng = np.random.default_rng(3)
    S, b = rng.standard_normal((2 * p + 1, p)).astype(dtype), np.ones((p, k), dtype)
    dampings, rtol = np.linspace(0.5, 2, m), 1e3 * float(np.finfo(dtype).eps)
    F = S.T.astype(np.float64) @ S
    exact = [np.linalg.solve(F + x * np.eye(p), b[:, j]) for x in dampings for j in range(k)]
    out = np.full((p, m * k), 7, dtype)
    status, iterations, residual = core.shifted_cg_scores(
        S, None, None, 1.0, dampings, b, rtol, 0.0, 100, out, 0
    )
    assert status.shape == iterations.shape == residual.shape == (m * k,)
    assert np.all(status == SUCCESS)
    np.testing.assert_allclose(out.T, np.reshape(exact, (m * k, p)), rtol=1e3 * rtol, atol=rtol)


def test_shifted_limits() -> None:
    """No iterations allowed, a tolerance met by zero, and a callback that raises."""
    dampings, out = np.array([0.0, 1.0]), np.empty((5, 2))
    A = np.diag([1.0, 2, 3, 4, 5])

    def solve(
        apply: Callable[[np.ndarray], np.ndarray], rtol: float, atol: float, iterations: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return core.shifted_cg_callable(apply, dampings, B, rtol, atol, iterations, out, 0)

    status, iterations, residual = solve(lambda v: A @ v, 1e-8, 0.0, 0)
    assert status.tolist() == [MAX_ITERATIONS] * 2
    assert (iterations.tolist(), residual.tolist()) == ([0, 0], [1.0, 1.0])
    assert solve(lambda v: A @ v, 0.0, 100.0, 9)[0].tolist() == [SUCCESS] * 2
    np.testing.assert_array_equal(out, 0)
    with pytest.raises(ValueError, match="apply: expected a function that returns shape"):
        solve(lambda v: v[:3], 1e-8, 0.0, 9)
    with pytest.raises(ValueError, match="out: expected shape"):
        core.shifted_cg_callable(lambda v: v, dampings, B, 1e-8, 0.0, 9, out[:, :1], 0)
