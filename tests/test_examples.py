"""The examples: their derivatives are right, their methods learn, and they run to a picture."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import fastfisher as ff
import networks
import train_autoencoder
import train_convnet
import training
from networks import Bernoulli, Categorical, Conv, Dense, Network
from training import EKFAC, KFAC, METHODS, Exact, ExactEmpirical, best_step

PNG = b"\x89PNG\r\n\x1a\n"


def autoencoder(rng: np.random.Generator) -> tuple[networks.Network, np.ndarray, np.ndarray]:
    x = rng.random((7, 6))
    return Network([Dense(6, 5), Dense(5, 3), Dense(3, 6)], Bernoulli()), x, x


def convnet(rng: np.random.Generator) -> tuple[networks.Network, np.ndarray, np.ndarray]:
    network = Network([Conv(2, 3, stride=2), Conv(3, 4), Dense(4 * 3 * 3, 4)], Categorical())
    return network, rng.standard_normal((7, 2, 5, 6)), np.eye(4)[rng.integers(0, 4, 7)]


@pytest.fixture(params=[autoencoder, convnet])
def problem(
    request: pytest.FixtureRequest,
) -> tuple[networks.Network, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    network, x, y = request.param(rng)
    return network, network.initial(rng), x, y


def test_convolution_is_the_sum_over_its_window() -> None:
    rng = np.random.default_rng(1)
    layer, x = Conv(2, 3, stride=2), rng.standard_normal((4, 2, 5, 6))
    W = rng.standard_normal(layer.shape)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    kernels = W[:, :-1].reshape(3, 2, 3, 3)
    expected = np.empty((4, 3, 3, 3))
    for i, j in np.ndindex(3, 3):
        window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        expected[:, :, i, j] = np.einsum("nchw,ochw->no", window, kernels) + W[:, -1]
    np.testing.assert_allclose(layer.forward(W, x), expected, rtol=0, atol=1e-13)


def test_mean_score_is_the_derivative_of_the_loss(
    problem: tuple[networks.Network, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    network, theta, x, y = problem
    h = 1e-5  # the error of a central difference is h²/6 of the third derivative, and ε/h
    numerical = [
        (network.evaluate(theta - h * e, x, y)[0] - network.evaluate(theta + h * e, x, y)[0])
        / (2 * h)
        for e in np.eye(network.n_params)
    ]
    np.testing.assert_allclose(network.mean_score(theta, x, y), numerical, rtol=0, atol=1e-8)


def per_sample(
    network: networks.Network, theta: np.ndarray, x: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    return np.array(
        [network.mean_score(theta, x[i : i + 1], targets[i : i + 1]) for i in range(len(x))]
    )


def layers(
    network: networks.Network, theta: np.ndarray, x: np.ndarray, y: np.ndarray
) -> list[ff.Conv2dLayer | ff.LinearLayer]:
    inputs, z = network.forward(theta, x)
    return network.scores(inputs, network.backward(theta, inputs, y - network.likelihood.mean(z)))


def test_layers_hold_the_gradients_of_each_sample(
    problem: tuple[networks.Network, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    network, theta, x, y = problem
    S = per_sample(network, theta, x, y)
    L = ff.LayerFisher(layers(network, theta, x, y))
    np.testing.assert_allclose(L.to_dense(), S.T @ S / len(S), rtol=0, atol=1e-13)


def test_factors_are_those_of_the_layers(
    problem: tuple[networks.Network, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    network, theta, x, y = problem
    found = layers(network, theta, x, y)
    K = ff.KroneckerFisher(network.shapes).update(found)
    inputs = network.forward(theta, x)[0][-1].reshape(len(x), -1)
    a = np.column_stack([inputs, np.ones(len(x))])
    A, G = K.factors[-1]
    np.testing.assert_allclose(A, a.T @ a / len(x), rtol=0, atol=1e-13)
    g = found[-1].gradients
    np.testing.assert_allclose(G, g.T @ g / len(x), rtol=0, atol=1e-13)


def test_tangent_is_the_derivative_of_the_outputs(
    problem: tuple[networks.Network, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    network, theta, x, _ = problem
    v, h = np.random.default_rng(2).standard_normal(network.n_params), 1e-5
    inputs, _ = network.forward(theta, x)
    ahead, behind = (network.forward(theta + s * v, x)[1] for s in (h, -h))
    np.testing.assert_allclose(
        network.tangent(theta, inputs, v), (ahead - behind) / (2 * h), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("likelihood", [Bernoulli(), Categorical()])
def test_drawn_labels_have_the_mean_and_the_fisher_of_the_likelihood(
    likelihood: networks.Bernoulli | networks.Categorical,
) -> None:
    rng = np.random.default_rng(3)
    z, v = rng.standard_normal(4), rng.standard_normal(4)
    draws = likelihood.draw(np.tile(z, (100_000, 1)), rng)
    mean = likelihood.mean(z[None])[0]
    residual = draws - mean
    # Five standard errors of averages of numbers below 1, and below 4 |v|² for the second moment.
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5 / np.sqrt(len(draws)))
    along = residual * (residual @ v)[:, None]
    error = 5 * along.std(axis=0).max() / np.sqrt(len(draws))
    np.testing.assert_allclose(along.mean(axis=0), likelihood.fisher(z[None], v)[0], atol=error)


def test_best_step_solves_the_whole_system_when_it_spans_it(
    problem: tuple[networks.Network, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    network, theta, x, y = problem
    rng = np.random.default_rng(4)
    inputs, z = network.forward(theta, x)
    ascent = network.mean_score(theta, x, y)
    J = np.array([network.tangent(theta, inputs, e) for e in np.eye(network.n_params)])
    FJ = np.array([network.likelihood.fisher(z, t) for t in J])
    F = np.einsum("pnk,qnk->pq", J, FJ) / len(x)
    along = np.linalg.solve(F + 0.1 * np.eye(len(F)), ascent)
    other = rng.standard_normal(len(F))
    step, gain = best_step(network, theta, inputs, z, ascent, (3 * along, other), 0.1)
    np.testing.assert_allclose(step, along, rtol=0, atol=1e-11 * np.abs(along).max())
    np.testing.assert_allclose(gain, ascent @ along - 0.5 * along @ F @ along, rtol=1e-10)


@pytest.mark.parametrize("method", [KFAC, EKFAC, Exact, ExactEmpirical])
def test_each_method_learns_and_is_the_same_each_time(
    problem: tuple[networks.Network, np.ndarray, np.ndarray, np.ndarray],
    method: type[training.KFAC],
) -> None:
    network, theta, x, y = problem

    def end() -> np.ndarray:
        iterates = method(0.1, len(x)).iterates(network, theta, (x, y), np.random.default_rng(0))
        for _ in range(12):  # two looks at λ, two eigenbases
            last = next(iterates)
        return last

    assert network.evaluate(end(), x, y)[0] < 0.8 * network.evaluate(theta, x, y)[0]
    assert np.array_equal(end(), end())


@pytest.mark.parametrize("example", [train_autoencoder, train_convnet])
def test_example_prints_its_table_and_saves_its_picture(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    runs = example.main(picture, steps=3)
    printed = capsys.readouterr().out
    for run in runs:
        assert re.search(rf"^{run.name} ", printed, re.MULTILINE)
        assert len(run.losses) == 4
        assert run.losses[-1] < run.losses[0]
    assert [run.name for run in runs] == list(METHODS)
    assert picture.read_bytes().startswith(PNG)
