"""Least squares of the scores: any targets, by every solver, with the digits of QR and the dual."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fastfisher as ff
import network
import oracle
from test_qr import ill_conditioned, least_squares

SOLVERS = [
    "auto", ff.QR(), ff.QR(rank_revealing=True), ff.Dual(), ff.Dual(rtol=1e-15), ff.Cholesky(),
    ff.CG(rtol=1e-12), ff.Eigh(),
]  # fmt: skip


def answer(
    S: np.ndarray,
    y: np.ndarray,
    damping: float | np.ndarray,
    weights: np.ndarray | None,
    center: bool,
    reduction: str,
) -> np.ndarray:
    """Return (c UᴴU + D)⁻¹ c Uᴴ √w y, U the rooted scores."""
    U = oracle.rooted(S, weights, center)
    c = 1 / oracle.total(S, weights, reduction)
    root = np.ones(len(S)) if weights is None else np.sqrt(weights)
    A = c * U.conj().T @ U + np.diag(np.broadcast_to(damping, S.shape[1]))
    return np.linalg.solve(A, c * U.conj().T @ (root * oracle.wide(y)))


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize(("n", "p"), [(60, 13), (9, 26), (49, 24), (1, 2)])
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_every_solver_finds_the_nearest(
    solver: Any, n: int, p: int, dtype: type[np.inexact]
) -> None:
    S, y, weights = oracle.draw(n, p, dtype), oracle.draw(n, 4, dtype)[:, 3], oracle.draw_weights(n)
    kappa = 1 + np.linalg.norm(S) ** 2 / 0.1
    for center in (False, True):
        for reduction in ("mean", "sum"):
            for w in (None, weights):
                F = ff.ScoreFisher(S, weights=w, center=center, reduction=reduction)
                found = F.least_squares(y, damping=0.1, solver=solver)
                expected = answer(S, y, 0.1, w, center, reduction)
                scale = 1 + np.linalg.norm(expected)
                oracle.close(found.value, expected, float, 100 * kappa, scale)
                assert found.value.shape == (p,)
                assert found.damping_used == 0.1


@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("solver", [ff.QR(), ff.Dual(), ff.Cholesky()], ids=str)
def test_a_damping_for_each_parameter(
    solver: ff.Cholesky | ff.Dual | ff.QR, dtype: type[np.inexact]
) -> None:
    S, y = oracle.draw(20, 9, dtype), oracle.draw(20, 2, dtype)[:, 1]
    damping = np.linspace(0.5, 3.0, 9)
    found = ff.ScoreFisher(S, reduction="sum").least_squares(y, damping=damping, solver=solver)
    assert found.value.dtype == dtype
    expected = answer(S, y, damping, None, False, "sum")
    oracle.close(found.value, expected, dtype, 100 * (1 + np.linalg.norm(S) ** 2), 1.0)


@pytest.mark.parametrize("solver", [ff.QR(), ff.Dual(), ff.Cholesky()], ids=str)
@pytest.mark.parametrize("n", [40, 200])
def test_a_network_in_layers(solver: ff.Cholesky | ff.Dual | ff.QR, n: int) -> None:
    layers = network.draw(n, np.float64)[:2]
    S, y, weights = network.scores(layers), oracle.draw(n, 1)[:, 0], oracle.draw_weights(n)
    for center in (False, True):
        F = ff.LayerFisher(layers, weights=weights, center=center)
        found = F.least_squares(y, damping=0.3, solver=solver)
        expected = answer(S, y, 0.3, weights, center, "mean")
        kappa = 1 + np.linalg.norm(S) ** 2 / 0.3
        flat = np.concatenate([weight.ravel() for weight in found.value])
        oracle.close(flat, expected, float, 100 * kappa, 1 + np.linalg.norm(expected))


@pytest.mark.parametrize("solver", ["auto", ff.QR(), ff.Dual()], ids=str)
def test_targets_of_one_are_the_mean_score(solver: str | ff.Dual | ff.QR) -> None:
    S, weights = oracle.draw(50, 7), oracle.draw_weights(50)
    F = ff.ScoreFisher(S, weights=weights)
    found = F.least_squares(np.ones(50), damping=0.2, solver=solver)
    expected = ff.natural_gradient(S, damping=0.2, weights=weights, solver=solver)
    oracle.close(found.value, expected, float, 1000)


def test_it_is_the_regression_of_numpy() -> None:
    S, y = oracle.draw(50, 7), oracle.draw(50, 2)[:, 0]
    for reduction in ("mean", "sum"):
        found = ff.ScoreFisher(S, reduction=reduction).least_squares(y, solver=ff.QR())
        oracle.close(found.value, np.linalg.lstsq(S, y)[0], float, 1000)


@pytest.mark.parametrize("kappa", [1e6, 1e9])
def test_qr_loses_digits_by_the_condition_and_not_by_its_square(kappa: float) -> None:
    """With a small residual the error of least squares is c p eps κ; normal equations have κ²."""
    n, p = 300, 12
    S = ill_conditioned(n, p, kappa)
    y = S @ np.linspace(1, 2, p) + 1e-9 * oracle.draw(n, 1)[:, 0]
    exact = least_squares(S, y).astype(float)
    found = ff.ScoreFisher(S, reduction="sum").least_squares(y, solver=ff.QR()).value
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert error <= 8 * p * np.finfo(float).eps * kappa
    if kappa < 1e8:  # where F still has a factor
        semi_normal = ff.ScoreFisher(S, reduction="sum").solve(S.T @ y, solver=ff.QR())
        assert error < 0.01 * np.linalg.norm(semi_normal - exact) / np.linalg.norm(exact)


def test_the_dual_loses_no_digits_to_a_small_damping() -> None:
    """Minimum-norm solutions, as minSR takes them from local energies: λ → 0 costs nothing."""
    S, y = oracle.draw(9, 40), oracle.draw(9, 1)[:, 0]
    expected = np.linalg.lstsq(S, y)[0]
    for solver in (ff.Dual(), "auto"):
        F = ff.ScoreFisher(S, reduction="sum")
        oracle.close(F.least_squares(y, damping=1e-14, solver=solver).value, expected, float, 1000)
    centred = ff.ScoreFisher(S, center=True)
    step = centred.least_squares(y, damping=1e-10, solver=ff.Dual()).value
    U = S - S.mean(axis=0)
    oracle.close(U @ step, y - y.mean(), float, 1e-10 / np.finfo(float).eps * 100)


@pytest.mark.parametrize("solver", [ff.QR(), ff.Dual(), ff.Cholesky()], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_large_mean_of_the_targets_costs_no_digits(
    weighted: bool, solver: ff.Cholesky | ff.Dual | ff.QR
) -> None:
    """Centred scores sum to zero but for rounding, which 10⁹ times as much would show."""
    S, weights = oracle.draw(200, 5), oracle.draw_weights(200) if weighted else None
    y = np.round(oracle.draw(200, 1)[:, 0] * 2**20) / 2**20  # so that y + 2³⁰ is exact
    F = ff.ScoreFisher(S, weights=weights, center=True)
    near, far = (
        F.least_squares(targets, damping=0.1, solver=solver).value for targets in (y, y + 2.0**30)
    )
    oracle.close(far, near, float, 1000, 1.0)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(dtype: type[np.generic]) -> None:
    S = oracle.draw(40, 5).astype(dtype)
    y = oracle.draw(40, 1)[:, 0].astype(np.float32)
    found = ff.ScoreFisher(S, center=True).least_squares(y, damping=0.1, solver=ff.QR())
    expected = answer(S.astype(float), y, 0.1, None, True, "mean")
    oracle.close(found.value, expected, np.float32, 1000, 1.0)


def test_bits_do_not_depend_on_threads_and_nothing_is_written() -> None:
    S, y = oracle.draw(3000, 24), oracle.draw(3000, 1)[:, 0]
    S.flags.writeable = y.flags.writeable = False
    F = ff.ScoreFisher(S)
    before = F.least_squares(y, solver=ff.QR(), n_threads=1).value
    for threads in (2, 3, 8):
        assert np.array_equal(F.least_squares(y, solver=ff.QR(), n_threads=threads).value, before)
    oracle.close(
        ff.natural_gradient(S, damping=0.0, solver=ff.QR()),
        F.solve(S.mean(axis=0), damping=0.0, solver=ff.QR()),
        float,
        3000,
    )  # F itself has forgotten the targets


def test_policies_and_diagnosis() -> None:
    S, y = np.ones((3, 2)), np.array([1.0, 2.0, 3.0])
    F = ff.ScoreFisher(S, reduction="sum")
    with pytest.raises(ff.NotPositiveDefiniteError):
        F.least_squares(y, solver=ff.QR())
    least = F.least_squares(y, solver=ff.QR(rank_revealing=True))
    assert least.status is ff.Status.TRUNCATED
    oracle.close(least.value, np.ones(2), float, 100)
    assert F.least_squares(y, solver=ff.QR(), on_failure="shift").status is ff.Status.SHIFTED
    good = ff.ScoreFisher(oracle.draw(9, 3)).least_squares(np.ones(9), solver=ff.QR())
    assert good.residual is not None
    assert good.rcond is not None
    assert good.residual < 1e-14
    assert 0 < good.rcond < 1


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (np.ones(4), ValueError, r"targets: expected shape \(5,\) or .*, got \(4,\)"),
        (np.ones((5, 2)), ValueError, r"targets: expected shape \(5,\), got \(5, 2\)"),
        (np.full(5, np.nan), ff.NonFiniteError, "targets: expected finite values"),
        (np.ones(5) * 1j, TypeError, "targets: expected real numbers, got complex128"),
    ],
)
def test_targets_that_do_not_fit(targets: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ff.ScoreFisher(oracle.draw(5, 2)).least_squares(targets)


def test_a_streamed_root_has_no_right_hand_side_of_its_own() -> None:
    F = ff.SquareRootFisher.from_scores(oracle.draw(5, 2))
    with pytest.raises(TypeError, match="SquareRootFisher knows no mean score"):
        F.solve(None)
