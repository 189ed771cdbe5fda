"""The solvers and what they say: one table of failures, and what each policy makes of them."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle
from fastfisher.solvers.failure import smallest_damping

SOLVERS = [ff.Cholesky(), ff.CG(rtol=1e-12), ff.CG(rtol=1e-12, preconditioner=None), "auto"]


def positive(p: int, kappa: float = 100.0) -> np.ndarray:
    Q, _ = np.linalg.qr(oracle.draw(p, p))
    answer: np.ndarray = (Q * np.geomspace(1, 1 / kappa, p)) @ Q.T
    return answer


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("p", [1, 2, 23, 24, 25, 49])
def test_a_plain_matrix(
    p: int, dtype: type[np.floating], solver: str | ff.CG | ff.Cholesky
) -> None:
    F = positive(p).astype(dtype)
    rhs = oracle.draw(p, 3).astype(dtype)
    upper = F + np.triu(np.full((p, p), np.nan, dtype), 1)
    solution = ff.solve(upper, rhs, damping=0.01, solver=solver)
    exact = np.linalg.solve(F.astype(float) + 0.01 * np.eye(p), rhs.astype(float))
    loose = max(1e-12 / oracle.EPS[np.dtype(dtype)], 32) if isinstance(solver, ff.CG) else 0
    oracle.close(solution.value, exact, dtype, (p + loose) * 100 * np.sqrt(p))
    assert solution.value.dtype == dtype
    assert solution.status == ff.Status.SUCCESS
    assert solution.message == ""


def test_solvers_are_frozen_values() -> None:
    for solver in (ff.Cholesky(), ff.CG(), ff.Dual(), ff.QR()):
        assert solver == type(solver)()
        assert hash(solver) == hash(type(solver)())
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            solver.rtol = 1  # type: ignore[union-attr, misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        ff.solve(np.eye(2), np.ones(2)).value = 0  # type: ignore[misc]


def test_damping_used_is_what_was_added() -> None:
    F = np.diag([1.0, 3.0])
    for damping, mode, used in (
        (0.5, "absolute", 0.5),
        (0.5, "trace", 1.0),
        (0.5, "diagonal", [0.5, 1.5]),
        ([1.0, 2.0], "absolute", [1.0, 2.0]),
        ([1.0, 2.0], "diagonal", [1.0, 6.0]),
    ):
        solution = ff.solve(F, np.ones(2), damping=damping, damping_mode=mode)
        assert np.array_equal(solution.damping_used, used)
        assert np.allclose(solution.value, 1 / (np.diag(F) + used))


def test_rcond_is_that_of_the_damped_matrix() -> None:
    F = positive(30, 1e6)
    exact = 1 / np.linalg.cond(F + 1e-3 * np.eye(30), 1)
    estimate = ff.solve(F, np.ones(30), damping=1e-3).rcond
    assert exact * 0.99 <= estimate <= 10 * exact


# ---- singular and indefinite ----
def singular(p: int = 6) -> np.ndarray:
    S = oracle.draw(p - 2, p)
    answer: np.ndarray = S.T @ S
    return answer


def test_a_numerically_singular_matrix_is_not_factored_by_luck() -> None:
    for F in (singular(), np.zeros((3, 3)), np.ones((4, 4))):
        with pytest.raises(ff.NotPositiveDefiniteError) as caught:
            ff.solve(F, np.ones(len(F)), solver=ff.Cholesky())
        error = caught.value
        assert issubclass(type(error), np.linalg.LinAlgError)
        assert error.pivot is not None
        assert 0 <= error.pivot < len(F)
        assert error.value <= len(F) * 2.3e-16 * max(F.max(), 1)
        assert "would do" in str(error)
        assert f"at parameter {error.pivot}" in str(error)
        fine = ff.solve(F, np.ones(len(F)), damping=error.damping)
        assert fine.status == ff.Status.SUCCESS


def test_factor_and_the_natural_gradient_name_the_damping_too() -> None:
    S = np.ones((5, 3))
    for call in (
        lambda damping: ff.natural_gradient(S, damping=damping),
        lambda damping: ff.DenseFisher.from_scores(S).factor(damping=damping),
        lambda damping: ff.DenseFisher.from_scores(S).logdet(damping),
        lambda damping: ff.ScoreFisher(S).solve(np.ones(3), damping=damping),
    ):
        with pytest.raises(ff.NotPositiveDefiniteError) as caught:
            call(0.0)
        call(caught.value.damping)


def test_shift_takes_the_first_rung_that_works() -> None:
    for F in (singular(), np.diag([1.0, -0.3, 2.0])):
        rhs = np.ones(len(F))
        solution = ff.solve(F, rhs, on_failure="shift")
        assert solution.status == ff.Status.SHIFTED
        assert solution.method == "cholesky+shift"
        mu = solution.damping_used
        norm = np.abs(F).sum(axis=0).max()
        rung = np.log2(mu / (norm * 2.0**-52))
        assert abs(rung - round(rung)) < 1e-6
        if rung > 0.5:
            with pytest.raises(ff.NotPositiveDefiniteError):
                ff.solve(F, rhs, damping=mu / 2)
        backward = norm * np.linalg.norm(solution.value) / np.linalg.norm(rhs)
        assert solution.residual <= 10 * len(F) * 2.3e-16 * max(backward, 1)


def test_the_ladder_counts_its_attempts() -> None:
    attempts = []

    def attempt(mu: float) -> float:
        attempts.append(mu)
        if mu < 0.37:
            raise ff.NotPositiveDefiniteError("no")
        return mu

    F = ff.DenseFisher.from_matrix(np.eye(2))
    found, result = smallest_damping(F, attempt)
    assert found == result == 0.5
    assert len(attempts) <= 14


def test_pinv_drops_what_is_not_positive() -> None:
    for F in (singular(), np.diag([1.0, -0.3, 2.0, 0.0])):
        rhs = F @ np.ones(len(F))
        values, Q = np.linalg.eigh(F)
        kept = values > len(F) * 2.3e-16 * values.max()
        exact = (Q[:, kept] / values[kept]) @ (Q[:, kept].T @ rhs)
        solution = ff.solve(F, rhs, on_failure="pinv")
        assert solution.status == ff.Status.TRUNCATED
        assert solution.rank == kept.sum()
        assert solution.method == "eigh+pinv"
        assert f"{kept.sum()} of {len(F)}" in solution.message
        oracle.close(solution.value, exact, float, 1e5)


def test_nan_keeps_the_status() -> None:
    F = singular()
    solution = ff.solve(F, np.ones((6, 2)), on_failure="nan")
    assert solution.status == ff.Status.NOT_POSITIVE_DEFINITE
    assert solution.value.shape == (6, 2)
    assert np.isnan(solution.value).all()
    spoiled = ff.solve(np.eye(2), [1.0, np.nan], on_failure="nan")
    assert spoiled.status == ff.Status.NON_FINITE
    slow = ff.solve(
        positive(50, 1e4), np.ones(50), on_failure="nan", solver=ff.CG(max_iterations=1)
    )
    assert slow.status == ff.Status.MAX_ITERATIONS


def test_a_definite_matrix_is_left_alone_by_every_policy() -> None:
    F = positive(5)
    plain = ff.solve(F, np.ones(5))
    for policy in ("nan", "shift", "pinv"):
        solution = ff.solve(F, np.ones(5), on_failure=policy)
        assert solution.status == ff.Status.SUCCESS
        assert np.array_equal(solution.value, plain.value)


# ---- conjugate gradients ----
def test_max_iterations_is_a_failure_unless_allowed() -> None:
    F, rhs = positive(50, 1e4), np.ones(50)
    with pytest.raises(ff.ConvergenceError, match="max_iterations was reached") as caught:
        ff.solve(F, rhs, solver=ff.CG(max_iterations=3))
    last = caught.value.solution
    assert last.value.shape == rhs.shape
    truncated = ff.solve(F, rhs, solver=ff.CG(max_iterations=3, allow_truncated=True))
    assert truncated.status == last.status == ff.Status.MAX_ITERATIONS
    assert truncated.iterations == 3
    residual = np.linalg.norm(rhs - F @ truncated.value) / np.linalg.norm(rhs)
    assert truncated.residual == pytest.approx(residual, rel=1e-6)
    for policy in ("shift", "pinv"):
        with pytest.raises(ff.ConvergenceError):
            ff.solve(F, rhs, solver=ff.CG(max_iterations=3), on_failure=policy)


def test_negative_curvature_is_named() -> None:
    F = np.diag([1.0, -1.0, 2.0])
    with pytest.raises(ff.NotPositiveDefiniteError, match="negative or zero curvature"):
        ff.solve(F, np.ones(3), solver=ff.CG())
    solution = ff.solve(F, np.ones(3), solver=ff.CG(), on_failure="nan")
    assert np.isnan(solution.value).all()
    assert solution.status == ff.Status.NEGATIVE_CURVATURE


def test_zero_right_hand_side_takes_no_iterations() -> None:
    solution = ff.solve(positive(9), np.zeros(9), solver=ff.CG())
    assert np.array_equal(solution.value, np.zeros(9))
    assert (solution.iterations, solution.residual) == (0, 0.0)


@pytest.mark.parametrize("kind", ["dense", "score", "diagonal"])
def test_preconditioners(kind: str) -> None:
    S = oracle.draw(60, 20) * np.geomspace(1, 1e3, 20)
    kinds: dict[str, Any] = {
        "dense": ff.DenseFisher.from_scores,
        "score": ff.ScoreFisher,
        "diagonal": ff.DiagonalFisher.from_scores,
    }
    F = kinds[kind](S)
    rhs, damping = np.ones(20), 1e-3
    d = F.diagonal() + damping
    solutions = [
        ff.solve(F, rhs, damping=damping, solver=ff.CG(preconditioner=given, max_iterations=10_000))
        for given in ("jacobi", d, lambda R: R / d[:, None])
    ]
    direct = F.solve(rhs, damping=damping, solver=ff.Cholesky())
    for solution in solutions:
        assert solution.iterations <= 40
        assert solution.residual is not None
        assert solution.residual <= 1e-8
        assert np.allclose(solution.value, direct, rtol=1e-4, atol=1e-6 * np.abs(direct).max())


def test_float32_stops_where_float32_can() -> None:
    solution = ff.solve(positive(30).astype(np.float32), np.ones(30), solver=ff.CG())
    assert solution.status == ff.Status.SUCCESS
    assert solution.residual is not None
    assert solution.residual < 1e-4


@pytest.mark.parametrize("rows", [3, 1])
def test_policies_for_the_mean_score(rows: int) -> None:
    S = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])[:rows]
    F = ff.ScoreFisher(S, reduction="sum")
    solution = ff.solve(F, None, solver=ff.Cholesky(), on_failure="pinv")
    expected = np.linalg.pinv(S.T @ S) @ S.mean(axis=0)
    np.testing.assert_allclose(solution.value, expected, rtol=1e-12)
    assert solution.rank == 1
    solution = ff.solve(F, None, solver=ff.Cholesky(), on_failure="nan")
    assert solution.value.shape == (2,)
    assert solution.value.dtype == np.float64
    assert np.isnan(solution.value).all()
    assert solution.status == ff.Status.NOT_POSITIVE_DEFINITE
