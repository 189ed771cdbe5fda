"""The same bits: for any number of threads, in any run, wherever the arrays lie in memory."""

import ast
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import verbs
from fastfisher._native import core

# Measured, not promised: these time the machine.
ROOFS = {"fma_peak", "read_bandwidth"}


def flat(found: np.ndarray | Sequence[np.ndarray]) -> bytes:
    parts = found if isinstance(found, list | tuple) else [found]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def bits(dtype: type[np.inexact], threads: int, **options: Any) -> dict[tuple[str, int], bytes]:
    before = ff.get_num_threads()
    ff.set_num_threads(threads)
    try:
        places: Counter[Any]
        places, found = Counter(), {}
        for name, call in verbs.calls(dtype, **options):
            places[name] += 1
            found[name, places[name]] = flat(call())
        return found
    finally:
        ff.set_num_threads(before)


def differing(
    found: dict[tuple[str, int], bytes], expected: dict[tuple[str, int], bytes]
) -> list[Any]:
    assert found.keys() == expected.keys()
    return [name for name in found if found[name] != expected[name]]


def test_the_same_bits_for_any_number_of_threads() -> None:
    expected = bits(np.float64, 1)
    for threads in (2, 3, 8):
        assert not differing(bits(np.float64, threads), expected), threads


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_the_same_bits_for_any_number_of_threads_and_dtype(dtype: type[np.inexact]) -> None:
    assert not differing(bits(dtype, 3), bits(dtype, 1))


def with_threads() -> set[str]:
    """Return the names of the core's functions that take a number of threads."""
    stub = ast.parse((Path(ff.__file__).parent / "_core.pyi").read_text(encoding="utf-8"))
    return {
        node.name
        for node in stub.body
        if isinstance(node, ast.FunctionDef) and "threads" in {arg.arg for arg in node.args.args}
    } - ROOFS


def test_the_table_calls_every_kernel_that_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    called = set()

    def watched(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> float | np.ndarray | tuple[float | np.ndarray, ...]:
            called.add(name)
            answer: float | np.ndarray | tuple[float | np.ndarray, ...] = kernel(*args)
            return answer

        return call

    names = with_threads()
    assert len(names) > 40
    for name in names:
        monkeypatch.setattr(core, name, watched(name, getattr(core, name)))
    for dtype in (np.float64, np.complex64):
        bits(dtype, 1)
    # The one looks for the place of a NaN, and no verb is made of the other (test_product.py).
    assert names - called <= {"patches_find_nonfinite", "product"}


# ---- where arrays lie ----
def moved(S: np.ndarray, offset: int) -> np.ndarray:
    """Return a copy whose first number lies `offset` bytes past a cache line."""
    raw = np.empty(S.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    copy = raw[start : start + S.nbytes].view(S.dtype).reshape(S.shape)
    copy[...] = S
    assert copy.ctypes.data % 64 == offset
    return copy


@pytest.mark.parametrize(
    ("dtype", "offsets"),
    # Before and after the middle of a cache line, and of vectors of each width; complex numbers
    # also across one.
    [(np.float64, (8, 56)), (np.float32, (4, 36)), (np.complex64, (8,)), (np.complex128, (8, 48))],
)
def test_the_same_bits_wherever_the_scores_lie(dtype: type[Any], offsets: Sequence[int]) -> None:
    S = verbs.scores(700, 150, dtype)
    expected = bits(dtype, 2, S=moved(S, 0))
    for offset in offsets:
        assert not differing(bits(dtype, 2, S=moved(S, offset)), expected), offset


def test_the_same_bits_beside_any_number_of_threads_of_blas() -> None:
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    found = []
    for count in (1, 2):
        with limits(count, user_api="blas"):
            found.append(bits(np.float64, 2))
    assert not differing(*found)


def test_what_numpy_multiplies_has_the_bits_of_one_blas_thread_count() -> None:
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    with limits(1, user_api="blas"):
        for name, call in verbs.of_blas(np.float64):
            expected = flat(call())
            for threads in (1, 3):
                with limits(threads, user_api="openmp"):
                    assert flat(call()) == expected, name
