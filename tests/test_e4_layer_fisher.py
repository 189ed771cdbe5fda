"""E4: the layered exact Fisher equals the materialised one, and never materialises it."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fastfisher as ff
import network
import oracle
from sanitizer import memory_is_as_asked_for

# Of sums over up to n p products; the seeds are fixed, and ten times less is what they show.
C = 300
LAMBDA = 0.3
GEOMETRY = [(n, w, c) for n in (1, 7, 60) for w in (False, True) for c in (False, True)]


def both(
    n: int = 20,
    dtype: type[np.floating] = np.float64,
    weighted: bool = True,
    center: bool = False,
    **options: Any,
) -> tuple[ff.LayerFisher, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Return a LayerFisher and the explicit matrix, scores, mean score, weights and c."""
    layers = network.draw(n, dtype)
    S, weights = network.scores(layers), oracle.draw_weights(n) if weighted else None
    L = ff.LayerFisher(layers, weights=weights, center=center, **options)
    F = oracle.fisher(S, weights=weights, center=center, reduction=L.reduction)
    return L, F, S, np.average(S, axis=0, weights=weights), weights


def damped(F: np.ndarray, damping: float | np.floating = LAMBDA) -> np.ndarray:
    answer: np.ndarray = F + damping * np.eye(len(F))
    return answer


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize(("n", "weighted", "center"), GEOMETRY)
def test_e4_equals_the_materialised_computation(
    n: int, weighted: bool, center: bool, dtype: type[np.floating]
) -> None:
    for reduction in ("mean", "sum"):
        L, F, S, mean, weights = both(n, dtype, weighted, center, reduction=reduction)
        assert L.dtype == dtype
        size = np.linalg.norm(oracle.fisher(S, weights=weights, reduction=reduction)) + 1e-300
        V = oracle.draw(len(F), 3)
        oracle.close(L @ V, F @ V, dtype, C, size * 5)
        oracle.close(L.diagonal(), np.diag(F), dtype, C, size)
        oracle.close(L.trace(), np.trace(F), dtype, C, size)
        oracle.close(L.quadratic_form(V), np.diag(V.T @ F @ V), dtype, C, size * 50)
        expected = oracle.gram(S, weights=weights, center=center, reduction=reduction)
        oracle.close(L.gram(), expected, dtype, C, size)
        oracle.close(np.hstack([w.ravel() for w in L.mean_score()]), mean, dtype, C, 5)
        lam = 0.1 * size
        A, kappa = damped(F, lam), 12.0
        for rhs in (V, V[:, 0]):
            found = ff.solve(L, rhs, damping=lam)
            assert found.method == ("dual" if n < len(F) else "cholesky")
            x = np.linalg.solve(A, rhs)
            oracle.close(found.value, x, dtype, C * kappa, 5 / lam)
        natural = np.hstack([w.ravel() for w in L.solve(None, damping=lam)])
        oracle.close(natural, np.linalg.solve(A, mean), dtype, C * kappa, 5 / lam)
        by_qr = np.hstack([w.ravel() for w in L.solve(None, damping=lam, solver=ff.QR())])
        oracle.close(by_qr, np.linalg.solve(A, mean), dtype, C * kappa, 5 / lam)
        by_cg = L.solve(V, damping=lam, solver=ff.CG(rtol=1e-5))
        oracle.close(by_cg, np.linalg.solve(A, V), np.float32, C * kappa, 5 / lam)


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_e4_halves_are_summed_in_float32(half: type[np.generic]) -> None:
    layers = network.draw(9, half)
    L, S = ff.LayerFisher(layers), network.scores(layers)
    assert L.dtype == np.float32
    v = oracle.draw(len(L.diagonal()), 1)[:, 0]
    F = oracle.fisher(S)
    oracle.close(L @ v, F @ v, np.float32, C, np.linalg.norm(F) * 5)
    oracle.close(L.gram(), oracle.gram(S), np.float32, C, np.linalg.norm(F))
    again = pickle.loads(pickle.dumps(L))
    assert np.array_equal(again @ v, L @ v)


def test_e4_sums_may_be_wider_than_the_layers() -> None:
    layers = network.draw(9, np.float32)
    L = ff.LayerFisher(layers, dtype=np.float64)
    assert L.dtype == np.float64
    oracle.close(L.gram(), oracle.gram(network.scores(layers)), np.float64, C, 1e3)
    mixed = ff.LayerFisher([layers[0], (np.ones((9, 2)), np.ones((9, 1)))])
    assert mixed.dtype == np.float64
    with pytest.raises(TypeError, match="dtype: expected float64 or wider, got float32"):
        ff.LayerFisher(network.draw(3), dtype=np.float32)


def test_e4_lists_of_weights_in_and_out() -> None:
    L, F, *_ = both(9)
    shapes = [(2, 5), (2, 4), (3, 3), (2, 5), (1, 1, 3, 3), (1, 3)]  # one as a convolution has it
    rhs = [oracle.draw(int(np.prod(shape)), 1).reshape(shape) for shape in shapes]
    flat = np.hstack([w.ravel() for w in rhs])
    x = np.linalg.solve(damped(F), flat)
    for found in (
        L.solve(rhs, damping=LAMBDA),
        ff.solve(L, rhs, damping=LAMBDA).value,
        L.factor(damping=LAMBDA).solve(rhs),
        L.solve(rhs, damping=LAMBDA, solver=ff.CG(rtol=1e-13)),
    ):
        assert [w.shape for w in found] == shapes
        oracle.close(np.hstack([w.ravel() for w in found]), x, float, C * 1e3)
    oracle.close(np.hstack([w.ravel() for w in L @ rhs]), F @ flat, float, C, 1e2)
    assert L.quadratic_form(rhs) == pytest.approx(flat @ F @ flat)
    assert [w.shape for w in L.solve(None, damping=LAMBDA)] == L.shapes
    assert [w.shape for w in L.mean_score()] == L.shapes
    with pytest.raises(ValueError, match="rhs: expected a flat vector or weights of shapes"):
        L.solve(rhs[:-1], damping=LAMBDA)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [9, 60])
def test_e4_influence(n: int, weighted: bool, center: bool) -> None:
    L, F, S, mean, _ = both(n, weighted=weighted, center=center)
    others = network.draw(4, seed=1)
    inverse = np.linalg.inv(damped(F))
    held, new = (scores - mean * center for scores in (S, network.scores(others)))
    expected = held @ inverse @ held.T
    size = np.abs(held).sum(axis=1).max() ** 2 / LAMBDA
    some, mask = np.array([3, 0, n // 2]), np.arange(n) % 2 == 0
    for i, x in (
        (slice(None), held),
        (slice(1, 5), held[1:5]),
        (some, held[some]),
        ([2, -1], held[[2, -1]]),
        (mask, held[mask]),
        (others, new),
    ):
        for j, y in ((slice(None), held), (some, held[some]), (others, new)):
            found = L.influence(i, j, damping=LAMBDA)
            oracle.close(found, x @ inverse @ y.T, float, C, size)
            oracle.close(L.influence(j, i, damping=LAMBDA), found.T, float, C, size)
    assert L.influence(2, 1, damping=LAMBDA) == pytest.approx(expected[2, 1])
    oracle.close(L.influence(2, slice(None), damping=LAMBDA), expected[2], float, C, size)
    oracle.close(L.influence(others, 2, damping=LAMBDA), new @ inverse @ held[2], float, C, size)
    scale = 1 / L.weight_sum
    oracle.close(L.leverage(None, LAMBDA), scale * np.diag(expected), float, C, size)
    oracle.close(L.leverage(others, LAMBDA), scale * np.diag(new @ inverse @ new.T), float, C, size)
    relative = LAMBDA * np.trace(F) / len(F)
    by_trace = L.influence(others, some, damping=LAMBDA, damping_mode="trace")
    exact = new @ np.linalg.solve(damped(F, relative), held[some].T)
    oracle.close(by_trace, exact, float, C, size * LAMBDA / relative)


def test_e4_influence_loses_no_digits_to_a_small_damping() -> None:
    layers = network.draw(5)
    L, S = ff.LayerFisher(layers), network.scores(layers)
    for damping in (1e-6, 1e-12):
        # K (K/n + λI)⁻¹ → n I: the difference formula would be left with no digit at all.
        found = L.influence(slice(None), slice(None), damping=damping)
        K = S @ S.T
        exact = np.linalg.solve(K / 5 + damping * np.eye(5), K)
        oracle.close(found, exact, float, C * np.linalg.cond(K))


def test_e4_influence_keeps_its_factor_until_the_damping_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    L, *_ = both(9)
    counted = []
    gram = type(L._scores).gram

    def watched(*arguments: Any) -> Any:
        counted.append(1)
        return gram(*arguments)

    monkeypatch.setattr(type(L._scores), "gram", watched, raising=True)
    first = L.influence(0, 1, damping=LAMBDA)
    assert L.influence(0, 1, damping=LAMBDA) == first
    L.leverage(None, LAMBDA)
    assert len(counted) == 1
    assert L.influence(0, 1, damping=2 * LAMBDA) != first
    assert len(counted) == 2


@pytest.mark.parametrize(
    "solver",
    [ff.Dual(), ff.Eigh(), ff.QR(), ff.CG(1e-12), ff.CG(1e-12, preconditioner=None)],
)
def test_e4_paths(solver: Any) -> None:
    L, F, *_ = both(9, center=True)
    rhs = oracle.draw(len(F), 2)
    dampings = [0.1, 0.5, 2.0]
    path = L.solve_path(rhs, dampings, solver=solver)
    for x, damping in zip(path.value, dampings, strict=True):
        oracle.close(x, np.linalg.solve(damped(F, damping), rhs), float, 1e5, 30)


@pytest.mark.parametrize("preconditioner", [ff.BlockJacobi(10), ff.Nystrom(8)])
def test_e4_preconditioners(preconditioner: ff.BlockJacobi | ff.Nystrom) -> None:
    L, F, *_ = both(9)
    rhs = np.ones(len(F))
    x = L.solve(rhs, damping=LAMBDA, solver=ff.CG(1e-12, preconditioner=preconditioner))
    oracle.close(x, np.linalg.solve(damped(F), rhs), float, 1e5, 30)


def test_e4_the_same_bits_for_any_number_of_threads() -> None:
    L, *_ = both(20)
    rhs = oracle.draw(L.shape[0], 2)
    one = L.solve(rhs, damping=LAMBDA, n_threads=1)
    assert np.array_equal(one, L.solve(rhs, damping=LAMBDA, n_threads=3))
    assert np.array_equal(L.gram(n_threads=1), L.gram(n_threads=3))


def test_e4_inputs_stay_as_they_are_and_may_be_read_only() -> None:
    layers = network.draw(9)
    copies = pickle.loads(
        pickle.dumps([(x.inputs, x.gradients) if hasattr(x, "inputs") else x for x in layers])
    )
    for layer in layers:
        for x in layer if isinstance(layer, tuple) else (layer.inputs, layer.gradients):
            x.flags.writeable = False
    L = ff.LayerFisher(layers, center=True)
    L.solve(None, damping=LAMBDA)
    L.influence(0, layers, damping=LAMBDA)
    for layer, copy in zip(layers, copies, strict=True):
        now = layer if isinstance(layer, tuple) else (layer.inputs, layer.gradients)
        assert all(np.array_equal(x, y) for x, y in zip(now, copy, strict=True))


def test_e4_layers_that_disagree() -> None:
    a, g = np.ones((4, 3)), np.ones((4, 2))
    for layers, error, message in (
        ([(a, g[:3])], ValueError, r"layers\[0\]: expected inputs and gradients of the same sam"),
        ([(a, g), (a[:3], g[:3])], ValueError, r"layers\[1\]: expected 4 samples as in layers\[0"),
        ([(a[:0], g[:0])], ValueError, "layers: expected at least one sample, got none"),
        ([], ValueError, "layers: expected at least one layer, got none"),
        ((a, g), TypeError, "layers: expected a list of layers, got tuple"),
        ([a], TypeError, r"layers\[0\]: expected a pair"),
        ([(a, g.astype(np.float32))], TypeError, r"layers\[0\]: expected .* of one dtype"),
    ):
        with pytest.raises(error, match=message):
            ff.LayerFisher(layers)


@pytest.mark.parametrize("side", ["inputs", "gradients"])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_e4_what_is_not_finite_is_named(place: int, side: str) -> None:
    layers = network.draw(9)
    good = ff.LayerFisher(layers)
    layer = layers[place]
    bad = layer[side == "gradients"] if isinstance(layer, tuple) else getattr(layer, side)
    bad[5, 1] = np.nan
    message = rf"layers\[{place}\]\.{side}: expected finite values, got nan at row 5, column 1"
    call: Callable[..., Any]
    for call in (
        lambda L: L.gram(),
        lambda L: L @ np.ones(L.shape[0]),
        lambda L: L.diagonal(),
        lambda L: L.trace(),
        lambda L: L.solve(None, damping=1.0),
        lambda L: L.solve(np.ones(L.shape[0]), damping=1.0, solver=ff.Cholesky()),
        lambda L: L.solve(np.ones(L.shape[0]), damping=np.ones(L.shape[0])),
        lambda L: L.influence(0, 1, damping=1.0),
        lambda L: L.mean_score(),
    ):
        with pytest.raises(ff.NonFiniteError, match=message) as caught:
            call(good)
        assert caught.value.row == 5
    with pytest.raises(ff.NonFiniteError, match=message):
        ff.LayerFisher(layers, center=True)


def test_e4_what_influence_refuses() -> None:
    L, *_ = both(9)
    other = network.draw(4, seed=1)
    for i, error, message in (
        (9, IndexError, "i: expected places of 9 samples, got index 9 is out of bounds"),
        ([0, -10], IndexError, "i: expected places of 9 samples"),
        (np.ones(8, bool), IndexError, "i: expected places of 9 samples"),
        (0.5, IndexError, "i: expected places of 9 samples"),
        (np.zeros((2, 2), int), ValueError, "i: expected one axis of places"),
        (other[:2], ValueError, "i: expected 6 layers, got 2"),
        (other[::-1], ValueError, r"i\[0\]: expected \(d_out, d_in\)"),
    ):
        with pytest.raises(error, match=message):
            L.influence(i, 0, damping=LAMBDA)
    with pytest.raises(ff.NotPositiveDefiniteError, match="expected a positive damping"):
        L.influence(0, 1, damping=0.0)
    for options in ({"damping": np.ones(L.shape[0])}, {"damping": 1.0, "damping_mode": "diagonal"}):
        with pytest.raises(ValueError, match="damping: expected a number, got a vector"):
            L.influence(0, 1, **options)
    other[0][0][2, 3] = np.inf
    with pytest.raises(ff.NonFiniteError, match=r"j\[0\]\.inputs: expected finite values, got inf"):
        L.influence(0, other, damping=LAMBDA)


def test_e4_a_dense_matrix_is_refused_where_it_does_not_fit() -> None:
    a, g = np.ones((2, 1500)), np.ones((2, 1500))
    L = ff.LayerFisher([(a, g)])
    call: Callable[..., Any]
    for call in (
        L.to_dense,
        lambda: L.solve(np.ones(L.shape[0]), damping=1.0, solver=ff.Cholesky()),
    ):
        with pytest.raises(ff.MemoryLimitError, match="LayerFisher as a matrix"):
            call()


@memory_is_as_asked_for
def test_e4_ten_million_parameters_in_less_than_a_gigabyte() -> None:
    code = """
import re
import numpy as np, fastfisher as ff
rng = np.random.default_rng(0)
widths = (784, 2600, 2600, 700, 10)
draw = lambda d: rng.standard_normal((512, d))
layers = [ff.LinearLayer(draw(i), draw(o), bias=True) for i, o in zip(widths, widths[1:])]
L = ff.LayerFisher(layers)
x = L.solve(None, damping=1.0)
status = open("/proc/self/status").read()
peak = int(re.search(r"VmHWM:\\s*(\\d+)", status)[1]) * 1024  # ru_maxrss knows the parent's too
flat = np.concatenate([w.ravel() for w in x])
mean = np.concatenate([w.ravel() for w in L.mean_score()])
residual = L @ flat + flat - mean
print(L.shape[0], peak, np.linalg.norm(residual) / np.linalg.norm(mean))
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from /proc")
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    params, peak, residual = map(float, out.stdout.split())
    assert params >= 1e7
    assert residual < 1e-10
    assert peak < 2**30


def test_e4_weights_in_another_order_are_refused() -> None:
    L = ff.LayerFisher([(np.ones((4, 3)), np.ones((4, 2))), (np.ones((4, 2)), np.ones((4, 3)))])
    weights = [np.ones((2, 3)), np.ones((3, 2))]
    for wrong in ([w.T for w in weights], weights[::-1], weights[:1], [np.ones(6), np.ones(5)]):
        with pytest.raises(ValueError, match=r"v: expected a flat vector or weights of shapes"):
            L @ wrong
    expected = L @ np.ones(12)
    for right in (
        [w.ravel() for w in weights],
        [w.tolist() for w in weights],
        [np.ones((2, 3, 1, 1)), weights[1]],
    ):
        assert np.array_equal(np.hstack([w.ravel() for w in L @ right]), expected)
    assert np.array_equal(L @ list(np.ones(12)), expected)


def test_e4_nothing_to_influence() -> None:
    L, *_ = both(9)
    assert L.influence([], 2, damping=1.0).shape == (0,)
    assert L.influence([], [1, 2], damping=1.0).shape == (0, 2)
    with pytest.raises(TypeError, match=r"a list of layers|expected a pair"):
        L.influence(network.draw(9)[0], 1, damping=1.0)


def test_e4_the_mean_score_has_a_solution() -> None:
    L, F, _, mean, _ = both(9)
    solution = ff.solve(L, None, damping=LAMBDA)
    flat = np.hstack([w.ravel() for w in solution.value])
    oracle.close(flat, np.linalg.solve(damped(F), mean), float, 1e4)
    assert solution.method == "dual"
