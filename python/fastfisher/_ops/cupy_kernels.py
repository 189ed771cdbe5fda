"""Our CUDA kernels on CuPy arrays: which instance a call takes, and on what grid."""

from functools import cache
from typing import Any

import cupy
import numpy as np

from fastfisher._ops.cuda import source
from fastfisher._ops.types import Array, DType

__all__ = [
    "FVP_COLUMNS",
    "TYPES",
    "column_sums",
    "first_bad",
    "fvp",
    "instance",
    "launch",
    "mirror",
    "prepare",
    "processors",
    "real_view",
]

# What the kernels call the numbers.
TYPES = {"float64": "double", "float32": "float", "float16": "Half", "bfloat16": "Bfloat"}
# Of CUDA: a grid is at most so high.
GRID_Y = 65535
# Blocks of 256 threads that fill a multiprocessor.
RESIDENT = 8
# Right-hand sides that one pass takes.
FVP_COLUMNS = 8
# Threads of a block whose warps hold a row each, and of the largest that holds one together.
NARROW, WIDE = 128, 512


@cache
def instance(file: str, expression: str, device: int) -> Any:  # noqa: ARG001
    """Return one instance of a kernel template for a device, compiled at its first use.

    CuPy keeps what was compiled in files.
    """
    module = cupy.RawModule(
        code=source(file), options=("-std=c++17",), name_expressions=(expression,)
    )
    return module.get_function(expression)


def launch(
    file: str, expression: str, grid: tuple[int, int], block: int, *args: Any, shared: int = 0
) -> None:
    """Run a kernel on the current stream; integers are 64 bits wide, None is a null pointer."""
    given = tuple(_argument(x) for x in args)
    kernel = instance(file, expression, cupy.cuda.Device().id)
    kernel((*grid, 1), (block, 1, 1), given, shared_mem=shared)


def _argument(x: Any) -> np.generic:
    if x is None:
        return np.uint64(0)
    if isinstance(x, int):
        return np.int64(x)
    return x if isinstance(x, np.generic) else np.uint64(x.data.ptr)


def processors() -> int:
    """Return the number of multiprocessors of the current device."""
    return _processors(cupy.cuda.Device().id)


@cache
def _processors(device: int) -> int:
    return int(cupy.cuda.Device(device).attributes["MultiProcessorCount"])


def real_view(array: Array) -> Array:
    """Return the numbers of an array (n, p), Re and Im of complex ones as two columns."""
    if array.dtype.kind != "c":
        return array
    return cupy.ascontiguousarray(array).view(np.zeros(0, array.dtype).real.dtype)


def _steps(array: Array) -> tuple[int, int]:
    """Return how many numbers apart rows and columns lie."""
    row, col = array.strides
    return row // array.itemsize, col // array.itemsize


def _together(scores: Array, dtype: DType) -> int:
    """Return how many columns one load takes: as many as 16 bytes of sums hold, if all align."""
    width = 16 // dtype.itemsize
    row, col = _steps(scores)
    aligned = scores.data.ptr % (width * scores.itemsize) == 0
    return width if col == 1 and aligned and not (row % width or scores.shape[1] % width) else 1


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _power(a: int) -> int:
    """Return the least power of two from a on."""
    return 1 << max(a - 1, 0).bit_length()


def column_sums(
    scores: Array, weights: Array | None, mean: Array | None, dtype: DType, *, squares: bool
) -> Array:
    """Return Σ w (s − m), or Σ w (s − m)² with `squares`, (p,) of `dtype`; all are real."""
    samples, params = scores.shape
    if samples == 0 or params == 0:
        return cupy.zeros(params, dtype=dtype)
    width = _together(scores, dtype)
    lanes = min(_power(_ceil(params, width)), 32)
    across = _ceil(params, lanes * width)
    # As many slabs as fill the device, of 4 rows a thread at least.
    slabs = min(_ceil(RESIDENT * processors(), across), _ceil(samples, 4 * 256 // lanes), GRID_Y)
    partial = cupy.empty((slabs, params), dtype=dtype)
    flag = "true" if squares else "false"
    name = f"column_sums<{TYPES[scores.dtype.name]}, {TYPES[dtype.name]}, {width}, {flag}>"
    launch(
        "stream.cu",
        name,
        (across, slabs),
        256,
        scores,
        *_steps(scores),
        weights,
        mean,
        samples,
        params,
        np.int32(lanes),
        partial,
    )
    return _sum(partial, 1.0, 0.0, None)


def _sum(partial: Array, scale: float, damping: float, x: Array | None) -> Array:
    """Return scale · Σ partial + damping · x, of the shape of one part."""
    dtype = partial.dtype
    out = cupy.empty(partial.shape[1:], dtype=dtype)
    kind = dtype.type
    launch(
        "stream.cu",
        f"sum_partials<{TYPES[dtype.name]}>",
        (_ceil(out.size, 32), 1),
        1024,
        partial,
        len(partial),
        int(out.size),
        kind(scale),
        kind(damping),
        x,
        out,
    )
    return out


def fvp(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    V: Array,
    scale: float,
    damping: float,
) -> Array | None:
    """Return scale · Σ w (s − m)(s − m)ᵀ V + damping · V in one pass, or None: rows do not fit.

    All are real; V is (p, k), k ≤ `FVP_COLUMNS`. A row has to fit in the registers of a block: 8192
    float64 or 16384 float32 parameters for one column if they are even and aligned, half as many
    for two.
    """
    samples, params = scores.shape
    k = V.shape[1]
    row, col = _steps(scores)
    if samples == 0 or params == 0 or not 0 < k <= FVP_COLUMNS or col != 1:
        return None
    width, columns = _together(scores, V.dtype), _power(k)
    # Packs of a row that a thread can hold beside as many of V and of the sums.
    most = 8 // columns
    packs = _ceil(params, width)
    wide = packs > 32 * most
    team = min(max(_power(_ceil(packs, most)), 64), WIDE) if wide else 32
    each = _power(_ceil(packs, team))
    if each > most:
        return None
    block = team if wide else NARROW
    # As the registers let blocks stand beside each other: 512 threads, or three times 128.
    blocks = min(processors() * (WIDE // team if wide else 3), _ceil(samples, block // team))
    V = cupy.ascontiguousarray(V)
    partial = cupy.empty((blocks, params, k), dtype=V.dtype)
    name = (
        f"fvp_rows<{TYPES[scores.dtype.name]}, {TYPES[V.dtype.name]}, {width}, {columns}, {each}, "
        f"{'true' if wide else 'false'}, {'true' if mean is not None else 'false'}>"
    )
    launch(
        "stream.cu",
        name,
        (blocks, 1),
        block,
        scores,
        row,
        weights,
        mean,
        V,
        samples,
        params,
        np.int32(k),
        partial,
    )
    return _sum(partial, scale, damping, V)


def prepare(scores: Array, root: Array | None, mean: Array | None, dtype: DType) -> Array:
    """Return √w (s − m) in `dtype`, contiguous; `root` is √w and all are real."""
    samples, params = scores.shape
    out = cupy.empty((samples, params), dtype=dtype)
    if out.size:
        launch(
            "prepare.cu",
            f"prepare<{TYPES[scores.dtype.name]}, {TYPES[dtype.name]}>",
            _over(samples, params),
            256,
            scores,
            *_steps(scores),
            root,
            mean,
            samples,
            params,
            out,
        )
    return out


def _over(rows: int, columns: int) -> tuple[int, int]:
    """Return a grid whose blocks take 32 columns, and 8 rows at a time, four times over or more."""
    across = _ceil(columns, 32)
    return across, min(max(_ceil(rows, 32), 1), GRID_Y)


def first_bad(array: Array) -> Array:
    """Return the first place i · p + j of a real array (n, p) that is not finite, (1,) uint64.

    The largest number of int64 stands for none.
    """
    place = cupy.full(1, np.iinfo(np.int64).max, dtype=np.uint64)
    rows, columns = array.shape
    if rows and columns:
        launch(
            "prepare.cu",
            f"first_bad<{TYPES[array.dtype.name]}>",
            _over(rows, columns),
            256,
            array,
            *_steps(array),
            rows,
            columns,
            place,
        )
    return place


def mirror(lower: Array, scale: float, out: Array) -> None:
    """Write scale · A, Hermitian, of which `lower` (p, p) has the lower triangle, to `out`."""
    size = len(lower)
    real = np.zeros(0, lower.dtype).real.dtype
    parts = lower.itemsize // real.itemsize
    tiles = _ceil(size, 32)
    if size:
        launch(
            "prepare.cu",
            f"mirror<{TYPES[real.name]}, {parts}>",
            (tiles, tiles),
            256,
            lower,
            size,
            real.type(scale),
            out,
            *_steps(out),
        )
