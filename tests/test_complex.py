"""Complex scores: the Hermitian Fisher in every layout, streamed, factored, solved and refused."""

import pickle
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest

import fastfisher as ff
import lapack
import oracle
from fastfisher import _check
from fastfisher._native import core
from fastfisher._ops import VERBS, for_dtype, numpy_complex, numpy_ops
from fastfisher._ops.numpy_hermitian import Triangle, interleaved, joined
from oracle import COMPLEX, EPS

each_dtype = pytest.mark.parametrize("dtype", COMPLEX)
# Both sides of a panel (12 complex128, 24 complex64 numbers), several of them, and tall scores.
SHAPES = [(n, p) for p in (1, 2, 11, 12, 13, 24, 25) for n in (1, 7, 16, 20 * p)] + [(50, 97)]


def hermitian(p, dtype=np.complex128):
    S = oracle.draw(2 * p, p, dtype)
    F = S.conj().T @ S / (2 * p)
    below = np.tril(F, -1)
    return (below + below.conj().T + np.diag(F.diagonal().real)).astype(dtype)


def layouts(scores):
    """Yield the layouts of all tests, and those that only matter to pairs of numbers."""
    yield from (array for _, array in oracle.layouts(scores))
    yield np.ascontiguousarray(scores.T).T[::1]
    wide = np.zeros((scores.shape[0], 2, scores.shape[1]), scores.dtype)
    wide[:, 1] = scores
    yield wide[:, 1]  # contiguous rows apart
    yield np.asfortranarray(wide[:, 1])[::-1][::-1]


# ---- products ----
@each_dtype
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_the_product_is_exact_to_rounding_in_every_layout(n, p, dtype):
    # Each entry against a wider sum: |F − F_ref| ≤ γ |S|ᵀ|S|, as for a real product of 2n terms.
    S = oracle.draw(n, p, dtype)
    exact = S.astype(np.clongdouble)
    gamma = 4 * (n + 4) * EPS[np.dtype(dtype)]
    F, K = exact.conj().T @ exact, exact @ exact.conj().T
    bound = np.abs(S).T.astype(float) @ np.abs(S).astype(float)
    for scores in layouts(S):
        found = ff.empirical_fisher(scores, reduction="sum")
        assert found.dtype == dtype
        assert (np.abs(found - F) <= gamma * bound).all()
        assert np.array_equal(found, found.conj().T)
        assert (np.abs(ff.gram(scores, reduction="sum") - K) <= gamma * p * np.abs(K).max()).all()


@each_dtype
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_layout_weighted_and_centred(weighted, center, dtype):
    n, p = 37, 25
    S = oracle.draw(n, p, dtype) + dtype(3 - 4j)
    options = {"weights": oracle.draw_weights(n) if weighted else None, "center": center}
    F, K = oracle.fisher(S, **options), oracle.gram(S, **options)
    V = oracle.draw(p, 3, dtype)
    size = np.abs(oracle.fisher(S, options["weights"])).max()
    for scores in layouts(S):
        oracle.close(ff.empirical_fisher(scores, **options), F, dtype, n, size)
        oracle.close(ff.gram(scores, **options), K, dtype, p, p * size)
        oracle.close(ff.fisher_diagonal(scores, **options), np.diag(F).real, dtype, n, size)
        for v in (V, V[:, 0], np.asfortranarray(V), V.real):
            found = ff.fvp(scores, v, damping=0.5, **options)
            oracle.close(found, F @ oracle.wide(v) + 0.5 * v, dtype, n + p, 8 * size * p)
        held = ff.ScoreFisher(scores, **options)
        oracle.close(held @ V, F @ oracle.wide(V), dtype, n + p, 8 * size * p)
        grad = ff.natural_gradient(scores, damping=1.0, **options)
        expected = oracle.natural_gradient(S, 1.0, **options)
        oracle.close(grad, expected, dtype, n + p, np.linalg.norm(expected) * (1 + p * size))


@pytest.mark.parametrize("axis", [0, 1])
def test_strides_of_zero(axis):
    S = np.broadcast_to(oracle.draw(9, 1, complex) if axis else oracle.draw(1, 7, complex), (9, 7))
    oracle.close(ff.empirical_fisher(S), oracle.fisher(S), complex, 9)
    oracle.close(ff.gram(S), oracle.gram(S), complex, 9)
    oracle.close(ff.fisher_diagonal(S), np.diag(oracle.fisher(S)).real, complex, 9)
    oracle.close(ff.fvp(S, S[0]), oracle.fisher(S) @ S[0], complex, 20)


def test_real_numbers_in_complex_form_give_the_real_fisher():
    S = oracle.draw(40, 13)
    found = ff.empirical_fisher(S.astype(complex))
    assert np.array_equal(found.imag, np.zeros((13, 13)))
    oracle.close(found.real, ff.empirical_fisher(S), float, 40)


def test_dtype_and_out():
    S = oracle.draw(300, 20, np.complex64)
    wide = ff.empirical_fisher(S, dtype=np.complex128)
    assert wide.dtype == np.complex128
    oracle.close(wide, oracle.fisher(S), np.complex128, 300)
    out = np.full((40, 60), np.nan, np.complex128)[::2, ::3]
    assert ff.empirical_fisher(S, dtype=np.complex128, out=out) is out
    assert np.array_equal(out, wide)
    F = ff.DenseFisher(20, dtype=np.complex128).update(S)
    assert np.array_equal(F.to_dense(), wide)
    oracle.close(
        ff.DiagonalFisher(20, dtype=np.complex128).update(S).diagonal(),
        np.diag(oracle.fisher(S)).real,
        np.complex128,
        300,
    )


def test_nothing_at_all():
    S = np.empty((0, 3), complex)
    assert np.array_equal(ff.empirical_fisher(S, reduction="sum"), np.zeros((3, 3), complex))
    assert np.array_equal(ff.fvp(S, np.ones(3), reduction="sum"), np.zeros(3, complex))
    assert ff.gram(S, reduction="sum").shape == (0, 0)
    assert ff.DenseFisher.from_scores(S).n_samples == 0
    no_columns = ff.fvp(oracle.draw(4, 3, complex), np.empty((3, 0)))
    assert no_columns.shape == (3, 0)
    assert no_columns.dtype == complex


# ---- sums ----
@each_dtype
@pytest.mark.parametrize("kind", [ff.DenseFisher, ff.DiagonalFisher, ff.SquareRootFisher])
def test_a_huge_offset_is_harmless_when_centred_and_streamed(kind, dtype):
    offset = 1e8 if dtype == np.complex128 else 1e3
    spread = oracle.draw(200, 6, np.complex128)
    S = (spread + offset * (1 + 2j)).astype(dtype)
    exact = S.astype(np.complex128) - offset * (1 + 2j)
    expected = oracle.fisher(exact, center=True)
    expected = np.diag(np.diag(expected)) if kind is ff.DiagonalFisher else expected
    one = kind.from_scores(S, center=True)
    several = kind(6, dtype=dtype, center=True)
    for block in np.array_split(S, 7):
        several.update(block)
    # The mean is rounded to eps · offset; the error of a centred sum is that times the spread.
    for F in (one, several):
        oracle.close(F.to_dense(), expected, dtype, 10, 10 * offset)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kind", [ff.DenseFisher, ff.DiagonalFisher, ff.SquareRootFisher])
def test_any_split_merged_in_any_way_is_the_same_sum(kind, center):
    S = oracle.draw(90, 14, complex) + (2 - 1j)
    weights = oracle.draw_weights(90) + 0.1
    expected = kind.from_scores(S, weights=weights, center=center).to_dense()
    empty = kind(14, dtype=complex, center=center)
    parts = [
        kind.from_scores(S[a:b], weights=weights[a:b], center=center)
        for a, b in pairwise((0, 1, 20, 50, 90))
    ]
    merged = empty.copy().merge(parts[2], parts[0], empty, parts[3], parts[1])
    size = 10 * np.abs(expected).max() + 20
    oracle.close(merged.to_dense(), expected, complex, 90, size)
    assert merged.n_samples == 90
    again = pickle.loads(pickle.dumps(merged))
    assert np.array_equal(again.to_dense(), merged.to_dense())
    halved = merged.copy().decay(0.5)
    oracle.close(halved.to_dense(), merged.to_dense(), complex, 4)
    assert halved.weight_sum == pytest.approx(weights.sum() / 2)


def test_small_updates_keep_the_form_exactly():
    # Each update adds to what is held, which must stay the real form of a Hermitian matrix.
    F = ff.DenseFisher(13, dtype=complex)
    S = oracle.draw(64, 13, complex)
    for row in S:
        F.update(row[None])
    held = F._sums.held.to_dense(1.0)
    assert np.array_equal(held[0::2, 0::2], held[1::2, 1::2])
    assert np.array_equal(held[0::2, 1::2], -held[1::2, 0::2])
    oracle.close(F.to_dense(), oracle.fisher(S), complex, 64)


# ---- factors, on LAPACK's kinds of matrix made Hermitian ----
@each_dtype
@pytest.mark.parametrize("p", [0, 1, 2, 5, 11, 12, 13, 24, 25, 96, 97, 300])
@pytest.mark.parametrize("kind", lapack.KINDS)
def test_ratios(kind, p, dtype):
    A, zero = lapack.symmetric(kind, p, dtype)
    if p == 0:
        assert Triangle.length(0, np.dtype(dtype)) == 0
        return
    triangle = Triangle.from_dense(A)
    # Where ½ A is below the normal numbers it loses its last digit.
    last = 2 * float(np.finfo(dtype).smallest_subnormal)
    assert np.abs(triangle.to_dense(1.0) - A).max() <= last
    if zero is not None:
        with pytest.raises(ff.NotPositiveDefiniteError) as caught:
            triangle.cholesky(1.0, 0.0)
        assert caught.value.pivot == zero
        return
    try:
        factor = triangle.cholesky(1.0, 0.0)
    except ff.NotPositiveDefiniteError:
        assert kind == "singular to rounding"
        return
    L = lapack.lower(factor.held.panels, 2 * p)
    blocks = np.kron(A.real, np.eye(2)) + np.kron(A.imag, [[0, 1], [-1, 0]])  # of conj A
    assert lapack.factor_ratio(blocks.astype(L.dtype), L) < 30
    b = oracle.draw(p, 3, dtype) * dtype(lapack.norm1(A))
    assert lapack.solve_ratio(A, factor.solve(b), b) < 30
    if kind not in ("near underflow", "near overflow", "singular to rounding"):
        X = factor.inverse().to_dense(1.0)
        assert lapack.inverse_ratio(A, X) < 30
        np.testing.assert_allclose(
            factor.inverse_diagonal(), X.diagonal().real, rtol=60 * p * EPS[A.dtype]
        )
        true = 1.0 / (lapack.norm1(A) * lapack.norm1(X))
        assert true / 2.01 < factor.rcond() < 10 * true
        half = factor.half_solve(b)
        oracle.close(
            (np.abs(half) ** 2).sum(axis=0),
            (b.conj() * factor.solve(b)).sum(axis=0).real,
            dtype,
            60 * p / true**0.5,
        )


@each_dtype
def test_half_solves_are_those_of_the_complex_factor(dtype):
    p = 61
    A = hermitian(p, dtype)
    L = np.linalg.cholesky(oracle.wide(A))
    factor = Triangle.from_dense(A).cholesky(1.0, 0.0)
    B = oracle.draw(p, 4, dtype)
    terms = 10 * p * np.linalg.cond(L)
    oracle.close(factor.half_solve(B), np.linalg.solve(L, B), dtype, terms)
    expected = np.linalg.solve(L.conj().T, B)
    oracle.close(factor.half_solve(B, transposed=True), expected, dtype, terms)


def test_only_the_lower_half_and_the_real_diagonal_are_read():
    A = hermitian(30)
    given = np.tril(A) + np.triu(np.full_like(A, np.nan), 1)
    given.imag[np.arange(30), np.arange(30)] = np.nan
    for held in (given, np.asfortranarray(given), given[::-1, ::-1].copy()[::-1, ::-1]):
        assert np.array_equal(ff.DenseFisher.from_matrix(held).to_dense(), A)
    x = ff.solve(given, np.ones(30), damping=0.1)
    assert x.status == ff.Status.SUCCESS
    oracle.close(x.value, np.linalg.solve(A + 0.1 * np.eye(30), np.ones(30)), complex, 1000)


@pytest.mark.parametrize("bad", [np.nan, 1j * np.nan, complex(0, np.inf)])
def test_a_bad_entry_of_a_matrix_is_named(bad):
    A = hermitian(30)
    A[20, 3] = A[25, 1] = bad
    with pytest.raises(ff.NonFiniteError, match=r"matrix: .* at row 20, column 3"):
        ff.DenseFisher.from_matrix(A)


# ---- failures ----
def test_a_singular_matrix_is_named_shifted_or_truncated():
    S = oracle.draw(8, 20, complex)
    F = S.conj().T @ S / 8
    rhs = F @ oracle.draw(20, 1, complex)[:, 0]
    with pytest.raises(ff.NotPositiveDefiniteError, match="at parameter 8, not above") as caught:
        ff.solve(F, rhs)
    assert caught.value.pivot == 8
    shifted = ff.solve(F, rhs, on_failure="shift")
    assert shifted.status == ff.Status.SHIFTED
    assert shifted.residual is not None
    assert shifted.residual < 1e-6
    truncated = ff.solve(F, rhs, on_failure="pinv")
    assert (truncated.status, truncated.rank) == (ff.Status.TRUNCATED, 8)
    oracle.close(
        truncated.value, np.linalg.pinv(F, rcond=1e-10, hermitian=True) @ rhs, complex, 9999
    )
    nothing = ff.solve(F, rhs, on_failure="nan")
    assert np.isnan(nothing.value).all()
    with pytest.raises(ff.NotPositiveDefiniteError):
        ff.solve(F - np.eye(20), rhs, solver=ff.CG())


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("bad", [np.nan, 1j * np.nan, complex(1, -np.inf)])
@pytest.mark.parametrize("place", [(0, 0), (5, 2), (150, 61)])
@each_dtype
def test_the_first_bad_score_is_named(dtype, place, bad, center, layout):
    S = oracle.draw(place[0] + 6, place[1] + 3, dtype)
    S[place] = S[place[0], -1] = bad
    S = np.asarray(S, order=layout)
    held = ff.DenseFisher(S.shape[1], dtype=dtype).update(S[:0])
    calls = (
        lambda: ff.empirical_fisher(S, center=center),
        lambda: ff.fisher_diagonal(S, center=center),
        lambda: ff.gram(S, center=center),
        lambda: ff.fvp(S, np.ones(S.shape[1]), center=center),
        lambda: ff.natural_gradient(S, damping=1.0, center=center),
        lambda: held.update(S),
        lambda: ff.ScoreFisher(S, center=center).diagonal(),
    )
    for call in calls:
        with pytest.raises(ff.NonFiniteError, match="scores: expected finite values") as caught:
            call()
        assert (caught.value.row, caught.value.column) == place
    assert np.isnan(ff.fisher_diagonal(S, check_finite=False)).any() or not np.isnan(bad)


def test_a_failed_update_changes_nothing():
    F = ff.DenseFisher.from_scores(oracle.draw(20, 40, complex))
    before = F.to_dense()
    bad = oracle.draw(30, 40, complex)
    bad[3, 17] = 1j * np.nan
    with pytest.raises(ff.NonFiniteError, match="row 3, column 17"):
        F.update(bad)
    assert np.array_equal(F.to_dense(), before)
    assert F.n_samples == 20


@each_dtype
def test_sums_that_overflow_are_named(dtype):
    S = oracle.draw(30, 5, dtype)
    S[:, 3] = dtype(0.9 * float(np.finfo(dtype).max) ** 0.5 * (1 + 1j) * 30**-0.5)
    for order in "CF":
        # Each part's sum is finite, that of both is not.
        scores = np.asarray(S, order=cast(Any, order))
        for call in (ff.empirical_fisher, ff.fisher_diagonal):
            with pytest.raises(ff.NonFiniteError, match="got overflow in column 3"):
                call(scores, reduction="sum")


def test_real_and_complex_do_not_mix_silently():
    S, C = oracle.draw(6, 3), oracle.draw(6, 3, complex)
    real, both = ff.DenseFisher.from_scores(S), ff.DenseFisher.from_scores(C)
    for F, scores, kind in ((real, C, "real"), (both, S, "complex")):
        for use in (F.update, lambda s, F=F: F.leverage(s, 1.0)):
            with pytest.raises(TypeError, match=f"scores: expected {kind} numbers"):
                use(scores)
    with pytest.raises(TypeError, match="v: expected real numbers, got complex128"):
        real @ C[0]
    with pytest.raises(TypeError, match="rhs: expected real numbers, got complex128"):
        ff.solve(np.eye(3), C[0])
    with pytest.raises(TypeError, match="dtype: expected complex numbers as the scores have"):
        ff.empirical_fisher(C, dtype=np.float64)
    with pytest.raises(TypeError, match="dtype: expected complex128 or wider, got complex64"):
        ff.empirical_fisher(C, dtype=np.complex64)
    with pytest.raises(TypeError, match=r"scores: expected complex64 .* got complex128"):
        ff.DenseFisher(3, dtype=np.complex64).update(C)
    with pytest.raises(ValueError, match=r"out: expected shape .* dtype complex128"):
        ff.empirical_fisher(C, out=np.empty((3, 3)))
    with pytest.raises(TypeError, match="weights: expected real numbers, got complex128"):
        ff.empirical_fisher(C, weights=C[:, 0])
    with pytest.raises(TypeError, match="damping: expected real numbers, got complex128"):
        ff.solve(hermitian(3), np.ones(3), damping=1j * np.ones(3))
    with pytest.raises(TypeError, match="others: expected DenseFisher"):
        both.merge(ff.DiagonalFisher.from_scores(C))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Build both the same way"):
        both.merge(real)
    with pytest.raises(TypeError, match="rhs: expected numbers, got str"):
        both.solve(np.array(["a", "b", "c"]))
    assert both.solve(np.ones(3), damping=1.0).dtype == complex  # real numbers are complex ones


def test_the_size_guard_knows_that_a_hermitian_matrix_needs_p_squared():
    assert Triangle.bytes_for(1200, np.dtype(complex)) == pytest.approx(16 * 1200**2, rel=0.02)
    with pytest.raises(ff.MemoryLimitError, match="Use ScoreFisher"):
        ff.DenseFisher(10_000_000, dtype=complex)


# ---- iterations ----
def textbook_cg(A, b, rtol, divisor):
    """Return the iterations of preconditioned conjugate gradients in complex arithmetic."""
    x, r = np.zeros_like(b), b.copy()
    z = r / divisor
    d, rho, steps = z.copy(), np.vdot(r, z).real, 0
    while np.linalg.norm(r) > rtol * np.linalg.norm(b):
        Ad = A @ d
        alpha = rho / np.vdot(d, Ad).real
        x, r = x + alpha * d, r - alpha * Ad
        z = r / divisor
        rho, old = np.vdot(r, z).real, rho
        d = z + rho / old * d
        steps += 1
    return steps


@pytest.mark.parametrize("kind", ["score", "fortran", "dense", "matrix"])
@pytest.mark.parametrize("precondition", ["jacobi", None, "array", "callable"])
def test_cg_takes_the_steps_of_complex_arithmetic(kind, precondition):
    S = oracle.draw(300, 60, complex) * np.geomspace(1, 4, 60)
    A = oracle.fisher(S) + 0.5 * np.eye(60)
    b = oracle.draw(60, 2, complex)
    fisher = {
        "score": ff.ScoreFisher(S),
        "fortran": ff.ScoreFisher(np.asfortranarray(S)),
        "dense": ff.DenseFisher.from_scores(S),
        "matrix": oracle.fisher(S),
    }[kind]
    divisor = np.ones((60, 1)) if precondition is None else np.diag(A).real[:, None]
    given = {"array": divisor[:, 0], "callable": lambda R: R / divisor}.get(
        precondition, precondition
    )
    solution = ff.solve(fisher, b, damping=0.5, solver=ff.CG(rtol=1e-7, preconditioner=given))
    assert solution.status == ff.Status.SUCCESS
    assert np.linalg.norm(A @ solution.value - b, axis=0).max() < 2e-7 * np.linalg.norm(b)
    steps = max(textbook_cg(A, b[:, j], 1e-7, divisor[:, 0]) for j in range(2))
    assert abs(solution.iterations - steps) <= 1
    few = ff.CG(max_iterations=3, allow_truncated=True, preconditioner=given)
    assert ff.solve(fisher, b, damping=0.5, solver=few).status == ff.Status.MAX_ITERATIONS


@each_dtype
@pytest.mark.parametrize("center", [False, True])
def test_paths_and_preconditioners_in_every_layout(center, dtype):
    S, rhs = oracle.draw(9, 14, dtype) + dtype(1 - 2j), oracle.draw(14, 2, dtype)
    weights = oracle.draw_weights(9)
    F = oracle.fisher(S, weights, center)
    rtol = 400 * EPS[np.dtype(dtype)]
    solvers = [ff.Dual(), ff.Eigh(), ff.CG(rtol, preconditioner=None)]
    solvers += [ff.CG(rtol, preconditioner=x) for x in (ff.BlockJacobi(5), ff.Nystrom(4))]
    for scores in layouts(S):
        fisher = ff.ScoreFisher(scores, weights=weights, center=center)
        for solver in solvers:
            path = fisher.solve_path(rhs, [1.0, 0.5], solver=solver)
            for x, damping in zip(path.value, (1.0, 0.5), strict=True):
                A = F + damping * np.eye(14)
                expected = np.linalg.solve(A, rhs)
                scale = np.linalg.cond(A) * np.linalg.norm(expected)
                oracle.close(x, expected, dtype, 400, scale)


@pytest.mark.parametrize("wrong", [lambda R: R[1:], lambda R: R[:, 0], lambda R: None])
def test_a_preconditioner_of_the_wrong_shape_is_named(wrong):
    with pytest.raises(ValueError, match="precondition: expected a function that returns numbers"):
        ff.solve(hermitian(5), np.ones(5), solver=ff.CG(preconditioner=wrong))


# ---- the pieces ----
@each_dtype
def test_blocks_and_narrowed_triangles(dtype):
    p = 61
    A = hermitian(p, dtype)
    triangle = Triangle.from_dense(A)
    for start, stop in ((0, p), (0, 1), (11, 12), (12, 36), (13, 60)):
        block = triangle.block(start, stop)
        assert np.array_equal(block.to_dense(1.0), A[start:stop, start:stop])
    sizes = [1, 12, 35, 13]
    ends = np.cumsum(sizes)
    blocks = [triangle.block(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    factor = numpy_complex.BlockFactor.of([block.cholesky(1.0, 0.0) for block in blocks])
    B = oracle.draw(p, 3, dtype)
    found = factor.solve(B)
    for size, end in zip(sizes, ends, strict=True):
        rows = slice(end - size, end)
        expected = np.linalg.solve(oracle.wide(A[rows, rows]), oracle.wide(B[rows]))
        oracle.close(found[rows], expected, dtype, 10 * size * np.linalg.cond(A[rows, rows]))
    if dtype == np.complex128:
        narrow = triangle.narrowed(3.0)
        assert narrow.to_dense(1.0).dtype == np.complex64
        assert np.array_equal(narrow.to_dense(1.0), (3.0 * A).astype(np.complex64))
    copied = triangle.copy()
    copied.scale(2.0)
    assert np.array_equal(triangle.to_dense(1.0), A)


def test_the_real_form_is_a_form_of_the_same_numbers():
    V = oracle.draw(5, 3, complex)
    for conjugate in (False, True):
        X = interleaved(V, conjugate=conjugate)
        assert np.array_equal(X[0::2], V.real)
        assert np.array_equal(joined(X, conjugate=conjugate), V)
    A = hermitian(40)
    triangle = Triangle.from_dense(A)
    before = triangle.panels.copy()
    core.hermitian_project(triangle.panels, 40, False, 0)  # a projection leaves its image alone
    assert np.array_equal(triangle.to_dense(1.0), A)
    core.hermitian_project(triangle.panels, 40, True, 0)
    assert np.array_equal(triangle.to_dense(1.0), A.conj())
    assert before.size == Triangle.length(40, np.dtype(complex))


@each_dtype
@pytest.mark.parametrize("p", [25, 300])
def test_the_same_bits_for_any_number_of_threads(p, dtype):
    S, A = oracle.draw(2 * p, p, dtype), hermitian(p, dtype)
    w = oracle.draw_weights(2 * p).astype(_check.real_of(np.dtype(dtype)))

    def results(threads):
        triangle = Triangle(p, np.dtype(dtype))
        for _ in range(2):
            triangle.add_scores(S, w, None, fresh=False, check_finite=True, threads=threads)
        yield triangle.to_dense(0.5, threads=threads)
        yield Triangle.from_dense(A, threads=threads).to_dense(1.0, threads=threads)
        yield triangle.product(S[:3].T, 1.0, threads)
        factor = triangle.cholesky(1.0, 0.5, threads=threads)
        yield factor.solve(S[:5].T, threads)
        yield factor.inverse(threads).to_dense(1.0, threads=threads)
        yield ff.fvp(S, S[0], weights=w, n_threads=threads)
        yield ff.fvp(np.asfortranarray(S), S[0], weights=w, n_threads=threads)
        yield ff.gram(S, weights=w, center=True, n_threads=threads)

    one = list(results(1))
    for threads in (2, 3, 8):
        for found, expected in zip(results(threads), one, strict=True):
            assert np.array_equal(found, expected)


def test_every_verb_is_there():
    assert for_dtype(numpy_ops, np.dtype(complex)) is numpy_complex
    assert for_dtype(numpy_ops, np.dtype(float)) is numpy_ops
    assert all(hasattr(numpy_complex, verb) for verb in VERBS)
