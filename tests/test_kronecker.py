"""KroneckerFisher: streamed, merged, decayed and damped as it says, and every error it has."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfisher as ff
import kronecker
import oracle

SHAPES = [(3, 4), (2, 3)]
VARIANTS: dict[str, dict[str, Any]] = {
    "kfac": {},
    "ekfac": {"eigen": True},
    "chain": {"tridiagonal": True},
}
each_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def some(
    layers: Sequence[tuple[np.ndarray, np.ndarray]], rows: slice | np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(a[rows], g[rows]) for a, g in layers]


# ---- streaming, merging, decay ----
@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.sampled_from(["kfac", "chain"]))
def test_streaming_and_merging_are_one_shot(sizes: Sequence[int], name: str) -> None:
    n, options = sum(sizes) + 8, VARIANTS[name]
    layers, weights = kronecker.draw(n, SHAPES), oracle.draw_weights(n) + 0.1
    blocks = np.split(np.arange(n), np.cumsum(sizes))
    streamed = ff.KroneckerFisher(SHAPES, **options)
    for block in blocks:
        streamed.update(some(layers, block), weights[block])
    parts = [
        ff.KroneckerFisher(SHAPES, **options).update(some(layers, b), weights[b]) for b in blocks
    ]
    merged = ff.KroneckerFisher(SHAPES, **options).merge(*parts)
    for K in (streamed, merged, sum(parts[1:], parts[0])):
        for (A, G), pair in zip(K.factors, kronecker.factors(layers, weights), strict=True):
            oracle.close(A, pair[0], float, 10 * n)
            oracle.close(G, pair[1], float, 10 * n)
        expected = kronecker.DEFINITIONS["tridiagonal" if options else "kfac"](layers, weights)
        oracle.close(K.to_dense(), expected, float, 1e5, np.linalg.norm(expected))
        assert K.n_samples == n


@each_variant
def test_the_empty_one_changes_nothing(options: dict[str, Any]) -> None:
    layers = kronecker.draw(20, SHAPES)
    K = ff.KroneckerFisher.from_layers(layers, **options)
    empty = ff.KroneckerFisher(SHAPES, **options)
    for both in (K + empty, empty + K):
        assert np.array_equal(both.to_dense(), K.to_dense())
    K.update(some(layers, slice(0)))
    assert K.n_samples == 20
    assert np.array_equal(
        ff.KroneckerFisher(SHAPES, reduction="sum", **options).to_dense(), 0 * (K.to_dense())
    )
    with pytest.raises(ValueError, match="KroneckerFisher: expected at least one sample"):
        empty.to_dense()


@each_variant
def test_weights_count_samples_and_decay_weighs_the_old(options: dict[str, Any]) -> None:
    layers = kronecker.draw(12, SHAPES)
    twice = some(layers, np.r_[np.arange(12), 3])
    weighted = ff.KroneckerFisher.from_layers(layers, weights=1.0 + (np.arange(12) == 3), **options)
    size = np.linalg.norm(weighted.to_dense())
    repeated = ff.KroneckerFisher.from_layers(twice, **options)
    oracle.close(weighted.to_dense(), repeated.to_dense(), float, 1e4, size)
    decayed = ff.KroneckerFisher.from_layers(some(layers, slice(5)), **options).decay(0.25)
    assert decayed.weight_sum == 1.25
    if not options.get("eigen"):  # whose basis is that of the first update
        both = decayed.update(some(layers, slice(5, 12)))
        weights = np.where(np.arange(12) < 5, 0.25, 1.0)
        expected = ff.KroneckerFisher.from_layers(layers, weights=weights, **options).to_dense()
        oracle.close(both.to_dense(), expected, float, 1e4, np.linalg.norm(expected))


def test_decay_is_the_bias_corrected_moving_average() -> None:
    beta, K, average = 0.8, ff.KroneckerFisher([(2, 3)]), np.zeros((3, 3))
    for step in range(1, 9):
        a, g = oracle.draw(10 + step, 3)[:10], oracle.draw(10 + step, 2)[:10]
        K.decay(beta).update([(a, g)])
        average = beta * average + (1 - beta) * a.T @ a / 10
        oracle.close(K.factors[0][0], average / (1 - beta**step), float, 100)


def test_a_mean_of_layers_scales_to_their_sum() -> None:
    layers = kronecker.draw(20, SHAPES)
    for options in VARIANTS.values():
        mean, total = (
            ff.KroneckerFisher.from_layers(layers, reduction=reduction, **options)
            for reduction in ("mean", "sum")
        )
        oracle.close(total.to_dense(), 20 * mean.to_dense(), float, 1e4)
        rhs = np.ones(mean.shape[0])
        oracle.close(total.solve(rhs, damping=2.0), mean.solve(rhs, damping=0.1) / 20, float, 1e4)


# ---- EKFAC's basis ----
def eigen(layers: Sequence[tuple[np.ndarray, np.ndarray]], **options: Any) -> ff.KroneckerFisher:
    return ff.KroneckerFisher.from_layers(layers, eigen=True, **options)


def test_later_updates_keep_the_basis_and_refresh_takes_the_new_one() -> None:
    layers = kronecker.draw(60, SHAPES)
    first, rest = some(layers, slice(20)), some(layers, slice(20, 60))
    K = eigen(first)
    Q = [np.kron(np.linalg.eigh(G)[1], np.linalg.eigh(A)[1]) for A, G in kronecker.factors(first)]
    K.update(rest)
    grads = [one.reshape(60, -1) for one in kronecker.gradients(layers)]
    blocks = [q * ((s @ q) ** 2).mean(axis=0) @ q.T for q, s in zip(Q, grads, strict=True)]
    stale = kronecker.block_diagonal(blocks)
    oracle.close(K.to_dense(), stale, float, 1e5, np.linalg.norm(stale))
    K.refresh()
    new = [
        np.kron(np.linalg.eigh(G)[1], np.linalg.eigh(A)[1]) for A, G in kronecker.factors(layers)
    ]
    rotation = kronecker.block_diagonal(new)
    carried = rotation * np.diag(rotation.T @ stale @ rotation) @ rotation.T
    oracle.close(K.to_dense(), carried, float, 1e5, np.linalg.norm(stale))
    assert K.trace() == pytest.approx(np.trace(stale), rel=1e-12)
    assert np.array_equal(K.copy().refresh().factors[0][0], K.factors[0][0])


def test_merge_in_one_basis_is_exact_and_in_two_is_bounded() -> None:
    layers = kronecker.draw(60, SHAPES)
    one, two = eigen(some(layers, slice(20))), eigen(some(layers, slice(20, 60)))
    in_one_basis = one.copy().update(some(layers, slice(20, 60)))
    again = one.copy().decay(0.0).update(some(layers, slice(20, 60)))
    size = np.linalg.norm(in_one_basis.to_dense())
    oracle.close((one + again).to_dense(), in_one_basis.to_dense(), float, 1e4, size)
    merged = (one + two).to_dense()
    exact = (20 * one.to_dense() + 40 * two.to_dense()) / 60
    error = np.linalg.norm(merged - exact)
    assert error / np.linalg.norm(exact) > 1e-3  # so that the bound is of something
    assert error <= np.linalg.norm(40 * two.to_dense() / 60)
    assert np.trace(merged) == pytest.approx(np.trace(exact), rel=1e-12)


def test_what_is_not_eigen_has_nothing_to_refresh() -> None:
    K = ff.KroneckerFisher.from_layers(kronecker.draw(20, SHAPES))
    before = K.to_dense()
    assert np.array_equal(K.refresh().to_dense(), before)


# ---- lists, dtypes, kinds of layers ----
@each_variant
@pytest.mark.parametrize("mode", ["absolute", "factored"])
def test_lists_in_lists_out(options: dict[str, Any], mode: str) -> None:
    if mode == "factored" and options.get("eigen"):
        return
    K = ff.KroneckerFisher.from_layers(kronecker.draw(20, SHAPES), **options)
    weights = [oracle.draw(*shape) for shape in SHAPES]
    flat = np.concatenate([one.ravel() for one in weights])
    how: dict[str, Any] = {"damping": 0.1, "damping_mode": mode}
    expected = K.solve(flat, **how)
    factor = K.factor(**how)
    for found in (
        K.solve(weights, **how),
        ff.solve(K, weights, **how).value,
        factor.solve(weights),
    ):
        assert [one.shape for one in found] == SHAPES
        assert np.array_equal(np.concatenate([one.ravel() for one in found]), expected)
    assert K.quadratic_form(weights) == K.quadratic_form(flat)
    assert np.array_equal((K @ weights)[1].ravel(), (K @ flat)[12:])
    with pytest.raises(ValueError, match="expected a flat vector or weights of shapes"):
        K.solve(weights[:1], **how)


@each_variant
def test_leverages_of_layers_are_those_of_their_scores(options: dict[str, Any]) -> None:
    layers = kronecker.draw(20, SHAPES)
    K = ff.KroneckerFisher.from_layers(layers, **options)
    expected = K.leverage(kronecker.scores(layers), 0.3)
    oracle.close(K.leverage(layers, 0.3), expected, float, 1e4)
    layers[1][1][7, 1] = np.nan
    with pytest.raises(ff.NonFiniteError, match=r"layers\[1\]\.gradients.* row 7"):
        K.leverage(layers, 0.3)


@each_variant
def test_dtypes(options: dict[str, Any]) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    layers = kronecker.draw(30, SHAPES)
    for given_as, held in (
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.float16, np.float32),
        (ml_dtypes.bfloat16, np.float32),
    ):
        typed = [(a.astype(given_as), g.astype(given_as)) for a, g in layers]
        K = ff.KroneckerFisher.from_layers(typed, **options)
        assert K.dtype == held
        exact = [(a.astype(np.float64), g.astype(np.float64)) for a, g in typed]
        F = ff.KroneckerFisher.from_layers(exact, **options).to_dense()
        oracle.close(K.to_dense(), F, held, 1e4, np.linalg.norm(F))
        assert K.solve(np.ones(len(F)), damping=0.1).dtype == held
    with pytest.raises(TypeError, match="float64"):
        ff.KroneckerFisher(SHAPES, dtype=np.float32).update(layers)


@each_variant
def test_layers_in_any_memory(options: dict[str, Any]) -> None:
    (a, g), second = kronecker.draw(30, SHAPES)
    expected = ff.KroneckerFisher.from_layers([(a, g), second], **options).to_dense()
    held = zip(oracle.layouts(a), oracle.layouts(g), strict=True)
    for (_, inputs), (name, gradients) in held:
        before = inputs.copy(), gradients.copy()
        K = ff.KroneckerFisher.from_layers([(inputs, gradients), second], **options)
        oracle.close(K.to_dense(), expected, float, 1e4, np.linalg.norm(expected))
        assert np.array_equal(inputs, before[0]), name
        assert np.array_equal(gradients, before[1]), name


def test_a_bias_is_one_more_input() -> None:
    a, g = kronecker.draw(20, [(3, 4)])[0]
    K = ff.KroneckerFisher([(3, 5)]).update([ff.LinearLayer(a, g, bias=True)])
    joined = ff.KroneckerFisher.from_layers([(np.hstack([a, np.ones((20, 1))]), g)])
    oracle.close(K.to_dense(), joined.to_dense(), float, 100)


@each_variant
def test_bits_do_not_depend_on_threads(options: dict[str, Any]) -> None:
    layers = kronecker.draw(100, [(60, 70), (50, 60)])
    found = [
        ff.KroneckerFisher.from_layers(layers, n_threads=threads, **options).factors
        for threads in (1, 2, 3)
    ]
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert all(map(np.array_equal, one, two))
    K, rhs = ff.KroneckerFisher.from_layers(layers, **options), oracle.draw(7200, 2)
    modes = {"eigen": ["absolute"], "tridiagonal": ["factored"]}
    for mode in modes.get("".join(options), ["absolute", "factored"]):
        how: dict[str, Any] = {"damping": 0.1, "damping_mode": mode}
        found = [K.solve(rhs, n_threads=threads, **how) for threads in (1, 2, 3)]
        assert np.array_equal(found[0], found[1])
        assert np.array_equal(found[0], found[2])


@each_variant
def test_state_goes_round(options: dict[str, Any], tmp_path: Path) -> None:
    layers = kronecker.draw(30, SHAPES)
    K = ff.KroneckerFisher.from_layers(layers, weight_sharing="reduce", **options)
    K.save(tmp_path / "k.npz")
    again: Any
    for again in (pickle.loads(pickle.dumps(K)), ff.load(tmp_path / "k.npz"), K.copy()):
        assert again._structure() == K._structure()
        assert np.array_equal(again.to_dense(), K.to_dense())
        assert np.array_equal(again.update(layers).to_dense(), K.copy().update(layers).to_dense())


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({}, {"shapes": [[3, 4], [2, 40]]}, "sums: expected shape"),
        ({}, {"shapes": [[2**40, 2**40]]}, "expected at most"),
        ({}, {"dtype": "float32"}, "sums: expected shape"),
        ({}, {"weight_sum": -1.0}, "weight_sum: expected"),
        ({}, {"eigen": 1}, "eigen: expected True or False"),
        ({"eigen": True}, {"moments": np.ones(3)}, "moments: expected shape"),
        ({"eigen": True}, {"bases": np.ones(3)}, "bases: expected shape"),
        ({"tridiagonal": True}, {"crosses": np.ones(3)}, "crosses: expected shape"),
    ],
)
def test_damaged_states(options: dict[str, Any], change: dict[str, Any], message: str) -> None:
    state = ff.KroneckerFisher.from_layers(kronecker.draw(9, SHAPES), **options)._state()
    with pytest.raises((ValueError, TypeError), match=message):
        ff.KroneckerFisher._from_state({**state, **change})


# ---- solvers ----
def test_the_factor_is_chosen_at_any_size() -> None:
    shapes = [(200, 300)]  # 60 000 parameters
    K = ff.KroneckerFisher.from_layers(kronecker.draw(20, shapes))
    rhs = oracle.draw(60_000, 1)[:, 0]
    exact = ff.solve(K, rhs, damping=0.1)
    assert (exact.method, exact.status) == ("kronecker-eigh", ff.Status.SUCCESS)
    assert exact.residual is not None
    assert exact.residual < 1e-12
    factored = ff.solve(K, rhs, damping=0.1, damping_mode="factored")
    assert factored.method == "kronecker-cholesky"
    assert factored.residual is not None
    assert factored.residual < 1e-12
    preconditioner = K.factor(damping=0.1).solve
    iterated = ff.solve(
        K, rhs, damping=np.linspace(0.09, 0.11, 60_000), solver=ff.CG(preconditioner=preconditioner)
    )
    assert iterated.iterations < 12
    assert (
        ff.solve(K, rhs, damping=0.1, solver=ff.CG(preconditioner=preconditioner)).iterations == 1
    )
    with pytest.raises(ValueError, match="damping: expected a number for a layer of more than"):
        K.solve(rhs, damping=np.full(60_000, 0.1), solver=ff.Cholesky())
    chain = ff.KroneckerFisher.from_layers(kronecker.draw(20, shapes), tridiagonal=True)
    assert ff.solve(chain, rhs, damping=5.0).method == "cg"
    found = ff.solve(chain, rhs, damping=5.0, damping_mode="factored")
    assert found.method == "kronecker-chain"


@each_variant
def test_every_solver_gives_one_answer(options: dict[str, Any]) -> None:
    K = ff.KroneckerFisher.from_layers(kronecker.draw(30, SHAPES), **options)
    F, rhs = K.to_dense(), oracle.draw(18, 2)
    expected = np.linalg.solve(F + 0.1 * np.eye(18), rhs)
    block = ff.CG(rtol=1e-12, preconditioner=ff.BlockJacobi(blocks=[12, 6]))
    for solver in (ff.Cholesky(), ff.Cholesky("mixed"), ff.Eigh(), ff.CG(rtol=1e-12), block):
        oracle.close(K.solve(rhs, damping=0.1, solver=solver), expected, float, 1e5)
    with pytest.raises(TypeError, match="Dual"):
        K.solve(rhs, damping=0.1, solver=ff.Dual())


@each_variant
def test_paths(options: dict[str, Any]) -> None:
    K = ff.KroneckerFisher.from_layers(kronecker.draw(30, SHAPES), **options)
    F, rhs, dampings = K.to_dense(), oracle.draw(18, 2), np.geomspace(1e-3, 10, 120)
    for some_dampings in (dampings[::40], dampings):
        path = K.solve_path(rhs, some_dampings)
        for found, damping in zip(path, some_dampings, strict=True):
            expected = np.linalg.solve(F + damping * np.eye(18), rhs)
            oracle.close(found.value, expected, float, 1e6)
            assert found.residual is not None
            assert found.residual < 1e-10


def test_one_decomposition_serves_all_dampings(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastfisher._ops import numpy_ops

    K = ff.KroneckerFisher.from_layers(kronecker.draw(30, SHAPES))
    calls, eigh = [], numpy_ops.eigh

    def counted(M: np.ndarray) -> Any:
        calls.append(M)
        return eigh(M)

    monkeypatch.setattr(numpy_ops, "eigh", counted)
    K.solve_path(np.ones(18), [0.1, 0.2, 0.3])
    K.solve(np.ones(18), damping=1.0)
    K.eigsh(3)
    assert len(calls) == 4  # A and G of two layers
    K.update(kronecker.draw(30, SHAPES)).solve(np.ones(18), damping=1.0)
    assert len(calls) == 8


def test_the_eigenbasis_takes_factored_damping_too() -> None:
    K = ff.KroneckerFisher.from_layers(kronecker.draw(30, SHAPES))
    how: dict[str, Any] = {"damping": 0.1, "damping_mode": "factored"}
    one, two = (ff.solve(K, np.ones(18), solver=s, **how) for s in (ff.Eigh(), ff.Cholesky()))
    oracle.close(one.value, two.value, float, 1e4)
    assert (one.method, one.damping_used) == ("eigh", 0.1)
    assert one.residual is not None
    assert one.residual < 1e-12


def test_a_factor_does_not_change_with_its_fisher() -> None:
    layers, rhs = kronecker.draw(30, SHAPES), np.ones(18)
    for mode in ("absolute", "factored"):
        K = ff.KroneckerFisher.from_layers(layers)
        factor = K.factor(damping=0.1, damping_mode=mode)
        before = factor.solve(rhs)
        K.update(kronecker.draw(40, SHAPES))
        assert np.array_equal(factor.solve(rhs), before)


# ---- failures ----
@pytest.mark.parametrize("mode", ["absolute", "factored"])
def test_singular_factors_are_named(mode: str) -> None:
    layers = kronecker.draw(30, SHAPES)
    layers[1][1][:, 0] = 0.0  # an output without a gradient
    K = ff.KroneckerFisher.from_layers(layers)
    for attempt in (
        lambda: K.solve(np.ones(18), damping_mode=mode),
        lambda: K.factor(damping_mode=mode),
    ):
        with pytest.raises(ff.NotPositiveDefiniteError, match="factor G of layer 1") as caught:
            attempt()
        assert caught.value.damping is not None
        assert caught.value.damping > 0
        K.solve(np.ones(18), damping=caught.value.damping, damping_mode=mode)
    if mode == "factored":
        assert caught.value.pivot == 12
    shifted = ff.solve(K, np.ones(18), damping_mode=mode, on_failure="shift")
    assert shifted.status == ff.Status.SHIFTED
    cut = ff.solve(K, np.ones(18), damping_mode=mode, on_failure="pinv")
    oracle.close(cut.value, np.linalg.pinv(K.to_dense()) @ np.ones(18), float, 1e4)
    assert cut.rank == 15
    assert np.isnan(ff.solve(K, np.ones(18), damping_mode=mode, on_failure="nan").value).all()
    with pytest.raises(ff.NotPositiveDefiniteError):
        K.apply_power(np.ones(18), -0.5, damping_mode=mode)
    oracle.close(K.apply_power(K.apply_power(np.ones(18), 0.5), 0.5), K @ np.ones(18), float, 1e4)


def test_singular_moments_and_vectors_are_named() -> None:
    layers = kronecker.draw(30, SHAPES)
    layers[1][1][:, 0] = 0.0
    K = ff.KroneckerFisher.from_layers(layers, eigen=True)
    with pytest.raises(ff.NotPositiveDefiniteError, match="moments of layer 1"):
        K.solve(np.ones(18))
    K = ff.KroneckerFisher.from_layers(layers)
    with pytest.raises(ff.NotPositiveDefiniteError, match="of layer 1") as caught:
        K.solve(np.ones(18), damping=np.zeros(18))
    assert caught.value.pivot is not None
    assert 12 <= caught.value.pivot < 18


def test_a_layer_that_determines_its_neighbour_is_named() -> None:
    a, g = kronecker.draw(30, [(2, 2)])[0]
    K = ff.KroneckerFisher.from_layers([(a, g), (a, g)], tridiagonal=True)
    with pytest.raises(
        ff.NotPositiveDefiniteError, match=r"layer 0 determined by the next.*'factored'"
    ):
        K.solve(np.ones(8))
    with pytest.raises(ff.NotPositiveDefiniteError, match="layer 0 determined by the next"):
        K.factor()
    assert ff.solve(K, np.ones(8), on_failure="shift").status == ff.Status.SHIFTED
    assert np.isfinite(K.to_dense()).all()


@pytest.mark.parametrize("place", ["inputs", "gradients"])
@pytest.mark.parametrize("options", [{}, {"tridiagonal": True}, {"weight_sharing": "reduce"}])
def test_what_is_not_finite_is_named_and_changes_nothing(
    place: str, options: dict[str, Any]
) -> None:
    layers = kronecker.draw(20, SHAPES, positions=2)
    K = ff.KroneckerFisher.from_layers(layers, **options)
    before = K.to_dense()
    bad = kronecker.draw(10, SHAPES, positions=2)
    array = bad[1][place == "gradients"]
    for value, message in ((np.nan, "got nan at row 3, column 1"), (np.inf, "got inf at row 3")):
        array[3, 1, 1] = value
        with pytest.raises(ff.NonFiniteError, match=rf"layers\[1\]\.{place}.*{message}"):
            K.update(bad)
    array[3, 1, 1] = 1e200
    with pytest.raises(ff.NonFiniteError, match=rf"layers\[1\]\.{place}.*overflow"):
        K.update(bad)
    assert np.array_equal(K.to_dense(), before)
    assert K.n_samples == 20


@pytest.mark.parametrize("eigen", [False, True])
def test_samples_of_no_weight_are_counted_and_add_nothing(eigen: bool) -> None:
    layers, nothing = kronecker.draw(20, SHAPES), np.zeros(20)
    expected = ff.KroneckerFisher.from_layers(layers, eigen=eigen).to_dense()
    after = ff.KroneckerFisher(SHAPES, eigen=eigen).update(layers).update(layers, nothing)
    before = ff.KroneckerFisher(SHAPES, eigen=eigen).update(layers, nothing).update(layers)
    for K in (after, before):
        assert np.array_equal(K.to_dense(), expected)
        assert (K.n_samples, K.weight_sum) == (40, 20.0)


def test_bad_arguments() -> None:
    for keywords, message in (
        ({"eigen": True, "tridiagonal": True}, "tridiagonal: expected False with eigen=True"),
        ({"center": True}, "center: expected False for KroneckerFisher, got True"),
        ({"weight_sharing": "sum"}, "weight_sharing: expected one of expand, reduce, got 'sum'"),
        ({"reduction": "max"}, "reduction: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            ff.KroneckerFisher(SHAPES, **keywords)
    with pytest.raises(TypeError, match="dtype: expected float64 or float32, got complex128"):
        ff.KroneckerFisher(SHAPES, dtype=np.complex128)
    with pytest.raises(ff.MemoryLimitError, match="Split the widest layers"):
        ff.KroneckerFisher([(10**7, 10**7)])
    K, layers = ff.KroneckerFisher(SHAPES), kronecker.draw(20, SHAPES)
    with pytest.raises(ValueError, match=r"layers\[1\]: expected \(d_out, d_in\) = \(2, 3\)"):
        K.update([layers[0], layers[0]])
    with pytest.raises(ValueError, match=r"layers\[1\]: expected 20 samples as in layers\[0\]"):
        K.update([layers[0], some(layers, slice(19))[1]])
    with pytest.raises(ValueError, match=r"weights: expected shape \(20,\)"):
        K.update(layers, np.ones(19))
    chain = ff.KroneckerFisher(SHAPES, tridiagonal=True)
    uneven = [kronecker.draw(9, SHAPES, positions=t)[i] for i, t in enumerate((2, 3))]
    with pytest.raises(ValueError, match=r"as many positions in every layer .* got \[2, 3\]"):
        chain.update(uneven)
    ff.KroneckerFisher(SHAPES, tridiagonal=True, weight_sharing="reduce").update(uneven)


def test_what_does_not_merge() -> None:
    K = ff.KroneckerFisher(SHAPES)
    with pytest.raises(TypeError, match="others: expected KroneckerFisher, got DenseFisher"):
        K.merge(ff.DenseFisher(18))  # type: ignore[arg-type]
    for other in (
        ff.KroneckerFisher([(3, 4), (3, 2)]),
        ff.KroneckerFisher(SHAPES, eigen=True),
        ff.KroneckerFisher(SHAPES, tridiagonal=True),
        ff.KroneckerFisher(SHAPES, weight_sharing="reduce"),
        ff.KroneckerFisher(SHAPES, dtype=np.float32),
        ff.KroneckerFisher(SHAPES, reduction="sum"),
    ):
        with pytest.raises(ValueError, match=r"others: expected .* Build both the same way"):
            K.merge(other)


def test_factored_damping_is_for_factors_alone() -> None:
    S = oracle.draw(20, 18)
    for fisher in (
        ff.DenseFisher.from_scores(S),
        ff.DiagonalFisher.from_scores(S),
        ff.ScoreFisher(S),
    ):
        name = type(fisher).__name__
        with pytest.raises(
            ValueError, match=f"absolute, trace, diagonal for {name}, got 'factored'"
        ):
            fisher.solve(np.ones(18), damping=0.1, damping_mode="factored")
    layers = kronecker.draw(20, SHAPES)
    K = ff.KroneckerFisher.from_layers(layers)
    for attempt, message in (
        (lambda how: K.solve(np.ones(18), solver=ff.CG(), **how), r"for CG\(\), got 'factored'"),
        (lambda how: K.solve_path(np.ones(18), [0.1], damping_mode="factored"), "in a path"),
        (lambda how: eigen(layers).solve(np.ones(18), **how), "with eigen=True, got 'factored'"),
    ):
        with pytest.raises(ValueError, match=message):
            attempt({"damping": 0.1, "damping_mode": "factored"})
    with pytest.raises(ValueError, match="expected a number with damping_mode='factored'"):
        K.solve(np.ones(18), damping=np.ones(18), damping_mode="factored")
    with pytest.raises(ValueError, match="damping_mode: expected one of"):
        K.solve(np.ones(18), damping=0.1, damping_mode="pi")
