"""Least squares: statistics of other packages, every ending, any Fisher, and every refusal."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse.linalg
import statsmodels.api as sm

import fastfisher as ff
import nist
import oracle
import representations
import spectral_lines

FITS = {"damped": ff.levenberg_marquardt, "plain": ff.gauss_newton}
X = np.linspace(0.0, 4.0, 25)
Y = 5 * np.exp(-0.5 * X) + 0.1 * oracle.draw(25, 1)[:, 0]
SIGMA = oracle.draw_weights(25) + 0.2


def noted(fit: ff.LeastSquaresResult, name: str) -> np.ndarray:
    """Return an attribute of all records of a fit, the start first."""
    return np.array([getattr(record, name) for record in fit.history])


def decay(x: np.ndarray, a: float, k: float) -> np.ndarray:
    return a * np.exp(-k * x)


def residuals(b: np.ndarray | Sequence[float]) -> np.ndarray:
    return decay(X, *b) - Y


def jacobian(b: np.ndarray | Sequence[float]) -> np.ndarray:
    e = np.exp(-b[1] * X)
    return np.column_stack([e, -b[0] * X * e])


def line() -> tuple[np.ndarray, np.ndarray]:
    """Return a linear problem: the design and the data."""
    return oracle.draw(40, 5), oracle.draw(40, 2)[:, 1]


# ---- what is found ----
@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_a_linear_model_takes_one_step_of_gauss_newton(fit: Callable[..., Any]) -> None:
    A, y = line()
    expected = np.linalg.lstsq(A, y)[0]
    found = fit(lambda b: A @ b - y, np.zeros(5), jacobian=lambda b: A)
    assert found.status is ff.Status.SUCCESS
    oracle.close(found.theta, expected, float, 1000)
    if fit is ff.gauss_newton:
        after = []
        fit(
            lambda b: A @ b - y,
            np.full(5, 100.0),
            jacobian=lambda b: A,
            callback=lambda state: after.append(state.theta),
        )
        oracle.close(after[1], expected, float, 1e5)


def test_statistics_of_a_linear_model_are_those_of_statsmodels() -> None:
    A, y = line()
    ols = sm.OLS(y, A).fit()
    found = ff.gauss_newton(lambda b: A @ b - y, np.zeros(5), jacobian=lambda b: A)
    np.testing.assert_allclose(found.theta, ols.params, rtol=1e-10)
    np.testing.assert_allclose(found.standard_errors(), ols.bse, rtol=1e-12)
    np.testing.assert_allclose(found.covariance(), ols.cov_params(), rtol=1e-10, atol=1e-14)
    assert found.degrees_of_freedom == ols.df_resid
    assert abs(found.residual_standard_deviation**2 / ols.mse_resid - 1) < 1e-12
    assert abs(2 * found.loss / ols.ssr - 1) < 1e-12

    sigma = oracle.draw_weights(40) + 0.5
    wls = sm.WLS(y, A, weights=1 / sigma**2).fit()
    found = ff.gauss_newton(lambda b: A @ b - y, np.zeros(5), jacobian=lambda b: A, sigma=sigma)
    np.testing.assert_allclose(found.theta, wls.params, rtol=1e-10)
    np.testing.assert_allclose(found.standard_errors(), wls.bse, rtol=1e-12)


@pytest.mark.parametrize("sigma", [None, SIGMA, 0.3])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_covariances_are_those_of_curve_fit(
    fit: Callable[..., Any], sigma: float | np.ndarray | None, absolute: bool
) -> None:
    given = None if sigma is None else np.broadcast_to(sigma, 25)
    expected, pcov = scipy.optimize.curve_fit(
        decay, X, Y, [4.0, 0.6], sigma=given, absolute_sigma=absolute and sigma is not None,
        jac=lambda x, *b: jacobian(b), xtol=1e-12, ftol=1e-12,
    )  # fmt: skip
    found = fit(
        residuals, [4.0, 0.6], jacobian=jacobian, sigma=sigma,
        absolute_sigma=absolute and sigma is not None,
    )  # fmt: skip
    np.testing.assert_allclose(found.theta, expected, rtol=1e-6)
    np.testing.assert_allclose(found.covariance(), pcov, rtol=1e-5)
    np.testing.assert_allclose(found.standard_errors() ** 2, np.diag(found.covariance()), rtol=1e-9)
    w = 1.0 if sigma is None else 1 / np.broadcast_to(sigma, 25) ** 2
    J, r = jacobian(found.theta), residuals(found.theta)
    np.testing.assert_allclose(found.fisher.to_dense(), J.T @ (np.ones(25) * w * J.T).T, rtol=1e-12)
    assert np.array_equal(found.residuals, r)
    assert np.array_equal(found.jacobian, J)
    assert abs(found.gradient).max() < 1e-8
    assert abs(found.loss - 0.5 * np.sum(w * r**2)) < 1e-12 * found.loss


@pytest.mark.parametrize("how", [None, "3-point", "2-point"])
def test_differences_are_the_derivatives(how: str | None) -> None:
    exact = ff.levenberg_marquardt(residuals, [1.0, 1.0], jacobian=jacobian)
    found = ff.levenberg_marquardt(residuals, [1.0, 1.0], jacobian=how)
    rtol = 1e-7 if how == "2-point" else 1e-9
    np.testing.assert_allclose(found.jacobian, exact.jacobian, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found.theta, exact.theta, rtol=rtol)
    calls = 1 if how == "2-point" else 2
    assert found.evaluations > calls * 2 * found.iterations / 2
    at_zero = ff.levenberg_marquardt(lambda b: b - [1.0, 2.0], [0.0, 0.0], jacobian=how)
    np.testing.assert_allclose(at_zero.theta, [1.0, 2.0], rtol=1e-8)


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_single_precision_stays_single(fit: Callable[..., Any]) -> None:
    x, y = X.astype(np.float32), Y.astype(np.float32)

    def r(b: np.ndarray) -> np.ndarray:
        assert b.dtype == np.float32
        answer: np.ndarray = b[0] * np.exp(-b[1] * x) - y
        return answer

    exact = fit(residuals, [4.0, 0.6], jacobian=jacobian)
    found = fit(r, np.array([4.0, 0.6], np.float32))
    assert found.status is ff.Status.SUCCESS
    assert found.theta.dtype == found.jacobian.dtype == np.float32
    assert found.standard_errors().dtype == np.float32
    np.testing.assert_allclose(found.theta, exact.theta, rtol=1e-4)
    np.testing.assert_allclose(found.standard_errors(), exact.standard_errors(), rtol=1e-3)


@pytest.mark.parametrize("how", [None, "2-point", jacobian])
@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_single_residuals_of_double_parameters(
    fit: Callable[..., Any], how: str | Callable[[np.ndarray | Sequence[float]], np.ndarray] | None
) -> None:
    """Differences and rounding go by the digits that the residuals have."""

    def r(b: np.ndarray) -> np.ndarray:
        answer: np.ndarray = (b[0] * np.exp(-b[1] * X) - Y).astype(np.float32)
        return answer

    exact = fit(residuals, [4.0, 0.6], jacobian=jacobian)
    found = fit(r, [4.0, 0.6], jacobian=how)
    assert found.status is ff.Status.SUCCESS, found.message
    assert found.theta.dtype == np.float64
    rtol = 1e-2 if how == "2-point" else 1e-4
    np.testing.assert_allclose(found.theta, exact.theta, rtol=rtol)
    np.testing.assert_allclose(found.standard_errors(), exact.standard_errors(), rtol=30 * rtol)


def test_results_do_not_depend_on_units() -> None:
    """With Marquardt's scale another unit of a parameter changes its number alone."""
    unit = np.array([2.0**20, 2.0**-30])
    first = ff.levenberg_marquardt(residuals, [1.0, 2.0], jacobian=jacobian)
    second = ff.levenberg_marquardt(
        lambda b: residuals(b * unit),
        np.array([1.0, 2.0]) / unit,
        jacobian=lambda b: jacobian(b * unit) * unit,
    )
    np.testing.assert_allclose(second.theta * unit, first.theta, rtol=1e-12)
    np.testing.assert_allclose(noted(second, "loss"), noted(first, "loss"), rtol=1e-9)


@pytest.mark.parametrize("options", [{}, {"damping_mode": "absolute"}, {"acceleration": False}])
@pytest.mark.parametrize("damping", [1e-8, 1.0, 1e4])
def test_every_damping_leads_there(damping: float, options: dict[str, Any]) -> None:
    found = ff.levenberg_marquardt(
        residuals, [1.0, 2.0], jacobian=jacobian, damping=damping, **options
    )
    assert found.status is ff.Status.SUCCESS
    exact = ff.gauss_newton(residuals, [4.0, 0.6], jacobian=jacobian)
    np.testing.assert_allclose(found.theta, exact.theta, rtol=1e-9)
    assert (np.diff(noted(found, "loss")) <= 1e-14 * found.loss).all()
    assert noted(found, "damping")[:2].tolist() == [damping, damping]


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_the_history_has_a_record_of_each_step(fit: Callable[..., Any]) -> None:
    """From far away some steps are refused: then the loss stays, and λ grows or α is halved."""
    options = {} if fit is ff.gauss_newton else {"damping": 1e-8}
    found = fit(residuals, [1.0, 4.0], jacobian=jacobian, **options)
    first, *steps = found.history
    assert noted(found, "iteration").tolist() == list(range(found.iterations + 1))
    assert (first.iteration, first.step_size, first.accepted) == (0, 0.0, True)
    assert np.isnan(first.gain_ratio)
    assert first.loss == pytest.approx(0.5 * np.sum(residuals([1.0, 4.0]) ** 2))
    assert found.loss == steps[-1].loss
    assert not all(step.accepted for step in steps)
    for before, step in zip(found.history, steps, strict=False):
        assert step.accepted == (step.gain_ratio >= 1e-4)
        assert (step.loss < before.loss) or not step.accepted or step.gain_ratio == 1.0
        if not step.accepted:
            assert step.loss == before.loss
    sizes, dampings = noted(found, "step_size")[1:], noted(found, "damping")[1:]
    if fit is ff.gauss_newton:
        assert sizes.min() < 1.0 == sizes.max()
        assert (dampings == 0.0).all()
    else:
        bent = np.isnan(noted(found, "gain_ratio")[1:])  # the path, too much for a step
        assert bent.any()
        assert (sizes == np.where(bent, 0.0, 1.0)).all()
        assert dampings[0] == 1e-8 < dampings.max()


def test_the_gain_of_a_linear_model_is_one() -> None:
    A, y = line()
    found = ff.levenberg_marquardt(
        lambda b: A @ b - y, np.full(5, 9.0), jacobian=lambda b: A, damping=1.0, acceleration=False
    )
    np.testing.assert_allclose(noted(found, "gain_ratio")[1:6], 1.0, rtol=1e-9)
    assert noted(found, "damping")[5] > 1e-3  # it is much of what is predicted


def linear(A: np.ndarray, y: np.ndarray, b: np.ndarray) -> np.ndarray:
    answer: np.ndarray = A @ b - y
    return answer


def lowest(A: np.ndarray, y: np.ndarray) -> float:
    """Return the least loss of a linear model, by QR with the columns scaled, once refined."""
    q = np.linalg.qr(A / np.linalg.norm(A, axis=0)).Q
    r = y - q @ (q.T @ y)
    return float(0.5 * np.sum((r - q @ (q.T @ r)) ** 2))


# λ shortens the step along one direction alone, and a large θ along another hides that: no rule for
# small steps may count then. Seeds where it did, and others.
@pytest.mark.parametrize("options", [{}, {"acceleration": False}])
@pytest.mark.parametrize("analytic", [True, False])
@pytest.mark.parametrize(
    ("origin", "seeds"), [(1.7e9, (0, 1, 2, 3)), (2.45e6, (20, 29, 36, 0))], ids=["unix", "julian"]
)
def test_a_line_far_from_its_origin(
    origin: float, seeds: tuple[int, int, int, int], analytic: bool, options: dict[str, Any]
) -> None:
    for seed in seeds:
        rng = np.random.default_rng(seed)
        x = np.arange(20.0) * 10 ** rng.uniform(-2, 2)
        A = np.column_stack([np.ones(20), origin + x])
        y = 10 ** rng.uniform(-2, 2) * rng.standard_normal() * np.ones(20)
        y += 10 ** rng.uniform(-2, 2) * x * rng.standard_normal()
        y += 10 ** rng.uniform(-4, 0) * rng.standard_normal(20)
        found = ff.levenberg_marquardt(
            partial(linear, A, y),
            [1.0, 1.0],
            jacobian=(lambda b, A=A: A) if analytic else None,
            **options,
        )
        noise = 2 * np.finfo(float).eps * np.linalg.norm(abs(A) @ abs(found.theta))
        assert np.sqrt(2 * found.loss) < 1.001 * np.sqrt(2 * lowest(A, y)) + noise
        if analytic:
            assert found.status is ff.Status.SUCCESS


@pytest.mark.parametrize("options", [{}, {"acceleration": False}])
def test_collinear_columns(options: dict[str, Any]) -> None:
    for seed in (130, 139, 162, *range(5)):
        rng = np.random.default_rng(seed)
        A = rng.standard_normal((20, 1)) + 10 ** rng.uniform(-8, -1) * rng.standard_normal((20, 4))
        A *= 10 ** rng.uniform(-3, 3, 4)
        y = 10 ** rng.uniform(-6, 0) * rng.standard_normal(20)
        truth = 10 ** rng.uniform(-3, 3, 4) * rng.standard_normal(4) / np.linalg.norm(A, axis=0)
        y += A @ truth
        start = np.full(4, 10 ** rng.uniform(-1, 4))
        found = ff.levenberg_marquardt(
            partial(linear, A, y), start, jacobian=lambda b, A=A: A, **options
        )
        assert found.status is ff.Status.SUCCESS
        assert found.loss < 1.01 * lowest(A, y)


@pytest.mark.parametrize("options", [{}, {"acceleration": False}])
def test_powers_of_years(options: dict[str, Any]) -> None:
    """Rounding of J or its differences may hide the minimum: then that is no success."""
    t = np.linspace(2000.0, 2020.0, 41)
    A = np.vander(t, 6, increasing=True)
    for seed in range(3):
        y = np.cos(t / 3) + 0.1 * np.random.default_rng(seed).standard_normal(41)
        best = lowest(np.vander((t - 2010) / 10, 6), y)
        for jacobian in (lambda b: A, None):
            found = ff.levenberg_marquardt(
                partial(linear, A, y), np.ones(6), jacobian=jacobian, **options
            )
            near = found.loss < 1.1 * best
            assert found.status is (ff.Status.SUCCESS if near else ff.Status.STAGNATED)
            assert near or jacobian is None


def test_damping_stays_within_its_bounds() -> None:
    found = ff.levenberg_marquardt(
        residuals, [4.0, 0.6], jacobian=jacobian, damping=0.1, damping_bounds=(0.05, 0.5)
    )
    assert noted(found, "damping").min() == 0.05
    assert noted(found, "damping").max() <= 0.5
    assert found.damping_used == 0.05


def test_more_parameters_than_residuals() -> None:
    """The minimum is a surface; with damping a point of it is found, by QR or the dual."""
    A, y = oracle.draw(6, 15), oracle.draw(6, 1)[:, 0]
    for solver in (None, ff.Dual()):
        found = ff.levenberg_marquardt(
            lambda b: A @ b + 0.1 * np.sin(b[:6]) - y, np.zeros(15), solver=solver
        )
        assert found.loss < 1e-20
        assert found.status is ff.Status.SUCCESS, found.message
        with pytest.raises(ValueError, match="degrees_of_freedom: expected at least 1, got -9"):
            found.standard_errors()


# ---- any representation ----
CASES: dict[str, Any] = {
    name: rest for name, *rest in representations.cases() if "60" in name or "mean" in name
}


@pytest.mark.parametrize("name", CASES)
def test_any_representation_stands_for_the_hessian(name: str) -> None:
    """The gradient is exact, so whatever F is, the gain ratio leads to the minimum."""
    F, matrix, S = CASES[name]
    S = np.asarray(S, float)
    p = len(matrix)
    truth = np.linspace(-1, 1, p)
    total = 1.0 if F.reduction == "sum" else F.weight_sum
    scale = np.sqrt(np.trace(total * matrix) / np.sum(S**2))
    A = np.vstack([S * scale, 0.3 * np.eye(p)])  # determined, and about as curved as F

    found = ff.levenberg_marquardt(
        lambda b: A @ (b - truth),
        np.zeros(p),
        jacobian=lambda b: (F, A.T @ (A @ (b - truth))),
        max_iterations=400,
    )
    start = 0.5 * np.sum((A @ truth) ** 2)
    assert found.fisher is F
    assert found.jacobian is None
    assert found.loss < 1e-3 * start
    assert (np.diff(noted(found, "loss")) <= 1e-13 * start).all()


def test_statistics_of_a_representation_are_of_total_information() -> None:
    J = jacobian([5.0, 0.5])
    by_rows = ff.levenberg_marquardt(residuals, [5.0, 0.5], jacobian=jacobian)
    for F in (ff.DenseFisher, ff.ScoreFisher, ff.SquareRootFisher):
        for reduction in ("mean", "sum"):
            found = ff.levenberg_marquardt(
                residuals,
                [5.0, 0.5],
                jacobian=lambda b, F=F, reduction=reduction: (
                    F.from_scores(jacobian(b), reduction=reduction),
                    jacobian(b).T @ residuals(b),
                ),
            )
            np.testing.assert_allclose(found.theta, by_rows.theta, rtol=1e-9)
            np.testing.assert_allclose(
                found.standard_errors(), by_rows.standard_errors(), rtol=1e-9
            )
            np.testing.assert_allclose(found.covariance(), by_rows.covariance(), rtol=1e-8)
    assert J.shape == (25, 2)


@pytest.mark.parametrize("pair", [tuple, list])
def test_a_matrix_stands_for_the_hessian_as_well(pair: type[Any]) -> None:
    by_rows = ff.levenberg_marquardt(residuals, [4.0, 0.6], jacobian=jacobian)

    def normal(b: np.ndarray) -> Sequence[np.ndarray]:
        J = jacobian(b)
        answer: Sequence[np.ndarray] = pair((J.T @ J, J.T @ residuals(b)))
        return answer

    found = ff.levenberg_marquardt(residuals, [4.0, 0.6], jacobian=normal)
    np.testing.assert_allclose(found.theta, by_rows.theta, rtol=1e-9)
    np.testing.assert_allclose(found.standard_errors(), by_rows.standard_errors(), rtol=1e-9)
    rows = ff.gauss_newton(lambda b: b - [1.0, 2.0], [0.0, 0.0], jacobian=lambda b: pair(np.eye(2)))
    np.testing.assert_allclose(rows.theta, [1.0, 2.0], rtol=1e-12)  # two rows are no pair


# ---- endings ----
def test_it_ends_where_the_residuals_are_zero() -> None:
    found = ff.gauss_newton(lambda b: np.array([b[0] - 1, 2 * b[0] - 2]), [3.0],
                            jacobian=lambda b: np.array([[1.0], [2.0]]))  # fmt: skip
    assert (found.status, found.message) == (ff.Status.SUCCESS, "the residuals are zero")
    assert found.theta == 1.0
    assert found.loss == 0.0


@pytest.mark.parametrize(
    ("tolerance", "message"),
    [
        ("gradient_tolerance", "cosine between residuals and the columns"),
        ("step_tolerance", "the step is small beside every parameter"),
        ("reduction_tolerance", "the loss can fall by .* of itself"),
    ],
)
@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_every_stopping_rule(fit: Callable[..., Any], tolerance: str, message: str) -> None:
    options = dict.fromkeys(("gradient_tolerance", "step_tolerance", "reduction_tolerance"), 0.0)
    found = fit(residuals, [4.0, 0.6], jacobian=jacobian, **{**options, tolerance: 1e-6})
    assert found.status is ff.Status.SUCCESS
    assert re.search(message, found.message)
    exact = fit(residuals, [4.0, 0.6], jacobian=jacobian, **options)
    assert exact.status in (ff.Status.SUCCESS, ff.Status.STAGNATED)
    assert found.iterations < exact.iterations
    np.testing.assert_allclose(found.theta, exact.theta, rtol=1e-3)


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_a_zero_gradient_at_the_start_is_success_and_named(fit: Callable[..., Any]) -> None:
    """A minimum and a maximum, where J is zero and no step could be solved for."""
    for shift in (1.0, -1.0):
        found = fit(
            lambda b, shift=shift: np.array([b[0] ** 2 + shift, 1.0]),
            [0.0],
            jacobian=lambda b: 2 * b * [[1], [0]],
        )
        assert found.status is ff.Status.SUCCESS
        assert found.message == "the gradient is zero at the start, which need not be a minimum"
        assert (found.theta, found.iterations, len(found.history)) == (0.0, 0, 1)
    found = fit(lambda b: b - 1.0, [1.0], jacobian=lambda b: np.eye(1))
    assert (found.status, found.message) == (ff.Status.SUCCESS, "the residuals are zero")
    assert found.iterations == 0


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_the_number_of_iterations_is_kept(fit: Callable[..., Any]) -> None:
    for most in (0, 1, 3):
        found = fit(residuals, [1.0, 2.0], jacobian=jacobian, max_iterations=most)
        assert (found.status, found.iterations) == (ff.Status.MAX_ITERATIONS, most)
        assert found.message == f"not converged in {most} iterations"
        assert found.loss == noted(found, "loss").min()


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_a_callback_may_end_it(fit: Callable[..., Any]) -> None:
    seen = []

    def stop(state: ff.LeastSquaresState) -> str:
        seen.append((state.iteration, state.theta.copy(), state.gradient.copy(), state.loss))
        state.theta[:] = state.gradient[:] = np.nan  # copies
        return "enough" if state.iteration == 2 else ""  # whatever is true

    def raises(state: ff.LeastSquaresState) -> None:
        if state.iteration == 2:
            raise StopIteration

    for callback in (stop, raises):
        found = fit(residuals, [4.0, 0.6], jacobian=jacobian, callback=callback)
        assert (found.status, found.iterations) == (ff.Status.INTERRUPTED, 2)
        assert found.message == "the callback ended it"
    assert [iteration for iteration, *_ in seen] == [0, 1, 2]
    assert np.array_equal(seen[0][1], [4.0, 0.6])
    assert np.array_equal(seen[2][1], found.theta)
    assert np.array_equal(seen[2][2], found.gradient)
    assert seen[2][3] == found.loss
    at_once = fit(residuals, [4.0, 0.6], jacobian=jacobian, callback=lambda state: True)
    assert (at_once.status, at_once.iterations) == (ff.Status.INTERRUPTED, 0)


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_a_callback_sees_each_record(fit: Callable[..., Any]) -> None:
    seen: list[Any] = []
    found = fit(residuals, [1.0, 2.0], jacobian=jacobian, callback=seen.append)
    assert found.status is ff.Status.SUCCESS
    for name in ff.LeastSquaresRecord.__slots__:
        np.testing.assert_array_equal([getattr(state, name) for state in seen], noted(found, name))
    assert np.array_equal(seen[-1].theta, found.theta)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_steps_that_turn_non_finite_are_not_taken(fit: Callable[..., Any], bad: float) -> None:
    """A wall at b = 1: the minimum beyond it cannot be reached, the last good state is returned."""

    def r(b: np.ndarray) -> np.ndarray:
        return np.where(b[0] < 1, b - 3.0, bad)

    found = fit(r, [0.0], jacobian=lambda b: np.ones((1, 1)))
    assert found.status is ff.Status.NON_FINITE
    assert "the last good ones" in found.message
    assert 0.9 < found.theta[0] < 1.0
    assert np.isfinite(found.residuals).all()
    assert np.isfinite(found.gradient).all()

    # A wall that the way leads around does not end it.
    found = fit(
        lambda b: np.where(b > 1.5, bad, b**2 - 1), [0.1], jacobian=lambda b: np.diag(2 * b)
    )
    assert found.status is ff.Status.SUCCESS
    np.testing.assert_allclose(found.theta, 1.0, rtol=1e-9)


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_a_jacobian_that_turns_non_finite(fit: Callable[..., Any]) -> None:
    def J(b: np.ndarray) -> np.ndarray:
        return np.where(b[0] < 1, 1.0, np.nan).reshape(1, 1)

    found = fit(lambda b: b - 3.0, [0.0], jacobian=J)
    assert found.status is ff.Status.NON_FINITE
    assert found.message.startswith("Jacobian not finite")
    assert 0.9 < found.theta[0] < 1.0


def test_a_wrong_jacobian_stagnates() -> None:
    for fit in FITS.values():
        found = fit(residuals, [4.0, 0.6], jacobian=lambda b: -jacobian(b))
        assert found.status is ff.Status.STAGNATED
        assert found.message == "no step along the linear model lowers the loss"
        assert np.array_equal(found.theta, [4.0, 0.6])


def test_a_jacobian_that_determines_no_step() -> None:
    def r(b: np.ndarray) -> np.ndarray:
        answer: np.ndarray = (b[0] + b[1]) * X - Y
        return answer

    def J(b: np.ndarray) -> np.ndarray:
        return np.column_stack([X, X])

    found = ff.gauss_newton(r, [0.0, 0.0], jacobian=J)
    assert found.status is ff.Status.NOT_POSITIVE_DEFINITE
    assert "parameter 1" in found.message
    assert np.array_equal(found.theta, [0.0, 0.0])
    found = ff.levenberg_marquardt(r, [0.0, 0.0], jacobian=J)
    assert found.status is ff.Status.SUCCESS
    np.testing.assert_allclose(found.theta.sum(), X @ Y / (X @ X), rtol=1e-9)
    for ask in (found.standard_errors, found.covariance):
        with pytest.raises(ff.NotPositiveDefiniteError):
            ask()
    unused = ff.levenberg_marquardt(lambda b: b[0] * X - Y, [0.0, 7.0])
    assert unused.status is ff.Status.SUCCESS
    assert unused.theta[1] == 7.0


def test_the_least_damping_can_be_solved_by_qr() -> None:
    """(2 · 32 eps)² of the scale is what QR can tell from zero, in columns that are the same."""
    least = (2 * 32 * np.finfo(float).eps) ** 2
    found = ff.levenberg_marquardt(
        lambda b: (b[0] + b[1]) * X - Y,
        [0.0, 0.0],
        jacobian=lambda b: np.column_stack([X, X]),
        damping=least,
    )
    assert noted(found, "accepted")[:2].all()  # the start and a step; rounding decides on the last
    assert noted(found, "damping")[:2].max() == least


def test_an_iterative_solver_that_does_not_converge_takes_more_damping() -> None:
    exact = ff.levenberg_marquardt(residuals, [4.0, 0.6], jacobian=jacobian)
    found = ff.levenberg_marquardt(
        residuals, [4.0, 0.6], jacobian=jacobian, solver=ff.CG(max_iterations=1), damping=1e-6
    )
    assert noted(found, "damping").max() > 1e-6
    assert found.status is ff.Status.MAX_ITERATIONS
    assert exact.loss < found.loss < found.history[0].loss
    found = ff.gauss_newton(
        residuals, [4.0, 0.6], jacobian=jacobian, solver=ff.CG(max_iterations=1)
    )
    assert found.status is ff.Status.MAX_ITERATIONS
    assert np.array_equal(found.theta, [4.0, 0.6])


def test_a_jacobian_whose_squares_overflow() -> None:
    """Its columns are finite, their norms are not: no step can be computed, and that is said."""

    def r(b: np.ndarray) -> np.ndarray:
        return np.array([b[0] - 1.0, 0.5])

    def J(b: np.ndarray) -> np.ndarray:
        return np.array([[1.0 if b[0] == 0.0 else 1e300], [0.0]])

    for fit in FITS.values():
        found = fit(r, [0.0], jacobian=J)
        assert found.status is ff.Status.NON_FINITE
        assert found.message.startswith("Jacobian not finite")
        assert found.theta == 0.0


def test_the_loss_may_settle_to_rounding() -> None:
    """Forward differences are wrong by 1e-8, so the promised fall ends above its tolerance."""
    problem = nist.problem("Roszman1")
    found = ff.levenberg_marquardt(problem.residuals, problem.starts[0], jacobian="2-point")
    assert found.status is ff.Status.SUCCESS
    assert found.message == "the loss has settled to rounding"
    assert nist.digits(found.theta, problem.certified) > 5


# ---- manners ----
@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_callers_arrays_are_theirs(fit: Callable[..., Any]) -> None:
    start = np.array([4.0, 0.6])
    sigma = SIGMA.copy()
    start.flags.writeable = sigma.flags.writeable = False
    r, J = np.empty(25), np.empty((25, 2))

    def buffered(b: np.ndarray) -> np.ndarray:
        r[:] = residuals(b)
        b[:] = np.nan  # a copy
        return r[:]

    def buffered_jacobian(b: np.ndarray) -> np.ndarray:
        J[:] = jacobian(b)
        b[:] = np.nan
        return J[:]

    expected = fit(residuals, start, jacobian=jacobian, sigma=sigma)
    found = fit(buffered, start, jacobian=buffered_jacobian, sigma=sigma)
    r[:], J[:] = 0, 0
    for name in ("theta", "residuals", "jacobian", "gradient"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert np.array_equal(start, [4.0, 0.6])
    assert found.theta is not start
    by_differences = fit(buffered, start, sigma=sigma)
    np.testing.assert_allclose(by_differences.theta, expected.theta, rtol=1e-9)


def test_lists_and_whole_numbers_are_taken() -> None:
    found = ff.gauss_newton(
        lambda b: [b[0] - 1.0, b[0] - 2.0], [0], jacobian=lambda b: [[1.0], [1.0]]
    )
    assert found.theta == 1.5
    assert found.theta.dtype == np.float64


def test_a_column_whose_square_underflows_is_no_column_at_rest() -> None:
    found = ff.gauss_newton(
        lambda b: np.array([1e-200 * b[0] - 1.0]), [1.0], jacobian=lambda b: np.array([[1e-200]])
    )
    assert found.iterations > 0


def test_an_error_of_the_callers_function_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        ff.levenberg_marquardt(lambda b: 1 // 0, [1.0])


BAD = [
    ({"theta": [[1.0]]}, ValueError, r"theta: expected shape \(p,\) with p ≥ 1, got \(1, 1\)"),
    ({"theta": []}, ValueError, r"theta: expected shape \(p,\) with p ≥ 1, got \(0,\)"),
    ({"theta": [1j, 1.0]}, TypeError, "theta: expected real numbers, got complex128"),
    ({"theta": [np.nan, 1.0]}, ff.NonFiniteError, "theta: expected finite values"),
    ({"theta": ["a", "b"]}, TypeError, "theta: expected float64"),
    ({"residuals": lambda b: np.ones((2, 2))}, ValueError, r"residuals: expected shape \(n,\)"),
    ({"residuals": lambda b: []}, ValueError, r"residuals: expected shape \(n,\) with n ≥ 1"),
    ({"residuals": lambda b: b * 1j}, TypeError, "residuals: expected real numbers"),
    (
        {"residuals": lambda b: np.full(25, np.nan)},
        ff.NonFiniteError,
        "residuals: expected finite values and a finite sum of squares at the start",
    ),
    ({"residuals": lambda b: np.full(25, 1e200)}, ff.NonFiniteError, "overflow. Start from other"),
    (
        {"jacobian": lambda b: np.ones((2, 25))},
        ValueError,
        r"jacobian: expected shape \(25, 2\), one row per residual, got \(2, 25\)",
    ),
    (
        {"jacobian": lambda b: np.full((25, 2), np.inf)},
        ff.NonFiniteError,
        "jacobian: expected finite values at the start",
    ),
    ({"jacobian": "4-point"}, ValueError, "jacobian: expected a function, None, '2-point' or"),
    (
        {"jacobian": lambda b: (ff.DenseFisher(3), np.ones(2))},
        ValueError,
        r"jacobian: expected a Fisher of 2 parameters and a gradient \(2,\), got \(3, 3\)",
    ),
    (
        {"jacobian": lambda b: (np.eye(3), np.ones(2))},
        ValueError,
        r"jacobian: expected a Fisher of 2 parameters and a gradient \(2,\), got \(3, 3\)",
    ),
    (
        {"jacobian": lambda b: (scipy.sparse.linalg.aslinearoperator(np.eye(2)), np.ones(2))},
        TypeError,
        "jacobian: expected J, or a Fisher or matrix JᵀWJ with the gradient, got products alone",
    ),
    ({"sigma": np.ones(3)}, ValueError, r"sigma: expected a number or shape \(25,\), got \(3,\)"),
    ({"sigma": 0.0}, ValueError, "sigma: expected positive finite numbers"),
    ({"sigma": np.inf}, ValueError, "sigma: expected positive finite numbers"),
    ({"sigma": 1e-200}, ff.NonFiniteError, "overflow. Start from other"),
    ({"absolute_sigma": 1}, TypeError, "absolute_sigma: expected True or False, got int"),
    ({"max_iterations": -1}, ValueError, "max_iterations: expected at least 0, got -1"),
    ({"gradient_tolerance": -1.0}, ValueError, "gradient_tolerance: expected a finite number"),
    ({"step_tolerance": np.nan}, ValueError, "step_tolerance: expected a finite number"),
    ({"reduction_tolerance": "x"}, ValueError, "reduction_tolerance: expected a finite number"),
]
BAD_DAMPING = [
    ({"damping": 0.0}, ValueError, "damping: expected a finite number above 0, got 0.0"),
    ({"damping": -1.0}, ValueError, "damping: expected a finite number above 0, got -1.0"),
    ({"damping_bounds": (1.0, 1e-6)}, ValueError, "damping_bounds: expected the lesser one first"),
    ({"damping_bounds": (0.0, 1.0)}, ValueError, "damping_bounds: expected a finite number above"),
    ({"damping_bounds": (1.0, 2.0)}, ValueError, "damping: expected a start within damping_bounds"),
    ({"damping_bounds": 3.0}, ValueError, r"damping_bounds: expected \(least, most\), got 3.0"),
    ({"damping_mode": "trace"}, ValueError, "damping_mode: expected 'diagonal' or 'absolute'"),
    ({"acceleration": None}, TypeError, "acceleration: expected True or False"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD)
@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_bad_input_is_named(
    fit: Callable[..., Any], bad: dict[str, Any], error: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {
        "residuals": residuals,
        "theta": [4.0, 0.6],
        "jacobian": jacobian,
        **bad,
    }
    with pytest.raises(error, match=message):
        fit(**given)


@pytest.mark.parametrize(("bad", "error", "message"), BAD_DAMPING)
def test_bad_dampings_are_named(bad: dict[str, Any], error: type[ValueError], message: str) -> None:
    with pytest.raises(error, match=message):
        ff.levenberg_marquardt(residuals, [4.0, 0.6], jacobian=jacobian, **bad)


def test_too_few_residuals_for_a_step_without_damping() -> None:
    with pytest.raises(ValueError, match="residuals: expected at least 2, one per parameter, got"):
        ff.gauss_newton(lambda b: b[:1], [1.0, 2.0])


def test_residuals_keep_their_number() -> None:
    lengths = iter([5, 5, 4])
    with pytest.raises(ValueError, match=r"residuals: expected shape \(5,\) as at the start"):
        ff.gauss_newton(lambda b: np.full(next(lengths), b[0]), [1.0])


def test_as_many_residuals_as_parameters_leave_no_scatter() -> None:
    found = ff.gauss_newton(lambda b: b - 1.0, [0.0], absolute_sigma=True, sigma=0.5)
    assert found.standard_errors() == 0.5
    found = ff.gauss_newton(lambda b: b - 1.0, [0.0])
    with pytest.raises(ValueError, match="degrees_of_freedom: expected at least 1, got 0"):
        found.covariance()


# ---- the example ----
def test_the_derivatives_of_the_example_are_right() -> None:
    x = np.linspace(0.0, 10.0, 30)
    J = spectral_lines.model(spectral_lines.START, x)[1]
    found = ff.levenberg_marquardt(
        lambda b: spectral_lines.model(b, x)[0], spectral_lines.START, max_iterations=0
    )
    np.testing.assert_allclose(found.jacobian, J, rtol=1e-7, atol=1e-7)


def test_the_example_runs_to_its_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import matplotlib.pyplot as plt

    path = tmp_path / "lines.png"
    figures = plt.get_fignums()
    spectral_lines.main(str(path), channels=80)
    assert path.stat().st_size > 10_000
    table = [line.split()[-3:] for line in capsys.readouterr().out.splitlines()[3:10]]
    pulls = [(float(value) - float(true)) / float(error) for true, value, error in table]
    assert max(map(abs, pulls)) < 4
    assert plt.get_fignums() == figures


# ---- plateaus: what a fit there may say ----
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BoxBOD", {"acceleration": False}),
        ("MGH17", {"damping_mode": "absolute"}),
        ("MGH17", {"damping_mode": "absolute", "damping_bounds": (1e-30, 1e30)}),
    ],
)
def test_damping_does_not_hide_that_a_plateau_is_no_minimum(
    name: str, options: dict[str, Any]
) -> None:
    problem = nist.problem(name)
    fit = ff.levenberg_marquardt(
        problem.residuals, problem.starts[0], jacobian=problem.jacobian, **options
    )
    assert nist.digits(fit.theta, problem.certified) < 1  # it is lost, and does not say otherwise
    assert fit.status not in (ff.Status.SUCCESS, ff.Status.INTERRUPTED)
    assert np.isfinite(fit.theta).all()


def test_a_fit_that_ends_where_nothing_changes_says_so() -> None:
    problem = nist.problem("MGH10")
    fit = ff.gauss_newton(problem.residuals, problem.starts[0], jacobian=problem.jacobian)
    assert fit.status is ff.Status.STAGNATED
    assert "the residuals do not depend on any parameter there" in fit.message


def test_a_fit_says_which_parameter_changes_nothing() -> None:
    target = np.arange(4.0)
    fit = ff.levenberg_marquardt(lambda theta: theta[1] - target, np.ones(3))
    assert fit.status is ff.Status.SUCCESS
    assert fit.message.endswith("; the residuals there do not depend on parameter 0")
    fit = ff.levenberg_marquardt(lambda theta: theta[0] - target, np.ones(1))
    assert "depend" not in fit.message
