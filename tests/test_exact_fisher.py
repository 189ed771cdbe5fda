"""The exact and the Monte-Carlo Fisher of a model: any family, any representation as the target."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle
from distributions import MU, SIGMA
from fastfisher import _memory
from fastfisher.families import outputs
from fastfisher.families.family import Family

N, P = 23, 7
RNG = oracle.rng(5)
BATCHES = {
    "gaussian-mean": ff.Gaussian(RNG.standard_normal(N), 1.5, fixed_scale=True),
    "gaussian": ff.Gaussian(RNG.standard_normal(N), RNG.uniform(0.5, 2, N)),
    "poisson": ff.Poisson(RNG.uniform(0.5, 5, N)),
    "exponential": ff.Exponential(RNG.uniform(0.5, 5, N)),
    "binomial": ff.Binomial(np.arange(1, N + 1), RNG.uniform(0.1, 0.9, N)),
    "bernoulli": ff.Bernoulli(RNG.uniform(0.1, 0.9, N)),
    "categorical": ff.Categorical(RNG.standard_normal((N, 4))),
    "multivariate-mean": ff.MultivariateGaussian(RNG.standard_normal((N, 3)), SIGMA),
    "multivariate": ff.MultivariateGaussian(
        RNG.standard_normal((N, 2)), SIGMA[:2, :2], fixed_covariance=False
    ),
    "two-poissons": ff.Poisson(RNG.uniform(0.5, 5, (N, 2))),
    "three-gaussians": ff.Gaussian(RNG.standard_normal((N, 3)), RNG.uniform(0.5, 2, (N, 3))),
    "two-categoricals": ff.Categorical(RNG.standard_normal((N, 2, 3))),
    "one-for-all": ff.Gaussian(0.3, 1.5),
    "one-vector-for-all": ff.MultivariateGaussian(MU, SIGMA),
}
WEIGHTS = oracle.draw_weights(N)
each = pytest.mark.parametrize("name", BATCHES)


def information(family: Family) -> np.ndarray:
    """Return F_out (n, outputs, outputs), put together by a loop over distributions."""
    F = family.fisher_information()
    k = F.shape[-1]
    F = np.broadcast_to(F, (N, *F.shape[-2:])) if not family.batch_shape else F
    F = F.reshape(N, -1, k, k)
    m = F.shape[1]
    out = np.zeros((N, m * k, m * k))
    for i in range(m):
        out[:, i * k : (i + 1) * k, i * k : (i + 1) * k] = F[:, i]
    return out


def jacobians(family: Family, dtype: type[np.floating] = np.float64) -> np.ndarray:
    size = information(family).shape[1]
    return oracle.rng(size).standard_normal((N, size, P)).astype(dtype)


def expected(J: np.ndarray, family: Family, w: np.ndarray) -> np.ndarray:
    answer: np.ndarray = np.einsum("n,nki,nkl,nlj->ij", w, J, information(family), J) / w.sum()
    return answer


@each
@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_it_is_the_sum_over_samples(name: str, dtype: type[np.floating]) -> None:
    family = BATCHES[name]
    J = jacobians(family, dtype)
    for weights in (None, WEIGHTS):
        F = ff.exact_fisher(J, family, weights=weights)
        assert F.dtype == dtype
        truth = expected(oracle.wide(J), family, np.ones(N) if weights is None else weights)
        oracle.close(F, truth, dtype, 4 * N)


@each
def test_output_fisher_is_what_stands_between_the_jacobians(name: str) -> None:
    family = BATCHES[name]
    F = ff.output_fisher(family)
    truth = information(family)
    np.testing.assert_array_equal(F, truth if family.batch_shape else truth[0])


@each
@pytest.mark.parametrize("kind", ["DenseFisher", "DiagonalFisher", "ScoreFisher"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_every_representation_counts_samples_not_rows(
    name: str, kind: str, weights: np.ndarray | None
) -> None:
    family = BATCHES[name]
    J = jacobians(family)
    F = ff.exact_fisher(J, family, weights=weights, into=getattr(ff, kind))
    assert type(F).__name__ == kind
    w = np.ones(N) if weights is None else weights
    assert F.weight_sum == pytest.approx(w.sum(), rel=1e-14)
    truth = expected(J, family, w)
    truth = np.diag(np.diag(truth)) if kind == "DiagonalFisher" else truth
    oracle.close(F.to_dense(), truth, np.float64, 4 * N)
    F = ff.monte_carlo_fisher(J, family, 3, rng=1, weights=weights, into=getattr(ff, kind))
    assert F.weight_sum == pytest.approx(w.sum(), rel=1e-14)


def test_an_instance_goes_on_summing() -> None:
    family = BATCHES["categorical"]
    J = jacobians(family)
    for reduction in ("mean", "sum"):
        F = ff.DenseFisher(P, reduction=reduction)
        first, second = slice(0, 9), slice(9, N)
        for part in (first, second):
            assert ff.exact_fisher(J[part], family._part(part), into=F) is F
        truth = expected(J, family, np.ones(N)) * (N if reduction == "sum" else 1)
        oracle.close(F.to_dense(), truth, np.float64, 4 * N)
        assert F.weight_sum == pytest.approx(N)


@each
def test_blocks_of_rows_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = BATCHES[name]
    J = jacobians(family)
    weights = WEIGHTS.copy()
    weights[4:9] = 0.0  # a block without any weight
    whole = ff.exact_fisher(J, family, weights=weights)
    monkeypatch.setattr(outputs, "_ROWS", 1)
    monkeypatch.setattr(outputs, "_LEAST_ROWS", 1)
    oracle.close(ff.exact_fisher(J, family, weights=weights), whole, np.float64, 4 * N)
    # The draws go on where the block before ended, so they differ; their mean does not.
    drawn = ff.monte_carlo_fisher(J, family, 2000, rng=1)
    truth = expected(J, family, np.ones(N))
    assert np.linalg.norm(drawn - truth) < 0.2 * np.linalg.norm(truth)


@each
def test_monte_carlo_is_the_mean_over_draws(name: str) -> None:
    family = BATCHES[name]
    J = jacobians(family)
    rng = np.random.default_rng(8)
    single = family.batch_shape == ()
    x = family.sample(4 * N if single else 4, rng)
    x = x.reshape(4, N, *x.shape[1:]) if single else x
    rows = np.einsum("tno,nop->tnp", family.score(x).reshape(4, N, -1), J)
    truth = np.einsum("n,tni,tnj->ij", WEIGHTS, rows, rows) / (4 * WEIGHTS.sum())
    drawn = ff.monte_carlo_fisher(J, family, 4, rng=8, weights=WEIGHTS)
    oracle.close(drawn, truth, np.float64, 16 * N)


def test_monte_carlo_is_unbiased_within_its_standard_error() -> None:
    family = BATCHES["gaussian"]
    J = jacobians(family)
    rng = np.random.default_rng(9)
    drawn = np.array([ff.monte_carlo_fisher(J, family, 5, rng=rng) for _ in range(400)])
    standard_error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - ff.exact_fisher(J, family)) < 5 * standard_error).all()


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_the_bits_do_not_depend_on_threads(dtype: type[np.floating]) -> None:
    n = 3000
    J = oracle.draw(2 * n, 50, dtype).reshape(n, 2, 50)
    family = ff.Gaussian(np.zeros(n), np.linspace(0.5, 2, n))
    for call in (ff.exact_fisher, lambda *a, **k: ff.monte_carlo_fisher(*a, rng=1, **k)):
        one, three = (call(J, family, n_threads=threads) for threads in (1, 3))
        np.testing.assert_array_equal(one, three)


def test_draws_repeat() -> None:
    family = BATCHES["poisson"]
    J = jacobians(family)
    first, again = (ff.monte_carlo_fisher(J, family, rng=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_fisher_scoring_needs_no_more() -> None:
    """Poisson regression by Fisher scoring on outputs η = Xθ ends where the mean score is zero."""
    rng = oracle.rng(11)
    X = np.column_stack([np.ones(300), rng.standard_normal((300, 3))])
    y = rng.poisson(np.exp(X @ [0.5, 0.3, -0.2, 0.1]))
    theta = np.zeros(4)
    for _ in range(20):
        rate = np.exp(X @ theta)
        J = (rate[:, None] * X)[:, None, :]
        grad = np.einsum("nk,nkp->p", ff.Poisson(rate).score(y), J) / len(y)
        theta += ff.solve(ff.exact_fisher(J, ff.Poisson(rate)), grad).value
    np.testing.assert_allclose(X.T @ (y - np.exp(X @ theta)), 0, atol=1e-10)


@pytest.mark.parametrize("call", [ff.exact_fisher, ff.monte_carlo_fisher])
@pytest.mark.parametrize(
    ("jacobians", "family", "error", "message"),
    [
        (
            np.ones((3, 2)),
            ff.Poisson([1, 2, 3]),
            ValueError,
            r"jacobians: expected shape \(n, 1, p\), got \(3, 2\). Poisson takes 1 output",
        ),
        (
            np.ones((3, 1, 2)),
            ff.Gaussian([1, 2, 3], 1),
            ValueError,
            r"jacobians: expected shape \(n, 2, p\), got \(3, 1, 2\)",
        ),
        (
            np.ones((3, 1, 0)),
            ff.Poisson([1, 2, 3]),
            ValueError,
            r"jacobians: expected shape \(n, 1, p\), got \(3, 1, 0\)",
        ),
        (
            np.ones((0, 1, 2)),
            ff.Poisson(1),
            ValueError,
            r"jacobians: expected at least one sample, got shape \(0, 1, 2\)",
        ),
        (
            np.ones((4, 1, 2)),
            ff.Poisson([1, 2, 3]),
            ValueError,
            "jacobians: expected 3 samples as the family has, got 4",
        ),
        (
            np.ones((3, 1, 2), int),
            ff.Poisson(1),
            TypeError,
            "jacobians: expected float64, .* int64",
        ),
        (np.ones((3, 1, 2), complex), ff.Poisson(1), TypeError, "jacobians: expected real numbers"),
        (np.ones((3, 1, 2)), "Poisson", TypeError, "family: expected a Family, got str"),
        (
            np.ones((3, 1, 2)),
            ff.Poisson(np.ones((3, 1, 1))),
            ValueError,
            r"family: expected a batch \(n,\) or \(n, m\), got \(3, 1, 1\)",
        ),
    ],
)
def test_jacobians_that_do_not_fit(
    call: Callable[..., Any],
    jacobians: np.ndarray,
    family: str | Family,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        call(jacobians, family)


def test_a_bad_jacobian_is_named_and_changes_nothing() -> None:
    J = np.ones((5, 1, 2))
    J[3, 0, 1] = np.nan
    F = ff.DiagonalFisher(2)
    with pytest.raises(ff.NonFiniteError, match=r"jacobians: .* in sample 3") as caught:
        ff.exact_fisher(J, ff.Poisson(1), into=F)
    assert caught.value.row == 3
    assert F.n_samples == 0


@pytest.mark.parametrize(
    ("into", "error", "message"),
    [
        (3, TypeError, "into: expected a representation .*, got int"),
        (dict, TypeError, "into: expected a representation .*, got dict"),
        (
            ff.ScoreFisher(np.ones((2, 2))),
            TypeError,
            "into: expected a representation .*, got ScoreFisher",
        ),
        (ff.DenseFisher(3), ValueError, "into: expected 2 parameters .*, got 3"),
        (ff.DenseFisher(2, center=True), ValueError, "into: expected center=False"),
        (ff.DenseFisher(2, dtype=np.float32), TypeError, "scores: expected float32"),
    ],
)
def test_targets_that_do_not_fit(into: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ff.exact_fisher(np.ones((3, 1, 2)), ff.Poisson(1), into=into)


def test_weights_and_draws_that_do_not_fit() -> None:
    J = np.ones((3, 1, 2))
    with pytest.raises(ValueError, match=r"weights: expected shape \(3,\), one per sample"):
        ff.exact_fisher(J, ff.Poisson(1), weights=np.ones(2))
    with pytest.raises(ValueError, match="n_draws: expected at least 1, got 0"):
        ff.monte_carlo_fisher(J, ff.Poisson(1), 0)


def test_rows_that_will_not_fit_are_refused_before_they_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_memory, "available_memory", lambda: 2**20)
    J = np.broadcast_to(1.0, (1000, 1, 10_000))
    with pytest.raises(ff.MemoryLimitError, match=r"ScoreFisher of 1 rows per sample: expected at"):
        ff.exact_fisher(J, ff.Poisson(1), into=ff.ScoreFisher)


def test_no_input_is_written_to() -> None:
    family = BATCHES["categorical"]
    J = jacobians(family)
    J.flags.writeable = False
    ff.exact_fisher(J, family)
    ff.exact_fisher(np.asfortranarray(J), family)
    strided = np.repeat(J, 2, axis=2)[:, :, ::2]
    np.testing.assert_allclose(
        ff.exact_fisher(strided, family), ff.exact_fisher(J, family), rtol=1e-13, atol=1e-16
    )
