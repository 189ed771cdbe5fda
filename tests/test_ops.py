"""Every verb × every array library × dtype against the oracle, and how often it waits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import device
import fastfisher as ff
import libraries
import oracle
from fastfisher import _check
from fastfisher._ops import VERBS
from given import DTYPES, STORED, Given, N, P

# Shown by the representations that hold them, in test_device_representations.
ELSEWHERE = {"BlockFactor", "Blocks", "LayerScores", "Patches", "Root"}


# Verb -> the function that shows it, and for which dtypes; `halves` has half precision among them.
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
