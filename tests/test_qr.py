"""QR of the scores: LAPACK's ratios, the digits that F would lose, and what it refuses."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

import fastfisher as ff
import oracle
from fastfisher import _memory
from fastfisher._ops.numpy_root import Root

# Both sides of a block of 256 rows and of panels of 24 and 48 columns, slabs and shared blocks.
SHAPES = [
    (1, 1), (2, 3), (5, 1), (8, 24), (255, 23), (256, 25), (257, 47), (600, 49), (40, 97),
    (3000, 7), (13000, 24), (513, 130),
]  # fmt: skip


def root_of(
    S: np.ndarray,
    weights: np.ndarray | None = None,
    mean: np.ndarray | None = None,
    with_root: bool = False,
    threads: int = 0,
) -> Root:
    root = Root(S.shape[1], ff._check.sum_dtype(S.dtype), with_root=with_root)
    root.add_scores(S, weights, mean, check_finite=True, threads=threads)
    return root


def least_squares(S: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return argmin ‖S x − b‖ by Householder reflections in long double."""
    A, b = np.asarray(S, np.longdouble).copy(), np.asarray(b, np.longdouble).copy()
    p = A.shape[1]
    for j in range(p):
        v = A[j:, j].copy()
        v[0] += np.copysign(np.sqrt(v @ v), v[0])
        v /= np.sqrt(v @ v)
        A[j:, j:] -= 2 * np.outer(v, v @ A[j:, j:])
        b[j:] -= 2 * v * (v @ b[j:])
    x = np.zeros(p, np.longdouble)
    for j in reversed(range(p)):
        x[j] = (b[j] - A[j, j + 1 : p] @ x[j + 1 :]) / A[j, j]
    return x


def ill_conditioned(n: int, p: int, kappa: float) -> np.ndarray:
    """Scores of that condition number in no particular basis."""
    U, V = np.linalg.qr(oracle.draw(n, p))[0], np.linalg.qr(oracle.draw(p, p))[0]
    answer: np.ndarray = np.sqrt(n) * (U * np.geomspace(1, 1 / kappa, p)) @ V.T
    return answer


# ---- R ----
@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_r_is_upper_triangular_and_its_square_is_that_of_the_scores(
    n: int, p: int, dtype: type[np.inexact]
) -> None:
    S, weights = oracle.draw(n, p, dtype), oracle.draw_weights(n)
    mean = oracle.mean(S, weights).astype(dtype)
    for w, m in ((None, None), (weights.astype(S.real.dtype), None), (None, mean)):
        root = root_of(S, w, m)
        R = root.dense()
        U = oracle.wide(S) - (0 if m is None else oracle.wide(m))
        U = U if w is None else np.sqrt(w.astype(float))[:, None] * U
        # LAPACK's ratio ‖RᴴR − UᴴU‖ / (‖U‖² n ε), here to be below 4 for max(n, p).
        F = U.conj().T @ U
        error = np.linalg.norm(oracle.wide(R).conj().T @ R - F)
        assert error <= 4 * max(n, p) * oracle.EPS[np.dtype(dtype)] * np.linalg.norm(F)
        assert np.array_equal(R, np.triu(R))
        assert (np.diag(R).real >= 0).all()
        assert (np.diag(R).imag == 0).all()
        assert R.dtype == dtype
        oracle.close(root.diagonal(), np.diag(F).real, dtype, max(n, p) + 8, np.diag(F).real.max())


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize(("n", "p"), [(255, 23), (600, 49), (13000, 24)])
def test_r_is_that_of_lapack(n: int, p: int, dtype: type[np.floating]) -> None:
    S = oracle.draw(n, p, dtype)
    expected = np.linalg.qr(S.astype(float), mode="r")
    expected *= np.sign(np.diag(expected))[:, None]
    kappa = np.linalg.cond(S)
    oracle.close(root_of(S).dense(), expected, dtype, 32 * np.sqrt(p) * kappa)


@pytest.mark.parametrize("dtype", [*oracle.EVERY, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("n", "p"), [(700, 61), (7000, 31)])
def test_every_layout_and_number_of_threads_has_the_same_bits(
    n: int, p: int, dtype: type[np.generic]
) -> None:
    S = oracle.draw(n, p, np.complex128 if np.dtype(dtype).kind == "c" else float).astype(dtype)
    weights = np.linspace(0.5, 2.0, n)
    find = ff.SquareRootFisher.from_scores
    expected = find(S, weights=weights).to_dense()
    for threads in (1, 2, 3, 8):
        assert np.array_equal(find(S, weights=weights, n_threads=threads).to_dense(), expected)
    for name, scores in oracle.layouts(S):
        if name != "byte-swapped" or S.dtype.kind in "fc":
            assert np.array_equal(find(scores, weights=weights).to_dense(), expected), name


def test_no_rows_change_nothing() -> None:
    root = root_of(oracle.draw(9, 5))
    before = root.panels.copy()
    root.add_scores(np.empty((0, 5)), None, None, check_finite=True, threads=0)
    assert np.array_equal(root.panels, before)


def test_columns_of_zeros_and_of_one_value() -> None:
    S = np.zeros((300, 30))
    S[:, 3], S[:, 7], S[:, 8] = 2.0, 1e-170, -5.0
    R = root_of(S).dense()
    oracle.close(R[3, [3, 8]], np.sqrt(300) * np.array([2.0, -5.0]), float, 300)
    R[3] = 0
    assert abs(R).max() < 1e-13


@pytest.mark.parametrize("power", [-1.0, -0.6, -0.5, -0.47])
@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_squares_that_underflow_cost_nothing(dtype: npt.DTypeLike, power: float) -> None:
    """Scores scaled by 2^k have R scaled by 2^k, to the bits that the numbers themselves keep."""
    info = np.finfo(dtype)
    scale = info.dtype.type(2.0) ** round(info.maxexp * power + 3 * info.nmant * (power == -1))
    S = oracle.draw(600, 49, dtype)
    R = root_of(S).dense()
    found = root_of(S * scale).dense() / scale
    assert np.linalg.norm(found - R) <= 8 * np.sqrt(600) * oracle.EPS[np.dtype(dtype)] * (
        np.linalg.norm(R) * np.linalg.cond(R)
    )
    uneven = S * np.where(
        np.arange(49) % 3 == 1, scale, info.dtype.type(1)
    )  # columns by themselves
    root = root_of(uneven)
    A = oracle.wide(uneven[:, 1::3] / scale)
    F = A.conj().T @ A
    R = oracle.wide(root.dense()[:, 1::3] / scale)
    assert np.linalg.norm(R.conj().T @ R - F) <= 2400 * oracle.EPS[np.dtype(dtype)] * (
        np.linalg.norm(F)
    )


@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_solutions_are_right_where_squares_underflow(dtype: npt.DTypeLike) -> None:
    info = np.finfo(dtype)
    scale = info.dtype.type(2.0) ** round(-0.6 * info.maxexp)
    S, g = oracle.draw(50, 4, dtype), oracle.draw(4, 1, dtype)[:, 0]
    T, targets = S * scale, oracle.draw(50, 1, dtype)[:, 0]
    small, plain, c = ff.ScoreFisher(T), ff.ScoreFisher(S), 400 * np.linalg.cond(S) ** 2
    for solver in (ff.QR(), ff.QR(rank_revealing=True)):
        for b in (None, g):
            expected = ff.solve(plain, b, solver=ff.QR()).value
            found = ff.solve(small, None if b is None else b * scale, solver=solver)
            assert found.status == ff.Status.SUCCESS
            assert found.residual <= 100 * info.eps
            oracle.close(found.value * scale, expected, dtype, c, abs(expected).max())
    x = small.least_squares(targets, solver=ff.QR()).value * scale
    expected = plain.least_squares(targets, solver=ff.QR()).value
    oracle.close(x, expected, dtype, c, abs(expected).max())
    F = ff.SquareRootFisher.from_scores(T)
    expected = ff.solve(plain, g, solver=ff.QR()).value
    oracle.close(F.solve(g * scale) * scale, expected, dtype, c, abs(expected).max())
    # The matrix is lost, and with it what it would tell; what is singular is so at any scale.
    lost: Any = ff.solve(small, None, solver=ff.QR()).rcond
    assert np.isnan(lost)
    T[:, 2] = T[:, 1] + T[:, 0]
    with pytest.raises(ff.NotPositiveDefiniteError):
        ff.solve(ff.ScoreFisher(T), None, solver=ff.QR())
    assert ff.solve(ff.ScoreFisher(T), None, solver=ff.QR(rank_revealing=True)).rank == 3


def test_rows_that_repeat_underflow_to_nothing() -> None:
    S = np.broadcast_to(oracle.draw(1, 130), (600, 130))
    R = root_of(S).dense()
    oracle.close(R.T @ R, 600 * np.outer(S[0], S[0]), float, 600)


# ---- solving ----
@pytest.mark.parametrize("kappa", [1e6, 1e7])
def test_qr_keeps_twice_the_digits_of_cholesky(kappa: float) -> None:
    n, p = 400, 20
    digits = np.zeros((4, 3))
    for draw in range(len(digits)):
        # 1 lies in the range of S, in no particular direction, so the residual adds nothing.
        U = np.linalg.qr(np.c_[np.ones(n), oracle.draw(n, p + draw)[:, 1:p]])[0]
        H, V = np.linalg.qr(oracle.rng(draw).standard_normal((2, p, p)))[0]
        S = np.sqrt(n) * ((U @ H) * np.geomspace(1, 1 / kappa, p)) @ V.T
        exact = least_squares(S, np.ones(n))
        for i, solver in enumerate((ff.Cholesky(), ff.QR(), ff.QR(rank_revealing=True))):
            x = ff.natural_gradient(S, damping=0.0, solver=solver)
            error = float(np.linalg.norm(x - exact) / np.linalg.norm(exact))
            digits[draw, i] = -np.log10(error)
            assert i == 0 or error <= n * 2.2e-16 * kappa
    cholesky, *qr = digits.mean(axis=0)
    assert min(qr) >= 2 * cholesky


def test_qr_goes_on_where_cholesky_has_ended() -> None:
    S = ill_conditioned(300, 12, 1e11)
    weights = np.linspace(0.5, 2.0, 300)
    exact = least_squares(np.sqrt(weights)[:, None] * S, np.sqrt(weights))
    with pytest.raises(ff.NotPositiveDefiniteError):
        ff.natural_gradient(S, damping=0.0, weights=weights, solver=ff.Cholesky())
    x = ff.natural_gradient(S, damping=0.0, weights=weights, solver=ff.QR())
    assert np.linalg.norm(x - exact) < 1e-3 * np.linalg.norm(exact)


def test_a_general_right_hand_side_may_cost_the_square_of_the_condition() -> None:
    """R⁻¹R⁻ᵀg is as exact as κ‖F⁻¹‖‖g‖: near for a g in no particular direction, not for g = Fx."""
    S = np.vander(np.linspace(0, 1, 20), 9)
    kappa, F = np.linalg.cond(S), ff.ScoreFisher(S, reduction="sum")
    exact = [[Fraction(float(a)) for a in row] for row in S]
    gram = [[sum(row[i] * row[j] for row in exact) for j in range(9)] for i in range(9)]

    def product(x: Sequence[Fraction]) -> list[Fraction]:
        return [sum((a * b for a, b in zip(row, x, strict=True)), Fraction()) for row in gram]

    columns = [ff.solve(F, g, solver=ff.QR()).value for g in np.eye(9)]
    inverse = F.factor(solver=ff.QR()).inverse_diagonal()
    assert np.allclose(np.diag(columns), inverse, rtol=100 * kappa * 2.2e-16)
    x = oracle.rng(1).standard_normal(9)
    g = np.array([float(y) for y in product([Fraction(float(a)) for a in x])])
    error = np.linalg.norm(ff.solve(F, g, solver=ff.QR()).value - x) / np.linalg.norm(x)
    assert 100 * kappa * 2.2e-16 < error <= 100 * kappa**2 * 2.2e-16


def test_damping_is_not_squared() -> None:
    """λ = 1e-20 beside ‖F‖ = 1: lost in the sums, but √λ is not lost beside S.

    With κ = 10¹⁰ for all rows the bound ε κ (1 + κ ‖r‖ / ‖A‖‖x‖) of least squares is 0.1.
    """
    S = ill_conditioned(300, 12, 1e7)
    S[:, 5] = S[:, 2]  # singular but for the damping
    extended = np.vstack([S / np.sqrt(300), 1e-10 * np.eye(12)])
    exact = least_squares(extended, np.r_[np.ones(300) / np.sqrt(300), np.zeros(12)])
    for damping in (1e-20, np.full(12, 1e-20)):
        x = ff.natural_gradient(S, damping=damping, solver=ff.QR())
        assert np.linalg.norm(x - exact) < 1e-2 * np.linalg.norm(exact)


def test_covariances_keep_digits() -> None:
    kappa = 1e7
    S = ill_conditioned(300, 10, kappa)
    A = np.asarray(S, np.longdouble)
    inverse = np.stack([least_squares(A, row) for row in np.eye(300)], axis=1)
    exact = (inverse @ inverse.T * 300).astype(float)
    F = ff.ScoreFisher(S)
    for fisher in (F, ff.SquareRootFisher.from_scores(S)):
        factor = fisher.factor(solver=ff.QR())
        size = np.linalg.norm(exact)
        assert np.linalg.norm(factor.inverse() - exact) < 100 * 2.2e-16 * kappa * size
        assert factor.method == "qr"
        # Each singular value is known to eps·κ(S), their squares to twice that.
        spectrum = 2 * np.log(np.geomspace(1, 1 / kappa, 10)).sum()
        assert factor.logdet == pytest.approx(spectrum, abs=100 * 2.2e-16 * kappa)
    cholesky = np.linalg.norm(F.factor(solver=ff.Cholesky()).inverse() - exact)
    assert cholesky > 1000 * np.linalg.norm(factor.inverse() - exact)


@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(60, 25), (7, 30), (1, 1)])
def test_solutions_and_factors_beside_numpy(
    shape: tuple[int, int], reduction: str, dtype: type[np.inexact]
) -> None:
    n, p = shape
    S, weights = oracle.draw(n, p, dtype), oracle.draw_weights(n)
    rhs = oracle.draw(p, 3, dtype)
    for damping in (0.3, np.linspace(0.1, 1.0, p)):
        for center in (False, True):
            F = ff.ScoreFisher(S, weights=weights, reduction=reduction, center=center)
            A = oracle.fisher(S, weights, center, reduction) + np.diag(np.broadcast_to(damping, p))
            exact, terms = np.linalg.solve(A, rhs), 8 * (n + p) * np.linalg.cond(A)
            for solver in (ff.QR(), ff.QR(rank_revealing=True)):
                solution = ff.solve(F, rhs, damping=damping, solver=solver)
                oracle.close(solution.value, exact, dtype, terms)
                assert solution.value.dtype == dtype
                assert (solution.status, solution.method) == (ff.Status.SUCCESS, "qr")
                assert solution.rank == (p if solver.rank_revealing else None)
                kappa = 1 / np.linalg.cond(A, None if solver.rank_revealing else 1)
                assert 0.2 * kappa <= solution.rcond <= 10 * kappa
                assert solution.residual <= terms * oracle.EPS[np.dtype(dtype)]
            factor = F.factor(damping=damping, solver=ff.QR())
            oracle.close(factor.solve(rhs), exact, dtype, terms)
            oracle.close(factor.inverse(), np.linalg.inv(A), dtype, terms)
            oracle.close(factor.logdet, np.linalg.slogdet(A)[1], dtype, terms, 1 + p)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(dtype: type[np.generic]) -> None:
    S = oracle.draw(200, 20).astype(dtype)
    exact = oracle.natural_gradient(S.astype(float), 0.1)
    x = ff.natural_gradient(S, damping=0.1, solver=ff.QR())
    oracle.close(x, exact, np.float32, 1000)


def test_centring_about_a_huge_mean_costs_no_digits() -> None:
    S = oracle.draw(500, 9) * np.geomspace(1, 1e-3, 9)
    shifted = S + 1e5  # where S is rounded to 1e-11
    S = shifted - 1e5
    exact = oracle.natural_gradient(S, 0.0, np.ones(9), center=True)
    # The means of batches are rounded to 1e-11, a part in 1e8 of the last column.
    for F, tolerance in (
        (ff.ScoreFisher(shifted, center=True), 1e-9),
        (ff.SquareRootFisher.from_scores(shifted, center=True), 1e-9),
        (streamed(shifted, 7, center=True), 1e-7),
    ):
        x = F.solve(np.ones(9), solver=ff.QR())
        assert np.linalg.norm(x - exact) < tolerance * np.linalg.norm(exact)
    assert ff.natural_gradient(shifted, damping=1.0, center=True, solver=ff.QR()) == pytest.approx(
        np.linalg.solve(oracle.fisher(S, center=True) + np.eye(9), shifted.mean(axis=0)), rel=1e-9
    )


def streamed(S: np.ndarray, parts: int, **keywords: Any) -> ff.SquareRootFisher:
    F = ff.SquareRootFisher(S.shape[1], **keywords)
    for part in np.array_split(S, parts):
        F.update(part)
    return F


# ---- singular ----
def test_a_singular_r_is_named_with_the_damping_that_would_do() -> None:
    S = oracle.draw(50, 6)
    S[:, 4] = S[:, 1] + S[:, 2]  # to rounding
    for call in (
        lambda damping: ff.natural_gradient(S, damping=damping, solver=ff.QR()),
        lambda damping: ff.ScoreFisher(S).solve(np.ones(6), damping=damping, solver=ff.QR()),
        lambda damping: ff.ScoreFisher(S).factor(damping=damping, solver=ff.QR()),
        lambda damping: ff.SquareRootFisher.from_scores(S).logdet(damping),
    ):
        with pytest.raises(ff.NotPositiveDefiniteError, match=r"parameter 4.* would do") as caught:
            call(0.0)
        assert caught.value.pivot == 4
        call(caught.value.damping)
    C = oracle.draw(50, 6, complex)
    C[:, 4] = 1j * C[:, 1]
    with pytest.raises(ff.NotPositiveDefiniteError, match="parameter 4"):
        ff.natural_gradient(C, damping=0.0, solver=ff.QR())
    assert np.isfinite(ff.natural_gradient(S, damping=0.0, solver=ff.QR(rank_tol=0.0))).all()


@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize(("n", "p", "rank"), [(60, 9, 5), (5, 12, 5), (3, 4, 0), (30, 4, 4)])
def test_the_rank_is_revealed_and_the_solution_is_the_shortest(
    n: int, p: int, rank: int, dtype: npt.DTypeLike
) -> None:
    S = (oracle.draw(n, rank, dtype) @ oracle.draw(rank, p, dtype)).astype(dtype)
    F = oracle.fisher(S)
    g = F @ oracle.draw(p, 1, dtype)[:, 0] if rank else np.zeros(p)
    cut = 1e3 * oracle.EPS[np.dtype(dtype)]
    solution = ff.solve(ff.ScoreFisher(S), g, solver=ff.QR(rank_revealing=True))
    assert solution.rank == rank
    assert solution.status == (ff.Status.SUCCESS if rank == p else ff.Status.TRUNCATED)
    assert solution.message == (
        "" if rank == p else f"rank {rank} of {p}: the solution of minimum norm"
    )
    if rank:
        exact = np.linalg.pinv(F, rcond=cut) @ g
        kappa = np.linalg.svd(F)[1][0] / np.linalg.svd(F)[1][rank - 1]
        oracle.close(solution.value, exact, dtype, 100 * kappa)
        x = ff.natural_gradient(S, damping=0.0, solver=ff.QR(rank_revealing=True))
        exact = np.linalg.pinv(oracle.wide(S), rcond=cut) @ np.ones(n)
        oracle.close(x, exact, dtype, 100 * np.sqrt(kappa) * (n + p))


def test_the_default_tolerance_is_thirty_two_eps() -> None:
    """Rows √λ below two columns that are the same: λ = (64 eps)² is seen, (8 eps)² is not."""
    eps = np.finfo(float).eps
    column = oracle.draw(50, 1)
    F = ff.ScoreFisher(np.hstack([column, column]) / np.linalg.norm(column), reduction="sum")
    assert ff.solve(F, np.ones(2), damping=(64 * eps) ** 2, solver=ff.QR()).status == 0
    with pytest.raises(ff.NotPositiveDefiniteError):
        ff.solve(F, np.ones(2), damping=(8 * eps) ** 2, solver=ff.QR())


def test_the_tolerance_of_the_rank() -> None:
    S = np.diag([1.0, 1e-3, 1e-6])
    for tolerance, rank in ((None, 3), (1e-4, 2), (1e-2, 1)):
        solver = ff.QR(rank_revealing=True, rank_tol=tolerance)
        assert ff.solve(ff.ScoreFisher(S), np.ones(3), solver=solver).rank == rank
    S[0, 1] = 1.0
    with pytest.raises(ff.NotPositiveDefiniteError, match="parameter 1"):
        ff.solve(ff.ScoreFisher(S), np.ones(3), solver=ff.QR(rank_tol=1e-2))


@pytest.mark.parametrize("policy", ["nan", "shift", "pinv"])
def test_policies(policy: str) -> None:
    S = np.ones((5, 3))
    solution = ff.solve(ff.ScoreFisher(S), np.ones(3), solver=ff.QR(), on_failure=policy)
    method = {"nan": "none", "shift": "qr+shift", "pinv": "eigh+pinv"}[policy]
    assert solution.method == method
    assert solution.status != ff.Status.SUCCESS


# ---- a path ----
@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("solver", [ff.QR(), ff.QR(rank_revealing=True)])
def test_a_path_factors_the_scores_once(
    solver: ff.QR, dtype: npt.DTypeLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    S = oracle.draw(60, 12, dtype)
    F, rhs, dampings = ff.ScoreFisher(S), oracle.draw(12, 2, dtype), [1.0, 0.0, 1e-3, 10.0]
    calls, absorb = [], Root.add_scores

    def counted(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        return absorb(*arguments, **keywords)

    monkeypatch.setattr(Root, "add_scores", counted)
    path = F.solve_path(rhs, dampings, solver=solver)
    assert len(calls) == 1
    for found, damping in zip(path, dampings, strict=True):
        alone = ff.solve(F, rhs, damping=damping, solver=solver)
        kappa = np.linalg.cond(oracle.fisher(S))
        oracle.close(found.value, alone.value, float, 100 * kappa)
        assert found.status == ff.Status.SUCCESS
        assert found.residual is not None
        assert found.residual < 1e-10
        assert found.rcond == pytest.approx(alone.rcond)


def test_a_path_through_a_singular_matrix() -> None:
    F = ff.ScoreFisher(np.ones((5, 3)))
    path = F.solve_path(np.ones(3), [1.0, 0.0, 2.0], solver=ff.QR(), on_failure="nan")
    assert [s.name for s in map(ff.Status, path.status)] == [
        "SUCCESS", "NOT_POSITIVE_DEFINITE", "SUCCESS",
    ]  # fmt: skip
    path = F.solve_path(np.ones(3), [1.0, 0.0], solver=ff.QR(rank_revealing=True))
    assert [solution.status for solution in path] == [ff.Status.SUCCESS, ff.Status.TRUNCATED]
    assert np.allclose(path.value[1], 1 / 3)


# ---- refused ----
@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize(("n", "p"), [(9, 4), (600, 70), (7000, 24)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_scores_are_named(bad: float, n: int, p: int, dtype: type[np.inexact]) -> None:
    S = oracle.draw(n, p, dtype)
    S[n // 2, p - 2] = bad
    with pytest.raises(ff.NonFiniteError, match="scores: expected finite values") as caught:
        ff.natural_gradient(S, damping=1.0, solver=ff.QR())
    assert (caught.value.row, caught.value.column) == (n // 2, p - 2)


def test_overflow_is_named() -> None:
    S = oracle.draw(9, 4)
    S[:, 2] *= 1e200
    with pytest.raises(ff.NonFiniteError, match="overflow in column 2"):
        ff.natural_gradient(S, damping=1.0, solver=ff.QR())
    for solver in (ff.QR(), ff.QR(rank_revealing=True)):
        with pytest.raises(ff.NonFiniteError):
            ff.natural_gradient(S, damping=1.0, solver=solver, check_finite=False)


def test_qr_needs_the_scores() -> None:
    for F in (np.eye(3), ff.DiagonalFisher.from_scores(np.eye(3))):
        with pytest.raises(TypeError, match=r"got QR\(\)\. QR needs the scores: use ScoreFisher"):
            ff.solve(F, np.ones(3), solver=ff.QR())
        with pytest.raises(TypeError, match=r"got QR\(\)"):
            ff.solve_path(F, np.ones(3), [1.0], solver=ff.QR())


def test_arguments() -> None:
    with pytest.raises(TypeError, match="rank_revealing: expected True or False, got int"):
        ff.QR(rank_revealing=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rank_tol: expected a finite number"):
        ff.QR(rank_tol=-1.0)
    with pytest.raises(ValueError, match=r"rank_tol: expected less than 1, got 1\.5"):
        ff.QR(rank_tol=1.5)
    F = ff.ScoreFisher(np.eye(3))
    with pytest.raises(ValueError, match=r"expected QR\(\) for a factor, got QR\(rank_revealing"):
        F.factor(solver=ff.QR(rank_revealing=True))


def test_a_factor_by_any_solver_that_leaves_one() -> None:
    S = oracle.draw(9, 5)
    F, A = ff.ScoreFisher(S), oracle.fisher(S) + 0.5 * np.eye(5)
    for solver, method in (
        ("auto", "cholesky"), (ff.Cholesky(), "cholesky"), (ff.Dual(), "dual"), (ff.QR(), "qr"),
    ):  # fmt: skip
        factor = F.factor(damping=0.5, solver=solver)
        assert factor.method == method
        oracle.close(factor.inverse(), np.linalg.inv(A), float, 1000)
    for refused in (ff.CG(), ff.Eigh()):
        with pytest.raises(TypeError, match=r"solver: expected .* for a factor, got (CG|Eigh)\("):
            F.factor(solver=refused)
    with pytest.raises(TypeError, match="solver: expected 'auto' or a solver"):
        F.factor(solver="qr")
    with pytest.raises(TypeError, match=r"got Dual\(\)"):
        ff.DenseFisher.from_scores(S).factor(damping=0.5, solver=ff.Dual())


def test_the_size_guard_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "UNGUARDED", 0)
    monkeypatch.setattr(_memory, "available_memory", lambda: 9)
    S = oracle.draw(9, 50)
    for call in (
        lambda: ff.natural_gradient(S, damping=1.0, solver=ff.QR()),
        lambda: ff.SquareRootFisher(50),
    ):
        with pytest.raises(ff.MemoryLimitError, match="Use"):
            call()


@pytest.mark.parametrize("rank_revealing", [False, True])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_paths_of_the_mean_score(
    dtype: type[np.inexact], center: bool, rank_revealing: bool
) -> None:
    S, weights = oracle.draw(30, 7, dtype), oracle.draw_weights(30)
    F = ff.ScoreFisher(S, weights=weights, center=center)
    solver, dampings = ff.QR(rank_revealing=rank_revealing), [0.0, 1e-3, 2.0]
    path = ff.solve_path(F, None, dampings, solver=solver)
    for x, damping in zip(path.value, dampings, strict=True):
        expected = oracle.natural_gradient(S, damping, weights=weights, center=center)
        oracle.close(x, expected, np.float64, 1e4)


def test_paths_of_the_mean_score_keep_their_digits() -> None:
    # S = Q diag(s) with QᵀQ = I: the least-squares solution of S x = 1 is (Qᵀ1) / s.
    Q, _ = np.linalg.qr(oracle.draw(60, 8))
    s = np.logspace(0, -6.5, 8)
    path = ff.solve_path(ff.ScoreFisher(Q * s), None, [0.0], solver=ff.QR())
    exact = Q.T @ np.ones(60) / s
    assert np.abs(path.value[0] / exact - 1).max() < 1e-7
