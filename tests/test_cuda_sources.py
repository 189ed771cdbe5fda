"""The CUDA path without a device: every kernel compiles for one, and CuPy has what we call."""

import ctypes
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest

from cuda_emulation import instances, libraries
from fastfisher._ops.cuda import FILES, source


# ---- compiled for devices ----
def nvrtc() -> ctypes.CDLL | None:
    """Return NVIDIA's run-time compiler, which needs no device, from its Python package."""
    package = importlib.util.find_spec("nvidia")
    for root in (package.submodule_search_locations or ()) if package else ():
        for library in sorted(Path(root).glob("*/lib/libnvrtc.so.*")):
            return ctypes.CDLL(str(library))
    return None


@pytest.mark.parametrize("architecture", ["compute_70", "compute_80", "compute_90"])
@pytest.mark.parametrize("file", FILES)
def test_every_kernel_compiles_for_devices(file: str, architecture: str) -> None:
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


def test_cupy_has_what_the_engine_uses() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    cublas = pytest.importorskip("cupy_backends.cuda.libs.cublas", exc_type=ImportError)
    cusolver = pytest.importorskip("cupy_backends.cuda.libs.cusolver", exc_type=ImportError)
    from cupy_backends.cuda.api import runtime

    def takes(function: Any) -> Any:
        listed = function.__doc__.split("(")[1].split(")")[0]
        return " ".join(x.split()[-1] for x in listed.split(","))

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
    for word in ("code", "options", "name_expressions"):
        assert f"{word} (" in cupy.RawModule.__doc__
    assert callable(cupy.cuda.runtime.memGetInfo)


def test_the_emulated_libraries_take_what_the_real_ones_take() -> None:
    for name, wanted in SIGNATURES.items():
        for letter in "sd" if name == "syrk" else "sdcz":
            found = inspect.signature(getattr(libraries, letter + name)).parameters
            assert len(found) == len(wanted.split())
