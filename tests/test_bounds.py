"""Bounds: every refusal, masks, dtypes, units, and the digits that a solver keeps."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle

# Determines θ₀ + θ₁ and θ₂, but not the difference of θ₀ and θ₁.
SINGULAR = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 4.0]])


def information(p: int = 5, dtype: type[np.inexact] = np.float64) -> np.ndarray:
    S = oracle.draw(3 * p, p, dtype)
    answer: np.ndarray = S.conj().T @ S
    return answer


def exact_inverse(S: np.ndarray) -> np.ndarray:
    """Return (SᵀS)⁻¹ by rational arithmetic."""
    p = S.shape[1]
    Q = [[Fraction(x) for x in row] for row in S.tolist()]
    A: list[list[Any]] = [
        [sum(r[i] * r[j] for r in Q) for j in range(p)] + [Fraction(i == j) for j in range(p)]
        for i in range(p)
    ]
    for i in range(p):
        A[i] = [x / A[i][i] for x in A[i]]
        for j in set(range(p)) - {i}:
            A[j] = [a - A[j][i] * b for a, b in zip(A[j], A[i], strict=True)]
    return np.array([[float(x) for x in row[p:]] for row in A])


# ---- keep ----
@pytest.mark.parametrize("function", [ff.marginalize, ff.condition_on])
@pytest.mark.parametrize(
    ("keep", "same"),
    [
        ([3, 0], [3, 0]),
        ([-2, 0], [3, 0]),
        (np.array([3, 0], np.uint8), [3, 0]),
        ((True, False, False, True, False), [0, 3]),
        (range(0, 4, 3), [0, 3]),
        ([True] * 5, [0, 1, 2, 3, 4]),
    ],
)
def test_what_is_kept(
    function: Callable[..., Any], keep: range | np.ndarray | Sequence[int], same: Sequence[int]
) -> None:
    F = information()
    actual = function(F, keep)
    assert actual.shape == (len(same), len(same))
    np.testing.assert_array_equal(actual, function(F, same))
    backwards = function(F, same[::-1])
    oracle.close(actual, backwards[::-1, ::-1], np.float64, 100)


@pytest.mark.parametrize("function", [ff.marginalize, ff.condition_on])
@pytest.mark.parametrize(
    ("keep", "error", "message"),
    [
        (2, ValueError, r"keep: expected at least one parameter as a list, got shape \(\)"),
        ([], ValueError, r"keep: expected at least one .*, got shape \(0,\)"),
        ([[0, 1]], ValueError, r"keep: expected at least one .*, got shape \(1, 2\)"),
        ([0, 5], ValueError, "keep: expected indices from -5 to 4, got 5"),
        ([-6], ValueError, "keep: expected indices from -5 to 4, got -6"),
        ([0, 2, 2], ValueError, "keep: expected each parameter once, got 2 2 times"),
        ([0, 3, -2], ValueError, "keep: expected each parameter once, got 3 2 times"),
        ([True, False], ValueError, r"keep: expected a mask of shape \(5,\).*shape \(2,\) with 1"),
        ([False] * 5, ValueError, r"keep: expected a mask .* true somewhere.* with 0 true"),
        ([0.0, 1.0], TypeError, "keep: expected whole numbers or bools, got float64"),
        (["H0"], TypeError, "keep: expected whole numbers or bools, got str"),
    ],
)
def test_what_cannot_be_kept(
    function: Callable[..., Any], keep: int | Sequence[float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        function(information(), keep)


@pytest.mark.parametrize("function", [ff.marginalize, ff.condition_on])
def test_more_than_fits(function: Callable[..., Any]) -> None:
    F = ff.DiagonalFisher.from_scores(np.ones((1, 2_000_000)))
    with pytest.raises(ff.MemoryLimitError, match=r"keep: expected at most .* Keep fewer"):
        function(F, range(1_000_000))


# ---- jacobians ----
@pytest.mark.parametrize(
    ("jacobian", "error", "message"),
    [
        (np.ones(2), ValueError, r"jacobian: expected shape \(q, 2\) with q ≥ 1, got \(2,\)"),
        (np.ones((0, 2)), ValueError, r"jacobian: expected shape \(q, 2\) .*, got \(0, 2\)"),
        (np.ones((2, 3)), ValueError, r"jacobian: expected shape \(q, 2\) .*, got \(2, 3\)"),
        (np.full((2, 2), np.inf), ff.NonFiniteError, "jacobian: expected finite values"),
        (np.ones((2, 2)) * 1j, TypeError, "jacobian: expected real numbers, got complex128"),
        ("J", TypeError, "jacobian: expected real numbers, got str"),
    ],
)
def test_jacobians_that_do_not_fit(
    jacobian: str | np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ff.cramer_rao_bound(np.eye(2), jacobian)


def test_diagonal_is_a_flag() -> None:
    with pytest.raises(TypeError, match="diagonal: expected True or False, got int"):
        ff.cramer_rao_bound(np.eye(2), diagonal=1)  # type: ignore[arg-type]


# ---- priors ----
NUMBERS = {
    "negative": ([0.0, -1.0], ValueError, "prior: expected precisions that are finite and not"),
    "infinite": ([np.inf, 0.0], ValueError, "prior: expected precisions .*condition_on"),
    "nan": (np.nan, ValueError, "prior: expected precisions that are finite .*, got nan"),
    "length": ([1.0], ValueError, r"prior: expected a number or shape \(2,\), got shape \(1,\)"),
    "complex": (1j, TypeError, "prior: expected real numbers, got complex128"),
    "text": ("wide", TypeError, "prior: expected real numbers, got str"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_priors_that_are_none(name: str) -> None:
    prior, error, message = NUMBERS[name]
    function: Callable[..., Any]
    for function in (
        lambda: ff.add_prior(np.eye(2), prior),
        lambda: ff.cramer_rao_bound(np.eye(2), prior=prior),
        lambda: ff.marginalize(np.eye(2), [0], prior=prior),
    ):
        with pytest.raises(error, match=message):
            function()


@pytest.mark.parametrize(
    ("prior", "error", "message"),
    [
        (np.eye(3), ValueError, r"prior: expected shape \(2, 2\) .*, got \(3, 3\)"),
        (ff.DenseFisher.from_matrix(np.eye(3)), ValueError, r"prior: .*, got \(3, 3\)"),
        (np.eye(2) * 1j, ValueError, r"prior: .* numbers like float64, got .* complex128"),
        (-np.eye(2), ValueError, "prior: expected a diagonal that is not negative, got -1"),
        (np.ones((2, 3)), ValueError, "prior: expected a square matrix"),
        (np.ones((2, 2, 2)), ValueError, r"prior: expected a number .*got shape \(2, 2, 2\)"),
        (np.full((2, 2), np.nan), ff.NonFiniteError, "expected finite values, got nan"),
    ],
)
def test_matrices_that_are_no_prior(
    prior: np.ndarray | ff.DenseFisher, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ff.add_prior(np.eye(2), prior)


@pytest.mark.parametrize("prior", [np.eye(2), ff.DenseFisher.from_matrix(np.eye(2))])
def test_the_keyword_takes_numbers_alone(prior: np.ndarray | ff.DenseFisher) -> None:
    with pytest.raises(ValueError, match=r"prior: expected a number .*add_prior takes matrices"):
        ff.cramer_rao_bound(np.eye(2), prior=prior)


def test_a_prior_counts_as_total_information() -> None:
    """A mean over five samples adds five times itself, and the prior itself is not multiplied."""
    S = oracle.draw(5, 3)
    F = ff.DenseFisher.from_scores(S)
    oracle.close(ff.add_prior(F, F), 2 * S.T @ S, np.float64, 20)
    oracle.close(ff.add_prior(np.zeros((3, 3)), F), S.T @ S, np.float64, 20)
    oracle.close(ff.add_prior(F, [1, 0, 2]), S.T @ S + np.diag([1, 0, 2]), np.float64, 20)


# ---- singular information ----
def test_singular_information_says_which_parameter_and_what_would_do() -> None:
    F = ff.DenseFisher.from_matrix(SINGULAR / 50, n_samples=50)  # in all what SINGULAR is
    with pytest.raises(ff.NotPositiveDefiniteError) as caught:
        ff.cramer_rao_bound(F)
    error = caught.value
    assert "at parameter 1" in str(error)
    assert "Damping here is a prior, of precision " in str(error)
    assert "condition_on, or reparametrize" in str(error)
    assert error.pivot == 1
    assert error.value is not None
    assert abs(error.value) <= 3 * np.finfo(float).eps
    # What it names does, and in units of total information.
    assert error.damping is not None
    assert ff.cramer_rao_bound(F, prior=2 * error.damping, diagonal=True)[2] == pytest.approx(0.25)
    with pytest.raises(ff.NotPositiveDefiniteError):
        ff.cramer_rao_bound(F, prior=error.damping / 100)


def test_the_pivot_is_that_of_the_total() -> None:
    F = ff.DenseFisher.from_matrix(np.diag([1.0, -0.5]), n_samples=50)
    with pytest.raises(ff.NotPositiveDefiniteError) as caught:
        ff.cramer_rao_bound(F)
    assert (caught.value.pivot, caught.value.value) == (1, -25.0)


def test_each_way_out_of_singular_information() -> None:
    call: Callable[..., Any]
    for call in (ff.cramer_rao_bound, lambda F: ff.marginalize(F, [2])):
        with pytest.raises(ff.NotPositiveDefiniteError):
            call(SINGULAR)
    variances = ff.cramer_rao_bound(SINGULAR, prior=[0.0, 100.0, 0.0], diagonal=True)
    oracle.close(variances, [1.01, 0.01, 0.25], np.float64, 1000)
    known = ff.condition_on(SINGULAR, [0, 2])
    np.testing.assert_array_equal(ff.cramer_rao_bound(known, diagonal=True), [1.0, 0.25])
    total = ff.reparametrize(SINGULAR, [[0.5, 0], [0.5, 0], [0, 1]])  # by θ₀ + θ₁ and θ₂
    np.testing.assert_array_equal(ff.cramer_rao_bound(total, diagonal=True), [1.0, 0.25])


def test_fewer_samples_than_parameters_need_a_prior() -> None:
    S = oracle.draw(5, 9)
    F = ff.ScoreFisher(S)
    with pytest.raises(
        ff.NotPositiveDefiniteError, match=r"5 scores alone .*Damping here is a prior"
    ):
        ff.cramer_rao_bound(F)
    expected = np.linalg.inv(S.T @ S + np.eye(9))
    oracle.close(ff.cramer_rao_bound(F, prior=1.0), expected, np.float64, 1000)


def test_a_prior_on_some_of_more_parameters_than_samples() -> None:
    S, prior = oracle.draw(5, 6), np.array([0.0, 0.0, 2.0, 0.0, 1.0, 0.0])
    F = ff.ScoreFisher(S)
    with pytest.raises(ff.NotPositiveDefiniteError, match=r"in the dual, got a vector with a zero"):
        ff.cramer_rao_bound(F, prior=prior)
    A = S.T @ S + np.diag(prior)
    actual = ff.cramer_rao_bound(F, prior=prior, solver=ff.Cholesky())
    oracle.close(actual, np.linalg.inv(A), np.float64, 10 * np.linalg.cond(A))


def test_no_samples_have_no_mean() -> None:
    call: Callable[..., Any]
    for call in (
        lambda F: ff.cramer_rao_bound(F, prior=1.0),
        lambda F: ff.marginalize(F, [0]),
        lambda F: ff.condition_on(F, [0]),
        lambda F: ff.add_prior(F, 1.0),
    ):
        with pytest.raises(
            ValueError, match="DenseFisher: expected at least one sample with a weight, got none"
        ):
            call(ff.DenseFisher(3))


def infinite() -> ff.DenseFisher:
    F = ff.DenseFisher(2, dtype=np.float32)
    return F.update(np.full((4, 2), 1.2e19, np.float32), check_finite=False)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        # F holds infinity.
        ("condition_on", lambda: ff.condition_on(infinite(), [0])),
        ("reparametrize", lambda: ff.reparametrize(infinite(), np.eye(2))),
        ("add_prior", lambda: ff.add_prior(infinite(), 1.0)),
        # Everything is finite, but the answer leaves the range.
        ("cramer_rao_bound", lambda: ff.cramer_rao_bound(np.diag([1e-310, 1]))),
        ("cramer_rao_bound", lambda: ff.cramer_rao_bound(np.diag([1e-310, 1]), diagonal=True)),
        ("cramer_rao_bound", lambda: ff.cramer_rao_bound(np.diag([1e-310, 1]), np.eye(2))),
        ("cramer_rao_bound", lambda: ff.marginalize(np.diag([1e-310, 1]), [0])),
        ("add_prior", lambda: ff.add_prior(np.eye(2, dtype=np.float32), 1e40)),
        ("add_prior", lambda: ff.add_prior(np.eye(2, dtype=np.float32), 1e40 * np.eye(2))),
        ("reparametrize", lambda: ff.reparametrize(np.eye(2), 1e200 * np.eye(2))),
        (
            "condition_on",
            lambda: ff.condition_on(ff.ScoreFisher([[1e154]] * 3, reduction="sum"), [0]),
        ),
    ],
)
def test_answers_that_leave_the_range(name: str, call: Callable[..., Any]) -> None:
    with pytest.raises(ff.NonFiniteError, match=f"{name}: expected a finite answer, got NaN or"):
        call()


def test_advice_fits_the_array() -> None:
    call: Callable[..., Any]
    for call in (ff.cramer_rao_bound, lambda F: ff.condition_on(F, [0])):
        with pytest.raises(ValueError, match=r"shape \(3, 4, 4\)\. Stacks .* ff\.batch takes"):
            call(np.ones((3, 4, 4)))
        with pytest.raises(TypeError, match=r"got int64\. Integers are not converted unasked"):
            call(np.eye(2, dtype=np.int64))


def test_matrices_must_be_square() -> None:
    call: Callable[..., Any]
    for call in (ff.cramer_rao_bound, lambda F: ff.condition_on(F, [0])):
        with pytest.raises(ValueError, match="fisher: expected a square matrix"):
            call(np.ones((2, 3)))


def test_kept_parameters_that_no_matrix_tells_apart() -> None:
    """κ = 10¹⁸ between two: QR knows their errors, but no matrix of doubles their information."""
    S = np.array([[1, 1, 0], [1, 1 + 1e-9, 0], [0, 0, 1.0], [1, 1 - 1e-9, 3]])
    F = ff.ScoreFisher(S, reduction="sum")
    variances = ff.cramer_rao_bound(F, diagonal=True, solver=ff.QR())
    np.testing.assert_allclose(variances, np.diag(exact_inverse(S)), rtol=1e-5)  # κ(S)·eps = 1e-6
    with pytest.raises(ff.NotPositiveDefiniteError, match=r"keep: .* found at parameter 1") as e:
        ff.marginalize(F, [2, 0, 1], solver=ff.QR())
    assert e.value.pivot == 1
    assert ff.marginalize(F, [0, 2], solver=ff.QR()).shape == (2, 2)


# ---- dtypes, order, the caller's arrays ----
@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_every_dtype(dtype: type[np.inexact]) -> None:
    F, J = information(dtype=dtype), oracle.draw(2, 5, dtype)
    wide = oracle.wide(F)
    inverse, terms = np.linalg.inv(wide), 10 * np.linalg.cond(wide)
    prior = np.arange(5.0)
    cases = {
        "bound": (ff.cramer_rao_bound(F, J), oracle.wide(J) @ inverse @ oracle.wide(J).conj().T),
        "all": (ff.cramer_rao_bound(F), inverse),
        "marginal": (ff.marginalize(F, [3, 0]), np.linalg.inv(inverse[np.ix_([3, 0], [3, 0])])),
        "known": (ff.condition_on(F, [3, 0]), wide[np.ix_([3, 0], [3, 0])]),
        "prior": (ff.add_prior(F, prior), wide + np.diag(prior)),
        "matrix": (ff.add_prior(F, F), 2 * wide),
    }
    for actual, expected in cases.values():
        assert actual.dtype == dtype
        oracle.close(actual, expected, dtype, terms)
        np.testing.assert_array_equal(actual, actual.conj().T)
    real = np.empty(0, dtype).real.dtype
    for jacobian, expected in ((None, inverse), (J, cases["bound"][1])):
        variances = ff.cramer_rao_bound(F, jacobian, diagonal=True)
        assert variances.dtype == real
        oracle.close(variances, np.diag(expected).real, dtype, terms)


def test_callers_arrays_stay_as_they_are() -> None:
    F, J, prior, keep = information(), oracle.draw(2, 5), np.ones(5), np.array([-1, 0])
    before = [array.copy() for array in (F, J, prior, keep)]
    for array in (F, J, prior, keep):
        array.flags.writeable = False
    results = [
        ff.cramer_rao_bound(F, J, prior=prior),
        ff.marginalize(F, keep, prior=prior),
        ff.condition_on(F, keep),
        ff.add_prior(F, prior),
        ff.add_prior(F, F),
    ]
    for array, old in zip((F, J, prior, keep), before, strict=True):
        np.testing.assert_array_equal(array, old)
    for result in results:
        result += 1  # ours to give away
    held = ff.DenseFisher.from_matrix(F)
    as_it_was = held.to_dense()
    ff.add_prior(held, 3.0)
    np.testing.assert_array_equal(held.to_dense(), as_it_was)


def test_only_the_lower_triangle_is_read() -> None:
    F = information()
    lower = np.tril(F) + np.triu(np.full((5, 5), 7.0), 1)
    np.testing.assert_array_equal(ff.marginalize(lower, [1, 2]), ff.marginalize(F, [1, 2]))
    np.testing.assert_array_equal(ff.add_prior(np.eye(5), lower), ff.add_prior(np.eye(5), F))


def test_one_parameter() -> None:
    F = np.array([[4.0]])
    for call in (ff.marginalize, ff.condition_on):
        np.testing.assert_array_equal(call(F, [0]), F)
    np.testing.assert_array_equal(ff.cramer_rao_bound(F), [[0.25]])
    np.testing.assert_array_equal(ff.cramer_rao_bound(F, [[2.0]], prior=12.0), [[0.25]])


# ---- solvers and digits ----
@pytest.mark.parametrize("solver", [ff.Cholesky(), ff.QR(), ff.CG(rtol=1e-13), ff.Eigh(), "auto"])
def test_any_solver(solver: Any) -> None:
    S = oracle.draw(30, 6)
    F, J = ff.ScoreFisher(S), oracle.draw(2, 6)
    inverse = np.linalg.inv(S.T @ S)
    terms = 1000 * np.linalg.cond(S) ** 2
    oracle.close(ff.cramer_rao_bound(F, J, solver=solver), J @ inverse @ J.T, np.float64, terms)
    expected = np.linalg.inv(inverse[1:3, 1:3])
    oracle.close(ff.marginalize(F, [1, 2], solver=solver), expected, np.float64, terms)


def test_an_iteration_leaves_no_inverse() -> None:
    with pytest.raises(TypeError, match=r"solver: expected .* for a factor, got CG"):
        ff.cramer_rao_bound(np.eye(2), solver=ff.CG())


@pytest.mark.parametrize("S", [np.vander(np.linspace(0, 1, 20), p) for p in (6, 10)])
def test_qr_of_the_scores_has_errors_of_their_condition(S: np.ndarray) -> None:
    """Monomials, against rational arithmetic: κ·eps by QR, where Cholesky of F may have κ²·eps."""
    truth, p = exact_inverse(S), S.shape[1]
    F, cond = ff.ScoreFisher(S, reduction="sum"), np.linalg.cond(S)
    pair = np.linalg.inv(truth[:2, :2])

    def errors(solver: ff.Cholesky | ff.QR) -> np.ndarray:
        bound, both = (
            ff.cramer_rao_bound(F, solver=solver),
            ff.marginalize(F, [0, 1], solver=solver),
        )
        return np.array([np.abs(bound - truth).max() / np.abs(truth).max(),
                         np.abs(both - pair).max() / np.abs(pair).max()])  # fmt: skip

    unit = 4 * p * np.finfo(float).eps
    qr = errors(ff.QR())
    assert qr[0] < unit * cond
    # The pair is inverted once more.
    assert qr[1] < unit * cond * np.linalg.cond(pair)
    assert errors(ff.Cholesky())[0] < unit * cond**2
    assert qr[0] < errors(ff.Cholesky())[0] / 100


UNITS = np.array([1e100, 1e-100, 1.0, 1e-60, 1e77, 1e-9])


@pytest.mark.parametrize(
    ("fisher", "solver"),
    [
        (ff.DenseFisher.from_scores, "auto"),
        (lambda S: ff.BlockDiagonalFisher.from_scores(S, [2, 4], tridiagonal=True), "auto"),
        (ff.SquareRootFisher.from_scores, "auto"),
        (ff.ScoreFisher, "auto"),
        (ff.ScoreFisher, ff.QR()),
        (lambda S: S.T @ S, "auto"),
    ],
    ids=["dense", "tridiagonal", "root", "score", "score-qr", "matrix"],
)
def test_units_do_not_matter(fisher: Callable[..., Any], solver: str | ff.QR) -> None:
    """Parameters from 10⁻¹⁰⁰ to 10¹⁰⁰ of their unit: nothing but rounding changes."""
    S = oracle.draw(40, 6)
    F, G = fisher(S), fisher(S * UNITS)
    tolerance = 100 * 6 * np.linalg.cond(S) ** 2 * np.finfo(float).eps
    scale = 1 / UNITS
    expected = scale[:, None] * ff.cramer_rao_bound(F, solver=solver) * scale
    size = np.sqrt(np.diag(expected))
    actual = ff.cramer_rao_bound(G, solver=solver)
    assert np.abs((actual - expected) / size[:, None] / size).max() < tolerance
    variances = ff.cramer_rao_bound(G, diagonal=True, solver=solver)
    np.testing.assert_allclose(variances, np.diag(expected), rtol=tolerance)
    keep = [0, 1, 4]
    kept = ff.marginalize(F, keep, solver=solver) * UNITS[keep] * UNITS[keep, None]
    size = np.sqrt(np.diag(kept))
    actual = ff.marginalize(G, keep, solver=solver)
    assert np.abs((actual - kept) / size[:, None] / size).max() < tolerance


def test_condition_number_in_units_of_each_error() -> None:
    """What the page on bounds advises: with a unit diagonal, rcond is that of the problem."""
    F = information()
    scaled = UNITS[:5, None] * F * UNITS[:5]
    own = [
        ff.DenseFisher.from_matrix(ff.reparametrize(G, np.diag(G.diagonal() ** -0.5)))
        for G in (F, scaled)
    ]
    oracle.close(own[1].to_dense(), own[0].to_dense(), np.float64, 10)
    np.testing.assert_allclose(own[0].factor().rcond, own[1].factor().rcond, rtol=1e-12)
    assert ff.DenseFisher.from_matrix(scaled).factor().rcond < 1e-100


def test_many_parameters_without_a_matrix() -> None:
    """p = 20000 of which two are asked for: the dual, where F alone would take 3.2 GB."""
    S = oracle.draw(40, 20_000)
    information = ff.marginalize(ff.ScoreFisher(S), [7, -1], prior=50.0)
    K = np.linalg.inv(S @ S.T + 50.0 * np.eye(40))
    U = S[:, [7, -1]]
    covariance = (np.eye(2) - U.T @ K @ U) / 50.0
    oracle.close(np.linalg.inv(information), covariance, np.float64, 20_000)
