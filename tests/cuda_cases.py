"""What each CUDA kernel and engine call must give, on a device or emulated: one table for both."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fastfisher as ff
from fastfisher import Status
from oracle import EPS, draw, draw_weights, mean, rng, rooted, wide

BFLOAT = np.dtype(ml_dtypes.bfloat16)
# Scores and what they are summed in.
DTYPES = [
    (np.dtype(a), np.dtype(b))
    for a, b in (
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.float32, np.float64),
        (np.float16, np.float32),
        (np.float16, np.float64),
        (BFLOAT, np.float32),
        (np.complex128, np.complex128),
        (np.complex64, np.complex64),
    )
]
PLAIN = [pair for pair in DTYPES if pair[0] == pair[1]]
# One, odd, both sides of a pack, of 32 packs, several rows for each thread, and wide rows.
SHAPES = ((1, 1), (3, 5), (40, 8), (67, 33), (600, 70), (5, 130), (9, 700), (0, 3))
HALVES = ("float16", "bfloat16")


class Kit:
    """An engine, and the ways to and from its arrays."""

    def __init__(
        self,
        module: Callable[[str], ModuleType],
        send: Callable[[np.ndarray], Any],
        fetch: Callable[..., Any],
    ) -> None:
        self.engine = module("cupy_engine").CupyEngine()
        self.kernels = module("cupy_kernels")
        self.send, self.fetch = send, fetch

    def given(self, *arrays: np.ndarray | None) -> list[Any]:
        return [None if x is None else self.send(x) for x in arrays]


def real(dtype: np.dtype) -> np.dtype:
    return np.zeros(0, dtype).real.dtype


def scores_of(n: int, p: int, dtype: np.dtype, offset: float = 0.0) -> np.ndarray:
    numbers = draw(n, p, np.complex128 if dtype.kind == "c" else np.float64) + offset
    return numbers.astype(dtype)


def inputs(
    n: int, p: int, scores: np.dtype, sums: np.dtype, weighted: bool, centred: bool
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray, np.ndarray]:
    """Return scores, weights and mean as an engine takes them, and all as the oracle does."""
    S = scores_of(n, p, scores, 1.0)
    w = draw_weights(n).astype(real(sums)) if weighted and n else None
    m = None
    if centred:
        m = (mean(wide(S), w) if n else np.zeros(p)).astype(sums)
    D = wide(S.astype(np.float32) if scores.name in HALVES else S)
    D = D - (0 if m is None else wide(m))
    return S, w, m, D, np.ones(n) if w is None else w.astype(np.float64)


def near(
    found: np.ndarray, wanted: np.ndarray, bound: np.ndarray, terms: int, dtype: np.dtype
) -> bool:
    """Tell whether each sum of so many terms is as near as rounding lets it be: γ · Σ|terms|."""
    found = np.asarray(found)
    assert found.shape == wanted.shape
    return bool(
        (np.abs(found - wanted) <= 2 * (terms + 8) * EPS[np.dtype(dtype)] * bound + 1e-300).all()
    )


# ---- one pass over scores ----
def check_column_sums(
    kit: Kit, n: int, p: int, scores: np.dtype, sums: np.dtype, weighted: bool, centred: bool
) -> None:
    S, w, m, D, weights = inputs(n, p, scores, sums, weighted, centred)
    s, v, c = kit.given(S, w, m)
    size = weights[:, None] * (np.abs(D) + 2 * (0 if m is None else np.abs(wide(m))))
    squares = kit.fetch(kit.engine.square_sums(s, v, c, sums))
    assert squares.dtype == real(sums)
    bound = (size * (np.abs(D) + 2 * (0 if m is None else np.abs(wide(m))))).sum(0)
    assert near(squares, weights @ np.abs(D) ** 2, bound, n, sums)
    if m is None:
        plain = kit.fetch(kit.engine.column_sums(s, v, sums))
        assert plain.dtype == sums
        assert near(plain, weights @ D, size.sum(0), n, sums)


def check_fvp(
    kit: Kit,
    n: int,
    p: int,
    k: int,
    scores: np.dtype,
    sums: np.dtype,
    weighted: bool,
    centred: bool,
) -> None:
    S, w, m, D, weights = inputs(n, p, scores, sums, weighted, centred)
    V = scores_of(p, k, sums)
    s, v, c, X = kit.given(S, w, m, V)
    found = kit.fetch(kit.engine.fvp(s, v, c, X, 0.5, 0.25))
    wanted = 0.5 * D.conj().T @ (weights[:, None] * (D @ wide(V))) + 0.25 * wide(V)
    size = np.abs(D) + 2 * (0 if m is None else np.abs(wide(m)))
    bound = size.T @ (weights[:, None] * (size @ np.abs(wide(V)))) + np.abs(wide(V))
    assert found.dtype == sums
    assert near(found, wanted, bound, n + p, sums)
    again = kit.fetch(kit.engine.fvp(s, v, c, X, 0.5, 0.25))
    assert found.tobytes() == again.tobytes()


def check_prepared(
    kit: Kit, n: int, p: int, scores: np.dtype, sums: np.dtype, weighted: bool, centred: bool
) -> None:
    S, w, m, D, weights = inputs(n, p, scores, sums, weighted, centred)
    root = None if w is None else np.sqrt(w)
    s, v, c = kit.given(S, root, m)
    found = kit.fetch(kit.engine.prepared(s, v, c, sums))
    assert found.dtype == sums
    size = np.abs(D) + (0 if m is None else np.abs(wide(m)))
    assert near(found, np.sqrt(weights)[:, None] * D, np.sqrt(weights)[:, None] * size, 0, sums)


def check_layouts(kit: Kit, dtype: np.dtype) -> None:
    """Strides of every kind: whatever they are, sums and products read the right numbers."""
    n, p = 21, 34
    S = scores_of(n, p, dtype)
    wide_ = np.zeros((2 * n, 3 * p), dtype)
    wide_[::2, ::3] = S
    padded = np.zeros((n, p + 2), dtype)
    padded[:, :p] = S
    V = scores_of(p, 2, dtype)
    for held in (np.asfortranarray(S), wide_, padded, np.ascontiguousarray(S[::-1, ::-1])):
        s = kit.send(held)
        s = {wide_.shape: s[::2, ::3], padded.shape: s[:, :p]}.get(held.shape, s)
        s = s[::-1, ::-1] if held.flags.c_contiguous and held.shape == S.shape else s
        assert np.array_equal(kit.fetch(s), S)
        D = wide(S)
        found = kit.fetch(kit.engine.square_sums(s, None, None, S.dtype))
        assert near(found, (np.abs(D) ** 2).sum(0), (np.abs(D) ** 2).sum(0), n, dtype)
        found = kit.fetch(kit.engine.fvp(s, None, None, kit.send(V), 1.0, 0.0))
        bound = np.abs(D).T @ (np.abs(D) @ np.abs(wide(V)))
        assert near(found, D.conj().T @ (D @ wide(V)), bound, n + p, dtype)
        lower = kit.send(np.zeros((p, p), dtype))
        kit.engine.add_scores(lower, s, None, None)
        bound = np.abs(D).T @ np.abs(D)
        assert near(np.tril(kit.fetch(lower)), np.tril(D.conj().T @ D), bound, n, dtype)
        lower = kit.send(np.zeros((n, n), dtype))
        kit.engine.add_gram(lower, s, None, None)
        bound = np.abs(D) @ np.abs(D).T
        assert near(np.tril(kit.fetch(lower)), np.tril(D @ D.conj().T), bound, p, dtype)


def check_first_bad(kit: Kit, dtype: np.dtype) -> None:
    S = scores_of(37, 45, dtype)
    assert kit.engine.first_bad(kit.send(S))[:2] == (-1, -1)
    S[30, 2], S[12, 44], S[12, 40], S[13, 0] = np.nan, np.inf, -np.inf, np.nan
    for array, place in ((S, (12, 40)), (S[13:], (0, 0)), (S[14:], (16, 2))):
        row, column, value = kit.engine.first_bad(kit.send(array))
        assert (row, column) == place
        assert not np.isfinite(value)
    turned = kit.send(np.asfortranarray(S))
    assert kit.engine.first_bad(turned)[:2] == (12, 40)


# ---- symmetric and Hermitian matrices ----
def check_add_scores(
    kit: Kit, n: int, p: int, scores: np.dtype, sums: np.dtype, weighted: bool, centred: bool
) -> None:
    S, w, m, _, _ = inputs(n, p, scores, sums, weighted, centred)
    S64 = S.astype(np.float32) if scores.name in HALVES else S
    before = scores_of(p, p, sums)
    lower = kit.send(before.copy())
    s, v, c = kit.given(S, w, m)
    kit.engine.add_scores(lower, s, v, c)
    U = rooted(S64 - (0 if m is None else wide(m)), None if w is None else w.astype(np.float64))
    size = np.abs(U) + 2 * (0 if m is None else np.abs(wide(m)))
    bound = size.T @ size + np.abs(before)
    found = kit.fetch(lower)
    assert near(np.tril(found), np.tril(wide(before) + U.conj().T @ U), bound, n, sums)
    gram = kit.send(np.zeros((n, n), sums))
    kit.engine.add_gram(gram, s, v, c)
    assert near(np.tril(kit.fetch(gram)), np.tril(U @ U.conj().T), size @ size.T, p, sums)


def check_mirror(kit: Kit, p: int, dtype: np.dtype) -> None:
    A = scores_of(p, p, dtype)
    out = kit.send(np.zeros((p, p), dtype, order="F"))
    kit.engine.mirror(kit.send(A), 2.0, out)
    wanted = 2 * (np.tril(A) + np.tril(A, -1).conj().T)
    wanted[np.diag_indices(p)] = wanted.diagonal().real
    assert np.array_equal(kit.fetch(out), wanted)


def check_cholesky(kit: Kit, p: int, dtype: np.dtype) -> None:
    S = scores_of(2 * p + 2, p, dtype)
    A = (S.conj().T @ S).astype(dtype)
    spoilt = A + np.triu(np.full((p, p), np.nan), 1).astype(real(dtype))
    lower = kit.send(spoilt.copy())
    assert int(kit.engine.cholesky(lower)) == 0
    L = wide(np.tril(kit.fetch(lower)))
    eps, size = EPS[dtype], np.abs(A).max(initial=0)
    assert np.abs(L @ L.conj().T - A).max(initial=0) <= 4 * (p + 1) * eps * size
    for k in (1, 3):
        B = scores_of(p, k, dtype)
        for adjoint in (False, True):
            X = kit.fetch(kit.engine.triangular_solve(lower, kit.send(B), adjoint=adjoint))
            M = L.conj().T if adjoint else L
            assert X.flags.c_contiguous
            bound = 8 * (p + 1) * eps * (np.abs(M) @ np.abs(X)).max(initial=0)
            assert np.abs(M @ X - B).max(initial=0) <= bound
    inverse = np.tril(kit.fetch(kit.engine.inverse(lower)))
    if p:
        kappa = np.linalg.cond(wide(A))
        wanted = np.tril(np.linalg.inv(wide(A)))
        assert np.abs(inverse - wanted).max() <= 8 * p * kappa * eps * np.abs(wanted).max()
        # A bad pivot is told, and what stands before it is the factor.
        j = p // 2
        A[j, j] = -1
        lower = kit.send(np.tril(A))
        assert int(kit.engine.cholesky(lower)) == j + 1
        before = np.tril(kit.fetch(lower))[:j, :j]
        assert np.abs(before - L[:j, :j]).max(initial=0) <= 4 * p * eps * np.abs(L).max()
    V = scores_of(p, 2, dtype)
    found = kit.fetch(kit.engine.symmetric_product(kit.send(spoilt), kit.send(V)))
    full = np.tril(wide(spoilt)) + np.tril(wide(spoilt), -1).conj().T
    assert near(found, full @ wide(V), np.abs(full) @ np.abs(wide(V)), 2 * p, dtype)


# ---- batches ----
def systems(count: int, p: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    random = rng(count, p)
    S = random.standard_normal((count, 2 * p + 2, p))
    return (S.swapaxes(1, 2) @ S).astype(dtype), random.standard_normal((count, p)).astype(dtype)


def check_batch(kit: Kit, p: int, dtype: np.dtype, count: int = 70) -> None:
    """Every verb as the host gives it: answers to κ eps, rcond nearly, statuses exactly."""
    F, b = systems(count, p, dtype)
    F = F + np.triu(np.full((p, p), np.nan), 1).astype(dtype)
    F[3, p - 1, 0], F[5, 0, 0] = np.nan, np.inf
    F[7, p - 1, p - 1], F[8] = -1, 0
    F[9] *= dtype.type(2.0**-60)
    b[11, 0] = np.nan
    if p > 1:  # a pivot of eps, above 0 and yet of rounding
        F[13] = np.eye(p)
        F[13, 1, :2] = 1, 1 + EPS[dtype]
    units = 2.0 ** (30 * (-1) ** np.arange(p))
    F[12] = (F[12] * units[:, None] * units).astype(dtype)
    many = np.stack([b, 2 * b, -b], axis=2)
    several = np.repeat(b[:, :, None], p * p + 1, axis=2)[:, :, : 2 + p]
    calls: list[Callable[..., Any]] = [
        *(lambda F, b, x=x: ff.batch.solve(F, x(b), on_failure="nan") for x in (lambda b: b,)),
        lambda F, b: ff.batch.inverse(F, on_failure="nan"),
        lambda F, b: ff.batch.inverse_diagonal(F, on_failure="nan", damping=0.5),
        lambda F, b: ff.batch.logdet(F, on_failure="nan", damping=0.5, damping_mode="diagonal"),
    ]
    f, eps = kit.send(F), EPS[dtype]
    more = [many, several] if p < 80 else []
    for call, right in [(c, b) for c in calls] + [(calls[0], x) for x in more]:
        wanted, found = call(F, right), call(f, kit.send(right))
        value, status, rcond = (kit.fetch(x) for x in (found.value, found.status, found.rcond))
        assert value.shape == wanted.value.shape
        assert (status == wanted.status).all()
        assert (np.isnan(value) == np.isnan(wanted.value)).all()
        good = status == 0
        assert np.allclose(rcond, wanted.rcond, rtol=0.05, atol=0, equal_nan=True)
        error = np.abs(value - wanted.value)[good].reshape(good.sum(), -1).max(1, initial=0)
        size = np.abs(wanted.value[good]).reshape(good.sum(), -1).max(1, initial=1)
        assert (error <= 16 * p * eps / wanted.rcond[good] * size).all()
        one = call(f[20:21], kit.send(right[20:21]))
        assert np.array_equal(kit.fetch(one.value)[0], value[20], equal_nan=True)


def check_batch_policies(kit: Kit) -> None:
    F, b = systems(6, 3, np.dtype(np.float64))
    F[2], F[4] = 0, np.diag([1.0, 2.0, -3.0])
    f, x = kit.send(F), kit.send(b)
    with pytest.raises(ff.NotPositiveDefiniteError, match="item 2 and 1 more"):
        ff.batch.solve(f, x)
    wanted, found = (ff.batch.solve(*given, on_failure="shift") for given in ((F, b), (f, x)))
    assert (kit.fetch(found.status) == wanted.status).all()
    assert np.allclose(kit.fetch(found.damping_used), wanted.damping_used, rtol=1e-12)
    assert np.allclose(kit.fetch(found.value), wanted.value, rtol=1e-6)
    assert (wanted.status[[2, 4]] == Status.SHIFTED).all()
    refused: list[dict[str, Any]] = [{"on_failure": "pinv"}, {"precision": "extended"}]
    for option in refused:
        with pytest.raises(ValueError, match=f"{next(iter(option))}: expected"):
            ff.batch.solve(f, x, **option)
    each = np.linspace(0.1, 2.0, 6)
    damped = ff.batch.solve(kit.send(F[1:2]), x, damping=0.5)
    assert np.allclose(kit.fetch(damped.value), ff.batch.solve(F[1:2], b, damping=0.5).value)
    damped = ff.batch.inverse(f + kit.send(np.eye(3)), damping=kit.send(each), on_failure="nan")
    wanted = ff.batch.inverse(F + np.eye(3), damping=each, on_failure="nan")
    assert np.allclose(kit.fetch(damped.value), wanted.value, equal_nan=True)


def check_batch_fisher(kit: Kit, dtype: np.dtype) -> None:
    S = rng(3).standard_normal((7, 9, 4)).astype(dtype) + dtype.type(1)
    w = rng(4).uniform(0.1, 2, (7, 9)).astype(dtype)
    for weights in (None, w, w[0]):
        for center in (False, True):
            for reduction in ("mean", "sum"):
                options: dict[str, Any] = {"center": center, "reduction": reduction}
                wanted = ff.batch.empirical_fisher(S, weights=weights, **options)
                given = None if weights is None else kit.send(weights)
                found = ff.batch.empirical_fisher(kit.send(S), weights=given, **options)
                found = kit.fetch(found)
                assert (found == found.swapaxes(1, 2)).all()
                assert np.abs(found - wanted).max() <= 200 * EPS[dtype] * np.abs(wanted).max()


# ---- from end to end ----
def everything(send: Callable[..., Any], S: np.ndarray, w: np.ndarray, v: np.ndarray) -> list[Any]:
    """Return what public functions make of the same scores, one array each."""
    S, w, v = send(S), send(w), send(v)
    return [
        ff.empirical_fisher(S, weights=w),
        ff.empirical_fisher(S, center=True),
        ff.fisher_diagonal(S, weights=w, center=True),
        ff.fvp(S, v, weights=w, damping=0.1),
        ff.gram(S[:50]),
        ff.natural_gradient(S, damping=0.1),
        ff.natural_gradient(S[:20], damping=0.1, solver=ff.Dual()),
        ff.solve(ff.DenseFisher.from_scores(S), v, damping=0.1, solver=ff.CG(rtol=1e-8)).value,
    ]


def check_public(kit: Kit, dtype: np.dtype) -> None:
    S, w, v = draw(400, 60, dtype), draw_weights(400).astype(dtype), draw(60, 1, dtype)[:, 0]
    here = everything(np.asarray, S, w, v)
    for wanted, found in zip(here, everything(kit.send, S, w, v), strict=True):
        assert isinstance(found, kit.engine.ndarray)
        found = kit.fetch(found)
        assert found.dtype == wanted.dtype
        assert np.abs(found - wanted).max() <= 4000 * EPS[dtype] * np.abs(wanted).max()
