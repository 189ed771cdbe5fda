"""Applications on a device: the answers of NumPy, or the advice to copy what runs on the host."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import device
import fastfisher as ff
import oracle

S = oracle.draw(60, 5)
g = np.linspace(1.0, 2.0, 5)


def same(
    ours: Any,
    theirs: Any,
) -> None:
    """Compare arrays that must have stayed on the device, numbers, or tuples and lists of both."""
    if isinstance(theirs, tuple | list):
        for one, two in zip(ours, theirs, strict=True):
            same(one, two)
    elif isinstance(theirs, np.ndarray):
        assert isinstance(ours, device.Array)
        oracle.close(device.to_host(ours), theirs, float, 1e5)
    else:
        assert not isinstance(ours, device.Array)
        oracle.close(ours, theirs, float, 1e5)


CALLS: dict[str, Callable[..., Any]] = {
    "trust_region_step": lambda F, to: ff.trust_region_step(F, to(g), 0.01).value,
    "ewc_penalty": lambda F, to: ff.ewc_penalty(F, to(g), to(0 * g), 2.0),
    "cramer_rao_bound": lambda F, to: ff.cramer_rao_bound(F),
    "cramer_rao_bound of functions": lambda F, to: ff.cramer_rao_bound(
        F, jacobian=to(np.eye(5)[:2]), prior=to(g)
    ),
    "marginalize": lambda F, to: ff.marginalize(F, [3, 1]),
    "condition_on": lambda F, to: ff.condition_on(F, [3, 1]),
    "add_prior": lambda F, to: ff.add_prior(F, to(g)),
    "reparametrize": lambda F, to: ff.reparametrize(F, to(np.eye(5)[:, :2])),
    "laplace_sample": lambda F, to: ff.laplace_sample(F, to(g), rng=0, size=3),
    "kl_quadratic": lambda F, to: ff.kl_quadratic(F, to(g)),
    "wald_test": lambda F, to: ff.wald_test(to(g), F).statistic,
    "wald_test of restrictions": lambda F, to: (
        ff.wald_test(to(g), F, R=to(np.eye(5)[:2]), value=1.0).statistic
    ),
    "score_test": lambda F, to: ff.score_test(to(g), F, df=5).statistic,
    "sandwich_covariance": lambda F, to: ff.sandwich_covariance(F, to(S)),
    "opg_covariance": lambda F, to: ff.opg_covariance(to(S)),
    "score_covariance": lambda F, to: ff.score_covariance(to(S)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", [ff.DenseFisher, ff.ScoreFisher, ff.SquareRootFisher])
def test_same_answers(kind: type[Any], name: str) -> None:
    call = CALLS[name]
    ours = call(kind.from_scores(device.to_device(S)), device.to_device)
    same(ours, call(kind.from_scores(S), lambda array: array))


def test_elastic_weight_consolidation() -> None:
    for mode in ("separate", "online"):
        found = []
        for to in (device.to_device, lambda array: array):
            ewc = ff.ElasticWeightConsolidation(
                2.0, mode=mode, decay=0.5 if mode == "online" else 1
            )
            empty = ewc.penalty(to(g))
            for seed in range(2):
                scores = oracle.rng(seed).standard_normal((30, 5))
                ewc.consolidate(to(seed * g), ff.DiagonalFisher.from_scores(to(scores)))
            found.append((empty, ewc.penalty(to(2 * g))))
        same(*found)


def test_natural_gradient_descent() -> None:
    """Logistic regression whose model computes on the device throughout."""
    y = (S @ g + oracle.rng(3).standard_normal(60) > 0).astype(float)

    def model(
        to: Callable[[Any], Any],
        xp: ModuleType | device._Namespace,
    ) -> Callable[[Any], Any]:
        X, target = to(S), to(y)

        def value(
            theta: Any,
        ) -> tuple[Any, Any, Any]:
            z = X @ theta
            residual = 1.0 / (1.0 + xp.exp(-z)) - target
            loss = (xp.log1p(xp.exp(z)) - target * z).sum() / 60
            return loss, (X.T @ residual) / 60, X * residual[:, None]

        return value

    theirs = ff.natural_gradient_descent(
        model(lambda array: array, np), 0 * g, damping=1e-2, max_iterations=15, backtracking=5
    )
    ours = ff.natural_gradient_descent(
        model(device.to_device, device.namespace), device.to_device(0 * g), damping=1e-2,
        max_iterations=15, backtracking=5,
    )  # fmt: skip
    assert ours.status == theirs.status
    same(ours.theta, theirs.theta)
    same(ours.loss, theirs.loss)


def test_trpo_step() -> None:
    F = oracle.fisher(S) + np.eye(5)

    def steps(
        to: Callable[[Any], Any],
        metric: np.ndarray | device.Array,
    ) -> ff.TRPOStep:
        return ff.trpo_step(
            lambda theta: float((theta * to(g)).sum()),
            lambda theta: 0.5 * float((theta * (metric @ theta)).sum()),
            to(0 * g), to(g), metric,
        )  # fmt: skip

    theirs = steps(lambda array: array, F)
    ours = steps(device.to_device, device.to_device(F))
    assert ours.status == theirs.status
    same(ours.theta, theirs.theta)
    product = device.to_device(F)
    ours = ff.trpo_step(
        lambda theta: float((theta * device.to_device(g)).sum()),
        lambda theta: 0.5 * float((theta * (product @ theta)).sum()),
        device.to_device(0 * g), device.to_device(g), lambda v: product @ v,
    )  # fmt: skip
    same(ours.theta, theirs.theta)


def _told(losses: Any) -> None:
    search = ff.SNES(g, 1.0, population=6, rng=0)
    search.ask()
    search.tell(losses)


T = device.to_device(S)
ON_THE_HOST: dict[str, Callable[..., Any]] = {
    "theta": lambda: ff.levenberg_marquardt(lambda t: t, device.to_device(g)),
    "residuals": lambda: ff.gauss_newton(lambda t: device.to_device(g), g),
    "candidates": lambda: ff.score_tests(T, S[:, 0], S[:, 1:]),
    "design": lambda: ff.score_tests(S, S[:, 0], T[:, 1:]),
    "scores": lambda: ff.score_covariance(T, clusters=np.arange(60) // 6),
    "mean": lambda: ff.XNES(device.to_device(g), 1.0),
    "losses": lambda: _told(device.to_device(np.arange(6.0))),
    "keep": lambda: ff.marginalize(ff.DenseFisher.from_scores(T), device.to_device([0, 1])),
    "jacobians": lambda: ff.exact_fisher(T, ff.Bernoulli(np.full(60, 0.5))),
    "probability": lambda: ff.Bernoulli(device.to_device(g / 4)),
}


@pytest.mark.parametrize("name", ON_THE_HOST)
def test_what_runs_on_the_host_says_so(name: str) -> None:
    wanted = rf"^{name}: expected a NumPy array, got device\.Array\..*copy it with device\.asnumpy"
    with pytest.raises(TypeError, match=wanted):
        ON_THE_HOST[name]()
