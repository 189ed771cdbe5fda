"""C5 of the theory: evolution strategies are the natural gradient of a search distribution."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import floor, log, sqrt
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from scipy.linalg import expm

import fastfisher as ff
import oracle
import xnes_rosenbrock
from distributions import hermite, hermite_of_several
from fastfisher.applications.evolution.strategy import EvolutionStrategy

EPS = np.finfo(np.float64).eps
MU, SIGMA = np.array([0.4, -1.1]), np.array([[1.3, -0.4], [-0.4, 0.6]])
STRATEGIES = [ff.SNES, ff.XNES]


def sphere(x: np.ndarray) -> float | np.ndarray:
    answer: float | np.ndarray = (x**2).sum(axis=-1)
    return answer


def ellipsoid(x: np.ndarray) -> float | np.ndarray:
    """Axes whose curvatures grow from 1 to 10⁶."""
    p = x.shape[-1]
    answer: float | np.ndarray = (10.0 ** (6 * np.arange(p) / max(1, p - 1)) * x**2).sum(axis=-1)
    return answer


def rosenbrock(x: np.ndarray) -> float | np.ndarray:
    answer: float | np.ndarray = (
        100 * (x[..., 1:] - x[..., :-1] ** 2) ** 2 + (1 - x[..., :-1]) ** 2
    ).sum(axis=-1)
    return answer


def rastrigin(x: np.ndarray) -> np.ndarray:
    """About 10^p minima, one of them 0."""
    answer: np.ndarray = (10 + x**2 - 10 * np.cos(2 * np.pi * x)).sum(axis=-1)
    return answer


def rotation(p: int) -> np.ndarray:
    return np.linalg.qr(oracle.draw(p, p))[0]


class Turned(np.random.Generator):
    """Normal draws, turned by a matrix."""

    def __init__(self, seed: int, by: np.ndarray) -> None:
        super().__init__(np.random.PCG64(seed))
        self.by = by

    def standard_normal(self, shape: tuple[int, int]) -> np.ndarray:  # type: ignore[override]
        answer: np.ndarray = super().standard_normal(shape) @ self.by.T
        return answer


def five_points(
    f: Callable[[np.ndarray], float], theta: np.ndarray, step: float = 0.1
) -> np.ndarray:
    """Return the gradient of a polynomial of degree at most 4 in each coordinate: no error."""
    e = step * np.eye(len(theta))
    return np.array([
        (f(theta - 2 * d) - 8 * f(theta - d) + 8 * f(theta + d) - f(theta + 2 * d)) / (12 * step)
        for d in e
    ])  # fmt: skip


# ---- the gradient of the expected loss ----
def quartic(x: np.ndarray) -> np.ndarray:
    answer: np.ndarray = x[:, 0] ** 4 + x[:, 0] * x[:, 1] ** 2 - 3 * x[:, 0] * x[:, 1] + x[:, 1]
    return answer


def expected(loss: Callable[[np.ndarray], Any], family: ff.MultivariateGaussian) -> float:
    x, w = hermite_of_several(family.mean, family.covariance)
    return float(w @ loss(x))


def test_c5_gradient_of_the_expected_loss_is_the_mean_of_loss_times_score() -> None:
    """∇E[ℓ] = E[ℓ ∇log p], exactly: quadrature of polynomials against differences of the same."""
    family = ff.MultivariateGaussian(MU, SIGMA, fixed_covariance=False)
    x, w = hermite_of_several(MU, SIGMA)
    by_score = (w * quartic(x)) @ family.score(x)
    by_differences = five_points(
        lambda theta: expected(quartic, family.with_parameters(theta)), family.parameters
    )
    np.testing.assert_allclose(
        by_score, by_differences, rtol=0, atol=1e4 * EPS * abs(by_score).max()
    )


def test_c5_a_baseline_changes_nothing() -> None:
    """E[b ∇log p] = 0, so utilities may be shifted: the published ones sum to zero."""
    family = ff.MultivariateGaussian(MU, SIGMA, fixed_covariance=False)
    x, w = hermite_of_several(MU, SIGMA)
    np.testing.assert_allclose(w @ family.score(x), 0, atol=1e2 * EPS)


def test_c5_natural_gradient_of_a_quadratic_is_known() -> None:
    """Of ½ xᵀHx it is Σ H μ for the mean and Σ H Σ for the covariance: no curvature is left."""
    H = np.array([[2.0, 0.3], [0.3, 1.0]])
    family = ff.MultivariateGaussian(MU, SIGMA, fixed_covariance=False)
    x, w = hermite_of_several(MU, SIGMA)
    gradient = (w * 0.5 * np.einsum("ni,ij,nj->n", x, H, x)) @ family.score(x)
    natural = ff.solve(family.fisher_information(), gradient).value
    known = np.concatenate([SIGMA @ H @ MU, (SIGMA @ H @ SIGMA)[np.tril_indices(2)]])
    np.testing.assert_allclose(natural, known, rtol=1e3 * EPS)


def test_c5_monte_carlo_gradient_is_unbiased() -> None:
    family = ff.MultivariateGaussian(MU, SIGMA, fixed_covariance=False)
    x, w = hermite_of_several(MU, SIGMA)
    exact = (w * quartic(x)) @ family.score(x)
    draws = family.sample(100_000, rng=oracle.rng(5))
    terms = quartic(draws)[:, None] * family.score(draws)
    error = terms.std(axis=0) / sqrt(len(draws))
    assert (abs(terms.mean(axis=0) - exact) <= 5 * error).all()


def test_c5_fisher_is_the_identity_in_local_coordinates() -> None:
    """By z and M of x = μ + A exp(½M) z: I, and ½ for the diagonal of M, 1 for the rest."""
    A = np.linalg.cholesky(SIGMA)
    F = ff.MultivariateGaussian(MU, SIGMA, fixed_covariance=False).fisher_information()
    rows, columns = np.tril_indices(2)
    J = np.zeros((5, 5))
    J[:2, :2] = A
    for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
        M = np.zeros((2, 2))
        M[i, j] = M[j, i] = 1.0
        J[2:, 2 + k] = (A @ M @ A.T)[rows, columns]
    local = np.diag([1.0, 1.0, 0.5, 1.0, 0.5])
    np.testing.assert_allclose(ff.reparametrize(F, J), local, atol=1e2 * EPS)


# ---- one generation is one natural gradient step ----
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "few": {"population": 2},
    "many": {"population": 40},
    "mirrored": {"population": 7, "mirrored": True},
    "utilities": {"population": 4, "utilities": [2.0, 1.0, 0.5, 0.5]},
    "rates": {"mean_rate": 0.7, "sigma_rate": 0.3},
}
SHAPES: dict[str, dict[str, Any]] = {
    "shape": {"shape_rate": 0.1, "sigma_rate": 0.6},
    "shape-utilities": {"shape_rate": 0.3, "sigma_rate": 0.1, **OPTIONS["utilities"]},
}


def moved(search: EvolutionStrategy, generations: int = 4) -> tuple[EvolutionStrategy, np.ndarray]:
    """Return a strategy whose distribution is no longer what it began with, and has been asked."""
    for _ in range(generations):
        search.tell(ellipsoid(search.ask()))
    return search, search.ask()


def utilities_by_rank(
    search: EvolutionStrategy, losses: Any, given: Sequence[float] | None
) -> np.ndarray:
    if given is None:
        n = len(losses)
        shares = np.maximum(0, np.log(n / 2 + 1) - np.log(np.arange(1, n + 1)))
        given = shares / shares.sum() - 1 / n
    u = np.empty(len(losses))
    u[np.argsort(losses)] = given
    return u


@pytest.mark.parametrize("name", [*OPTIONS, *SHAPES])
@pytest.mark.parametrize("p", [1, 2, 3, 6])
def test_c5_xnes_moves_by_the_inverse_fisher_times_the_score(p: int, name: str) -> None:
    options = (OPTIONS | SHAPES)[name]
    search: Any
    search, x = moved(ff.XNES(np.ones(p), 1.0, rng=0, **options))
    mean, C = search.mean, search.covariance()
    family = ff.MultivariateGaussian(mean, C, fixed_covariance=False)
    u = utilities_by_rank(search, rosenbrock(x - 1) + sphere(x), options.get("utilities"))
    step = ff.solve(family.fisher_information(), u @ family.score(x)).value
    search.tell(rosenbrock(x - 1) + sphere(x))

    wide = 1e3 * p * EPS * np.linalg.cond(C)  # the covariance is inverted in the score, and F is
    np.testing.assert_allclose(
        search.mean, mean + search.mean_rate * step[:p], rtol=0, atol=wide * abs(step).max()
    )
    rows, columns = np.tril_indices(p)
    D = np.zeros((p, p))
    D[rows, columns] = D[columns, rows] = step[p:]  # Ċ, along which C(t) = L exp(t L⁻¹ Ċ L⁻ᵀ) Lᵀ
    L = np.linalg.cholesky(C)
    M = np.linalg.solve(L, np.linalg.solve(L, D).T)
    size = np.trace(M) / p * np.eye(p)
    new = L @ expm(search.shape_rate * (M - size) + search.sigma_rate * size) @ L.T
    np.testing.assert_allclose(search.covariance(), new, rtol=0, atol=wide * abs(new).max())


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("p", [1, 2, 5])
def test_c5_snes_moves_by_the_inverse_fisher_times_the_score(p: int, name: str) -> None:
    options = OPTIONS[name]
    search: Any
    search, x = moved(ff.SNES(np.ones(p), np.linspace(1.0, 2.0, p), rng=0, **options))
    family = ff.Gaussian(search.mean, search.sigma)
    u = utilities_by_rank(search, sphere(x), options.get("utilities"))
    gradient = np.einsum("n,npk->pk", u, family.score(x))
    d_mean, d_sigma = ff.batch.solve(family.fisher_information(), gradient).value.T
    search.tell(sphere(x))
    wide = 1e3 * EPS
    np.testing.assert_allclose(
        search.mean, family.mean + search.mean_rate * d_mean, rtol=wide, atol=wide
    )
    grown = family.scale * np.exp(search.sigma_rate * d_sigma / family.scale)
    np.testing.assert_allclose(search.sigma, grown, rtol=wide)


def test_c5_large_populations_follow_the_expected_gradient() -> None:
    """With the loss itself as utility a step is the Monte-Carlo natural gradient of its mean."""
    p, n = 3, 200_000
    u = np.sort(oracle.draw(n, 1)[:, 0])[::-1]
    search = ff.XNES(np.zeros(p), 1.0, population=n, utilities=u / n, rng=1)
    x = search.ask()
    search.tell(x[:, 0] + 0.5 * x[:, 1])  # a linear loss: its ranks are normal, as u is
    direction = np.array([1.0, 0.5, 0.0]) / sqrt(1.25)
    np.testing.assert_allclose(search.mean, -direction, atol=5 / sqrt(n))


# ---- the published algorithms ----
def published(
    kind: Any,
    p: int,
    mean: np.ndarray,
    sigma: float,
    generations: int,
    rng: np.random.Generator,
    loss: Callable[[np.ndarray], Any],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield means and covariances of the pseudo-code of the paper, draw by draw."""
    n = 4 + floor(3 * log(p))
    u = np.array([max(0.0, log(n / 2 + 1) - log(k)) for k in range(1, n + 1)])
    u = u / u.sum() - 1 / n
    mu, B, s = mean.copy(), np.eye(p), sigma
    stds = np.full(p, sigma)
    for _ in range(generations):
        z = rng.standard_normal((n, p))
        x = np.array([mu + (stds * one if kind is ff.SNES else s * B @ one) for one in z])
        z = z[np.argsort([loss(one) for one in x])]
        delta = sum(weight * one for weight, one in zip(u, z, strict=True))
        if kind is ff.SNES:
            gradient = sum(weight * (one**2 - 1) for weight, one in zip(u, z, strict=True))
            mu = mu + stds * delta
            stds = stds * np.exp((3 + log(p)) / (5 * sqrt(p)) / 2 * gradient)
            yield mu, np.diag(stds**2)
        else:
            M = sum(w * (np.outer(one, one) - np.eye(p)) for w, one in zip(u, z, strict=True))
            size = np.trace(M) / p
            rate = (9 + 3 * log(p)) / (5 * p * sqrt(p))
            mu = mu + s * B @ delta
            s = s * np.exp(rate / 2 * size)
            B = B @ expm(rate / 2 * (M - size * np.eye(p)))
            yield mu, s**2 * B @ B.T


@pytest.mark.parametrize("kind", STRATEGIES)
@pytest.mark.parametrize("p", [2, 3, 10])
def test_c5_generations_are_those_of_the_paper(kind: Any, p: int) -> None:
    search = kind(-np.ones(p), 0.5, rng=3)
    theirs = published(kind, p, -np.ones(p), 0.5, 60, np.random.default_rng(3), rosenbrock)
    for generation, (mu, covariance) in enumerate(theirs, 1):
        search.tell(rosenbrock(search.ask()))
        wide = 1e2 * p * generation * EPS * np.linalg.cond(covariance)
        np.testing.assert_allclose(search.mean, mu, rtol=0, atol=wide)
        np.testing.assert_allclose(
            search.covariance(), covariance, rtol=0, atol=wide * abs(covariance).max()
        )


# Evaluations to 1e-10, medians of 21 seeds: the XNES of cmaes 0.13.1 and the SNES of pypop7 0.0.82,
# from (1, …, 1) with sigma 1 on sphere and ellipsoid, from (−1, …, −1) with 0.5 on Rosenbrock. The
# paper draws its own counts in figures without a table.
BUDGETS: dict[Any, dict[int, int]] = {
    (ff.XNES, sphere): {2: 384, 4: 1256, 8: 4930},
    (ff.XNES, ellipsoid): {2: 648, 4: 1832, 8: 6880},
    (ff.XNES, rosenbrock): {2: 738, 4: 1904, 8: 7830},
    (ff.SNES, sphere): {2: 464, 4: 906, 8: 1870, 16: 3915, 32: 8537},
    (ff.SNES, ellipsoid): {2: 702, 4: 1285, 8: 2581, 16: 5306, 32: 11213},
}


def evaluations(
    kind: Any,
    loss: Callable[[np.ndarray], Any],
    p: int,
    seeds: int,
    turned: bool = False,
) -> Iterator[int]:
    Q = rotation(p) if turned else np.eye(p)
    start, sigma = (-np.ones(p), 0.5) if loss is rosenbrock else (np.ones(p), 1.0)
    for seed in range(seeds):
        search = kind(Q.T @ start, sigma, rng=seed)
        result = search.minimize(
            lambda x: loss(x @ Q.T), max_evaluations=100_000, target=1e-10, vectorized=True
        )
        assert result.status is ff.Status.SUCCESS
        assert result.loss <= 1e-10
        assert result.loss == loss(Q @ result.theta) or turned
        yield result.evaluations


@pytest.mark.parametrize(
    ("kind", "loss", "p"), [(*case, p) for case, table in BUDGETS.items() for p in table]
)
def test_c5_reaches_1e_10_within_the_evaluations_of_others(
    kind: Any, loss: Callable[[np.ndarray], Any], p: int
) -> None:
    """Medians of some runs differ by chance: by a third in two dimensions and on Rosenbrock.

    From 8 dimensions on one run is as good: nine differ from their median by 6 %, on Rosenbrock by
    a fifth.
    """
    median = np.median(list(evaluations(kind, loss, p, {2: 9, 4: 3}.get(p, 1))))
    chance = 4 / 3 if p == 2 or loss is rosenbrock else 7 / 6
    assert median <= chance * BUDGETS[kind, loss][p]


@pytest.mark.parametrize("loss", [sphere, ellipsoid, rosenbrock])
def test_c5_xnes_needs_no_axes(loss: Callable[[np.ndarray], Any]) -> None:
    median = np.median(list(evaluations(ff.XNES, loss, 4, 5, turned=True)))
    assert median <= 4 / 3 * BUDGETS[ff.XNES, loss][4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "median"), [(sphere, 20688), (ellipsoid, 27864), (rosenbrock, 30660)]
)
def test_c5_xnes_reaches_1e_10_in_16_dimensions(
    loss: Callable[[np.ndarray], Any], median: Any
) -> None:
    """Single runs differ from the median by 2 %, on Rosenbrock by 8 %."""
    assert next(evaluations(ff.XNES, loss, 16, 1, turned=True)) <= 7 / 6 * median


def test_c5_snes_needs_its_axes() -> None:
    """A turned ellipsoid is what SNES cannot learn: the condition stays in its way."""
    Q = rotation(4)
    result = ff.SNES(np.ones(4), 1.0, rng=0).minimize(
        lambda x: ellipsoid(x @ Q.T), max_evaluations=10 * 1285, target=1e-10, vectorized=True
    )
    assert result.status is not ff.Status.SUCCESS


# ---- invariance ----
@pytest.mark.parametrize("population", [None, 5, 20])
def test_c5_xnes_does_not_see_a_rotation(population: int | None) -> None:
    """The same draws, turned with problem, mean and covariance, meet the same losses."""
    p, generations = 6, 150
    Q, C = rotation(p), np.diag(np.linspace(0.1, 0.5, p))
    one = ff.XNES(-np.ones(p), C, population=population, rng=Turned(3, np.eye(p)))
    two = ff.XNES(-Q @ np.ones(p), Q @ C @ Q.T, population=population)
    W = np.linalg.solve(Q @ np.sqrt(C), two._scale)  # every root of Q C Qᵀ is some Q √C W
    two._rng = Turned(3, W.T)
    for generation in range(1, generations):
        losses, turned = rosenbrock(one.ask()), rosenbrock(two.ask() @ Q)
        # The loss is at most 100 · cond(A) as sensitive as x is.
        np.testing.assert_allclose(turned, losses, rtol=1e3 * generation * EPS)
        one.tell(losses)
        two.tell(turned)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_c5_strategies_see_nothing_but_ranks(kind: Any) -> None:
    """Any rising function of the loss gives the same bits."""
    plain = kind(-np.ones(4), 0.5, rng=0)
    others = [kind(-np.ones(4), 0.5, rng=0) for _ in range(3)]
    for _ in range(100):
        losses = rosenbrock(plain.ask())
        plain.tell(losses)
        rising = (np.log(losses), 1e-200 * losses, np.argsort(np.argsort(losses)))
        for search, transformed in zip(others, rising, strict=True):
            search.ask()
            search.tell(transformed)
            np.testing.assert_array_equal(search.mean, plain.mean)
            np.testing.assert_array_equal(search.covariance(), plain.covariance())


@pytest.mark.parametrize("kind", STRATEGIES)
def test_c5_strategies_do_not_see_units(kind: Any) -> None:
    """Powers of two round nothing: SNES searches in any units of each coordinate."""
    units = 2.0 ** np.array([3, -5, 40]) if kind is ff.SNES else np.full(3, 2.0**-7)
    one, two = kind(np.ones(3), 0.5, rng=0), kind(units, 0.5 * units, rng=0)
    for _ in range(60):
        losses = sphere(one.ask() - 0.2)
        np.testing.assert_array_equal(sphere(two.ask() / units - 0.2), losses)
        one.tell(losses)
        two.tell(losses)
    np.testing.assert_array_equal(two.mean, units * one.mean)


# ---- many minima ----
def test_c5_restarts_find_the_lowest_of_many_minima() -> None:
    start = np.full(2, 3.0)
    found = []
    for restarts in (0, 9):
        results = [
            ff.XNES(start, 2.0, rng=seed, tolerance=1e-6).minimize(
                rastrigin, max_evaluations=20_000, target=1e-8, restarts=restarts, vectorized=True
            )
            for seed in range(5)
        ]
        found.append(sum(result.loss <= 1e-8 for result in results))
    assert found[0] < found[1] == 5


def test_c5_one_dimension() -> None:
    """The published rates at p = 1, on a loss whose minimum is elsewhere than its median."""
    nodes, weights = hermite(0.0, 1.0)
    assert weights @ nodes**2 == pytest.approx(1.0)
    for kind, seed in product(STRATEGIES, range(3)):
        result = kind([3.0], 1.0, rng=seed).minimize(
            lambda x: np.exp(x[:, 0]) - 2 * x[:, 0], max_evaluations=4000, vectorized=True
        )
        assert result.theta[0] == pytest.approx(log(2), abs=1e-6)


def test_c5_the_example_draws_its_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "picture.png"
    with mpl.rc_context():
        xnes_rosenbrock.main(str(path), dimensions=(2,), evaluations=2000)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "XNES          2" in capsys.readouterr().out
