"""Types of the native core; every level (`_core`, `_core_avx2`, `_core_avx512`) has the same verbs.

A report is `(status, row, col, value)`: a `fastfisher.Status` number, the place of the trouble (-1
where there is none) and the number found there. `threads=0` means the default. Arrays must have the
exact dtype and rank; nothing is converted.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Report: TypeAlias = tuple[int, int, int, float]
Outcome: TypeAlias = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]

isa: str
openmp: bool
eigen_version: str
compiler: str

def max_threads() -> int: ...
def set_threads(n: int, /) -> None: ...

# ---- the panel triangle ----
def triangle_size(p: int, itemsize: int) -> int: ...
def triangle_zeros(p: int, itemsize: int) -> Array: ...
def triangle_from_dense(matrix: Array, triangle: Array, threads: int) -> Report: ...
def triangle_copy(triangle: Array, threads: int) -> Array: ...
def triangle_to_dense(triangle: Array, scale: float, out: Array, threads: int) -> None: ...
def triangle_diagonal(triangle: Array, p: int) -> Array: ...
def triangle_block(triangle: Array, p: int, start: int, scale: float, out: Array) -> None: ...
def triangle_narrow(triangle: Array, p: int, scale: float, out: Array, threads: int) -> None: ...
def triangle_add_outer(triangle: Array, x: Array, alpha: float, threads: int) -> None: ...
def triangle_product(
    triangle: Array, V: Array, scale: float, damping: float, out: Array, threads: int
) -> None: ...
def triangle_norm1(triangle: Array, p: int, threads: int) -> float: ...

# ---- Hermitian matrices, held as the triangle of a real one of twice the size ----
def hermitian_project(triangle: Array, p: int, conjugate: bool, threads: int) -> None: ...
def hermitian_from_dense(matrix: Array, triangle: Array, threads: int) -> Report: ...
def hermitian_to_dense(triangle: Array, scale: float, out: Array, threads: int) -> None: ...

# ---- the product engine on scores; complex ones have a mean and a triangle of twice the size ----
def accumulate(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    triangle: Array,
    fresh: bool,
    check_finite: bool,
    threads: int,
) -> Report: ...
def accumulate_fast(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    triangle: Array,
    least: int,
    check_finite: bool,
    threads: int,
) -> Report: ...
def accumulate_centred(
    scores: Array,
    weights: Array | None,
    mean: Array,
    triangle: Array,
    fresh: bool,
    check_finite: bool,
    threads: int,
) -> Report: ...
def gram(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    triangle: Array,
    check_finite: bool,
    threads: int,
) -> Report: ...
def product(X: Array, Y: Array, out: Array, threads: int) -> None: ...

# ---- patches: images (n, channels, height, width) and how their rows are made ----
def patches_moment(
    x: Array,
    recipe: Sequence[int],
    weights: Array | None,
    triangle: Array,
    fresh: bool,
    check_finite: bool,
    threads: int,
) -> Report: ...
def patches_cross(
    a: Array,
    a_recipe: Sequence[int],
    g: Array,
    g_recipe: Sequence[int],
    weights: Array | None,
    out: Array,
    threads: int,
) -> None: ...
def patches_sum(
    x: Array, recipe: Sequence[int], scale: float, out: Array, threads: int
) -> None: ...
def patches_find_nonfinite(x: Array, threads: int) -> Report: ...

# ---- the scores of a layer, of inputs a and output gradients g, both of them patches ----
def layer_dot(
    a: Array,
    a_recipe: Sequence[int],
    g: Array,
    g_recipe: Sequence[int],
    V: Array,
    out: Array,
    threads: int,
) -> None: ...
def layer_squares(
    a: Array,
    a_recipe: Sequence[int],
    g: Array,
    g_recipe: Sequence[int],
    weights: Array | None,
    U_g: Array | None,
    U_a: Array | None,
    out: Array,
    threads: int,
) -> None: ...
def layer_gram(
    a: Array,
    a_recipe: Sequence[int],
    g: Array,
    g_recipe: Sequence[int],
    triangle: Array,
    threads: int,
) -> None: ...

# ---- one pass over the scores ----
def column_mean(
    scores: Array, weights: Array | None, out: Array, check_finite: bool, threads: int
) -> Report: ...
def diagonal(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    out: Array,
    check_finite: bool,
    threads: int,
) -> Report: ...
def fvp(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    V: Array,
    scale: float,
    damping: float,
    out: Array,
    threads: int,
) -> None: ...
def scores_dot(scores: Array, mean: Array | None, V: Array, out: Array, threads: int) -> None: ...
def scores_transpose_dot(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    Y: Array,
    out: Array,
    threads: int,
) -> None: ...

# ---- Cholesky; L is a panel triangle ----
def cholesky(
    triangle: Array, p: int, scale: float, shift: Array | None, tolerance: float, threads: int
) -> Report: ...
def cholesky_solve(L: Array, B: Array, out: Array, threads: int) -> None: ...
def cholesky_half_solve(L: Array, B: Array, transposed: bool, out: Array, threads: int) -> None: ...
def cholesky_logdet(L: Array, p: int) -> float: ...
def cholesky_inverse(L: Array, p: int, out_triangle: Array, threads: int) -> None: ...
def cholesky_inverse_diagonal(L: Array, out: Array, threads: int) -> None: ...
def cholesky_rcond(L: Array, p: int, norm1: float, threads: int) -> float: ...

# ---- blocks: block-diagonal and block-tridiagonal matrices; sizes and links are intp ----
def blocks_layout(sizes: Array, tridiagonal: bool, itemsize: int) -> tuple[Array, Array, int]: ...
def blocks_accumulate(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    centred: bool,
    sizes: Array,
    tridiagonal: bool,
    sums: Array,
    fresh: bool,
    check_finite: bool,
    threads: int,
) -> Report: ...
def blocks_diagonal(sizes: Array, tridiagonal: bool, sums: Array) -> Array: ...
def blocks_add_outer(
    sizes: Array, tridiagonal: bool, sums: Array, x: Array, alpha: float, threads: int
) -> None: ...
def blocks_product(
    sizes: Array, tridiagonal: bool, sums: Array, V: Array, scale: float, out: Array, threads: int
) -> None: ...
def blocks_norm1(sizes: Array, tridiagonal: bool, sums: Array) -> float: ...
def blocks_dot(sizes: Array, tridiagonal: bool, F: Array, G: Array) -> float: ...
def blocks_project(sizes: Array, tridiagonal: bool, sums: Array, threads: int) -> None: ...
def tridiagonal_links(sizes: Array, tridiagonal: bool, itemsize: int) -> tuple[Array, int]: ...
def tridiagonal_factor(
    sizes: Array,
    links: Array,
    tridiagonal: bool,
    sums: Array,
    scale: float,
    shift: Array,
    tolerance: float,
    factor: Array,
    threads: int,
) -> Report: ...
def tridiagonal_solve(
    links: Array, tridiagonal: bool, factor: Array, B: Array, out: Array, threads: int
) -> None: ...
def tridiagonal_half_solve(
    links: Array,
    tridiagonal: bool,
    factor: Array,
    B: Array,
    transposed: bool,
    out: Array,
    threads: int,
) -> None: ...
def tridiagonal_logdet(links: Array, tridiagonal: bool, factor: Array) -> float: ...
def tridiagonal_inverse(
    sizes: Array, links: Array, tridiagonal: bool, factor: Array, out: Array, threads: int
) -> None: ...
def tridiagonal_rcond(
    links: Array, tridiagonal: bool, factor: Array, norm1: float, threads: int
) -> float: ...

# ---- QR; the triangle is L = Rᵀ, of the columns of the real form and one more with_root ----
def qr_scores(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    with_root: bool,
    triangle: Array,
    check_finite: bool,
    threads: int,
) -> Report: ...
def qr_merge(other: Array, triangle: Array, p: int, threads: int) -> None: ...
def qr_diagonal(diagonal: Array, triangle: Array, threads: int) -> None: ...
def qr_split(triangle: Array, z: Array) -> None: ...
def qr_square(triangle: Array, p: int, out: Array, threads: int) -> None: ...
def qr_squares(triangle: Array, out: Array) -> None: ...

# ---- conjugate gradients ----
def cg_scores(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    scale: float,
    damping: Array,
    B: Array,
    X0: Array | None,
    preconditioner_diagonal: Array | None,
    rtol: float,
    atol: float,
    max_iterations: int,
    out: Array,
    threads: int,
) -> Outcome: ...
def cg_triangle(
    triangle: Array,
    scale: float,
    damping: Array,
    B: Array,
    X0: Array | None,
    preconditioner_diagonal: Array | None,
    rtol: float,
    atol: float,
    max_iterations: int,
    out: Array,
    threads: int,
) -> Outcome: ...
def cg_callable(
    apply: Callable[[Array], Array],
    precondition: Callable[[Array], Array] | None,
    B: Array,
    X0: Array | None,
    rtol: float,
    atol: float,
    max_iterations: int,
    out: Array,
) -> Outcome: ...
def shifted_cg_scores(
    scores: Array,
    weights: Array | None,
    mean: Array | None,
    scale: float,
    dampings: Array,
    B: Array,
    rtol: float,
    atol: float,
    max_iterations: int,
    out: Array,
    threads: int,
) -> Outcome: ...
def shifted_cg_triangle(
    triangle: Array,
    scale: float,
    dampings: Array,
    B: Array,
    rtol: float,
    atol: float,
    max_iterations: int,
    out: Array,
    threads: int,
) -> Outcome: ...
def shifted_cg_callable(
    apply: Callable[[Array], Array],
    dampings: Array,
    B: Array,
    rtol: float,
    atol: float,
    max_iterations: int,
    out: Array,
    threads: int,
) -> Outcome: ...

# ---- roofs, measured ----
def fma_peak(itemsize: int, threads: int) -> float: ...
def read_bandwidth(bytes: int, threads: int) -> float: ...

# ---- batches: the rhs is (B, p, k), damping (B, p, 1), weights (B, n, 1), status int8 ----
def batch_solve(
    F: Array, damping: Array, rhs: Array, out: Array, status: Array, rcond: Array, threads: int
) -> None: ...
def batch_inverse(
    F: Array, damping: Array, out: Array, status: Array, rcond: Array, threads: int
) -> None: ...
def batch_inverse_diagonal(
    F: Array, damping: Array, out: Array, status: Array, rcond: Array, threads: int
) -> None: ...
def batch_logdet(
    F: Array, damping: Array, out: Array, status: Array, rcond: Array, threads: int
) -> None: ...
def batch_fisher(
    scores: Array, weights: Array | None, center: bool, mean: bool, out: Array, threads: int
) -> None: ...
def batch_extended(
    matrix: Array,
    scores: bool,
    mean: bool,
    lo: Array | None,
    damping: Array,
    rhs: Array | None,
    out: Array,
    status: Array,
    rcond: Array,
    bound: Array,
    threads: int,
) -> None: ...
