"""The CUDA path without a device: its kernels as they stand, emulated, against the oracle."""

import ctypes
import importlib.util
import inspect
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import cuda_cases as cases
from cuda_emulation import compiled, emulated_cupy, instances
from fastfisher._ops.cuda import FILES, source

OPTIONS = ((False, False), (True, True))
PAIRS = [pytest.param(*x, id=f"{x[0].name}-{x[1].name}") for x in cases.DTYPES]
ALONE = [pytest.param(x[0], id=x[0].name) for x in cases.PLAIN]
REAL = [pytest.param(np.dtype(x), id=x) for x in ("float64", "float32")]


@pytest.fixture(scope="module")
def kit():
    if compiled.COMPILER is None:
        pytest.skip("no C++ compiler: the kernels cannot be emulated")
    compiled.build(instances.RUN)
    with emulated_cupy.installed() as module:
        yield cases.Kit(module, emulated_cupy.to_device, np.array)


# ---- emulated ----
@pytest.mark.parametrize(("scores", "sums"), PAIRS)
def test_sums_over_samples(kit, scores, sums):
    for n, p in cases.SHAPES:
        for weighted, centred in OPTIONS:
            cases.check_column_sums(kit, n, p, scores, sums, weighted, centred)
            cases.check_prepared(kit, n, p, scores, sums, weighted, centred)


@pytest.mark.parametrize(("scores", "sums"), PAIRS)
def test_products_in_one_pass(kit, scores, sums):
    for n, p, k in ((1, 1, 1), (3, 5, 2), (41, 8, 1), (10, 33, 2), (0, 3, 1), (5, 0, 2)):
        for weighted, centred in OPTIONS:
            cases.check_fvp(kit, n, p, k, scores, sums, weighted, centred)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize(
    ("n", "p", "k"),
    [(7, 500, 1), (9, 1030, 1), (5, 260, 4), (5, 67, 8), (6, 300, 7), (4, 17000, 1), (4, 30, 9)],
)
def test_products_of_every_kind_of_team(kit, n, p, k, dtype):
    """A warp a row, a block a row, and rows or columns that no block can hold."""
    cases.check_fvp(kit, n, p, k, dtype, dtype, False, True)


@pytest.mark.parametrize("dtype", ALONE)
def test_any_strides(kit, dtype):
    cases.check_layouts(kit, dtype)


@pytest.mark.parametrize("dtype", ALONE)
def test_the_first_number_that_is_not_finite(kit, dtype):
    cases.check_first_bad(kit, dtype)


@pytest.mark.parametrize(("scores", "sums"), PAIRS)
def test_products_of_scores(kit, scores, sums):
    for n, p in ((1, 1), (20, 7), (3, 40), (0, 3)):
        for weighted, centred in OPTIONS:
            cases.check_add_scores(kit, n, p, scores, sums, weighted, centred)


@pytest.mark.parametrize("dtype", ALONE)
def test_triangles(kit, dtype):
    for p in (0, 1, 31, 32, 70):
        cases.check_mirror(kit, p, dtype)
    for p in (0, 1, 5, 40):
        cases.check_cholesky(kit, p, dtype)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("p", [1, 3, 8, 9, 33, 110])
def test_small_systems(kit, p, dtype):
    cases.check_batch(kit, p, dtype, count=70 if p <= 8 else 22)


def test_what_becomes_of_small_systems_that_fail(kit):
    cases.check_batch_policies(kit)


@pytest.mark.parametrize("dtype", REAL)
def test_small_fishers(kit, dtype):
    cases.check_batch_fisher(kit, dtype)


def test_a_mistake_is_noticed(kit, monkeypatch):
    """The emulation is no rubber stamp: a kernel that waits in vain, and an argument too wide."""
    with pytest.raises(AssertionError, match="prepare"):
        kit.kernels.launch("prepare.cu", "first_bad<double>", (1, 1), 256, np.float32(1))
    text = "template <class T> __global__ void stuck(int n) { if (threadIdx.x < n) __syncthreads(); }"
    monkeypatch.setattr(compiled, "source", lambda file: text)
    with pytest.raises(AssertionError, match="a barrier is missed"):
        compiled.kernel("stuck.cu", "stuck<double>")((1, 1, 1), (64, 1, 1), (np.int32(5),))


# ---- compiled for devices ----
def nvrtc():
    """Return NVIDIA's run-time compiler, which needs no device, from its Python package."""
    if importlib.util.find_spec("nvidia") is None or not files("nvidia").is_dir():
        return None
    for root in importlib.util.find_spec("nvidia").submodule_search_locations:
        for library in sorted(Path(root).glob("*/lib/libnvrtc.so.*")):
            return ctypes.CDLL(str(library))
    return None


@pytest.mark.parametrize("architecture", ["compute_70", "compute_80", "compute_90"])
@pytest.mark.parametrize("file", FILES)
def test_every_kernel_compiles_for_devices(file, architecture):
    library = nvrtc()
    if library is None:
        pytest.skip("no NVRTC: pip install nvidia-cuda-nvrtc-cu12")
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    text = source(file).encode()
    assert not library.nvrtcCreateProgram(ctypes.byref(program), text, b"", 0, None, None)
    for name in instances.COMPILED[file]:
        assert not library.nvrtcAddNameExpression(program, name.encode())
    options = (ctypes.c_char_p * 2)(b"-std=c++17", f"-arch={architecture}".encode())
    status = library.nvrtcCompileProgram(program, 2, options)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
    for name in instances.COMPILED[file]:
        lowered = ctypes.c_char_p()
        assert not library.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(lowered))
    library.nvrtcDestroyProgram(ctypes.byref(program))


# ---- what CuPy offers ----
SIGNATURES = {
    "syrk": "handle uplo trans n k alpha A lda beta C ldc",
    "trsm": "handle side uplo trans diag m n alpha Aarray lda Barray ldb",
    "potrf": "handle uplo n A lda work lwork devInfo",
    "potrf_bufferSize": "handle uplo n A lda",
}


def test_cupy_has_what_the_engine_uses():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    cublas = pytest.importorskip("cupy_backends.cuda.libs.cublas", exc_type=ImportError)
    cusolver = pytest.importorskip("cupy_backends.cuda.libs.cusolver", exc_type=ImportError)
    from cupy_backends.cuda.api import runtime

    def takes(function):
        return " ".join(x.split()[-1] for x in function.__doc__.split("(")[1].split(")")[0].split(","))

    for name, wanted in SIGNATURES.items():
        for letter in "sd" if name == "syrk" else "sdcz":
            library = cusolver if name.startswith("potrf") else cublas
            assert takes(getattr(library, letter + name)) == wanted
    assert takes(cublas.gemmEx) == (
        "handle transa transb m n k alpha A Atype lda B Btype ldb beta C Ctype ldc computeType algo"
    )
    assert takes(cublas.setPointerMode) == "handle mode"
    # Numbers that the engine writes out.
    assert (cublas.CUBLAS_OP_N, cublas.CUBLAS_OP_T, cublas.CUBLAS_OP_C) == (0, 1, 2)
    assert (cublas.CUBLAS_FILL_MODE_UPPER, cublas.CUBLAS_SIDE_LEFT) == (1, 0)
    assert (cublas.CUBLAS_DIAG_NON_UNIT, cublas.CUBLAS_GEMM_DEFAULT) == (0, -1)
    assert (cublas.CUBLAS_COMPUTE_32F, cublas.CUBLAS_COMPUTE_64F) == (68, 70)
    assert (runtime.CUDA_R_32F, runtime.CUDA_R_64F, runtime.CUDA_R_16F) == (0, 1, 2)
    assert (runtime.CUDA_C_32F, runtime.CUDA_C_64F, runtime.CUDA_R_16BF) == (4, 5, 14)
    assert cublas.CUBLAS_POINTER_MODE_HOST == 0
    assert callable(cupy.cuda.device.get_cublas_handle)
    assert callable(cupy.cuda.device.get_cusolver_handle)
    assert {"code", "options", "name_expressions"} <= set(inspect.signature(cupy.RawModule).parameters)
    assert callable(cupy.cuda.runtime.memGetInfo)


def test_the_emulated_libraries_take_what_the_real_ones_take():
    from cuda_emulation import libraries

    for name, wanted in SIGNATURES.items():
        for letter in "sd" if name == "syrk" else "sdcz":
            found = inspect.signature(getattr(libraries, letter + name)).parameters
            assert len(found) == len(wanted.split())
