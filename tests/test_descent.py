"""Natural gradient descent: its options, every way to end, any representation, and bad input."""

import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg

import fastfisher as ff
import oracle
import representations
from networks import Bernoulli, Dense, Network

CASES: dict[str, Any] = {name: rest for name, *rest in representations.cases()}
STATIONARY = "the gradient is zero at the start, which need not be a minimum"


class Quadratic:
    """L = ½ (θ − c)ᵀ F (θ − c), whose natural gradient is θ − c."""

    def __init__(self, fisher: ff.DenseFisher, center: np.ndarray) -> None:
        self.fisher, self.center, self.calls = fisher, center, 0

    def loss(self, theta: np.ndarray) -> float:
        return float(0.5 * self.fisher.quadratic_form(theta - self.center))

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        self.calls += 1
        return self.loss(theta), self.fisher @ (theta - self.center), self.fisher


def dense(matrix: np.ndarray | Sequence[np.ndarray | Sequence[float]]) -> ff.DenseFisher:
    return ff.DenseFisher.from_matrix(np.atleast_2d(np.asarray(matrix, float)))


def quadratic(p: int = 3) -> Quadratic:
    S = oracle.draw(4 * p, p)
    return Quadratic(ff.DenseFisher.from_scores(S), oracle.rng(p).standard_normal(p))


def arctangent(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
    """The mean of log(1 + θ²) has the slope of an arctangent: Newton's steps overshoot."""
    root = np.sqrt(1 + theta**2)
    return float((root - 1).sum()), theta / root, dense(np.diag(root**-3))


def poisson(
    theta: np.ndarray, rows: slice = slice(None)
) -> tuple[float, np.ndarray, ff.ScoreFisher]:
    """Poisson regression, in totals."""
    X = np.column_stack([np.ones(40), oracle.draw(40, 3)])[rows]
    y = np.arange(40)[rows] % 5
    with np.errstate(over="ignore"):
        rate = np.exp(X @ theta)
        loss = (rate - y * (X @ theta)).sum()
    scores = (y - rate)[:, None] * X
    return loss, -scores.sum(axis=0), ff.ScoreFisher(X, weights=rate, reduction="sum")


# ---- any representation ----
@pytest.mark.parametrize("name", CASES)
def test_one_damped_step_is_the_formula_for_any_representation(name: str) -> None:
    F, matrix, _ = CASES[name]
    p = len(matrix)
    theta, center = oracle.rng(1).standard_normal((2, p))
    damping = 0.1 * np.abs(matrix).max()
    g = matrix @ (theta - center)
    result = ff.natural_gradient_descent(
        lambda at: (0.5 * (at - center) @ matrix @ (at - center), matrix @ (at - center), F),
        theta,
        step_size=0.5,
        damping=damping,
        max_iterations=1,
    )
    natural = np.linalg.solve(matrix + damping * np.eye(p), g)
    # Solves lose digits by ‖F‖ / λ ≤ 10 p here.
    oracle.close(result.theta, theta - 0.5 * natural, np.float64, 40 * p * p)
    step = result.history[1]
    np.testing.assert_allclose(result.history[0].decrement, 0.5 * g @ natural, rtol=1e-10)
    np.testing.assert_allclose(step.kl, 0.125 * natural @ matrix @ natural, rtol=1e-9)
    assert (step.step_size, step.damping, step.iteration) == (0.5, damping, 1)
    np.testing.assert_allclose(step.gain_ratio, 1.0, rtol=1e-9)  # L is the model's quadratic


@pytest.mark.parametrize("name", CASES)
def test_adaptive_steps_of_bounded_kl_descend_with_any_representation(name: str) -> None:
    """F stands for a Hessian that is twice as large in some directions: steps are refused."""
    F, matrix, _ = CASES[name]
    p = len(matrix)
    hessian = matrix + 2 * np.diag(np.diag(matrix))
    theta, center = oracle.rng(2).standard_normal((2, p))
    result = ff.natural_gradient_descent(
        lambda at: (0.5 * (at - center) @ hessian @ (at - center), hessian @ (at - center), F),
        theta,
        damping=0.01 * np.abs(matrix).max(),
        adaptive=True,
        max_kl=np.trace(matrix),
        momentum=0.3,
        max_iterations=60,
    )
    assert result.loss < 1e-3 * result.history[0].loss
    assert all(record.kl <= np.trace(matrix) * (1 + 1e-12) for record in result.history)
    falls = -np.diff([record.loss for record in result.history])
    assert falls.min() > -1e-14 * result.history[0].loss


def test_scores_and_layers_are_taken_as_they_are() -> None:
    a, g = oracle.draw(20, 3), oracle.draw(20, 2)
    S = np.einsum("no,ni->noi", g, a).reshape(20, 6)
    gradient = oracle.draw(6, 1)[:, 0]
    ends = [
        ff.natural_gradient_descent(
            partial(lambda F, theta: (theta @ gradient, gradient, F), F),
            np.zeros(6),
            max_iterations=1,
        ).theta
        for F in (S, [(a, g)], ff.LayerFisher([(a, g)]), ff.DenseFisher.from_scores(S))
    ]
    for end in ends:
        np.testing.assert_allclose(end, -np.linalg.solve(S.T @ S / 20, gradient), rtol=1e-10)


@pytest.mark.parametrize("options", [{}, {"damping": 1e-3, "adaptive": True}, {"max_kl": 0.1}])
def test_products_alone_are_taken(options: dict[str, Any]) -> None:
    """A SciPy operator, and a function of v, which may be a model's Fisher-vector product."""
    exact = ff.natural_gradient_descent(poisson, np.zeros(4), **options)
    for products in (scipy.sparse.linalg.aslinearoperator, lambda F: lambda v: F @ v):

        def model(
            theta: np.ndarray, products: Callable[..., Any] = products
        ) -> tuple[float, np.ndarray, Any]:
            loss, gradient, F = poisson(theta)
            return loss, gradient, products(F.to_dense())

        found = ff.natural_gradient_descent(model, np.zeros(4), **options)
        assert found.status is exact.status
        np.testing.assert_allclose(found.theta, exact.theta, atol=1e-6)


def test_a_gradient_may_be_a_list_of_weights() -> None:
    a, g = oracle.draw(20, 3), oracle.draw(20, 2)
    K = ff.KroneckerFisher([(2, 3)]).update([(a, g)])
    gradient = oracle.draw(2, 3)
    flat, listed = (
        ff.natural_gradient_descent(
            partial(lambda G, theta: (0.0, G, K), G), np.zeros(6),
            damping=0.1, damping_mode="factored", max_iterations=1,
        ).theta
        for G in (gradient.ravel(), [gradient])
    )  # fmt: skip
    np.testing.assert_array_equal(flat, listed)
    expected = -K.solve(gradient.ravel(), damping=0.1, damping_mode="factored")
    np.testing.assert_array_equal(flat, expected)


def test_a_solver_and_a_mode_of_damping_are_passed_on() -> None:
    model = quadratic()
    matrix = model.fisher.to_dense()
    one = ff.natural_gradient_descent(
        model,
        np.zeros(3),
        damping=0.5,
        damping_mode="diagonal",
        solver=ff.CG(rtol=1e-12),
        max_iterations=1,
    )
    damped = matrix + 0.5 * np.diag(np.diag(matrix))
    expected = np.linalg.solve(damped, matrix @ model.center)
    np.testing.assert_allclose(one.theta, expected, rtol=1e-10)


def test_float32_stays_float32() -> None:
    S, center = oracle.draw(20, 3, np.float32), np.ones(3, np.float32)
    F = ff.DenseFisher.from_scores(S)
    result = ff.natural_gradient_descent(Quadratic(F, center), np.zeros(3, np.float32))
    assert result.status == ff.Status.SUCCESS
    assert result.theta.dtype == result.gradient.dtype == np.float32
    np.testing.assert_allclose(result.theta, center, rtol=1e-4)


# ---- options ----
def test_step_size_may_depend_on_the_iteration() -> None:
    model = quadratic()
    result = ff.natural_gradient_descent(
        model, np.zeros(3), step_size=lambda k: 1 / (k + 2), max_iterations=3
    )
    assert [record.step_size for record in result.history] == [0.0, 1 / 2, 1 / 3, 1 / 4]
    left = (1 / 2) * (2 / 3) * (3 / 4)  # of the way, for θ ← θ − α (θ − c)
    np.testing.assert_allclose(result.theta, (1 - left) * model.center, rtol=1e-12)


def test_momentum_is_the_heavy_ball() -> None:
    model, theta, step = quadratic(), np.zeros(3), np.zeros(3)
    for _ in range(5):
        step = -0.2 * (theta - model.center) + 0.7 * step
        theta = theta + step
    result = ff.natural_gradient_descent(
        model, np.zeros(3), step_size=0.2, momentum=0.7, max_iterations=5
    )
    np.testing.assert_allclose(result.theta, theta, rtol=1e-12)
    np.testing.assert_allclose(result.history[-1].kl, model.fisher.quadratic_form(step) / 2)


def test_steps_are_shortened_to_max_kl_and_only_then() -> None:
    model = quadratic()
    full = model.loss(np.zeros(3))  # the KL of the full step
    result = ff.natural_gradient_descent(model, np.zeros(3), max_kl=full / 6)
    kl = [record.kl for record in result.history[1:]]
    # √6 = 2.45 radii of the ball: two whole ones and the rest.
    np.testing.assert_allclose(kl, [full / 6, full / 6, full * (1 - 2 / math.sqrt(6)) ** 2])
    assert result.history[1].step_size == pytest.approx(1 / math.sqrt(6))
    assert result.history[3].step_size == 1.0
    np.testing.assert_allclose(result.theta, model.center, rtol=1e-12)


def test_backtracking_halves_until_the_loss_falls() -> None:
    """Newton's steps on √(1 + θ²) lead from θ to −θ³: they diverge from |θ| > 1."""
    plain = ff.natural_gradient_descent(arctangent, [3.0], max_iterations=3)
    assert abs(plain.theta[0]) > 1e3
    result = ff.natural_gradient_descent(arctangent, [3.0], backtracking=20)
    assert result.status == ff.Status.SUCCESS
    assert abs(result.theta[0]) < 1e-6
    losses = [record.loss for record in result.history]
    assert np.all(np.diff(losses) < 0)
    # From 3 a step of 30 α must not pass the minimum by as much: α = 1/8 leads to −0.75.
    assert result.history[1].step_size == 1 / 8


def test_adaptive_damping_follows_the_gain_ratio() -> None:
    result = ff.natural_gradient_descent(
        arctangent, [3.0, -2.0], damping=1e-2, adaptive=True, damping_bounds=(1e-9, 1e9)
    )
    assert result.status == ff.Status.SUCCESS
    np.testing.assert_allclose(result.theta, 0.0, atol=1e-5)
    losses = [record.loss for record in result.history]
    dampings = [record.damping for record in result.history]
    assert np.all(np.diff(losses) < 0)
    assert max(dampings) > 1e-2  # raised where Newton overshoots,
    assert dampings[-1] < max(dampings) / 10  # and let go where it does not
    for before, after in zip(result.history[1:], result.history[2:], strict=False):
        # Nielsen's rule; later refusals can but double it, and again.
        factor = max(1 / 3, 1 - (2 * min(before.gain_ratio, 1.0) - 1) ** 3)
        growth = after.damping / (before.damping * factor)
        assert any(growth == pytest.approx(2.0 ** (k * (k + 1) // 2)) for k in range(6))


def test_adaptive_damping_stays_within_its_bounds() -> None:
    model = quadratic()
    result = ff.natural_gradient_descent(
        model, np.zeros(3), damping=0.1, adaptive=True, damping_bounds=(0.05, 1.0)
    )
    assert result.status == ff.Status.SUCCESS
    assert result.damping_used == min(record.damping for record in result.history) == 0.05


@pytest.mark.parametrize("mode", ["absolute", "trace", "diagonal"])
def test_the_damping_that_is_told_is_the_one_that_was_given(mode: str) -> None:
    result = ff.natural_gradient_descent(quadratic(), np.zeros(3), damping=0.1, damping_mode=mode)
    assert result.damping_used == 0.1
    assert {record.damping for record in result.history} == {0.1}


def test_adaptive_damping_cures_a_singular_fisher() -> None:
    F = dense(np.diag([1.0, 0.0]))

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        return 0.5 * theta[0] ** 2 + 0.5 * theta[1] ** 2, theta, F

    result = ff.natural_gradient_descent(
        model, [1.0, 1.0], damping=1e-18, adaptive=True, damping_bounds=(1e-18, 1e3)
    )
    assert result.status == ff.Status.SUCCESS
    np.testing.assert_allclose(result.theta, 0.0, atol=1e-5)


def test_a_large_damping_is_no_convergence() -> None:
    """F is far too small, so λ grows to where any decrement is small: the least decides."""

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        return 0.5 * float(theta[0]) ** 2, theta, dense([[1e-9]])

    options: dict[str, Any] = {"damping": 1e-8, "adaptive": True, "tolerance": 0.3}
    result = ff.natural_gradient_descent(model, [1.0], **options)
    assert result.status == ff.Status.SUCCESS
    assert any(record.decrement <= 0.3 for record in result.history[:-1])
    assert 0.5 * result.gradient[0] ** 2 / 1.001e-9 <= 0.3


@pytest.mark.parametrize("mode", ["absolute", "diagonal"])
@pytest.mark.parametrize("size", [1e-8, 1e-3])
def test_a_start_of_the_damping_is_no_convergence(size: float, mode: str) -> None:
    """A feature in small units: λ hides what its coefficient has to gain until it comes down."""
    S = oracle.draw(200, 2) * [1.0, size]
    y = S @ [1.0, 2.0 / size] + 0.1 * oracle.draw(200, 1)[:, 0]

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.ScoreFisher]:
        r = S @ theta - y
        return 0.5 * float(r @ r) / 200, S.T @ r / 200, ff.ScoreFisher(S)

    result = ff.natural_gradient_descent(
        model, np.zeros(2), damping=1.0, damping_mode=mode, adaptive=True, damping_bounds=(1e-25, 9)
    )
    assert result.status is ff.Status.SUCCESS
    np.testing.assert_allclose(result.theta, np.linalg.lstsq(S, y)[0], rtol=1e-4)


def test_an_adaptive_damping_is_judged_by_the_least_that_can_be_solved() -> None:
    """F is singular, and the least λ is below its rounding."""
    v = np.array([1.0, 1.0, 1.0])
    result = ff.natural_gradient_descent(
        lambda theta: (
            0.5 * float(v @ theta - 3) ** 2, (v @ theta - 3) * v, dense(np.outer(v, v))
        ),
        np.zeros(3), damping=1.0, adaptive=True, damping_bounds=(1e-30, 1e3),
    )  # fmt: skip
    assert result.status is ff.Status.SUCCESS
    np.testing.assert_allclose(result.theta, 1.0, rtol=1e-6)


def test_momentum_that_leads_uphill_is_dropped_where_steps_may_be_refused() -> None:
    result = ff.natural_gradient_descent(
        arctangent, [3.0], momentum=0.9, backtracking=20, max_iterations=300, tolerance=1e-10
    )
    assert result.status == ff.Status.SUCCESS
    assert np.all(np.diff([record.loss for record in result.history]) <= 0)


def test_the_loss_alone_is_asked_about_steps_that_may_be_refused() -> None:
    calls = {"model": 0, "loss": 0}

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        calls["model"] += 1
        return arctangent(theta)

    def loss(theta: np.ndarray) -> float:
        calls["loss"] += 1
        return arctangent(theta)[0]

    result = ff.natural_gradient_descent(model, [3.0], backtracking=20, loss=loss)
    assert calls["model"] == result.iterations + 1
    assert calls["loss"] >= result.iterations + 3  # three halvings at the start
    both = ff.natural_gradient_descent(arctangent, [3.0], backtracking=20)
    np.testing.assert_array_equal(result.theta, both.theta)
    assert [r.loss for r in result.history] == [r.loss for r in both.history]


@pytest.mark.parametrize("options", [{"backtracking": 5}, {"damping": 1.0, "adaptive": True}])
@pytest.mark.parametrize("factor", [0.5, 40.0, -1.0])
def test_the_loss_has_to_be_that_of_the_model(factor: float, options: dict[str, Any]) -> None:
    """A sum in place of a mean, or half of it, would make every gain ratio wrong."""

    def loss(theta: np.ndarray) -> float:
        return factor * poisson(theta)[0]

    with pytest.raises(ValueError, match=r"loss: expected that of the model at the start, .*, got"):
        ff.natural_gradient_descent(poisson, np.zeros(4), loss=loss, **options)
    exact = ff.natural_gradient_descent(poisson, np.zeros(4), **options)
    np.testing.assert_array_equal(  # by other sums, and cancelled
        ff.natural_gradient_descent(
            poisson, np.zeros(4), loss=lambda at: poisson(at)[0] * (1 + 1e-10), **options
        ).theta.round(6),
        exact.theta.round(6),
    )


def test_the_model_is_asked_once_per_plain_step() -> None:
    model = quadratic()
    result = ff.natural_gradient_descent(model, np.zeros(3), step_size=0.5, max_iterations=7)
    assert model.calls == result.iterations + 1 == 8


def test_mini_batches() -> None:
    """Plain steps with decaying α find the minimum of the whole; adaptive ones with its loss."""
    S = oracle.draw(400, 3) + np.arange(1.0, 4.0)  # the mean of N(θ, 1)

    def batches(
        seed: int,
    ) -> tuple[
        Callable[[np.ndarray], tuple[float, np.ndarray, ff.DenseFisher]],
        Callable[[np.ndarray], float],
    ]:
        rng = np.random.default_rng(seed)
        held = {}

        def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
            held["rows"] = S[rng.choice(400, 40)]
            residual = theta - held["rows"]
            return loss(theta), residual.mean(axis=0), dense(np.eye(3))

        def loss(theta: np.ndarray) -> float:
            return float(0.5 * ((theta - held["rows"]) ** 2).sum(axis=1).mean())

        return model, loss

    model, _ = batches(0)
    result = ff.natural_gradient_descent(
        model, np.zeros(3), step_size=lambda k: 1 / (k + 1), tolerance=0.0, max_iterations=200
    )
    assert result.status == ff.Status.MAX_ITERATIONS
    # A mean of 200 batches of 40: five standard errors of 8000 draws.
    np.testing.assert_allclose(result.theta, S.mean(axis=0), atol=5 / math.sqrt(8000))
    model, loss = batches(1)
    result = ff.natural_gradient_descent(
        model, np.zeros(3), damping=1.0, adaptive=True, loss=loss, tolerance=0.0, max_iterations=30
    )
    np.testing.assert_allclose(result.theta, S.mean(axis=0), atol=5 / math.sqrt(40))
    assert all(record.gain_ratio > 0.9 for record in result.history[1:])  # each on its own batch


def test_a_fisher_that_is_kept_and_updated() -> None:
    F = ff.DiagonalFisher(3)
    S = oracle.draw(60, 3)

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DiagonalFisher]:
        F.decay(0.9).update(S + theta)
        return 0.5 * theta @ theta, theta, F

    result = ff.natural_gradient_descent(model, np.ones(3), step_size=0.5, max_iterations=5)
    assert F.n_samples == 6 * 60
    assert result.loss < 1.0

    def steep(
        theta: np.ndarray,
    ) -> tuple[
        float, np.ndarray, ff.DiagonalFisher
    ]:  # F far below the Hessian: the first step is refused
        loss, gradient, fisher = model(theta)
        return 100 * loss, 100 * gradient, fisher

    with pytest.raises(ValueError, match=r"curvature: expected another Fisher at each call"):
        ff.natural_gradient_descent(steep, np.ones(3), backtracking=9)
    result = ff.natural_gradient_descent(
        steep, np.ones(3), backtracking=9, loss=lambda theta: 50 * theta @ theta, max_iterations=3
    )
    assert result.loss < 150.0


@pytest.mark.parametrize("kept", [True, False], ids=["kfac", "layers"])
def test_a_network_learns_by_a_kept_kronecker_fisher_and_by_its_layers(kept: bool) -> None:
    rng = oracle.rng(7)
    network = Network([Dense(6, 5), Dense(5, 3), Dense(3, 6)], Bernoulli())
    x = (rng.random((64, 1)) < np.linspace(0.1, 0.9, 6)).astype(float)
    K = ff.KroneckerFisher(network.shapes)

    def model(
        theta: np.ndarray,
    ) -> Any:
        inputs, z = network.forward(theta, x)
        gradients = network.backward(theta, inputs, x - network.likelihood.mean(z))
        layers = network.scores(inputs, gradients)
        curvature = K.decay(0.9).update(layers) if kept else layers
        loss = network.likelihood.loss(z, x).mean()
        return loss, -network.mean_gradient(inputs, gradients), curvature

    result = ff.natural_gradient_descent(
        model,
        network.initial(rng),
        damping=0.1,
        damping_mode="factored" if kept else "absolute",
        max_kl=0.1,
        momentum=0.5,
        max_iterations=25,
    )
    assert result.status == ff.Status.MAX_ITERATIONS
    assert result.loss < 0.8 * result.history[0].loss


def test_callers_data_stay_as_they_are() -> None:
    start = np.array([1.0, 2.0])
    buffer = np.empty(2)

    def model(
        theta: np.ndarray,
    ) -> tuple[
        float, np.ndarray, ff.DenseFisher
    ]:  # works in place, and returns the same buffer each time
        buffer[:] = theta
        loss = 0.5 * float(theta @ theta)
        theta[:] = np.nan
        return loss, buffer, dense(np.eye(2))

    def callback(state: ff.DescentState) -> None:
        state.theta[:] = np.nan
        state.gradient[:] = np.nan

    result = ff.natural_gradient_descent(
        model, start, step_size=0.5, max_iterations=2, callback=callback
    )
    np.testing.assert_array_equal(start, [1.0, 2.0])
    np.testing.assert_array_equal(result.theta, start / 4)
    np.testing.assert_array_equal(result.gradient, start / 4)


def test_scores_are_not_written_to() -> None:
    S = oracle.draw(20, 3)
    S.flags.writeable = False
    gradient = np.ones(3)
    gradient.flags.writeable = False
    ff.natural_gradient_descent(lambda theta: (0.0, gradient, S), np.zeros(3), max_iterations=2)


# ---- how it ends ----
def test_success_by_the_decrement() -> None:
    model = quadratic()
    result = ff.natural_gradient_descent(model, np.zeros(3))
    assert (result.status, result.iterations) == (ff.Status.SUCCESS, 1)
    assert result.decrement <= 1e-12
    assert "decrement is at most 1e-12" in result.message
    assert len(result.history) == result.iterations + 1
    assert result.history[0].decrement == pytest.approx(model.loss(np.zeros(3)))
    assert result.loss == result.history[-1].loss == model.loss(result.theta)


def test_success_at_an_optimum_takes_no_step() -> None:
    model = quadratic()
    several: list[dict[str, Any]] = [
        {},
        {"tolerance": 0.0},
        {"max_kl": 1.0},
        {"damping": 1.0, "adaptive": True},
    ]
    for options in several:
        result = ff.natural_gradient_descent(model, model.center, **options)
        assert (result.status, result.iterations) == (ff.Status.SUCCESS, 0)
        assert result.message == STATIONARY
        np.testing.assert_array_equal(result.theta, model.center)


@pytest.mark.parametrize("options", [{}, {"damping": 1e-3, "adaptive": True}])
def test_a_start_of_zero_gradient_needs_no_fisher(options: dict[str, Any]) -> None:
    result = ff.natural_gradient_descent(
        lambda theta: (float(theta @ theta) ** 2, 4 * (theta @ theta) * theta, dense([[0.0]])),
        [0.0],
        **options,
    )
    assert (result.status, result.iterations) == (ff.Status.SUCCESS, 0)
    assert result.message == STATIONARY
    assert result.decrement == result.history[0].decrement == 0.0


def test_success_by_the_change_of_the_loss() -> None:
    result = ff.natural_gradient_descent(
        lambda theta: (100 + theta @ theta, 2 * theta, dense(2 * np.eye(2))),
        [1.0, 1.0],
        step_size=0.5,
        loss_tolerance=1e-3,
    )
    assert result.status == ff.Status.SUCCESS
    assert "loss changed by at most 0.001" in result.message
    # Losses 102, 100.5, 100.125, 100.03: the third change is below 1e-3 of the loss.
    assert result.iterations == 3


def test_max_iterations() -> None:
    for limit in (0, 1, 5):
        result = ff.natural_gradient_descent(
            quadratic(), np.zeros(3), step_size=0.1, max_iterations=limit
        )
        assert (result.status, result.iterations) == (ff.Status.MAX_ITERATIONS, limit)
        assert str(limit) in result.message


def test_interrupted_by_the_callback() -> None:
    seen = []

    def stop(state: ff.DescentState) -> bool:
        seen.append(state)
        return state.iteration == 2

    def raises(state: ff.DescentState) -> None:
        if state.iteration == 2:
            raise StopIteration

    for callback in (stop, raises):
        result = ff.natural_gradient_descent(
            quadratic(), np.zeros(3), step_size=0.1, callback=callback
        )
        assert (result.status, result.iterations) == (ff.Status.INTERRUPTED, 2)
        assert "callback" in result.message
    assert [state.iteration for state in seen] == [0, 1, 2]
    np.testing.assert_array_equal(seen[-1].theta, result.theta)
    np.testing.assert_array_equal(seen[-1].gradient, result.gradient)
    assert seen[-1].loss == result.loss


def test_whatever_is_true_interrupts_and_nothing_else() -> None:
    answer: Any
    for answer in (True, np.True_, 1, "enough"):
        result = ff.natural_gradient_descent(
            quadratic(), np.zeros(3), callback=partial(lambda answer, _: answer, answer)
        )
        assert (result.status, result.iterations) == (ff.Status.INTERRUPTED, 0)
    for answer in (None, False, 0, ""):
        result = ff.natural_gradient_descent(
            quadratic(), np.zeros(3), callback=partial(lambda answer, _: answer, answer)
        )
        assert result.status == ff.Status.SUCCESS


def test_interrupted_by_a_model_without_data() -> None:
    batches = iter(oracle.draw(15, 3).reshape(5, 3, 3))

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        residual = theta - next(batches)
        return 0.5 * (residual**2).mean(), residual.mean(axis=0), dense(np.eye(3))

    result = ff.natural_gradient_descent(model, np.zeros(3), tolerance=0.0, step_size=0.5)
    assert (result.status, result.iterations) == (ff.Status.INTERRUPTED, 4)
    assert "out of data" in result.message


@pytest.mark.parametrize("options", [{"backtracking": 5}, {"damping": 1.0, "adaptive": True}])
def test_stagnated_where_no_step_lowers_the_loss(options: dict[str, Any]) -> None:
    """A gradient of the wrong sign: what is downhill to it is uphill."""

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        return float(theta[0]), np.array([-1.0]), dense([[1.0]])

    result = ff.natural_gradient_descent(model, [3.0], **options)
    assert (result.status, result.iterations) == (ff.Status.STAGNATED, 0)
    assert "no step that was tried lowers the loss" in result.message
    np.testing.assert_array_equal(result.theta, [3.0])


def test_losses_lost_in_rounding_do_not_stagnate() -> None:
    """10⁸ hides gains below 1e-8; the gradient still knows the way to the last digit."""

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        return 1e8 + 0.5 * float(theta @ theta), theta, dense(2 * np.eye(2))

    for options in ({"backtracking": 5}, {"damping": 1e-3, "adaptive": True}):
        result = ff.natural_gradient_descent(model, [1e-3, 2e-3], tolerance=1e-20, **options)
        assert result.status == ff.Status.SUCCESS
        assert abs(result.theta).max() < 1e-9
        assert result.history[-1].gain_ratio == 1.0


@pytest.mark.parametrize("options", [{}, {"backtracking": 5}, {"damping": 1e-3, "adaptive": True}])
def test_a_total_in_single_precision_settles(options: dict[str, Any]) -> None:
    """Rounding of 20000 terms keeps the decrement above its tolerance."""
    X = np.column_stack([np.ones(20_000), oracle.draw(20_000, 3)]).astype(np.float32)
    y = (np.arange(20_000) % 5).astype(np.float32)

    def model(theta: np.ndarray) -> tuple[float | np.floating, np.ndarray, ff.ScoreFisher]:
        rate = np.exp(X @ theta)
        F = ff.ScoreFisher(X, weights=rate, reduction="sum")
        return (rate - y * (X @ theta)).sum(), X.T @ (rate - y), F

    start = np.array([0.5, 0, 0, 0], np.float32)
    result = ff.natural_gradient_descent(model, start, **options)
    assert result.status is ff.Status.SUCCESS
    assert result.iterations < 50
    assert result.decrement < 1e-6  # 1e-3 of a standard error
    X, y = X.astype(float), y.astype(float)
    exact = ff.natural_gradient_descent(model, start.astype(float))
    np.testing.assert_allclose(result.theta, exact.theta, atol=1e-5)
    never = ff.natural_gradient_descent(model, start.astype(float), tolerance=0.0)
    assert never.status is ff.Status.MAX_ITERATIONS


def test_slow_steps_are_not_settled() -> None:
    """Steps that the loss does not show, far from the minimum."""
    result = ff.natural_gradient_descent(
        quadratic(), np.zeros(3), step_size=1e-17, max_iterations=9
    )
    assert result.status is ff.Status.MAX_ITERATIONS


@pytest.mark.parametrize("spoiled", ["loss", "gradient", "curvature"])
@pytest.mark.parametrize("options", [{}, {"backtracking": 3}, {"damping": 1e-9, "adaptive": True}])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_midway_returns_the_last_good_parameters(
    spoiled: str, options: dict[str, Any], bad: float
) -> None:
    """What is asked for below θ = 1 is not finite; steps of a half lead there from 4."""

    def model(theta: np.ndarray) -> Any:
        answer = {
            "loss": 0.5 * float(theta @ theta),
            "gradient": theta.copy(),
            "curvature": math.sqrt(3) * np.eye(3, 2),
        }
        if theta.max() < 0.9:
            answer[spoiled] = np.full_like(answer[spoiled], bad)
        return answer["loss"], answer["gradient"], answer["curvature"]

    result = ff.natural_gradient_descent(model, [4.0, 4.0], step_size=0.5, tolerance=0.0, **options)
    assert result.status == ff.Status.NON_FINITE
    assert "finite" in result.message
    assert np.isfinite(result.theta).all()
    assert np.isfinite(result.loss)
    if spoiled == "curvature":  # loss and gradient are good, where it cannot be left
        assert 0.4 < result.theta[0] < 0.9
        assert math.isnan(result.decrement)
    else:
        assert result.theta[0] >= 0.9
    assert result.loss == pytest.approx(0.5 * result.theta @ result.theta)


def test_a_step_that_overflows_ends_with_the_start() -> None:
    result = ff.natural_gradient_descent(
        lambda theta: (float(theta[0]), np.array([1.0]), dense([[1.0]])), [1.0], step_size=1e308,
        damping=1e-300, max_iterations=9,
    )  # fmt: skip
    assert result.status == ff.Status.NON_FINITE
    assert np.isfinite(result.theta).all()


def test_backtracking_comes_back_from_where_the_loss_is_not_finite() -> None:
    """−log x + x: a full step from 2.5 leads to x < 0, half of it does not."""

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        x = theta[0]
        loss = x - math.log(x) if x > 0 else math.nan
        return loss, np.array([1 - 1 / x]), dense([[1 / x**2]])

    assert ff.natural_gradient_descent(model, [2.5]).status == ff.Status.NON_FINITE
    result = ff.natural_gradient_descent(model, [2.5], backtracking=10)
    assert result.status == ff.Status.SUCCESS
    np.testing.assert_allclose(result.theta, 1.0, atol=1e-6)


def test_an_infinite_loss_is_the_edge_of_the_domain() -> None:
    def model(theta: np.ndarray) -> tuple[float, np.ndarray | None, ff.DenseFisher | None]:
        if theta[0] <= 0:
            return math.inf, None, None
        return theta[0] - math.log(theta[0]), 1 - 1 / theta, dense([1 / theta**2])

    result = ff.natural_gradient_descent(model, [2.5], backtracking=10)
    assert result.status == ff.Status.SUCCESS
    result = ff.natural_gradient_descent(model, [2.5])
    assert (result.status, result.iterations) == (ff.Status.NON_FINITE, 0)


def test_a_family_that_overflows_midway_ends_the_loop() -> None:
    """From a rate far too small, a step of Fisher scoring overshoots to exp(10¹⁰) = ∞."""

    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        with np.errstate(over="ignore"):
            rate = np.exp(theta)
        family = ff.Poisson(rate)
        return -family.log_prob(1.0).sum(), rate - 1.0, dense([rate])

    result = ff.natural_gradient_descent(model, [-23.0])
    assert (result.status, result.iterations) == (ff.Status.NON_FINITE, 0)
    assert "rate: expected finite numbers above 0, got inf" in result.message
    result = ff.natural_gradient_descent(model, [-23.0], damping=1.0, adaptive=True)
    assert result.status == ff.Status.SUCCESS
    np.testing.assert_allclose(result.theta, 0.0, atol=1e-5)


def test_a_singular_fisher_raises_at_the_start_and_ends_the_loop_later() -> None:
    def singular_below(
        threshold: float,
    ) -> Callable[[np.ndarray], tuple[float, np.ndarray, ff.DenseFisher]]:
        def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
            rank = 2 if theta[1] > threshold else 1
            return 0.5 * float(theta @ theta), theta, dense(np.diag([1.0, rank - 1.0]))

        return model

    with pytest.raises(ff.NotPositiveDefiniteError, match="to the damping would do") as caught:
        ff.natural_gradient_descent(singular_below(9.0), [4.0, 4.0])
    assert caught.value.pivot == 1
    result = ff.natural_gradient_descent(singular_below(0.9), [4.0, 4.0], step_size=0.5)
    assert result.status == ff.Status.NOT_POSITIVE_DEFINITE
    assert "would do" in result.message
    np.testing.assert_array_equal(result.theta, [0.5, 0.5])
    assert math.isnan(result.decrement)
    assert len(result.history) == result.iterations + 1 == 4


def test_a_solve_that_does_not_converge_is_named() -> None:
    F = dense(np.diag(np.logspace(0, 8, 40)))
    solver = ff.CG(max_iterations=3, preconditioner=None)
    model = Quadratic(F, np.ones(40))
    with pytest.raises(ff.ConvergenceError):
        ff.natural_gradient_descent(model, np.zeros(40), solver=solver)
    truncated = ff.CG(max_iterations=3, preconditioner=None, allow_truncated=True)
    result = ff.natural_gradient_descent(
        model, np.zeros(40), solver=truncated, backtracking=10, max_iterations=3
    )
    assert result.loss < result.history[0].loss
    later = iter([ff.DenseFisher.from_matrix(np.eye(40)), F])
    result = ff.natural_gradient_descent(
        lambda theta: (*model(theta)[:2], next(later)), np.zeros(40), solver=solver, step_size=1e-9
    )
    assert (result.status, result.iterations) == (ff.Status.MAX_ITERATIONS, 1)
    assert "CG" in result.message


# ---- the bar ----
def test_progress_shows_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    ff.natural_gradient_descent(quadratic(), np.zeros(3), progress=True)
    shown = capsys.readouterr().err
    assert "loss=" in shown
    assert "1/100" in shown


def test_progress_without_tqdm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"progress: expected tqdm .*fastfisher\[progress\]"):
        ff.natural_gradient_descent(quadratic(), np.zeros(3), progress=True)


# ---- bad input ----
GOOD = (1.0, np.ones(2), np.ones((3, 2)))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (None, TypeError, r"model: expected \(loss, gradient, curvature\), got NoneType"),
        (GOOD[:2], TypeError, r"model: expected .*, got 2 values"),
        (("1", *GOOD[1:]), TypeError, r"loss: expected a real number, got str"),
        ((np.ones(2), *GOOD[1:]), TypeError, r"loss: expected .*, got ndarray of shape \(2,\)"),
        ((1j, *GOOD[1:]), TypeError, r"loss: expected a real number, got complex"),
        ((np.nan, *GOOD[1:]), ff.NonFiniteError, r"loss: expected a finite number, got nan"),
        ((1.0, np.ones(3), GOOD[2]), ValueError, r"gradient: expected shape \(2,\)"),
        ((1.0, np.ones((2, 1)), GOOD[2]), ValueError, r"gradient: expected shape \(2,\), got"),
        ((1.0, [1.0, np.inf], GOOD[2]), ff.NonFiniteError, r"gradient: expected finite"),
        ((1.0, 1j * np.ones(2), GOOD[2]), TypeError, r"gradient: expected real numbers"),
        ((*GOOD[:2], np.eye(2)), ValueError, r"curvature: .*which may be scores or a matrix"),
        ((*GOOD[:2], np.ones((3, 4))), ValueError, r"curvature: expected 2 parameters .* got 4"),
        ((*GOOD[:2], dense(np.eye(3))), ValueError, r"curvature: expected 2 parameters .* got 3"),
        (
            (*GOOD[:2], scipy.sparse.linalg.aslinearoperator(np.eye(3))),
            ValueError,
            r"curvature: expected 2 parameters .* got 3",
        ),
        ((*GOOD[:2], 1j * np.ones((3, 2))), TypeError, r"curvature: expected real numbers"),
        ((*GOOD[:2], np.ones(2)), ValueError, r"scores: expected a 2-D array"),
        ((*GOOD[:2], "F"), TypeError, r"scores: expected"),
        ((*GOOD[:2], np.full((3, 2), np.nan)), ff.NonFiniteError, r"scores: expected finite"),
    ],
)
def test_models_that_answer_wrongly(
    answer: tuple[str | float, np.ndarray, np.ndarray | ff.DenseFisher] | None,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        ff.natural_gradient_descent(lambda theta: answer, np.zeros(2), damping=1.0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"step_size": 0.0}, ValueError, r"step_size: expected a finite number above 0, got 0"),
        ({"step_size": np.nan}, ValueError, r"step_size: expected a finite number above 0"),
        ({"step_size": lambda k: -1.0}, ValueError, r"step_size\(0\): expected .* above 0"),
        ({"momentum": 1.0}, ValueError, r"momentum: expected less than 1, got 1"),
        ({"momentum": -0.1}, ValueError, r"momentum: expected a finite number"),
        ({"max_kl": 0.0}, ValueError, r"max_kl: expected a finite number above 0"),
        ({"max_kl": -1.0}, ValueError, r"max_kl: expected a finite number above 0"),
        ({"damping": -1.0}, ValueError, r"damping: expected finite numbers that are not negative"),
        ({"damping": np.ones(3)}, ValueError, r"damping: expected a number or shape \(2,\)"),
        ({"damping_mode": "levenberg"}, ValueError, r"damping_mode: expected one of"),
        ({"adaptive": True, "damping": 0.0}, ValueError, r"damping: expected a finite number abo"),
        ({"adaptive": True, "damping": np.ones(2)}, ValueError, r"damping: expected a finite"),
        ({"adaptive": True, "damping": 1e13}, ValueError, r"damping: expected a start within"),
        ({"adaptive": True, "damping_bounds": 3}, ValueError, r"damping_bounds: expected \(least"),
        ({"adaptive": True, "damping_bounds": (2, 1)}, ValueError, r"damping_bounds: .*lesser"),
        ({"adaptive": True, "damping_bounds": (0, 1)}, ValueError, r"damping_bounds: .*above 0"),
        ({"adaptive": 1}, TypeError, r"adaptive: expected True or False"),
        ({"solver": "cg"}, TypeError, r"solver: expected 'auto' or a solver"),
        ({"backtracking": -1}, ValueError, r"backtracking: expected at least 0"),
        ({"backtracking": True}, TypeError, r"backtracking: expected a whole number"),
        ({"tolerance": -1.0}, ValueError, r"tolerance: expected a finite number"),
        ({"loss_tolerance": np.nan}, ValueError, r"loss_tolerance: expected a finite number"),
        ({"max_iterations": 1.5}, TypeError, r"max_iterations: expected a whole number"),
        ({"progress": "yes"}, TypeError, r"progress: expected True or False"),
        ({"theta": np.zeros((2, 1))}, ValueError, r"theta: expected shape \(p,\)"),
        ({"theta": 1.0}, ValueError, r"theta: expected shape \(p,\)"),
        ({"theta": []}, ValueError, r"theta: expected shape \(p,\) with p ≥ 1"),
        ({"theta": [0.0, np.nan]}, ff.NonFiniteError, r"theta: expected finite values"),
        ({"theta": ["a", "b"]}, TypeError, r"theta: expected real numbers"),
        ({"theta": [1j, 2j]}, TypeError, r"theta: expected real numbers"),
    ],
)
def test_options_that_make_no_sense(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {"theta": np.zeros(2), "damping": 1.0} | options
    with pytest.raises(error, match=message):
        ff.natural_gradient_descent(lambda theta: GOOD, **given)


def test_an_error_of_the_model_is_the_callers() -> None:
    def model(theta: np.ndarray) -> tuple[float, np.ndarray, ff.DenseFisher]:
        if theta[0] < 1:
            raise KeyError("mine")
        return float(theta[0]), np.ones(1), dense([[1.0]])

    with pytest.raises(KeyError, match="mine"):
        ff.natural_gradient_descent(model, [3.0], step_size=0.9)


def test_totals_of_poisson_regression_end_at_a_zero_gradient() -> None:
    result = ff.natural_gradient_descent(poisson, np.zeros(4), tolerance=1e-20)
    assert result.status == ff.Status.SUCCESS
    assert abs(result.gradient).max() < 1e-9
