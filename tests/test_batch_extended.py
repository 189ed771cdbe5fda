"""Extended precision against exact rational arithmetic: right to condition 1e25, and bounded."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
from fastfisher import Status
from oracle import rng


def rational(hi: np.ndarray, lo: np.ndarray | None = None) -> list[list[Fraction]]:
    rows = [[Fraction(float(x)) for x in row] for row in hi]
    if lo is not None:
        rows = [
            [x + Fraction(float(y)) for x, y in zip(row, low, strict=True)]
            for row, low in zip(rows, lo, strict=True)
        ]
    return rows


def fisher(S: np.ndarray) -> list[list[Fraction]]:
    """Return the exact Σ s sᵀ."""
    R = rational(S)
    p = len(R[0])
    return [[sum((r[i] * r[j] for r in R), Fraction()) for j in range(p)] for i in range(p)]


def solved(
    A: Sequence[Sequence[Fraction]], B: Sequence[Sequence[Fraction]]
) -> list[list[Fraction]]:
    """Return the exact A⁻¹ B by elimination; A and B are lists of rows."""
    p = len(A)
    rows = [list(a) + list(b) for a, b in zip(A, B, strict=True)]
    for j in range(p):
        for i in range(p):
            if i != j and rows[i][j]:
                factor = rows[i][j] / rows[j][j]
                rows[i] = [x - factor * y for x, y in zip(rows[i], rows[j], strict=True)]
    return [[x / rows[i][i] for x in rows[i][p:]] for i in range(p)]


def split(A: Sequence[Sequence[Fraction]]) -> tuple[np.ndarray, np.ndarray]:
    """Return hi and lo, float64, of a rational matrix."""
    hi = np.array([[float(x) for x in row] for row in A])
    lo = np.array(
        [
            [float(x - Fraction(float(h))) for x, h in zip(r, g, strict=True)]
            for r, g in zip(A, hi, strict=True)
        ]
    )
    return hi, lo


def relative(found: np.ndarray, exact: Sequence[Sequence[Fraction]]) -> float:
    worst = max(abs(Fraction(float(x)) - e[0]) for x, e in zip(np.ravel(found), exact, strict=True))
    return float(worst / max(abs(e[0]) for e in exact))


def column(b: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(float(x))] for x in b]


def hilbert(p: int) -> list[list[Fraction]]:
    return [[Fraction(1, i + j + 1) for j in range(p)] for i in range(p)]


@pytest.mark.parametrize("p", [1, 2, 5, 8, 12, 17])
def test_hilbert_pairs(p: int) -> None:
    """Condition 1e11 at p = 8, 1e16 at 12, 1e24 at 17."""
    hi, lo = split(hilbert(p))
    b = rng(p).standard_normal(p)
    solution = ff.batch.solve((hi[None], lo[None]), b[None], precision="extended")
    error = relative(solution.value[0], solved(rational(hi, lo), column(b)))
    assert error <= solution.error_bound[0] <= 1e-3
    assert solution.error_bound[0] <= 1e-14 or p > 10
    assert error <= 2e-16 + 1e-29 * np.exp(3.5 * p)


@pytest.mark.parametrize("p", [3, 9, 14])
def test_vandermonde_scores(p: int) -> None:
    S = np.vander(np.linspace(0, 1, p + 3), p)
    b = rng(p).standard_normal((p, 2))
    exact = fisher(S)
    for reduction, factor in (("sum", 1), ("mean", Fraction(1, p + 3))):
        scores = ff.batch.Scores(S[None], reduction=reduction)
        solution = ff.batch.solve(scores, b[None], precision="extended")
        A = [[x * factor for x in row] for row in exact]
        error = max(relative(solution.value[0][:, c], solved(A, column(b[:, c]))) for c in range(2))
        assert error <= solution.error_bound[0] <= 1e-6


@pytest.mark.parametrize("p", [2, 7])
def test_float64_matrices_in_bad_units(p: int) -> None:
    S = rng(p).standard_normal((p + 1, p)) * 10.0 ** np.linspace(-12, 12, p)
    F = S.T @ S
    F = np.tril(F) + np.tril(F, -1).T
    b = rng(p).standard_normal(p)
    solution = ff.batch.solve(F[None], b[None], precision="extended")
    error = relative(solution.value[0], solved(rational(F), column(b)))
    assert error <= solution.error_bound[0] <= 1e-15
    damped = ff.batch.solve(F[None], b[None], damping=0.1, precision="extended")
    A = rational(F)
    for i in range(p):
        A[i][i] += Fraction(0.1)
    error = relative(damped.value[0], solved(A, column(b)))
    assert error <= damped.error_bound[0] <= 1e-15


@pytest.mark.parametrize("p", [3, 10])
def test_inverse(p: int) -> None:
    hi, lo = split(hilbert(p))
    solution = ff.batch.inverse((hi[None], lo[None]), precision="extended")
    eye = [[Fraction(int(i == j)) for j in range(p)] for i in range(p)]
    exact = solved(rational(hi, lo), eye)
    wanted = np.array([[float(x) for x in row] for row in exact])
    error = np.abs(solution.value[0] - wanted).max() / np.abs(wanted).max()
    assert error <= 8 * solution.error_bound[0] <= 1e-13
    kappa = np.abs(wanted).sum(1).max() * np.abs(hi).sum(1).max()
    assert 0.01 < solution.rcond[0] * kappa < 100 * p**2


def test_the_bound_is_infinite_where_nothing_is_proven() -> None:
    """Hilbert of order 24 has condition 1e35, past double-double: the answer is worth nothing."""
    hi, lo = split(hilbert(24))
    solution = ff.batch.solve(
        (hi[None], lo[None]), np.ones((1, 24)), precision="extended", on_failure="nan"
    )
    exact = solved(rational(hi, lo), column(np.ones(24)))
    assert solution.status[0] or relative(solution.value[0], exact) <= solution.error_bound[0]
    assert solution.error_bound[0] > 1e-6


def test_products_and_sums_are_exact() -> None:
    """1 + 2⁻³⁰ squared needs 61 bits: F⁻¹ b of p = 2 sees the last of them, or nothing."""
    x = 1 + 2.0**-30
    S = np.array([[x, 1.0], [x, x]])
    b = np.array([1.0, -1.0])
    solution = ff.batch.solve(ff.batch.Scores(S[None], "sum"), b[None], precision="extended")
    assert relative(solution.value[0], solved(fisher(S), column(b))) <= 2**-52


def test_bits_threads_and_bad_items() -> None:
    F = np.stack([np.eye(4) * (i + 1) + 0.1 for i in range(40)])
    b = rng(4).standard_normal((40, 4, 2))
    wanted = ff.batch.solve(F, b, precision="extended", n_threads=1)
    assert (wanted.error_bound <= 2e-16).all()
    assert not wanted.status.any()
    bad = F.copy()
    bad[3, 1, 0], bad[9], bad[11, 2, 2] = np.nan, 0, -1
    bad[5] *= 2.0**-990
    bad[6] *= 2.0**990
    for threads in (1, 2, 3, 8):
        found = ff.batch.solve(bad, b, precision="extended", on_failure="nan", n_threads=threads)
        expected = np.zeros(40, np.int8)
        expected[3], expected[[9, 11]] = Status.NON_FINITE, Status.NOT_POSITIVE_DEFINITE
        assert (found.status == expected).all()
        assert np.isinf(found.error_bound[expected > 0]).all()
        others = expected == 0
        others[5:7] = False
        assert (found.value[others] == wanted.value[others]).all()
        assert (found.value[5] == wanted.value[5] * 2.0**990).all()
        assert (found.value[6] == wanted.value[6] / 2.0**990).all()
    with pytest.raises(ff.NonFiniteError, match="item 3 and 2 more"):
        ff.batch.inverse(bad, precision="extended")
    one = ff.batch.solve(F[7:8], b[7:8], precision="extended")
    assert (one.value == wanted.value[7]).all()


def test_zero_sizes_and_strides() -> None:
    empty = ff.batch.solve(np.zeros((0, 3, 3)), np.zeros((0, 3)), precision="extended")
    assert empty.value.shape == (0, 3)
    assert empty.error_bound.shape == (0,)
    F = np.eye(3)[None] + 1
    assert ff.batch.solve(F, np.zeros((1, 3)), precision="extended").error_bound[0] == 0
    assert ff.batch.solve(F, np.zeros((5, 3, 0)), precision="extended").value.shape == (5, 3, 0)
    wide = np.zeros((4, 6, 9))
    wide[:, ::2, ::3] = F
    b = rng(5).standard_normal((4, 3))
    wanted = ff.batch.solve(F, b, precision="extended").value
    assert (ff.batch.solve(wide[:, ::2, ::3], b, precision="extended").value == wanted).all()


def test_messages() -> None:
    F, b = np.eye(3)[None], np.ones((1, 3))
    exact: dict[str, Any] = {"precision": "extended"}
    call: Callable[[], Any]
    for call, text in (
        (lambda: ff.batch.solve(F, b, precision="x"), "precision: expected one of"),
        (lambda: ff.batch.solve(F, b, damping_mode="trace", **exact), "damping_mode: expected"),
        (lambda: ff.batch.solve(F, b, on_failure="pinv", **exact), "on_failure: expected 'raise'"),
        (lambda: ff.batch.solve((F, F, F), b, **exact), "F: expected a pair"),
        (lambda: ff.batch.solve((F, F[:, :2, :2]), b, **exact), "lo: expected the shape"),
        (lambda: ff.batch.solve(F[0], b, **exact), "F: expected a 3-D array"),
        (lambda: ff.batch.solve(F[:, :2], b, **exact), "F: expected square matrices"),
        (
            lambda: ff.batch.solve(ff.batch.Scores(F[:, :0]), b, **exact),
            "scores: expected at least one sample",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    for F_ in ((F, F), ff.batch.Scores(F)):
        with pytest.raises(TypeError, match="F: expected an array with precision='double'"):
            ff.batch.solve(F_, b)
