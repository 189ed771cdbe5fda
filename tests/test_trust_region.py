"""Trust region: what each argument does, what trpo_step accepts, and every refusal."""

import dataclasses
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import network
import oracle
import trpo_cartpole

G = np.array([3.0, 8.0])
F = np.diag([1.0, 4.0])


# ---- trust_region_step ----
def test_the_direction_is_damped_and_the_length_is_not() -> None:
    """Scaled by the damped F, as many codes do, the step would spend less than max_kl."""
    step = ff.trust_region_step(F, G, 0.01, damping=2.0).value
    x = G / [3.0, 6.0]
    np.testing.assert_allclose(step / np.linalg.norm(step), x / np.linalg.norm(x), rtol=1e-14)
    np.testing.assert_allclose(step @ F @ step / 2, 0.01, rtol=1e-14)


@pytest.mark.parametrize(
    ("damping", "mode", "shift"),
    [(0.5, "trace", [1.25, 1.25]), (0.5, "diagonal", [0.5, 2.0]), ([1.0, 2.0], "absolute", [1, 2])],
)
def test_every_damping_of_a_solve(
    damping: float | Sequence[float], mode: str, shift: list[float]
) -> None:
    x = G / (np.diag(F) + shift)
    step = ff.trust_region_step(F, G, 0.01, damping=damping, damping_mode=mode)
    np.testing.assert_allclose(step.value, x * np.sqrt(0.02 / (x @ F @ x)), rtol=1e-14)
    np.testing.assert_allclose(step.damping_used, np.squeeze(shift) if mode != "trace" else 1.25)


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e8, 1e150])
def test_the_scale_of_the_gradient_does_not_matter(scale: float) -> None:
    expected = ff.trust_region_step(F, G, 0.01).value
    np.testing.assert_allclose(ff.trust_region_step(F, scale * G, 0.01).value, expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_every_dtype(dtype: type[np.inexact]) -> None:
    S, g = oracle.draw(30, 6, dtype), oracle.draw(6, 1, dtype)[:, 0]
    step = ff.trust_region_step(ff.ScoreFisher(S), g, 0.01, damping=0.1).value
    exact, wide = oracle.fisher(S), oracle.wide(g)
    x = np.linalg.solve(exact + 0.1 * np.eye(6), wide)
    assert step.dtype == dtype
    expected = x * np.sqrt(0.02 / (x.conj() @ exact @ x).real)
    oracle.close(step, expected, dtype, 100 * np.linalg.cond(exact + 0.1 * np.eye(6)))


def test_lists_of_weights_come_back_as_lists() -> None:
    layers = network.draw(9, np.float64)[:2]
    L = ff.LayerFisher(layers)
    p = L.shape[0]
    g = oracle.rng(3).standard_normal(p)
    ends = np.cumsum([rows * columns for rows, columns in L.shapes])[:-1]

    def listed(v: np.ndarray) -> list[np.ndarray]:
        parts = np.split(v, ends)
        return [part.reshape(shape) for part, shape in zip(parts, L.shapes, strict=True)]

    flat = ff.trust_region_step(L, g, 0.01, damping=0.1).value
    weights = ff.trust_region_step(L, listed(g), 0.01, damping=0.1).value
    for one, other in zip(weights, listed(flat), strict=True):
        np.testing.assert_array_equal(one, other)
    nothing = ff.trust_region_step(L, listed(0 * g), 0.01).value
    assert [one.shape for one in nothing] == L.shapes

    seen = []

    def objective(theta: Sequence[np.ndarray]) -> float:
        seen.append([one.shape for one in theta])
        return float(sum((one * other).sum() for one, other in zip(theta, listed(g), strict=True)))

    update = ff.trpo_step(objective, lambda theta: 0.0, listed(np.ones(p)), listed(g), L)
    assert update.status == ff.Status.SUCCESS
    assert seen == [L.shapes, L.shapes]
    assert [one.shape for one in update.step] == L.shapes
    for new, step in zip(update.theta, update.step, strict=True):
        np.testing.assert_array_equal(new, 1 + step)


def test_kronecker_factors_and_their_own_damping() -> None:
    K = ff.KroneckerFisher.from_layers([(oracle.draw(30, 3), oracle.draw(30, 2))])
    g = oracle.rng(4).standard_normal(6)
    x = K.solve(g, damping=0.1, damping_mode="factored")
    step = ff.trust_region_step(K, g, 0.01, damping=0.1, damping_mode="factored").value
    np.testing.assert_allclose(step, x * np.sqrt(0.02 / K.quadratic_form(x)), rtol=1e-12)


def test_shift_and_pinv_are_those_of_solve() -> None:
    singular = np.ones((2, 2))
    for policy in ("shift", "pinv"):
        solution = ff.trust_region_step(singular, [1.0, 1.0], 0.5, on_failure=policy)
        np.testing.assert_allclose(solution.value, [0.5, 0.5], rtol=1e-12)
        assert solution.status == ff.solve(singular, [1.0, 1.0], on_failure=policy).status


def test_rounding_is_not_taken_for_curvature() -> None:
    """F is zero along g but for rounding: the step would be 1e8 long, in any direction."""
    Q, _ = np.linalg.qr(oracle.rng(5).standard_normal((20, 20)))
    matrix = 1e6 * Q[:, 1:] @ Q[:, 1:].T
    for policy, damping in (("raise", 1.0), ("shift", 0.0)):
        with pytest.raises(ff.NotPositiveDefiniteError, match="zero to rounding") as caught:
            ff.trust_region_step(matrix, Q[:, 0], 0.01, damping=damping, on_failure=policy)
        assert caught.value.solution.status == ff.Status.NOT_POSITIVE_DEFINITE
        np.testing.assert_array_equal(caught.value.solution.value, np.zeros(20))


def test_a_direction_that_is_flat_but_not_zero_is_taken() -> None:
    """Its curvature is below 32 eps of the trace, as that of most is in a network."""
    matrix = np.diag(np.logspace(0, -14, 8)).astype(np.float32)
    step = ff.trust_region_step(matrix, np.eye(8)[7], 0.01).value
    np.testing.assert_allclose(matrix[7, 7] * step[7] ** 2 / 2, 0.01, rtol=1e-6)


@pytest.mark.parametrize("kind", [ff.ScoreFisher, ff.SquareRootFisher.from_scores])
def test_held_scores_tell_small_curvature_from_rounding(kind: Callable[..., Any]) -> None:
    """Two columns that differ by 2e-3: 1 / κ(F) is 10 eps, and ‖S x‖² has six digits still."""
    a, b = oracle.rng(6).standard_normal((2, 2000))
    S = np.column_stack([a, a + 2e-3 * b]).astype(np.float32)
    step = ff.trust_region_step(kind(S), np.array([1, -1], np.float32), 0.01, solver=ff.QR()).value
    divergence = ((oracle.wide(S) @ oracle.wide(step)) ** 2).mean() / 2
    np.testing.assert_allclose(divergence, 0.01, rtol=1e-4)


def test_a_step_too_long_for_its_dtype_is_refused() -> None:
    tiny = np.full((1, 1), 1e-44, np.float32)
    solution = ff.trust_region_step(tiny, [1e-40], 1e36, on_failure="zero")
    assert solution.status == ff.Status.NOT_POSITIVE_DEFINITE
    assert solution.value == 0.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_kl": 0.0}, ValueError, "max_kl: expected a finite number above 0, got 0.0"),
        ({"max_kl": -0.01}, ValueError, "max_kl: expected a finite number above 0, got -0.01"),
        ({"max_kl": np.nan}, ValueError, "max_kl: expected a finite number above 0, got nan"),
        ({"max_kl": np.inf}, ValueError, "max_kl: expected a finite number above 0, got inf"),
        ({"max_kl": "small"}, ValueError, "max_kl: expected a finite number above 0, got 'small'"),
        ({"grad": np.ones(3)}, ValueError, r"grad: expected shape \(2,\) or \(2, k\), got \(3,\)"),
        ({"grad": np.ones((2, 1))}, ValueError, r"grad: expected shape \(2,\), got \(2, 1\)"),
        ({"grad": "g"}, TypeError, "grad: expected real numbers, got str"),
        ({"grad": None}, TypeError, "grad: expected real numbers, got object"),
        ({"grad": [np.nan, 1.0]}, ff.NonFiniteError, "grad: expected finite values"),
        ({"fisher": np.ones((2, 3))}, ValueError, "fisher: expected a square matrix"),
        ({"fisher": "F"}, TypeError, "fisher: expected float64"),
        ({"damping": -1.0}, ValueError, "damping: expected finite numbers that are not negative"),
        ({"damping_mode": "factored"}, ValueError, "damping_mode: expected one of"),
        ({"solver": "cg"}, TypeError, "solver: expected 'auto' or a solver"),
        ({"on_failure": "nan"}, ValueError, "on_failure: expected one of raise, zero, shift, pinv"),
        ({"n_threads": 0}, ValueError, "n_threads: expected at least 1"),
    ],
)
def test_bad_arguments_of_a_step(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {"fisher": F, "grad": G, "max_kl": 0.01} | options
    with pytest.raises(error, match=message):
        ff.trust_region_step(**arguments)


def test_a_solve_that_does_not_converge_says_so() -> None:
    matrix = np.diag(np.logspace(0, 6, 40))
    solver = ff.CG(max_iterations=2, preconditioner=None)
    with pytest.raises(ff.ConvergenceError) as caught:
        ff.trust_region_step(matrix, np.ones(40), 0.01, solver=solver)
    assert caught.value.solution.status == ff.Status.MAX_ITERATIONS
    solution = ff.trust_region_step(matrix, np.ones(40), 0.01, solver=solver, on_failure="zero")
    assert solution.status == ff.Status.MAX_ITERATIONS
    np.testing.assert_array_equal(solution.value, np.zeros(40))


# ---- trpo_step ----
class Quadratic:
    """A surrogate gᵀθ − ½ bend ‖θ‖², and a KL that is the quadratic one times `excess`."""

    def __init__(self, bend: float = 0.0, excess: float = 1.0) -> None:
        self.bend, self.excess = bend, excess
        self.calls: list[Any] = []

    def objective(self, theta: np.ndarray) -> float:
        self.calls.append("objective")
        return float(G @ theta - self.bend * theta @ theta / 2)

    def kl(self, theta: np.ndarray) -> float:
        self.calls.append("kl")
        return float(self.excess * theta @ F @ theta / 2)

    def step(self, **options: Any) -> ff.TRPOStep:
        return ff.trpo_step(self.objective, self.kl, np.zeros(2), G, F, **options)


def test_the_full_step_where_the_model_is_right() -> None:
    problem = Quadratic()
    update = problem.step(cg_damping=0.0)
    np.testing.assert_allclose(update.theta, ff.trust_region_step(F, G, 0.01).value, rtol=1e-12)
    assert update.status == ff.Status.SUCCESS
    assert update.message == ""
    assert update.backtracks == 0
    assert update.iterations == 2
    assert update.damping_used == 0.0
    np.testing.assert_allclose(update.kl, 0.01, rtol=1e-12)
    np.testing.assert_allclose(update.improvement, update.predicted, rtol=1e-12)
    np.testing.assert_allclose(update.predicted, G @ update.step, rtol=1e-12)
    assert update.objective == problem.objective(update.theta)
    assert problem.calls[:3] == ["objective", "kl", "objective"]


def test_it_backtracks_until_the_true_divergence_is_small_enough() -> None:
    """The KL is 1.7 times the quadratic one: 0.8² < 1/1.7 < 0.8, so one step back is enough."""
    problem = Quadratic(excess=1.7)
    full = Quadratic().step().step
    update = problem.step()
    assert update.backtracks == 2
    np.testing.assert_allclose(update.step, 0.8**2 * full, rtol=1e-12)
    assert update.kl <= 0.01
    np.testing.assert_allclose(update.predicted, G @ update.step, rtol=1e-12)
    assert problem.calls == ["objective", "kl", "kl", "kl", "objective"]  # far is not evaluated


def test_it_backtracks_until_the_objective_improves() -> None:
    full = Quadratic().step(max_kl=1.0).step
    bend = 2 * G @ full / (full @ full)  # the full step gains nothing, any shorter one does
    for coeff, ratio, expected in ((0.8, 0.0, 1), (0.5, 0.0, 1), (0.8, 0.3, 2), (0.5, 0.9, 4)):
        # At the fraction s of the full step the gain is 1 − s of what is promised.
        update = Quadratic(bend * 1.000001).step(
            max_kl=1.0, backtrack_coeff=coeff, accept_ratio=ratio
        )
        assert update.backtracks == expected
        np.testing.assert_allclose(
            update.improvement / update.predicted, 1 - coeff**expected, rtol=1e-4
        )


def test_nothing_acceptable_changes_nothing() -> None:
    theta = np.array([1.0, 2.0])
    objective: Callable[[Any], float]
    for objective, kl, counts in (
        (lambda t: 0.0, lambda t: 0.0, "0, something was not finite in 0, .* in 11"),
        (lambda t: -float(t.sum()), lambda t: 0.0, "0, something was not finite in 0, .* in 11"),
        (lambda t: 0.0, lambda t: 1.0, "11, something was not finite in 0, .* in 0"),
    ):
        update = ff.trpo_step(objective, kl, theta, G, F)
        assert update.status == ff.Status.STAGNATED
        assert pytest.approx(objective(theta)) == update.objective
        np.testing.assert_array_equal(update.theta, [1.0, 2.0])
        np.testing.assert_array_equal(update.step, [0.0, 0.0])
        assert (update.kl, update.improvement, update.predicted) == (0.0, 0.0, 0.0)
        assert update.backtracks == 10
        assert re.search(counts, update.message)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["objective", "kl"])
def test_what_is_not_finite_is_a_trial_that_failed(bad: float, which: str) -> None:
    problem, calls = Quadratic(), []

    def spoiled(name: str) -> Callable[[np.ndarray], float]:
        def function(theta: np.ndarray) -> float:
            if name == which and theta.any():
                calls.append(theta)
                if len(calls) <= 3:
                    return bad
            return float(getattr(problem, name)(theta))

        return function

    update = ff.trpo_step(spoiled("objective"), spoiled("kl"), np.zeros(2), G, F)
    assert update.status == ff.Status.SUCCESS
    assert update.backtracks == 3
    assert np.isfinite(update.theta).all()

    always = {which: lambda theta: bad if theta.any() else 0.0}
    functions = {"objective": problem.objective, "kl": problem.kl} | always
    update = ff.trpo_step(theta=np.zeros(2), grad=G, fisher=F, **functions)
    assert update.status == ff.Status.NON_FINITE
    assert "not finite in 11" in update.message
    np.testing.assert_array_equal(update.theta, [0.0, 0.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_objective_that_is_not_finite_to_begin_with(bad: float) -> None:
    update = ff.trpo_step(lambda theta: bad, lambda theta: 0.0, np.ones(2), G, F)
    assert update.status == ff.Status.NON_FINITE
    assert update.message == f"the objective at the old parameters is {bad}"
    np.testing.assert_array_equal(update.theta, [1.0, 1.0])


def test_callers_arrays_stay_as_they_are() -> None:
    theta, grad, matrix = np.zeros(2), G.copy(), F.copy()
    for array in (theta, grad, matrix):
        array.flags.writeable = False

    def objective(parameters: np.ndarray) -> float:
        value = float(G @ parameters)
        parameters[...] = np.nan  # even of a function that scribbles
        return value

    update = ff.trpo_step(objective, lambda t: float(t @ F @ t / 2), theta, grad, matrix)
    assert update.status == ff.Status.SUCCESS
    assert np.isfinite(update.theta).all()
    np.testing.assert_array_equal(theta, [0.0, 0.0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        update.theta = theta  # type: ignore[misc]


@pytest.mark.parametrize("held", oracle.DTYPES)
@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_parameters_keep_their_dtype(dtype: type[np.floating], held: type[np.floating]) -> None:
    def kl(theta: np.ndarray) -> float:
        return float(theta @ F @ theta) / 2

    fisher = F.astype(held)
    update = ff.trpo_step(lambda t: float(G @ t), kl, np.zeros(2, dtype), G, fisher)
    assert update.status == ff.Status.SUCCESS
    assert update.theta.dtype == update.step.dtype == dtype
    np.testing.assert_allclose(update.kl, 0.01, rtol=10 * float(np.finfo(np.float32).eps))


def test_complex_parameters() -> None:
    S = oracle.draw(30, 3, np.complex128)
    matrix, g = oracle.fisher(S), oracle.draw(3, 1, np.complex128)[:, 0]
    update = ff.trpo_step(
        lambda t: float((g.conj() @ t).real),
        lambda t: float((t.conj() @ matrix @ t).real) / 2,
        np.zeros(3, complex), g, ff.ScoreFisher(S), cg_damping=0.0, solver="auto",
    )  # fmt: skip
    x = np.linalg.solve(matrix, g)
    expected = x * np.sqrt(0.02 / (x.conj() @ matrix @ x).real)
    np.testing.assert_allclose(update.theta, expected, rtol=1e-10)


def test_another_solver_in_place_of_conjugate_gradients() -> None:
    update = Quadratic().step(solver=ff.Cholesky(), cg_damping=0.0)
    assert update.iterations == 0
    np.testing.assert_allclose(update.theta, ff.trust_region_step(F, G, 0.01).value, rtol=1e-12)


def test_few_iterations_are_no_failure() -> None:
    rng = oracle.rng(6)
    S = rng.standard_normal((200, 40)) * np.logspace(-1, 1, 40)
    fisher, g = ff.ScoreFisher(S), rng.standard_normal(40)
    update = ff.trpo_step(
        lambda t: float(g @ t), lambda t: fisher.quadratic_form(t) / 2, np.zeros(40), g, fisher,
        cg_iters=3,
    )  # fmt: skip
    assert update.status == ff.Status.SUCCESS
    assert update.iterations == 3
    np.testing.assert_allclose(update.kl, 0.01, rtol=1e-12)


def test_what_a_callers_function_raises_passes_through() -> None:
    def stop(theta: np.ndarray) -> float:
        raise RuntimeError("the simulator is gone")

    with pytest.raises(RuntimeError, match="the simulator is gone"):
        ff.trpo_step(lambda t: 0.0, stop, np.zeros(2), G, F)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_kl": 0.0}, ValueError, "max_kl: expected a finite number above 0"),
        ({"cg_iters": 0}, ValueError, "cg_iters: expected at least 1, got 0"),
        ({"cg_iters": 2.0}, TypeError, "cg_iters: expected a whole number, got float"),
        ({"cg_damping": -0.1}, ValueError, "damping: expected finite numbers"),
        ({"backtrack_coeff": 0.0}, ValueError, "backtrack_coeff: expected a finite number above 0"),
        ({"backtrack_coeff": 1.0}, ValueError, "backtrack_coeff: expected a number between 0 and"),
        ({"backtrack_iters": -1}, ValueError, "backtrack_iters: expected at least 0, got -1"),
        ({"accept_ratio": -0.1}, ValueError, "accept_ratio: expected a finite number that is not"),
        ({"objective": 1.0}, TypeError, "objective: expected a function of the parameters"),
        ({"kl": None}, TypeError, "kl: expected a function of the parameters, got NoneType"),
        ({"objective": lambda t: t}, TypeError, "objective: expected a function that returns a nu"),
        ({"objective": lambda t: "x"}, TypeError, "objective: expected a function that returns"),
        ({"kl": lambda t: 1j}, TypeError, "kl: expected a function that returns a number, got co"),
        ({"theta": np.zeros(3)}, ValueError, r"theta: expected shape \(2,\), got \(3,\)"),
        ({"theta": np.zeros((2, 1))}, ValueError, r"theta: expected shape \(2,\), got \(2, 1\)"),
        ({"theta": np.zeros(2, int)}, TypeError, "theta: expected float64"),
        ({"theta": np.zeros(2, complex)}, TypeError, r"theta: expected real .* got complex128"),
        ({"theta": [0.0, np.nan]}, ff.NonFiniteError, "theta: expected finite values"),
        ({"grad": np.zeros(3)}, ValueError, r"grad: expected shape \(2,\)"),
        ({"fisher": np.full((2, 2), np.nan)}, ff.NonFiniteError, "matrix: expected finite values"),
        ({"solver": "cg"}, TypeError, "solver: expected 'auto' or a solver"),
    ],
)
def test_bad_arguments_of_an_update(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    problem = Quadratic()
    arguments: dict[str, Any] = {
        "objective": problem.objective, "kl": problem.kl, "theta": np.zeros(2), "grad": G,
        "fisher": F,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        ff.trpo_step(**(arguments | options))


# ---- the example ----
@pytest.fixture(scope="module")
def example() -> ModuleType:
    pytest.importorskip("gymnasium")
    import trpo_cartpole

    return trpo_cartpole


@pytest.fixture(scope="module")
def surrogate(example: ModuleType) -> trpo_cartpole.Surrogate:
    rng = oracle.rng(9)
    theta = example.POLICY.initial(rng)
    states = rng.standard_normal((50, 4))
    actions = rng.integers(0, 2, 50)
    answer: trpo_cartpole.Surrogate = example.Surrogate(
        theta, states, actions, rng.standard_normal(50)
    )
    return answer


def test_the_examples_gradient_is_that_of_its_objective(surrogate: trpo_cartpole.Surrogate) -> None:
    h = 1e-5  # the error of a central difference is h²/6 of the third derivative, and eps/h
    units = h * np.eye(len(surrogate.theta))
    numerical = [
        (surrogate.objective(surrogate.theta + e) - surrogate.objective(surrogate.theta - e))
        / (2 * h)
        for e in units
    ]
    np.testing.assert_allclose(surrogate.gradient(), numerical, rtol=0, atol=1e-8)


def test_the_examples_fisher_is_the_curvature_of_its_divergence(
    surrogate: trpo_cartpole.Surrogate,
) -> None:
    v, h = oracle.rng(10).standard_normal(len(surrogate.theta)), 1e-3
    theta = surrogate.theta
    second = (surrogate.kl(theta + h * v) + surrogate.kl(theta - h * v)) / h**2
    fisher = surrogate.fisher()
    np.testing.assert_allclose(fisher.quadratic_form(v), second, rtol=1e-3)
    assert surrogate.kl(theta) == 0.0


def test_the_examples_advantages_are_discounted_sums_of_surprises(example: ModuleType) -> None:
    rng = oracle.rng(11)
    lengths, steps = (5, 3), 5
    played = np.arange(steps)[:, None] < lengths
    failed = np.zeros((steps, 2), bool)
    failed[2, 1] = True  # the first episode was stopped, the second one failed
    episodes = example.Episodes(
        rng.standard_normal((steps, 2, 4)), np.zeros((steps, 2)), played, failed,
        rng.standard_normal((2, 4)),
    )  # fmt: skip
    baseline = example.Baseline()
    baseline.coefficients = rng.standard_normal(15)
    actual, _ = example.advantages(episodes, baseline)
    gamma, decay = example.DISCOUNT, example.DISCOUNT * example.TRACE
    for j, length in enumerate(lengths):
        values = [float(baseline(episodes.states[t, j])) for t in range(length)]
        values.append(0.0 if failed[length - 1, j] else float(baseline(episodes.last[j])))
        surprises = [1 + gamma * values[t + 1] - values[t] for t in range(length)]
        for t in range(length):
            expected = sum(decay ** (s - t) * surprises[s] for s in range(t, length))
            np.testing.assert_allclose(actual[t, j], expected, rtol=1e-12)
    assert not actual[~played].any()


def test_the_example_prints_its_table_and_saves_its_picture(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    example.main(picture, updates=3, episodes=4, seeds=1)
    printed = capsys.readouterr().out
    assert "TRPO, max_kl = 0.01" in printed
    assert printed.count("policy gradient, rate") == len(example.RATES)
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_example_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "trpo_cartpole", raising=False)
    with pytest.raises(ImportError, match=r"gymnasium: expected .*fastfisher\[examples\]"):
        importlib.import_module("trpo_cartpole")
