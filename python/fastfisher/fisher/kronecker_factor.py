"""Kronecker factors of a layer: their eigenbasis, their Cholesky factors, and layers together."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from fastfisher._ops.portable import Portable
from fastfisher._range import in_range
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.fisher.factor import Factor, MatrixFactor
from fastfisher.fisher.spectrum import cutoff

__all__ = [
    "EigenFactor",
    "Eigenbasis",
    "LayersFactor",
    "PairFactor",
    "cholesky_of",
    "largest_of",
    "shares",
    "two_sided",
]

Product = Callable[[Any], Any]


def two_sided(W: Any, left: Product, right: Product) -> Any:
    """Return L W Rᵀ for each column of W (d_out, d_in, k), from the products X → L X and X → R X.

    (L ⊗ R) vec(W), with vec the C-order ravel, is vec(L W Rᵀ). One call of each serves all columns;
    of a single one nothing is copied to get there.
    """
    rows, columns, count = W.shape
    half = right(W.transpose(0, 2, 1).reshape(rows * count, columns).T).T
    both = left(half.reshape(rows, count * half.shape[1]))
    return both.reshape(both.shape[0], count, half.shape[1]).transpose(0, 2, 1)


def shares(A: Any, G: Any, damping: float) -> tuple[float, float]:
    """Return what factored damping adds to the diagonals of A and G: π √λ and √λ / π.

    π = √((tr A / dim A) / (tr G / dim G)); 1 where a factor is zero.
    """
    a, g = (float(diagonal.mean(dtype="float64")) for diagonal in (A, G))
    pi = math.sqrt(a / g) if a > 0.0 and g > 0.0 else 1.0
    root = math.sqrt(damping)
    return pi * root, root / pi


def cholesky_of(
    triangle: Any, scale: float, shift: Any, name: str, first: int, step: int, **how: Any
) -> Any:
    """Factor scale · T + shift, using T up; a failure names the factor, its row and a parameter.

    Row i belongs to the parameter first + i · step.
    """
    try:
        return triangle.cholesky(scale, shift, **how)
    except NotPositiveDefiniteError as error:
        row = error.pivot or 0
        raise NotPositiveDefiniteError(
            f"fisher: expected a positive definite F + damping, got pivot {error.value:.3g} at row "
            f"{row} of {name}.",
            pivot=first + row * step,
            value=error.value,
        ) from None


def largest_of(values: Any) -> float:
    """Return the largest of some eigenvalues, finite."""
    cutoff(values.reshape(-1), 1)
    return float(values.max())


class Eigenbasis(Portable):
    """F of a layer as (U_G ⊗ U_A) diag(values) (U_G ⊗ U_A)ᵀ.

    `values` (d_out, d_in) are products of the eigenvalues of the factors, `parts` (w_G, w_A), or
    corrected ones. `singular` names what has an eigenvalue that is zero to rounding.
    """

    def __init__(
        self, ops: ModuleType, bases: tuple[Any, Any], values: Any, parts: Any, name: str
    ) -> None:
        self.ops = ops
        self.bases = bases
        self.left, self.right = bases
        self.values = values
        self.parts = parts
        # Eigenvalues of the factors are known to dim · eps of the largest one, and so are products.
        self.rounding = max(values.shape) * float(np.finfo(values.dtype).eps)
        self.largest = largest_of(values)
        products = f"the moments of {name}"
        suspects = {products: values}
        if parts is not None:
            both = zip("GA", parts, strict=True)
            suspects = {f"the factor {letter} of {name}": part for letter, part in both}
        self.singular = [
            (what, float(numbers.min()))
            for what, numbers in suspects.items()
            if float(numbers.min()) <= self.rounding * float(numbers.max())
        ]
        if not self.singular and float(values.min()) == 0.0:  # it underflowed
            made = products if parts is None else f"the products of the factors of {name}"
            self.singular = [(made, 0.0)]

    @classmethod
    def of_factors(cls, ops: ModuleType, A: Any, G: Any, name: str) -> "Eigenbasis":
        """Decompose G ⊗ A, two dense matrices."""
        (g, left), (a, right) = (_decomposed(ops, factor) for factor in (G, A))
        with np.errstate(over="ignore"):  # `largest_of` looks
            values = g[:, None] * a
        return cls(ops, (left, right), values, (g, a), name)

    def check(self, shift: float) -> None:
        """Raise if an eigenvalue of F + shift is zero to rounding."""
        limit = self.rounding * self.largest
        if self.singular and shift <= limit:
            what, least = self.singular[0]
            error = NotPositiveDefiniteError(
                "fisher: expected a positive definite F + damping, got the eigenvalue "
                f"{least:.3g} in {what}.",
                value=least,
            )
            raise error.with_damping(2 * limit - shift) if limit > 0 else error

    def inwards(self, W: Any, threads: int) -> Any:
        """Return U_Gᵀ W U_A for each column of W (d_out, d_in, k)."""
        product = self.ops.product
        return two_sided(
            W,
            lambda X: product(self.left.T, X, threads),
            lambda X: product(self.right.T, X, threads),
        )

    def outwards(self, W: Any, threads: int) -> Any:
        """Return U_G W U_Aᵀ for each column of W (d_out, d_in, k)."""
        product = self.ops.product
        return two_sided(
            W, lambda X: product(self.left, X, threads), lambda X: product(self.right, X, threads)
        )

    def times(self, numbers: Any, V: Any, threads: int) -> Any:
        """Return (U_G ⊗ U_A) diag(numbers) (U_G ⊗ U_A)ᵀ V for V (d_out · d_in, k)."""
        inner = self.inwards(V.reshape(*self.values.shape, -1), threads)
        inner *= numbers[:, :, None]
        return self.outwards(inner, threads).reshape(V.shape)

    def diagonal(self, numbers: Any) -> Any:
        """Return the diagonal of (U_G ⊗ U_A) diag(numbers) (U_G ⊗ U_A)ᵀ, (d_out · d_in,)."""
        left, right = self.left**2, self.right**2
        return self.ops.product(self.ops.product(left, numbers, 0), right.T, 0).reshape(-1)


class EigenFactor(Factor):
    """A layer in its eigenbasis, with its damped eigenvalues (d_out, d_in)."""

    method = "kronecker-eigh"

    def __init__(self, basis: Eigenbasis, damped: Any, threads: int) -> None:
        super().__init__(damped.size, threads)
        self._ops, self._dtype = basis.ops, damped.dtype
        self._basis, self._damped = basis, damped
        self.norm = float(damped.max())

    def solve_columns(self, rhs: Any) -> Any:
        """Return A⁻¹ rhs."""
        return self._basis.times(1 / self._damped, rhs, self._threads)

    def quadratic_columns(self, V: Any) -> Any:
        """Return Σ ((U_G ⊗ U_A)ᵀ v)² / damped for each column."""
        inner = self._basis.inwards(V.reshape(*self._damped.shape, -1), self._threads)
        return (inner**2 / self._damped[:, :, None]).sum(axis=(0, 1))

    @property
    def logdet(self) -> float:
        """Sum of the logarithms."""
        return float(self._ops.xp.log(self._damped).sum(dtype="float64"))

    @property
    def rcond(self) -> float:
        """Smallest eigenvalue over the largest."""
        return float(self._damped.min()) / self.norm

    @in_range
    def inverse_diagonal(self) -> Any:
        """Return the diagonal of A⁻¹."""
        return self._basis.diagonal(1 / self._damped)

    def _sample_columns(self, generator: Any, count: int) -> Any:
        normal = self._normal(generator, self.shape[0], count)
        normal = normal.reshape(*self._damped.shape, count)
        scaled = normal / self._ops.xp.sqrt(self._damped)[:, :, None]
        return self._basis.outwards(scaled, self._threads).reshape(self.shape[0], count)


class PairFactor(Factor):
    """A layer G ⊗ A by the Cholesky factors of both."""

    method = "kronecker-cholesky"

    def __init__(self, ops: ModuleType, A: Any, G: Any, threads: int) -> None:
        super().__init__(A.size * G.size, threads)
        self._ops, self._dtype = ops, A.dtype
        self._right, self._left = A, G
        self.norm = float(A.norm * G.norm)

    def _both(self, V: Any, verb: Callable[[Any, Any], Any]) -> Any:
        W = V.reshape(self._left.size, self._right.size, -1)
        both = two_sided(W, lambda X: verb(self._left, X), lambda X: verb(self._right, X))
        return both.reshape(V.shape)

    def _halved(self, V: Any, transposed: bool) -> Any:
        return self._both(
            V, lambda L, X: L.half_solve(X, transposed=transposed, threads=self._threads)
        )

    def solve_columns(self, rhs: Any) -> Any:
        """Return vec(G⁻¹ W A⁻¹)."""
        return self._both(rhs, lambda L, X: L.solve(X, self._threads))

    def quadratic_columns(self, V: Any) -> Any:
        """Return ‖L_G⁻¹ W L_A⁻ᵀ‖² for each column."""
        return (self._halved(V, transposed=False) ** 2).sum(axis=0)

    @property
    def logdet(self) -> float:
        """d_in log det G + d_out log det A."""
        left, right = self._left, self._right
        return float(right.size * left.logdet() + left.size * right.logdet())

    @property
    def rcond(self) -> float:
        """Estimate of 1 / κ₁, the product of both."""
        return float(self._left.rcond(self._threads) * self._right.rcond(self._threads))

    @in_range
    def inverse_diagonal(self) -> Any:
        """Return the products of both inverses' diagonals."""
        left, right = (L.inverse_diagonal(self._threads) for L in (self._left, self._right))
        return (left[:, None] * right).reshape(-1)

    def _sample_columns(self, generator: Any, count: int) -> Any:
        return self._halved(self._normal(generator, self.shape[0], count), transposed=True)


class LayersFactor(Factor):
    """A block-diagonal matrix by the factors of its blocks, one for each layer."""

    def __init__(self, layers: list[Any], slices: list[slice], threads: int) -> None:
        super().__init__(slices[-1].stop, threads)
        self._ops, self._dtype = layers[0]._ops, layers[0]._dtype
        self.method = layers[0].method
        self._layers, self._slices = layers, slices

    def _each(self, V: Any) -> list[tuple[Any, Any]]:
        return [(one, V[where]) for one, where in zip(self._layers, self._slices, strict=True)]

    def solve_columns(self, rhs: Any) -> Any:
        """Return A⁻¹ rhs, layer by layer."""
        if len(self._layers) == 1:
            return self._layers[0].solve_columns(rhs)
        out = self._ops.empty(rhs.shape, rhs.dtype)
        for (one, part), where in zip(self._each(rhs), self._slices, strict=True):
            out[where] = one.solve_columns(part)
        return out

    def quadratic_columns(self, V: Any) -> Any:
        """Return v* A⁻¹ v for each column, the sum over the layers."""
        parts = [one.quadratic_columns(part) for one, part in self._each(V)]
        return sum(parts[1:], parts[0])

    @property
    def logdet(self) -> float:
        """Sum over the layers."""
        return math.fsum(one.logdet for one in self._layers)

    @property
    def rcond(self) -> float:
        """Estimate of 1 / κ of the whole: of the largest norm and the largest inverse's."""
        norms = [
            one._factor.norm if isinstance(one, MatrixFactor) else one.norm for one in self._layers
        ]
        inverses = (1 / (one.rcond * norm) for one, norm in zip(self._layers, norms, strict=True))
        return float(1 / (max(norms) * max(inverses)))

    @in_range
    def inverse_diagonal(self) -> Any:
        """Return the diagonal of A⁻¹, layer after layer."""
        return self._ops.xp.concat([one.inverse_diagonal() for one in self._layers])

    def _sample_columns(self, generator: Any, count: int) -> Any:
        draws = [one._sample_columns(generator, count) for one in self._layers]
        return self._ops.xp.concat(draws)


def _decomposed(ops: ModuleType, factor: Any) -> tuple[Any, Any]:
    """Return eigenvalues, those below zero by rounding as zero, and eigenvectors."""
    values, vectors = ops.eigh(factor)
    cutoff(values, 1)
    return ops.xp.maximum(values, 0), ops.xp.ascontiguousarray(vectors)
