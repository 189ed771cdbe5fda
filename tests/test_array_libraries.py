"""Every array library: the public functions, solvers and accumulators, from end to end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import libraries
import oracle
from fastfisher import _check
from fastfisher.fisher.accumulator import Accumulator
from given import DTYPES, STORED, Given, N, P, agree


@pytest.fixture(params=libraries.EVERY)
def library(request: pytest.FixtureRequest) -> libraries.Library:
    answer: libraries.Library = request.param
    return answer


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", STORED)
def test_functions(library: libraries.Library, dtype: str, center: bool, weighted: bool) -> None:
    g = Given(library, dtype)
    w = g.w if weighted else None
    some: dict[str, Any] = {"weights": g.weights if weighted else None, "center": center}
    of: dict[str, Any] = {"weights": w, "center": center}
    F = oracle.fisher(g.S, **of)
    size = np.abs(F).max() * 10
    g.close(ff.empirical_fisher(g.scores, **some), F)
    g.close(ff.empirical_fisher(g.scores, reduction="sum", **some),
            oracle.fisher(g.S, reduction="sum", **of))  # fmt: skip
    real = _check.real_of(g.sums)
    g.close(ff.fisher_diagonal(g.scores, **some), np.diag(F).real, dtype=real)
    V = oracle.wide(g.V)
    g.close(ff.fvp(g.scores, g.to(g.V), damping=0.5, **some), F @ V + 0.5 * V, N * P, size)
    g.close(ff.fvp(g.scores, g.to(g.V)[:, 0], **some), F @ V[:, 0], N * P, size)
    g.close(ff.gram(g.scores, **some), oracle.gram(g.S, **of), P)
    expected = oracle.natural_gradient(g.S, 0.5, **of)
    g.close(ff.natural_gradient(g.scores, damping=0.5, **some), expected, N * P)
    solution = ff.solve(g.to(F.astype(g.sums)), g.to(g.V), damping=0.5)
    g.close(solution.value, np.linalg.solve(F + 0.5 * np.eye(P), V), N * P)
    assert solution.residual is not None
    assert solution.residual <= 64 * P * oracle.EPS[g.sums]
    assert solution.method == "cholesky"


SOLVERS: dict[str, Any] = {
    "cholesky": ff.Cholesky(),
    "mixed": ff.Cholesky(precision="mixed"),
    "cg": ff.CG(rtol=1e-14),
    "cg-plain": ff.CG(rtol=1e-14, preconditioner=None),
    "cg-blocks": ff.CG(rtol=1e-14, preconditioner=ff.BlockJacobi(3)),
    "cg-nystrom": ff.CG(rtol=1e-14, preconditioner=ff.Nystrom(3)),
    "dual": ff.Dual(),
    "qr": ff.QR(),
    "eigh": ff.Eigh(),
}


# What costs most of the time here needs no more than one real and one complex dtype.
FEW = {"mixed", "cg", "cg-plain", "cg-blocks", "cg-nystrom"}
TWO = ("float64", "complex64")


@pytest.mark.parametrize(
    ("solver", "dtype"),
    [(s, d) for s in SOLVERS for d in (TWO if s in FEW else DTYPES)],
)
def test_solvers(library: libraries.Library, solver: Any, dtype: str) -> None:
    g = Given(library, dtype)
    solver = SOLVERS[solver]
    some: dict[str, Any] = {"weights": g.weights, "solver": solver}
    for samples in (N, 5):  # the Fisher itself, and of fewer samples than parameters
        S, w = g.S[:samples], g.w[:samples]
        given = {**some, "weights": g.to(w)}
        expected = oracle.natural_gradient(S, 0.5, weights=w)
        found = ff.natural_gradient(g.to(S), damping=0.5, **given)
        g.close(found, expected, 8 * N * P)
        expected = oracle.natural_gradient(S, 0.5, grad=oracle.wide(g.V), weights=w)
        found = ff.natural_gradient(g.to(S), g.to(g.V), damping=0.5, **given)
        g.close(found, expected, 8 * N * P)
    vector = np.arange(1.0, P + 1).astype(_check.real_of(g.sums))
    expected = oracle.natural_gradient(g.S, vector, weights=g.w)
    found = ff.natural_gradient(g.scores, damping=g.to(vector), **some)
    g.close(found, expected, 8 * N * P)


@pytest.mark.parametrize("dtype", TWO)
@pytest.mark.parametrize("solver", ["cholesky", "cg-plain", "dual", "qr", "eigh"])
def test_paths(library: libraries.Library, solver: str, dtype: str) -> None:
    g = Given(library, dtype)
    F = ff.ScoreFisher(g.scores, weights=g.weights)
    dampings = [0.5, 2.0, 8.0]
    path = F.solve_path(g.to(g.V), dampings, solver=SOLVERS[solver])
    for found, damping in zip(path, dampings, strict=True):
        expected = oracle.natural_gradient(g.S, damping, grad=oracle.wide(g.V), weights=g.w)
        g.close(found.value, expected, 8 * N * P)
        assert found.status == ff.Status.SUCCESS


# ---- accumulators ----
EMPTY: dict[str, Any] = {
    "dense": ff.DenseFisher,
    "diagonal": ff.DiagonalFisher,
    "blocks": lambda p, **k: ff.BlockDiagonalFisher([3, p - 3], tridiagonal=True, **k),
    "root": ff.SquareRootFisher,
    "low-rank": lambda p, **k: ff.LowRankFisher(p, p, **k),
}


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kind", EMPTY)
def test_accumulators(
    library: libraries.Library, kind: str, center: bool, dtype: str, tmp_path: Path
) -> None:
    g = Given(library, dtype)

    def streamed(to: Callable[..., Any]) -> tuple[Accumulator, Accumulator]:
        """Return an empty one that met its library at the first update, and another."""
        first, second = (EMPTY[kind](P, dtype=g.sums, center=center) for _ in range(2))
        first.update(to(g.S[:20]), to(g.w[:20])).update(to(g.S[20:30]))
        second.update_from([to(g.S[30:50]), (to(g.S[50:]), to(g.w[50:]))])
        return first, second

    F, other = streamed(g.to)
    E, expected = streamed(np.asarray)
    agree(library, F, E)
    agree(library, F.copy(), E)
    agree(library, F + other, E + expected)
    F.decay(0.5).merge(other)
    E.decay(0.5).merge(expected)
    agree(library, F, E)
    empty = EMPTY[kind](P, dtype=g.sums, center=center)
    agree(library, empty.merge(F, EMPTY[kind](P, dtype=g.sums, center=center)), E)

    path = tmp_path / "f.npz"
    F.save(path)
    agree(libraries.NUMPY, ff.load(path), E)
    loaded: Any = ff.load(path, like=g.scores)
    agree(library, loaded, E)
    agree(library, loaded.update(g.scores, g.weights), E.update(g.S, g.w))


# ---- failures ----
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_matrix_that_is_not_positive_definite(library: libraries.Library, dtype: str) -> None:
    g = Given(library, dtype)
    A = oracle.fisher(g.S[:4])  # of rank 4
    held, rhs = g.to(A.astype(g.sums)), g.to(g.V)
    with pytest.raises(ff.NotPositiveDefiniteError, match="at parameter 4, not above") as caught:
        ff.solve(held, rhs)
    assert caught.value.pivot == 4
    damping = caught.value.damping
    assert damping is not None
    assert 0 < damping < 1e-3
    assert ff.solve(held, rhs, damping=2 * damping).status == ff.Status.SUCCESS

    nothing = ff.solve(held, rhs, on_failure="nan")
    assert nothing.status == ff.Status.NOT_POSITIVE_DEFINITE
    assert np.isnan(library.back(nothing.value)).all()
    shifted = ff.solve(held, rhs, on_failure="shift")
    assert shifted.status == ff.Status.SHIFTED
    assert library.is_own(shifted.value)
    kept = ff.solve(held, rhs, on_failure="pinv")
    assert (kept.status, kept.rank) == (ff.Status.TRUNCATED, 4)
    expected = np.linalg.pinv(A, hermitian=True, rcond=1e-5) @ oracle.wide(g.V)
    g.close(kept.value, expected, 200 * N * P)

    indefinite = g.to(np.diag([1.0, -1.0, 2.0]).astype(g.sums))
    with pytest.raises(ff.NotPositiveDefiniteError, match="pivot -1 at parameter 1"):
        ff.solve(indefinite, g.to(np.ones(3, g.sums)))
    with pytest.raises(ff.NotPositiveDefiniteError, match="negative or zero curvature"):
        ff.solve(indefinite, g.to(np.array([1, 2, 1], g.sums)), solver=ff.CG())
    spoilt = np.eye(3, dtype=g.sums)
    spoilt[2, 1] = np.nan
    with pytest.raises(ff.NonFiniteError, match="row 2, column 1"):
        ff.solve(g.to(spoilt), g.to(np.ones(3, g.sums)))
    with pytest.raises(ff.NonFiniteError, match="rhs: expected finite values"):
        ff.solve(held, g.to(np.full(P, np.nan, g.sums)))
