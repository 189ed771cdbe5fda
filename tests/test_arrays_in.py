"""Arrays of other libraries on the CPU: seen in their own memory, answered with NumPy's."""

import array
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

import fastfisher as ff
import oracle

S, W = oracle.draw(40, 7), oracle.draw_weights(40)


class Foreign:
    """An array that NumPy knows nothing of."""

    def __init__(self, held: np.ndarray) -> None:
        self._held = held
        self.asked = 0

    @property
    def shape(self) -> tuple[int, int]:
        return self._held.shape

    def __matmul__(self, other: Any) -> None:
        raise AssertionError("a matrix, no operator")


class Exchanged(Foreign):
    """One that speaks DLPack alone."""

    device = (1, 0)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **options: Any) -> Any:
        self.asked += 1
        return self._held.__dlpack__(**options)


class Described(Foreign):
    """One that has the array interface alone."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        self.asked += 1
        return self._held.__array_interface__


each = pytest.mark.parametrize("kind", [Exchanged, Described])


@each
@pytest.mark.parametrize("dtype", [*oracle.EVERY, np.float16])
def test_every_dtype_and_layout(kind: type[Any], dtype: type[np.inexact]) -> None:
    real = np.float32 if dtype is np.float16 else dtype
    weights = W.astype(np.zeros(0, dtype).real.dtype)
    for scores in (oracle.draw(40, 7, real).astype(dtype), oracle.draw(80, 9, real)[::2, 1:8]):
        found = ff.empirical_fisher(kind(scores), weights=kind(weights))
        assert type(found) is np.ndarray
        assert np.array_equal(found, ff.empirical_fisher(scores, weights=weights))


@each
def test_the_memory_is_shared(kind: type[Any]) -> None:
    held = S.copy()
    F = ff.ScoreFisher(kind(held))
    assert F._scores.ctypes.data == held.ctypes.data


@each
def test_wherever_arrays_are_taken(kind: type[Any]) -> None:
    matrix = oracle.fisher(S)
    F = ff.DenseFisher(7).update(kind(S), kind(W))
    G = ff.DenseFisher(7).update(S, W)
    assert np.array_equal(F @ kind(S[0]), G @ S[0])
    assert np.array_equal(F.solve(kind(S[:2].T), damping=kind(S[0] ** 2)),
                          G.solve(S[:2].T, damping=S[0] ** 2))  # fmt: skip
    assert np.array_equal(ff.solve(kind(matrix), S[0]).value, ff.solve(matrix, S[0]).value)
    layers = [(S[:, :2].copy(), S[:, 2:4].copy())]
    assert np.array_equal(
        ff.LayerFisher([tuple(map(kind, layers[0]))]).to_dense(), ff.LayerFisher(layers).to_dense()
    )
    assert np.array_equal(ff.ewc_penalty(kind(S[0] ** 2), kind(S[1]), kind(S[2]), 1.0)[1],
                          ff.ewc_penalty(S[0] ** 2, S[1], S[2], 1.0)[1])  # fmt: skip
    batch = np.stack([matrix, 2 * matrix])
    assert np.array_equal(ff.batch.inverse(kind(batch)).value, ff.batch.inverse(batch).value)
    rates = np.linspace(0.5, 2.0, 5)
    assert np.array_equal(ff.Poisson(kind(rates)).score(kind(rates * 0)),
                          ff.Poisson(rates).score(rates * 0))  # fmt: skip


def test_read_only_exports() -> None:
    held = S.copy()
    held.flags.writeable = False
    assert np.array_equal(ff.gram(Exchanged(held)), ff.gram(S))


def test_buffers_are_read_as_arrays() -> None:
    expected = ff.empirical_fisher(S, weights=W)
    assert np.array_equal(ff.empirical_fisher(S, weights=array.array("d", W)), expected)
    assert np.array_equal(ff.gram(memoryview(cast(Any, S))), ff.gram(S))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (ff.empirical_fisher, "scores"),
        (lambda far: ff.empirical_fisher(S, weights=far), "weights"),
        (lambda far: ff.solve(oracle.fisher(S), far), "rhs"),
        (lambda far: ff.solve(far, S[0]), "fisher"),
        (ff.batch.inverse, "F"),
    ],
)
def test_memory_of_another_device_is_named(call: Callable[..., Any], name: str) -> None:
    far = Exchanged(S)
    far.device = (2, 1)  # CUDA, the second
    with pytest.raises(
        TypeError,
        match=rf"{name}: expected an array in the host's memory, got Exchanged on device \(2, 1\)",
    ):
        call(far)
    assert far.asked == 0


def test_an_array_that_cannot_be_read_says_why() -> None:
    class Rows:
        shape, dtype, ndim = S.shape, S.dtype, 2

        def __array__(self, *_: Any, **options: Any) -> None:
            raise ValueError("disk gone")

    with pytest.raises(ValueError, match="disk gone"):
        ff.empirical_fisher(Rows())
    with pytest.raises(ValueError, match="list of parts that do not form one") as error:
        ff.empirical_fisher([[1.0, 2.0], [3.0]])
    assert isinstance(error.value.__cause__, ValueError)
