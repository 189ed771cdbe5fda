"""As much of CuPy as our engine uses, on the processor: arrays of NumPy with addresses."""

import sys
from contextlib import contextmanager, nullcontext
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from cuda_emulation import compiled, libraries
from fastfisher._ops.cuda import FILES, source

# The modules that import CuPy, which must be read anew with this one in its place.
OURS = ("cupy_batch", "cupy_engine", "cupy_kernels", "cupy_ops")


class Array(np.ndarray):
    """NumPy's array with the attributes of CuPy's that name its place."""

    __module__ = "cupy"  # by which the door knows it

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def device(self):
        return SimpleNamespace(id=0)


def to_device(array):
    """Return the same numbers in an array of ours, in the same memory."""
    return np.asarray(array).view(Array)


class RawModule:
    """A module compiled by the processor's compiler instead of NVRTC."""

    def __init__(self, code, options, name_expressions):
        assert options == ("-std=c++17",)
        (self.name,) = name_expressions
        (self.file,) = (file for file in FILES if source(file) == code)

    def get_function(self, name):
        assert name == self.name
        run = compiled.kernel(self.file, name)

        def launch(grid, block, args, shared_mem=0):
            assert shared_mem <= 48 * 1024
            run(grid, block, args)

        return launch


class Cupy(ModuleType):
    """NumPy's functions, with arrays of ours for NumPy's."""

    ndarray = Array
    RawModule = RawModule
    cuda = SimpleNamespace(
        Device=lambda number=0: SimpleNamespace(id=0, attributes={"MultiProcessorCount": 3}),
        device=SimpleNamespace(get_cublas_handle=lambda: 7, get_cusolver_handle=lambda: 8),
        runtime=SimpleNamespace(memGetInfo=lambda: (2**30, 2**31)),
    )

    def __getattr__(self, name):
        found = getattr(np, name)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*args, **options):
            out = found(*args, **options)
            return out.view(Array) if isinstance(out, np.ndarray) else out

        return call

    @staticmethod
    def asnumpy(array):
        return np.array(array)

    @staticmethod
    def get_default_memory_pool():
        return SimpleNamespace(free_bytes=lambda: 5)


@contextmanager
def installed():
    """Let our modules find this CuPy, and give those modules, by name."""
    cupy = Cupy("cupy")
    backend: Any = ModuleType("cupy_backends.cuda.libs")
    backend.cublas = backend.cusolver = libraries
    cupyx: Any = ModuleType("cupyx")
    cupyx.errstate = lambda linalg: nullcontext()
    names = {
        "cupy": cupy,
        "cupyx": cupyx,
        "cupy_backends": ModuleType("cupy_backends"),
        "cupy_backends.cuda": ModuleType("cupy_backends.cuda"),
        "cupy_backends.cuda.libs": backend,
    }
    ours = [f"fastfisher._ops.{name}" for name in OURS]
    before = {name: sys.modules.get(name) for name in (*names, *ours)}
    for name in ours:
        sys.modules.pop(name, None)
    sys.modules.update(names)
    try:
        yield lambda name: import_module(f"fastfisher._ops.{name}")
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
