"""C4: on real tasks EWC keeps the old and learns the new better than no penalty and plain L2."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ewc_digits
import fastfisher as ff

PNG = b"\x89PNG\r\n\x1a\n"
# Two standard deviations of the difference of two accuracies near 0.9 on the 797 digits of one
# task, were they independent: √(2 · 0.9 · 0.1 / 797) · 2. Runs from one start differ by less.
NOTICEABLE = 0.03


@pytest.fixture(scope="module")
def two() -> list[tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    return ewc_digits.tasks(2)


@pytest.fixture(scope="module")
def runs(
    two: Any,
) -> dict[str, list[tuple[float, Any]]]:
    return ewc_digits.second_tasks(two, ewc_digits.STEPS)


@pytest.fixture(scope="module")
def ends(
    runs: dict[str, Any],
    two: Any,
) -> dict[str, np.ndarray]:
    """Return the accuracies on both tasks of each run, (strengths, 2)."""
    return {
        kind: np.array([ewc_digits.accuracies(path[-1], two) for _, path in several])
        for kind, several in runs.items()
    }


def test_c4_the_second_task_makes_the_network_forget(
    runs: dict[str, Any],
    ends: dict[str, np.ndarray],
    two: Any,
) -> None:
    start = ewc_digits.accuracies(runs["no penalty"][0][1][0], two)
    (after,) = ends["no penalty"]
    assert start[0] > 0.95
    assert after[0] < start[0] - 5 * NOTICEABLE
    assert after[1] > 0.9 > 0.3 > start[1]


def test_c4_ewc_is_better_on_both_tasks_together(ends: dict[str, np.ndarray]) -> None:
    means = {kind: several.mean(axis=1) for kind, several in ends.items()}
    for kind in ("L2", "EWC"):  # the grids are fair: neither is best at an end of its own
        assert 0 < means[kind].argmax() < len(means[kind]) - 1
    assert means["EWC"].max() > means["L2"].max() + NOTICEABLE / 2
    assert means["L2"].max() > means["no penalty"].max() + NOTICEABLE


def test_c4_ewc_keeps_the_first_task(ends: dict[str, np.ndarray]) -> None:
    kept = {kind: several[several.sum(axis=1).argmax()][0] for kind, several in ends.items()}
    assert kept["EWC"] > kept["L2"] + 1.5 * NOTICEABLE
    assert kept["L2"] > kept["no penalty"] + NOTICEABLE


def test_c4_whatever_l2_reaches_ewc_keeps_more_or_learns_more(ends: dict[str, np.ndarray]) -> None:
    """Accuracy on B that is left at A kept as well: EWC's frontier lies outside that of L2."""
    for kept, learned in ends["L2"]:
        as_kept = ends["EWC"][ends["EWC"][:, 0] >= kept]
        assert len(as_kept)
        assert as_kept[:, 1].max() > learned - NOTICEABLE / 3


def test_c4_the_objective_is_that_of_the_text(
    two: Any,
) -> None:
    """The slope of L_B(θ) + ½ α Σ F_ii (θ_i − θ*_A,i)², by differences of the sum written out."""
    (first, _), (second, _) = two
    network, rng = ewc_digits.NETWORK, np.random.default_rng(0)
    anchor = network.initial(rng)
    theta = anchor + 0.1 * rng.standard_normal(network.n_params)
    F = ewc_digits.diagonal(anchor, first[0][:100]).diagonal()
    ewc = ff.ElasticWeightConsolidation(20.0).consolidate(anchor, F)

    def objective(at: np.ndarray) -> float:
        return float(network.evaluate(at, *second)[0] + 0.5 * 20.0 * (F * (at - anchor) ** 2).sum())

    gradient = ewc.penalty(theta)[1] - network.mean_score(theta, *second)
    d = rng.standard_normal(network.n_params)
    h = 1e-4 / np.linalg.norm(d)  # the error is h² of the third derivative
    slope = (objective(theta + h * d) - objective(theta - h * d)) / (2 * h)
    assert gradient @ d == pytest.approx(slope, rel=1e-6)


@pytest.mark.slow
def test_c4_three_tasks_in_a_row() -> None:
    """Mean accuracies: online EWC > online L2 > nothing, separate EWC > nothing."""
    several, steps = ewc_digits.tasks(3), ewc_digits.STEPS

    def best(kind: Any, strengths: Any, mode: str) -> Any:
        return max(
            np.mean(ewc_digits.sequence(several, kind, strength, steps, mode=mode))
            for strength in strengths
        )

    nothing = best("L2", [0.0], "online")
    plain = best("L2", ewc_digits.STRENGTHS["L2"][2:4], "online")
    separate = best("EWC", ewc_digits.STRENGTHS["EWC"][1:3], "separate")
    online = best("EWC", ewc_digits.STRENGTHS["EWC"][1:3], "online")
    assert plain > nothing + NOTICEABLE
    assert separate > nothing + 3 * NOTICEABLE
    assert online > plain + NOTICEABLE


def test_c4_the_square_of_the_mean_gradient_is_not_the_diagonal(
    runs: dict[str, Any],
    two: Any,
) -> None:
    """At a solution the mean gradient is about 0, however much the task depends on θ."""
    (x, y), _ = two[0]
    solution = runs["no penalty"][0][1][0]
    empirical = ff.fisher_diagonal(ewc_digits.NETWORK.scores(solution, x, y))
    mean = ewc_digits.NETWORK.mean_score(solution, x, y)
    assert (mean**2).sum() < 0.01 * empirical.sum()
    for batch in (1, 10, 50):
        # E[ḡ²] = F / batch + (1 − 1 / batch) (E g)²: off by the size of the batch.
        squares = ewc_digits.squares(solution, x, y, batch)
        assert squares.sum() == pytest.approx(empirical.sum() / batch, rel=0.2)


@pytest.mark.parametrize("mode", ["separate", "online"])
def test_c4_of_linear_models_the_whole_fisher_in_online_mode_forgets_nothing(mode: str) -> None:
    """Three regressions one after the other, and all data at once: Bayes' rule, for sums.

    Separate mode agrees for two tasks and counts the first one twice from the third on.
    """
    rng = np.random.default_rng(0)
    ewc = ff.ElasticWeightConsolidation(1.0, mode=mode)
    rows, values = [], []
    for task in range(3):
        X, y = rng.standard_normal((20, 5)), rng.standard_normal(20)
        rows.append(X)
        values.append(y)
        curvature = ff.DenseFisher.from_scores(X, reduction="sum")  # of ½ ‖y − Xθ‖²
        # The minimum of loss and penalty, a quadratic: one Newton step from 0.
        _, slope = ewc.penalty(np.zeros(5))
        held = np.column_stack([ewc.penalty(e)[1] - slope for e in np.eye(5)])
        theta = np.linalg.solve(X.T @ X + held, X.T @ y - slope)
        together = np.linalg.lstsq(np.vstack(rows), np.concatenate(values))[0]
        if mode == "online" or task < 2:
            np.testing.assert_allclose(theta, together, rtol=0, atol=1e-13)
        else:
            assert np.abs(theta - together).max() > 0.01
        ewc.consolidate(theta, curvature)


def test_c4_the_example_runs_to_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "ewc.png"
    ewc_digits.main(
        str(picture),
        steps=10,
        strengths={"L2": np.array([0.01]), "EWC": np.array([30.0])},
        count=2,
        grid=3,
    )
    assert picture.read_bytes().startswith(PNG)
    table = capsys.readouterr().out
    for name in ("no penalty", "L2, online", "EWC, separate", "EWC, online"):
        assert f"\n{name} " in table
