"""The demo: its derivatives are right, it is the same each time, and it runs to its picture."""

import re
from pathlib import Path

import numpy as np
import pytest

from fastfisher.__main__ import main
from fastfisher.demo import contests, run
from fastfisher.demo.models import Network
from fastfisher.demo.training import Entrant, ExactNaturalGradient, tune_and_run

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def problem() -> tuple[Network, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    network = Network(6, 5, 4)
    return network, network.initial(rng), rng.standard_normal((7, 6)), rng.integers(0, 4, 7)


def test_mean_score_is_the_derivative_of_the_loss(
    problem: tuple[Network, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    network, theta, x, y = problem
    h = 1e-6
    numerical = [
        (network.evaluate(theta - h * e, x, y)[0] - network.evaluate(theta + h * e, x, y)[0])
        / (2 * h)
        for e in np.eye(network.n_params)
    ]
    np.testing.assert_allclose(network.mean_score(theta, x, y), numerical, rtol=0, atol=1e-8)


def test_scores_average_to_the_mean_score(
    problem: tuple[Network, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    network, theta, x, y = problem
    scores = network.scores(theta, x, y)
    assert scores.shape == (len(x), network.n_params)
    np.testing.assert_allclose(
        scores.mean(axis=0), network.mean_score(theta, x, y), rtol=0, atol=1e-15
    )


def test_scores_of_all_classes_cancel_under_the_model(
    problem: tuple[Network, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    network, theta, x, _ = problem
    rows, weights = network.class_scores(theta, x)
    expected = (weights[:, None] * rows).reshape(len(x), network.n_classes, -1).sum(axis=1)
    np.testing.assert_allclose(expected, 0, atol=1e-15)


def test_training_is_the_same_each_time() -> None:
    contest = contests.digits_contests(0, quick=True)[0]
    entrant = Entrant("exact", [ExactNaturalGradient(1.0, 1e-2)], 3)
    one, two = (tune_and_run(contest, entrant, lambda: None, 0) for _ in range(2))
    assert one.losses == two.losses
    assert one.losses[-1] < 0.5 * one.losses[0]


@pytest.mark.slow
def test_quick_demo_prints_two_tables_and_saves_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "demo.png"
    main(["demo", "--quick", "--output", str(picture)])
    printed = capsys.readouterr().out
    for name in (
        "Gradient descent",
        "Adam",
        "Natural gradient, empirical",
        "Natural gradient, exact",
    ):
        assert len(re.findall(rf"^{name} ", printed, re.MULTILINE)) == 2
    for name in ("empirical_fisher", "fisher_diagonal", "fvp", "gram", "natural_gradient", "solve"):
        assert re.search(rf"^{name} .*×", printed, re.MULTILINE)
    assert "Roofs:" in printed
    assert picture.read_bytes().startswith(PNG)


def test_missing_packages_are_named_with_the_command_that_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastfisher.demo.find_spec", lambda name: None if name == "tqdm" else name)
    with pytest.raises(SystemExit, match=r'got no tqdm.*pip install "fastfisher\[demo\]"'):
        run()


def test_a_folder_that_is_not_there_is_named_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="output: expected a file in an existing folder"):
        run(output=tmp_path / "nowhere" / "demo.png")


def test_config_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config"])
    assert "threads" in capsys.readouterr().out
