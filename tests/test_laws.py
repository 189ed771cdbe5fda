"""Laws, by random search: sums are monoids, samples and parameters have no order, solvers agree."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfisher as ff
import kronecker
import oracle
from fastfisher.fisher.accumulator import Accumulator

# The same examples each time: a law that fails here fails for everyone.
law = settings(deadline=None, max_examples=8, derandomize=True, database=None)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 30))
dtypes = st.sampled_from(oracle.EVERY)
centred = st.booleans()
parts = st.lists(st.integers(0, 12), min_size=3, max_size=5)
seeds = st.integers(0, 2**16)

SHAPES = ((2, 3), (3, 2))


def dense(F: Accumulator) -> np.ndarray:
    answer: np.ndarray = F.to_dense()
    return answer


# Name -> (empty accumulator of p parameters, its scores of n samples).
KINDS: dict[str, Any] = {
    "dense": ff.DenseFisher,
    "diagonal": ff.DiagonalFisher,
    "blocks": lambda p, **k: ff.BlockDiagonalFisher([p - p // 2, *[p // 2] * (p > 1)], **k),
    "chain": lambda p, **k: ff.BlockDiagonalFisher([1] * p, tridiagonal=True, **k),
    "root": ff.SquareRootFisher,
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def drawn(n: int, p: int, dtype: type[np.inexact], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = oracle.rng(n, p, seed)
    S = generator.standard_normal((n, p))
    if np.dtype(dtype).kind == "c":
        S = S + 1j * generator.standard_normal((n, p))
    return S.astype(dtype), generator.uniform(0.25, 2.0, n)


def agree(
    one: np.ndarray,
    two: np.ndarray,
    dtype: type[np.inexact],
    terms: int,
    scale: float | np.floating | None = None,
) -> None:
    """|one − two| ≤ 8 · terms · eps · scale, of what is summed; both come from the library."""
    scale = max(float(np.abs(two).max(initial=0)), 1e-30) if scale is None else scale
    oracle.close(one, np.asarray(two), dtype, 2 * terms, scale)


def pieces(
    kind: str, counts: Sequence[int], p: int, dtype: type[np.inexact], center: bool, seed: int
) -> tuple[np.ndarray, np.ndarray, list[Accumulator]]:
    S, w = drawn(sum(counts), p, dtype, seed)
    ends, out = np.cumsum(counts), []
    for count, end in zip(counts, ends, strict=True):
        F = KINDS[kind](p, dtype=dtype, center=center, reduction="sum")
        out.append(F.update(S[end - count : end], w[end - count : end]))
    return S, w, out


def size_of(S: np.ndarray, w: np.ndarray) -> float:
    return float(((np.abs(S) ** 2) * w[:, None]).sum(axis=0).max(initial=0)) * 4 + 1e-30


# ---- sums ----
@each_kind
@law
@given(parts, st.integers(1, 20), dtypes, centred, seeds)
def test_merging_is_associative_and_commutative_and_has_a_zero(
    kind: str, counts: Sequence[int], p: int, dtype: type[np.inexact], center: bool, seed: int
) -> None:
    S, w, (a, b, c, *rest) = pieces(kind, counts, p, dtype, center, seed)
    scale, n = size_of(S, w), sum(counts) + 8
    agree(((a + b) + c).to_dense(), (a + (b + c)).to_dense(), dtype, n, scale)
    agree((a + b).to_dense(), (b + a).to_dense(), dtype, n, scale)
    zero = KINDS[kind](p, dtype=dtype, center=center, reduction="sum")
    for other in (a + zero, zero + a):
        agree(other.to_dense(), a.to_dense(), dtype, 1, scale)
        assert (other.n_samples, other.weight_sum) == (a.n_samples, a.weight_sum)
    before = [part.to_dense() for part in (a, b, c)]
    whole = a.copy().merge(b, c, *rest)
    assert all(map(np.array_equal, before, map(dense, (a, b, c)))), "merging changed the others"
    assert whole.n_samples == sum(counts)
    # Streaming is one call: the parts in turn, or all samples at once.
    once = KINDS[kind](p, dtype=dtype, center=center, reduction="sum").update(S, w)
    agree(whole.to_dense(), once.to_dense(), dtype, n, scale)


@each_kind
@law
@given(sizes, dtypes, centred, st.integers(-20, 20), seeds)
def test_scaling_scores_scales_their_squares(
    kind: str, size: tuple[int, int], dtype: type[np.inexact], center: bool, power: int, seed: int
) -> None:
    n, p = size
    S, w = drawn(n, p, dtype, seed)

    def make(S: np.ndarray) -> Any:
        return KINDS[kind](size[1], dtype=dtype, center=center).update(S, w)

    factor = S.dtype.type(2.0**power)
    # A power of two only moves the point: not one bit is another.
    one, other = make(S * factor).to_dense(), make(S).to_dense() * factor**2
    if kind == "root":  # whose reflections stop at squares of eps
        agree(one, other, dtype, sum(size), abs(factor) ** 2 * size_of(S, w) / w.sum())
    else:
        assert np.array_equal(one, other)


@each_kind
@law
@given(sizes, dtypes, centred, seeds)
def test_weights_count_samples_and_samples_have_no_order(
    kind: str, size: tuple[int, int], dtype: type[np.inexact], center: bool, seed: int
) -> None:
    n, p = size
    S, _ = drawn(n, p, dtype, seed)
    generator = oracle.rng(seed)
    counts = generator.integers(0, 4, n)
    counts[0] = 1
    order = generator.permutation(n)

    def make(S: np.ndarray, w: np.ndarray | None = None) -> Any:
        return KINDS[kind](p, dtype=dtype, center=center).update(S, w)

    scale = size_of(S, counts + 1.0)
    weighed, repeated = make(S, counts), make(np.repeat(S, counts, axis=0))
    agree(weighed.to_dense(), repeated.to_dense(), dtype, 4 * n + 8, scale)
    assert weighed.weight_sum == repeated.weight_sum == counts.sum()
    agree(make(S[order]).to_dense(), make(S).to_dense(), dtype, n + 8, scale)


@law
@given(sizes, dtypes, centred, seeds)
def test_parameters_have_no_order(
    size: tuple[int, int], dtype: type[np.inexact], center: bool, seed: int
) -> None:
    n, p = size
    S, w = drawn(n, p, dtype, seed)
    order = oracle.rng(seed).permutation(p)
    some: dict[str, Any] = {"weights": w, "center": center}
    scale, b = size_of(S, w), drawn(p, 2, dtype, seed)[0]
    F, turned = ff.empirical_fisher(S, **some), ff.empirical_fisher(S[:, order], **some)
    agree(turned, F[np.ix_(order, order)], dtype, n + 8, scale)
    agree(
        ff.fisher_diagonal(S[:, order], **some),
        ff.fisher_diagonal(S, **some)[order],
        dtype,
        n,
        scale,
    )
    agree(ff.gram(S[:, order], **some), ff.gram(S, **some), dtype, p + 8, p * scale)
    for held in (ff.DenseFisher, ff.SquareRootFisher, ff.ScoreFisher):
        x = held.from_scores(S, **some).solve(b, damping=scale)
        y = held.from_scores(S[:, order], **some).solve(b[order], damping=scale)
        agree(y, x[order], dtype, 20 * (n + p), np.abs(x).max() * (p + 1))


@law
@given(st.integers(1, 25), st.sampled_from(oracle.DTYPES), seeds, st.booleans())
def test_layers_are_sums_too(n: int, dtype: type[np.floating], seed: int, eigen: bool) -> None:
    layers = kronecker.draw(3 * n, SHAPES, dtype)
    w = oracle.rng(seed).integers(1, 4, 3 * n)

    def make(rows: Any, w: np.ndarray | None = None) -> ff.KroneckerFisher:
        return ff.KroneckerFisher.from_layers([(a[rows], g[rows]) for a, g in layers], weights=w)

    one, two, all_of = make(slice(n), w[:n]), make(slice(n, None), w[n:]), make(slice(None), w)
    scale = 40 * float(np.abs(all_of.to_dense()).max())
    for F in (one + two, two + one, make(np.repeat(np.arange(3 * n), w))):
        agree(F.to_dense(), all_of.to_dense(), dtype, 12 * n, scale)
    order = oracle.rng(seed).permutation(3 * n)
    agree(make(order, w[order]).to_dense(), all_of.to_dense(), dtype, 12 * n, scale)
    exact = ff.LayerFisher(layers, weights=w)
    again = ff.LayerFisher([(a[order], g[order]) for a, g in layers], weights=w[order])
    agree(again.to_dense(), exact.to_dense(), dtype, 12 * n, 10 * scale)


# ---- what F is ----
@each_kind
@law
@given(sizes, dtypes, centred, seeds)
def test_symmetric_semi_definite_and_its_products_are_those_of_its_matrix(
    kind: str, size: tuple[int, int], dtype: type[np.inexact], center: bool, seed: int
) -> None:
    n, p = size
    S, w = drawn(n, p, dtype, seed)
    F = KINDS[kind](p, dtype=dtype, center=center).update(S, w)
    A, scale = F.to_dense(), size_of(S, w) / w.sum()
    assert np.array_equal(A, A.conj().T)
    eps = oracle.EPS[np.dtype(dtype)]
    if kind != "chain":  # masked, which may cost definiteness
        assert np.linalg.eigvalsh(oracle.wide(A)).min() >= -8 * (n + p) * eps * p * scale
    V = drawn(p, 3, dtype, seed)[0]
    exact = oracle.wide(A) @ oracle.wide(V)
    agree(F @ V, exact, dtype, n + p, 4 * p * scale)
    agree(F.diagonal(), A.diagonal().real, dtype, n + p, scale)
    agree(
        F.quadratic_form(V), (V.conj() * exact).sum(axis=0).real, dtype, n + p, 30 * p * p * scale
    )
    assert F.trace() == pytest.approx(A.diagonal().real.sum(dtype=float), rel=8 * (n + p) * eps)
    if kind == "dense":
        options: dict[str, Any] = {"weights": w, "center": center}
        agree(ff.fvp(S, V, **options), exact, dtype, n + p, 8 * p * scale)
        agree(ff.ScoreFisher(S, **options) @ V, exact, dtype, n + p, 8 * p * scale)


@law
@given(st.integers(1, 12), st.sampled_from(oracle.DTYPES), seeds)
def test_reparametrised_scores_are_the_reparametrised_fisher(
    p: int, dtype: type[np.floating], seed: int
) -> None:
    S, _ = drawn(3 * p + 2, p, dtype, seed)
    J = drawn(p, p, dtype, seed + 1)[0]
    found = ff.reparametrize(ff.empirical_fisher(S, reduction="sum"), J)
    expected = ff.empirical_fisher((S @ J).astype(dtype), reduction="sum")
    size = float(np.abs(S).sum() * np.abs(J).sum()) ** 2 / p + 1
    agree(found, expected, dtype, 4 * p + 8, size)


# ---- solvers ----
@law
@given(sizes, dtypes, centred, st.floats(-3, 1), seeds)
def test_all_solvers_give_one_answer(
    size: tuple[int, int], dtype: type[np.inexact], center: bool, power: float, seed: int
) -> None:
    n, p = size
    S, w = drawn(n, p, dtype, seed)
    F = ff.ScoreFisher(S, weights=w, center=center)
    norm = max(F.trace(), 1e-3)
    damping, g = norm * 10.0**power, drawn(p, 1, dtype, seed)[0][:, 0]
    eps = oracle.EPS[np.dtype(dtype)]
    found = {}
    solvers = [ff.Cholesky(), ff.QR(), ff.Eigh(), ff.CG(rtol=100 * eps, max_iterations=20 * p + 20)]
    solvers += [ff.Dual()] if n < p else []
    for solver in solvers:
        found[solver] = F.solve(g, damping=damping, solver=solver)
    # Each is backward stable: its error is that of the condition number, (‖F‖ + λ) / λ.
    scale = np.abs(found[ff.Cholesky()]).max() * (1 + norm / damping) * np.sqrt(p)
    for solver, x in found.items():
        agree(x, found[ff.Cholesky()], dtype, n + p + 100 * isinstance(solver, ff.CG), scale)
    some: dict[str, Any] = {"damping": damping, "weights": w, "center": center}
    mean = {s: ff.natural_gradient(S, solver=s, **some) for s in solvers[:2]}
    one, two = mean.values()
    agree(one, two, dtype, n + p, np.abs(mean[ff.QR()]).max() * (1 + norm / damping))
    factor = F.factor(damping=damping)
    agree(factor.solve(g), found[ff.Cholesky()], dtype, n + p, scale)
    stacked = np.linalg.slogdet(oracle.wide(F.to_dense()) + damping * np.eye(p))[1]
    assert factor.logdet == pytest.approx(
        stacked, abs=64 * (n + p) * eps * p * (1 + norm / damping)
    )
