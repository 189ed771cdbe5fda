"""Torch: every public name gives for tensors on the CPU what it gives for NumPy, as tensors."""

import copy
import inspect
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import everything
import fastfisher as ff
import network
import oracle
from fastfisher._ops import border, on_host, tensors
from fastfisher._ops.border import TakesTensors

torch = pytest.importorskip("torch")

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(t) for t in (*oracle.EVERY, np.float16, BFLOAT16)]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def tensor(x: Any) -> Any:
    """Return the same as tensors: arrays, and lists, tuples and layers of them."""
    if isinstance(x, np.ndarray):
        if x.dtype == BFLOAT16:
            return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(x)
    if isinstance(x, list | tuple):
        return type(x)(map(tensor, x))
    if is_dataclass(x):
        kind: Any = type(x)
        return kind(**{field.name: tensor(getattr(x, field.name)) for field in fields(x)})
    return x


def same(ours: Any, expected: Any) -> None:
    """Assert that it is bit for bit what NumPy gave, with a tensor for every array."""
    if isinstance(expected, np.ndarray) and expected.dtype.names is None:
        assert isinstance(ours, torch.Tensor)
        assert not ours.requires_grad
        ours = ours.numpy()
        assert ours.dtype == expected.dtype
        assert np.array_equal(ours, expected, equal_nan=expected.dtype.kind in "fc")
        return
    assert type(ours) is type(expected)
    if isinstance(expected, dict):
        for name, one in expected.items():
            same(ours[name], one)
    elif isinstance(expected, list | tuple):
        for one, other in zip(ours, expected, strict=True):
            same(one, other)
    elif is_dataclass(expected):
        for field in fields(expected):
            same(getattr(ours, field.name), getattr(expected, field.name))
    elif isinstance(expected, TakesTensors):
        assert ours._home == "cpu"
        assert expected._home is None
    elif not callable(expected):
        assert np.array_equal(ours, expected, equal_nan=isinstance(expected, float))


def told(call: Callable[[Any, Any], Any], *args: Any) -> Any:
    """Return what a call gives, or the error that it raises in words."""
    try:
        return call(*args)
    except Exception as error:  # noqa: BLE001 (whatever NumPy is told, tensors are told)
        return f"{type(error).__name__}: {error}"


def draw(n: int, p: int, dtype: np.dtype) -> np.ndarray:
    wide = np.dtype(dtype) if np.dtype(dtype) in oracle.EPS else np.dtype(np.float32)
    return oracle.draw(n, p, wide).astype(dtype)


S, W = oracle.draw(40, 7), oracle.draw_weights(40) + 0.1
V, VS, POSITIVE = S[0].copy(), S[:3].T.copy(), np.abs(S[1]) + 0.1
MATRIX = oracle.fisher(S)


# ---- what takes scores ----
SCORES: dict[str, Callable[..., Any]] = {
    "empirical_fisher": lambda S, w: ff.empirical_fisher(S, weights=w, center=True),
    "fisher_diagonal": lambda S, w: ff.fisher_diagonal(S, weights=w),
    "fvp": lambda S, w: ff.fvp(S, S[:2].T, weights=w, damping=0.1),
    "gram": lambda S, w: ff.gram(S, weights=w),
    "natural_gradient": lambda S, w: ff.natural_gradient(S, damping=0.1, weights=w),
    "ScoreFisher": lambda S, w: ff.ScoreFisher(S, weights=w).to_dense(),
    "DenseFisher": lambda S, w: ff.DenseFisher.from_scores(S, weights=w).diagonal(),
    "update_from": lambda S, w: ff.DenseFisher(S.shape[1], dtype=ff.gram(S[:1]).dtype).update_from(
        ff.chunks(S, w, rows=9)
    ),
}


@each_dtype
@pytest.mark.parametrize("call", SCORES.values(), ids=SCORES)
def test_every_dtype(call: Callable[[Any, Any], Any], dtype: np.dtype) -> None:
    scores, weights = draw(40, 7, dtype), W.astype(np.float32 if dtype.itemsize < 8 else dtype.type)
    weights = np.ascontiguousarray(weights.real)
    for given in (scores, np.asfortranarray(scores), scores[::2, ::3]):
        w = weights[: len(given)]
        same(told(call, tensor(given), tensor(w)), told(call, given, w))


def test_numbers_of_every_thread_count_and_solver() -> None:
    scores, weights = everything.draw(120, 30), np.linspace(0.5, 2.0, 120)
    given = tensor(scores), tensor(weights)
    for table in (everything.functions, everything.methods):
        for (name, ours), (_, expected) in zip(table(*given), table(scores, weights), strict=True):
            if isinstance(ours, torch.Tensor):
                ours = ours.numpy()
            assert np.array_equal(ours, expected), name


# ---- representations ----
# What each answers, given what turns NumPy's arrays into those of the call.
METHODS: dict[str, Callable[..., Any]] = {
    "F @ v": lambda F, x: F @ x(V),
    "F @ V": lambda F, x: F @ x(VS),
    "quadratic_form": lambda F, x: F.quadratic_form(x(VS)),
    "diagonal": lambda F, x: F.diagonal(),
    "to_dense": lambda F, x: F.to_dense(),
    "trace": lambda F, x: F.trace(),
    "solve": lambda F, x: F.solve(x(V), damping=0.5),
    "damping": lambda F, x: F.solve(x(VS), damping=x(POSITIVE)),
    "solve_path": lambda F, x: F.solve_path(x(V), x(np.array([0.5, 2.0]))),
    "ff.solve": lambda F, x: ff.solve(F, x(V), damping=0.5, on_failure="nan"),
    "ff.solve_path": lambda F, x: list(ff.solve_path(F, x(VS), [0.5, 2.0])),
    "refused": lambda F, x: F.solve(x(V), damping=x(-V)),
    "factor": lambda F, x: F.factor(damping=0.5),
    "factor.solve": lambda F, x: F.factor(damping=0.5).solve(x(V)),
    "inverse": lambda F, x: F.factor(damping=0.5).inverse(),
    "inverse_diagonal": lambda F, x: F.factor(damping=0.5).inverse_diagonal(),
    "sample": lambda F, x: F.factor(damping=0.5).sample(0, 3),
    "logdet": lambda F, x: F.logdet(0.5),
    "apply_power": lambda F, x: F.apply_power(x(V), -0.5, damping=0.5),
    "eigsh": lambda F, x: F.eigsh(3),
    "effective_dimension": lambda F, x: F.effective_dimension(0.5),
    "leverage": lambda F, x: F.leverage(x(S), 0.5),
    "copy": lambda F, x: F.copy(),
    "F + F": lambda F, x: (F + F).diagonal(),
    "merge": lambda F, x: F.copy().merge(F).decay(0.5).diagonal(),
    "factors": lambda F, x: F.factors,
    "cramer_rao_bound": lambda F, x: ff.cramer_rao_bound(F, x(S[:2])),
    "marginalize": lambda F, x: ff.marginalize(F, x(np.array([0, 2])), prior=x(POSITIVE)),
    "condition_on": lambda F, x: ff.condition_on(F, [0, 2]),
    "add_prior": lambda F, x: ff.add_prior(F, x(POSITIVE)),
    "reparametrize": lambda F, x: ff.reparametrize(F, x(VS)),
    "kl_quadratic": lambda F, x: ff.kl_quadratic(F, x(VS)),
    "laplace_sample": lambda F, x: ff.laplace_sample(F, x(V), size=3, rng=0, prior=1.0),
    "wald_test": lambda F, x: ff.wald_test(x(V), F),
    "score_test": lambda F, x: ff.score_test(x(S), F, df=2),
    "sandwich_covariance": lambda F, x: ff.sandwich_covariance(F, x(S)),
    "ewc_penalty": lambda F, x: ff.ewc_penalty(F, x(V), x(V / 2), 2.0),
    "trust_region_step": lambda F, x: ff.trust_region_step(F, x(V), 0.01, damping=0.1),
    "ewc": lambda F, x: ff.ElasticWeightConsolidation(1.0).consolidate(x(V), F).penalty(x(2 * V)),
}


def asked(
    F: ff.Fisher,
    x: Any,
) -> dict[str, Any]:
    return {name: told(call, F, x) for name, call in METHODS.items()}


EMPTY: dict[str, Callable[..., Any]] = {
    "dense": lambda: ff.DenseFisher(7),
    "float32": lambda: ff.DenseFisher(7, dtype=np.float32),
    "diagonal": lambda: ff.DiagonalFisher(7, center=True),
    "blocks": lambda: ff.BlockDiagonalFisher([4, 3]),
    "tridiagonal": lambda: ff.BlockDiagonalFisher([2, 2, 3], tridiagonal=True),
    "root": lambda: ff.SquareRootFisher(7),
    "low-rank": lambda: ff.LowRankFisher(7, 3),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_accumulators_take_the_home_of_their_first_update(kind: str) -> None:
    dtype = EMPTY[kind]().dtype
    scores, weights = S.astype(dtype), W.astype(dtype)
    F = EMPTY[kind]().update(scores[:25], weights[:25]).update(scores[25:])
    ours = EMPTY[kind]().update(*tensor((scores[:25], weights[:25]))).update(tensor(scores[25:]))
    same(asked(ours, tensor), asked(F, lambda x: x))


def test_each_method_of_the_representations_that_hold_scores() -> None:
    layers = [(S[:, :2].copy(), S[:, 2:4].copy()), (S[:, 4:5].copy(), S[:, 4:].copy())]
    for ours, theirs in (
        (ff.ScoreFisher(tensor(S), weights=tensor(W)), ff.ScoreFisher(S, weights=W)),
        (ff.LayerFisher(tensor(layers)), ff.LayerFisher(layers)),
        (ff.KroneckerFisher.from_layers(tensor(layers)), ff.KroneckerFisher.from_layers(layers)),
        (ff.DenseFisher.from_matrix(tensor(MATRIX)), ff.DenseFisher.from_matrix(MATRIX)),
    ):
        same(asked(ours, tensor), asked(theirs, lambda x: x))


# ---- applications, batches, families: of what turns NumPy's arrays into those of the call ----
X, Y = oracle.draw(30, 3), oracle.draw(30, 1)[:, 0].copy()
ITEMS = oracle.draw(50, 4).reshape(10, 5, 4)
BATCH = np.einsum("bni,bnj->bij", ITEMS, ITEMS)
COUNTS, RATES = np.arange(5.0), np.linspace(0.5, 2.0, 5)


def regression(
    x: Any,
) -> Callable[[Any], tuple[Any, Any, Any]]:
    """Return the loss of least squares and its derivatives, of and as what `x` makes of arrays.

    They are computed by NumPy, for torch's sums have other bits.
    """

    def model(theta: Any) -> tuple[Any, Any, Any]:
        assert type(theta) is type(x(V))
        r = X @ np.asarray(theta) - Y
        return x(np.array(r @ r / 60)), x(X.T @ r / 30), x(X)

    return model


def descent(
    x: Any,
    **options: Any,
) -> list[ff.DescentResult | list[ff.DescentState]]:
    states: list[Any]
    states, model = [], regression(x)
    if options:
        options["loss"] = lambda theta: model(theta)[0]
    result = ff.natural_gradient_descent(
        model, x(V[:3]), damping=0.1, max_iterations=3, callback=states.append, **options
    )
    return [result, states]


def fitted(
    fit: Any,
    x: Any,
) -> Any:
    found = fit(lambda b: x(X @ np.asarray(b) - Y), x(V[:3]), jacobian=lambda _: x(X))
    return [found, found.standard_errors(), found.covariance()]


def square(
    x: Any,
) -> Any:
    """Return ‖θ‖² of a θ that must be what `x` makes of arrays."""

    def loss(theta: Any) -> Any:
        assert type(theta) is type(x(V))
        return x(np.array(np.square(np.asarray(theta)).sum()))

    return loss


def told_by_an_error(
    x: Any,
) -> Any:
    with pytest.raises(ff.NotPositiveDefiniteError) as error:
        ff.batch.solve(x(np.stack([np.eye(4), -np.eye(4)])), x(np.ones((2, 4))))
    return error.value.solution


def strategy(
    kind: Any,
    x: Any,
) -> Any:
    one = kind(x(V), 1.0, rng=0)
    for _ in range(3):
        one.tell(x(np.square(np.asarray(one.ask())).sum(axis=1)))
    result = one.minimize(square(x), max_evaluations=20)
    return [one, one.mean, one.best, one.sigma, one.covariance(), result]


def spring(
    x: Any,
) -> Any:
    one = ff.Spring(damping=0.1)
    return [one.step(x(S[:5]), x(Y[:5])), one.step(x(S[5:10]), x(Y[:5])), one.direction]


def adam(
    x: Any,
) -> Any:
    state = ff.Adam(0.1).start(x(V))
    return ff.Adam(0.1).step(state, x(V))


def family(
    made: Callable[..., Any],
    observed: np.ndarray,
    x: Any,
) -> list[Any]:
    one, data = made(x), x(observed)
    answers = [one.log_prob(data), one.score(data), one.fisher_information(), one.sample(3, rng=0)]
    other = one.with_parameters(one.parameters)
    return [*answers, one.kl(other), *(getattr(one, name) for name in one._held), one.parameters]


CALLS = {
    "natural_gradient_descent": descent,
    "with a loss": lambda x: descent(x, backtracking=3),
    "levenberg_marquardt": lambda x: fitted(ff.levenberg_marquardt, x),
    "gauss_newton": lambda x: fitted(ff.gauss_newton, x),
    "trpo_step": lambda x: ff.trpo_step(
        lambda theta: -square(x)(theta - x(V)), square(x), x(0 * V), x(2 * V), x(MATRIX),
        max_kl=0.1,
    ),
    "a metric as a function": lambda x: ff.trust_region_step(lambda v: 2.0 * v, x(V), 0.1),
    "a preconditioner": lambda x: ff.solve(
        x(MATRIX), x(VS), damping=0.1, solver=ff.CG(preconditioner=lambda R: 0.5 * R)
    ),
    "Adam": adam,
    "Spring": spring,
    "SNES": lambda x: strategy(ff.SNES, x),
    "XNES": lambda x: strategy(ff.XNES, x),
    "opg_covariance": lambda x: ff.opg_covariance(x(S)),
    "clusters": lambda x: ff.score_covariance(x(S), clusters=x(np.arange(40) // 4)),
    "labels": lambda x: ff.score_covariance(x(S), clusters=["a", "b"] * 20),
    "sandwich_covariance": lambda x: ff.sandwich_covariance(x(MATRIX), x(S), lags=2),
    "score_tests": lambda x: (
        tests := ff.score_tests(x(X), x(Y), x(np.ones((30, 1))), weights=x(W[:30])), tests.p_value
    ),
    "exact_fisher": lambda x: ff.exact_fisher(x(X[:5, None, :].copy()), ff.Poisson(x(RATES))),
    "into": lambda x: ff.exact_fisher(
        x(X[:5, None, :].copy()), ff.Poisson([1.0] * 5), into=ff.DiagonalFisher
    ).diagonal(),
    "monte_carlo_fisher": lambda x: ff.monte_carlo_fisher(
        x(X[:5, None, :].copy()), ff.Poisson(x(RATES)), rng=0
    ),
    "output_fisher": lambda x: ff.output_fisher(ff.Poisson(x(RATES))),
    "batch.empirical_fisher": lambda x: ff.batch.empirical_fisher(x(ITEMS)),
    "batch.solve": lambda x: ff.batch.solve(
        x(BATCH), x(ITEMS[:, 0].copy()), damping=x(RATES.repeat(2))
    ),
    "batch.inverse": lambda x: ff.batch.inverse(x(BATCH), damping=0.1),
    "batch.inverse_diagonal": lambda x: ff.batch.inverse_diagonal(x(BATCH), damping=0.1),
    "batch.logdet": lambda x: ff.batch.logdet(x(BATCH), damping=0.1),
    "batch.Scores": lambda x: ff.batch.solve(
        ff.batch.Scores(x(ITEMS)), x(ITEMS[:, 0].copy()), precision="extended"
    ),
    "an error's solution": told_by_an_error,
    "Poisson": lambda x: family(lambda x: ff.Poisson(x(RATES)), COUNTS, x),
    "Exponential": lambda x: family(lambda x: ff.Exponential(x(RATES)), COUNTS, x),
    "Gaussian": lambda x: family(lambda x: ff.Gaussian(x(COUNTS), x(RATES)), RATES, x),
    "Bernoulli": lambda x: family(lambda x: ff.Bernoulli(x(RATES / 3)), COUNTS % 2, x),
    "Binomial": lambda x: family(lambda x: ff.Binomial(x(COUNTS + 5), x(RATES / 3)), COUNTS, x),
    "Categorical": lambda x: family(lambda x: ff.Categorical(x(X[:5].copy())), COUNTS % 3, x),
    "MultivariateGaussian": lambda x: family(
        lambda x: ff.MultivariateGaussian(x(V[:3]), x(MATRIX[:3, :3].copy())), X, x
    ),
    "chunks": lambda x: list(ff.chunks(x(S), x(W), rows=15)),
    "a generator": lambda x: ff.DenseFisher(7).update_from(
        (x(S[i : i + 8].copy()), x(W[i : i + 8])) for i in range(0, 40, 8)
    ).to_dense(),
    "a stream into what has a home": lambda x: ff.DenseFisher(7).update(x(S)).update_from(
        x(list(np.split(S, 4)))
    ).to_dense(),
    "merge_tree": lambda x: ff.distributed.merge_tree(
        ff.DenseFisher.from_scores(part) for part in x(list(np.split(S, 4)))
    ).to_dense(),
    "distributed.empirical_fisher": lambda x: ff.distributed.empirical_fisher(
        x(list(np.split(S, 4))), weights=x(list(np.split(W, 4)))
    ).to_dense(),
    "network": lambda x: ff.LayerFisher(x(network.draw(9))).solve(
        x(oracle.draw(1, 49)[0]), damping=0.1
    ),
    "list of weights": lambda x: ff.KroneckerFisher([(2, 5)]).update(x(network.draw(9)[:1])).solve(
        x([oracle.draw(2, 5)]), damping=0.1, damping_mode="factored"
    ),
    "influence": lambda x: ff.LayerFisher(x(network.draw(9))).influence(0, [1, 2], damping=0.1),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_applications(call: Callable[..., Any]) -> None:
    same(call(tensor), call(lambda x: x))


def test_every_public_name_takes_tensors() -> None:
    """What is added later must not forget the border."""
    no_arrays = {"get_num_threads", "set_num_threads", "show_config", "load", "chunks"}
    for name in set(ff.__all__) - no_arrays:
        thing = getattr(ff, name)
        if inspect.isfunction(thing):
            assert hasattr(thing, "__wrapped__"), name
        elif inspect.isclass(thing) and not issubclass(thing, TakesTensors):
            plain = is_dataclass(thing) or issubclass(thing, int | Exception)
            assert plain, name
    for module in (ff.batch, ff.distributed):
        for name in module.__all__:
            thing = getattr(module, name)
            assert not inspect.isfunction(thing) or hasattr(thing, "__wrapped__"), name


# ---- views, and what comes back ----
def test_the_memory_is_shared() -> None:
    held = torch.from_numpy(S.copy())
    F = ff.ScoreFisher(held)
    assert F._scores.ctypes.data == held.data_ptr()
    before = F.trace()
    held *= 2
    assert F.trace() == 4 * before
    bits = held.to(torch.bfloat16)
    assert ff.ScoreFisher(bits)._scores.ctypes.data == bits.data_ptr()
    rows = ff.ScoreFisher(held[::2, 1:])
    assert rows._scores.strides == (2 * 7 * 8, 8)


def test_tensors_are_never_written_to() -> None:
    held, before = tensor((S, W, V)), [x.copy() for x in (S, W, V)]
    ff.natural_gradient(held[0], held[2], damping=1.0, weights=held[1], center=True)
    ff.DenseFisher.from_scores(held[0], weights=held[1]).solve(held[2], damping=1.0)
    assert all(np.array_equal(x, y) for x, y in zip(held, before, strict=True))


def test_out_is_the_tensor_that_was_given() -> None:
    out = torch.empty(7, 7, dtype=torch.float64)
    assert ff.empirical_fisher(tensor(S), out=out) is out
    same(out, ff.empirical_fisher(S))
    with pytest.raises(TypeError, match="out: expected a torch tensor on cpu as scores is, got"):
        ff.empirical_fisher(tensor(S), out=np.empty((7, 7)))


OUTS = {
    "a conjugate": (lambda: torch.zeros(7, 7, dtype=torch.complex128).conj(), "lazy conjugate"),
    "a negative": (lambda: torch.zeros(7, 7, dtype=torch.complex128).conj().imag, "or negative"),
    "rows in one place": (
        lambda: torch.zeros(1, 7, dtype=torch.float64).expand(7, 7), "out: .* overlaps itself"
    ),
    "rows that overlap": (
        lambda: torch.zeros(20, dtype=torch.float64).as_strided((7, 7), (2, 1)), "overlaps itself"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("out", "message"), OUTS.values(), ids=OUTS)
def test_out_that_cannot_hold_the_answer_is_refused(out: Callable[[], Any], message: str) -> None:
    held = out()
    scores = tensor(S + 1j * S if held.dtype.is_complex else S)
    with pytest.raises(ValueError, match=message):
        ff.empirical_fisher(scores, out=held)
    assert not held.resolve_conj().resolve_neg().any()


def test_out_may_have_any_strides_without_overlap() -> None:
    wide = torch.zeros(14, 21, dtype=torch.float64)
    for out in (wide[::2, ::3], wide[::2, ::3].T, wide[:7, :7]):
        same(ff.empirical_fisher(tensor(S), out=out), ff.empirical_fisher(S))


def test_a_view_of_memory_that_torch_cannot_describe_is_copied() -> None:
    # Read-only and of negative strides: a batch of one matrix for several right-hand sides.
    solution = ff.batch.solve(tensor(BATCH[:1]), tensor(ITEMS[:, 0].copy()), damping=1.0)
    same(solution.damping_used, np.ones(10))
    same(ff.DenseFisher.from_scores(tensor(S)).eigsh(7)[0],
         ff.DenseFisher.from_scores(S).eigsh(7)[0])  # fmt: skip


def test_conjugate_and_negative_bits_are_resolved() -> None:
    Z = oracle.draw(40, 7, np.complex128)
    lazy = tensor(Z).conj()
    assert lazy.is_conj()
    same(ff.empirical_fisher(lazy), ff.empirical_fisher(Z.conj()))
    assert lazy.imag.is_neg()
    same(ff.empirical_fisher(lazy.imag), ff.empirical_fisher(np.ascontiguousarray(-Z.imag)))


def test_dtypes_of_torch_are_dtypes() -> None:
    scores = tensor(S.astype(np.float32))
    assert ff.empirical_fisher(scores, dtype=torch.float64).dtype == torch.float64
    assert ff.DenseFisher(3, dtype=torch.float32).dtype == np.float32
    with pytest.raises(TypeError, match=r"dtype: expected a dtype of NumPy, got torch\.quint4x2"):
        ff.DenseFisher(3, dtype=torch.quint4x2)


def test_tensors_without_axes_are_numbers() -> None:
    assert type(ff.empirical_fisher(S)) is np.ndarray
    assert type(ff.natural_gradient(S, damping=torch.tensor(0.5))) is np.ndarray
    same(ff.fvp(tensor(S), tensor(V), damping=torch.tensor(0.5)), ff.fvp(S, V, damping=0.5))
    same(ff.DenseFisher(7).update(tensor(S)).logdet(torch.tensor(0.5)),
         ff.DenseFisher(7).update(S).logdet(0.5))  # fmt: skip


def test_inference_mode() -> None:
    with torch.inference_mode():
        scores = tensor(S) * 1.0
        same(ff.empirical_fisher(scores), ff.empirical_fisher(S))
    same(ff.empirical_fisher(scores), ff.empirical_fisher(S))


# ---- homes ----
def test_a_home_survives_copies_pickle_and_arithmetic() -> None:
    F = ff.DenseFisher(7).update(tensor(S))
    others = F.copy(), copy.copy(F), copy.deepcopy(F), pickle.loads(pickle.dumps(F)), F + F
    for one in (*others, F.decay(0.5), ff.DenseFisher(7).merge(F)):
        assert isinstance(one.diagonal(), torch.Tensor)


def test_files_have_no_home(tmp_path: Path) -> None:
    ff.DenseFisher(7).update(tensor(S)).save(tmp_path / "f.npz")
    F = ff.load(tmp_path / "f.npz")
    assert type(F.diagonal()) is np.ndarray
    same(F @ tensor(V), ff.DenseFisher(7).update(S) @ V)  # it answers in kind
    assert type(F.diagonal()) is np.ndarray


@pytest.mark.parametrize("x", [tensor, np.array])
def test_the_direction_of_a_spring_is_a_copy(x: Any) -> None:
    spring = ff.Spring(0.1)
    step = spring.step(x(S[:5]), x(Y[:5]))
    spring.direction[:] = 0
    assert (spring.direction == step).all()
    twin = pickle.loads(pickle.dumps(spring))
    assert type(twin.direction) is type(step)


def test_scipy_gets_an_operator_of_numpy() -> None:
    operator = ff.DenseFisher(7).update(tensor(S)).as_linear_operator()
    assert type(operator @ V) is np.ndarray


def test_the_first_update_with_tensors_gives_a_home() -> None:
    F = ff.DenseFisher(7)
    with pytest.raises(ff.NonFiniteError):
        F.update(tensor(S * np.nan))
    assert F._home is None
    assert type(F.update(tensor(S)).diagonal()) is torch.Tensor


def test_a_stream_that_stops_midway_leaves_a_home() -> None:
    def parts() -> Iterator[Any]:
        yield tensor(S[:20])
        raise OSError("disk gone")

    F = ff.DenseFisher(7)
    with pytest.raises(OSError, match="disk gone"):
        F.update_from(parts())
    assert F.n_samples == 20
    same(F.diagonal(), ff.DenseFisher(7).update(S[:20]).diagonal())


def test_what_is_made_of_numpy_goes_on_answering_in_kind() -> None:
    F = ff.DenseFisher(7).update(S[:20])
    F.update(tensor(S[20:])).merge(ff.DenseFisher(7).update(tensor(S)))
    assert type(F.update(S).diagonal()) is np.ndarray
    same(F @ tensor(V), F @ V)


def test_what_was_held_first_decides_what_an_object_is_of() -> None:
    point, diagonal = np.zeros(3), np.ones(3)
    table: list[tuple[Any, Any, Any]] = [
        (
            lambda x: ff.SNES(x(point), 1.0, population=6, rng=0),
            lambda held, x: (held.ask(), held.tell(x(np.arange(6.0)))),
            lambda held, x: (held.mean, held.best, held.sigma, held.ask()),
        ),
        (
            lambda x: ff.XNES(x(point), 1.0, rng=0),
            lambda held, x: held.restart(x(point + 1)),
            lambda held, x: (held.mean, held.covariance(), held.ask()),
        ),
        (
            lambda x: ff.ElasticWeightConsolidation(1.0).consolidate(x(point), x(diagonal)),
            lambda held, x: held.consolidate(x(point), x(diagonal)),
            lambda held, x: held.penalty(x(point))[1:],
        ),
        (
            lambda x: ff.Gaussian(x(point), x(diagonal)),
            lambda held, x: (held.score(x(point)), held.with_parameters(x(np.ones((3, 2))))),
            lambda held, x: (held.mean, held.fisher_information()),
        ),
    ]
    for make, use, show in table:
        for first, kind in ((np.asarray, np.ndarray), (tensor, torch.Tensor)):
            held = make(first)
            use(held, tensor)
            assert all(type(one) is kind for one in show(held, first)), held
    spring, twin = ff.Spring(0.1), ff.Spring(0.1)
    given: list[tuple[ff.Spring, Any, Any]] = [(spring, np.array, tensor), (twin, tensor, tensor)]
    for one, first, second in given:
        one.step(first(S[:5]), first(Y[:5]))
        one.step(second(S[5:9]), second(Y[5:9]))
        assert type(one.direction) is type(first(S))


def test_a_stream_or_a_callback_is_not_kept() -> None:
    alive: list[Any] = []

    def parts() -> Iterator[Any]:
        for _ in range(20):
            assert sum(one() is not None for one in alive) <= 1  # the last, still at work
            rows = tensor(S)
            alive.append(weakref.ref(rows))
            yield rows
            del rows

    ff.DenseFisher(7).update_from(parts())
    assert len(alive) == 20
    alive.clear()

    def gradient(theta: Any) -> Any:
        assert sum(one() is not None for one in alive) <= 2
        found = 2 * theta
        alive.append(weakref.ref(found))
        return found

    everywhere = ff.DenseFisher.from_matrix(torch.eye(7, dtype=torch.float64))
    ff.natural_gradient_descent(
        lambda theta: (float(theta @ theta), gradient(theta), everywhere),
        tensor(Y[:7]),
        step_size=0.1,
        max_iterations=12,
    )
    assert len(alive) > 10


def test_a_file_is_loaded_onto_the_device_of_a_tensor(tmp_path: Path) -> None:
    ff.DenseFisher(7).update(S).save(tmp_path / "f.npz")
    F = ff.load(tmp_path / "f.npz", like=tensor(V))
    assert isinstance(F, ff.DenseFisher)
    same(F.update(tensor(S)).diagonal(), ff.DenseFisher(7).update(S).update(S).diagonal())


def test_integers_may_be_of_either_library() -> None:
    groups, keep = np.arange(40) // 4, np.array([0, 2])
    counts, chosen = np.arange(1, 41), np.arange(40) % 3 == 0
    call: Callable[..., Any]
    for call in (
        lambda S, x: ff.score_covariance(S, clusters=x(groups)),
        lambda S, x: ff.marginalize(S.T @ S, x(keep)),
        lambda S, x: ff.fisher_diagonal(S, weights=x(counts)),
        lambda S, x: ff.fisher_diagonal(S, weights=x(chosen)),
    ):
        expected = call(S, lambda x: x)
        found = call(S, tensor)
        assert type(found) is type(expected)
        assert np.array_equal(found, expected)
        same(call(tensor(S), lambda x: x), expected)
    # Where there is nothing else, they decide.
    same(ff.Bernoulli(0.3).score(tensor(keep // 2)), ff.Bernoulli(0.3).score(keep // 2))
    with pytest.raises(TypeError, match="clusters: expected a tensor on cpu as scores is, got one"):
        ff.score_covariance(tensor(S), clusters=tensor(groups).to("meta"))


def test_data_loaders_and_other_iterables_give_chunks() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    class Parts:
        def __iter__(self) -> Any:
            return iter(tensor(S).split(8))

    expected = ff.DenseFisher.from_scores(S, weights=np.ones(40)).to_dense()
    for source in (
        DataLoader(tensor(S), batch_size=8),
        (
            tuple(pair)
            for pair in DataLoader(TensorDataset(*tensor((S, np.ones(40)))), batch_size=8)
        ),
        Parts(),
        {1: tensor(S[:8].copy()), 2: tensor(S[8:].copy())}.values(),
    ):
        found = ff.DenseFisher(7).update_from(source).to_dense()
        assert isinstance(found, torch.Tensor)
        oracle.close(found.numpy(), expected, np.float64, 40)


def test_calls_without_tensors_cross_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch is imported for something else, a method costs one look at its arguments."""
    F, calls = ff.DenseFisher.from_scores(S), []
    monkeypatch.setattr(border, "mapped", lambda *_: calls.append(_))
    assert type(F @ V) is type(F.diagonal()) is np.ndarray
    F.update(S, weights=W).merge(F.copy())
    assert not calls


# ---- callbacks ----
def test_functions_of_the_caller_are_outside() -> None:
    """A model may use the library on tensors of its own, and its answer may be any of ours."""
    x, y = tensor(X), tensor(Y)

    def model(theta: Any) -> tuple[Any, Any, ff.DenseFisher]:
        assert isinstance(theta, torch.Tensor)
        r = x @ theta - y
        F = ff.DenseFisher.from_scores(x)
        assert isinstance(F @ theta, torch.Tensor)
        return (r @ r) / 60, x.T @ r / 30, F

    result = ff.natural_gradient_descent(model, torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(result.theta, torch.linalg.lstsq(x, y).solution)


def test_objects_that_are_called_keep_what_they_hold() -> None:
    @dataclass
    class Loss:
        target: Any

        def __call__(self, theta: Any) -> Any:
            assert isinstance(self.target, torch.Tensor)
            return ((theta - self.target) ** 2).sum()

    Base: Any = torch.nn.Module

    class Module(Base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.target = torch.nn.Parameter(tensor(V))

        def forward(self, theta: Any) -> Any:
            return ((theta - self.target) ** 2).sum().detach()

    results = [
        ff.SNES(torch.zeros(7), 1.0, rng=0).minimize(loss, max_evaluations=40)
        for loss in (Loss(tensor(V)), Module())
    ]
    same(results[0].theta, results[1].theta.numpy())


def test_tasks_of_dask_are_no_functions() -> None:
    dask = pytest.importorskip("dask")
    tasks = [dask.delayed(lambda part: part)(part) for part in np.split(S, 4)]
    found = ff.distributed.empirical_fisher(tasks).to_dense()
    assert np.array_equal(found, ff.distributed.empirical_fisher(np.split(S, 4)).to_dense())
    tasks = [dask.delayed(torch.from_numpy)(part) for part in np.split(S, 4)]
    same(ff.distributed.empirical_fisher(tasks).to_dense(), found)


def test_without_tensors_a_model_gets_numpy_and_may_return_tensors() -> None:
    def model(theta: np.ndarray) -> tuple[Any, Any, Any]:
        assert type(theta) is np.ndarray
        r = X @ theta - Y
        return tensor(r @ r / 60 * np.ones(1))[0], tensor(X.T @ r / 30), tensor(X)

    result = ff.natural_gradient_descent(model, [0.0] * 3, damping=1e-3)
    assert type(result.theta) is np.ndarray
    assert np.allclose(result.theta, np.linalg.lstsq(X, Y)[0])


def test_what_a_function_returns_is_checked_too() -> None:
    theta = torch.zeros(3, dtype=torch.float64)
    model = regression(tensor)

    def attached(theta: Any) -> tuple[Any, Any, Any]:
        return model(theta)[0], model(theta)[1].requires_grad_(), tensor(X)

    with pytest.raises(TypeError, match=r"what model returns\[1\]: expected a tensor without grad"):
        ff.natural_gradient_descent(attached, theta)
    with pytest.raises(TypeError, match=r"what model returns\[2\]: expected a torch tensor on cpu"):
        ff.natural_gradient_descent(lambda t: (*model(t)[:2], X), theta)


# ---- refused ----
REFUSED = {
    "gradient": (lambda: ff.empirical_fisher(tensor(S.copy()).requires_grad_()),
                 r"scores: .* requires grad\. Pass scores\.detach\(\)\."),
    "parameter": (lambda: ff.fvp(tensor(S), torch.nn.Parameter(tensor(V.copy()))), "v: .* grad"),
    "layer": (lambda: ff.LayerFisher([(tensor(S), tensor(S.copy()).requires_grad_())]),
              r"layers\[0\]\[1\]: expected a tensor without gradient"),
    "LinearLayer": (lambda: ff.LayerFisher([ff.LinearLayer(tensor(S), tensor(S).to("meta"))]),
                    r"layers\[0\]\.gradients: expected a tensor on cpu as layers\[0\]\.inputs is"),
    "sparse": (lambda: ff.empirical_fisher(tensor(S).to_sparse()), "scores: .* sparse_coo"),
    "sparse rows": (lambda: ff.empirical_fisher(tensor(S).to_sparse_csr()), ".* sparse_csr one"),
    "quantised": (lambda: ff.empirical_fisher(
        torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)), "scores: .* quantised"),
    "meta": (lambda: ff.empirical_fisher(tensor(S).to("meta")),
             r"scores: expected a tensor on the CPU or a CUDA device, got one on meta\."),
    "two devices": (lambda: ff.fvp(tensor(S), tensor(V).to("meta")),
                    "v: expected a tensor on cpu as scores is, got one on meta"),
    "the other way": (lambda: ff.fvp(tensor(S).to("meta"), v=tensor(V)),
                      "v: expected a tensor on meta as scores is, got one on cpu"),
    "NumPy weights": (lambda: ff.empirical_fisher(tensor(S), weights=W),
                      "weights: expected a torch tensor on cpu as scores is, got a NumPy array"),
    "NumPy scores": (lambda: ff.empirical_fisher(S, weights=tensor(W)),
                     "scores: expected a torch tensor on cpu as weights is, got a NumPy array"),
    "NumPy vector": (lambda: ff.DenseFisher(7).update(tensor(S)) @ V,
                     "v: expected a torch tensor on cpu as DenseFisher is, got a NumPy array"),
    "float8": (lambda: ff.empirical_fisher(tensor(S).to(torch.float8_e5m2)),
               r"scores: expected numbers that NumPy has, got torch\.float8_e5m2"),
    "integers": (lambda: ff.empirical_fisher(torch.ones(3, 2, dtype=torch.int64)), "scores: .*int"),
    "vmap": (lambda: torch.func.vmap(ff.fisher_diagonal)(tensor(ITEMS)), "scores: .* torch.func"),
    "rng": (lambda: ff.monte_carlo_fisher(tensor(ITEMS), ff.Poisson(1.0), rng=torch.Generator()),
            "rng: expected None, an int or a numpy.random.Generator"),
    "in a dictionary": (lambda: ff.solve({"F": tensor(MATRIX)}["F"], {"rhs": tensor(V)}), "rhs"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(call: Callable[[], None], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_a_cuda_tensor_needs_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match="scores: expected CuPy for a tensor on cpu, got none"):
        tensors.cupy_array_of("scores", tensor(S))


def test_a_stream_that_fails_leaves_no_device_current(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    class Device:
        def __init__(self, place: int) -> None:
            self.place = place

        def __enter__(self) -> None:
            entered.append(self.place)

        def __exit__(self, *_: object) -> None:
            entered.remove(self.place)

    def refused(pointer: int, place: int) -> None:
        assert (pointer, place, entered) == (7, 1, [1])
        raise RuntimeError("no such stream")

    cupy = SimpleNamespace(cuda=SimpleNamespace(Device=Device, ExternalStream=refused))
    stream = SimpleNamespace(cuda_stream=7, device=torch.device("cuda:1"))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    with pytest.raises(RuntimeError, match="no such stream"), tensors.on_stream_of("cuda:1"):
        pass
    assert not entered


def test_who_gave_tensors_is_told_how_to_copy_tensors() -> None:
    device = pytest.importorskip("device")
    crossing = border._Crossing()
    crossing.home = "cuda:0"
    with (
        border._Setting(crossing),
        pytest.raises(
            TypeError,
            match=r"scores: expected a tensor on the CPU, got one on a device\. .* x\.cpu\(\)\.",
        ),
    ):
        on_host("scores", device.to_device(S))


def test_bfloat16_needs_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match="scores: expected the package ml_dtypes"):
        ff.empirical_fisher(tensor(S).to(torch.bfloat16))


def test_importing_does_not_import_torch() -> None:
    code = (
        "import sys, numpy as np, fastfisher as ff; from fastfisher import *;"
        "ff.DenseFisher.from_scores(np.eye(3)).diagonal();"
        "assert 'torch' not in sys.modules and 'cupy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_where_torch_was_never_imported_a_home_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "f.pickle").write_bytes(pickle.dumps(ff.DenseFisher(7).update(tensor(S))))
    code = (
        "import sys, pickle, numpy as np;"
        "F = pickle.load(open(sys.argv[1], 'rb'));"
        "assert type(F @ np.ones(7)) is np.ndarray and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-Wi", "-c", code, tmp_path / "f.pickle"], check=True)


def test_operators_get_arrays_though_they_can_be_called() -> None:
    from scipy.sparse.linalg import aslinearoperator

    F = aslinearoperator(MATRIX)
    same(ff.solve(F, tensor(V), damping=0.1).value, ff.solve(F, V, damping=0.1).value)


def test_objects_that_can_be_called_too_are_no_functions() -> None:
    class Operator:
        shape, dtype = MATRIX.shape, MATRIX.dtype

        def __matmul__(self, v: np.ndarray) -> np.ndarray:
            answer: np.ndarray = MATRIX @ v
            return answer

        def __call__(self) -> None:
            raise AssertionError

    class Rows:
        shape, dtype, ndim = S.shape, S.dtype, 2

        def __getitem__(self, part: slice) -> np.ndarray:
            return S[part]

        def __call__(self) -> None:
            raise AssertionError

    class Halved:
        def prepare(
            self, fisher: ff.DenseFisher, _: float, **options: Any
        ) -> Callable[[np.ndarray], np.ndarray]:
            assert isinstance(fisher, ff.Fisher)
            assert set(options) == {"threads"}
            return lambda R: 0.5 * R

        def __call__(self) -> None:
            raise AssertionError

    same(
        ff.solve(Operator(), tensor(V), damping=0.1).value,
        ff.solve(Operator(), V, damping=0.1).value,
    )
    assert np.array_equal(ff.DenseFisher(7).update_from(ff.chunks(Rows())).to_dense(),
                          ff.DenseFisher.from_scores(S).to_dense())  # fmt: skip
    cg = ff.CG(preconditioner=Halved())
    same(ff.solve(tensor(MATRIX), tensor(V), damping=0.1, solver=cg).value,
         ff.solve(MATRIX, V, damping=0.1, solver=cg).value)  # fmt: skip


def test_operators_keep_what_they_hold_and_get_our_arrays() -> None:
    @dataclass
    class Operator:
        matrix: Any
        shape: tuple[int, ...] = MATRIX.shape
        dtype: Any = MATRIX.dtype

        def __matmul__(self, v: np.ndarray) -> np.ndarray:
            assert type(v) is np.ndarray
            answer: np.ndarray = (self.matrix @ torch.from_numpy(v)).numpy()
            return answer

    F = Operator(tensor(MATRIX))
    found = ff.solve(F, tensor(V), damping=0.1).value
    assert torch.allclose(found, tensor(ff.solve(MATRIX, V, damping=0.1).value))


def test_a_subclass_keeps_its_static_methods_and_attributes() -> None:
    class Scaled(ff.DenseFisher):
        sizes = np.vectorize(len)  # can be called, and is no method

        @staticmethod
        def scaled(scores: float | np.ndarray, factor: float = 2.0) -> float | np.ndarray:
            return factor * scores

        @classmethod
        def of(cls, scores: np.ndarray) -> Any:
            return cls(scores.shape[1]).update(scores)

    F = Scaled.of(tensor(S))
    assert Scaled.sizes is F.sizes
    assert isinstance(Scaled.sizes, np.vectorize)
    assert F.scaled(3.0) == Scaled.scaled(3.0) == 6.0
    same(F.scaled(tensor(S)), 2.0 * S)
    same(F.diagonal(), ff.DenseFisher.from_scores(S).diagonal())
