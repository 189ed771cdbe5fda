"""Evolution strategies: asked, told, stopped, restarted and pickled, and every refusal."""

import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from scipy.linalg import expm

import fastfisher as ff
import oracle
from fastfisher.applications.evolution.strategy import EvolutionStrategy

STRATEGIES = [ff.SNES, ff.XNES]
EPS = np.finfo(np.float64).eps
pytestmark = pytest.mark.parametrize("kind", STRATEGIES, ids=lambda kind: kind.__name__)


def sphere(x: np.ndarray) -> Any:
    answer: float | np.ndarray = (x**2).sum(axis=-1)
    return answer


def run(
    search: Any,
    generations: int,
    loss: Callable[[np.ndarray], float | np.ndarray] = sphere,
) -> Any:
    for _ in range(generations):
        search.tell(loss(search.ask()))
    return search


def state(search: EvolutionStrategy) -> np.ndarray:
    return np.concatenate([search.mean, search.covariance().ravel()])


# ---- ask and tell ----
@pytest.mark.parametrize("p", [1, 2, 5, 30])
def test_the_population_is_what_the_distribution_says(kind: type[Any], p: int) -> None:
    search = kind(np.arange(1.0, p + 1), 0.5, rng=0)
    assert search.population == 4 + math.floor(3 * math.log(p))
    assert search.ask().shape == (search.population, p)
    assert search.ask().dtype == np.float64
    assert (search.best, search.best_loss, search.status) == (None, math.inf, None)
    many = kind(np.arange(1.0, p + 1), np.linspace(0.5, 1.5, p), population=20_000, rng=0).ask()
    standard = (many - np.arange(1.0, p + 1)) / np.linspace(0.5, 1.5, p)
    assert abs(standard.mean(axis=0)).max() < 5 / math.sqrt(20_000)
    np.testing.assert_allclose(np.cov(standard.T), np.eye(p), atol=0.05)


def test_a_population_stays_until_it_is_told(kind: type[Any]) -> None:
    search = kind(np.zeros(3), 1.0, rng=0)
    first = search.ask()
    kept = first.copy()
    first[:] = 7.0  # the caller's own copy
    np.testing.assert_array_equal(search.ask(), kept)
    search.tell(sphere(kept))
    assert not np.array_equal(search.ask(), kept)


def test_tell_before_ask(kind: type[Any]) -> None:
    search = kind(np.zeros(3), 1.0)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="tell: expected the losses of a population"):
            search.tell(np.zeros(search.population))
        search.tell(sphere(search.ask()))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("population", [2, 3, 7, 8])
def test_an_int_gives_the_same_draws(kind: type[Any], population: int, mirrored: bool) -> None:
    options: dict[str, Any] = {"population": population, "mirrored": mirrored}
    one, two = (run(kind([1.0, 2.0], 0.3, rng=5, **options), 5) for _ in range(2))
    np.testing.assert_array_equal(one.ask(), two.ask())
    three = run(kind([1.0, 2.0], 0.3, rng=np.random.default_rng(5), **options), 5)
    np.testing.assert_array_equal(one.ask(), three.ask())
    assert not np.array_equal(one.ask(), run(kind([1.0, 2.0], 0.3, rng=6, **options), 5).ask())


@pytest.mark.parametrize("population", [6, 7])
def test_mirrored_draws_come_in_pairs(kind: type[Any], population: int) -> None:
    search = run(kind(np.ones(4), 0.5, population=population, mirrored=True, rng=0), 3)
    steps = search.ask() - search.mean
    half = -(-population // 2)
    np.testing.assert_allclose(steps[half:], -steps[: population - half], rtol=0, atol=8 * EPS)
    assert np.linalg.matrix_rank(steps) == min(half, 4)


def test_mirrored_draws_reach_the_minimum(kind: type[Any]) -> None:
    search = kind(np.ones(6), 0.5, mirrored=True, rng=0)
    result = search.minimize(sphere, max_evaluations=20_000, target=1e-10, vectorized=True)
    assert result.status is ff.Status.SUCCESS


def test_best_is_the_best_that_was_told(kind: type[Any]) -> None:
    search, points, losses = kind(np.ones(3), 1.0, rng=0), [], []
    for _ in range(20):
        points.append(search.ask())
        losses.append(sphere(points[-1]))
        search.tell(losses[-1])
    flat = np.concatenate(losses)
    assert search.best_loss == flat.min()
    np.testing.assert_array_equal(search.best, np.concatenate(points)[flat.argmin()])
    assert search.evaluations == len(flat)
    assert search.generations == 20


def test_what_is_held_cannot_be_changed_from_outside(kind: type[Any]) -> None:
    mean, sigma = np.ones(3), np.full(3, 0.5)
    search = kind(mean, sigma, rng=0)
    expected = run(kind(np.ones(3), 0.5, rng=0), 3)
    mean[:], sigma[:] = 9.0, 9.0
    search.covariance()[:] = 9.0
    run(search, 3)
    np.testing.assert_array_equal(state(search), state(expected))
    for held in (search.mean, search.best):
        with pytest.raises(ValueError, match="read-only"):
            held[0] = 1.0


def test_losses_are_not_changed_and_may_be_of_any_real_type(kind: type[Any]) -> None:
    for dtype in (np.float32, np.int64, bool):
        search = kind(np.ones(3), 0.5, rng=0)
        losses = np.arange(search.population)[::-1].astype(dtype)
        losses.flags.writeable = False
        search.ask()
        search.tell(losses)
        other = kind(np.ones(3), 0.5, rng=0)
        other.ask()
        other.tell(list(map(float, losses)))
        np.testing.assert_array_equal(state(search), state(other))


def test_means_of_other_types_are_searched_in_float64(kind: type[Any]) -> None:
    for mean in ([1, 2], np.array([1.0, 2.0], np.float32), (1.0, 2.0)):
        search = run(kind(mean, np.float32(0.5), rng=0), 4)
        np.testing.assert_array_equal(state(search), state(run(kind([1.0, 2.0], 0.5, rng=0), 4)))


def test_equal_losses_share_their_utilities(kind: type[Any]) -> None:
    """The order of the draws says nothing; where all losses are equal nothing is learned."""
    search = kind(np.ones(3), 0.5, population=4, utilities=[3.0, 1.0, -1.0, -3.0], rng=0)
    other = kind(np.ones(3), 0.5, population=4, utilities=[2.0, 2.0, -1.0, -3.0], rng=0)
    for one in (search, other):
        one.ask()
    search.tell([0.0, 0.0, 1.0, 2.0])
    other.tell([0.0, 0.1, 1.0, 2.0])
    np.testing.assert_allclose(state(search), state(other), rtol=1e2 * EPS, atol=EPS)
    before = state(search)
    search.ask()
    search.tell(np.zeros(4))
    np.testing.assert_allclose(state(search), before, rtol=1e2 * EPS, atol=EPS)


def test_snes_and_xnes_begin_with_the_same_step_of_the_mean(kind: type[Any]) -> None:
    one = run(kind(np.ones(4), 0.5, rng=0), 1)
    for other in STRATEGIES:
        np.testing.assert_allclose(
            one.mean, run(other(np.ones(4), 0.5, rng=0), 1).mean, rtol=10 * EPS
        )


def test_in_one_dimension_both_are_the_same(kind: type[Any]) -> None:
    one = run(kind([1.0], 0.5, sigma_rate=0.4, rng=0), 40)
    for other in STRATEGIES:
        two = run(other([1.0], 0.5, sigma_rate=0.4, rng=0), 40)
        np.testing.assert_allclose(state(one), state(two), rtol=1e4 * EPS, atol=EPS**2)


# ---- bad losses ----
def test_nan_ranks_last_and_is_counted(kind: type[Any]) -> None:
    nan, inf = kind(np.ones(3), 0.5, rng=0), kind(np.ones(3), 0.5, rng=0)
    for _ in range(5):
        losses = sphere(nan.ask())
        inf.ask()
        losses[[0, 3]] = math.nan
        nan.tell(losses)
        inf.tell(np.where(np.isnan(losses), math.inf, losses))
    np.testing.assert_array_equal(state(nan), state(inf))
    assert nan.non_finite == inf.non_finite == 10
    assert math.isfinite(nan.best_loss)


def test_a_loss_below_all_numbers_changes_nothing(kind: type[Any]) -> None:
    search = run(kind(np.ones(3), 0.5, rng=0), 2)
    before, asked = state(search), search.ask()
    losses = sphere(asked)
    losses[4] = -math.inf
    with pytest.raises(ff.NonFiniteError, match="losses: expected numbers above -inf, got -inf at"):
        search.tell(losses)
    np.testing.assert_array_equal(state(search), before)
    np.testing.assert_array_equal(search.ask(), asked)
    search.tell(sphere(asked))
    assert search.generations == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("options", [{}, {"population": 2, "utilities": [1.0, 0.5]}])
def test_a_generation_without_a_finite_loss_teaches_nothing(
    kind: type[Any], bad: float, options: dict[str, Any]
) -> None:
    search = run(kind(np.ones(3), 0.5, rng=0, **options), 2)
    before, asked, best = state(search), search.ask(), search.best_loss
    search.tell(np.full(search.population, bad))
    np.testing.assert_array_equal(state(search), before)
    assert (search.generations, search.best_loss) == (3, best)
    assert search.non_finite == search.population
    assert not np.array_equal(search.ask(), asked)


@pytest.mark.parametrize(
    ("losses", "error", "message"),
    [
        (np.zeros(3), ValueError, r"losses: expected shape \(7,\), one per row of ask, got \(3,\)"),
        (np.zeros((7, 1)), ValueError, r"losses: expected shape \(7,\)"),
        (1.0, ValueError, r"losses: expected shape \(7,\)"),
        (np.zeros(7, complex), TypeError, "losses: expected real numbers, got complex128"),
        (["a"] * 7, TypeError, "losses: expected real numbers"),
    ],
)
def test_losses_that_do_not_fit(
    kind: type[Any],
    losses: float | np.ndarray | Sequence[str],
    error: type[Exception],
    message: str,
) -> None:
    search = kind(np.ones(3), 0.5, rng=0)
    before = state(search)
    search.ask()
    with pytest.raises(error, match=message):
        search.tell(losses)
    np.testing.assert_array_equal(state(search), before)


# ---- bad arguments ----
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((1.0, 1.0), {}, ValueError, r"mean: expected shape \(p,\) with p ≥ 1, got \(\)"),
        (([], 1.0), {}, ValueError, r"mean: expected shape \(p,\) with p ≥ 1, got \(0,\)"),
        ((np.ones((2, 2)), 1.0), {}, ValueError, r"mean: expected shape \(p,\)"),
        (([1.0, math.nan], 1.0), {}, ValueError, "mean: expected finite numbers, got nan"),
        ((["a"], 1.0), {}, TypeError, "mean: expected real numbers"),
        ((np.ones(2), 0.0), {}, ValueError, "expected finite numbers above 0, got 0"),
        ((np.ones(2), [1.0, -1.0]), {}, ValueError, "numbers above 0, got -1 at index 1"),
        ((np.ones(2), math.inf), {}, ValueError, "expected finite numbers above 0, got inf"),
        ((np.ones(2), 1e-160), {}, ValueError, "sigma: expected numbers whose squares float64 ho"),
        ((np.ones(2), [1.0, 1e160]), {}, ValueError, "sigma: expected numbers whose squares"),
        ((np.ones(2), np.ones(3)), {}, ValueError, r"expected a number or shape \(2,\), got"),
        ((np.ones(2), np.ones((3, 3))), {}, ValueError, r"expected a number.* got \(3, 3\)"),
        ((np.ones(2), "1"), {}, TypeError, "expected real numbers"),
        ((np.ones(2), 1.0), {"population": 1}, ValueError, "population: expected at least 2"),
        ((np.ones(2), 1.0), {"population": 4.5}, TypeError, "population: expected a whole number"),
        ((np.ones(2), 1.0), {"utilities": [1.0]}, ValueError, r"utilities: .*shape \(6,\), got"),
        (
            (np.ones(2), 1.0),
            {"population": 2, "utilities": [0.0, 1.0]},
            ValueError,
            "utilities: expected numbers that fall from the best",
        ),
        (
            (np.ones(2), 1.0),
            {"population": 2, "utilities": [1.0, 1.0]},
            ValueError,
            "utilities: expected numbers that fall from the best",
        ),
        ((np.ones(2), 1.0), {"mean_rate": -1.0}, ValueError, "mean_rate: expected a finite number"),
        ((np.ones(2), 1.0), {"sigma_rate": 0.0}, ValueError, "sigma_rate: expected a positive"),
        ((np.ones(2), 1.0), {"mirrored": 1}, TypeError, "mirrored: expected True or False"),
        ((np.ones(2), 1.0), {"tolerance": math.nan}, ValueError, "tolerance: expected a finite"),
        ((np.ones(2), 1.0), {"rng": "0"}, TypeError, "rng: expected None, an int or a"),
    ],
)
def test_arguments_that_do_not_fit(
    kind: type[Any],
    arguments: tuple[Any, float | Sequence[float]],
    options: dict[str, Any],
    error: type[ValueError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        kind(*arguments, **options)


# ---- XNES alone ----
def test_covariances_are_taken_as_they_are(kind: type[Any]) -> None:
    if kind is ff.SNES:
        with pytest.raises(ValueError, match="sigma: expected a number or shape"):
            ff.SNES(np.ones(2), np.eye(2) + 1)
        return
    C = np.cov(oracle.draw(5, 20))
    search = ff.XNES(np.ones(5), C, rng=0)
    np.testing.assert_allclose(search.covariance(), C, rtol=0, atol=20 * EPS * abs(C).max())
    np.testing.assert_allclose(search.sigma, np.sqrt(np.diag(C)), rtol=20 * EPS)
    correlation = C / np.outer(search.sigma, search.sigma)
    assert search.condition() == pytest.approx(np.linalg.cond(correlation))
    lower = np.tril(C) + np.triu(np.full((5, 5), 7.0), 1)  # nobody reads the upper triangle
    np.testing.assert_array_equal(
        ff.XNES(np.ones(5), lower, rng=0).covariance(), search.covariance()
    )
    assert ff.XNES([0.0], [[4.0]]).sigma == ff.XNES([0.0], [2.0]).sigma == [2.0]
    for bad in (-np.eye(2), np.ones((2, 2)), np.diag([1.0, 0.0])):
        with pytest.raises(ff.NotPositiveDefiniteError, match="expected a positive definite cov"):
            ff.XNES(np.ones(2), bad)
    with pytest.raises(ff.NonFiniteError, match="expected finite values"):
        ff.XNES(np.ones(2), sigma=np.full((2, 2), math.nan))


def test_covariances_in_any_units(kind: type[Any]) -> None:
    """What is definite, and what a spread is, does not depend on the units of the parameters."""
    units = np.array([1e-100, 1e-10, 1.0, 1e100])
    if kind is ff.SNES:
        return
    wide = ff.XNES(np.ones(4), np.diag(units**2), rng=0)
    np.testing.assert_allclose(wide.ask(), ff.XNES(np.ones(4), units, rng=0).ask(), rtol=10 * EPS)
    R = 0.5 + 0.5 * np.eye(4)
    search = ff.XNES(np.zeros(4), R * np.outer(units, units), rng=0)
    np.testing.assert_allclose(
        search.covariance() / np.outer(units, units), R, rtol=0, atol=20 * EPS
    )
    np.testing.assert_allclose(search.ask(), units * ff.XNES(np.zeros(4), R, rng=0).ask())
    for bad in (np.ones((2, 2)), [[1e-300, 0.0], [1e300, 1e-300]], [[1e-10, 0.0], [1e-3, 1.0]]):
        with pytest.raises(ff.NotPositiveDefiniteError, match=r"among correlations\. Leave out"):
            ff.XNES(np.ones(2), bad)


@pytest.mark.parametrize(("population", "mirrored"), [(2, False), (15, False), (16, True)])
def test_few_draws_and_many_parameters_give_the_exponential(
    kind: type[Any], population: int, mirrored: bool
) -> None:
    """Fewer draws than parameters: A exp(½ η M) from the Gram matrix of the draws."""
    p = 40
    search = run(
        kind(np.ones(p), 0.5, population=population, mirrored=mirrored, rng=oracle.rng(1)), 20
    )
    if kind is ff.SNES:
        assert np.array_equal(search.covariance(), np.diag(search.sigma**2))
        return
    A, x = search._scale, search.ask()
    z = np.linalg.solve(A, (x - search.mean).T).T
    u = np.empty(population)
    u[np.argsort(sphere(x))] = search._utilities
    search.tell(sphere(x))
    expected = A @ expm(0.5 * search.sigma_rate * (z.T @ (u[:, None] * z)))
    np.testing.assert_allclose(
        search._scale, expected, rtol=0, atol=1e3 * EPS * np.linalg.cond(A) * abs(A).max()
    )


# ---- reasons to stop ----
def test_converged_where_sigma_is_below_the_tolerance(kind: type[Any]) -> None:
    search = kind(np.ones(3), 0.5, tolerance=1e-3, rng=0)
    result = search.minimize(sphere, max_evaluations=10_000, vectorized=True)
    assert result.status is search.status is ff.Status.SUCCESS
    assert result.message == search.message == "sigma fell below 0.001 of its start"
    assert search.sigma.max() <= 0.5e-3
    again = search.minimize(sphere, max_evaluations=10_000, vectorized=True)
    assert (again.iterations, again.status) == (0, ff.Status.SUCCESS)
    assert again.loss == result.loss


def test_coming_to_rest_short_of_the_target_is_no_success(kind: type[Any]) -> None:
    result = kind(np.ones(3), 0.5, tolerance=1e-3, rng=0).minimize(
        lambda x: 1 + sphere(x), max_evaluations=10_000, target=0.5, vectorized=True
    )
    assert result.status is ff.Status.STAGNATED
    assert result.message == "sigma fell below 0.001 of its start"


def test_stops_where_the_mean_no_longer_moves(kind: type[Any]) -> None:
    result = kind(np.full(2, 1e9), 1.0, rng=0).minimize(
        lambda x: abs(x[:, 0] - 1e9) + abs(x[:, 1] - 1e9), max_evaluations=10_000, vectorized=True
    )
    assert result.status is ff.Status.STAGNATED
    assert result.message == "sigma is below the rounding of the mean"


def test_stops_where_the_loss_is_flat(kind: type[Any]) -> None:
    search = kind(np.ones(3), 0.5, rng=0)
    result = search.minimize(lambda _: 3.0, max_evaluations=10_000)
    assert result.status is ff.Status.STAGNATED
    assert result.message == "the best loss has not changed for 23 generations"
    np.testing.assert_allclose(search.sigma, 0.5, rtol=1e3 * EPS)  # nothing was learned


def test_stops_where_the_covariance_degenerates(kind: type[Any]) -> None:
    """A loss that falls without end along one direction alone."""
    result = kind(np.zeros(3), 1.0, rng=0).minimize(
        lambda x: x[0] + 1e-3 * x[1] ** 2 + x[2] ** 2, max_evaluations=100_000
    )
    assert result.status is ff.Status.STAGNATED
    assert result.message.startswith("the condition of the covariance has grown to ")


def test_units_are_no_reason_to_stop(kind: type[Any]) -> None:
    units = np.array([1e-12, 1.0, 1e12])
    search = kind(units, 0.5 * units, rng=0)
    assert search.condition() == pytest.approx(1.0)
    result = search.minimize(
        lambda x: sphere(x / units), max_evaluations=10_000, target=1e-10, vectorized=True
    )
    assert result.status is ff.Status.SUCCESS


@pytest.mark.parametrize("sigma", [1e-150, 1e150])
def test_the_ends_of_the_number_range(kind: type[Any], sigma: float) -> None:
    search = kind([0.0, sigma], sigma, tolerance=1e-2, rng=0)
    result = search.minimize(lambda x: sphere(x / sigma), max_evaluations=10_000, vectorized=True)
    assert result.status in {ff.Status.SUCCESS, ff.Status.NON_FINITE}
    assert np.isfinite(search.condition())


def test_stops_before_the_distribution_leaves_the_numbers(kind: type[Any]) -> None:
    search = kind([0.0], 1e130, rng=0)
    result = search.minimize(lambda x: float(-x[0]), max_evaluations=100_000)
    assert result.status is search.status is ff.Status.NON_FINITE
    assert result.message == "the search distribution left the range of float64"
    assert np.isfinite(search.mean).all()
    assert np.isfinite(search.covariance()).all()
    assert np.isfinite(result.theta).all()
    huge = run(kind(np.ones(2), 1.0, sigma_rate=1e6, rng=0), 1)
    assert huge.status is ff.Status.NON_FINITE
    np.testing.assert_array_equal(huge.covariance(), np.eye(2))


# ---- the loop ----
def test_both_forms_of_a_loss(kind: type[Any]) -> None:
    one = kind(np.ones(3), 0.5, rng=0).minimize(lambda x: float(sphere(x)), max_evaluations=700)
    all_at_once = kind(np.ones(3), 0.5, rng=0).minimize(
        sphere, max_evaluations=700, vectorized=True
    )
    assert list(map(astuple, one.history)) == list(map(astuple, all_at_once.history))
    np.testing.assert_array_equal(one.theta, all_at_once.theta)
    assert one.status is ff.Status.MAX_ITERATIONS
    assert one.message == "the next generation would take more than 700 evaluations"


def test_the_history_has_a_row_per_generation(kind: type[Any]) -> None:
    search = kind(np.ones(3), 0.5, rng=0)
    result = search.minimize(sphere, max_evaluations=700, vectorized=True)
    assert result.iterations == len(result.history) == 100 == search.generations
    assert result.evaluations == result.history[-1].evaluations == 700
    np.testing.assert_array_equal(
        [record.best_loss for record in result.history],
        np.minimum.accumulate([record.loss for record in result.history]),
    )
    assert result.history[-1].sigma == search.sigma.max()
    assert result.history[0].population == 7
    more = search.minimize(sphere, max_evaluations=70, vectorized=True)
    assert (more.iterations, more.evaluations) == (10, 70)
    assert search.evaluations == 770
    assert more.loss <= result.loss


def test_never_more_evaluations_than_allowed(kind: type[Any]) -> None:
    calls = []

    def loss(x: np.ndarray) -> float:
        calls.append(1)
        return float(sphere(x))

    result = kind(np.ones(3), 0.5, rng=0).minimize(loss, max_evaluations=27)
    assert len(calls) == result.evaluations == 21
    with pytest.raises(ValueError, match="max_evaluations: expected at least 7, got 6"):
        kind(np.ones(3), 0.5).minimize(sphere, max_evaluations=6)


def test_a_callback_ends_the_search(kind: type[Any]) -> None:
    seen = []

    def fifth(search: Any) -> bool:
        seen.append(search.best_loss)
        return len(seen) == 5

    result = kind(np.ones(3), 0.5, rng=0).minimize(
        sphere, max_evaluations=10_000, vectorized=True, callback=fifth
    )
    assert result.status is ff.Status.INTERRUPTED
    assert result.message == "the callback ended it"
    assert [record.best_loss for record in result.history] == seen


def test_a_callback_ends_the_search_by_stop_iteration(kind: Any) -> None:
    def stop(_: Any) -> None:
        raise StopIteration

    result = kind(np.ones(3), 0.5, rng=0).minimize(sphere, max_evaluations=70, callback=stop)
    assert (result.status, result.iterations) == (ff.Status.INTERRUPTED, 1)


def test_a_loss_that_turns_nan_leaves_the_best_point(kind: type[Any]) -> None:
    count = iter(range(1000))
    search = kind(np.ones(3), 0.5, rng=0)
    result = search.minimize(
        lambda x: sphere(x) if next(count) < 10 else np.full(len(x), math.nan),
        max_evaluations=10_000,
        vectorized=True,
    )
    assert result.status is ff.Status.NON_FINITE
    assert result.message == (
        "no loss has been finite for 23 generations; 168 of 238 losses were not finite"
    )
    assert result.loss == sphere(result.theta) == search.best_loss


def test_a_loss_that_falls_to_minus_infinity_leaves_the_best_point(kind: type[Any]) -> None:
    count = iter(range(1000))
    search = kind(np.ones(3), 0.5, rng=0)
    result = search.minimize(
        lambda x: sphere(x) if next(count) < 10 else np.full(len(x), -math.inf),
        max_evaluations=10_000,
        vectorized=True,
    )
    assert result.status is ff.Status.NON_FINITE
    assert result.message.startswith("losses: expected numbers above -inf")
    assert result.iterations == 10  # those that taught something
    assert result.evaluations == search.evaluations == 11 * search.population
    assert (search.status, search.message) == (result.status, result.message)
    assert result.loss == sphere(result.theta) == search.best_loss
    again = search.minimize(sphere, max_evaluations=100, vectorized=True)
    assert (again.status, again.evaluations) == (ff.Status.NON_FINITE, 0)


def test_a_loss_that_is_nowhere_finite_leaves_the_start(kind: type[Any]) -> None:
    result = kind(np.ones(3), 0.5).minimize(lambda _: math.nan, max_evaluations=1000)
    assert (result.status, result.loss) == (ff.Status.NON_FINITE, math.inf)
    np.testing.assert_array_equal(result.theta, np.ones(3))
    assert result.history[-1].sigma == 0.5


def test_a_loss_with_a_wall_is_searched_on_this_side(kind: type[Any]) -> None:
    """The minimum of x + y with x, y > 1 is at the wall, beyond which the loss is undefined."""
    search = kind(np.full(2, 3.0), 0.5, tolerance=1e-6, rng=0)
    result = search.minimize(
        lambda x: x.sum() if (x > 1).all() else math.nan, max_evaluations=20_000
    )
    np.testing.assert_allclose(result.theta, 1.0, atol=1e-2)
    assert "losses were not finite" in search.message
    assert search.non_finite > 0


def test_what_the_loss_raises_comes_through_and_nothing_is_lost(kind: type[Any]) -> None:
    search = run(kind(np.ones(3), 0.5, rng=0), 3)
    before, asked = state(search), search.ask()
    with pytest.raises(ZeroDivisionError):
        search.minimize(lambda _: 1 / 0, max_evaluations=100)
    np.testing.assert_array_equal(state(search), before)
    np.testing.assert_array_equal(search.ask(), asked)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": math.nan}, ValueError, "target: expected a number, got nan"),
        ({"target": "0"}, ValueError, "target: expected a number, got '0'"),
        ({"restarts": -1}, ValueError, "restarts: expected at least 0"),
        ({"max_evaluations": 1e3}, TypeError, "max_evaluations: expected a whole number"),
        ({"vectorized": 1}, TypeError, "vectorized: expected True or False"),
    ],
)
def test_a_loop_that_makes_no_sense(
    kind: type[Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kind(np.ones(3), 0.5).minimize(sphere, **{"max_evaluations": 100, **options})


# ---- restarts ----
def test_a_restart_doubles_the_population_and_keeps_what_was_found(kind: type[Any]) -> None:
    search = run(kind(np.ones(3), 0.5, rng=0), 30)
    best, evaluations = search.best_loss, search.evaluations
    search.ask()
    assert search.restart() is search
    assert (search.population, search.best_loss) == (14, best)
    assert search.ask().shape == (14, 3)
    assert search.evaluations == evaluations
    assert search.status is None
    np.testing.assert_array_equal(search.sigma, np.full(3, 0.5))
    assert not np.array_equal(search.mean, np.ones(3))
    search.restart([4.0, 5.0, 6.0], population=5)
    assert search.ask().shape == (5, 3)
    np.testing.assert_array_equal(search.mean, [4.0, 5.0, 6.0])


def test_restarts_are_drawn_from_the_first_distribution(kind: type[Any]) -> None:
    search = kind(np.array([10.0, 20.0]), np.array([1.0, 3.0]), rng=0)
    means = np.array([search.restart(population=6).mean for _ in range(2000)])
    error = 5 / math.sqrt(2000)
    assert (abs(means.mean(axis=0) - [10, 20]) < error * np.array([1, 3])).all()
    np.testing.assert_allclose(means.std(axis=0), [1.0, 3.0], rtol=error)


def test_the_loop_restarts_where_the_search_comes_to_rest(kind: type[Any]) -> None:
    search = kind(np.ones(2), 0.5, tolerance=1e-2, rng=0)
    result = search.minimize(sphere, max_evaluations=5000, restarts=3, vectorized=True)
    assert (result.restarts, result.status) == (3, ff.Status.SUCCESS)
    assert sorted({record.population for record in result.history}) == [6, 12, 24, 48]
    assert result.evaluations == search.evaluations
    short = kind(np.ones(2), 0.5, tolerance=1e-2, rng=0).minimize(
        sphere, max_evaluations=result.evaluations - 48, restarts=30, vectorized=True
    )
    assert short.restarts == 3
    assert short.status is ff.Status.MAX_ITERATIONS


def test_a_restart_for_which_there_is_no_room_is_not_begun(kind: type[Any]) -> None:
    search = kind(np.ones(2), 0.5, tolerance=1e-2, rng=0)
    free = search.minimize(sphere, max_evaluations=5000, vectorized=True)
    tight = kind(np.ones(2), 0.5, tolerance=1e-2, rng=0).minimize(
        sphere, max_evaluations=free.evaluations + 11, restarts=5, vectorized=True
    )
    assert (tight.restarts, tight.status) == (0, ff.Status.SUCCESS)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.ones(2),), {}, r"mean: expected shape \(3,\), got \(2,\)"),
        ((np.full(3, math.inf),), {}, "mean: expected finite numbers, got inf"),
        ((), {"population": 1}, "population: expected at least 2"),
        ((), {"population": 4}, r"utilities: expected shape \(4,\), got \(2,\)"),
    ],
)
def test_a_bad_restart_changes_nothing(
    kind: type[Any], arguments: Sequence[Any], options: dict[str, Any], message: str
) -> None:
    utilities = np.array([1.0, -1.0])
    search = run(kind(np.ones(3), 0.5, population=2, utilities=utilities, rng=0), 3)
    utilities[:] = 0.0  # the caller's own
    before, asked = state(search), search.ask()
    with pytest.raises(ValueError, match=message):
        search.restart(*arguments, **options)
    np.testing.assert_array_equal(state(search), before)
    np.testing.assert_array_equal(search.ask(), asked)
    assert search.restart(population=2).population == 2


def test_given_utilities_restart_with_their_own_population(kind: type[Any]) -> None:
    utilities = [0.5, 0.2, -0.2, -0.5]
    options: dict[str, Any] = {"population": 4, "utilities": utilities, "tolerance": 1e-2, "rng": 0}
    search = kind(np.ones(2), 0.5, **options)
    result = search.minimize(sphere, max_evaluations=5000, restarts=3, vectorized=True)
    assert (result.restarts, result.status) == (3, ff.Status.SUCCESS)
    assert sorted({record.population for record in result.history}) == [4]
    assert result.loss == sphere(result.theta) == search.best_loss
    # Room for one more generation is room for a restart.
    used = (
        kind(np.ones(2), 0.5, **options)
        .minimize(sphere, max_evaluations=5000, vectorized=True)
        .evaluations
    )
    tight = kind(np.ones(2), 0.5, **options).minimize(
        sphere, max_evaluations=used + 4, restarts=1, vectorized=True
    )
    assert (tight.restarts, tight.evaluations) == (1, used + 4)


def test_a_restart_forgets_for_how_long_the_loss_has_been_flat(kind: type[Any]) -> None:
    """Else the first generation of the next attempt would end it."""
    search = run(kind(np.ones(3), 0.5, rng=0), 24, lambda x: np.full(len(x), 3.0))
    assert search.status is ff.Status.STAGNATED
    search = run(search.restart(population=7), 22, lambda x: np.full(len(x), 3.0))
    assert search.status is None
    result = kind(np.ones(3), 0.5, population=4, utilities=[2.0, 1.0, -1.0, -2.0]).minimize(
        lambda _: 3.0, max_evaluations=10_000, restarts=2
    )
    # Patience is 33 generations; the first of all is not yet the same as one before.
    assert (result.restarts, result.iterations) == (2, 3 * 33 + 1)


# ---- copies ----
@pytest.mark.parametrize("asked", [False, True])
def test_a_pickle_goes_on_where_the_search_was(kind: type[Any], asked: bool) -> None:
    search = run(kind(np.ones(4), 0.5, rng=0), 10)
    if asked:
        search.ask()
    copy = pickle.loads(pickle.dumps(search))
    for one in (search, copy):
        run(one, 10)
    np.testing.assert_array_equal(state(copy), state(search))
    np.testing.assert_array_equal(copy.best, search.best)
    assert repr(copy) == repr(search)


def test_a_result_is_frozen_and_pickles(kind: type[Any]) -> None:
    result = kind(np.ones(3), 0.5, rng=0).minimize(sphere, max_evaluations=70, vectorized=True)
    with pytest.raises(AttributeError):
        result.loss = 0.0
    copy = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(copy.theta, result.theta)
    assert copy.status is result.status


def test_repr_says_how_far_it_is(kind: type[Any]) -> None:
    search = kind(np.ones(3), 0.5, rng=0)
    assert repr(search) == (
        f"{kind.__name__}(3 parameters, population=7, generations=0, best_loss=inf)"
    )


def test_no_matrix_that_will_not_fit(kind: type[Any]) -> None:
    with pytest.raises(ff.MemoryLimitError, match=kind.__name__):
        kind(np.ones(3_000_000), 1.0).covariance()


def test_many_parameters_need_no_matrix(kind: type[Any]) -> None:
    if kind is ff.SNES:
        p = 20_000
        start = sphere(np.ones(p))
        search = run(ff.SNES(np.ones(p), 1.0, rng=0), 5)
        assert search.best_loss < 2.5 * start
        assert math.isfinite(search.condition())
