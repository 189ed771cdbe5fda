"""Every representation on a device: the answers of NumPy, arrays that stay, and few waits."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import device
import fastfisher as ff
import kronecker
import network
import oracle
from fastfisher._ops import for_dtype, numpy_ops
from representations import cases, streams

LAMBDA = 0.3
# Of each kind one with more samples than parameters and one with fewer, centred and not.
CHOSEN = {np.float64: ("60x13-centred-mean", "9x26-plain-sum", "60-sum", "9-mean",
                       "60-centred-mean", "9-plain-sum"),
          np.complex128: ("9x26-centred-mean",)}  # fmt: skip
CASES = [
    pytest.param(*rest, id=f"{np.dtype(dtype)}-{name}")
    for dtype, tails in CHOSEN.items()
    for name, *rest in cases(dtype, device.to_device)
    if name.partition("-")[2].endswith(tails) or name.endswith(tails)
]
STREAMS = [
    pytest.param(*rest, name.startswith("approximate"), id=f"{np.dtype(dtype)}-{name}")
    for dtype in (np.float64, np.complex128)
    for name, *rest in streams(dtype, device.to_device)
]


def host(value):
    """Return NumPy's copy of what must be an array of the device."""
    if isinstance(value, list | tuple):
        return [host(one) for one in value]
    assert isinstance(value, device.Array), type(value)
    return device.to_host(value)


def damped(F, damping=LAMBDA):
    return F + np.diag(np.broadcast_to(damping, len(F)))


def near(actual, expected, F, damping=LAMBDA):
    """Compare to p · eps · κ, the error of any backward-stable way."""
    actual = actual if isinstance(actual, float) else host(actual)
    oracle.close(actual, expected, np.float64, 10 * len(F) * np.linalg.cond(damped(F, damping)))


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_reading(fisher, F, S):
    p, size = len(F), np.linalg.norm(F)
    V = oracle.draw(p, 4, F.dtype)
    W = device.to_device(V)
    oracle.close(host(fisher.to_dense()), F, float, 100, size)
    oracle.close(host(fisher.diagonal()), np.diag(F).real, float, 100, size)
    oracle.close(fisher.trace(), np.trace(F).real, float, 100, size)
    oracle.close(host(fisher @ W), F @ V, float, 100, size * 10)
    oracle.close(host(fisher @ W[:, 0]), F @ V[:, 0], float, 100, size * 10)
    squares = np.diag(V.conj().T @ F @ V).real
    oracle.close(host(fisher.quadratic_form(W)), squares, float, 100, size * 100)
    oracle.close(fisher.quadratic_form(W[:, 0]), squares[0], float, 100, size * 100)
    assert host(fisher.diagonal()).dtype == np.float64


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_solving(fisher, F, S):
    p = len(F)
    rhs, vector = oracle.draw(p, 3, F.dtype), np.linspace(0.1, 1.0, p)
    given, shift = device.to_device(rhs), device.to_device(vector)
    for numbers, damping in ((LAMBDA, LAMBDA), (vector, shift)):
        expected = np.linalg.solve(damped(F, numbers), rhs)
        near(fisher.solve(given, damping=damping), expected, F, numbers)
        near(fisher.factor(damping=damping).solve(given), expected, F, numbers)
    relative = np.linalg.solve(damped(F, LAMBDA * np.trace(F).real / p), rhs)
    near(fisher.solve(given, damping=LAMBDA, damping_mode="trace"), relative, F)
    marquardt = np.linalg.solve(F + LAMBDA * np.diag(np.diag(F)), rhs)
    near(fisher.solve(given, damping=LAMBDA, damping_mode="diagonal"), marquardt, F, 0.01)
    path = fisher.solve_path(given, [LAMBDA, 2.0])
    for damping, value in zip((LAMBDA, 2.0), path.value, strict=True):
        near(value, np.linalg.solve(damped(F, damping), rhs), F)


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_every_solver(fisher, F, S):
    rhs = oracle.draw(len(F), 2, F.dtype)
    given = device.to_device(rhs)
    expected = np.linalg.solve(damped(F), rhs)
    held = isinstance(fisher, ff.ScoreFisher | ff.LayerFisher)
    loose = ff.CG(rtol=1e-8)
    iterations = (loose, *(replace(loose, preconditioner=one) for one in
                           (ff.BlockJacobi(4), ff.Nystrom(5))))  # fmt: skip
    for solver in (
        ff.Cholesky(),
        ff.Cholesky("mixed"),
        ff.Eigh(),
        ff.Dual(),
        ff.Dual(rtol=1e-12),
        ff.QR(),
        ff.QR(rank_revealing=True),
        *(iterations if len(S) == 60 else ()),
    ):
        roots = held or isinstance(fisher, ff.SquareRootFisher)
        if not (roots if isinstance(solver, ff.QR) else held or not isinstance(solver, ff.Dual)):
            with pytest.raises(TypeError, match="solver: expected"):
                ff.solve(fisher, given, damping=LAMBDA, solver=solver)
            continue
        found = ff.solve(fisher, given, damping=LAMBDA, solver=solver)
        if isinstance(solver, ff.CG):
            assert found.residual is not None
            assert found.residual < 1e-7
        else:
            near(found.value, expected, F)


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_factor(fisher, F, S):
    vector = np.linspace(0.1, 1.0, len(F))
    for numbers, damping in ((LAMBDA, LAMBDA), (vector, device.to_device(vector))):
        A = damped(F, numbers)
        inverse, factor = np.linalg.inv(A), fisher.factor(damping=damping)
        near(factor.inverse(), inverse, F, numbers)
        near(factor.inverse_diagonal(), np.diag(inverse).real, F, numbers)
        near(factor.logdet, np.linalg.slogdet(A)[1], F, numbers)
        assert 0 < factor.rcond <= 1.0001
        # z*Az is χ²_p for each draw: mean p, variance 2p (half of it for complex numbers).
        draws = host(factor.sample(0, 300))
        squares = ((draws.conj() @ A) * draws).sum(axis=1).real
        assert abs(squares.mean() - len(F)) < 5 * np.sqrt(2 * len(F) / 300)
        assert np.array_equal(draws, host(factor.sample(0, 300)))


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_spectrum(fisher, F, S):
    p, v = len(F), oracle.draw(len(F), 2, F.dtype)
    vector = np.linspace(0.1, 1.0, p)
    for numbers, damping in ((LAMBDA, LAMBDA), (vector, device.to_device(vector))):
        values, Q = np.linalg.eigh(damped(F, numbers))
        for power in (-0.5, 2.0):
            expected = Q @ (values[:, None] ** power * (Q.conj().T @ v))
            near(fisher.apply_power(device.to_device(v), power, damping=damping), expected, F,
                 numbers)  # fmt: skip
        dimension = np.trace(np.linalg.solve(damped(F, numbers), F)).real
        near(fisher.effective_dimension(damping), dimension, F, numbers)
    values = np.linalg.eigvalsh(F)[::-1]
    for k in (3, p):
        found, vectors = map(host, fisher.eigsh(k))
        oracle.close(found, values[:k], float, 100, values[0])
        oracle.close(F @ vectors, vectors * found, float, 1000, values[0])


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_another_device_is_refused_with_both_names(fisher, F, S):
    factor = fisher.factor(damping=LAMBDA)
    wanted = "current device(, .*device2.*device1| to be .*device1.*device2)"
    with device.on("device2"):
        v = device.to_device(np.ones(len(F), F.dtype))
        for call in (fisher.to_dense, lambda: fisher @ v, lambda: fisher.eigsh(1),
                     lambda: fisher.solve(v, damping=LAMBDA), lambda: fisher.factor(damping=1.0),
                     lambda: factor.solve(v), factor.inverse):  # fmt: skip
            with pytest.raises(ValueError, match=wanted):
                call()
    assert host(factor.solve(device.to_device(np.ones(len(F), F.dtype)))).shape == (len(F),)


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_leverage(fisher, F, S):
    mean = oracle.mean(S, oracle.draw_weights(len(S))) if fisher.center else 0.0
    scale = 1 / fisher.weight_sum if fisher.reduction == "mean" else 1.0
    expected = scale * np.diag((S - mean) @ np.linalg.solve(damped(F), (S - mean).conj().T))
    near(fisher.leverage(device.to_device(S), LAMBDA), expected.real, F)


@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_files_and_copies(fisher, F, S, tmp_path):
    whole = host(fisher.to_dense())
    fisher.save(tmp_path / "f.npz")
    size = np.linalg.norm(whole)
    loaded = ff.load(tmp_path / "f.npz")  # NumPy's
    assert repr(loaded) == repr(fisher)
    oracle.close(loaded.to_dense(), whole, float, 100, size)
    back = ff.load(tmp_path / "f.npz", like=device.to_device(np.zeros(1)))
    oracle.close(host(back.to_dense()), whole, float, 100, size)


@pytest.mark.parametrize(("empty", "samples", "approximate"), STREAMS)
def test_update_merge_and_decay(empty, samples, approximate):
    whole = empty.copy().update(*samples(slice(None)))
    expected = host(whole.to_dense())
    size = np.linalg.norm(expected)
    first, second = (empty.copy().update(*samples(rows)) for rows in (slice(25), slice(25, None)))
    for joined in (
        first.copy().update(*samples(slice(25, None))),
        first.copy().merge(second),
        empty.copy().merge(first, second),
    ):
        oracle.close(joined.trace(), np.trace(expected).real, float, 1000)
        if not approximate:
            oracle.close(host(joined.to_dense()), expected, float, 1000, size)
    half = first.copy().decay(0.5)
    assert half.weight_sum == pytest.approx(first.weight_sum / 2)
    oracle.close(host(half.to_dense()), host(first.to_dense()), float, 1000, size)


def test_waits_are_those_that_the_page_tells():
    S, v = device.to_device(oracle.draw(60, 5)), device.to_device(np.ones(5))
    F, held = ff.DenseFisher.from_scores(S), ff.ScoreFisher(S)
    factor = F.factor(damping=LAMBDA)
    for waits, calls in (
        (0, (factor.inverse, F.diagonal, F.to_dense, lambda: ff.fvp(S, v, check_finite=False))),
        (1, (lambda: F @ v, lambda: factor.solve(v), lambda: F.factor(damping=LAMBDA))),
        (2, (lambda: held @ v,)),
    ):
        for call in calls:
            with device.counted() as asked:
                call()
            assert (asked.reads, asked.downloads) == (waits, 0)


# ---- what only some have ----
def test_blocks_of_a_factor():
    """Blocks of A⁻¹, of one size and of several, in a chain and not."""
    S = oracle.draw(80, 12)
    for sizes in ((3, 3, 3, 3), (5, 2, 5)):
        for tridiagonal in (False, True):
            F = ff.BlockDiagonalFisher.from_scores(
                device.to_device(S), sizes, tridiagonal=tridiagonal
            )
            dense = oracle.masked(oracle.fisher(S), sizes, tridiagonal)
            inverse = np.linalg.inv(damped(dense))
            factor: Any = F.factor(damping=LAMBDA)
            ends = np.cumsum(sizes)
            for found, matrix in ((F.blocks(), dense), (factor.inverse_blocks(), inverse)):
                for block, end, size in zip(found, ends, sizes, strict=True):
                    near(block, matrix[end - size : end, end - size : end], dense)
            below = F.neighbours(), factor.inverse_neighbours()
            for found, matrix in zip(below, (dense, inverse), strict=True):
                assert len(found) == tridiagonal * (len(sizes) - 1)
                for b, block in enumerate(found):
                    rows = slice(ends[b], ends[b + 1])
                    near(block, matrix[rows, ends[b] - sizes[b] : ends[b]], dense)


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_networks_of_every_layer(sharing):
    """Convolutions, positions and biases: factors, moments in a basis, and damping of factors."""
    layers = network.draw(40)
    given = network.moved(layers, device.to_device)
    grads = [
        oracle.rng(1).standard_normal(s) for s in ff.KroneckerFisher.from_layers(layers).shapes
    ]
    for options in ({}, {"eigen": True}, {"tridiagonal": True}):
        if options.get("eigen") and sharing == "reduce":
            continue  # factors are singular, and the basis of what they lack is anyone's
        kind = options | {"weight_sharing": sharing}
        if options.get("tridiagonal"):
            layers, given = layers[:2], given[:2]
        theirs = ff.KroneckerFisher.from_layers(layers, **kind).update(layers)
        ours = ff.KroneckerFisher.from_layers(given, **kind).update(given).refresh()
        theirs.refresh()
        for one, two in zip(ours.factors, theirs.factors, strict=True):
            for found, expected in zip(host(one), two, strict=True):
                oracle.close(found, expected, float, 400)
        modes = ("absolute",) if options.get("eigen") else ("absolute", "factored")
        for mode in modes:
            some = grads[: len(layers)]
            step = ours.solve([device.to_device(g) for g in some], damping=0.1, damping_mode=mode)
            expected = theirs.solve(some, damping=0.1, damping_mode=mode)
            for one, two in zip(host(step), expected, strict=True):
                oracle.close(one, two, float, 4000)


def test_influence_and_targets():
    layers = network.draw(30)
    others = network.draw(5, seed=1)
    ours = ff.LayerFisher(network.moved(layers, device.to_device), center=True)
    theirs = ff.LayerFisher(layers, center=True)
    tests = network.moved(others, device.to_device)
    for i, j in ((0, slice(None)), ([1, 4], [2, 0, 3])):
        found = ours.influence(i, j, damping=0.1)
        oracle.close(host(found), theirs.influence(i, j, damping=0.1), float, 4000)
    oracle.close(
        ours.influence(2, 3, damping=0.1), theirs.influence(2, 3, damping=0.1), float, 4000
    )
    outside = theirs.influence(others, slice(4), damping=0.1)
    oracle.close(host(ours.influence(tests, slice(4), damping=0.1)), outside, float, 4000)
    oracle.close(host(ours.leverage(None, 0.1)), theirs.leverage(None, 0.1), float, 4000)
    oracle.close(host(ours.leverage(tests, 0.1)), theirs.leverage(others, 0.1), float, 4000)
    oracle.close(host(ours.gram()), theirs.gram(), float, 4000)
    y = oracle.draw(30, 1)[:, 0]
    for solver in ("auto", ff.QR(), ff.Dual()):
        step = ours.least_squares(device.to_device(y), damping=0.1, solver=solver).value
        expected = theirs.least_squares(y, damping=0.1, solver=solver).value
        for one, two in zip(host(step), expected, strict=True):
            oracle.close(one, two, float, 40000)


def test_spring():
    ours, theirs = ff.Spring(1e-2, 0.9), ff.Spring(1e-2, 0.9)
    for seed in range(3):
        S = oracle.rng(seed).standard_normal((8, 30))
        y = oracle.rng(seed, 1).standard_normal(8)
        step = ours.step(device.to_device(S), device.to_device(y))
        oracle.close(host(step), theirs.step(S, y), float, 4000)


# ---- waits and failures ----
def reads(call):
    with device.counted() as counts:
        call()
    assert counts.downloads == 0
    return counts.reads


@pytest.mark.parametrize(("n", "m"), [(40, 4), (400, 30)])
def test_waits_are_few(n, m):
    """How often the host waits follows from the calls alone, not from n, p or the blocks."""
    S = device.to_device(oracle.draw(n, 3 * m))
    g = device.to_device(np.ones(3 * m))
    blocks = ff.BlockDiagonalFisher([3] * m, like=S)
    assert reads(lambda: blocks.update(S)) <= 2
    assert reads(lambda: blocks @ g) <= 1
    assert reads(blocks.diagonal) == 0
    assert reads(lambda: blocks.solve(g, damping=0.1)) <= 3
    chain = ff.BlockDiagonalFisher([3] * m, tridiagonal=True, like=S).update(S)
    assert reads(lambda: chain.solve(g, damping=10.0)) <= 3
    root = ff.SquareRootFisher(3 * m, like=S)
    assert reads(lambda: root.update(S)) <= 2
    assert reads(lambda: root.solve(g, damping=0.1)) <= 3
    layers = network.moved(kronecker.draw(n, ((3, m), (2, 3))), device.to_device)
    K = ff.KroneckerFisher([(3, m), (2, 3)], like=S)
    assert reads(lambda: K.update(layers)) <= 4  # one for each factor
    steps = [device.to_device(np.ones(shape)) for shape in K.shapes]
    assert reads(lambda: K.solve(steps, damping=0.1, damping_mode="factored")) <= 12
    assert reads(lambda: K.solve(steps, damping=0.1)) <= 40
    assert reads(lambda: K.solve(steps, damping=0.1)) <= 4  # the basis is kept
    L = ff.LayerFisher(layers)
    assert reads(lambda: L @ steps) <= 2
    assert reads(lambda: L.solve(None, damping=0.1)) <= 6


def test_failures_name_the_place():
    """The messages are NumPy's, to the word: block and pivot, row and column, and what it masks."""
    S = oracle.draw(4, 8)
    spoilt = oracle.draw(30, 8)
    spoilt[7, 5] = np.inf
    rhs = np.ones(8)

    def found(call):
        with pytest.raises(ff.FisherError) as caught:
            call()
        return caught.value

    kinds: tuple[Callable[[Any], Any], ...] = (
        lambda S: ff.BlockDiagonalFisher.from_scores(S, [2, 6]),
        lambda S: ff.BlockDiagonalFisher.from_scores(S, [6, 2], tridiagonal=True),
        lambda S: ff.BlockDiagonalFisher.from_scores(S, [8], center=True),
        ff.SquareRootFisher.from_scores,
        ff.DiagonalFisher.from_scores,
        lambda S: ff.LowRankFisher.from_scores(S, 3),
    )
    for make in kinds:
        ours = found(lambda: make(device.to_device(spoilt)))  # noqa: B023
        theirs = found(lambda: make(spoilt))  # noqa: B023
        assert (str(ours), ours.row, ours.column) == (str(theirs), theirs.row, theirs.column)
        fisher = make(S)
        if isinstance(fisher, ff.DiagonalFisher | ff.LowRankFisher):
            continue
        ours = found(lambda: make(device.to_device(S)).factor())  # noqa: B023
        theirs = found(fisher.factor)
        assert ours.pivot == theirs.pivot
        cut = str(theirs).index("got pivot")
        assert str(ours)[:cut] == str(theirs)[:cut]
        assert ("in block" in str(ours)) == ("in block" in str(theirs))
        assert ("Masking" in str(ours)) == ("Masking" in str(theirs))
        assert ours.damping is not None
    with pytest.raises(TypeError, match=r"rhs: expected a device array.*got numpy"):
        ff.BlockDiagonalFisher.from_scores(device.to_device(spoilt[:5]), [4, 4]).solve(
            rhs, damping=1.0
        )
    layers = kronecker.draw(20, ((2, 3), (2, 2)))
    layers[1][1][4, 1] = np.nan
    moved = network.moved(layers, device.to_device)
    for make in (
        ff.KroneckerFisher.from_layers,
        lambda layers: ff.LayerFisher(layers).diagonal(),
    ):
        assert str(found(lambda: make(moved))) == str(found(lambda: make(layers)))  # noqa: B023


def test_an_error_leaves_sums_as_they_were():
    S, spoilt = oracle.draw(30, 8), oracle.draw(30, 8)
    spoilt[7, 5] = np.nan
    for make in (
        lambda S: ff.BlockDiagonalFisher.from_scores(S, [3, 5], tridiagonal=True),
        ff.SquareRootFisher.from_scores,
        lambda S: ff.LowRankFisher.from_scores(S, 3),
    ):
        fisher = make(device.to_device(S))
        before = host(fisher.to_dense())
        with pytest.raises(ff.NonFiniteError):
            fisher.update(device.to_device(spoilt))
        assert np.array_equal(host(fisher.to_dense()), before)


@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_verbs_of_blocks_and_roots_agree(dtype):
    """Moved to the host and back they are what they were, and the host's verbs say the same."""
    S = oracle.draw(50, 9, dtype)
    sizes = np.array([4, 1, 4], np.intp)
    theirs = for_dtype(numpy_ops, np.dtype(dtype))
    for tridiagonal in (False, True):
        blocks = device.Blocks(sizes, tridiagonal, np.dtype(dtype))
        how = {"centred": False, "fresh": True, "check_finite": True, "threads": 0}
        blocks.add_scores(device.to_device(S), None, **how)
        held = theirs.Blocks(sizes, tridiagonal, np.dtype(dtype))
        held.add_scores(S, None, **how)
        pairs = zip(
            held.diagonal_blocks(1.0) + held.neighbours(1.0),
            blocks.host().diagonal_blocks(1.0) + blocks.host().neighbours(1.0),
            strict=True,
        )
        for one, two in pairs:
            oracle.close(two, one, dtype, 200)
        back = device.Blocks.from_host(blocks.host())
        oracle.close(host(back.numbers), host(blocks.numbers), dtype, 4)
        oracle.close(blocks.dot(blocks), held.dot(held), dtype, 400)
    root, held = device.Root(9, np.dtype(dtype)), theirs.Root(9, np.dtype(dtype))
    root.add_scores(device.to_device(S), None, None, check_finite=True, threads=0)
    held.add_scores(S, None, None, check_finite=True, threads=0)
    oracle.close(host(root.dense()), held.dense(), dtype, 400)
    oracle.close(root.host().dense(), held.dense(), dtype, 400)
    oracle.close(root.host().square().to_dense(1.0), held.square().to_dense(1.0), dtype, 400)
    oracle.close(host(device.Root.from_host(held).dense()), held.dense(), dtype, 4)


def test_chunks_are_summed_in_parts(monkeypatch):
    """However few samples fit, sums of blocks, layers and roots are the same."""
    S, layers = oracle.draw(50, 12), network.draw(20)
    given = device.to_device(S)

    def everything():
        K = ff.KroneckerFisher.from_layers(network.moved(layers, device.to_device), eigen=True)
        L = ff.LayerFisher(network.moved(layers, device.to_device))
        rows = device.to_device(oracle.draw(L.shape[0], 7))
        yield from ff.BlockDiagonalFisher.from_scores(given, [5, 7], tridiagonal=True).blocks()
        yield ff.SquareRootFisher.from_scores(given).root()
        yield from (one for pair in K.factors for one in pair)
        yield K.diagonal()
        yield L.diagonal()
        yield L.gram()
        yield L @ rows
        yield L @ rows[:, :1]

    whole = host(list(everything()))
    monkeypatch.setattr("fastfisher._ops.array_engine.CHUNK_BYTES", 1024)
    monkeypatch.setattr("fastfisher._ops.device_layer.CHUNK_BYTES", 1024)
    monkeypatch.setattr("fastfisher._ops.device_root.CHUNK_BYTES", 1024)
    for one, two in zip(host(list(everything())), whole, strict=True):
        oracle.close(one, two, float, 1000)


@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_a_root_tells_dependent_columns_whose_squares_underflow(dtype):
    """Scores whose F is zero to the last digit still have an R, and its pivots are judged by it."""
    tiny = 1e-170 if np.finfo(dtype).eps < 1e-10 else 1e-30
    S = oracle.draw(12, 5, dtype)
    S[:, 3] = S[:, 1]
    given = device.to_device((S * dtype(tiny)).astype(dtype))
    rhs = device.to_device(np.zeros(5, dtype))
    for F in (ff.ScoreFisher(given), ff.SquareRootFisher.from_scores(given)):
        with pytest.raises(ff.NotPositiveDefiniteError, match="parameter 3"):
            ff.solve(F, rhs, solver=ff.QR())


@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_a_root_refuses_scores_whose_squares_overflow(dtype):
    huge = 1e160 if np.finfo(dtype).eps < 1e-10 else 1e22
    for to in (np.asarray, device.to_device):
        S, rhs = to((oracle.draw(12, 5) * huge).astype(dtype)), to(np.ones(5, dtype))
        with pytest.raises(ff.NonFiniteError, match="got overflow in column 0"):
            ff.SquareRootFisher.from_scores(S, dtype=dtype)
        with pytest.raises(ff.NonFiniteError, match="got overflow in column 0"):
            ff.solve(ff.ScoreFisher(S), rhs, solver=ff.QR())
        found = ff.solve(ff.ScoreFisher(S), rhs, solver=ff.QR(), on_failure="nan")
        assert found.status == ff.Status.NON_FINITE


def test_pivots_whose_squares_overflow_have_a_message_too():
    """Unchecked, one column beside which the others are nothing."""
    S = np.full((12, 2), 1e160)
    for to in (np.asarray, device.to_device):
        root = device.Root if to is device.to_device else numpy_ops.Root
        held = root(2, np.dtype(float))
        held.add_scores(to(S), None, None, check_finite=False, threads=0)
        with pytest.raises(ff.FisherError):
            held.factor(2.0, with_norm=False)  # nothing is twice as large as its own norm


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_pivots_below_the_normal_numbers_keep_their_sign(dtype):
    """|R_jj| has no inverse there, and too few digits for one."""
    least = np.finfo(dtype).smallest_subnormal
    S = np.zeros((2, 2), dtype)
    S[0] = (1 + 1j) * least, 1.0
    root = device.Root(2, np.dtype(dtype))
    root.add_scores(device.to_device(S), None, None, check_finite=True, threads=0)
    R = host(root.dense())
    oracle.close(np.abs(R[:, 1]), [1.0, 0.0], dtype, 10)
    assert np.isrealobj(np.diag(R)) or not np.diag(R).imag.any()


def test_a_root_is_in_one_run_whatever_the_order_of_the_factorisation(monkeypatch):
    triu = device.namespace.triu
    monkeypatch.setattr(
        device.namespace, "triu", lambda R: R._of(np.asfortranarray(device.back(triu(R))))
    )
    root = device.Root(5, np.dtype(complex))
    S = oracle.draw(12, 5, complex)
    root.add_scores(device.to_device(S), None, None, check_finite=True, threads=0)
    R = root.R._wrapped._array
    assert R.flags.c_contiguous
    assert not np.diag(R).imag.any()
    assert np.shares_memory(root.panels._wrapped._array, R)


def test_layers_of_two_libraries_are_refused():
    (a, g), two = kronecker.draw(20, ((3, 4), (2, 3)))
    to = device.to_device
    mixed = r"expected a device array as the others are, got numpy\.ndarray"
    with pytest.raises(TypeError, match=rf"layers\[0\]\.gradients: {mixed}"):
        ff.LayerFisher([(to(a), g)])
    for kind in (ff.LayerFisher, ff.KroneckerFisher.from_layers):
        with pytest.raises(TypeError, match=rf"layers\[1\]: {mixed}"):
            kind([(to(a), to(g)), two])
        with pytest.raises(
            TypeError, match=r"layers\[1\]: expected a NumPy array .* device\.Array"
        ):
            kind([(a, g), tuple(map(to, two))])
        fisher = kind([(to(a), to(g))])
        with pytest.raises(TypeError, match=rf"rhs\[0\]: {mixed}"):
            fisher.solve([np.ones((3, 4))], damping=1.0)
    with device.on("device2"):
        far = to(g)
    with pytest.raises(ValueError, match=r"layers\[0\]\.gradients: .*current device.*device2"):
        ff.LayerFisher([(to(a), far)])


def test_halves_are_summed_in_float32():
    layers = [
        (a.astype(np.float16), g.astype(np.float16))
        for a, g in kronecker.draw(20, ((3, 4), (2, 3)))
    ]
    moved = network.moved(layers, device.to_device)
    S = oracle.draw(30, 6).astype(np.float16)
    for make, given, theirs in (
        (ff.KroneckerFisher.from_layers, moved, layers),
        (ff.LayerFisher, moved, layers),
        (lambda S: ff.BlockDiagonalFisher.from_scores(S, [2, 4]), device.to_device(S), S),
        (ff.SquareRootFisher.from_scores, device.to_device(S), S),
        (lambda S: ff.LowRankFisher.from_scores(S, 3), device.to_device(S), S),
    ):
        fisher = make(given)
        assert fisher.dtype == np.float32
        oracle.close(host(fisher.to_dense()), make(theirs).to_dense(), np.float32, 200)


@pytest.mark.parametrize("home", ["", "device2"])
def test_a_merge_of_two_libraries_or_devices_adds_nothing(home: str) -> None:
    S = oracle.draw(20, 6)
    for make in (
        lambda: ff.DenseFisher(6),
        lambda: ff.DiagonalFisher(6),
        lambda: ff.SquareRootFisher(6),
        lambda: ff.LowRankFisher(6, 2),
        lambda: ff.BlockDiagonalFisher([2, 4]),
    ):
        empty: Any = make()
        here: Any = make().update(device.to_device(S))
        if home == "":
            there: Any = make().update(S)
            error, message = TypeError, "others: expected sums of device arrays, got .* of NumPy"
        else:
            with device.on(home):
                there = make().update(device.to_device(S))
            error, message = ValueError, "expected the current device to be .*device2.*device1"
        with pytest.raises(error, match=message):
            empty.merge(here, there)
        assert empty.n_samples == 0
        assert empty.merge(here).n_samples == 20  # it still is of any library


def test_out_that_overlaps_itself_is_refused() -> None:
    scores = device.to_device(oracle.draw(9, 4))
    for strides in ((0, 8), (8, 8), (16, 8)):
        out = scores._of(np.lib.stride_tricks.as_strided(np.zeros(20), (4, 4), strides))
        with pytest.raises(ValueError, match="out: expected a place for each number, got an array"):
            ff.empirical_fisher(scores, out=out)
    out = scores._of(np.zeros((4, 8))[:, ::2])  # strided, and each number has its place
    assert ff.empirical_fisher(scores, out=out) is out


def test_a_factor_on_a_device_says_what_to_send_instead() -> None:
    factor = ff.DenseFisher.from_scores(device.to_device(oracle.draw(9, 4))).factor(damping=1.0)
    for way in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"expected arrays of the host .* device's\. Save"):
            way(factor)
    v = device.to_device(np.ones(4))
    assert np.array_equal(host(copy.copy(factor).solve(v)), host(factor.solve(v)))
