"""What a device does better than array expressions: the primitives under the generic verbs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from fastfisher._ops.types import Array, DType, Pair

if TYPE_CHECKING:
    from fastfisher._ops.array_batches import Columns

__all__ = ["Bound", "Engine", "bound"]

_Kind = TypeVar("_Kind", bound="Bound")


class Engine(Protocol):
    """Primitives on the arrays of one library, all on the current device and its current stream.

    Only `read`, `first_bad` and `to_host` wait for the device. A "lower" matrix is a C-contiguous
    (p, p) array of which the lower triangle counts; what lies above it is neither read nor kept.
    Scores may be halves; `weights` (n,) and `mean` (p,) have the dtype that is summed in (weights
    its real one), or are None. ``array_engine`` has a plain form of each.
    """

    name: str  # as messages call the library: "CuPy"
    xp: Any  # its namespace, as far as the array API standard and CuPy agree
    ndarray: type

    # ---- places ----
    def here(self) -> str:
        """Return the name of the current device."""

    def where(self, array: Array) -> str:
        """Return the name of the device that holds `array`."""

    def free_bytes(self) -> int | None:
        """Return the bytes that can still be allocated on the device, None where it is unknown."""

    def read(self, numbers: Array) -> list[float]:
        """Wait for a few numbers (m,) and return them."""

    def to_host(self, array: Array) -> "np.ndarray[Any, DType]":
        """Copy an array to the host."""

    def from_host(self, array: "np.ndarray[Any, DType]") -> Array:
        """Copy an array to the device."""

    # ---- one pass over scores (n, p) ----
    def prepared(
        self, scores: Array, root: Array | None, mean: Array | None, dtype: DType
    ) -> Array:
        """Return √w (s − m) in `dtype`; the scores themselves where nothing is to be done."""

    def first_bad(self, array: Array) -> tuple[int, int, float]:
        """Return row, column and value of the first entry that is not finite, row -1 for none."""

    def column_sums(self, scores: Array, weights: Array | None, dtype: DType) -> Array:
        """Return Σ w s, (p,)."""

    def square_sums(
        self, scores: Array, weights: Array | None, mean: Array | None, dtype: DType
    ) -> Array:
        """Return Σ w |s − m|², (p,), of the real dtype that belongs to `dtype`."""

    def fvp(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        V: Array,
        scale: float,
        damping: float,
    ) -> Array:
        """Return scale · Σ w (s − m)* (s − m)ᵀ V + damping · V for V of shape (p, k)."""

    def scores_dot(self, scores: Array, mean: Array | None, V: Array) -> Array:
        """Return (S − 1mᵀ) V, (n, k)."""

    def scores_transpose_dot(
        self, scores: Array, weights: Array | None, mean: Array | None, Y: Array
    ) -> Array:
        """Return (S − 1mᵀ)ᴴ diag(w) Y, (p, k)."""

    # ---- columns (p, k), in double ----
    def dots(self, X: Array, Y: Array) -> Array:
        """Return Re xᴴ y of each pair of columns, (k,), summed in float64."""

    def norms(self, X: Array) -> Array:
        """Return ‖x‖ of each column, (k,), in float64, also where ‖x‖² is beyond the numbers."""

    # ---- symmetric and Hermitian matrices ----
    def add_scores(
        self, lower: Array, scores: Array, weights: Array | None, mean: Array | None
    ) -> None:
        """Add Σ w (s − m)* (s − m)ᵀ to the lower triangle (p, p); no n × p temporary."""

    def add_gram(
        self, lower: Array, scores: Array, weights: Array | None, mean: Array | None
    ) -> None:
        """Add W½ (S − 1mᵀ)(S − 1mᵀ)ᴴ W½ to the lower triangle (n, n); no n × p temporary."""

    def rank_update(self, lower: Array, X: Array, *, outer: bool = False) -> None:
        """Add Xᴴ X, or X Xᴴ if `outer`, to the lower triangle (syrk, herk)."""

    def symmetric_product(self, lower: Array, V: Array) -> Array:
        """Return A V for V of shape (p, k) (symm, hemm)."""

    def mirror(self, lower: Array, scale: float, out: Array) -> None:
        """Write scale · A to `out`, both triangles."""

    def cholesky(self, lower: Array) -> Array:
        """Factor in place, A = L Lᴴ; return j + 1 for the first pivot j that is not positive.

        That is one integer on the device, 0 where all went well. After a failure what comes before
        row and column j must be the factor's, and entry (j, j) should be the pivot.
        """

    def triangular_solve(self, lower: Array, B: Array, *, adjoint: bool = False) -> Array:
        """Return L⁻¹ B, or L⁻ᴴ B, for B of shape (p, k) (trsm)."""

    def inverse(self, lower: Array) -> Array:
        """Return (L Lᴴ)⁻¹, of which the lower triangle counts (potri)."""

    def eigh(self, matrix: Array) -> tuple[Array, Array]:
        """Return eigenvalues, ascending, and eigenvectors; the lower triangle is read."""

    def product(self, X: Array, Y: Array) -> Array:
        """Return X Y."""

    def triangular_root(self, X: Array) -> Array:
        """Return the R (p, p) of a QR factorisation of X (n, p), n ≥ p (geqrf); signs are any."""

    # ---- many small matrices, side by side in (m, s, s) ----
    def block_moments(
        self,
        scores: Array,
        weights: Array | None,
        mean: Array | None,
        left: "Columns",
        right: "Columns",
        dtype: DType,
    ) -> Array:
        """Return Σ w (s − m)*_l (s − m)ᵀ_r for each block l of columns and its r, (m, l, r).

        Where both stand in one run, and nothing is weighed or centred, a strided batch of products
        reads the scores as they stand (cublasGemmStridedBatched, leading dimension p).
        """

    def cholesky_batch(self, lower: Array) -> Array:
        """Factor each in place; return the pivots, (m, s), NaN after one that is not positive.

        With cuSOLVER's potrfBatched they are the squares of the diagonal, and the first that fails
        is what its status names.
        """

    def triangular_solve_batch(self, lower: Array, B: Array, *, adjoint: bool = False) -> Array:
        """Return L⁻¹ B, or L⁻ᴴ B, for each B of shape (s, k) (trsmBatched)."""

    # ---- patches ----
    def row_blocks(self, rows: int, width: int, dtype: DType) -> Iterator[slice]:
        """Yield slices of rows, as many at a time as a chunk of memory holds of this width."""

    def patches(
        self, x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, grid: Pair
    ) -> Array:
        """Return the patches of images (n, c, h, w) as an array (n, down, across, c, kh, kw).

        A view will do: ``cupy.lib.stride_tricks.sliding_window_view`` of the padded images.
        """


class Bound:
    """A class of the verbs, such as a triangle, that works on the arrays of its `engine`."""

    engine: Engine

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"{type(self).__name__}: expected arrays of the host for a pickle or a deep copy, got "
            f"{self.engine.name}'s. Save the Fisher, load it where it is wanted, and factor there."
        )


_bound: dict[Any, Any] = {}


def bound(kind: type[_Kind], engine: Engine) -> type[_Kind]:
    """Return `kind` for the arrays of `engine`, the same class each time."""
    if (kind, engine) not in _bound:
        _bound[kind, engine] = type(
            kind.__name__,
            (kind,),
            {"engine": engine, "__doc__": kind.__doc__, "__module__": kind.__module__},
        )
    made: type[_Kind] = _bound[kind, engine]
    return made
