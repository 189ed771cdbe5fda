"""The dual, complete: every combination it takes, its cut-offs, its paths and its digits."""

import itertools
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle

N, P = 14, 37
DAMPINGS = [1e-3, 0.2, 5.0]
# dtype, weighted, centred, reduction
COMBINATIONS: list[tuple[Any, ...]] = list(
    itertools.product(oracle.EVERY, (False, True), (False, True), ("mean", "sum"))
)


DOUBLE = [c for c in COMBINATIONS if c[0] in (np.float64, np.complex128)]


def drawn(
    dtype: type[np.inexact], weighted: bool, center: bool, reduction: str, n: int = N, p: int = P
) -> tuple[np.ndarray, ff.ScoreFisher, np.ndarray]:
    """Return scores, the ScoreFisher and the explicit matrix."""
    S = oracle.draw(n, p, dtype)
    keywords: dict[str, Any] = {
        "weights": oracle.draw_weights(n) if weighted else None,
        "center": center,
    }
    F = ff.ScoreFisher(S, reduction=reduction, **keywords)
    return S, F, oracle.fisher(S, reduction=reduction, **keywords)


def tolerance(F: np.ndarray, damping: float | np.ndarray) -> float:
    """Return the factor by which a general right-hand side may lose digits, 1 + ‖F‖ / λ."""
    return float(len(F) * (1 + np.linalg.norm(F, 2) / np.min(damping)))


@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
def test_every_combination_of_a_solve(
    combination: tuple[type[np.inexact], bool, bool, str],
) -> None:
    dtype = combination[0]
    S, F, explicit = drawn(*combination)
    mean = oracle.mean(S, F._weights).conj()
    for damping in (0.2, np.linspace(0.1, 0.9, P)):
        A = explicit + np.diag(np.broadcast_to(damping, P))
        terms = tolerance(explicit, damping)
        for k in (None, 0, 1, 5):
            rhs = oracle.draw(P, 1 if k is None else k, dtype)
            rhs = rhs[:, 0] if k is None else rhs
            solution = ff.solve(F, rhs, damping=damping, solver=ff.Dual())
            assert (solution.value.dtype, solution.method) == (dtype, "dual")
            oracle.close(solution.value, np.linalg.solve(A, rhs), dtype, terms)
            found = F.factor(damping=damping).quadratic_columns(rhs.reshape(P, -1))
            squares = np.einsum("ik,ik->k", rhs.reshape(P, -1).conj(), np.linalg.solve(
                A, rhs.reshape(P, -1))).real  # fmt: skip
            oracle.close(found, squares, dtype, terms)
        if combination[3] == "mean":
            direction = ff.natural_gradient(
                S, damping=damping, weights=F._weights, center=F.center, solver=ff.Dual()
            )
            oracle.close(direction, np.linalg.solve(A, mean), dtype, terms)


@pytest.mark.parametrize("solver", ["auto", ff.Dual(), ff.Eigh(), ff.Dual(rtol=0.0)], ids=str)
@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
def test_every_combination_of_a_path(
    combination: tuple[type[np.inexact], bool, bool, str], solver: str | ff.Dual | ff.Eigh
) -> None:
    dtype = combination[0]
    S, F, explicit = drawn(*combination)
    dampings = [0.05, *DAMPINGS[1:]]
    mean = oracle.mean(S, F._weights).conj()
    for rhs in (None, oracle.draw(P, 1, dtype)[:, 0], oracle.draw(P, 3, dtype)):
        path = ff.solve_path(F, rhs, dampings, solver=solver)
        assert path.value.dtype == dtype
        assert (path.status == 0).all()
        g = mean if rhs is None else rhs
        for x, damping in zip(path.value, dampings, strict=True):
            expected = np.linalg.solve(explicit + damping * np.eye(P), g)
            oracle.close(x, expected, dtype, tolerance(explicit, damping))
        assert (path.residual <= 4 * tolerance(explicit, 0.05) * oracle.EPS[np.dtype(dtype)]).all()


@pytest.mark.parametrize("solver", [ff.Cholesky(), ff.CG(rtol=1e-12, preconditioner=None),
                                    ff.CG(rtol=1e-12), ff.Eigh(), "auto"], ids=str)  # fmt: skip
@pytest.mark.parametrize("shape", [(9, 21), (30, 8)])
def test_paths_of_the_mean_score_by_every_solver(shape: tuple[int, int], solver: Any) -> None:
    S = oracle.draw(*shape)
    path = ff.ScoreFisher(S, center=True).solve_path(None, DAMPINGS, solver=solver)
    assert path.value.shape == (3, shape[1])
    for x, damping in zip(path.value, DAMPINGS, strict=True):
        oracle.close(x, oracle.natural_gradient(S, damping, center=True), float, 1e5)
    with pytest.raises(TypeError, match="DenseFisher knows no mean score"):
        ff.solve_path(ff.DenseFisher.from_scores(S), None, DAMPINGS)


@pytest.mark.parametrize("solver", [ff.Dual(), ff.Eigh(), ff.Dual(rtol=0.0)], ids=str)
def test_the_mean_score_keeps_its_digits_over_a_path(solver: ff.Dual | ff.Eigh) -> None:
    # As λ → 0 it is the pseudo-inverse, and what remains is the condition of the scores.
    S = oracle.draw(12, 60)
    limit = np.linalg.pinv(S.T @ S / 12) @ S.mean(axis=0)
    dampings = [1e-3, 1e-9, 1e-11]
    path = ff.solve_path(ff.ScoreFisher(S), None, dampings, solver=solver)
    U, s, V = np.linalg.svd(S, full_matrices=False)
    for x, damping in zip(path.value, dampings, strict=True):
        exact = V.T @ (s / (s**2 / 12 + damping) * U.mean(axis=0)) / 1.0
        oracle.close(x, exact, float, 1e3)
    oracle.close(path.value[-1], limit, float, 1e7)
    if solver != ff.Dual(rtol=0.0):  # what a general right-hand side loses
        general = ff.solve_path(ff.ScoreFisher(S), S.mean(axis=0), dampings, solver=solver)
        assert abs(general.value[-1] - limit).max() > 1e3 * abs(path.value[-1] - limit).max()


@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
def test_own_leverages_keep_their_digits(
    combination: tuple[type[np.inexact], bool, bool, str],
) -> None:
    dtype = combination[0]
    S, F, explicit = drawn(*combination)
    weights = np.ones(N) if F._weights is None else F._weights
    w, Q = np.linalg.eigh(oracle.gram(S, F._weights, F.center, F.reduction))
    there = weights > 0
    rank = there.sum() - F.center
    w, Q = w[-rank:], Q[:, -rank:]
    # K (K + λI)⁻¹ has the condition of K where K has no null space, else that of K + λI.
    for damping in (1e-2, 1e3) if rank < N else (1e-9, 1e-2, 1e3):
        expected = (abs(Q) ** 2 * (w / (w + damping))).sum(axis=1)
        found = F.leverage(S, damping)
        condition = w[-1] / (w[0] if rank == N else damping)
        oracle.close((found * weights)[there], expected[there], dtype, N * max(condition, 1))
    oracle.close(F.effective_dimension(1e-2), np.trace(np.linalg.solve(
            explicit + 1e-2 * np.eye(P), explicit)).real, dtype, 1e4)  # fmt: skip
    # Another array with the same numbers takes the general formula, weight zero or not.
    oracle.close(F.leverage(S, 0.5), F.leverage(S.copy(), 0.5), dtype, tolerance(explicit, 0.5))
    vector = np.linspace(0.3, 0.9, P)
    oracle.close(F.leverage(S, vector), F.leverage(S.copy(), vector), dtype, 1e3)
    with pytest.raises(ff.NotPositiveDefiniteError, match="to the damping would do"):
        F.leverage(S)
    relative = F.leverage(S, 0.5, damping_mode="trace")
    other = F.leverage(S.copy(), 0.5, damping_mode="trace")
    oracle.close(relative, other, dtype, 1e3)


# ---- the cut-off ----
def inverse(values: np.ndarray, rtol: float, smooth: float) -> np.ndarray:
    """Return NetKet's pinv_smooth of eigenvalues, in its own words."""
    ratio = values / values.max()
    regular = 1 / (1 + (smooth / np.where(ratio > 0, ratio, 1)) ** 6)
    return np.where(ratio > max(rtol, len(values) * 2.3e-16), regular / values, 0.0)


@pytest.mark.parametrize("shape", [(N, P), (40, 9)])
@pytest.mark.parametrize(
    "combination", [c for c in COMBINATIONS if np.finfo(c[0]).bits == 64], ids=str
)
@pytest.mark.parametrize(
    ("rtol", "smooth"), [(0.2, None), (None, 0.3), (0.15, 0.3), (1e-12, 1e-12)]
)
def test_cut_offs_are_functions_of_the_matrix(
    rtol: float | None,
    smooth: float | None,
    combination: tuple[type[np.inexact], bool, bool, str],
    shape: tuple[int, int],
) -> None:
    (dtype, weighted, center, reduction), (n, p) = combination, shape
    S, F, explicit = drawn(dtype, weighted, center, reduction, n, p)
    solver = ff.Dual(rtol=rtol, rtol_smooth=smooth)
    mean = oracle.mean(S, F._weights).conj()
    for damping in (0.0, 1e-3, 1.0):
        values, Q = np.linalg.eigh(explicit + damping * np.eye(p))
        f = inverse(values, rtol or 0.0, smooth or 0.0)
        A = (Q * f) @ Q.conj().T
        rank = ((f > 0) & (values >= (smooth or 0.0) * values[-1])).sum()
        for rhs in (oracle.draw(p, 1, dtype)[:, 0], oracle.draw(p, 3, dtype)):
            solution = ff.solve(F, rhs, damping=damping, solver=solver)
            oracle.close(solution.value, A @ rhs, float, 1e4, abs(A).max() * abs(rhs).sum())
            assert solution.rank == rank
            truncated = ff.Status.SUCCESS if rank == p else ff.Status.TRUNCATED
            assert (solution.status, solution.method) == (truncated, "dual+cutoff")
            assert (solution.message == "") == (rank == p)
            rest = np.linalg.norm(rhs - (explicit + damping * np.eye(p)) @ solution.value, axis=0)
            rest /= np.linalg.norm(rhs, axis=0)
            assert solution.residual == pytest.approx(rest.max(), rel=1e-6, abs=1e-10)
        path = ff.solve_path(F, None, [damping, 0.5], solver=solver)
        oracle.close(path.value[0], A @ mean, float, 1e4, abs(A).max() * abs(mean).sum())
        assert path[0].rank == rank
        if combination[3] == "mean" and not F.center:
            found = ff.natural_gradient(S, damping=damping, weights=F._weights, solver=solver)
            oracle.close(found, path.value[0], float, 1e4)


def test_zero_damping_with_a_cut_off_is_the_pseudo_inverse() -> None:
    S = oracle.draw(N, P)
    F, rhs = ff.ScoreFisher(S), oracle.draw(P, 2)
    solution = ff.solve(F, rhs, solver=ff.Dual(rtol=1e-10))
    named = ff.solve(F, rhs, on_failure="pinv")
    assert (solution.rank, solution.status) == (N, ff.Status.TRUNCATED)
    assert (named.rank, named.status) == (N, ff.Status.TRUNCATED)
    oracle.close(solution.value, named.value, float, 1e4)
    with pytest.raises(ff.NotPositiveDefiniteError):
        ff.solve(F, rhs, solver=ff.Dual())
    assert ff.solve(F, rhs[:, :0], solver=ff.Dual(rtol=1e-10)).value.shape == (P, 0)
    nothing = ff.solve(ff.ScoreFisher(np.zeros((2, 5))), np.ones(5), solver=ff.Dual(rtol=1e-10))
    assert (nothing.rank, nothing.value.any()) == (0, False)


def test_bad_cut_offs() -> None:
    for name in ("rtol", "rtol_smooth"):
        for bad in (-1e-3, np.nan, "much"):
            with pytest.raises((TypeError, ValueError), match=f"{name}: expected"):
                ff.Dual(**{name: bad})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"{name}: expected less than 1, got 1.0"):
            ff.Dual(**{name: 1.0})
    F = ff.ScoreFisher(oracle.draw(N, P))
    with pytest.raises(ValueError, match="expected a number with an eigenvalue cut-off"):
        F.solve(np.ones(P), damping=np.ones(P), solver=ff.Dual(rtol=1e-3))
    for other in (ff.DenseFisher.from_scores(oracle.draw(9, 4)), ff.DiagonalFisher.from_scores(
        oracle.draw(9, 4))):  # fmt: skip
        with pytest.raises(TypeError, match=r"solver: expected Cholesky\(\) or CG\(\)"):
            other.solve(np.ones(4), damping=1.0, solver=ff.Dual(rtol=1e-3))


def test_a_damping_that_leaves_no_digit_is_refused() -> None:
    S = oracle.draw(6, 20)
    F, g = ff.ScoreFisher(S), np.ones(20)
    for solver in (ff.Dual(), "auto"):
        with pytest.raises(ff.NotPositiveDefiniteError, match="no correct digit") as caught:
            ff.solve(F, g, damping=1e-18, solver=solver)
        cured = ff.solve(F, g, damping=caught.value.damping)
        assert cured.residual is not None
        assert cured.residual < 1e-6
    path = ff.solve_path(F, g, [1e-18, 1.0], solver=ff.Dual(), on_failure="nan")
    assert [solution.status.name for solution in path] == ["NOT_POSITIVE_DEFINITE", "SUCCESS"]
    # The mean score has a formula that loses nothing.
    assert np.isfinite(ff.natural_gradient(S, damping=1e-18)).all()


def test_a_shift_that_cures_the_dual_leaves_half_of_the_digits() -> None:
    S = oracle.draw(4, 12)
    for F in (ff.ScoreFisher(S), ff.LowRankFisher.from_scores(S, 4)):
        shifted = ff.solve(F, np.ones(12), on_failure="shift")
        assert shifted.status == ff.Status.SHIFTED
        assert shifted.residual is not None
        assert shifted.residual < 1e-6
        with pytest.raises(ff.NotPositiveDefiniteError) as caught:
            F.factor()
        oracle.close(caught.value.damping, shifted.damping_used, float, 10)


def test_the_dual_says_why_it_needs_a_damping() -> None:
    with pytest.raises(ff.NotPositiveDefiniteError, match=r"n = 20 ≥ p = 6 use Cholesky"):
        ff.solve(ff.ScoreFisher(oracle.draw(20, 6)), np.ones(6), solver=ff.Dual())
    with pytest.raises(ff.NotPositiveDefiniteError, match="a vector with a zero"):
        ff.solve(ff.ScoreFisher(oracle.draw(2, 3)), np.ones(3), damping=np.array([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="cut-off"):
        ff.ScoreFisher(oracle.draw(2, 3)).factor(damping=1.0, solver=ff.Dual(rtol=0.1))
