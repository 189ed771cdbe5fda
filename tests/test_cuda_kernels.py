"""The CUDA path without a device: its kernels as they stand, emulated, against the oracle."""

from collections.abc import Iterator

import numpy as np
import pytest

import cuda_cases
import cuda_cases as cases
from cuda_emulation import compiled, emulated_cupy, instances

OPTIONS = ((False, False), (True, True))
PAIRS = [pytest.param(*x, id=f"{x[0].name}-{x[1].name}") for x in cases.DTYPES]
ALONE = [pytest.param(x[0], id=x[0].name) for x in cases.PLAIN]
REAL = [pytest.param(np.dtype(x), id=x) for x in ("float64", "float32")]


@pytest.fixture(scope="module")
def kit() -> Iterator[cuda_cases.Kit]:
    if compiled.COMPILER is None:
        pytest.skip("no C++ compiler: the kernels cannot be emulated")
    compiled.build(instances.RUN)
    with emulated_cupy.installed() as module:
        yield cases.Kit(module, emulated_cupy.to_device, np.array)


# ---- emulated ----
@pytest.mark.parametrize(("scores", "sums"), PAIRS)
def test_sums_over_samples(kit: cuda_cases.Kit, scores: np.dtype, sums: np.dtype) -> None:
    for n, p in cases.SHAPES if scores == np.float64 else cases.SHAPES[2:5]:
        for weighted, centred in OPTIONS:
            cases.check_column_sums(kit, n, p, scores, sums, weighted, centred)
            cases.check_prepared(kit, n, p, scores, sums, weighted, centred)


@pytest.mark.parametrize(("scores", "sums"), PAIRS)
def test_products_in_one_pass(kit: cuda_cases.Kit, scores: np.dtype, sums: np.dtype) -> None:
    for n, p, k in ((1, 1, 1), (3, 5, 2), (41, 8, 1), (10, 33, 2), (0, 3, 1), (5, 0, 2)):
        for weighted, centred in OPTIONS:
            cases.check_fvp(kit, n, p, k, scores, sums, weighted, centred)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize(
    ("n", "p", "k"),
    [(7, 500, 1), (9, 1030, 1), (5, 260, 4), (5, 67, 8), (6, 300, 7), (4, 17000, 1), (4, 30, 9)],
)
def test_products_of_every_kind_of_team(
    kit: cuda_cases.Kit, n: int, p: int, k: int, dtype: np.dtype
) -> None:
    """A warp a row, a block a row, and rows or columns that no block can hold."""
    cases.check_fvp(kit, n, p, k, dtype, dtype, False, True)


@pytest.mark.parametrize("dtype", ALONE)
def test_any_strides(kit: cuda_cases.Kit, dtype: np.dtype) -> None:
    cases.check_layouts(kit, dtype)


@pytest.mark.parametrize("dtype", ALONE)
def test_the_first_number_that_is_not_finite(kit: cuda_cases.Kit, dtype: np.dtype) -> None:
    cases.check_first_bad(kit, dtype)


@pytest.mark.parametrize(("scores", "sums"), PAIRS)
def test_products_of_scores(kit: cuda_cases.Kit, scores: np.dtype, sums: np.dtype) -> None:
    for n, p in ((1, 1), (20, 7), (3, 40), (0, 3), (4, 300), (270, 3)):
        for weighted, centred in OPTIONS:
            cases.check_add_scores(kit, n, p, scores, sums, weighted, centred)


@pytest.mark.parametrize("dtype", ALONE)
def test_triangles(kit: cuda_cases.Kit, dtype: np.dtype) -> None:
    for p in (0, 1, 31, 32, 70):
        cases.check_mirror(kit, p, dtype)
    for p in (0, 1, 5, 40):
        cases.check_cholesky(kit, p, dtype)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("p", [1, 3, 8, 9, 33, 80])
def test_small_systems(kit: cuda_cases.Kit, p: int, dtype: np.dtype) -> None:
    cases.check_batch(kit, p, dtype, count=70 if p <= 8 else 21)


def test_what_becomes_of_small_systems_that_fail(kit: cuda_cases.Kit) -> None:
    cases.check_batch_policies(kit)


@pytest.mark.parametrize("dtype", REAL)
def test_small_fishers(kit: cuda_cases.Kit, dtype: np.dtype) -> None:
    cases.check_batch_fisher(kit, dtype)


@pytest.mark.parametrize("dtype", REAL)
def test_public_functions_agree_with_the_host(kit: cuda_cases.Kit, dtype: np.dtype) -> None:
    cases.check_public(kit, dtype)


def test_a_mistake_is_noticed(kit: cuda_cases.Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulation is no rubber stamp: a kernel that waits in vain, and an argument too wide."""
    with pytest.raises(AssertionError, match="first_bad"):
        kit.kernels.launch("prepare.cu", "first_bad<double>", (1, 1), 256, np.float32(1))
    body = "{ if (threadIdx.x < n) __syncthreads(); }"
    text = f"template <class T> __global__ void stuck(int n) {body}"
    monkeypatch.setattr(compiled, "source", lambda file: text)
    with pytest.raises(AssertionError, match="a barrier is missed"):
        compiled.kernel("stuck.cu", "stuck<double>")((1, 1, 1), (64, 1, 1), (np.int32(5),))
