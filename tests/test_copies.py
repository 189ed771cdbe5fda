"""Copies and pickles: every public object goes to another process and answers there as here."""

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import kronecker
import oracle
import representations

S, Y = oracle.draw(30, 4), oracle.draw(30, 1)[:, 0]
POINT = np.arange(1.0, 5.0)
LAYERS = kronecker.draw(12, ((3, 4), (2, 3)))
WAYS: list[Callable[[Any], Any]] = [lambda x: pickle.loads(pickle.dumps(x)), copy.copy,
                                    copy.deepcopy]  # fmt: skip


def objects() -> Iterator[tuple[str, Any, Callable[[Any], Any]]]:
    """Yield (name, object, what it answers)."""
    F = ff.DenseFisher.from_scores(S)
    for solver in (
        ff.CG(),
        ff.CG(preconditioner=ff.BlockJacobi(2)),
        ff.CG(preconditioner=ff.Nystrom(2)),
        ff.Cholesky("mixed"),
        ff.Dual(),
        ff.Eigh(),
        ff.QR(),
    ):
        held = ff.ScoreFisher(S)
        yield (
            repr(solver),
            solver,
            lambda one, F=held: F.solve(POINT, damping=1.0, solver=one),
        )
    batch = ff.batch.Scores(S[None])
    yield (
        "batch.Scores",
        batch,
        lambda x: ff.batch.solve(x, POINT[None], precision="extended").value,
    )
    for result in (
        ff.solve(F, POINT),
        ff.batch.solve(F.to_dense()[None], POINT[None]),
        F.solve_path(POINT, [1.0, 2.0]),
        ff.trust_region_step(F, POINT, 0.1),
    ):
        yield type(result).__name__, result, lambda result: result.value
    fit = ff.levenberg_marquardt(lambda theta: S @ theta - Y, POINT)
    yield "LeastSquaresResult", fit, lambda fit: (fit.theta, fit.covariance(), fit.history[-1].loss)
    descent = ff.natural_gradient_descent(
        lambda theta: (0.5 * float(theta @ F.to_dense() @ theta), F @ theta, F), POINT
    )
    yield "DescentResult", descent, lambda result: (result.theta, result.history[-1].loss)
    adam = ff.Adam()
    yield "Adam", adam, lambda adam: adam.step(adam.start(POINT), POINT).theta
    yield "AdamState", adam.start(POINT), lambda state: adam.step(state, POINT).theta
    for kind in (ff.SNES, ff.XNES):
        search = kind(POINT, 1.0, rng=0)
        search.ask()
        yield kind.__name__, search, lambda search: (search.ask(), search.mean, search.covariance())
        found = search.minimize(lambda theta: float(theta @ theta), max_evaluations=60)
        yield type(found).__name__, found, lambda found: (found.theta, found.loss)
    yield "Spring", stepped(ff.Spring(0.1)), lambda spring: spring.direction
    memory = ff.ElasticWeightConsolidation(2.0).consolidate(POINT, F)
    yield "ElasticWeightConsolidation", memory, lambda memory: memory.penalty(0 * POINT)
    for family in (
        ff.Gaussian(1.0, 2.0),
        ff.MultivariateGaussian(np.zeros(4), np.eye(4)),
        ff.Poisson(2.0),
        ff.Exponential(2.0),
        ff.Binomial(3, 0.5),
        ff.Bernoulli(0.5),
        ff.Categorical([1.0, 2.0]),
    ):
        yield type(family).__name__, family, lambda f: (f.parameters, f.sample(3, rng=0))
    for layer in (
        ff.LinearLayer(*LAYERS[0]),
        ff.Conv2dLayer(np.ones((2, 3, 5, 5)), np.ones((2, 4, 3, 3)), 3),
    ):
        yield type(layer).__name__, layer, lambda layer: (layer.inputs, layer.gradients)
    chunks = ff.chunks(S, Y**2, rows=7)
    yield "chunks", chunks, lambda chunks: ff.DenseFisher(4).update_from(chunks).to_dense()
    test = ff.wald_test(POINT, F)
    yield "ChiSquaredTest", test, lambda test: (test.statistic, test.p_value)
    for error in (
        ff.NotPositiveDefiniteError("fisher: …", pivot=3, value=1.0).with_damping(0.5),
        ff.NonFiniteError("scores: …", row=3, column=1),
    ):
        yield type(error).__name__, error, lambda error: (str(error), sorted(vars(error).items()))


def stepped(spring: ff.Spring) -> ff.Spring:
    spring.step(S, Y)
    return spring


def factors(dtype: Any) -> Iterator[tuple[str, Any, Callable[[Any], Any]]]:
    """Yield the same of every representation, its operator and its factors."""
    for name, fisher, F, _ in representations.cases(dtype):
        v = np.linspace(1.0, 2.0, len(F)).astype(dtype)
        yield name, fisher, lambda one, v=v: (one @ v, one.diagonal(), one.solve(v, damping=0.5))
        for damping in (0.5, 0.5 * np.ones(len(F))):
            factor = fisher.factor(damping=damping)
            yield (
                f"{name} {type(factor).__name__}",
                factor,
                lambda one, v=v: (one.solve(v), one.logdet, one.rcond, one.sample(0)),
            )
    stack = ff.BlockDiagonalFisher.from_scores(np.tile(S, 20).astype(dtype), [2] * 40)
    yield "stack", stack.factor(damping=1.0), lambda one: (one.inverse(), one.solve(np.ones(80)))


@pytest.mark.parametrize("which", ["objects", np.float64, np.complex64], ids=str)
def test_a_copy_answers_as_the_object_does(which: Any) -> None:
    for name, one, asked in objects() if which == "objects" else factors(which):
        copies = [way(one) for way in WAYS]
        expected = asked(one)
        for again in copies:
            assert type(again) is type(one), name
            np.testing.assert_equal(asked(again), expected, err_msg=name)


@pytest.mark.parametrize("way", WAYS, ids=["pickle", "copy", "deepcopy"])
def test_what_is_made_of_a_fisher_of_layers_is_too(way: Callable[[Any], Any]) -> None:
    for fisher in (ff.LayerFisher(LAYERS), ff.KroneckerFisher.from_layers(LAYERS)):
        weights = [np.ones(shape) for shape in fisher.shapes]
        factor = fisher.factor(damping=0.1)
        for ours, expected in zip(way(factor).solve(weights), factor.solve(weights), strict=True):
            assert np.array_equal(ours, expected)
    exact = ff.LayerFisher(LAYERS)
    expected = exact.influence(0, 1, damping=0.1)  # which keeps a factor
    assert way(exact).influence(0, 1, damping=0.1) == expected


def test_an_operator_can_be_sent() -> None:
    pytest.importorskip("scipy")
    operator = ff.DenseFisher.from_scores(S).as_linear_operator()
    assert np.array_equal(pickle.loads(pickle.dumps(operator)) @ POINT, operator @ POINT)
