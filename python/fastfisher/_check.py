"""Every input check, in one grammar: *name: expected …, got …*, then one sentence of advice."""

import math
import operator
from types import ModuleType
from typing import Any, Literal

import numpy as np

from fastfisher._native import MOST_THREADS
from fastfisher.errors import NonFiniteError, NotPositiveDefiniteError

__all__ = [
    "accumulation_dtype",
    "block_sizes",
    "columns",
    "complex_of",
    "count",
    "cut",
    "damping",
    "dampings",
    "diagonal",
    "finite_columns",
    "finite_inputs",
    "finite_report",
    "flag",
    "generator",
    "has_rows",
    "is_half",
    "matrix",
    "narrowing",
    "native_dtype",
    "other_library",
    "positive",
    "positive_definite_report",
    "real_of",
    "reduction",
    "same_kind",
    "scores",
    "sum_dtype",
    "threads",
    "weights",
]

Reduction = Literal["mean", "sum"]

_NATIVE: dict[str, np.dtype[Any]] = {char: np.dtype(char) for char in "dfDF"}
_REAL = {_NATIVE["D"]: _NATIVE["d"], _NATIVE["F"]: _NATIVE["f"]}
_COMPLEX = {real: both for both, real in _REAL.items()}
# By itemsize: what weights must be on average, so that those that are subnormal weigh less than
# rounding, and what their sum may be, so that its inverse has all its digits.
_WEIGHTS = {8: (2.0**-970, 2.0**1022), 4: (2.0**-103, 2.0**126)}
_HALVES = "float16 and bfloat16 are for scores alone: everything else is kept in float32 or wider"
_WANTED = "float64, float32, complex128 or complex64"


def native_dtype(name: str, dtype: Any) -> np.dtype[Any]:
    """Return the native dtype, or raise; the one place that says which dtypes we take."""
    dtype = np.dtype(dtype)
    native = _NATIVE.get(dtype.char)
    if native is not None:
        return native
    if dtype.kind in "biu":
        advice = "Integers are not converted unasked: use astype(np.float64) if they are meant so"
    elif dtype.kind in "fV":
        advice = _HALVES
    else:
        advice = "Give an array of numbers"
    raise TypeError(f"{name}: expected {_WANTED}, got {dtype.name}. {advice}.")


def is_half(dtype: np.dtype[Any]) -> bool:
    """Tell whether this is float16, or the bfloat16 of ``ml_dtypes``, in native byte order."""
    return (dtype.char == "e" or dtype.name == "bfloat16") and dtype.isnative


def sum_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that scores of `dtype` are summed in: float32 for halves, else theirs."""
    return dtype if dtype.char in _NATIVE or not is_half(dtype) else _NATIVE["f"]


def real_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of weights, dampings and diagonals beside `dtype`: that of real parts."""
    return _REAL.get(dtype, dtype)


def complex_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the complex dtype whose real parts have `dtype`."""
    return _COMPLEX[dtype]


def accumulation_dtype(requested: Any, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype to sum in: as `requested`, if at all, but never narrower than `dtype`."""
    dtype = dtype if dtype.char in _NATIVE else sum_dtype(dtype)
    if requested is None:
        return dtype
    chosen = native_dtype("dtype", requested)
    if chosen.kind != dtype.kind:
        raise TypeError(
            f"dtype: expected {'complex' if dtype.kind == 'c' else 'real'} numbers as the scores "
            f"have ({dtype}), got {chosen}. Convert the scores if they are meant so."
        )
    if chosen.itemsize < dtype.itemsize:
        raise TypeError(
            f"dtype: expected {dtype} or wider, got {chosen}. "
            f"Sums are never kept narrower than the scores: use scores.astype(np.{chosen})."
        )
    return chosen


def same_kind(dtype: np.dtype[Any], held: np.dtype[Any]) -> None:
    """Raise if scores of `dtype` are real and the Fisher is complex, or the other way round."""
    dtype = sum_dtype(dtype)
    if dtype.kind != held.kind:
        raise TypeError(
            f"scores: expected {'complex' if held.kind == 'c' else 'real'} numbers, as the Fisher "
            f"holds {held}, got {dtype}. Real and complex scores do not mix: convert one of them."
        )


def narrowing(dtype: np.dtype[Any], held: np.dtype[Any]) -> None:
    """Raise if scores of `dtype` would lose digits in an accumulator that holds `held`."""
    if dtype is held:
        return
    dtype = sum_dtype(dtype)
    same_kind(dtype, held)
    if dtype.itemsize > held.itemsize:
        raise TypeError(
            f"scores: expected {held} (what the accumulator holds) or narrower, got {dtype}. "
            f"Build the accumulator with dtype=np.{dtype}, or use scores.astype(np.{held})."
        )


def scores(ops: ModuleType, value: Any, params: int | None = None) -> Any:
    """Return `value` as native scores (n, p), halves as they are; no copy if they are native."""
    array = ops.to_array("scores", value, halves=True)
    if array.ndim != 2:
        raise ValueError(
            f"scores: expected a 2-D array (n_samples, n_params), got shape {array.shape}. "
            "Give one row per sample, also for a single sample or a single parameter."
        )
    columns = array.shape[1]
    if columns == 0:
        raise ValueError(
            f"scores: expected at least one parameter, got shape {array.shape}. "
            "There is no Fisher matrix of no parameters."
        )
    if params is not None and columns != params:
        raise ValueError(
            f"scores: expected {params} columns, one per parameter, got shape {array.shape}. "
            "Give one row per sample."
        )
    return array


def other_library(name: str, wanted: str, value: Any) -> TypeError:
    """Return the error for an array of one library where the others are of another."""
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    got = kind.__name__ if package == "builtins" else f"{package}.{kind.__name__}"
    return TypeError(
        f"{name}: expected {wanted} as the others are, got {got}. "
        "Nothing moves between host and device unasked: convert one of them."
    )


def own_places(out: Any) -> None:
    """Raise if numbers of `out` share memory: each axis has to step over all of the finer ones."""
    axes = sorted((abs(s), n) for s, n in zip(out.strides, out.shape, strict=True) if n != 1)
    reach = out.itemsize
    for stride, extent in axes:
        if stride < reach and out.size > 0:
            raise ValueError(
                "out: expected a place for each number, got an array that overlaps itself. "
                "Leave it out to get a new array."
            )
        reach += stride * (extent - 1)


def has_rows(array: Any, reduction: str = "mean") -> None:
    """Raise if there is nothing to average."""
    if array.shape[0] == 0 and reduction == "mean":
        raise ValueError(
            f"scores: expected at least one sample, got shape {array.shape}. "
            "The mean over no samples is not defined; reduction='sum' gives zeros."
        )


def weights(
    ops: ModuleType, value: Any, samples: int, dtype: np.dtype[Any], *, part: bool = False
) -> tuple[Any | None, float]:
    """Return the weights, real numbers as precise as `dtype`, and their sum; None stays None.

    Those of a part of the samples may be all zero.
    """
    if value is None:
        return None, float(samples)
    dtype = real_of(dtype)
    array = ops.to_vector("weights", value, dtype)
    if array.ndim != 1 or array.shape[0] != samples:
        raise ValueError(
            f"weights: expected shape ({samples},), one per sample, got {array.shape}. "
            "Weights are given per row of the scores."
        )
    if samples == 0:
        return array, 0.0
    least, total = ops.least_and_sum(array)
    if not (least >= 0.0 and math.isfinite(total)):
        place, found = ops.first_bad_weight(array)
        where = f"at index {place}" if place >= 0 else "as their sum"
        advice = "Give 0 to leave a sample out"
        if found == math.inf:
            advice = f"Scale the weights if they overflow {dtype}"
        raise ValueError(
            f"weights: expected finite numbers that are not negative, got {found} {where}. "
            f"{advice}."
        )
    vanished = total == 0.0 and (value.any() if hasattr(value, "any") else np.any(value))
    if vanished or total > 0.0 or not part:
        weight_sum(total, samples, dtype)
    return array, total


def weight_sum(total: float, samples: int, dtype: np.dtype[Any]) -> None:
    """Raise unless a mean can be taken with weights of this sum, summed in the real `dtype`."""
    if total == 0.0:
        raise ValueError(
            f"weights: expected at least one that is positive, got all zero in {dtype}. "
            "No sample would count; scale the weights if they are tiny."
        )
    mean, most = _WEIGHTS[dtype.itemsize]
    if not mean * samples <= total <= most:
        raise ValueError(
            f"weights: expected a sum from {mean * samples:.2g} to {most:.2g} in {dtype}, got "
            f"{total:.3g}. Scale the weights: only their ratios matter to a mean."
        )


def matrix(ops: ModuleType, value: Any, name: str = "matrix") -> Any:
    """Return a native square matrix (p, p); only its lower triangle will be read."""
    array = ops.to_array(name, value)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] == 0:
        advice = "Pass a score array (n, p) to ScoreFisher or DenseFisher.from_scores instead"
        if array.ndim == 3:
            advice = "Stacks of small matrices (B, p, p) are what ff.batch takes"
        raise ValueError(
            f"{name}: expected a square matrix (p, p) with p ≥ 1, got shape {array.shape}. "
            f"{advice}."
        )
    return array


def diagonal(ops: ModuleType, value: Any, name: str = "diagonal") -> Any:
    """Return the diagonal of a Fisher, (p,), in float32 if it is that, else in float64."""
    dtype = _NATIVE["f" if getattr(value, "dtype", None) == _NATIVE["f"] else "d"]
    array = ops.to_vector(name, value, dtype)
    if array.ndim != 1 or array.shape[0] == 0:
        raise ValueError(
            f"{name}: expected shape (p,) with p ≥ 1, got {array.shape}. "
            "Give one number per parameter."
        )
    bad = ~((array >= 0.0) & (array < math.inf))
    if bool(bad.any()):
        place = int(bad.argmax())
        raise ValueError(
            f"{name}: expected finite numbers that are not negative, got {array[place]} at "
            f"parameter {place}. A Fisher diagonal is a sum of squares of scores."
        )
    return array


def columns(ops: ModuleType, name: str, value: Any, rows: int, dtype: np.dtype[Any]) -> Any:
    """Return a vector (p,), or several as columns (p, k), in `dtype`."""
    array = ops.to_vector(name, value, dtype)
    if array.ndim not in (1, 2) or array.shape[0] != rows:
        raise ValueError(
            f"{name}: expected shape ({rows},) or ({rows}, k), got {array.shape}. "
            "Several vectors are given as columns."
        )
    return array


def finite_columns(ops: ModuleType, name: str, value: Any, rows: int, dtype: np.dtype[Any]) -> Any:
    """Return `columns`, whose entries are finite."""
    array = columns(ops, name, value, rows, dtype)
    if not ops.all_finite(array):
        raise NonFiniteError(
            f"{name}: expected finite values, got NaN or infinity. Find out where it comes from."
        )
    return array


def damping(ops: ModuleType, value: Any, params: int) -> Any:
    """Return the damping as a float or a float64 vector (p,), finite and not negative."""
    if type(value) is float and 0.0 <= value < math.inf:
        return value
    array = ops.to_vector("damping", value, np.dtype(np.float64))
    if array.ndim > 1 or (array.ndim == 1 and array.shape[0] != params):
        raise ValueError(
            f"damping: expected a number or shape ({params},), got shape {array.shape}. "
            "A vector adds diag(damping)."
        )
    if not bool(((array >= 0.0) & (array < math.inf)).all()):
        raise ValueError(
            f"damping: expected finite numbers that are not negative, got {value}. "
            "Damping makes F + λI better conditioned; it never takes away."
        )
    return float(array) if array.ndim == 0 else array


def dampings(value: Any) -> list[float]:
    """Return the dampings of a path, m ≥ 1 numbers that are finite and not negative."""
    from fastfisher._ops import ops_of  # which imports this

    ops = ops_of(value)
    array = ops.to_host(ops.to_vector("dampings", value, np.dtype(np.float64)))
    if array.ndim != 1 or array.shape[0] == 0:
        raise ValueError(
            f"dampings: expected shape (m,) with m ≥ 1, got shape {array.shape}. "
            "Give one number per system; ff.solve takes a single damping or a vector (p,)."
        )
    if not bool(((array >= 0.0) & (array < math.inf)).all()):
        raise ValueError(
            f"dampings: expected finite numbers that are not negative, got {value}. "
            "Damping makes F + λI better conditioned; it never takes away."
        )
    return [float(x) for x in array]


def reduction(value: Any) -> Reduction:
    """Return "mean" or "sum"."""
    if value not in ("mean", "sum"):
        raise ValueError(
            f"reduction: expected 'mean' or 'sum', got {value!r}. "
            "'mean' divides by the sum of the weights."
        )
    return value  # type: ignore[no-any-return]


def algorithm(value: Any, dtype: Any) -> bool:
    """Return whether it is "strassen" and not "classical", for scores of this dtype."""
    if value not in ("classical", "strassen"):
        raise ValueError(
            f"algorithm: expected 'classical' or 'strassen', got {value!r}. "
            "'strassen' multiplies less, and is accurate relative to the largest entry only."
        )
    if value == "strassen" and dtype.kind == "c":
        raise ValueError(
            f"scores: expected real numbers with algorithm='strassen', got {dtype}. "
            "Complex ones take algorithm='classical'."
        )
    return bool(value == "strassen")


def flag(name: str, value: Any) -> bool:
    """Return a bool."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(
            f"{name}: expected True or False, got {type(value).__name__}. Give a plain bool."
        )
    return bool(value)


def count(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """Return a whole number that is at least `least`, and at most `most` if that is given."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # not of every array, though each has __index__
    except TypeError:
        shape: tuple[int, ...] = tuple(getattr(value, "shape", ()))
        scores = name == "n_params" and len(shape) == 2
        advice = "Scores go to from_scores, or to update." if scores else "Give an int."
        raise TypeError(
            f"{name}: expected a whole number, got "
            f"{f'an array of shape {shape}' if shape else type(value).__name__}. {advice}"
        ) from None
    if number < least:
        raise ValueError(f"{name}: expected at least {least}, got {number}. Give a larger int.")
    if most is not None and number > most:
        raise ValueError(f"{name}: expected at most {most}, got {number}. Give a smaller int.")
    return number


def block_sizes(value: Any) -> "np.ndarray[Any, np.dtype[np.intp]]":
    """Return the sizes of blocks, at least one, each at least 1."""
    array = np.asarray(value)
    if array.ndim != 1 or array.shape[0] == 0:
        raise ValueError(
            f"block_sizes: expected a list of at least one size, got shape {array.shape}. "
            "Every parameter belongs to one block, in order."
        )
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"block_sizes: expected whole numbers, got {array.dtype.name}. Give a list of int."
        )
    if int(array.min()) < 1:
        place = int((array < 1).argmax())
        raise ValueError(
            f"block_sizes: expected sizes of at least 1, got {array[place]} at place {place}. "
            "Leave empty blocks out."
        )
    total = sum(array.tolist())  # in Python's numbers, which do not wrap
    if total > np.iinfo(np.int32).max:
        raise ValueError(
            f"block_sizes: expected a sum of at most {np.iinfo(np.int32).max}, got {total}. "
            "No machine holds scores of so many parameters."
        )
    sizes = array.astype(np.intp)
    sizes.flags.writeable = False
    return sizes


def cut(name: str, value: Any) -> float:
    """Return a finite number that is not negative."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0.0 <= number < math.inf:
        raise ValueError(
            f"{name}: expected a finite number that is not negative, got {value!r}. Give a float."
        )
    return number


def finite(name: str, value: Any) -> float:
    """Return a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {value!r}. Give a float.")
    return number


def positive(name: str, value: Any) -> float:
    """Return a finite number above 0."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0.0 < number < math.inf:
        raise ValueError(f"{name}: expected a finite number above 0, got {value!r}. Give a float.")
    return number


def threads(value: Any) -> int:
    """Return the number of threads, 0 for the default."""
    return 0 if value is None else count("n_threads", value, 1, MOST_THREADS)


def generator(rng: Any) -> "np.random.Generator":
    """Return a generator from None, a seed or a generator."""
    if rng is None or isinstance(rng, int | np.integer | np.random.Generator):
        if isinstance(rng, int | np.integer) and rng < 0:
            raise ValueError(f"rng: expected a seed of at least 0, got {rng}. Give a larger int.")
        return np.random.default_rng(rng)
    raise TypeError(
        f"rng: expected None, an int or a numpy.random.Generator, got {type(rng).__name__}. "
        "An int gives the same draws each time."
    )


def finite_report(report: tuple[int, int, int, float], name: str) -> None:
    """Raise what a kernel reports about the values of `name`; row -1 means that none is bad."""
    status, row, column, value = report
    if status and row < 0:
        where = f"overflow in column {column}" if column >= 0 else "overflow"
        raise NonFiniteError(
            f"{name}: expected finite sums, got {where}, though every value is finite. "
            f"Scale the {name} down.",
            column=column if column >= 0 else None,
        )
    if status:
        raise NonFiniteError(
            f"{name}: expected finite values, got {value} at row {row}, column {column}. "
            "Leave that sample out, or find out where it comes from.",
            row=row,
            column=column,
        )


def positive_definite_report(
    report: tuple[int, int, int, float], tolerance: float, place: str = "", reason: str = ""
) -> None:
    """Raise what the factorisation reports; `place` says more of where, `reason` why it may be."""
    status, pivot, _, value = report
    if status == 0:
        return
    if status == 1:
        raise NotPositiveDefiniteError(
            "fisher: expected a positive definite F + damping, got pivot "
            f"{value:.3g} at parameter {pivot}{place}, not above {tolerance:.2g} times its "
            f"diagonal entry.{reason}",
            pivot=pivot,
            value=value,
        )
    raise NonFiniteError(
        f"fisher: expected finite values, got {value} at parameter {pivot}{place} while factoring. "
        "Look for NaN in the scores, or for overflow: scale them down.",
        row=pivot,
        column=pivot,
    )


def finite_inputs(ops: ModuleType, scores: Any, V: Any, threads: int) -> None:
    """Name the NaN or infinity that spoiled a product, or say that it overflowed."""
    ops.column_mean(scores, None, sum_dtype(scores.dtype), True, threads)
    finite_columns(ops, "v", V, V.shape[0], V.dtype)
    raise NonFiniteError(
        "scores: expected finite products, got overflow, though every value is finite. "
        "Scale the scores or v down."
    )
