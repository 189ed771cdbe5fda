"""Elastic weight consolidation: value and gradient, tasks in both modes, and what it refuses."""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle
import representations

CASES: dict[str, Any] = {name: rest for name, *rest in representations.cases()}
COMPLEX: dict[str, Any] = {name: rest for name, *rest in representations.cases(np.complex128)}


def drawn(p: int, *seed: Any, tasks: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return diagonals and anchors of some tasks, and a θ."""
    rng = oracle.rng(p, *seed)
    return rng.exponential(size=(tasks, p)), rng.standard_normal((tasks, p)), rng.standard_normal(p)


def quadratic(matrix: np.ndarray, d: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
    return 0.5 * strength * (d.conj() @ matrix @ d).real, strength * matrix @ d


def same(
    actual: tuple[float, np.ndarray],
    expected: tuple[float, np.ndarray],
    dtype: type[np.floating] = np.float64,
    terms: int = 1000,
) -> None:
    """Compare (value, gradient), each a sum of so many products of numbers of about one size."""
    (value, gradient), (true_value, true_gradient) = actual, expected
    assert isinstance(value, float)
    oracle.close(value, true_value, dtype, terms)
    oracle.close(gradient, true_gradient, dtype, terms)


# ---- the penalty ----
@pytest.mark.parametrize("p", oracle.SIZES)
def test_the_penalty_is_its_formula(p: int) -> None:
    (F, *_), (anchor, *_), theta = drawn(p)
    d = theta - anchor
    expected = 0.5 * 3.0 * (F * d**2).sum(), 3.0 * F * d
    same(ff.ewc_penalty(F, theta, anchor, 3.0), expected, terms=p)
    same(ff.ewc_penalty(np.diag(F), theta, anchor, 3.0), expected, terms=p)
    assert ff.ewc_penalty(F, anchor, anchor, 3.0)[0] == 0.0
    assert ff.ewc_penalty(F, theta, anchor, 0.0)[0] == 0.0


@pytest.mark.parametrize("name", [*CASES, *(f"complex-{name}" for name in COMPLEX)])
def test_any_representation_gives_its_quadratic_form(name: str) -> None:
    F, matrix, _ = CASES[name] if name in CASES else COMPLEX[name.removeprefix("complex-")]
    theta, anchor = oracle.draw(len(matrix), 2, matrix.dtype).T
    expected = quadratic(matrix, theta - anchor, 0.7)
    same(ff.ewc_penalty(F, theta, anchor, 0.7), expected)
    ewc = ff.ElasticWeightConsolidation(0.7).consolidate(anchor, F)
    same(ewc.penalty(theta), expected)


@pytest.mark.parametrize("name", ["dense-60x13-plain-mean", "diagonal-60x13-plain-mean"])
def test_the_gradient_is_the_slope_of_the_value(name: str) -> None:
    F, matrix, _ = CASES[name]
    p = len(matrix)
    theta, anchor = oracle.draw(p, 2).T
    _, gradient = ff.ewc_penalty(F, theta, anchor, 2.0)
    # Of a quadratic a central difference of any step is exact to rounding.
    slopes = [
        (
            ff.ewc_penalty(F, theta + e, anchor, 2.0)[0]
            - ff.ewc_penalty(F, theta - e, anchor, 2.0)[0]
        )
        / 2
        for e in np.eye(p)
    ]
    oracle.close(gradient, slopes, np.float64, 1000)


def test_of_complex_parameters_the_gradient_is_the_slope_along_both_parts() -> None:
    F = COMPLEX["dense-60x13-plain-mean"][0]
    theta, anchor = oracle.draw(13, 2, np.complex128).T
    _, gradient = ff.ewc_penalty(F, theta, anchor, 2.0)
    for unit, part in ((1.0, gradient.real), (1j, gradient.imag)):
        slopes = [
            (
                ff.ewc_penalty(F, theta + unit * e, anchor, 2.0)[0]
                - ff.ewc_penalty(F, theta - unit * e, anchor, 2.0)[0]
            )
            / 2
            for e in np.eye(13)
        ]
        oracle.close(part, slopes, np.float64, 1000)


def test_a_diagonal_comes_from_the_scores_of_each_sample() -> None:
    S, (anchor, theta) = oracle.draw(40, 7), oracle.draw(7, 2).T
    squares = (S**2).mean(axis=0)
    expected = 0.5 * (squares * (theta - anchor) ** 2).sum(), squares * (theta - anchor)
    for F in (ff.fisher_diagonal(S), ff.DiagonalFisher.from_scores(S)):
        same(ff.ewc_penalty(F, theta, anchor, 1.0), expected)


def test_float32_fishers_lose_no_digits_of_a_small_step() -> None:
    """θ − anchor is taken in double precision: their difference is 1e-9 of either here."""
    (F, *_), (anchor, *_), step = drawn(9)
    F = F.astype(np.float32)
    theta = 1.0 + anchor + 1e-9 * step
    _, gradient = ff.ewc_penalty(F, theta, 1.0 + anchor, 1.0)
    assert gradient.dtype == np.float32
    oracle.close(gradient, F * (theta - (1.0 + anchor)), np.float32, 4)


# ---- tasks ----
def test_separate_mode_adds_up_the_tasks_in_any_order() -> None:
    F, anchors, theta = drawn(11)
    terms = [quadratic(np.diag(f), theta - a, 2.0) for f, a in zip(F, anchors, strict=True)]
    expected: Any = (sum(value for value, _ in terms), sum(gradient for _, gradient in terms))
    for order in ([0, 1, 2], [2, 0, 1]):
        ewc = ff.ElasticWeightConsolidation(2.0)
        for task, k in enumerate(order):
            assert ewc.consolidate(anchors[k], F[k]) is ewc
            assert ewc.n_tasks == task + 1
        same(ewc.penalty(theta), expected)


@pytest.mark.parametrize("decay", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("kind", ["diagonal", "matrix", "both"])
def test_online_mode_keeps_a_share_of_the_old_and_the_last_anchor(decay: float, kind: str) -> None:
    F, anchors, theta = drawn(11)
    ewc = ff.ElasticWeightConsolidation(2.0, mode="online", decay=decay)
    running = np.zeros(11)
    for task, (f, anchor) in enumerate(zip(F, anchors, strict=True)):
        running = decay * running + f
        whole = kind == "matrix" or (kind == "both" and task == 1)
        ewc.consolidate(anchor, np.diag(f) if whole else f)
        same(ewc.penalty(theta), quadratic(np.diag(running), theta - anchor, 2.0))


def test_online_mode_depends_on_the_order() -> None:
    F, anchors, theta = drawn(5)
    values = []
    for order in ([0, 1], [1, 0]):
        ewc = ff.ElasticWeightConsolidation(1.0, mode="online", decay=0.5)
        for k in order:
            ewc.consolidate(anchors[k], F[k])
        values.append(ewc.penalty(theta)[0])
    assert values[0] != pytest.approx(values[1], rel=0.01)


def test_online_decay_is_that_of_the_fishers() -> None:
    """Sums decay and merge to the same running Fisher."""
    first, second = oracle.draw(30, 6), oracle.draw(20, 6)
    anchors, theta = oracle.draw(2, 6), oracle.draw(1, 6)[0]
    ewc = ff.ElasticWeightConsolidation(1.0, mode="online", decay=0.25)
    for scores, anchor in ((first, anchors[0]), (second, anchors[1])):
        ewc.consolidate(anchor, ff.DenseFisher.from_scores(scores, reduction="sum"))
    running = ff.DenseFisher.from_scores(first, reduction="sum").decay(0.25).update(second)
    same(ewc.penalty(theta), ff.ewc_penalty(running, theta, anchors[1], 1.0))


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_online_mode_takes_complex_diagonals(decay: float) -> None:
    S = oracle.draw(20, 5, np.complex128)
    F, (first, second, theta) = ff.DiagonalFisher.from_scores(S), oracle.draw(3, 5, np.complex128)
    ewc = ff.ElasticWeightConsolidation(1.0, mode="online", decay=decay)
    ewc.consolidate(first, F).consolidate(second, F)
    matrix = (1 + decay) * np.diag((np.abs(S) ** 2).mean(axis=0))
    same(ewc.penalty(theta), quadratic(matrix, theta - second, 1.0))


@pytest.mark.parametrize("name", CASES)
def test_two_tasks_of_any_representation(name: str) -> None:
    F, matrix, _ = CASES[name]
    p = len(matrix)
    (diagonal, *_), (first, second, _), theta = drawn(p)
    a, b = (quadratic(matrix, theta - one, 0.5) for one in (first, second))
    c = quadratic(np.diag(diagonal), theta - second, 0.5)
    separate = (
        ff.ElasticWeightConsolidation(0.5).consolidate(first, F).consolidate(second, diagonal)
    )
    same(separate.penalty(theta), (a[0] + c[0], a[1] + c[1]))
    online = ff.ElasticWeightConsolidation(0.5, mode="online", decay=0.9)
    online.consolidate(first, F).consolidate(second, diagonal)
    same(online.penalty(theta), (0.9 * b[0] + c[0], 0.9 * b[1] + c[1]))


def test_online_mode_holds_one_diagonal_however_many_tasks() -> None:
    F, anchors, _ = drawn(100, tasks=1)
    ewc = ff.ElasticWeightConsolidation(1.0, mode="online", decay=0.9)
    ewc.consolidate(anchors[0], F[0])
    size = len(pickle.dumps(ewc))
    for _ in range(20):
        ewc.consolidate(anchors[0], F[0])
    assert len(pickle.dumps(ewc)) < 1.1 * size


def test_online_mode_takes_any_mixture_of_matrices_and_diagonals() -> None:
    F, anchors, theta = drawn(7, tasks=5)
    ewc = ff.ElasticWeightConsolidation(2.0, mode="online", decay=0.7)
    running = np.zeros((7, 7))
    for k, (f, anchor) in enumerate(zip(F, anchors, strict=True)):
        matrix = np.diag(f) if k % 2 else np.diag(f) + np.outer(f, f)
        running = 0.7 * running + matrix
        ewc.consolidate(anchor, f if k % 2 else matrix)
        same(ewc.penalty(theta), quadratic(running, theta - anchor, 2.0))


def test_what_has_faded_to_nothing_is_not_kept() -> None:
    matrix = 1e300 * np.eye(2)
    ewc = ff.ElasticWeightConsolidation(1.0, mode="online", decay=1e-200)
    for _ in range(9):
        ewc.consolidate(np.zeros(2), matrix)
    assert len(ewc._terms) == 2


def test_layers_take_lists_of_weights() -> None:
    K, matrix, _ = CASES["kfac-60-mean"]
    (_, *_), (anchor, second, _), theta = drawn(len(matrix))
    ends = np.cumsum([rows * columns for rows, columns in K.shapes])[:-1]

    def layered(flat: np.ndarray) -> list[np.ndarray]:
        return [w.reshape(s) for w, s in zip(np.split(flat, ends), K.shapes, strict=True)]

    def flat(answer: tuple[float, Sequence[np.ndarray]]) -> tuple[float, np.ndarray]:
        assert [w.shape for w in answer[1]] == K.shapes
        return answer[0], np.concatenate([w.ravel() for w in answer[1]])

    W, Z = layered(theta), layered(anchor)
    expected = ff.ewc_penalty(K, theta, anchor, 2.0)
    same(flat(ff.ewc_penalty(K, W, Z, 2.0)), expected)
    same(flat(ff.ewc_penalty(K, W, anchor, 2.0)), expected)
    for mode in ("separate", "online"):
        ewc, plain = (ff.ElasticWeightConsolidation(2.0, mode=mode) for _ in range(2))
        same(flat(ewc.penalty(W)), (0.0, np.zeros(len(theta))))
        ewc.consolidate(Z, K).consolidate(second, K.diagonal())
        plain.consolidate(anchor, matrix).consolidate(second, K.diagonal())
        same(flat(ewc.penalty(W)), plain.penalty(theta))


def test_before_the_first_task_there_is_no_penalty() -> None:
    theta = np.ones(4)
    value, gradient = ff.ElasticWeightConsolidation(1.0).penalty(theta)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, np.zeros(4))
    assert not np.shares_memory(theta, gradient)
    assert ff.ElasticWeightConsolidation(1.0).penalty([1, 2])[1].dtype == np.float64
    assert ff.ElasticWeightConsolidation(1.0).penalty([1j, 2])[1].dtype == np.complex128


@pytest.mark.parametrize(
    ("theta", "error", "message"),
    [
        ([1.0, np.nan], ff.NonFiniteError, "theta: expected finite values"),
        ([np.ones((2, 3)), np.full((1, 2), np.inf)], ff.NonFiniteError, "theta: expected finite"),
        (np.ones((2, 1)), ValueError, r"theta: expected shape \(2,\).*, got \(2, 1\)"),
        (np.ones((2, 2)), ValueError, r"theta: expected shape \(4,\).*, got \(2, 2\)"),
        (1.0, ValueError, r"theta: expected shape \(1,\).*, got \(\)"),
        ("theta", TypeError, "theta: expected real numbers"),
    ],
)
def test_before_the_first_task_parameters_are_checked_as_later(
    theta: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ff.ElasticWeightConsolidation(1.0).penalty(theta)


def test_what_was_given_is_copied_and_left_alone() -> None:
    (f, *_), (anchor, *_), theta = drawn(6)
    scores = oracle.draw(8, 6)
    dense = ff.DenseFisher.from_scores(scores)
    ewc = ff.ElasticWeightConsolidation(1.0)
    ewc.consolidate(anchor, f).consolidate(anchor, dense).consolidate(
        anchor, ff.ScoreFisher(scores)
    )
    before, given = ewc.penalty(theta), [x.copy() for x in (f, anchor, theta, scores)]
    for array, copy in zip((f, anchor, theta, scores), given, strict=True):
        np.testing.assert_array_equal(array, copy)
    at = theta.copy()
    f[:], anchor[:], theta[:], scores[:] = 9.0, 9.0, 9.0, 9.0
    dense.update(np.ones((1, 6)))
    after = ewc.penalty(at)
    assert after[0] == before[0]
    np.testing.assert_array_equal(after[1], before[1])
    after[1][:] = np.nan  # the caller's own
    assert np.isfinite(ewc.penalty(at)[1]).all()


def test_read_only_arrays_and_lists_serve() -> None:
    (f, *_), (anchor, *_), theta = drawn(4)
    for array in (f, anchor, theta):
        array.flags.writeable = False
    expected = ff.ewc_penalty(f.copy(), theta.copy(), anchor.copy(), 1.0)
    same(ff.ewc_penalty(f, theta, anchor, 1.0), expected)
    same(ff.ewc_penalty(list(f), list(theta), list(anchor), 1), expected)
    assert ff.ewc_penalty([1, 2], [1, 1], [0, 0], 1)[0] == 1.5


def test_pickled_it_goes_on() -> None:
    F, anchors, theta = drawn(5)
    for mode in ("separate", "online"):
        ewc = ff.ElasticWeightConsolidation(1.5, mode=mode).consolidate(anchors[0], F[0])
        again = pickle.loads(pickle.dumps(ewc))
        assert repr(again) == repr(ewc)
        for one in (ewc, again):
            one.consolidate(anchors[1], np.diag(F[1]))
        assert again.penalty(theta)[0] == ewc.penalty(theta)[0]
    assert repr(ewc) == (
        "ElasticWeightConsolidation(strength=1.5, mode='online', decay=1, n_tasks=2)"
    )


# ---- bad input ----
ONES = np.ones(2)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"strength": -1.0}, ValueError, "strength: expected a finite number that is not negative"),
        ({"strength": np.nan}, ValueError, "strength: expected a finite number"),
        ({"strength": "a"}, ValueError, "strength: expected a finite number"),
        ({"fisher": [1.0, -1e-9]}, ValueError, "fisher.*: expected .* not negative, got -1e-09 at"),
        ({"fisher": [np.nan, 1.0]}, ValueError, "fisher.*: expected finite .*, got nan at"),
        ({"fisher": [1.0, np.inf]}, ValueError, "fisher.*: expected finite .*, got inf at"),
        ({"fisher": 1.0}, ValueError, r"fisher.*: expected shape \(p,\) with p ≥ 1, got \(\)"),
        ({"fisher": []}, ValueError, r"fisher.*: expected shape \(p,\) with p ≥ 1, got \(0,\)"),
        ({"fisher": np.ones((2, 3))}, ValueError, "fisher: expected a square matrix"),
        ({"fisher": np.ones((1, 2, 2))}, ValueError, r"fisher.*: expected shape \(p,\)"),
        ({"fisher": np.ones(2) + 0j}, TypeError, "fisher.*: expected real numbers"),
        ({"fisher": "F"}, TypeError, "fisher.*: expected real numbers"),
        (
            {"fisher": ff.DiagonalFisher(2)},
            ValueError,
            "expected at least one sample with a weight, got none",
        ),
        ({"anchor": np.ones(3)}, ValueError, r": expected shape \(2,\) or \(2, k\), got \(3,\)"),
        ({"anchor": np.ones((2, 1))}, ValueError, r": expected shape \(2,\), got \(2, 1\)"),
        ({"anchor": [1.0, np.inf]}, ff.NonFiniteError, ": expected finite values"),
        ({"theta": np.ones((2, 2))}, ValueError, r"theta: expected shape \(2,\), got \(2, 2\)"),
        ({"theta": np.ones(1)}, ValueError, r"theta: expected shape \(2,\) or \(2, k\), got \(1,"),
        ({"theta": [np.nan, 1.0]}, ff.NonFiniteError, "theta: expected finite values"),
        ({"theta": ONES + 1j}, TypeError, "theta: expected real numbers, got complex128"),
        ({"theta": [1e200, 0.0]}, ff.NonFiniteError, "penalty: expected a finite number, got inf"),
    ],
)
def test_what_is_refused(given: dict[str, Any], error: type[Exception], message: str) -> None:
    full = {"fisher": ONES, "theta": ONES, "anchor": np.zeros(2), "strength": 1.0, **given}
    fisher, theta, anchor, strength = full.values()
    with pytest.raises(error, match=message):
        ff.ewc_penalty(fisher, theta, anchor, strength)
    with pytest.raises(error, match=message):
        ff.ElasticWeightConsolidation(strength).consolidate(anchor, fisher).penalty(theta)


def test_an_error_changes_nothing() -> None:
    for mode in ("separate", "online"):
        ewc = ff.ElasticWeightConsolidation(1.0, mode=mode).consolidate(np.zeros(2), ONES)
        for theta, fisher, error, message in (
            (np.ones(3), np.ones(3), ValueError, "fisher: expected 2 parameters, as the first"),
            (np.full(2, np.nan), ONES, ff.NonFiniteError, "theta: expected finite"),
            (ONES, -ONES, ValueError, "fisher: expected finite numbers that are not negative"),
        ):
            with pytest.raises(error, match=message):
                ewc.consolidate(theta, fisher)
        with pytest.raises(TypeError, match="fisher: expected numbers like float64, as the first"):
            ewc.consolidate(ONES + 0j, ff.DiagonalFisher.from_scores(oracle.draw(3, 2, complex)))
        assert ewc.n_tasks == 1
        assert ewc.penalty(ONES)[0] == 1.0


def test_the_strength_stays_checked() -> None:
    ewc = ff.ElasticWeightConsolidation(1.0).consolidate(np.zeros(2), ONES)
    with pytest.raises(ValueError, match="strength: expected a finite number that is not negative"):
        ewc.strength = -3
    assert ewc.strength == 1.0
    ewc.strength = 3
    assert ewc.penalty(ONES)[0] == 3.0


@pytest.mark.parametrize("strength", [1e-12, 1.0, 1e12])
def test_penalties_are_not_negative(strength: float) -> None:
    message = r"fisher: expected information, with v\* F v that is not negative, got -1\."
    with pytest.raises(ff.NotPositiveDefiniteError, match=message):
        ff.ewc_penalty(-np.eye(2), [1.0, 0.0], [0.0, 0.0], strength)
    # Rounding of F along a null vector is no error.
    eps = np.finfo(float).eps
    value, _ = ff.ewc_penalty([[1.0, 1.0], [1.0, 1 - 8 * eps]], [1.0, -1.0], np.zeros(2), strength)
    assert value == -4 * eps * strength


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "offline"}, "mode: expected one of separate, online, got 'offline'"),
        ({"decay": 0.5}, "decay: expected 1 in mode 'separate', got 0.5"),
        ({"mode": "online", "decay": 1.5}, "decay: expected 0 to 1 in mode 'online', got 1.5"),
        ({"mode": "online", "decay": -0.5}, "decay: expected a finite number that is not negative"),
    ],
)
def test_modes_and_decays_that_there_are_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ff.ElasticWeightConsolidation(1.0, **options)
