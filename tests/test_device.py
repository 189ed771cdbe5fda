"""On a device: what fails there fails as on the host, and nothing of two libraries is mixed."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import device
import fastfisher as ff
import libraries
import oracle
from given import Given, N, P, agree


# ---- failures ----
def test_sums_that_overflow_or_meet_nan_leave_the_fisher_as_it_was() -> None:
    F = ff.DenseFisher.from_scores(device.to_device(oracle.draw(N, P)))
    before = device.back(F.to_dense())
    for bad, message in (
        (np.nan, "got nan at row 3, column 2"),
        (1e200, "got overflow in column 2"),
    ):
        spoilt = oracle.draw(N, P)
        spoilt[3, 2] = bad
        with pytest.raises(ff.NonFiniteError, match=message):
            F.update(device.to_device(spoilt))
        with pytest.raises(ff.NonFiniteError, match=message):
            ff.DenseFisher.from_scores(device.to_device(spoilt))
        with pytest.raises(ff.NonFiniteError, match=message):
            ff.fisher_diagonal(device.to_device(spoilt))
        with pytest.raises(ff.NonFiniteError, match=message.replace("overflow", "(overflow|nan)")):
            ff.DenseFisher.from_scores(device.to_device(spoilt), center=True)
        assert np.array_equal(device.back(F.to_dense()), before)
    spoilt[:, 2] = 1e308
    with pytest.raises(ff.NonFiniteError, match="got overflow in column 2"):
        ff.ScoreFisher(device.to_device(spoilt), center=True)
    with pytest.raises(ff.NonFiniteError, match="got overflow, though"):
        ff.gram(device.to_device(spoilt))


def _spoilt(S: np.ndarray, to: Callable[..., Any]) -> np.ndarray | device.Array:
    S = S.copy()
    S[3, 2] = np.nan
    answer: np.ndarray | device.Array = to(S)
    return answer


@pytest.mark.parametrize(
    "empty",
    [
        lambda: ff.DiagonalFisher(P),
        lambda: ff.DenseFisher(P, center=True),
        lambda: ff.SquareRootFisher(P),
        lambda: ff.LowRankFisher(P, 3),
        lambda: ff.BlockDiagonalFisher([3, 4]),
    ],
)
def test_a_first_update_that_fails_binds_to_no_library(empty: Callable[..., Any]) -> None:
    S = oracle.draw(N, P)
    for bad, good in ((device.to_device, np.asarray), (np.asarray, device.to_device)):
        F = empty()
        with pytest.raises(ff.NonFiniteError, match="got nan at row 3, column 2"):
            F.update(_spoilt(S, bad))
        assert type(F.update(good(S)).diagonal()) is type(good(S))
        assert F.n_samples == N
        with pytest.raises(TypeError, match=r"as the others are|expected a NumPy array"):
            F.update(bad(S))
        F = empty().merge(empty())
        assert type(F.merge(empty().update(good(S))).diagonal()) is type(good(S))


def test_layers_that_fail_first_bind_to_no_library() -> None:
    S = oracle.draw(N, P)
    for bad, good in ((device.to_device, np.asarray), (np.asarray, device.to_device)):
        F = ff.KroneckerFisher([(P, P)], eigen=True)
        with pytest.raises(ff.NonFiniteError, match="got nan at row 3, column 2"):
            F.update([(_spoilt(S, bad), bad(S))])
        assert type(F.update([(good(S), good(S))]).diagonal()) is type(good(S))


def test_conjugate_gradients_end_as_they_do_on_the_host() -> None:
    """The statuses, iterations and values of NumPy's, for every way to end."""
    rng = oracle.rng(3)
    Q, _ = np.linalg.qr(rng.standard_normal((20, 20)))
    hard = (Q * np.logspace(0, 13, 20)) @ Q.T
    rhs = rng.standard_normal((20, 2))
    for A, b, solver in (
        (hard, rhs, ff.CG(rtol=1e-12, preconditioner=None, max_iterations=5)),
        (hard, rhs, ff.CG(rtol=1e-12, preconditioner=None, max_iterations=5, allow_truncated=True)),
        (hard, rhs, ff.CG(rtol=0.5, atol=1e300)),
        (np.diag([1.0, -1.0, 2.0]), np.ones((3, 1)), ff.CG()),
        (np.diag([1.0, 0.0, 2.0]), np.ones((3, 1)), ff.CG()),
        (np.diag([1.0, 2.0, 3.0]), np.zeros((3, 2)), ff.CG()),
        (np.eye(3), np.full((3, 1), 1e-300), ff.CG()),
        (np.eye(3), np.full((3, 1), 1e300), ff.CG()),
        (np.eye(3) * 1e-200, np.full((3, 1), 1e200), ff.CG(preconditioner=None)),
    ):
        found = ff.solve(device.to_device(A), device.to_device(b), solver=solver, on_failure="nan")
        expected = ff.solve(A, b, solver=solver, on_failure="nan")
        assert found.status == expected.status
        assert found.iterations == expected.iterations
        value = device.back(found.value)
        np.testing.assert_allclose(value, expected.value, rtol=1e-9, atol=0, equal_nan=True)


def test_conjugate_gradients_that_stagnate_say_so() -> None:
    rng = oracle.rng(4)
    Q, _ = np.linalg.qr(rng.standard_normal((20, 20)))
    hard, rhs = (Q * np.logspace(0, 15, 20)) @ Q.T, rng.standard_normal(20)
    solver = ff.CG(rtol=1e-14, preconditioner=None, max_iterations=5000)
    # What is left of x / 2^e below the normal numbers of float32 is not worth a success.
    small = np.diag([1.0, 3.0]).astype(np.float32), np.array([1e-44, 1e-44], np.float32)
    for A, b, how in ((hard, rhs, solver), (*small, ff.CG(preconditioner=None, rtol=1e-5))):
        found = ff.solve(device.to_device(A), device.to_device(b), solver=how, on_failure="nan")
        expected = ff.solve(A, b, solver=how, on_failure="nan")
        assert found.status == expected.status == ff.Status.STAGNATED


def test_a_device_too_small_says_the_size() -> None:
    scores = device.to_device(np.ones((2, 4000)))
    with device.left(10**7):
        for call in (
            lambda: ff.empirical_fisher(scores),
            lambda: ff.DenseFisher(4000, like=scores),
            lambda: ff.ScoreFisher(scores).to_dense(),
        ):
            with pytest.raises(ff.MemoryLimitError) as caught:
                call()
            message = str(caught.value)
            assert "left on array_api_strict.Device('device1'), 0.00931 GiB" in message
            assert "got a need of 0." in message
    assert ff.DenseFisher(4000, like=scores).shape == (4000, 4000)


# ---- arrays of two libraries, and of two devices ----
S = oracle.draw(N, P)
MIXED: dict[str, Callable[..., Any]] = {
    "v": lambda a, b: ff.fvp(a(S), b(S[0])),
    "weights": lambda a, b: ff.empirical_fisher(a(S), weights=b(np.ones(N))),
    "out": lambda a, b: ff.empirical_fisher(a(S), out=b(np.empty((P, P)))),
    "rhs": lambda a, b: ff.solve(a(np.eye(P)), b(S[0])),
    "damping": lambda a, b: ff.solve(a(np.eye(P)), a(S[0]), damping=b(np.ones(P))),
    "scores": lambda a, b: ff.DenseFisher(P).update(a(S)).update(b(S)),
    "scores ": lambda a, b: ff.DenseFisher(P, like=a(S)).update(b(S)),
    "others": lambda a, b: ff.DenseFisher.from_scores(a(S)).merge(
        ff.DenseFisher.from_scores(b(S))
    ),
    "layers": lambda a, b: ff.KroneckerFisher([(P, P)]).update([(a(S), b(S))]),
    "layers ": lambda a, b: ff.KroneckerFisher([(P, P)]).update([(a(S), a(S))]).update(
        [(b(S), b(S))]
    ),
}  # fmt: skip


@pytest.mark.parametrize("argument", MIXED)
def test_mixed_libraries_raise_with_both_names(argument: str) -> None:
    call, name = MIXED[argument], argument.strip()
    for a, b, wanted, got in (
        (device.to_device, np.asarray, "device", "(numpy.ndarray|NumPy)"),
        (np.asarray, device.to_device, "NumPy", "device"),
    ):
        with pytest.raises(TypeError, match=rf"{name}.*: expected .*{wanted} array.*got .*{got}"):
            call(a, b)
    assert call(np.asarray, np.asarray) is not None
    assert call(device.to_device, device.to_device) is not None


def test_arrays_of_another_device_raise_with_both_names() -> None:
    here = device.to_device(S)
    with device.on("device2"):
        there = device.to_device(S)
        with pytest.raises(ValueError, match=r"current device, .*device2.*got one on .*device1"):
            ff.empirical_fisher(here)
        assert ff.empirical_fisher(there).shape == (P, P)
    with pytest.raises(ValueError, match=r"v: expected an array on the current device, .*device1"):
        ff.fvp(here, there[0])


def test_numbers_of_the_host_are_taken_beside_arrays_of_a_device() -> None:
    g = Given(libraries.DEVICE, "float32")
    for damping in (1, 1.0, np.float64(1.0), np.int64(1)):
        with device.counted() as asked:
            found = ff.natural_gradient(g.scores, damping=damping)
        assert asked.reads == 4
        g.close(found, oracle.natural_gradient(g.S, 1.0), N * P)


def test_what_takes_no_array_of_a_device_says_so() -> None:
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(device.to_device(S))
    with pytest.raises(TypeError, match="expected a device array as the others are, got list"):
        ff.fvp(device.to_device(S), [1.0] * P)


def test_a_stream_of_arrays_on_a_device_is_summed_in_the_callers_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores, weights = oracle.draw(N, P), oracle.draw_weights(N)
    parts = ff.chunks(device.to_device(scores), device.to_device(weights), rows=9)
    whole = ff.DenseFisher.from_scores(scores, weights=weights)
    threads = set()

    def rows() -> Iterator[tuple[device.Array, device.Array]]:
        """Fill one buffer again and again, as only the order of a stream allows."""
        buffer = device.to_device(np.empty((9, P)))
        for part, w in parts:
            buffer[: len(part)] = part
            yield buffer[: len(part)], w

    F = ff.DenseFisher(P)
    update = F.update

    def watched(*args: device.Array, **keywords: Any) -> ff.DenseFisher:
        threads.add(threading.get_ident())
        return update(*args, **keywords)

    monkeypatch.setattr(F, "update", watched)
    F.update_from(rows())
    assert threads == {threading.get_ident()}
    agree(libraries.DEVICE, F, whole)
    agree(libraries.DEVICE, ff.DenseFisher(P).update_from(parts), whole)
    S = device.to_device(scores)
    agree(libraries.DEVICE, ff.DenseFisher(P).update_from(S), ff.DenseFisher.from_scores(scores))
    scores[30] = np.nan
    F = ff.DenseFisher(P)
    with pytest.raises(ff.NonFiniteError, match="row 3, column 0") as caught:
        F.update_from(ff.chunks(device.to_device(scores), rows=9))
    assert F.n_samples == 27
    assert "rows 27 to 35 of the stream" in caught.value.__notes__[0]
