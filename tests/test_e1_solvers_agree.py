"""E1 of the theory: Cholesky, CG, QR and the dual give one answer, to c·n·eps·(1 + ‖F‖/λ)."""

import numpy as np
import pytest

import fastfisher as ff
import oracle


@pytest.mark.parametrize("dtype", [*oracle.DTYPES, *oracle.COMPLEX])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("damping", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("shape", [(10, 47), (47, 10), (25, 24)])
def test_e1_solvers_agree(
    shape: tuple[int, int], damping: float, weighted: bool, center: bool, dtype: type[np.inexact]
) -> None:
    n, p = shape
    S = oracle.draw(n, p, dtype)
    weights = oracle.draw_weights(n) if weighted else None
    F = oracle.fisher(S, weights, center)
    condition = 1 + float(np.linalg.norm(F, 2)) / damping
    general = oracle.draw(p, 1, dtype)[:, 0]
    in_row_space = (S.conj().T @ np.ones(n, dtype)).astype(dtype)
    for grad in (None, general, in_row_space):
        exact = oracle.natural_gradient(S, damping, grad, weights, center)
        g = oracle.mean(S, weights) if grad is None else grad
        # No residual falls below eps · ‖A‖‖x‖ / ‖g‖, so CG is asked for what can be reached.
        scale = np.linalg.norm(g) / damping * condition
        reachable = ff.CG(rtol=(n + p) * oracle.EPS[np.dtype(dtype)] * condition)
        for solver in (ff.Cholesky(), ff.Dual(), ff.QR(), ff.QR(rank_revealing=True), reachable):
            x = ff.natural_gradient(
                S, grad, damping=damping, weights=weights, center=center, solver=solver
            )
            oracle.close(x, exact, dtype, n + p + 32, scale)


def test_e1_the_dual_needs_a_positive_damping() -> None:
    with pytest.raises(ff.NotPositiveDefiniteError, match="damping: expected a positive damping"):
        ff.natural_gradient(oracle.draw(3, 9), damping=0.0)


def test_e1_the_dual_needs_the_scores() -> None:
    with pytest.raises(TypeError, match=r"solver: expected Cholesky\(\) or CG\(\) for DenseFisher"):
        ff.solve(np.eye(3), np.ones(3), damping=1.0, solver=ff.Dual())


def test_e1_the_mean_score_formula_beats_the_general_one() -> None:
    S, damping = oracle.draw(30, 200), 1e-10
    n = len(S)
    exact = S.T @ np.linalg.solve(S @ S.T + n * damping * np.eye(n), np.ones(n))
    special = ff.natural_gradient(S, damping=damping)
    general = ff.natural_gradient(S, S.mean(axis=0), damping=damping)
    size = np.linalg.norm(exact)
    assert np.linalg.norm(special - exact) < 1e-12 * size
    assert np.linalg.norm(general - exact) < 1e-2 * size
    assert np.linalg.norm(special - exact) < 1e-3 * np.linalg.norm(general - exact)
