"""As much of CuPy as our engine uses, on the processor: arrays of NumPy with addresses."""

import sys
from collections.abc import Callable, Iterator, Sequence
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
    def data(self) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def device(self) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(id=0)


def to_device(array: np.ndarray) -> Any:
    """Return the same numbers in an array of ours, in the same memory."""
    return np.asarray(array).view(Array)


class RawModule:
    """A module compiled by the processor's compiler instead of NVRTC."""

    def __init__(self, code: str, options: tuple[str], name_expressions: tuple[str]) -> None:
        assert options == ("-std=c++17",)
        (self.name,) = name_expressions
        (self.file,) = (file for file in FILES if source(file) == code)

    def get_function(self, name: str) -> Callable[..., None]:
        assert name == self.name
        run = compiled.kernel(self.file, name)

        def launch(
            grid: tuple[int, int, int],
            block: tuple[int, int, int],
            args: Sequence[np.generic | np.ndarray],
            shared_mem: int = 0,
        ) -> None:
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

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found = getattr(np, name)
        if not callable(found) or isinstance(found, type):
            answer: Callable[..., Any] = found
            return answer

        def call(*args: Any, **options: Any) -> Any:
            out = found(*args, **options)
            return out.view(Array) if isinstance(out, np.ndarray) else out

        return call

    @staticmethod
    def asnumpy(array: np.ndarray) -> Any:
        return np.array(array)

    @staticmethod
    def get_default_memory_pool() -> Any:
        return SimpleNamespace(free_bytes=lambda: 5)


@contextmanager
def installed() -> Iterator[Callable[[str], ModuleType]]:
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
