"""On a device: each kernel and engine call against the oracle. ``python -m pytest -m gpu``."""

import importlib
import math
from typing import Any

import numpy as np
import pytest

import cuda_cases as cases
import fastfisher as ff
from oracle import draw, draw_weights, fisher


def devices() -> tuple[int, str]:
    """Return how many devices CuPy can use here, and why there is none."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        return 0, "CuPy is not installed: pip install 'fastfisher[cupy]'"
    try:
        return cupy.cuda.runtime.getDeviceCount(), "no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return 0, f"no CUDA device: {error}"


COUNT, REASON = devices()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(COUNT == 0, reason=REASON)]

OPTIONS = ((False, False), (True, False), (True, True))  # weighted, centred
PAIRS = [pytest.param(*x, id=f"{x[0].name}-{x[1].name}") for x in cases.DTYPES]
ALONE = [pytest.param(x[0], id=x[0].name) for x in cases.PLAIN]
REAL = [pytest.param(np.dtype(x), id=x) for x in ("float64", "float32")]
SHAPES = (*cases.SHAPES, (2000, 500), (513, 4096), (70, 8194), (20, 70001))


@pytest.fixture(scope="module")
def cupy() -> Any:
    return importlib.import_module("cupy")


@pytest.fixture(scope="module")
def kit(cupy: Any) -> Any:
    def module(name: Any) -> Any:
        return importlib.import_module(f"fastfisher._ops.{name}")

    return cases.Kit(module, cupy.asarray, cupy.asnumpy)


# ---- kernels and libraries ----
@pytest.mark.parametrize(("scores", "sums"), PAIRS)
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_sums_over_samples(kit: Any, n: Any, p: Any, scores: Any, sums: Any) -> None:
    for option in OPTIONS:
        cases.check_column_sums(kit, n, p, scores, sums, *option)
        cases.check_prepared(kit, n, p, scores, sums, *option)


@pytest.mark.parametrize(("scores", "sums"), PAIRS)
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_products_in_one_pass(kit: Any, n: Any, p: Any, scores: Any, sums: Any) -> None:
    for k in (1, 2, 3, 8, 9):
        for option in OPTIONS:
            cases.check_fvp(kit, n, p, k, scores, sums, *option)


@pytest.mark.parametrize("dtype", ALONE)
def test_any_strides(kit: Any, dtype: np.dtype) -> None:
    cases.check_layouts(kit, dtype)


@pytest.mark.parametrize("dtype", ALONE)
def test_the_first_number_that_is_not_finite(kit: Any, dtype: np.dtype) -> None:
    cases.check_first_bad(kit, dtype)


@pytest.mark.parametrize(("scores", "sums"), PAIRS)
@pytest.mark.parametrize(("n", "p"), [(1, 1), (20, 7), (3, 40), (0, 3), (900, 301), (300, 900)])
def test_products_of_scores(kit: Any, n: Any, p: Any, scores: Any, sums: Any) -> None:
    for option in OPTIONS:
        cases.check_add_scores(kit, n, p, scores, sums, *option)


@pytest.mark.parametrize("dtype", ALONE)
def test_triangles(kit: Any, dtype: np.dtype) -> None:
    for p in (0, 1, 5, 40, 331, 1200):
        cases.check_mirror(kit, p, dtype)
        cases.check_cholesky(kit, p, dtype)


@pytest.mark.parametrize("dtype", REAL)
def test_small_systems(kit: Any, dtype: np.dtype) -> None:
    for p in (*range(1, 13), 15, 16, 31, 32, 33, 76, 77, 107, 108, 200):
        cases.check_batch(kit, p, dtype, count=300)


def test_what_becomes_of_small_systems_that_fail(kit: Any) -> None:
    cases.check_batch_policies(kit)


@pytest.mark.parametrize("dtype", REAL)
def test_small_fishers(kit: Any, dtype: np.dtype) -> None:
    cases.check_batch_fisher(kit, dtype)


# ---- how a device is used ----
@pytest.mark.parametrize("dtype", REAL)
def test_public_functions_agree_with_the_host(kit: Any, dtype: np.dtype) -> None:
    cases.check_public(kit, dtype)


def test_same_bits_each_time_and_on_every_stream(cupy: Any) -> None:
    S, w, v = draw(5000, 200), draw_weights(5000), draw(200, 1)[:, 0]
    first = [cupy.asnumpy(x) for x in cases.everything(cupy.asarray, S, w, v)]
    stream = cupy.cuda.Stream(non_blocking=True)
    busy = cupy.random.default_rng(0).standard_normal((4000, 4000))
    for _ in range(3):
        busy @ busy  # the default stream has work that ours does not wait for
        with stream:
            again = cases.everything(cupy.asarray, S, w, v)
        stream.synchronize()
        for x, y in zip(first, again, strict=True):
            assert x.tobytes() == cupy.asnumpy(y).tobytes()


def test_what_is_not_positive_definite_is_told(cupy: Any) -> None:
    F = np.eye(300)
    F[200, 200] = -1
    with pytest.raises(ff.NotPositiveDefiniteError) as error:
        ff.solve(cupy.asarray(F), cupy.ones(300))
    assert error.value.pivot == 200
    scores = draw(50, 30)
    scores[17, 3] = np.nan
    with pytest.raises(ff.NonFiniteError, match="row 17, column 3"):
        ff.empirical_fisher(cupy.asarray(scores))


def test_what_does_not_fit_is_refused_with_its_size(cupy: Any) -> None:
    _, total = cupy.cuda.runtime.memGetInfo()
    params = math.isqrt(2 * total // 8)
    with pytest.raises(ff.MemoryLimitError, match="GiB"):
        ff.empirical_fisher(cupy.ones((1, params)))


def test_offsets_cost_no_digits(cupy: Any) -> None:
    S = draw(3000, 40) + 1e6
    found = cupy.asnumpy(ff.empirical_fisher(cupy.asarray(S), center=True))
    wanted = fisher(S - 1e6, center=True)
    # The mean is exact to eps · 1e6, which squares enter the sum.
    assert np.abs(found - wanted).max() <= 1e-9


@pytest.mark.skipif(COUNT < 2, reason="one device only")
def test_two_devices(cupy: Any) -> None:
    S = draw(100, 30)
    with cupy.cuda.Device(1):
        there = cupy.asarray(S)
        found = ff.empirical_fisher(there)
        assert found.device.id == 1
    with cupy.cuda.Device(0), pytest.raises(ValueError, match="current device"):
        ff.empirical_fisher(there)
    with cupy.cuda.Device(0):
        here = ff.empirical_fisher(cupy.asarray(S))
    assert cupy.asnumpy(here).tobytes() == cupy.asnumpy(found).tobytes()
