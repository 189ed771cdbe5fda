"""The array verbs for complex numbers in NumPy, on the real ones of ``numpy_ops``.

A complex row s = a + ib is the real row (a₀, b₀, a₁, b₁, …) of twice the length, in the same
memory. Where a row does not lie in one run its real and imaginary parts are two strided views.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._native import core
from fastfisher._ops import numpy_ops
from fastfisher._ops.numpy_hermitian import Factor, Triangle, interleaved, joined
from fastfisher._ops.numpy_hermitian_blocks import BlockFactor, Blocks
from fastfisher._ops.numpy_ops import (
    LayerScores,
    Patches,
    Root,
    all_finite,
    available_bytes,
    eigh,
    empty,
    first_bad_weight,
    from_host,
    held_dtype,
    here,
    least_and_sum,
    name,
    product,
    to_array,
    to_host,
    to_output,
    to_vector,
    xp,
    zeros,
)
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
    "product",
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

Report = tuple[int, int, int, float]


def worst_residual(rhs: Array, product: Array) -> float:
    """Return max over the columns of ‖b − Ax‖ / ‖b‖, and 0 for b = 0."""
    return numpy_ops.worst_residual(interleaved(rhs), interleaved(product))


# ---- on scores ----
def column_mean(
    scores: Array, weights: Array | None, dtype: np.dtype[Any], check_finite: bool, threads: int
) -> Array:
    """Return Σ w s / Σ w, (p,) of `dtype`."""
    return _by_column(
        lambda X, _, out: core.column_mean(X, weights, out, check_finite, threads),
        scores,
        None,
        dtype,
    )


def diagonal(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    dtype: np.dtype[Any],
    check_finite: bool,
    threads: int,
) -> Array:
    """Return Σ w |s − m|², (p,) of the real dtype that belongs to `dtype`."""
    squares = _by_column(
        lambda X, m, out: core.diagonal(X, weights, m, out, check_finite, threads),
        scores,
        mean,
        dtype,
    )
    with np.errstate(over="ignore"):
        out: Array = squares.real + squares.imag
    if check_finite and not all_finite(out):
        place = int(np.isfinite(out).argmin())
        _check.finite_report((2, -1, place, float(out[place])), "scores")
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
    """Return scale · Σ w (s − m)* (s − m)ᵀ V + damping · V, (p, k).

    In one pass over the scores, or in four over half of each where rows do not lie in one run.
    """
    (X, m), *more = _real_parts(scores, mean)
    if more:
        Y = scores_dot(scores, mean, V, threads)
        out = scores_transpose_dot(scores, weights, mean, Y, threads)
        out *= scale
    else:
        both = numpy_ops.fvp(X, weights, m, _turned(V), scale, 0.0, threads)
        out = _combined(*_unturned(both, V.dtype))
    if damping:
        out += damping * V
    return out


def scores_dot(scores: Array, mean: Array | None, V: Array, threads: int) -> Array:
    """Return (S − 1mᵀ) V, (n, k)."""
    (X, m), *more = _real_parts(scores, mean)
    if not more:
        product: Array = numpy_ops.scores_dot(X, m, _turned(V), threads).view(V.dtype)
        return product
    re = numpy_ops.scores_dot(X, m, _pairs(V), threads).view(V.dtype)
    im = numpy_ops.scores_dot(*more[0], _pairs(V), threads).view(V.dtype)
    return _combined(re, -im)


def scores_transpose_dot(
    scores: Array, weights: Array | None, mean: Array | None, Y: Array, threads: int
) -> Array:
    """Return (S − 1mᵀ)ᴴ diag(w) Y, (p, k)."""
    products = [
        numpy_ops.scores_transpose_dot(X, weights, m, _pairs(Y), threads)
        for X, m in _real_parts(scores, mean)
    ]
    if len(products) == 1:
        return _combined(*_unturned(products[0], Y.dtype))
    return _combined(*(product.view(Y.dtype) for product in products))


def recombine(turn: Array, rows: Array, out: Array, threads: int) -> None:
    """Write turnᴴ rows, (k, p), to `out`, which may be the first of the rows."""
    Y, wide = _pairs(rows), 2 * numpy_ops.COLUMNS
    for at in range(0, Y.shape[1], wide):
        block = Y[:, at : at + wide]
        a, b = (product(part.T, block, threads).view(rows.dtype) for part in (turn.real, turn.imag))
        out[:, at // 2 : (at + wide) // 2] = _combined(a, b)


# ---- iterations ----
# In real form the dot product is Re xᴴy, which is all of it where conjugate gradients ask: they
# take the same steps as in complex numbers.
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
    """Solve (scale · Σ w (s − m)* (s − m)ᵀ + diag(shift)) x = rhs without forming the matrix."""
    damping = shift[:, None]

    def apply(V: Array) -> Array:
        out = fvp(scores, weights, mean, V, scale, 0.0, threads)
        out += damping * V
        return out

    precondition = None
    if preconditioner is not None:
        divisor = preconditioner[:, None]

        def precondition(R: Array) -> Array:
            return R / divisor

    return cg_callable(apply, precondition, rhs, rtol, atol, max_iterations)


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
    x, status, iterations, residual = numpy_ops.cg_triangle(
        triangle.held,
        2 * scale,
        np.repeat(shift, 2),
        interleaved(rhs, conjugate=True),
        None if preconditioner is None else np.repeat(preconditioner, 2),
        rtol,
        atol,
        max_iterations,
        threads,
    )
    return joined(x, conjugate=True), status, iterations, residual


def cg_callable(
    apply: Any, precondition: Any, rhs: Array, rtol: float, atol: float, max_iterations: int
) -> CGOutcome:
    """Solve apply(x) = rhs; `precondition` gives an approximate solution, or is None."""
    x, status, iterations, residual = numpy_ops.cg_callable(
        _in_real_form(apply, "apply"),
        None if precondition is None else _in_real_form(precondition, "precondition"),
        interleaved(rhs),
        rtol,
        atol,
        max_iterations,
    )
    return joined(x), status, iterations, residual


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
    """Solve (scale · Σ w (s − m)* (s − m)ᵀ + shift) x = rhs for every shift, x (p, m·k)."""

    def apply(V: Array) -> Array:
        return fvp(scores, weights, mean, V, scale, 0.0, threads)

    return shifted_cg_callable(apply, shifts, rhs, rtol, atol, max_iterations, threads)


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
    x, status, iterations, residual = numpy_ops.shifted_cg_triangle(
        triangle.held,
        2 * scale,
        shifts,
        interleaved(rhs, conjugate=True),
        rtol,
        atol,
        max_iterations,
        threads,
    )
    return joined(x, conjugate=True), status, iterations, residual


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
    x, status, iterations, residual = numpy_ops.shifted_cg_callable(
        _in_real_form(apply, "apply"),
        shifts,
        interleaved(rhs),
        rtol,
        atol,
        max_iterations,
        threads,
    )
    return joined(x), status, iterations, residual


# ---- complex numbers as real ones ----
def _in_real_form(function: Any, name: str) -> Callable[[Array], Array]:
    """Return what `function` of complex columns does to their real form."""

    def real_function(X: Array) -> Array:
        V = joined(X)
        result = np.asarray(function(V))
        if result.dtype.kind not in "fiubc" or result.shape != V.shape:
            raise ValueError(
                f"{name}: expected a function that returns numbers of shape {V.shape}, got "
                f"{result.dtype} of shape {result.shape}. It is given columns (p, k)."
            )
        return interleaved(result.astype(V.dtype, copy=False))

    return real_function


def _real_parts(scores: Array, mean: Array | None) -> list[tuple[Array, Array | None]]:
    """Return the scores as real rows of twice the length, else as Re S and Im S, with the means."""
    if scores.shape[1] == 1 or scores.strides[1] == scores.itemsize:
        m = None if mean is None else mean.view(_check.real_of(mean.dtype))
        return [(scores.view(_check.real_of(scores.dtype)), m)]
    if mean is None:
        return [(scores.real, None), (scores.imag, None)]
    return [
        (scores.real, np.ascontiguousarray(mean.real)),
        (scores.imag, np.ascontiguousarray(mean.imag)),
    ]


def _by_column(
    kernel: Callable[[Array, Any, Array], Report],
    scores: Array,
    mean: Array | None,
    dtype: np.dtype[Any],
) -> Array:
    """Return what `kernel` says of the columns of Re S and Im S as the parts of (p,) of `dtype`."""
    out = empty(scores.shape[1], dtype)
    (X, m), *more = _real_parts(scores, mean)
    if not more:
        status, row, column, value = kernel(X, m, out.view(_check.real_of(dtype)))
        _check.finite_report((status, row, column // 2, value), "scores")
        return out
    parts = empty((2, scores.shape[1]), _check.real_of(dtype))
    reports = [kernel(X, m, parts[0]), kernel(*more[0], parts[1])]
    bad = [report for report in reports if report[0]]
    if bad:
        # A place comes before an overflow (row -1), and the first place before the second.
        _check.finite_report(min(bad, key=lambda r: (r[1] < 0, r[1], r[2])), "scores")
    out.real, out.imag = parts
    return out


def _pairs(V: Array) -> Array:
    """Return complex columns (m, k) as the real ones Re, Im, Re, …, (m, 2k)."""
    return np.ascontiguousarray(V).view(_check.real_of(V.dtype))


def _turned(V: Array) -> Array:
    """Return the real columns (2p, 2k) whose product with a real row is s V, parts side by side.

    Rows 2j and 2j + 1 are v_j and i v_j, as pairs of columns: a v + b (i v) = (a + ib) v.
    """
    both = np.empty((V.shape[0], 2, V.shape[1]), V.dtype)
    both[:, 0] = V
    both[:, 1].real = -V.imag
    both[:, 1].imag = V.real
    return both.reshape(2 * V.shape[0], -1).view(_check.real_of(V.dtype))


def _unturned(both: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return Aᵀ Y and Bᵀ Y, (p, k), of the product of real rows (a₀, b₀, …) with `_pairs` of Y."""
    product = both.view(dtype)
    return product[0::2], product[1::2]


def _combined(a: Array, b: Array) -> Array:
    """Return a − i b: with a = Aᵀ Y and b = Bᵀ Y it is (A + iB)ᴴ Y."""
    out = np.empty(a.shape, a.dtype)
    with np.errstate(invalid="ignore"):  # of parts that overflowed, for the caller to see
        out.real = a.real + b.imag
        out.imag = a.imag - b.real
    return out
