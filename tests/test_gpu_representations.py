"""Every representation on a GPU: what the device of the tests promises, CuPy's arrays keep."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import oracle
from representations import cases, streams

pytestmark = pytest.mark.gpu
LAMBDA = 0.3


@pytest.fixture(scope="module")
def cupy() -> None:
    library = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        library.zeros(1).sum().item()
    except library.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no GPU: {error}")
    answer: None = library
    return answer


def near(actual: Any, expected: Any, F: Any, cupy: Any) -> None:
    assert isinstance(actual, cupy.ndarray)
    kappa = np.linalg.cond(F + LAMBDA * np.eye(len(F)))
    oracle.close(cupy.asnumpy(actual), expected, float, 10 * len(F) * kappa)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_every_representation(cupy: Any, dtype: npt.DTypeLike) -> None:
    for _, fisher, F, S in cases(dtype, cupy.asarray):
        A, v = F + LAMBDA * np.eye(len(F)), oracle.draw(len(F), 3, dtype)
        V = cupy.asarray(v)
        near(fisher.to_dense(), F, F, cupy)
        near(fisher @ V, F @ v, F, cupy)
        near(fisher.solve(V, damping=LAMBDA), np.linalg.solve(A, v), F, cupy)
        factor = fisher.factor(damping=LAMBDA)
        near(factor.inverse(), np.linalg.inv(A), F, cupy)
        near(factor.inverse_diagonal(), np.diag(np.linalg.inv(A)).real, F, cupy)
        assert factor.logdet == pytest.approx(np.linalg.slogdet(A)[1])
        assert factor.sample(0, 5).shape == (5, len(F))
        values, vectors = fisher.eigsh(3)
        near(values, np.linalg.eigvalsh(F)[: -3 - 1 : -1], F, cupy)
        near(vectors * values, F @ cupy.asnumpy(vectors), F, cupy)
        assert fisher.leverage(cupy.asarray(S), LAMBDA).shape == (len(S),)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_streams(cupy: Any, dtype: npt.DTypeLike) -> None:
    theirs = {name: (empty, samples) for name, empty, samples in streams(dtype)}
    for name, empty, samples in streams(dtype, cupy.asarray):
        other, rows = theirs[name]
        ours = empty.copy().update(*samples(slice(25)))
        ours.merge(empty.copy().update(*samples(slice(25, None)))).decay(0.5)
        expected = other.copy().update(*rows(slice(None))).decay(0.5)
        assert ours.trace() == pytest.approx(expected.trace())
        if not name.startswith("approximate"):
            near(ours.to_dense(), expected.to_dense(), expected.to_dense(), cupy)
