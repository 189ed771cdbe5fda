"""Conjugates, which real numbers do without: |x|², Xᴴ and Hermitian parts, in any library."""

from typing import Any

from fastfisher._ops.types import Array

__all__ = ["adjoint_of", "adjoints_of", "hermitian_part", "squares"]


def squares(X: Array) -> Array:
    """Return |x|² of each entry, real."""
    return X.real * X.real + X.imag * X.imag if X.dtype.kind == "c" else X * X


def adjoint_of(X: Array) -> Array:
    """Return Xᴴ of a matrix, a view where it is real."""
    return X.T.conj() if X.dtype.kind == "c" else X.T


def adjoints_of(xp: Any, X: Array) -> Array:
    """Return Xᴴ of each matrix of a stack."""
    turned = xp.matrix_transpose(X)
    return turned.conj() if X.dtype.kind == "c" else turned


def hermitian_part(X: Array) -> Array:
    """Return (X + Xᴴ) / 2, without the rounding that made X unsymmetric."""
    return (X + adjoint_of(X)) / 2
