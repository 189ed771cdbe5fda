"""cuBLAS and cuSOLVER as their manuals have them, on addresses, for the calls that we make."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

LETTERS = {"s": np.float32, "d": np.float64, "c": np.complex64, "z": np.complex128}
DATA = {0: np.float32, 1: np.float64, 2: np.float16, 4: np.complex64, 5: np.complex128}
COMPUTE = {68: (np.float32, np.complex64), 70: (np.float64, np.complex128)}
CUBLAS_POINTER_MODE_HOST = 0


def matrix(address: int, rows: int, columns: int, step: int, dtype: npt.DTypeLike) -> np.ndarray:
    """Return the matrix of a library: columns `step` numbers apart, at an address."""
    dtype = np.dtype(dtype)
    assert step >= max(rows, 1)
    assert address % dtype.itemsize == 0
    if rows == 0 or columns == 0:
        return np.zeros((rows, columns), dtype)
    count = step * (columns - 1) + rows
    raw: Any = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    strides = (dtype.itemsize, step * dtype.itemsize)
    return np.lib.stride_tricks.as_strided(np.frombuffer(raw, dtype), (rows, columns), strides)


def scalar(address: int, dtype: npt.DTypeLike) -> Any:
    answer: complex | np.complexfloating | np.floating = matrix(address, 1, 1, 1, dtype)[0, 0]
    return answer


def operation(A: np.ndarray, kind: int) -> np.ndarray:
    return {0: A, 1: A.T, 2: A.conj().T}[kind]


def part_of(shape: tuple[int, int], uplo: int) -> np.ndarray:
    """Return a mask of the triangle: 0 lower, 1 upper."""
    return (np.tril if uplo == 0 else np.triu)(np.ones(shape, bool))


def widened(address: int, rows: int, columns: int, step: int, kind: int) -> np.ndarray:
    if kind == 14:  # bfloat16
        bits = matrix(address, rows, columns, step, np.uint16)
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return matrix(address, rows, columns, step, DATA[kind])


def setPointerMode(handle: int, mode: int) -> None:
    assert handle == 7
    assert mode == CUBLAS_POINTER_MODE_HOST


def gemmEx(handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: Any,
           Atype: int, lda: int, B: Any, Btype: int, ldb: int, beta: int, C: Any, Ctype: int,
           ldc: int, computeType: int, algo: int) -> None:  # fmt: skip
    assert handle == 7
    assert algo == -1
    assert Atype == Btype
    assert DATA[Ctype] in COMPUTE[computeType]
    A = widened(A, *((m, k) if transa == 0 else (k, m)), lda, Atype)
    B = widened(B, *((k, n) if transb == 0 else (n, k)), ldb, Btype)
    C, sums = matrix(C, m, n, ldc, DATA[Ctype]), DATA[Ctype]
    product = operation(A.astype(sums), transa) @ operation(B.astype(sums), transb)
    C[...] = scalar(alpha, sums) * product + scalar(beta, sums) * C


def _syrk(
    dtype: npt.DTypeLike,
) -> Callable[[int, int, int, int, int, int, int, int, int, int, int], None]:
    def syrk(
        handle: int,
        uplo: int,
        trans: int,
        n: int,
        k: int,
        alpha: int,
        A: Any,
        lda: int,
        beta: int,
        C: Any,
        ldc: int,
    ) -> None:
        assert handle == 7
        assert trans in (0, 1)
        A = operation(matrix(A, *((n, k) if trans == 0 else (k, n)), lda, dtype), trans)
        C, mask = matrix(C, n, n, ldc, dtype), part_of((n, n), uplo)
        C[mask] = (scalar(alpha, dtype) * (A @ A.T) + scalar(beta, dtype) * C)[mask]

    return syrk


def _trsm(
    dtype: npt.DTypeLike,
) -> Callable[[int, int, int, int, int, int, int, int, int, int, int, int], None]:
    def trsm(
        handle: int,
        side: int,
        uplo: int,
        trans: int,
        diag: int,
        m: int,
        n: int,
        alpha: int,
        A: Any,
        lda: int,
        B: Any,
        ldb: int,
    ) -> None:
        assert handle == 7
        assert side == 0
        assert diag == 0
        A = matrix(A, m, m, lda, dtype)
        A = np.where(part_of(A.shape, uplo), A, 0)
        B = matrix(B, m, n, ldb, dtype)
        B[...] = np.linalg.solve(operation(A, trans), scalar(alpha, dtype) * B)

    return trsm


def _potrf_bufferSize(handle: int, uplo: int, n: int, A: int, lda: int) -> int:
    assert handle == 8
    assert lda >= n
    return 3


def _potrf(dtype: npt.DTypeLike) -> Callable[[int, int, int, int, int, int, int, int], None]:
    def potrf(
        handle: int, uplo: int, n: int, A: Any, lda: int, work: int, lwork: int, info: int
    ) -> None:
        assert handle == 8
        assert lwork == 3
        assert uplo == 1
        A = matrix(A, n, n, lda, dtype)
        place = matrix(info, 1, 1, 1, np.int32)
        place[0, 0] = 0
        full = np.where(part_of(A.shape, 1), A, 0)
        full = full + np.triu(full, 1).conj().T
        for j in range(n):  # Uᴴ U, row by row
            pivot = full[j, j].real - np.sum(np.abs(A[:j, j]) ** 2)
            if not pivot > 0:
                A[j, j] = pivot
                place[0, 0] = j + 1
                return
            A[j, j] = np.sqrt(pivot)
            A[j, j + 1 :] = (full[j, j + 1 :] - A[:j, j].conj() @ A[:j, j + 1 :]) / A[j, j]

    return potrf


for _letter, _dtype in LETTERS.items():
    globals()[f"{_letter}trsm"] = _trsm(_dtype)
    globals()[f"{_letter}potrf"] = _potrf(_dtype)
    globals()[f"{_letter}potrf_bufferSize"] = _potrf_bufferSize
    if _letter in "sd":
        globals()[f"{_letter}syrk"] = _syrk(_dtype)
