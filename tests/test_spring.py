"""Spring: the published recursion, written out in NumPy, and what it is without momentum."""

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle

LAMBDA = 0.05


def centred(
    S: np.ndarray, E: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return Ō and ε̄, centred and divided by √Σw."""
    w = np.ones(len(S)) if weights is None else weights
    root = np.sqrt(w / w.sum())
    return oracle.rooted(S, w, True) / np.sqrt(w.sum()), root * (E - np.average(E, weights=w))


def written_out(
    batches: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    damping: float,
    momentum: float,
) -> list[np.ndarray]:
    """Return every φ by the least-squares problem that defines it, with p × p matrices."""
    phi: Any = 0.0
    steps = []
    for S, E, weights in batches:
        A, b = centred(S, E, weights)
        p = A.shape[1]
        start = momentum * phi * np.ones(p)
        normal = A.conj().T @ A + damping * np.eye(p)
        phi = np.linalg.solve(normal, A.conj().T @ b + damping * start)
        steps.append(phi)
    return steps


def batches(
    n: int, p: int, dtype: type[np.inexact], weighted: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    for i in range(4):
        weights = oracle.draw_weights(n) + 0.1 * i if weighted else None
        yield (
            oracle.draw(n + i, p + 7, dtype)[:n, :p] + 0.5,
            oracle.draw(n, 4, dtype)[:, i],
            weights,
        )


@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
@pytest.mark.parametrize(("n", "p"), [(12, 40), (30, 11), (1, 5)])
def test_several_steps_are_the_formula(
    n: int, p: int, momentum: float, weighted: bool, dtype: type[np.inexact]
) -> None:
    spring = ff.Spring(LAMBDA, momentum)
    given = list(batches(n, p, dtype, weighted))
    expected = written_out(given, LAMBDA, momentum)
    kappa = 1 + max(np.linalg.norm(S) ** 2 for S, _, _ in given) / LAMBDA
    for (S, E, weights), phi in zip(given, expected, strict=True):
        step = spring.step(S, E, weights)
        assert step.dtype == dtype
        oracle.close(step, phi, dtype, kappa, 1 + max(np.linalg.norm(e) for e in expected))
        assert np.array_equal(spring.direction, step)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_without_momentum_it_is_min_sr(dtype: type[np.inexact]) -> None:
    spring = ff.Spring(LAMBDA, momentum=0.0)
    for S, E, weights in batches(9, 33, dtype, weighted=True):
        U, e = centred(S, E, weights)
        F = ff.ScoreFisher(S, weights=weights, center=True)
        force = U.conj().T @ e
        step = spring.step(S, E, weights)
        oracle.close(step, F.solve(force, damping=LAMBDA), float, 1e5)
        first = ff.Spring(LAMBDA).step(S, E, weights)  # as the first step of any is
        assert np.array_equal(step, first)


def test_real_parameters_of_complex_wave_functions() -> None:
    S, E = oracle.draw(9, 33, complex), oracle.draw(9, 1, complex)[:, 0]
    S, E = S - S.mean(axis=0), E - E.mean()
    F, force = oracle.fisher(S).real, (S.conj().T @ E).real / 9
    step = ff.Spring(LAMBDA / 2).step(np.vstack([S.real, S.imag]), np.r_[E.real, E.imag])
    oracle.close(step, np.linalg.solve(F + LAMBDA * np.eye(33), force), float, 1e5)


def test_what_is_returned_and_pickled_is_apart() -> None:
    S, E = oracle.draw(6, 20), oracle.draw(6, 1)[:, 0]
    spring = ff.Spring(LAMBDA)
    spring.step(S, E)[:] = 0.0
    assert spring.direction.any()
    again = pickle.loads(pickle.dumps(spring))
    assert np.array_equal(again.step(S, E), spring.step(S, E))
    assert repr(spring) == "Spring(damping=0.05, momentum=0.99)"


def test_an_error_changes_nothing() -> None:
    S, E = oracle.draw(6, 20), oracle.draw(6, 1)[:, 0]
    spring = ff.Spring(LAMBDA)
    before = spring.step(S, E)
    bad_scores, bad_energies = S.copy(), E.copy()
    bad_scores[2, 3] = bad_energies[4] = np.nan
    for scores, energies, error, message in (
        (bad_scores, E, ff.NonFiniteError, "scores: expected finite values, got nan at row 2"),
        (S, bad_energies, ff.NonFiniteError, "residuals: expected finite"),
        (S, E[:-1], ValueError, "residuals: expected"),
        (S, E[:, None], ValueError, r"residuals: expected shape \(6,\), got \(6, 1\)"),
        (S[:, :-1], E, ValueError, "scores: expected 20 parameters, as the last step had, got 19"),
        (S + 0j, E, TypeError, "Real and complex scores do not mix"),
        (S, E + 1j, TypeError, "residuals: expected real numbers"),
    ):
        with pytest.raises(error, match=message):
            spring.step(scores, energies)
        assert np.array_equal(spring.direction, before)
    with pytest.raises(ValueError, match="damping: expected a positive number, got 0"):
        ff.Spring(0.0)
    for momentum in (1.0, -0.1, np.nan):
        with pytest.raises(ValueError, match="momentum: expected"):
            ff.Spring(LAMBDA, momentum)
