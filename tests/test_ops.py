"""Every verb × every array library × dtype against the oracle, and the public functions on them."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import device
import fastfisher as ff
import libraries
import oracle
from fastfisher import _check
from fastfisher._ops import VERBS, for_dtype, ops_of
from fastfisher.fisher.accumulator import Accumulator

DTYPES = (*libraries.REAL, *libraries.COMPLEX)
STORED = (*DTYPES, *libraries.HALVES)
# Shown by the representations that hold them, in test_device_representations.
ELSEWHERE = {"BlockFactor", "Blocks", "LayerScores", "Patches", "Root"}

N, P = 61, 7  # prime


class Given:
    """Scores, weights, vectors and verbs of one library and dtype."""

    def __init__(self, library: libraries.Library, dtype: str) -> None:
        self.library, self.to = library, library.to
        self.dtype = libraries.half(dtype)
        self.sums = _check.sum_dtype(self.dtype)
        self.S = oracle.draw(N, P, self.sums).astype(self.dtype)
        self.w = oracle.draw_weights(N).astype(_check.real_of(self.sums))
        self.V = oracle.draw(P, 3, self.sums)
        self.scores, self.weights = self.to(self.S), self.to(self.w)
        if library.has_verbs:
            self.ops = for_dtype(ops_of(self.scores), self.sums)
        self.m = oracle.mean(self.S, self.w).astype(self.sums)
        self.mean = self.to(self.m)
        self.F = oracle.fisher(self.S, self.w, reduction="sum")
        self.centred = oracle.rooted(self.S, self.w, center=True)

    def triangle(self) -> Any:
        triangle = self.ops.Triangle(P, self.sums)
        triangle.add_scores(
            self.scores, self.weights, None, fresh=True, check_finite=True, threads=0
        )
        return triangle

    def close(
        self,
        actual: Any,
        expected: np.ndarray,
        terms: int = N,
        scale: float | np.floating | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        if not np.isscalar(actual):
            assert self.library.is_own(actual), f"an array of {type(actual)}"
            actual = self.library.back(actual)
        oracle.close(actual, expected, dtype or self.sums, terms, scale)


# Verb -> what it must show, a generator function; with `halves`, of scores in half precision too.
SHOWN: dict[str, Any] = {}


def shows(
    name: str, *, halves: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def note(function: Callable[..., None]) -> Callable[..., None]:
        SHOWN[name] = (function, STORED if halves else DTYPES)
        return function

    return note


@shows("to_array", halves=True)
def to_array(g: Given) -> None:
    assert g.ops.to_array("scores", g.scores, halves=True) is g.scores
    with pytest.raises(TypeError, match="scores: expected float64, float32"):
        g.ops.to_array("scores", g.to(np.ones(3, np.int64)))


@shows("to_vector")
def to_vector(g: Given) -> None:
    assert g.ops.to_vector("v", g.mean, g.sums) is g.mean
    g.close(g.ops.to_vector("v", g.to(np.arange(5)), g.sums), np.arange(5))
    g.close(g.ops.to_vector("v", g.to(g.V)[:, 1], g.sums), g.V[:, 1], 0)
    assert float(g.ops.to_vector("v", 2, np.dtype(np.float64))) == 2.0  # stays on the host
    if g.sums.kind != "c":
        with pytest.raises(TypeError, match="v: expected real numbers, got complex128"):
            g.ops.to_vector("v", g.to(np.ones(3, np.complex128)), g.sums)


@shows("to_output")
def to_output(g: Given) -> None:
    out = g.ops.empty((P, P), g.sums)
    assert g.ops.to_output(out, (P, P), g.sums, g.scores) is out
    with pytest.raises(ValueError, match=r"out: expected shape \(2, 2\)"):
        g.ops.to_output(out, (2, 2), g.sums)
    with pytest.raises(ValueError, match="out: expected memory of its own"):
        g.ops.to_output(out, (P, P), g.sums, out[1:])
    with pytest.raises(TypeError, match="out: expected a"):
        g.ops.to_output([1.0], (1,), g.sums)


@shows("to_host")
@shows("from_host")
def there_and_back(g: Given) -> None:
    assert np.array_equal(g.ops.to_host(g.mean), g.m)
    g.close(g.ops.from_host(g.m), g.m, 0)
    triangle = g.ops.from_host(g.ops.to_host(g.triangle()))
    g.close(triangle.to_dense(1.0), g.F)


@shows("empty")
@shows("zeros")
def empty(g: Given) -> None:
    for verb in (g.ops.empty, g.ops.zeros):
        for shape in (P, (P, 2), (0, 3)):
            made = verb(shape, g.sums)
            assert made.dtype == g.sums
            assert g.library.is_own(made)
    g.close(g.ops.zeros((2, 2), g.sums), np.zeros((2, 2)))


@shows("xp")
@shows("name")
@shows("held_dtype")
@shows("here")
@shows("available_bytes")
def places(g: Given) -> None:
    g.close(g.ops.xp.concat([g.mean, g.mean]), np.concatenate([g.m, g.m]), 0)
    assert g.ops.name == g.library.name
    assert (g.ops.here() == "") == (g.ops.name == "NumPy")
    assert g.ops.Triangle(2, g.sums).panels.dtype == g.ops.held_dtype(g.sums)
    left = g.ops.available_bytes()
    assert left is None or left > 0


@shows("least_and_sum")
@shows("first_bad_weight")
def weights(g: Given) -> None:
    least, total = g.ops.least_and_sum(g.weights)
    assert least == 0.0
    assert total == pytest.approx(float(g.w.sum(dtype=np.float64)))
    place, found = g.ops.first_bad_weight(g.weights)
    assert (place, found) == (-1, np.inf)
    for bad in (-1.0, np.inf, np.nan):
        spoilt = g.w.copy()
        spoilt[[5, 9]] = bad
        place, found = g.ops.first_bad_weight(g.to(spoilt))
        assert place == 5
        assert found == bad or (np.isnan(found) and np.isnan(bad))
    assert np.isnan(g.ops.least_and_sum(g.to(spoilt))[1])


@shows("all_finite")
def all_finite(g: Given) -> None:
    assert g.ops.all_finite(g.scores)
    for bad in (np.nan, -np.inf):
        spoilt = g.S.copy()
        spoilt[4, 2] = bad
        assert not g.ops.all_finite(g.to(spoilt))


@shows("worst_residual")
def worst_residual(g: Given) -> None:
    b = g.V.copy()
    b[:, 1] = 0
    b[:, 2] *= g.sums.type(1e15)
    image = b.copy()
    image[0, 2] *= g.sums.type(1.5)
    expected = abs(0.5 * oracle.wide(b)[0, 2]) / np.linalg.norm(oracle.wide(b)[:, 2])
    assert g.ops.worst_residual(g.to(b), g.to(image)) == pytest.approx(expected, rel=1e-6)


@shows("column_mean", halves=True)
def column_mean(g: Given) -> None:
    for w, weights in ((None, None), (g.w, g.weights)):
        mean = g.ops.column_mean(g.scores, weights, g.sums, True, 0)
        g.close(mean, oracle.mean(g.S, w), N, np.abs(oracle.wide(g.S)).max())


@shows("diagonal", halves=True)
def diagonal(g: Given) -> None:
    found = g.ops.diagonal(g.scores, g.weights, g.mean, g.sums, True, 0)
    g.close(found, (np.abs(g.centred) ** 2).sum(axis=0), dtype=_check.real_of(g.sums))


@shows("fvp", halves=True)
def fvp(g: Given) -> None:
    U, V = g.centred, oracle.wide(g.V)
    found = g.ops.fvp(g.scores, g.weights, g.mean, g.to(g.V), 0.5, 0.25, 0)
    g.close(found, 0.5 * U.conj().T @ (U @ V) + 0.25 * V, N * P, np.abs(g.F).max() * 10)


@shows("scores_dot", halves=True)
@shows("scores_transpose_dot", halves=True)
def products(g: Given) -> None:
    S, m = oracle.wide(g.S), oracle.wide(g.m)
    Y = g.ops.scores_dot(g.scores, g.mean, g.to(g.V), 0)
    g.close(Y, (S - m) @ oracle.wide(g.V), P, 20.0)
    back = g.ops.scores_transpose_dot(g.scores, g.weights, g.mean, Y, 0)
    expected = (S - m).conj().T @ (g.w[:, None] * ((S - m) @ oracle.wide(g.V)))
    g.close(back, expected, N * P, np.abs(g.F).max() * 10)


@shows("product")
@shows("recombine")
def plain_products(g: Given) -> None:
    X, Y = oracle.draw(5, 9, g.sums), oracle.draw(9, 4, g.sums)
    if g.sums.kind != "c" or g.ops.name != "NumPy":
        g.close(g.ops.product(g.to(X), g.to(Y), 0), oracle.wide(X) @ oracle.wide(Y), 9, 20.0)
    rows, turn = g.to(oracle.draw(6, 11, g.sums)), oracle.draw(6, 2, g.sums)
    out = rows[:2]
    expected = oracle.wide(turn).conj().T @ oracle.wide(oracle.draw(6, 11, g.sums))
    g.ops.recombine(g.to(turn), rows, out, 0)
    g.close(out, expected, 6, 20.0)


@shows("eigh")
def eigh(g: Given) -> None:
    lower = np.tril(g.F).astype(g.sums) + np.triu(np.full((P, P), 99, g.sums), 1)
    values, vectors = g.ops.eigh(g.to(lower))
    Q, w = oracle.wide(g.library.back(vectors)), g.library.back(values)
    assert (np.diff(w) >= 0).all()
    oracle.close((Q * w) @ Q.conj().T, g.F, g.sums, N * P)


@shows("Triangle", halves=True)
def triangle(g: Any) -> None:
    ops, F = g.ops, g.F
    T = g.triangle()
    g.close(T.to_dense(1.0), F)
    out = ops.empty((P, P), g.sums)
    assert T.to_dense(2.0, out) is out
    g.close(out, 2 * F)
    g.close(T.diagonal(), np.diag(F).real, dtype=_check.real_of(g.sums))
    g.close(T.product(g.to(g.V), 0.5), 0.5 * F @ oracle.wide(g.V), N * P)
    ones = np.abs(F).sum(axis=0).max()
    assert 0.999 * ones <= T.norm1() <= 1.4143 * ones  # NumPy's complex one is of |Re| + |Im|
    g.close(T.block(2, 6).to_dense(1.0), F[2:6, 2:6])
    if g.sums in (np.float64, np.complex128):
        narrow = T.narrowed(0.5).to_dense(1.0)
        g.close(narrow, 0.5 * F, dtype=np.float32 if g.sums.kind == "f" else np.complex64)
    twin = T.copy()
    twin.scale(2.0)
    twin.add(T)
    g.close(twin.to_dense(1.0), 3 * F)
    g.close(T.to_dense(1.0), F)  # the twin's numbers are its own
    twin.add_outer(g.mean, 0.5)
    m = oracle.wide(g.m)
    g.close(twin.to_dense(1.0), 3 * F + 0.5 * np.outer(m.conj(), m))
    g.close(ops.Triangle.from_panels(P, T.panels).to_dense(1.0), F)
    assert T.panels.shape == (ops.Triangle.length(P, g.sums),)
    assert T.panels.nbytes == ops.Triangle.bytes_for(P, g.sums)
    assert ops.Triangle.bytes_to_sum(N, P, g.sums) > ops.Triangle.bytes_for(P, g.sums)
    centred = ops.Triangle(P, g.sums)
    mean = centred.add_centred_scores(g.scores, g.weights, fresh=True, check_finite=True, threads=0)
    g.close(mean, oracle.mean(g.S, g.w), N, np.abs(oracle.wide(g.S)).max())
    g.close(centred.to_dense(1.0), g.centred.conj().T @ g.centred, N, np.abs(F).max())
    centred.add_scores(g.scores, None, g.mean, fresh=False, check_finite=True, threads=0)
    plain = oracle.wide(g.S) - oracle.wide(g.m)
    both = g.centred.conj().T @ g.centred + plain.conj().T @ plain
    g.close(centred.to_dense(1.0), both, 2 * N)
    gram = ops.Triangle(N, g.sums)
    gram.set_gram(g.scores, g.weights, g.mean, True, 0)
    g.close(gram.to_dense(1.0), g.centred @ g.centred.conj().T, P)


@shows("Factor")
def factor(g: Given) -> None:
    A = 0.5 * g.F + np.diag(np.arange(1.0, P + 1))
    shift = g.to(np.arange(1.0, P + 1).astype(_check.real_of(g.sums)))
    L = g.triangle().cholesky(0.5, shift)
    assert type(L).__name__ == "Factor"
    inverse = np.linalg.inv(A)
    g.close(L.solve(g.to(g.V)), inverse @ oracle.wide(g.V), N * P)
    half = g.library.back(L.half_solve(g.to(g.V)))
    quadratic = (oracle.wide(g.V).conj() * (inverse @ oracle.wide(g.V))).real.sum(axis=0)
    oracle.close((np.abs(oracle.wide(half)) ** 2).sum(axis=0), quadratic, g.sums, N * P)
    both = L.half_solve(L.half_solve(g.to(g.V)), transposed=True)
    g.close(both, inverse @ oracle.wide(g.V), N * P)
    g.close(L.inverse().to_dense(1.0), inverse, N * P)
    g.close(L.inverse_diagonal(), np.diag(inverse).real, N * P, dtype=_check.real_of(g.sums))
    assert L.logdet() == pytest.approx(np.linalg.slogdet(A)[1], rel=1e-4)
    # Hager's estimate is a lower bound of ‖A⁻¹‖₁ that is rarely off by more than 2.
    kappa = np.linalg.cond(A, 1)
    assert 0.5 / kappa <= L.rcond() <= 3.0 / kappa
    assert L.norm == pytest.approx(np.abs(A).sum(axis=0).max(), rel=0.5)


def systems(g: Given) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, np.ndarray]:
    shift = np.arange(1.0, P + 1).astype(_check.real_of(g.sums))
    A = 0.5 * g.F + np.diag(shift)
    rtol = 32 * oracle.EPS[g.sums]
    return A, g.to(shift), g.to(g.V), rtol, np.linalg.solve(A, oracle.wide(g.V))


def met(
    g: Given,
    outcome: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    expected: np.ndarray,
    rtol: float,
) -> None:
    x, status, iterations, residual = outcome
    g.close(x, expected, N * P)
    assert [int(s) for s in status] == [0] * x.shape[1]
    assert max(float(r) for r in residual) <= rtol
    assert 0 < max(int(i) for i in iterations) <= 3 * P


@shows("cg_scores", halves=True)
def cg_scores(g: Given) -> None:
    _, shift, B, rtol, expected = systems(g)
    outcome = g.ops.cg_scores(g.scores, g.weights, None, 0.5, shift, B, shift, rtol, 0.0, 100, 0)
    met(g, outcome, expected, rtol)


@shows("cg_triangle")
def cg_triangle(g: Given) -> None:
    _, shift, B, rtol, expected = systems(g)
    met(g, g.ops.cg_triangle(g.triangle(), 0.5, shift, B, None, rtol, 0.0, 100, 0), expected, rtol)


@shows("cg_callable")
def cg_callable(g: Given) -> None:
    A, _, B, rtol, expected = systems(g)
    held = g.to(A.astype(g.sums))
    met(g, g.ops.cg_callable(lambda V: held @ V, None, B, rtol, 0.0, 100), expected, rtol)


def of_path(g: Given) -> Any:
    B = oracle.wide(g.V)
    unit = np.eye(P)
    expected = np.hstack([np.linalg.solve(0.5 * g.F + s * unit, B) for s in (1.0, 3.0)])
    return [1.0, 3.0], g.to(g.V), 32 * oracle.EPS[g.sums], expected


@shows("shifted_cg_scores", halves=True)
def shifted_cg_scores(g: Given) -> None:
    shifts, B, rtol, expected = of_path(g)
    outcome = g.ops.shifted_cg_scores(g.scores, g.weights, None, 0.5, shifts, B, rtol, 0.0, 100, 0)
    met(g, outcome, expected, rtol)


@shows("shifted_cg_triangle")
def shifted_cg_triangle(g: Given) -> None:
    shifts, B, rtol, expected = of_path(g)
    outcome = g.ops.shifted_cg_triangle(g.triangle(), 0.5, shifts, B, rtol, 0.0, 100, 0)
    met(g, outcome, expected, rtol)


@shows("shifted_cg_callable")
def shifted_cg_callable(g: Given) -> None:
    shifts, B, rtol, expected = of_path(g)
    held = g.to((0.5 * g.F).astype(g.sums))
    outcome = g.ops.shifted_cg_callable(lambda V: held @ V, shifts, B, rtol, 0.0, 100, 0)
    met(g, outcome, expected, rtol)


def test_every_verb_is_shown() -> None:
    assert set(SHOWN) | ELSEWHERE == set(VERBS)


@pytest.mark.parametrize("library", libraries.WITH_VERBS)
@pytest.mark.parametrize(
    ("verb", "dtype"), [(verb, dtype) for verb, (_, dtypes) in SHOWN.items() for dtype in dtypes]
)
def test_verb(verb: str, dtype: str, library: libraries.Library) -> None:
    given = Given(library, dtype)
    assert hasattr(given.ops, verb)
    SHOWN[verb][0](given)


# ---- what waits for the device, and that nothing is moved ----
# One call each -> how often it waits.
WAITS: dict[str, Any] = {
    "column_mean": (lambda g: g.ops.column_mean(g.scores, g.weights, g.sums, True, 0), 1),
    "column_mean unchecked": (
        lambda g: g.ops.column_mean(g.scores, g.weights, g.sums, False, 0), 0,
    ),
    "diagonal": (lambda g: g.ops.diagonal(g.scores, g.weights, None, g.sums, True, 0), 1),
    "fvp": (lambda g: g.ops.fvp(g.scores, g.weights, g.mean, g.Y, 0.5, 0.25, 0), 0),
    "scores_dot": (lambda g: g.ops.scores_dot(g.scores, g.mean, g.Y, 0), 0),
    "eigh": (lambda g: g.ops.eigh(g.T.to_dense(1.0)), 0),
    "least_and_sum": (lambda g: g.ops.least_and_sum(g.weights), 1),
    "all_finite": (lambda g: g.ops.all_finite(g.scores), 1),
    "worst_residual": (lambda g: g.ops.worst_residual(g.Y, g.Y), 1),
    "Triangle": (lambda g: g.triangle(), 1),
    "Triangle.add_scores": (
        lambda g: g.T.copy().add_scores(
            g.scores, None, None, fresh=False, check_finite=True, threads=0
        ), 1,
    ),
    "Triangle.add_scores unchecked": (
        lambda g: g.T.copy().add_scores(
            g.scores, None, None, fresh=False, check_finite=False, threads=0
        ), 0,
    ),
    "Triangle.product": (lambda g: g.T.product(g.Y, 0.5), 0),
    "Triangle.cholesky": (lambda g: g.T.copy().cholesky(0.5, 1.0), 1),
    "Factor.solve": (lambda g: g.L.solve(g.Y), 0),
    "Factor.inverse": (lambda g: g.L.inverse(), 0),
    "Factor.inverse_diagonal": (lambda g: g.L.inverse_diagonal(), 0),
    "Factor.logdet": (lambda g: g.L.logdet(), 1),
    "Factor.rcond": (lambda g: g.L.rcond(), 1),
    # A round for each of at most P steps and one for the true residual, and the numbers at the end.
    "cg_triangle": (
        lambda g: g.ops.cg_triangle(g.T, 0.5, g.D, g.Y, None, 1e-5, 0.0, 2, 0), 5,
    ),
    "shifted_cg_triangle": (
        lambda g: g.ops.shifted_cg_triangle(g.T, 0.5, [1.0, 2.0], g.Y, 1e-5, 0.0, 2, 0), 4,
    ),
    "empirical_fisher": (lambda g: ff.empirical_fisher(g.scores, weights=g.weights), 2),
    # Scores, right-hand side, pivots and the solution.
    "natural_gradient": (lambda g: ff.natural_gradient(g.scores, damping=1.0), 4),
    "natural_gradient dual": (lambda g: ff.natural_gradient(g.scores[:5], damping=1.0), 4),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("call", WAITS)
def test_waits_as_seldom_as_it_says_and_moves_nothing(call: str, dtype: str) -> None:
    given: Any = Given(libraries.DEVICE, dtype)
    given.Y, given.T = given.to(given.V), given.triangle()
    given.L = given.T.copy().cholesky(0.5, 1.0)
    given.D = given.to(np.ones(P, _check.real_of(given.sums)))
    run, waits = WAITS[call]
    with device.counted() as asked:
        run(given)
    assert (asked.reads, asked.downloads) == (waits, 0)
    # The shifts of a path alone go there.
    assert asked.uploads == 0


# ---- the public functions, from end to end ----
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


def agree(library: libraries.Library, found: ff.Fisher, expected: ff.Fisher) -> None:
    """Assert that two representations hold the same matrix."""
    dense = found.to_dense()
    assert library.is_own(dense)
    oracle.close(library.back(dense), expected.to_dense(), expected.dtype, 8 * N)
    assert found.weight_sum == pytest.approx(expected.weight_sum)
    assert found.n_samples == expected.n_samples


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


def test_sums_that_overflow_or_meet_nan_leave_the_fisher_as_it_was() -> None:
    F = ff.DenseFisher.from_scores(device.to_device(oracle.draw(N, P)))
    before = device.back(F.to_dense())
    for bad, message in (
        (np.nan, "got nan at row 3, column 2"),
        (1e200, "got overflow in column 2"),
    ):
        spoilt = oracle.draw(N, P)
        spoilt[3, 2] = bad
        with pytest.raises(ff.NonFiniteError, match=message):
            F.update(device.to_device(spoilt))
        with pytest.raises(ff.NonFiniteError, match=message):
            ff.DenseFisher.from_scores(device.to_device(spoilt))
        with pytest.raises(ff.NonFiniteError, match=message):
            ff.fisher_diagonal(device.to_device(spoilt))
        with pytest.raises(ff.NonFiniteError, match=message.replace("overflow", "(overflow|nan)")):
            ff.DenseFisher.from_scores(device.to_device(spoilt), center=True)
        assert np.array_equal(device.back(F.to_dense()), before)
    spoilt[:, 2] = 1e308
    with pytest.raises(ff.NonFiniteError, match="got overflow in column 2"):
        ff.ScoreFisher(device.to_device(spoilt), center=True)
    with pytest.raises(ff.NonFiniteError, match="got overflow, though"):
        ff.gram(device.to_device(spoilt))


def _spoilt(S: np.ndarray, to: Callable[..., Any]) -> np.ndarray | device.Array:
    S = S.copy()
    S[3, 2] = np.nan
    answer: np.ndarray | device.Array = to(S)
    return answer


@pytest.mark.parametrize(
    "empty",
    [
        lambda: ff.DiagonalFisher(P),
        lambda: ff.DenseFisher(P, center=True),
        lambda: ff.SquareRootFisher(P),
        lambda: ff.LowRankFisher(P, 3),
        lambda: ff.BlockDiagonalFisher([3, 4]),
    ],
)
def test_a_first_update_that_fails_binds_to_no_library(empty: Callable[..., Any]) -> None:
    S = oracle.draw(N, P)
    for bad, good in ((device.to_device, np.asarray), (np.asarray, device.to_device)):
        F = empty()
        with pytest.raises(ff.NonFiniteError, match="got nan at row 3, column 2"):
            F.update(_spoilt(S, bad))
        assert type(F.update(good(S)).diagonal()) is type(good(S))
        assert F.n_samples == N
        with pytest.raises(TypeError, match=r"as the others are|expected a NumPy array"):
            F.update(bad(S))
        F = empty().merge(empty())
        assert type(F.merge(empty().update(good(S))).diagonal()) is type(good(S))


def test_layers_that_fail_first_bind_to_no_library() -> None:
    S = oracle.draw(N, P)
    for bad, good in ((device.to_device, np.asarray), (np.asarray, device.to_device)):
        F = ff.KroneckerFisher([(P, P)], eigen=True)
        with pytest.raises(ff.NonFiniteError, match="got nan at row 3, column 2"):
            F.update([(_spoilt(S, bad), bad(S))])
        assert type(F.update([(good(S), good(S))]).diagonal()) is type(good(S))


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


def test_conjugate_gradients_end_as_they_do_on_the_host() -> None:
    """The statuses, iterations and values of NumPy's, for every way to end."""
    rng = oracle.rng(3)
    Q, _ = np.linalg.qr(rng.standard_normal((20, 20)))
    hard = (Q * np.logspace(0, 13, 20)) @ Q.T
    rhs = rng.standard_normal((20, 2))
    for A, b, solver in (
        (hard, rhs, ff.CG(rtol=1e-12, preconditioner=None, max_iterations=5)),
        (hard, rhs, ff.CG(rtol=1e-12, preconditioner=None, max_iterations=5, allow_truncated=True)),
        (hard, rhs, ff.CG(rtol=0.5, atol=1e300)),
        (np.diag([1.0, -1.0, 2.0]), np.ones((3, 1)), ff.CG()),
        (np.diag([1.0, 0.0, 2.0]), np.ones((3, 1)), ff.CG()),
        (np.diag([1.0, 2.0, 3.0]), np.zeros((3, 2)), ff.CG()),
        (np.eye(3), np.full((3, 1), 1e-300), ff.CG()),
        (np.eye(3), np.full((3, 1), 1e300), ff.CG()),
        (np.eye(3) * 1e-200, np.full((3, 1), 1e200), ff.CG(preconditioner=None)),
    ):
        found = ff.solve(device.to_device(A), device.to_device(b), solver=solver, on_failure="nan")
        expected = ff.solve(A, b, solver=solver, on_failure="nan")
        assert found.status == expected.status
        assert found.iterations == expected.iterations
        value = device.back(found.value)
        np.testing.assert_allclose(value, expected.value, rtol=1e-9, atol=0, equal_nan=True)


def test_conjugate_gradients_that_stagnate_say_so() -> None:
    rng = oracle.rng(4)
    Q, _ = np.linalg.qr(rng.standard_normal((20, 20)))
    hard, rhs = (Q * np.logspace(0, 15, 20)) @ Q.T, rng.standard_normal(20)
    solver = ff.CG(rtol=1e-14, preconditioner=None, max_iterations=5000)
    # What is left of x / 2^e below the normal numbers of float32 is not worth a success.
    small = np.diag([1.0, 3.0]).astype(np.float32), np.array([1e-44, 1e-44], np.float32)
    for A, b, how in ((hard, rhs, solver), (*small, ff.CG(preconditioner=None, rtol=1e-5))):
        found = ff.solve(device.to_device(A), device.to_device(b), solver=how, on_failure="nan")
        expected = ff.solve(A, b, solver=how, on_failure="nan")
        assert found.status == expected.status == ff.Status.STAGNATED


def test_a_device_too_small_says_the_size() -> None:
    scores = device.to_device(np.ones((2, 4000)))
    with device.left(10**7):
        for call in (
            lambda: ff.empirical_fisher(scores),
            lambda: ff.DenseFisher(4000, like=scores),
            lambda: ff.ScoreFisher(scores).to_dense(),
        ):
            with pytest.raises(ff.MemoryLimitError) as caught:
                call()
            message = str(caught.value)
            assert "left on array_api_strict.Device('device1'), 0.00931 GiB" in message
            assert "got a need of 0." in message
    assert ff.DenseFisher(4000, like=scores).shape == (4000, 4000)


# ---- arrays of two libraries, and of two devices ----
S = oracle.draw(N, P)
MIXED: dict[str, Callable[..., Any]] = {
    "v": lambda a, b: ff.fvp(a(S), b(S[0])),
    "weights": lambda a, b: ff.empirical_fisher(a(S), weights=b(np.ones(N))),
    "out": lambda a, b: ff.empirical_fisher(a(S), out=b(np.empty((P, P)))),
    "rhs": lambda a, b: ff.solve(a(np.eye(P)), b(S[0])),
    "damping": lambda a, b: ff.solve(a(np.eye(P)), a(S[0]), damping=b(np.ones(P))),
    "scores": lambda a, b: ff.DenseFisher(P).update(a(S)).update(b(S)),
    "scores ": lambda a, b: ff.DenseFisher(P, like=a(S)).update(b(S)),
    "others": lambda a, b: ff.DenseFisher.from_scores(a(S)).merge(
        ff.DenseFisher.from_scores(b(S))
    ),
    "layers": lambda a, b: ff.KroneckerFisher([(P, P)]).update([(a(S), b(S))]),
    "layers ": lambda a, b: ff.KroneckerFisher([(P, P)]).update([(a(S), a(S))]).update(
        [(b(S), b(S))]
    ),
}  # fmt: skip


@pytest.mark.parametrize("argument", MIXED)
def test_mixed_libraries_raise_with_both_names(argument: str) -> None:
    call, name = MIXED[argument], argument.strip()
    for a, b, wanted, got in (
        (device.to_device, np.asarray, "device", "(numpy.ndarray|NumPy)"),
        (np.asarray, device.to_device, "NumPy", "device"),
    ):
        with pytest.raises(TypeError, match=rf"{name}.*: expected .*{wanted} array.*got .*{got}"):
            call(a, b)
    assert call(np.asarray, np.asarray) is not None
    assert call(device.to_device, device.to_device) is not None


def test_arrays_of_another_device_raise_with_both_names() -> None:
    here = device.to_device(S)
    with device.on("device2"):
        there = device.to_device(S)
        with pytest.raises(ValueError, match=r"current device, .*device2.*got one on .*device1"):
            ff.empirical_fisher(here)
        assert ff.empirical_fisher(there).shape == (P, P)
    with pytest.raises(ValueError, match=r"v: expected an array on the current device, .*device1"):
        ff.fvp(here, there[0])


def test_numbers_of_the_host_are_taken_beside_arrays_of_a_device() -> None:
    g = Given(libraries.DEVICE, "float32")
    for damping in (1, 1.0, np.float64(1.0), np.int64(1)):
        with device.counted() as asked:
            found = ff.natural_gradient(g.scores, damping=damping)
        assert asked.reads == 4
        g.close(found, oracle.natural_gradient(g.S, 1.0), N * P)


def test_what_takes_no_array_of_a_device_says_so() -> None:
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(device.to_device(S))
    with pytest.raises(TypeError, match="expected a device array as the others are, got list"):
        ff.fvp(device.to_device(S), [1.0] * P)


def test_a_stream_of_arrays_on_a_device_is_summed_in_the_callers_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores, weights = oracle.draw(N, P), oracle.draw_weights(N)
    parts = ff.chunks(device.to_device(scores), device.to_device(weights), rows=9)
    whole = ff.DenseFisher.from_scores(scores, weights=weights)
    threads = set()

    def rows() -> Iterator[tuple[device.Array, device.Array]]:
        """Fill one buffer again and again, as only the order of a stream allows."""
        buffer = device.to_device(np.empty((9, P)))
        for part, w in parts:
            buffer[: len(part)] = part
            yield buffer[: len(part)], w

    F = ff.DenseFisher(P)
    update = F.update

    def watched(*args: device.Array, **keywords: Any) -> ff.DenseFisher:
        threads.add(threading.get_ident())
        return update(*args, **keywords)

    monkeypatch.setattr(F, "update", watched)
    F.update_from(rows())
    assert threads == {threading.get_ident()}
    agree(libraries.DEVICE, F, whole)
    agree(libraries.DEVICE, ff.DenseFisher(P).update_from(parts), whole)
    S = device.to_device(scores)
    agree(libraries.DEVICE, ff.DenseFisher(P).update_from(S), ff.DenseFisher.from_scores(scores))
    scores[30] = np.nan
    F = ff.DenseFisher(P)
    with pytest.raises(ff.NonFiniteError, match="row 3, column 0") as caught:
        F.update_from(ff.chunks(device.to_device(scores), rows=9))
    assert F.n_samples == 27
    assert "rows 27 to 35 of the stream" in caught.value.__notes__[0]
