"""Inference for any representation, of every dtype, and what it says of bad input."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastfisher as ff
import oracle
import representations
import score_tests as example
from fastfisher.fisher.additive import Additive

CASES: dict[str, Any] = {name: rest for name, *rest in representations.cases()}


def total_of(F: Additive, matrix: np.ndarray) -> np.ndarray:
    return matrix * (1.0 if F.reduction == "sum" else F.weight_sum)


def well_conditioned(matrix: np.ndarray) -> bool:
    return bool(np.linalg.cond(matrix) < 1e10)


@pytest.mark.parametrize("name", CASES)
def test_any_representation_of_the_information(name: str) -> None:
    F, matrix, S = CASES[name]
    A, p = total_of(F, matrix), len(matrix)
    g = oracle.rng(1).standard_normal(p)
    R = oracle.rng(2).standard_normal((2, p))
    if not well_conditioned(A):
        for fails in (
            lambda: ff.score_test(g, F, df=1),
            lambda: ff.sandwich_covariance(F, S),
            lambda: ff.wald_test(g, F, R=R),
        ):
            with pytest.raises((ff.NotPositiveDefiniteError, ValueError)):
                fails()
        return
    bound = 100 * p * np.linalg.cond(A) * np.finfo(float).eps
    inverse = np.linalg.inv(A)
    test = ff.score_test(g, F, df=3)
    np.testing.assert_allclose(test.statistic, g @ inverse @ g, rtol=bound)
    assert test.df == 3
    d = R @ inverse @ g
    expected = d @ np.linalg.solve(R @ inverse @ R.T, d)
    np.testing.assert_allclose(ff.score_test(g, F, R=R).statistic, expected, rtol=bound)
    d = R @ g - 0.5
    expected = d @ np.linalg.solve(R @ inverse @ R.T, d)
    np.testing.assert_allclose(ff.wald_test(g, F, R=R, value=0.5).statistic, expected, rtol=bound)
    np.testing.assert_allclose(ff.wald_test(g, F).statistic, g @ A @ g, rtol=bound)
    V = inverse @ S.T @ S @ inverse
    np.testing.assert_allclose(ff.sandwich_covariance(F, S), V, rtol=0, atol=bound * V.max())
    variances = ff.sandwich_covariance(F, S, diagonal=True)
    np.testing.assert_allclose(variances, np.diag(V), rtol=bound)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_scores_of_every_dtype_are_summed_in_double_precision(dtype: type[np.floating]) -> None:
    S = oracle.draw(3000, 5).astype(dtype)
    wide = S.astype(np.float64)
    M = wide.T @ wide
    for actual, expected in (
        (ff.score_covariance(S), M),
        (ff.opg_covariance(S), np.linalg.inv(M)),
        (ff.sandwich_covariance(M, S), np.linalg.inv(M)),
        (ff.sandwich_covariance(M, S, diagonal=True), np.diag(np.linalg.inv(M))),
    ):
        assert actual.dtype == np.float64
        oracle.close(actual, expected, np.float64, 3000)
    g = wide.sum(axis=0)
    np.testing.assert_allclose(ff.score_test(S, df=5).statistic, g @ np.linalg.solve(M, g), 1e-11)


@pytest.mark.parametrize("keywords", [{}, {"clusters": np.arange(8) // 3}, {"lags": 2}])
def test_variances_of_more_parameters_than_a_matrix_can_have(keywords: dict[str, Any]) -> None:
    S = oracle.draw(8, 200_000)
    F = ff.DiagonalFisher.from_scores(S, reduction="sum")
    variances = ff.sandwich_covariance(F, S, diagonal=True, **keywords)
    some = np.arange(0, 200_000, 40_000)
    A = np.diag(F.diagonal()[some])
    expected = ff.sandwich_covariance(A, S[:, some], **keywords)
    oracle.close(variances[some], np.diag(expected), np.float64, 20)
    with pytest.raises(ff.MemoryLimitError):
        ff.sandwich_covariance(F, S, **keywords)


def test_a_covariance_has_the_dtype_of_the_information() -> None:
    S = oracle.draw(100, 4, np.float32)
    F = ff.DenseFisher.from_scores(S)
    assert F.dtype == np.float32
    several: list[dict[str, Any]] = [{}, {"diagonal": True}]
    for keywords in several:
        assert ff.sandwich_covariance(F, S, **keywords).dtype == np.float32


@pytest.mark.parametrize("keywords", [{}, {"clusters": True}, {"clusters": 2}])
@pytest.mark.parametrize("correction", ["none", "CR1"])
def test_weights_are_copies(keywords: dict[str, Any], correction: str) -> None:
    S = oracle.draw(300, 4)
    rng = oracle.rng(3)
    weights = rng.integers(0, 4, 300)
    labels = rng.integers(0, 30, (300, 2))
    weights[labels[:, 0] == 7] = 0  # a cluster that is not there
    copies = np.repeat(np.arange(300), weights)
    ways = {None: None, True: labels[:, 0], 2: (labels[:, 0], labels[:, 1])}[
        keywords.get("clusters")
    ]
    again = ways if ways is None else tuple(x[copies] for x in np.atleast_2d(ways))
    again = again[0] if again is not None and len(again) == 1 else again
    A = S.T @ S
    for diagonal in (False, True):
        actual = ff.sandwich_covariance(
            A, S, weights=weights, clusters=ways, correction=correction, diagonal=diagonal
        )
        expected = ff.sandwich_covariance(
            A, S[copies], clusters=again, correction=correction, diagonal=diagonal
        )
        oracle.close(actual, expected, np.float64, 3000)


def test_weights_that_are_zero_for_a_whole_block() -> None:
    S = oracle.draw(200_000, 2)
    weights = np.zeros(200_000)
    weights[-10:] = 1.0
    A = np.eye(2)
    expected = np.diag(S[-10:].T @ S[-10:])
    actual = ff.sandwich_covariance(A, S, weights=weights, diagonal=True)
    oracle.close(actual, expected, np.float64, 100)


@pytest.mark.parametrize(
    "labels",
    [
        np.repeat([3, -1, 7, 3], 5),
        np.repeat(np.array([5, -128, 127, 5], np.int8), 5),
        np.repeat(np.array([5, -(2**63), 2**63 - 1, 5]), 5),
        np.repeat(np.array([2**63, 1, 2**64 - 1, 2**63], np.uint64), 5),
        np.repeat([0.5, -np.inf, 2.5, 0.5], 5),
        np.repeat(["b", "a", "c", "b"], 5),
        np.repeat(np.array(["b", "a", "c", "b"], object), 5),
        np.repeat(np.array(["2020-01-02", "2020-01-01", "2021-01-01", "2020-01-02"], "M8[D]"), 5),
        list(np.repeat(["b", "a", "c", "b"], 5)),
    ],
)
def test_labels_of_every_kind(labels: np.ndarray) -> None:
    S = oracle.draw(20, 3)
    number = np.repeat([0, 1, 2, 0], 5)
    sums = np.array([S[number == c].sum(axis=0) for c in range(3)])
    actual = ff.score_covariance(S, clusters=labels)
    oracle.close(actual, sums.T @ sums, np.float64, 20)


def test_nothing_given_is_changed() -> None:
    S, labels, weights = oracle.draw(50, 3), np.arange(50) % 7, oracle.draw_weights(50)
    A, R, candidates = S.T @ S, np.eye(3)[1:], oracle.draw(50, 5)
    arrays = (S, labels, weights, A, R, candidates)
    copies = [x.copy() for x in arrays]
    for x in arrays:
        x.flags.writeable = False
    ff.opg_covariance(S, weights=weights)
    ff.sandwich_covariance(A, S, weights=weights, clusters=labels)
    ff.sandwich_covariance(A, S, lags=2, diagonal=True)
    ff.score_test(S, A, R=R, weights=weights, covariance=A)
    ff.wald_test(S[0], A, R=R)
    ff.score_tests(candidates, S[:, 0], S, weights=weights, robust=True)
    for x, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


def test_an_indefinite_covariance_is_returned_as_a_sum_and_refused_as_variances() -> None:
    """Two samples that share a first label, two that share a second: all correlation negative."""
    S = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    clusters = (np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0]))
    assert ff.score_covariance(S, clusters=clusters) == [[-4.0]]
    for diagonal in (False, True):
        with pytest.raises(ff.NotPositiveDefiniteError, match=r"got -4 for parameter 0. Two ways"):
            ff.sandwich_covariance(np.eye(1), S, clusters=clusters, diagonal=diagonal)
    alternating = np.tile([1.0, -1.0], 5)[:, None]
    with pytest.raises(ff.NotPositiveDefiniteError, match="variances that are not negative"):
        ff.sandwich_covariance(np.eye(1), alternating, lags=1, kernel="uniform")


# ---- many tests at once ----
@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_many_tests_are_single_tests(robust: bool, weighted: bool) -> None:
    rng = oracle.rng(11)
    X = np.column_stack([np.ones(80), rng.standard_normal((80, 2))])
    r = rng.standard_normal(80)
    r -= X @ np.linalg.lstsq(X, r)[0]
    w = rng.uniform(0.5, 2.0, 80) if weighted else r * r
    candidates = rng.standard_normal((80, 20)) + X[:, [1]]
    tests = ff.score_tests(candidates, r, X, weights=w if weighted else None, robust=robust)
    for j in range(20):
        Z = np.column_stack([X, candidates[:, j]])
        A = Z.T @ (w[:, None] * Z)
        V = ff.sandwich_covariance(A, r[:, None] * Z) if robust else None
        one = ff.score_test(Z.T @ r, A, R=np.eye(4)[3], covariance=V)
        np.testing.assert_allclose(tests.statistic[j], one.statistic, rtol=1e-10)
    np.testing.assert_allclose(tests.score**2 / tests.variance, tests.statistic)
    assert tests.p_value.shape == (20,)
    assert (tests.status == 0).all()


def test_candidates_that_cannot_be_tested_harm_no_other() -> None:
    rng = oracle.rng(12)
    X = np.column_stack([np.ones(500), rng.uniform(1990, 2020, 500)])
    r = rng.standard_normal(500)
    candidates = rng.standard_normal((500, 7))
    alone = ff.score_tests(candidates, r, X, weights=np.ones(500))
    candidates[:, 1] = 2.0
    candidates[:, 3] = 3 * X[:, 1] - 7
    candidates[4, 4] = np.nan
    candidates[5, 5] = -np.inf
    candidates[6, 5] = np.inf
    tests = ff.score_tests(candidates, r, X, weights=np.ones(500))
    bad = [1, 3, 4, 5]
    assert tests.status.tolist() == [0, 1, 0, 1, 2, 2, 0]
    assert np.isnan(tests.statistic[bad]).all()
    assert np.isnan(tests.p_value[bad]).all()
    good = [0, 2, 6]
    np.testing.assert_allclose(tests.statistic[good], alone.statistic[good], rtol=1e-12)


def test_a_candidate_that_varies_where_the_fit_is_perfect_cannot_be_tested() -> None:
    r = np.array([0, 0, 0, 0, 1.0, -1, 2, -2])
    groups = np.kron(np.eye(2), np.ones((4, 1)))
    C = np.array([[0, 1, 0, 1, 0, 0, 0, 0.0], [0, 0, 0, 0, 1, 0, 0, 0.0]]).T
    tests = ff.score_tests(C, r, groups, weights=np.ones(8), robust=True)
    assert list(tests.status) == [ff.Status.NOT_POSITIVE_DEFINITE, ff.Status.SUCCESS]
    assert np.isnan(tests.statistic[0])
    assert tests.statistic[1] > 0


def test_weights_of_the_outer_product_are_copies() -> None:
    S, copies = oracle.draw(30, 4), np.arange(30) % 3
    expected = np.linalg.inv(np.repeat(S, copies, axis=0).T @ np.repeat(S, copies, axis=0))
    oracle.close(ff.opg_covariance(S, weights=copies), expected, np.float64, 1000)


@pytest.mark.parametrize("matrix", [np.diag([1.0, -2.0]), np.ones((2, 2))])
def test_an_estimate_that_is_not_determined_has_no_wald_test(matrix: np.ndarray) -> None:
    with pytest.raises(ff.NotPositiveDefiniteError):
        ff.wald_test([1.0, 0.5], fisher=matrix)


def test_a_candidate_close_to_the_null_model_keeps_its_digits() -> None:
    rng = oracle.rng(13)
    X = np.column_stack([np.ones(300), rng.standard_normal(300)])
    r, fresh = rng.standard_normal((2, 300))
    tests = ff.score_tests(
        np.column_stack([fresh, X[:, 1] + 1e-5 * fresh]), r, X, weights=np.ones(300)
    )
    assert (tests.status == 0).all()
    # What is left of the candidate is 1e-5 of it, and it is rounded to 1e-16: 11 digits.
    np.testing.assert_allclose(tests.statistic[1], tests.statistic[0], rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, bool, np.float32, np.float16])
def test_candidates_of_every_dtype_and_more_than_a_block(
    dtype: npt.DTypeLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastfisher.applications.inference import scan

    monkeypatch.setattr(scan, "_BLOCK", 0)  # 16 columns at a time
    rng = oracle.rng(14)
    candidates = rng.integers(0, 2, (60, 50)).astype(dtype)
    r, X = rng.standard_normal(60), np.ones((60, 1))
    tests = ff.score_tests(candidates, r, X)
    expected = ff.score_tests(candidates.astype(float)[:, ::-1], r, X)
    np.testing.assert_allclose(tests.statistic, expected.statistic[::-1], rtol=1e-12)


def test_no_candidates() -> None:
    tests = ff.score_tests(np.empty((5, 0)), np.arange(5.0), np.ones((5, 1)))
    assert tests.statistic.shape == tests.p_value.shape == (0,)


# ---- what is refused ----
S = oracle.draw(12, 3)
A = S.T @ S
LABELS = np.arange(12) % 4


def with_nan(array: np.ndarray, place: int | tuple[int, int]) -> np.ndarray:
    array = array.copy()
    array[place] = np.nan
    return array


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"clusters": LABELS[:5]}, ValueError, r"clusters: expected shape \(12,\), .* got \(5,\)"),
        ({"clusters": [LABELS, LABELS]}, ValueError, r"got \(2, 12\). Two ways .* are a tuple"),
        ({"clusters": (LABELS, LABELS[:5])}, ValueError, r"clusters: expected shape \(12,\)"),
        ({"clusters": with_nan(LABELS * 1.0, 3)}, ValueError, "got nan at index 3. Leave"),
        ({"clusters": np.array([*"abcdefghijk", 0], object)}, TypeError, "can be sorted"),
        ({"clusters": np.array([*"abcdefghijk", None], object)}, ValueError, "None at index 11"),
        ({"clusters": np.array([None] * 12, object)}, ValueError, "got None at index 0"),
        ({"clusters": np.array(["NaT"] * 12, "M8[D]")}, ValueError, "got NaT at index 0"),
        ({"clusters": np.ma.array(LABELS)}, TypeError, "clusters: expected plain arrays"),
        ({"clusters": np.zeros(12)}, ValueError, "at least 2 different labels, got 1"),
        ({"lags": -1}, ValueError, "lags: expected at least 0, got -1"),
        ({"lags": 12}, ValueError, "lags: expected at most 11, got 12"),
        ({"lags": 1.5}, TypeError, "lags: expected a whole number, got float"),
        ({"lags": 1, "clusters": LABELS}, ValueError, "lags: expected None beside clusters"),
        ({"lags": 1, "weights": np.ones(12)}, ValueError, "weights: expected None beside lags"),
        ({"kernel": "quadratic"}, ValueError, "kernel: expected one of bartlett, parzen, uniform"),
        ({"correction": "HC3"}, ValueError, "correction: expected 'none' or 'CR1', got 'HC3'"),
        ({"weights": np.ones(3)}, ValueError, r"weights: expected shape \(12,\)"),
        ({"weights": -np.ones(12)}, ValueError, "weights: .* not negative"),
        (
            {"weights": np.full(12, 0.2), "correction": "CR1"},
            ValueError,
            "correction: expected more samples than the 3 parameters for 'CR1', got 2.4",
        ),
    ],
)
def test_options_of_a_sandwich_that_are_refused(
    keywords: dict[str, Any], error: type[Exception], message: str
) -> None:
    ask: Callable[..., Any]
    for ask in (
        lambda: ff.score_covariance(S, **keywords),
        lambda: ff.sandwich_covariance(A, S, **keywords),
        lambda: ff.sandwich_covariance(A, S, diagonal=True, **keywords),
    ):
        with pytest.raises(error, match=message):
            ask()


@pytest.mark.parametrize("keywords", [{}, {"clusters": LABELS}, {"lags": 2}])
@pytest.mark.parametrize("diagonal", [False, True])
def test_a_score_that_is_not_finite_is_named(keywords: dict[str, Any], diagonal: bool) -> None:
    with pytest.raises(ff.NonFiniteError, match="nan at row 7, column 1") as caught:
        ff.sandwich_covariance(A, with_nan(S, (7, 1)), diagonal=diagonal, **keywords)
    assert (caught.value.row, caught.value.column) == (7, 1)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda: ff.opg_covariance(S[:2]), ff.NotPositiveDefiniteError, r"as many .*\(2, 3\)"),
        (lambda: ff.opg_covariance(S[:0]), ValueError, "expected at least one sample"),
        (lambda: ff.opg_covariance(S[0]), ValueError, "scores: expected a 2-D array"),
        (lambda: ff.opg_covariance(S + 0j), TypeError, "real numbers, got complex128"),
        (
            lambda: ff.opg_covariance(S[:, [0, 0]]),
            ff.NotPositiveDefiniteError,
            "parameter 1",
        ),
        (
            lambda: ff.sandwich_covariance(np.eye(2), S),
            ValueError,
            r"information: expected shape \(3, 3\) .* got \(2, 2\)",
        ),
        (
            lambda: ff.sandwich_covariance(np.ones((3, 3)), S),
            ff.NotPositiveDefiniteError,
            "pivot 0 at parameter 1",
        ),
        (lambda: ff.sandwich_covariance(-A, S), ff.NotPositiveDefiniteError, "parameter 0"),
        (
            lambda: ff.sandwich_covariance(A + 0j, S),
            TypeError,
            "information: expected real numbers, got complex128",
        ),
        (lambda: ff.sandwich_covariance(A, S, diagonal=1), TypeError, "diagonal: expected True"),  # type: ignore[arg-type]
        # score tests
        (lambda: ff.score_test(S[0], df=1), ValueError, "fisher: expected the information"),
        (lambda: ff.score_test(S), ValueError, "df: expected the restrictions, got None"),
        (lambda: ff.score_test(S, A, df=0), ValueError, "df: expected at least 1, got 0"),
        (lambda: ff.score_test(S, A, df=4), ValueError, "df: expected at most 3, got 4"),
        (lambda: ff.score_test(S, A, df=2, R=np.eye(3)), ValueError, "df: expected None beside R"),
        (
            lambda: ff.score_test(S, A, df=2, covariance=A),
            ValueError,
            "R: expected the restrictions, got None",
        ),
        (
            lambda: ff.score_test(S, A, R=np.eye(3), covariance=np.eye(2)),
            ValueError,
            r"covariance: expected shape \(3, 3\) .* got \(2, 2\)",
        ),
        (lambda: ff.score_test(S[0], A, df=1, weights=S[0]), ValueError, "weights: expected None"),
        (lambda: ff.score_test(S[0, :2], A, df=1), ValueError, r"scores: .*shape \(3,\)"),
        (lambda: ff.score_test(S[:, :2], A, df=1), ValueError, r"scores: .*shape \(3,\)"),
        (lambda: ff.score_test(with_nan(S[0], 1), A, df=1), ff.NonFiniteError, "scores: expected"),
        (lambda: ff.score_test(with_nan(S, (2, 1)), df=1), ff.NonFiniteError, "row 2, column 1"),
        (lambda: ff.score_test(S, A + 0j, df=1), TypeError, "fisher: expected real numbers"),
        (
            lambda: ff.score_test(S, A, R=np.eye(3)[[0, 0]]),
            ff.NotPositiveDefiniteError,
            "R: expected restrictions .* at row 1",
        ),
        (lambda: ff.score_test(S, A, R=np.eye(2)), ValueError, r"R: expected shape \(k, 3\)"),
        (lambda: ff.score_test(S, A, R=np.ones((4, 3))), ValueError, "1 ≤ k ≤ 3, got"),
        (lambda: ff.score_test(S, A, R=[1, np.nan, 0]), ff.NonFiniteError, "R: expected finite"),
        # Wald tests
        (lambda: ff.wald_test(S[0]), ValueError, "fisher: expected it or `covariance`, got none"),
        (lambda: ff.wald_test(S[0], A, covariance=A), ValueError, "got both"),
        (lambda: ff.wald_test(S[0], A[:2]), ValueError, "fisher: expected a square matrix"),
        (
            lambda: ff.wald_test(S[0], covariance=A[:2]),
            ValueError,
            "covariance: expected a square matrix",
        ),
        (lambda: ff.wald_test(S[0, :2], A), ValueError, r"theta: expected shape \(3,\)"),
        (lambda: ff.wald_test(S.T, A), ValueError, r"theta: expected shape \(3,\), got \(3, 12\)"),
        (
            lambda: ff.wald_test(S[0], A, value=[1, 2]),
            ValueError,
            r"shape \(3,\), got shape \(2,\)",
        ),
        (lambda: ff.wald_test(S[0], A, value=np.nan), ff.NonFiniteError, "value: expected finite"),
        (lambda: ff.wald_test(S[0], A, R=[*"abc"]), TypeError, "R: expected real numbers, got"),
        (
            lambda: ff.wald_test(S[0], covariance=np.ones((3, 3))),
            ff.NotPositiveDefiniteError,
            "parameter 1",
        ),
        (
            lambda: ff.wald_test(S[0], covariance=-A, R=np.eye(3)[:2]),
            ff.NotPositiveDefiniteError,
            "singular or indefinite at row 0",
        ),
        # many at once
        (
            lambda: ff.score_tests(S, S[:5, 0], S[:, :1]),
            ValueError,
            r"residuals: expected shape \(12,\)",
        ),
        (lambda: ff.score_tests(S, S, S), ValueError, r"residuals: expected shape \(12,\), got"),
        (lambda: ff.score_tests(S, 0 * S[:, 0], S), ValueError, "residuals: .* not zero, got none"),
        (lambda: ff.score_tests(S[:5], S[:, 0], S), ValueError, r"candidates: .*\(12, m\), got"),
        (lambda: ff.score_tests(S[:, 0], S[:, 0], S), ValueError, r"candidates: expected shape"),
        (lambda: ff.score_tests(np.ma.array(S), S[:, 0], S), TypeError, "got a masked one"),
        (lambda: ff.score_tests(S.astype(str), S[:, 0], S), TypeError, "candidates: expected real"),
        (
            lambda: ff.score_tests(S, S[:, 0], S[:, 0]),
            ValueError,
            r"design: expected shape \(n, q\)",
        ),
        (
            lambda: ff.score_tests(S, S[:, 0], S, weights=S[:3, 0]),
            ValueError,
            r"weights: expected shape \(12,\)",
        ),
        (
            lambda: ff.score_tests(S, S[:, 0], S[:, [1, 1]]),
            ff.NotPositiveDefiniteError,
            "parameter 1",
        ),
        (lambda: ff.score_tests(S, with_nan(S[:, 0], 0), S), ff.NonFiniteError, "residuals: expec"),
        (
            lambda: ff.score_tests(S, S[:, 0], with_nan(S, (1, 2))),
            ff.NonFiniteError,
            "design: expected finite values",
        ),
        (lambda: ff.score_tests(S, S[:, 0], S, robust="HC0"), TypeError, "robust: expected True"),  # type: ignore[arg-type]
    ],
)
def test_what_is_refused(ask: Callable[..., Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ask()


def test_a_p_value_without_scipy_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    test = ff.ChiSquaredTest(3.0, 1)
    with pytest.raises(ImportError, match=r"p_value: expected SciPy, .* fastfisher\[examples\]"):
        _ = test.p_value
    assert (test.statistic, test.df) == (3.0, 1)


def test_the_example_finds_what_has_an_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    tests = example.main(str(picture), people=1500, variants=1000)
    assert picture.read_bytes().startswith(b"\x89PNG")
    causal = [int(place * 1000) for place in example.EFFECTS]
    assert set(np.argsort(tests.p_value)[:3]) <= set(causal)
    without, with_it = (
        float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[:2]
    )
    assert with_it < 1.15 < without
