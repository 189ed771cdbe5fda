"""The array verbs for NumPy, each one call into the native core."""

from typing import Any

import numpy as np
from numpy import empty, ndarray, zeros

from fastfisher import _check, _memory
from fastfisher._native import core
from fastfisher._ops.numpy_blocks import BlockFactor, Blocks
from fastfisher._ops.numpy_layer import LayerScores
from fastfisher._ops.numpy_patches import Patches
from fastfisher._ops.numpy_root import Root
from fastfisher._ops.numpy_triangle import Factor, Triangle, bits
from fastfisher._ops.types import CGOutcome
from fastfisher._ops.types import NumpyArray as Array

__all__ = [
    "BlockFactor",
    "Blocks",
    "Factor",
    "LayerScores",
    "Patches",
    "Root",
    "Triangle",
    "all_finite",
    "as_numpy",
    "available_bytes",
    "cg_callable",
    "cg_scores",
    "cg_triangle",
    "column_mean",
    "diagonal",
    "eigh",
    "empty",
    "first_bad_weight",
    "from_host",
    "fvp",
    "held_dtype",
    "here",
    "least_and_sum",
    "name",
    "ndarray",
    "product",
    "read",
    "recombine",
    "scores_dot",
    "scores_transpose_dot",
    "shifted_cg_callable",
    "shifted_cg_scores",
    "shifted_cg_triangle",
    "to_array",
    "to_host",
    "to_output",
    "to_vector",
    "worst_residual",
    "xp",
    "zeros",
]

xp = np
name = "NumPy"
# Columns that are recombined at a time: 96 rows of them, packed, stay in the cache. Processor time
# of 96 × 200000 turned into 32 × 200000: 39 ms, 56 ms with 512, 50 with 2048, 64 with 16384 (two
# cores of Granite Rapids).
COLUMNS = 1024
# Kinds of DLPack's devices whose memory the processor reads: CPU, pinned for CUDA or ROCm, managed.
_HOST = frozenset({1, 3, 11, 13})


# ---- in and out ----
def to_array(name: str, value: Any, *, halves: bool = False) -> Array:
    """Return `value` as an aligned array of a native dtype we take; strided views stay views.

    With `halves` that may be float16 or bfloat16.
    """
    if type(value) is not ndarray:
        value = read(name, value)
    array: Array = value
    dtype = array.dtype
    if dtype.char not in "dfDF" or not dtype.isnative:
        if dtype.char == "e":
            dtype = np.dtype(np.float16)
        if not (halves and _check.is_half(dtype)):
            dtype = _check.native_dtype(name, dtype)
        array = array.astype(dtype, copy=not array.flags.aligned)
    elif not array.flags.aligned:
        array = array.copy()
    return array


def as_numpy(name: str, value: Any) -> Any:
    """Return what is foreign to NumPy, but speaks DLPack, as an array in the memory where it lies.

    Arrays of a library that has verbs of its own raise; anything else is returned as it is, for
    ``np.asarray`` to read.
    """
    if isinstance(value, ndarray):
        return value
    from fastfisher._ops import is_numpys  # which imports this

    if not is_numpys(value):
        raise _check.other_library(name, "a NumPy array", value)
    if not hasattr(value, "__dlpack_device__"):
        return value
    kind, number = value.__dlpack_device__()
    if int(kind) not in _HOST:
        raise TypeError(
            f"{name}: expected an array in the host's memory, got {type(value).__name__} on device "
            f"({int(kind)}, {number}) of DLPack. Nothing is moved silently: copy it to the host, "
            "or give all arrays of the call from there."
        )
    if any(hasattr(value, word) for word in ("__array__", "__array_interface__")):
        return value
    return np.from_dlpack(value)


def to_vector(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """Return numbers as an array of `dtype`, contiguous if 1-D; no copy if it is so."""
    array: Array = value if type(value) is ndarray else read(name, value)
    if array.dtype is not dtype:
        if array.dtype.kind not in ("fiubc" if dtype.kind == "c" else "fiub"):
            raise TypeError(
                f"{name}: expected {'' if dtype.kind == 'c' else 'real '}numbers, got "
                f"{array.dtype.name}. Give an array of {dtype}."
            )
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
    flags = array.flags
    if not flags.aligned or (array.ndim == 1 and not flags.c_contiguous):
        array = array.copy()
    return array


def read(name: str, value: Any) -> Array:
    """Return what NumPy makes of `value`."""
    parts = value if isinstance(value, list | tuple) else (value,)
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        raise TypeError(
            f"{name}: expected a plain array, got a masked one. "
            "Its mask would be ignored: leave out what it hides."
        )
    try:
        array = np.asarray(as_numpy(name, value))
    except ValueError as error:
        if not isinstance(value, list | tuple):
            raise  # of an object that reads itself, from a file maybe
        raise ValueError(
            f"{name}: expected one array of numbers, got a {type(value).__name__} of parts that do "
            "not form one. Only Fishers of layers take a list of weights: ravel and join the parts."
        ) from error
    if array.dtype.char == "O" and array.ndim == 0 and hasattr(value, "toarray"):
        raise TypeError(
            f"{name}: expected a dense array, got {type(value).__name__}. Give {name}.toarray()."
        )
    return array


def to_output(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Any) -> Array:
    """Return `out` if a result of this shape and dtype may be written there, else raise."""
    if not isinstance(as_numpy("out", out), ndarray):
        raise TypeError(
            f"out: expected a NumPy array, got {type(out).__name__}. Leave it out to get a new one."
        )
    if out.shape != shape or out.dtype != dtype or not out.dtype.isnative:
        raise ValueError(
            f"out: expected shape {shape} and dtype {dtype}, got shape {out.shape} and dtype "
            f"{out.dtype}. Leave it out to get a new array."
        )
    if not (out.flags.writeable and out.flags.aligned):
        raise ValueError(
            "out: expected a writable, aligned array, got one that is not. "
            "Leave it out to get a new array."
        )
    _check.own_places(out)
    if any(x is not None and np.may_share_memory(out, x) for x in inputs):
        raise ValueError(
            "out: expected memory of its own, got an array that overlaps an input. "
            "Inputs are never written to: give another array."
        )
    found: Array = out
    return found


def to_host(held: Any) -> Any:
    """Return it as it is: NumPy's arrays live on the host."""
    return held


def from_host(held: Any) -> Any:
    """Return it as it is."""
    return held


def held_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of the numbers that sums of `dtype` are held in: that of real parts."""
    return _check.real_of(dtype)


def here() -> str:
    """Return no name: the host needs none."""
    return ""


def available_bytes() -> int | None:
    """Return the bytes that this process may still allocate, None where that is unknown."""
    return _memory.available_memory()


# ---- looking ----
def least_and_sum(weights: Array) -> tuple[float, float]:
    """Return the smallest weight and the sum of all, in float64; NaN stays NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        return float(weights.min()), float(weights.sum(dtype=np.float64))


def first_bad_weight(weights: Array) -> tuple[int, float]:
    """Return place and value of the first weight that is negative or not finite (else the sum)."""
    bad = ~((weights >= 0) & np.isfinite(weights))
    if not bad.any():
        return -1, float("inf")
    place = int(bad.argmax())
    return place, float(weights[place])


def all_finite(array: Array) -> bool:
    """Tell whether every number is finite."""
    finite = np.isfinite(array)
    if finite.size > 10_000:
        return bool(finite.all())
    # Of a few numbers NumPy's `all` takes longer than the rest of a product with them.
    return b"\0" not in finite.tobytes("A")


def worst_residual(rhs: Array, product: Array) -> float:
    """Return max over the columns of ‖b − Ax‖ / ‖b‖, and 0 for b = 0."""
    if rhs.shape[1] == 0:
        return 0.0
    # In float64, and with the largest entry of each b as the unit: no square leaves the range.
    b = rhs.astype(np.float64)
    unit = np.abs(b).max(axis=0)
    unit[unit == 0] = 1
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.linalg.norm((b - product) / unit, axis=0)
        b /= unit
        size = np.linalg.norm(b, axis=0)
        return float(np.max(error / np.where(size > 0, size, 1)))


# ---- on scores ----
def column_mean(
    scores: Array, weights: Array | None, dtype: np.dtype[Any], check_finite: bool, threads: int
) -> Array:
    """Return Σ w s / Σ w, (p,) of `dtype`."""
    out = empty(scores.shape[1], dtype)
    _check.finite_report(
        core.column_mean(bits(scores), weights, out, check_finite, threads), "scores"
    )
    return out


def diagonal(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    dtype: np.dtype[Any],
    check_finite: bool,
    threads: int,
) -> Array:
    """Return Σ w (s − m)², (p,) of `dtype`."""
    out = empty(scores.shape[1], dtype)
    report = core.diagonal(bits(scores), weights, mean, out, check_finite, threads)
    if report[0]:
        _check.finite_report(report, "scores")
    return out


def fvp(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    V: Array,
    scale: float,
    damping: float,
    threads: int,
) -> Array:
    """Return scale · Σ w (s − m)(s − m)ᵀ V + damping · V, (p, k), in one pass over the scores."""
    out = empty(V.shape, V.dtype)
    core.fvp(bits(scores), weights, mean, V, scale, damping, out, threads)
    return out


def scores_dot(scores: Array, mean: Array | None, V: Array, threads: int) -> Array:
    """Return (S − 1mᵀ) V, (n, k)."""
    out = empty((scores.shape[0], V.shape[1]), V.dtype)
    core.scores_dot(bits(scores), mean, V, out, threads)
    return out


def scores_transpose_dot(
    scores: Array, weights: Array | None, mean: Array | None, Y: Array, threads: int
) -> Array:
    """Return (S − 1mᵀ)ᵀ diag(w) Y, (p, k)."""
    out = empty((scores.shape[1], Y.shape[1]), Y.dtype)
    core.scores_transpose_dot(bits(scores), weights, mean, Y, out, threads)
    return out


def recombine(turn: Array, rows: Array, out: Array, threads: int) -> None:
    """Write turnᵀ rows, (k, p), to `out`, which may be the first of the rows."""
    for at in range(0, rows.shape[1], COLUMNS):
        block = slice(at, at + COLUMNS)
        out[:, block] = product(turn.T, rows[:, block], threads)


# ---- iterations: (x, status, iterations, true relative residual), the last three per column ----
def cg_scores(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    scale: float,
    shift: Array,
    rhs: Array,
    preconditioner: Array | None,
    rtol: float,
    atol: float,
    max_iterations: int,
    threads: int,
) -> CGOutcome:
    """Solve (scale · Σ w (s − m)(s − m)ᵀ + diag(shift)) x = rhs without forming the matrix."""
    out = empty(rhs.shape, rhs.dtype)
    outcome = core.cg_scores(
        bits(scores),
        weights,
        mean,
        scale,
        shift,
        rhs,
        None,
        preconditioner,
        rtol,
        atol,
        max_iterations,
        out,
        threads,
    )
    return out, *outcome


def cg_triangle(
    triangle: Triangle,
    scale: float,
    shift: Array,
    rhs: Array,
    preconditioner: Array | None,
    rtol: float,
    atol: float,
    max_iterations: int,
    threads: int,
) -> CGOutcome:
    """Solve (scale · T + diag(shift)) x = rhs."""
    out = empty(rhs.shape, rhs.dtype)
    outcome = core.cg_triangle(
        triangle.panels,
        scale,
        shift,
        rhs,
        None,
        preconditioner,
        rtol,
        atol,
        max_iterations,
        out,
        threads,
    )
    return out, *outcome


def cg_callable(
    apply: Any,
    precondition: Any,
    rhs: Array,
    rtol: float,
    atol: float,
    max_iterations: int,
) -> CGOutcome:
    """Solve apply(x) = rhs; `precondition` gives an approximate solution, or is None."""
    out = empty(rhs.shape, rhs.dtype)
    outcome = core.cg_callable(apply, precondition, rhs, None, rtol, atol, max_iterations, out)
    return out, *outcome


def shifted_cg_scores(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    scale: float,
    shifts: list[float],
    rhs: Array,
    rtol: float,
    atol: float,
    max_iterations: int,
    threads: int,
) -> CGOutcome:
    """Solve (scale · Σ w (s − m)(s − m)ᵀ + shift) x = rhs for every shift, x (p, m·k)."""
    out = empty((rhs.shape[0], len(shifts) * rhs.shape[1]), rhs.dtype)
    outcome = core.shifted_cg_scores(
        bits(scores),
        weights,
        mean,
        scale,
        np.array(shifts),
        rhs,
        rtol,
        atol,
        max_iterations,
        out,
        threads,
    )
    return out, *outcome


def shifted_cg_triangle(
    triangle: Triangle,
    scale: float,
    shifts: list[float],
    rhs: Array,
    rtol: float,
    atol: float,
    max_iterations: int,
    threads: int,
) -> CGOutcome:
    """Solve (scale · T + shift) x = rhs for every shift, x (p, m·k)."""
    out = empty((rhs.shape[0], len(shifts) * rhs.shape[1]), rhs.dtype)
    dampings = np.array(shifts)
    outcome = core.shifted_cg_triangle(
        triangle.panels, scale, dampings, rhs, rtol, atol, max_iterations, out, threads
    )
    return out, *outcome


def shifted_cg_callable(
    apply: Any,
    shifts: list[float],
    rhs: Array,
    rtol: float,
    atol: float,
    max_iterations: int,
    threads: int,
) -> CGOutcome:
    """Solve apply(x) + shift · x = rhs for every shift, x (p, m·k)."""
    out = empty((rhs.shape[0], len(shifts) * rhs.shape[1]), rhs.dtype)
    dampings = np.array(shifts)
    outcome = core.shifted_cg_callable(
        apply, dampings, rhs, rtol, atol, max_iterations, out, threads
    )
    return out, *outcome


def product(X: Array, Y: Array, threads: int) -> Array:  # noqa: ARG001
    """Return X Y for real X (m, n) and Y (n, q) of one dtype and any strides.

    It is NumPy's: of square matrices of 512 to 2048 rows the engine, which packs for sums over many
    rows, took 1.1 to 1.9 times as long (two threads of Granite Rapids).
    """
    out: Array = X @ Y
    return out


def eigh(matrix: Array) -> tuple[Array, Array]:
    """Return eigenvalues, ascending, and eigenvectors; the lower triangle is read."""
    values, vectors = np.linalg.eigh(matrix)
    return values, vectors
