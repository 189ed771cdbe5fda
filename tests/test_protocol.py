"""One table of tests over all representations: what `ff.Fisher` promises, each keeps."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastfisher as ff
import oracle
from fastfisher.fisher.accumulator import Accumulator
from representations import cases, streams

CASES = [
    pytest.param(*rest, id=f"{np.dtype(dtype)}-{name}")
    for dtype in (np.float64, np.complex128)
    for name, *rest in cases(dtype)
]
STREAMS = [
    pytest.param(*rest, name.startswith("approximate"), id=f"{np.dtype(dtype)}-{name}")
    for dtype in (np.float64, np.complex128)
    for name, *rest in streams(dtype)
]
LAMBDA = 0.3


def damped(F: np.ndarray, damping: float | np.ndarray = LAMBDA) -> np.ndarray:
    return F + np.diag(np.broadcast_to(damping, len(F)))


def near(
    actual: float | np.ndarray,
    expected: float | np.ndarray,
    F: np.ndarray,
    damping: float | np.ndarray = LAMBDA,
) -> None:
    """Compare to p · eps · κ, the error of any backward-stable way."""
    kappa = np.linalg.cond(damped(F, damping))
    oracle.close(actual, expected, np.float64, 10 * len(F) * kappa)


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_reading(fisher: Accumulator, F: np.ndarray, S: np.ndarray) -> None:
    p = len(F)
    v, V = oracle.draw(p, 1, F.dtype)[:, 0], oracle.draw(p, 4, F.dtype)
    size = np.linalg.norm(F)
    assert fisher.shape == (p, p)
    assert fisher.dtype == F.dtype
    assert fisher.n_samples == len(S)
    assert fisher.weight_sum == pytest.approx(oracle.draw_weights(len(S)).sum())
    assert f"n_params={p}" in repr(fisher)
    oracle.close(fisher.to_dense(), F, float, 100, size)
    oracle.close(fisher.diagonal(), np.diag(F).real, float, 100, size)
    oracle.close(fisher.trace(), np.trace(F).real, float, 100, size)
    oracle.close(fisher @ v, F @ v, float, 100, size * 10)
    oracle.close(fisher @ V, F @ V, float, 100, size * 10)
    oracle.close(fisher.quadratic_form(v), (v.conj() @ F @ v).real, float, 100, size * 100)
    squares = np.diag(V.conj().T @ F @ V).real
    oracle.close(fisher.quadratic_form(V), squares, float, 100, size * 100)
    for real in (fisher.diagonal(), fisher.quadratic_form(V)):
        assert real.dtype == np.float64
    assert isinstance(fisher, ff.Fisher)


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_solving(fisher: Accumulator, F: np.ndarray, S: np.ndarray) -> None:
    p = len(F)
    vector = np.linspace(0.1, 1.0, p)
    for rhs in (np.arange(p, dtype=float), oracle.draw(p, 3, F.dtype), oracle.draw(p, 0, F.dtype)):
        for damping in (LAMBDA, vector):
            expected = np.linalg.solve(damped(F, damping), rhs)
            near(fisher.solve(rhs, damping=damping), expected, F, damping)
            near(fisher.factor(damping=damping).solve(rhs), expected, F, damping)
        solution = ff.solve(fisher, rhs, damping=LAMBDA)
        assert solution.status == ff.Status.SUCCESS
        assert solution.residual is not None
        assert solution.rcond is not None
        assert solution.residual < 1e-10
        assert solution.damping_used == LAMBDA
        assert 0 < solution.rcond <= 1.0001
    relative = np.linalg.solve(damped(F, LAMBDA * np.trace(F).real / p), np.ones(p))
    near(fisher.solve(np.ones(p), damping=LAMBDA, damping_mode="trace"), relative, F)
    marquardt = np.linalg.solve(F + LAMBDA * np.diag(np.diag(F)), np.ones(p))
    near(fisher.solve(np.ones(p), damping=LAMBDA, damping_mode="diagonal"), marquardt, F, 0.01)


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_factor(fisher: Accumulator, F: np.ndarray, S: np.ndarray) -> None:
    p = len(F)
    for damping in (LAMBDA, np.linspace(0.1, 1.0, p)):
        A = damped(F, damping)
        inverse = np.linalg.inv(A)
        factor = fisher.factor(damping=damping)
        near(factor.inverse(), inverse, F, damping)
        near(factor.inverse_diagonal(), np.diag(inverse).real, F, damping)
        near(factor.logdet, np.linalg.slogdet(A)[1], F, damping)
        near(fisher.logdet(damping), np.linalg.slogdet(A)[1], F, damping)
        assert 0 < factor.rcond <= 1.0001
        assert factor.shape == (p, p)


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_samples_have_the_inverse_as_covariance(
    fisher: Accumulator, F: np.ndarray, S: np.ndarray
) -> None:
    p, count = len(F), 8_000
    for damping in (LAMBDA, np.linspace(0.2, 1.0, p)):
        factor = fisher.factor(damping=damping)
        draws = factor.sample(0, count)
        assert draws.shape == (count, p)
        assert factor.sample(0).shape == (p,)
        assert np.array_equal(draws, factor.sample(0, count))
        # z*Az is χ²_p for each draw: mean p, variance 2p (half of it for complex numbers).
        A = damped(F, damping)
        squares = ((draws.conj() @ A) * draws).sum(axis=1).real
        assert abs(squares.mean() - p) < 5 * np.sqrt(2 * p / count)
        inverse = np.linalg.inv(A)
        size = np.sqrt(np.outer(np.diag(inverse).real, np.diag(inverse).real))
        covariance = draws.T @ draws.conj() / count
        assert (np.abs(covariance - inverse) / size).max() < 5 * np.sqrt(2 / count)
        if F.dtype.kind == "c":  # circular
            assert (np.abs(draws.T @ draws / count) / size).max() < 5 * np.sqrt(2 / count)


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_spectrum(fisher: Accumulator, F: np.ndarray, S: np.ndarray) -> None:
    p = len(F)
    v = oracle.draw(p, 2, F.dtype)
    for damping in (LAMBDA, np.linspace(0.1, 1.0, p)):
        values, Q = np.linalg.eigh(damped(F, damping))
        for power in (-1.0, -0.5, 0.0, 0.5, 2.0):
            expected = Q @ (values[:, None] ** power * (Q.conj().T @ v))
            near(fisher.apply_power(v, power, damping=damping), expected, F, damping)
        near(
            fisher.effective_dimension(damping),
            np.trace(np.linalg.solve(damped(F, damping), F)).real,
            F,
            damping,
        )
    values = np.linalg.eigvalsh(F)[::-1]
    for k in (1, 4, min(p, 9), p):
        found, vectors = fisher.eigsh(k)
        oracle.close(found, values[:k], float, 100, values[0])
        oracle.close(vectors.conj().T @ vectors, np.eye(k), float, 1000)
        largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(k)]
        oracle.close(largest, np.abs(largest), float, 10)
        oracle.close(F @ vectors, vectors * found, float, 1000, values[0])


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_leverages_sum_to_the_effective_dimension(
    fisher: Accumulator, F: np.ndarray, S: np.ndarray
) -> None:
    weights = oracle.draw_weights(len(S))
    leverages = fisher.leverage(S, LAMBDA)
    mean = oracle.mean(S, weights) if fisher.center else 0.0
    scale = 1 / fisher.weight_sum if fisher.reduction == "mean" else 1.0
    expected = scale * np.diag((S - mean) @ np.linalg.solve(damped(F), (S - mean).conj().T))
    near(leverages, expected.real, F)
    # Beside a band the inverse is not zero, and meets what the mask has taken from the scores.
    whole = np.allclose(F, oracle.fisher(S, weights, fisher.center, fisher.reduction))
    if whole or (isinstance(fisher, ff.BlockDiagonalFisher) and not fisher.tridiagonal):
        near(weights @ leverages, fisher.effective_dimension(LAMBDA), F)


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_linear_operator(fisher: Accumulator, F: np.ndarray, S: np.ndarray) -> None:
    linalg = pytest.importorskip("scipy.sparse.linalg")
    operator = fisher.as_linear_operator()
    assert isinstance(operator, linalg.LinearOperator)
    v = oracle.draw(len(F), 2, F.dtype)
    oracle.close(operator @ v, F @ v, float, 100, np.linalg.norm(F) * 10)
    oracle.close(operator.H @ v[:, 0], F @ v[:, 0], float, 100, np.linalg.norm(F) * 10)


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_pickle_and_file(fisher: Accumulator, F: np.ndarray, S: np.ndarray, tmp_path: Path) -> None:
    fisher.save(tmp_path / "f.npz")
    for again in (pickle.loads(pickle.dumps(fisher)), ff.load(tmp_path / "f.npz")):
        assert type(again) is type(fisher)
        assert repr(again) == repr(fisher)
        assert np.array_equal(again.to_dense(), fisher.to_dense())


@pytest.mark.parametrize("dtype", [*oracle.DTYPES, *oracle.COMPLEX])
def test_dtype_is_kept(dtype: npt.DTypeLike) -> None:
    for name, fisher, F, _ in cases(dtype):
        p = len(F)
        v = np.ones(p)
        for array in (
            fisher @ v,
            fisher.to_dense(),
            fisher.solve(v, damping=1.0),
            fisher.solve(v, damping=np.ones(p)),
            fisher.solve(v, damping=1.0, solver=ff.CG()),
            fisher.factor(damping=1.0).inverse(),
            fisher.factor(damping=1.0).sample(0),
            fisher.apply_power(v, -0.5, damping=1.0),
            fisher.eigsh(2)[1],
        ):
            assert array.dtype == dtype, name
        for array in (
            fisher.diagonal(),
            fisher.quadratic_form(np.ones((p, 2))),
            fisher.factor(damping=1.0).inverse_diagonal(),
            fisher.leverage(np.ones((2, p), dtype), 1.0),
            fisher.eigsh(2)[0],
        ):
            assert array.dtype == np.finfo(dtype).dtype, name


def test_numpy_leaves_the_product_to_us() -> None:
    F = ff.DenseFisher.from_scores(np.eye(2))
    with pytest.raises(TypeError):
        np.ones(2) @ F  # type: ignore[operator]
    with pytest.raises(TypeError):
        F @ F


@pytest.mark.parametrize(("empty", "samples", "approximate"), STREAMS)
def test_update_merge_and_decay(
    empty: Accumulator,
    samples: Callable[[slice], Any],
    approximate: bool,
) -> None:
    whole = empty.copy().update(*samples(slice(None)))
    size = np.linalg.norm(whole.to_dense())
    first, second = (empty.copy().update(*samples(rows)) for rows in (slice(25), slice(25, None)))

    def same(fisher: Accumulator, expected: np.ndarray, weight_sum: float) -> None:
        assert fisher.weight_sum == pytest.approx(weight_sum)
        oracle.close(fisher.trace(), np.trace(expected).real, float, 1000)
        if not approximate:
            oracle.close(fisher.to_dense(), expected, float, 1000, size)

    # Any split is the whole: in one update after the other, merged, or added.
    for joined in (
        first.copy().update(*samples(slice(25, None))),
        first.copy().merge(second),
        first + second,
        empty.copy().merge(first, second),
    ):
        assert joined.n_samples == 60
        same(joined, whole.to_dense(), whole.weight_sum)
    for untouched in (
        whole.copy().merge(empty),
        whole.copy().update(*samples(slice(0))),
        whole.copy().decay(1.0),
    ):
        assert np.array_equal(untouched.to_dense(), whole.to_dense())
    # Decay keeps the mean and half of its weight.
    half = first.copy().decay(0.5)
    assert half.n_samples == 25
    same(half, first.to_dense(), 0.5 * first.weight_sum)
    data, weights = samples(slice(25))
    lighter = empty.copy().update(data, 0.5 * weights).update(*samples(slice(25, None)))
    same(half.merge(second), lighter.to_dense(), lighter.weight_sum)
    with pytest.raises(TypeError, match="others: expected"):
        first.merge(ff.ScoreFisher(np.ones((2, whole.shape[0]))))  # type: ignore[arg-type]
