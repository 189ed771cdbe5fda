"""E3 of the theory: chains and state space, where what is block-tridiagonal solves the model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle

STATES, STEPS, OBSERVED = 3, 60, 2


def model(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return transition, process and measurement covariances, observation, of a stable system."""
    rng = np.random.default_rng(seed)
    transition = 0.9 * np.linalg.qr(rng.standard_normal((STATES, STATES)))[0]
    root = rng.standard_normal((STATES, STATES))
    process = root @ root.T + np.eye(STATES)
    observe = rng.standard_normal((OBSERVED, STATES))
    return transition, process, observe, 0.5 * np.eye(OBSERVED)


def innovations() -> np.ndarray:
    """Return the rows C of the model: C x − (0, y) is white, so the precision of x is CᵀC.

    Per step: prior or transition residual L_Q⁻¹ (x_t − T x_{t−1}), then L_R⁻¹ (H x_t − y_t).
    """
    transition, process, observe, noise = model()
    white = np.linalg.inv(np.linalg.cholesky(process))
    weigh = np.linalg.inv(np.linalg.cholesky(noise))
    C = np.zeros((STEPS * (STATES + OBSERVED), STEPS * STATES))
    for t in range(STEPS):
        row, own = t * (STATES + OBSERVED), slice(t * STATES, (t + 1) * STATES)
        C[row : row + STATES, own] = white
        if t:
            before = slice((t - 1) * STATES, t * STATES)
            C[row : row + STATES, before] = -white @ transition
        C[row + STATES : row + STATES + OBSERVED, own] = weigh @ observe
    return C


def smoothed(y: np.ndarray) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Return means, covariances and cross-covariances by Kalman's filter and the RTS smoother."""
    transition, process, observe, noise = model()
    mean, cov = np.zeros(STATES), process
    filtered, predicted = [], []
    for t in range(STEPS):
        if t:
            mean, cov = transition @ mean, transition @ cov @ transition.T + process
        predicted.append((mean, cov))
        gain = cov @ observe.T @ np.linalg.inv(observe @ cov @ observe.T + noise)
        mean = mean + gain @ (y[t] - observe @ mean)
        cov = cov - gain @ observe @ cov
        filtered.append((mean, cov))
    across: list[Any]
    means, covariances, across = [mean], [cov], []
    for t in range(STEPS - 2, -1, -1):
        mean_f, cov_f = filtered[t]
        mean_p, cov_p = predicted[t + 1]
        G = cov_f @ transition.T @ np.linalg.inv(cov_p)
        across.insert(0, covariances[0] @ G.T)
        means.insert(0, mean_f + G @ (means[0] - mean_p))
        covariances.insert(0, cov_f + G @ (covariances[0] - cov_p) @ G.T)
    return np.array(means), covariances, across


def precision() -> ff.BlockDiagonalFisher:
    """Return the Fisher of the trajectory: its scores are the model's rows, one for each residual.

    The sum over residuals has nothing beyond neighbouring times, so the mask takes nothing away.
    """
    sizes = [STATES] * STEPS
    return ff.BlockDiagonalFisher.from_scores(
        innovations(), sizes, tridiagonal=True, reduction="sum"
    )


def test_e3_the_precision_of_a_state_space_model_is_block_tridiagonal() -> None:
    C = innovations()
    oracle.close(precision().to_dense(), C.T @ C, float, len(C))


def test_e3_the_smoother_is_one_solve() -> None:
    _, _, observe, noise = model()
    y = oracle.draw(STEPS, OBSERVED)
    means, covariances, across = smoothed(y)
    F = precision()
    rhs = (y @ np.linalg.inv(noise) @ observe).ravel()
    kappa = np.linalg.cond(F.to_dense())
    assert ff.solve(F, rhs).method == "cholesky"
    oracle.close(F.solve(rhs).reshape(STEPS, STATES), means, float, 100 * kappa)
    factor: Any = F.factor()
    oracle.close(np.array(factor.inverse_blocks()), covariances, float, 100 * kappa)
    oracle.close(np.array(factor.inverse_neighbours()), across, float, 100 * kappa)
    oracle.close(
        factor.inverse_diagonal(),
        np.concatenate([np.diag(c) for c in covariances]),
        float,
        100 * kappa,
    )


def test_e3_draws_are_trajectories_of_the_posterior() -> None:
    factor: Any = precision().factor()
    count = 20_000
    draws = factor.sample(0, count).reshape(count, STEPS, STATES)
    for t in (0, STEPS // 2, STEPS - 1):
        covariance = factor.inverse_blocks()[t]
        size = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        found = draws[:, t].T @ draws[:, t] / count
        assert (np.abs(found - covariance) / size).max() < 5 * np.sqrt(2 / count)


@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("order", [1, 2, 5, 24, 31])
def test_e3_autoregressions(order: int, dtype: type[np.inexact]) -> None:
    # An AR process in blocks of its order: the determinant of its precision is known.
    steps, decay = 20 * order, 0.5
    C = np.eye(steps) - decay * np.eye(steps, k=-order)
    F = ff.BlockDiagonalFisher.from_scores(
        C.astype(dtype), [order] * 20, tridiagonal=True, reduction="sum"
    )
    inverse = np.linalg.inv(C.T @ C)
    factor: Any = F.factor()
    assert abs(factor.logdet) < steps * 20 * oracle.EPS[np.dtype(dtype)]
    oracle.close(factor.inverse(), inverse, dtype, 100)
    oracle.close(factor.inverse_diagonal(), np.diag(inverse), dtype, 100)
    oracle.close(F.solve(np.ones(steps)), inverse.sum(axis=1), dtype, 400)


@pytest.mark.parametrize("sizes", [[3] * 12, [30, 1, 25, 40], [385, 3, 10], [10, 200, 190]])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_e3_equal_to_the_dense_solve_on_the_masked_matrix(
    sizes: Sequence[int], dtype: type[np.inexact]
) -> None:
    p = sum(sizes)
    S = oracle.draw(3 * p, p, dtype)
    F = ff.BlockDiagonalFisher.from_scores(S, sizes, tridiagonal=True)
    damping, kappa = 1.0, 10  # eigenvalues of F lie between 0 and 3
    A = oracle.masked(oracle.fisher(S), sizes, True) + damping * np.eye(p)
    g = oracle.draw(p, 2, dtype)
    oracle.close(F.solve(g, damping=damping), np.linalg.solve(A, g), float, p * kappa)
    inverse = np.linalg.inv(A)
    starts = np.cumsum([0, *sizes])
    factor: Any = F.factor(damping=damping)
    for b, block in enumerate(factor.inverse_blocks()):
        own = slice(starts[b], starts[b + 1])
        oracle.close(block, inverse[own, own], float, p * kappa)
