"""C2: TRPO's step is the best one of its KL divergence, and a policy learns by it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle
import representations
from fastfisher.families.family import Family

CASES: dict[str, Any] = {name: rest for name, *rest in representations.cases()}
LAMBDA = 0.3


def draw(p: int, *seed: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a positive definite matrix of condition near 100, and a gradient."""
    rng = oracle.rng(p, *seed)
    Q, _ = np.linalg.qr(rng.standard_normal((p, p)))
    F = Q @ (np.logspace(-1, 1, p)[:, None] * Q.T)
    return (F + F.T) / 2, rng.standard_normal(p)


# ---- the closed form ----
@pytest.mark.parametrize("p", oracle.SIZES)
@pytest.mark.parametrize("delta", [1e-8, 0.01, 30.0])
def test_c2_is_the_closed_form(p: int, delta: float) -> None:
    F, g = draw(p)
    x = np.linalg.solve(F, g)
    expected = np.sqrt(2 * delta / (g @ x)) * x
    step = ff.trust_region_step(F, g, delta).value
    oracle.close(step, expected, np.float64, 10 * p * np.linalg.cond(F))
    # A quadratic form is exact to p terms of its size ‖F‖ ‖Δ‖².
    size = np.linalg.norm(F, 2) * (step @ step)
    oracle.close(step @ F @ step / 2, delta, np.float64, 10 * p, size)


@pytest.mark.parametrize(
    "solver",
    ["auto", ff.Cholesky(), ff.CG(rtol=1e-13), ff.CG(1e-13, preconditioner=None), ff.Dual(),
     ff.QR(), ff.Eigh()],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize(("n", "p"), [(60, 13), (9, 26)])
def test_c2_every_solver_gives_one_step(solver: Any, n: int, p: int) -> None:
    S = oracle.draw(n, p)
    F, g = oracle.fisher(S), oracle.rng(7).standard_normal(p)
    x = np.linalg.solve(F + LAMBDA * np.eye(p), g)
    step = ff.trust_region_step(ff.ScoreFisher(S), g, 0.02, damping=LAMBDA, solver=solver)
    # What CG leaves, and what Woodbury's identity loses, is below κ of what is solved.
    kappa = np.linalg.cond(F + LAMBDA * np.eye(p))
    oracle.close(step.value, np.sqrt(0.04 / (x @ F @ x)) * x, np.float64, 1000 * kappa)
    assert step.status == ff.Status.SUCCESS
    assert step.damping_used == LAMBDA


@pytest.mark.parametrize("name", CASES)
def test_c2_any_representation(name: str) -> None:
    F, matrix, _ = CASES[name]
    p = len(matrix)
    g = oracle.rng(p, 5).standard_normal(p)
    damped = matrix + LAMBDA * np.eye(p)
    x = np.linalg.solve(damped, g)
    expected = np.sqrt(0.02 / (x @ matrix @ x)) * x
    kappa = np.linalg.cond(damped)
    solution = ff.trust_region_step(F, g, 0.01, damping=LAMBDA)
    oracle.close(solution.value, expected, np.float64, 100 * p * kappa)
    size = np.linalg.norm(matrix, 2) * (expected @ expected)
    oracle.close(F.quadratic_form(solution.value) / 2, 0.01, np.float64, 100 * p, size)

    def objective(theta: np.ndarray) -> float:
        return float(g @ theta)

    def kl(theta: np.ndarray) -> float:
        return float(theta @ matrix @ theta) / 2

    update = ff.trpo_step(
        objective, kl, np.zeros(p), g, F, cg_damping=LAMBDA, cg_iters=10 * p, max_kl=0.01
    )
    assert update.status == ff.Status.SUCCESS
    assert update.backtracks == 0
    # Conjugate gradients stop at a residual of 1e-5.
    oracle.close(update.theta, expected, np.float64, 1e-5 * kappa / np.finfo(float).eps)
    np.testing.assert_allclose(update.kl, 0.01, rtol=1e-7)


# ---- the best step there is ----
def test_c2_no_other_step_of_that_kl_ascends_as_much() -> None:
    """Sampled on the ellipsoid ½ΔᵀFΔ = δ, all directions and those near the best."""
    F, g = draw(3)
    delta = 0.05
    best = ff.trust_region_step(F, g, delta).value
    rng = oracle.rng(8)
    for spread in (np.inf, 0.1, 1e-3):
        D = rng.standard_normal((20_000, 3))
        D = D if spread == np.inf else best + spread * np.linalg.norm(best) * D
        D *= np.sqrt(2 * delta / np.einsum("ni,ij,nj->n", D, F, D))[:, None]
        assert (D @ g).max() <= g @ best * (1 + 1e-12)
    assert (D @ g).max() > g @ best * (1 - 1e-5)  # the sample comes close: it would have shown


def test_c2_is_what_a_general_optimiser_finds() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    F, g = draw(4)
    delta = 0.3
    found = optimize.minimize(
        lambda d: -g @ d,
        np.full(4, 0.01),
        jac=lambda d: -g,
        method="SLSQP",
        constraints={
            "type": "ineq",
            "fun": lambda d: delta - d @ F @ d / 2,
            "jac": lambda d: -F @ d,
        },
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    step = ff.trust_region_step(F, g, delta).value
    np.testing.assert_allclose(step, found.x, rtol=0, atol=1e-6 * np.abs(step).max())


# ---- true divergences ----
def families() -> Iterator[Family]:
    F = ff.families
    yield F.Gaussian(0.4, 1.7, fixed_scale=True)
    yield F.Gaussian(0.4, 1.7)
    yield F.Poisson(2.5)
    yield F.Exponential(0.7)
    yield F.Binomial(5, 0.3)
    yield F.Bernoulli(0.8)
    yield F.Categorical([0.0, 0.5, -1.0])  # singular: a common shift of the logits
    covariance = [[1.0, 0.3], [0.3, 2.0]]
    yield F.MultivariateGaussian([0.1, 0.2], covariance)
    yield F.MultivariateGaussian([0.1, 0.2], covariance, fixed_covariance=False)


@pytest.mark.parametrize("family", list(families()), ids=repr)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_c2_the_divergence_of_a_step_tends_to_max_kl(family: Family, sign: float) -> None:
    """KL(Δ) = δ (1 + O(√δ)): the relative error falls by ten where δ falls by a hundred."""
    theta, F = family.parameters, family.fisher_information()
    g = sign * F @ np.linspace(0.5, 1.0, len(theta)) ** 2  # in the range of a singular F
    errors = []
    for delta in 10.0 ** np.arange(-2, -8, -2):
        step = ff.trust_region_step(F, g, delta, on_failure="pinv").value
        errors.append(abs(family.kl(family.with_parameters(theta + step)) / delta - 1))
    # KL comes from terms of size 1, so that what is left of it has an error of eps / δ.
    floor = 64 * np.finfo(float).eps / 10.0 ** np.arange(-2, -8, -2)
    assert errors[0] < 0.5
    for before, after, rounding in zip(errors, errors[1:], floor[1:], strict=False):
        assert after <= before / 10 * 1.6 + rounding
    rate = np.log10(max(errors[0], 1e-300) / max(errors[1], floor[1])) / 2
    assert errors[0] <= floor[0] or rate > 0.4  # half, or better where the third order vanishes


def test_c2_a_linear_change_of_parameters_changes_nothing() -> None:
    """θ = Jφ: the step of φ, with JᵀFJ and Jᵀg, is J⁻¹ times that of θ."""
    F, g = draw(5)
    J = oracle.rng(12).standard_normal((5, 5))
    by_phi = ff.trust_region_step(ff.reparametrize(F, J), J.T @ g, 0.3).value
    kappa = np.linalg.cond(F) * np.linalg.cond(J) ** 2
    oracle.close(J @ by_phi, ff.trust_region_step(F, g, 0.3).value, np.float64, 10 * kappa)


def test_c2_invariance_under_reparametrisation() -> None:
    """By the log of the mean or by the mean: the same distribution as δ → 0, only then."""
    mean, gradient = 0.7, 1.3
    gaps = []
    for delta in (1e-2, 1e-4, 1e-6):
        by_mean = mean + ff.trust_region_step([[1 / mean**2]], [gradient], delta).value[0]
        by_log = mean * np.exp(ff.trust_region_step([[1.0]], [gradient * mean], delta).value[0])
        gaps.append(abs(by_log - by_mean) / np.sqrt(delta))
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]


# ---- what can go wrong ----
SINGULAR = np.diag([1.0, 0.0])
INDEFINITE = np.array([[1.0, 2.0], [2.0, 1.0]])
NOT_A_NUMBER = ff.ScoreFisher(np.array([[1.0, np.nan], [0.0, 1.0]]), check_finite=False)
TRUNCATED = ff.CG(max_iterations=10, preconditioner=None, allow_truncated=True)


@pytest.mark.parametrize("solver", ["auto", TRUNCATED])
@pytest.mark.parametrize("damping", [0.0, 5.0])
@pytest.mark.parametrize(
    ("fisher", "grad", "statuses", "error"),
    [
        (-np.eye(2), [1.0, 1.0], "NEGATIVE_CURVATURE NOT_POSITIVE_DEFINITE",
         ff.NotPositiveDefiniteError),
        (INDEFINITE, [1.0, -1.0], "NEGATIVE_CURVATURE NOT_POSITIVE_DEFINITE",
         ff.NotPositiveDefiniteError),
        (SINGULAR, [0.0, 1.0], "NEGATIVE_CURVATURE NOT_POSITIVE_DEFINITE",
         ff.NotPositiveDefiniteError),
        (NOT_A_NUMBER, [1.0, 1.0], "NON_FINITE", ff.NonFiniteError),
        (np.eye(2), [1.0, np.nan], "NON_FINITE", ff.NonFiniteError),
        (np.eye(2), [-np.inf, 1.0], "NON_FINITE", ff.NonFiniteError),
    ],
)  # fmt: skip
def test_c2_what_fails_has_a_name_and_moves_nothing(
    fisher: np.ndarray | ff.ScoreFisher,
    grad: Sequence[float],
    statuses: str,
    error: type[Exception],
    damping: float,
    solver: str | ff.CG,
) -> None:
    options: dict[str, Any] = {"damping": damping, "solver": solver}
    with pytest.raises(error):
        ff.trust_region_step(fisher, grad, 0.01, **options)
    solution = ff.trust_region_step(fisher, grad, 0.01, on_failure="zero", **options)
    assert solution.status.name in statuses
    assert solution.message
    np.testing.assert_array_equal(solution.value, [0.0, 0.0])

    theta = np.array([3.0, 4.0])
    update = ff.trpo_step(
        lambda t: 0.0, lambda t: 0.0, theta, grad, fisher, cg_damping=damping, solver=solver
    )
    assert update.status == solution.status
    assert update.message == solution.message
    np.testing.assert_array_equal(update.theta, [3.0, 4.0])
    np.testing.assert_array_equal(update.step, [0.0, 0.0])
    assert update.theta is not theta


@pytest.mark.parametrize("fisher", [np.eye(2), SINGULAR, INDEFINITE, NOT_A_NUMBER])
def test_c2_zero_gradient(fisher: np.ndarray | ff.ScoreFisher) -> None:
    solution = ff.trust_region_step(fisher, [0.0, 0.0], 0.01)
    assert solution.status == ff.Status.ZERO_GRADIENT
    np.testing.assert_array_equal(solution.value, [0.0, 0.0])
    update = ff.trpo_step(lambda t: 1.0, lambda t: 0.0, np.ones(2), np.zeros(2), fisher)
    assert update.status == ff.Status.ZERO_GRADIENT
    assert (update.objective, update.kl, update.improvement) == (1.0, 0.0, 0.0)
    np.testing.assert_array_equal(update.theta, [1.0, 1.0])


def test_c2_the_curvature_of_a_wrong_divergence_is_refused() -> None:
    """rllab #24: the curvature of a KL that is not 0 at the parameters need not be positive."""
    old, here = ff.Bernoulli(0.05), 0.9

    def kl(z: float) -> float:
        return float(old.kl(ff.Bernoulli(1 / (1 + np.exp(-(z + 0.3 * np.sin(9 * z)))))))

    h = 1e-4
    curvature = (kl(here + h) - 2 * kl(here) + kl(here - h)) / h**2
    assert curvature < 0
    with pytest.raises(ff.NotPositiveDefiniteError, match="curvature"):
        ff.trust_region_step(lambda v: curvature * v, [1.0], 0.01, damping=2 * abs(curvature))


def test_c2_truncated_conjugate_gradients_still_spend_max_kl() -> None:
    F, g = draw(97)
    slopes = []
    for iterations in (1, 3, 10, 300):
        solver = ff.CG(1e-12, 0.0, iterations, None, allow_truncated=True)
        solution = ff.trust_region_step(F, g, 0.01, solver=solver)
        truncated = ff.Status.MAX_ITERATIONS if iterations < 97 else ff.Status.SUCCESS
        assert solution.status == truncated
        np.testing.assert_allclose(solution.value @ F @ solution.value / 2, 0.01, rtol=1e-12)
        slopes.append(g @ solution.value)
    assert slopes == sorted(slopes)  # each Krylov space holds the one before
    np.testing.assert_allclose(slopes[-1], g @ ff.trust_region_step(F, g, 0.01).value)


# ---- a control task ----
@pytest.mark.slow
def test_c2_a_policy_learns_to_balance() -> None:
    """CartPole-v1 counts as solved at 475 of 500; an untrained policy gets about 25."""
    pytest.importorskip("gymnasium")
    import trpo_cartpole as example

    returns, divergences, theta = example.learn(example.trust_region, 0, 40, 16)
    assert returns[0] < 60
    assert divergences.max() <= example.MAX_KL * (1 + 1e-7)
    assert example.evaluate(theta) >= example.SOLVED
