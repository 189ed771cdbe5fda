"""ScoreFisher: a view of the scores that never makes p² unless asked to."""

from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle


def test_it_holds_a_view() -> None:
    S = oracle.draw(10, 4)
    F = ff.ScoreFisher(S)
    S *= 2.0
    oracle.close(F.to_dense(), oracle.fisher(S), float, 10)


@pytest.mark.parametrize("solver", [ff.Dual(), ff.CG(rtol=1e-12), ff.Cholesky(), "auto"])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_every_solver(shape: tuple[int, int], center: bool, solver: Any) -> None:
    n, p = shape
    S, weights, damping = oracle.draw(n, p), oracle.draw_weights(n), 0.2
    F = ff.ScoreFisher(S, weights=weights, center=center)
    rhs = oracle.draw(p, 2)
    solution = ff.solve(F, rhs, damping=damping, solver=solver)
    explicit = oracle.fisher(S, weights, center) + damping * np.eye(p)
    kappa = np.linalg.cond(explicit)
    tolerance = 1e-12 / oracle.EPS[np.dtype(float)] if isinstance(solver, ff.CG) else 0
    oracle.close(solution.value, np.linalg.solve(explicit, rhs), float, (p + tolerance) * kappa)
    assert solution.residual is not None
    assert solution.residual <= 1e-10


def test_auto_looks_at_the_shape() -> None:
    wide, tall = ff.ScoreFisher(oracle.draw(5, 9)), ff.ScoreFisher(oracle.draw(9, 5))
    assert ff.solve(wide, np.ones(9), damping=1.0).method == "dual"
    assert ff.solve(tall, np.ones(5), damping=1.0).method == "cholesky"
    long = ff.ScoreFisher(np.ones((20_000, 20_000), np.float32)[:, ::1])
    from fastfisher.solvers import choose

    assert choose(long) == ff.CG()


def test_large_p_needs_no_matrix() -> None:
    S = oracle.draw(8, 200_000, np.float32)
    F = ff.ScoreFisher(S)
    g = S[0] + 1
    damping = 1e3
    x = F.solve(g, damping=damping)
    condition = 1 + F.trace() / damping
    residual = np.linalg.norm(F @ x + damping * x - g) / np.linalg.norm(g)
    assert residual < 100 * oracle.EPS[np.dtype(np.float32)] * condition
    values, vectors = F.eigsh(3)
    oracle.close(F @ vectors, vectors * values, np.float32, 1000, values[0])
    assert np.isfinite(F.logdet(0.1))
    assert F.apply_power(g, -0.5, damping=0.1).shape == g.shape


def test_zero_damping_in_the_dual_is_singular() -> None:
    F = ff.ScoreFisher(oracle.draw(5, 9))
    rhs = F @ np.ones(9)
    with pytest.raises(ff.NotPositiveDefiniteError, match="damping: expected a positive") as caught:
        F.solve(rhs)
    assert ff.solve(F, rhs, damping=caught.value.damping).status == ff.Status.SUCCESS
    pinv = ff.solve(F, rhs, on_failure="pinv")
    assert (pinv.rank, pinv.status) == (5, ff.Status.TRUNCATED)
    exact = np.linalg.pinv(oracle.fisher(oracle.draw(5, 9)), hermitian=True) @ rhs
    oracle.close(pinv.value, exact, float, 1e4)
    shifted = ff.solve(F, rhs, on_failure="shift")
    assert shifted.method == "dual+shift"
    assert shifted.damping_used > 0


def test_eigenvectors_of_the_null_space() -> None:
    F = ff.ScoreFisher(oracle.draw(3, 6))
    values, vectors = F.eigsh(6)
    oracle.close(values[3:], np.zeros(3), float, 100, values[0])
    oracle.close(vectors.T @ vectors, np.eye(6), float, 100)


@pytest.mark.parametrize("solver", ["auto", ff.CG(), ff.Cholesky()])
@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_bad_scores_are_named_wherever_they_are_met(
    shape: tuple[int, int], solver: str | ff.CG | ff.Cholesky
) -> None:
    S = oracle.draw(*shape)
    S[3, 2] = np.nan
    with pytest.raises(ff.NonFiniteError, match="row 3, column 2"):
        ff.natural_gradient(S, damping=1.0, solver=solver)
    F = ff.ScoreFisher(S)
    for use in (F.diagonal, F.to_dense, lambda: F @ np.ones(shape[1])):
        with pytest.raises(ff.NonFiniteError, match="row 3, column 2"):
            use()
