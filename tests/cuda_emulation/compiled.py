"""The CUDA kernels, the same text, compiled for the processor and run fibre by fibre."""

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastfisher._ops.cuda import source

HERE = Path(__file__).parent
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
_known: dict[tuple[str, str], Any] = {}
folder = tempfile.TemporaryDirectory(prefix="fastfisher-cuda-")


def build(expressions: Mapping[str, Sequence[str]]) -> None:
    """Compile instances of kernels, ``{file: expressions}``, at once: a process for each file."""
    assert COMPILER is not None
    running: list[Any] = []
    for file, names in expressions.items():
        names = sorted({x for x in names if (file, x) not in _known})
        if not names:
            continue
        text = source(file)
        # Halves are widened by our own definition, after the structures and before their use.
        text = text.replace("#ifdef __CUDA_ARCH__", '#include "widen.hpp"\n#ifdef __CUDA_ARCH__')
        calls = "\n".join(
            f'extern "C" int call_{i}(const unsigned* grid, unsigned block, void** given) '
            f"{{ return emulation::launch({name}, grid, block, given); }}"
            for i, name in enumerate(names)
        )
        stem = Path(folder.name) / f"{Path(file).stem}_{len(_known)}_{len(running)}"
        stem.with_suffix(".cpp").write_text(f'#include "shim.hpp"\n{text}\n{calls}\n')
        command = [
            *(COMPILER, "-std=c++17", "-O0", "-w", "-shared", "-fPIC", f"-I{HERE}"),
            *("-o", str(stem.with_suffix(".so")), str(stem.with_suffix(".cpp"))),
        ]
        running.append((file, names, stem, subprocess.Popen(command)))
    for file, names, stem, process in running:
        assert process.wait() == 0, f"{file} does not compile"
        library = ctypes.CDLL(str(stem.with_suffix(".so")))
        for i, name in enumerate(names):
            _known[file, name] = getattr(library, f"call_{i}")


def kernel(
    file: str, name: str
) -> Callable[
    [tuple[int, int, int], tuple[int, int, int], Sequence[np.generic | np.ndarray]], None
]:
    """Return an instance as a function of grid, block and arguments, numbers of NumPy."""
    if (file, name) not in _known:
        build({file: [name]})
    call = _known[file, name]
    wanted = arguments(source(file), name)

    def run(
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[np.generic | np.ndarray],
    ) -> None:
        assert [x.dtype.itemsize for x in args] == wanted, (name, [x.dtype for x in args], wanted)
        assert block[1:] == (1, 1)
        assert grid[2] == 1
        assert grid[1] <= 65535
        held = [x.tobytes() for x in args]
        boxes = [ctypes.create_string_buffer(x, len(x)) for x in held]
        given = (ctypes.c_void_p * len(boxes))(*(ctypes.addressof(x) for x in boxes))
        status = call((ctypes.c_uint * 3)(*grid), ctypes.c_uint(block[0]), given)
        assert status == 0, f"{name}: {['', 'bad block', 'a barrier is missed'][status]}"

    return run


def arguments(text: str, name: str) -> list[int]:
    """Return the sizes of what a kernel takes, read from its declaration."""
    called = re.fullmatch(r"(\w+)<(.*)>", name)
    assert called is not None
    bare, types = called.groups()
    declared = re.search(rf"\b{bare}\(([^)]*)\) \{{", text)
    assert declared is not None
    listed = declared.group(1)
    sums = re.findall("double|float", types)[-1:]  # the type summed in comes last
    size = {"Index": 8, "int": 4, "T": 4 if sums == ["float"] else 8}
    return [8 if "*" in part else size[part.split()[-2]] for part in listed.split(",")]
