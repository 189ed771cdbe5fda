"""Bad input: each raises one clear error, in one grammar, and nothing changes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle
from fastfisher import _memory
from fastfisher._ops import KINDS, VERBS, numpy_ops, ops_of

S = oracle.draw(6, 3)
FUNCTIONS = {
    "empirical_fisher": ff.empirical_fisher,
    "fisher_diagonal": ff.fisher_diagonal,
    "fvp": lambda scores, **k: ff.fvp(scores, np.ones(np.shape(scores)[-1]), **k),
    "gram": ff.gram,
    "natural_gradient": lambda scores, **k: ff.natural_gradient(scores, damping=1.0, **k),
    "BlockDiagonalFisher": lambda scores, **k: ff.BlockDiagonalFisher.from_scores(
        scores, [1] * max(np.shape(scores)[-1], 1), **k
    ),
    "DenseFisher": ff.DenseFisher.from_scores,
    "DiagonalFisher": ff.DiagonalFisher.from_scores,
    "SquareRootFisher": ff.SquareRootFisher.from_scores,
    "ScoreFisher": ff.ScoreFisher,
}
each = pytest.mark.parametrize("call", FUNCTIONS.values(), ids=FUNCTIONS)


@each
@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (
            np.ones(3),
            ValueError,
            r"scores: expected a 2-D array \(n_samples, n_params\), got shape",
        ),
        (np.ones((2, 2, 2)), ValueError, r"scores: expected a 2-D array .* got shape \(2, 2, 2\)"),
        (
            np.ones((4, 0)),
            ValueError,
            r"scores: expected at least one parameter, got shape \(4, 0\)",
        ),
        (np.ones((4, 2), int), TypeError, r"scores: expected float64, .*, got int64"),
        (np.ones((4, 2), bool), TypeError, r"scores: expected float64, .*, got bool"),
        (np.ones((4, 2), np.longdouble), TypeError, r"got (float128|longdouble)"),
        (np.ones((4, 2), "G"), TypeError, r"scores: expected .* complex64, got"),
        (np.array([["a", "b"]]), TypeError, r"scores: expected float64, .*, got str"),
        (np.array([[None, 1]]), TypeError, r"scores: expected float64, .*, got object"),
        (
            np.ma.masked_array(np.ones((4, 2))),
            TypeError,
            r"scores: expected a plain array, got a mas",
        ),
    ],
)
def test_scores(
    call: Callable[..., Any], scores: np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(scores)


@each
def test_no_samples(call: Callable[..., Any]) -> None:
    accumulators = ("BlockDiagonal", "Dense", "Diagonal", "SquareRoot")
    if call in [FUNCTIONS[f"{kind}Fisher"] for kind in accumulators]:
        assert call(np.empty((0, 3))).n_samples == 0
        return
    with pytest.raises(
        ValueError, match=r"scores: expected at least one sample, got shape \(0, 3\)"
    ):
        call(np.empty((0, 3)))


@each
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("place", [(0, 0), (5, 2), (150, 61)])
def test_values_that_are_not_finite(
    call: Callable[..., Any],
    place: tuple[int, int],
    center: bool,
    bad: float,
    dtype: type[np.floating],
) -> None:
    scores = oracle.draw(max(6, place[0] + 1), max(3, place[1] + 3), dtype)
    scores[place] = bad
    scores[place[0], -1] = bad
    before = scores.copy()

    def use() -> None:
        result = call(scores, center=center)
        result.diagonal()  # a ScoreFisher meets its scores when it is used

    with pytest.raises(ff.NonFiniteError, match=r"scores: expected finite values, got") as caught:
        use()
    assert (caught.value.row, caught.value.column) == place
    assert isinstance(caught.value, ValueError)
    assert np.array_equal(scores, before, equal_nan=True)


@pytest.mark.parametrize("name", ["empirical_fisher", "fisher_diagonal", "fvp", "gram"])
def test_looking_for_nan_can_be_left_out(name: str) -> None:
    scores = S.copy()
    scores[1, 1] = np.nan
    assert np.isnan(FUNCTIONS[name](scores, check_finite=False)).any()


def test_a_bad_vector_is_named() -> None:
    with pytest.raises(ff.NonFiniteError, match="v: expected finite values"):
        ff.fvp(S, [1.0, np.nan, 1.0])
    F = ff.DenseFisher.from_scores(S)
    bad = [1.0, np.nan, 1.0]
    for use in (F.__matmul__, F.quadratic_form, lambda v: F.apply_power(v, 0.5)):
        with pytest.raises(ff.NonFiniteError, match="v: expected finite values"):
            use(bad)
    for use in (F.solve, F.factor().solve, lambda rhs: ff.solve(np.eye(3), rhs)):
        with pytest.raises(ff.NonFiniteError, match="rhs: expected finite values"):
            use(bad)
    with pytest.raises(ff.NonFiniteError, match=r"scores: .* at row 0, column 1"):
        F.leverage(np.array([bad]), 1.0)


@each
@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(5), ValueError, r"weights: expected shape \(6,\), one per sample, got \(5,\)"),
        (
            np.ones((6, 1)),
            ValueError,
            r"weights: expected shape \(6,\), one per sample, got \(6, 1\)",
        ),
        (2.0, ValueError, r"weights: expected shape \(6,\), one per sample, got \(\)"),
        ([1, 1, -1, 1, 1, 1], ValueError, r"weights: .* got -1\.0 at index 2"),
        ([1, 1, 1, np.nan, 1, 1], ValueError, r"weights: .* got nan at index 3"),
        ([1, np.inf, 1, 1, 1, 1], ValueError, r"weights: .* got inf at index 1"),
        (np.full(6, 1e308), ValueError, r"weights: .* got inf as their sum"),
        (np.zeros(6), ValueError, r"weights: expected at least one that is positive, got all zero"),
        (np.ones(6) * 1j, TypeError, r"weights: expected real numbers, got complex128"),
        (["a"] * 6, TypeError, r"weights: expected real numbers, got str"),
    ],
)
def test_weights(
    call: Callable[..., Any],
    weights: float | np.ndarray | Sequence[float],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        call(S, weights=weights)


@each
@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"center": 1}, TypeError, "center: expected True or False, got int"),
        ({"n_threads": 0}, ValueError, "n_threads: expected at least 1, got 0"),
        ({"n_threads": 1.5}, TypeError, "n_threads: expected a whole number, got float"),
    ],
)
def test_options(
    call: Callable[..., Any], option: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(S, **option)


@each
def test_reduction(call: Callable[..., Any]) -> None:
    if call is FUNCTIONS["natural_gradient"]:
        return
    with pytest.raises(ValueError, match="reduction: expected 'mean' or 'sum', got 'none'"):
        call(S, reduction="none")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"damping": -1.0}, ValueError, "damping: expected finite numbers that are not negative"),
        ({"damping": np.nan}, ValueError, "damping: expected finite numbers"),
        ({"damping": [1.0, 2.0]}, ValueError, r"damping: expected a number or shape \(3,\)"),
        ({"damping": [1, -2, 3]}, ValueError, "damping: expected finite numbers"),
        ({"damping": "1"}, TypeError, "damping: expected real numbers"),
        (
            {"damping": 1.0, "damping_mode": "x"},
            ValueError,
            "damping_mode: expected one of absolute",
        ),
        ({"damping": 1.0, "solver": "cg"}, TypeError, "solver: expected 'auto' or a solver"),
        ({"damping": 1.0, "solver": ff.CG}, TypeError, r"got the class CG\. Write CG\(\)"),
        (
            {"damping": 1.0, "grad": np.ones(4)},
            ValueError,
            r"grad: expected shape \(3,\) or \(3, k\)",
        ),
    ],
)
def test_solving_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ff.natural_gradient(S, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rtol": -1}, "rtol: expected a finite number"),
        ({"atol": np.nan}, "atol: expected a finite number"),
        ({"max_iterations": -1}, "max_iterations: expected at least 0"),
        ({"preconditioner": "ilu"}, "preconditioner: expected 'jacobi'"),
    ],
)
def test_cg_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ff.CG(**options)


def test_cg_preconditioner_array() -> None:
    for bad in (np.ones(2), np.array([1.0, 0.0, 1.0])):
        with pytest.raises(ValueError, match=r"preconditioner: expected \(3,\) positive"):
            ff.solve(np.eye(3), np.ones(3), solver=ff.CG(preconditioner=bad))


def test_matrices() -> None:
    for bad in (np.ones(3), np.ones((2, 3)), np.ones((0, 0))):
        with pytest.raises(ValueError, match="expected a square matrix"):
            ff.solve(bad, np.ones(3))
    with pytest.raises(ff.NonFiniteError, match=r"matrix: .* row 1, column 0"):
        ff.DenseFisher.from_matrix(np.array([[1.0, 0.0], [np.nan, 1.0]]))
    with pytest.raises(ValueError, match=r"on_failure: expected one of raise, nan, shift, pinv"):
        ff.solve(np.eye(2), np.ones(2), on_failure="fix")
    with pytest.raises(TypeError, match="rhs: expected a right-hand side, got None"):
        ff.solve(np.eye(2), None)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([[0.0] * 3] * 3, TypeError, "out: expected a NumPy array, got list"),
        (np.empty((3, 4)), ValueError, r"out: expected shape \(3, 3\) and dtype float64"),
        (
            np.empty((3, 3), np.float32),
            ValueError,
            r"out: expected shape \(3, 3\) and dtype float64",
        ),
        (np.empty((3, 3), ">f8"), ValueError, r"out: expected shape \(3, 3\) and dtype float64"),
        (np.broadcast_to(0.0, (3, 3)), ValueError, "out: expected a writable, aligned array"),
        (S[:3], ValueError, "out: expected memory of its own"),
    ],
)
def test_out(
    out: np.ndarray | Sequence[Sequence[float]], error: type[Exception], message: str
) -> None:
    before = S.copy()
    with pytest.raises(error, match=message):
        ff.empirical_fisher(S, out=out)
    assert np.array_equal(S, before)


def test_accumulators() -> None:
    for size in (2**40, 2**62, 10**30):
        with pytest.raises(ff.MemoryLimitError):
            ff.DenseFisher(size)
    for bad, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="n_params: expected"):
            ff.DenseFisher(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"dtype: expected float64, .*, got int64"):
        ff.DiagonalFisher(3, dtype=int)
    with pytest.raises(TypeError, match="dtype: expected float64 or wider, got float32"):
        ff.empirical_fisher(S, dtype=np.float32)
    with pytest.raises(ValueError, match=r"scores: expected 4 columns, one per parameter"):
        ff.DenseFisher(4).update(S)
    with pytest.raises(ValueError, match="k: expected at most 3, got 4"):
        ff.DenseFisher.from_scores(S).eigsh(4)
    with pytest.raises(TypeError, match=r"rng: expected None, an int or a numpy.random.Generator"):
        ff.DenseFisher.from_scores(S).factor().sample("seed")


# ---- what a newcomer tries ----
@pytest.mark.parametrize("call", [np.asarray, np.linalg.inv, ff.empirical_fisher])
def test_a_fisher_is_no_array(call: Any) -> None:
    with pytest.raises(
        TypeError, match=r"DenseFisher: expected an array, got what stands for one\. F\.to_dense"
    ):
        call(ff.DenseFisher.from_scores(S))


@pytest.mark.parametrize("kind", [ff.DenseFisher, ff.DiagonalFisher, ff.SquareRootFisher])
def test_scores_are_no_number_of_parameters(kind: Any) -> None:
    message = r"n_params: expected a whole number, got an array of shape \(6, 3\)\. Scores go to"
    with pytest.raises(TypeError, match=message):
        kind(S)
    with pytest.raises(TypeError, match=r"rank: .* got an array of shape \(1,\)\. Give an int"):
        ff.LowRankFisher(3, np.ones(1, int))  # type: ignore[arg-type]


def test_a_gradient_is_called_what_the_caller_calls_it() -> None:
    with pytest.raises(ff.NonFiniteError, match="grad: expected finite values"):
        ff.natural_gradient(S, np.full(3, np.nan), damping=1.0)


def test_options_of_layers_have_their_names() -> None:
    with pytest.raises(TypeError, match="positional"):
        ff.LinearLayer(S, S, True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        ff.Conv2dLayer(S, S, 3, 1)  # type: ignore[call-arg]


def test_a_prompt_completes_and_corrects_every_name() -> None:
    assert set(ff.__all__) <= set(dir(ff))
    with pytest.raises(AttributeError) as caught:
        ff.wald_tests  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("wald_tests", ff)


# ---- memory ----
@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (lambda: ff.DenseFisher(50_000_000), "Use ScoreFisher"),
        (lambda: ff.empirical_fisher(wide()), "Use ScoreFisher"),
        (lambda: ff.gram(wide().T), r"Use ScoreFisher with CG\(\)"),
        (lambda: ff.ScoreFisher(wide()).to_dense(), "which need no matrix"),
        (lambda: ff.ScoreFisher(wide()).solve(one(), damping=1, solver=ff.Cholesky()), r"Dual\(\)"),
        (lambda: ff.ScoreFisher(wide()).factor(damping=1.0).inverse(), r"inverse_diagonal\(\)"),
        (lambda: ff.DiagonalFisher(5_000_000, reduction="sum").to_dense(), "F @ v"),
    ],
)
def test_what_will_not_fit_is_refused_before_it_is_allocated(
    call: Callable[..., Any], advice: str
) -> None:
    with pytest.raises(ff.MemoryLimitError, match=rf"got a need of [\d.e+]+ GiB\. .*{advice}"):
        call()


def wide() -> np.ndarray:
    return np.broadcast_to(np.float64(1.0), (1, 5_000_000))


def one() -> np.ndarray:
    return np.ones(5_000_000)


def test_the_guard_reads_control_groups(tmp_path: Path) -> None:
    group = tmp_path / "group"
    group.mkdir()
    names = ("memory.max", "memory.current", "inactive_file")
    assert _memory._left_in(group, *names) is None
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("700\n")
    (group / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert _memory._left_in(group, *names) == 450
    (group / "memory.max").write_text("max\n")
    assert _memory._left_in(group, *names) is None
    available = _memory.available_memory()
    assert available is None or available > 0


def test_memory_errors_are_memory_errors() -> None:
    assert issubclass(ff.MemoryLimitError, MemoryError)


# ---- the door to arrays ----
def test_every_verb_is_there() -> None:
    assert set(numpy_ops.__all__) - {"as_numpy", "ndarray", "read"} == set(VERBS)
    assert all(hasattr(numpy_ops, verb) for verb in VERBS)


def test_unserved_kinds_are_named() -> None:
    assert ops_of([[1.0]]) is numpy_ops
    for package in [kind for kind, module in KINDS.items() if module is None]:
        foreign = type("Tensor", (), {"__module__": f"{package}.something"})
        with pytest.raises(TypeError, match=rf"got {package}\.Tensor"):
            ff.empirical_fisher(foreign())


def test_memmaps_and_lists_are_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", S)
    mapped = np.load(tmp_path / "s.npy", mmap_mode="r")
    assert np.array_equal(ff.empirical_fisher(mapped), ff.empirical_fisher(S))
    assert np.array_equal(ff.empirical_fisher(S.tolist()), ff.empirical_fisher(S))


def masked(*numbers: float) -> Any:
    return np.ma.masked_array(numbers, np.arange(len(numbers)) == 0)


F4 = ff.DenseFisher.from_scores(oracle.draw(9, 4))
VECTORS: dict[str, Any] = {
    "v": lambda x: ff.fvp(oracle.draw(9, 4), x),
    "rhs": lambda x: F4.solve(x, damping=1.0),
    "damping": lambda x: F4.solve(np.ones(4), damping=x),
    "grad": lambda x: ff.trust_region_step(F4, x, 0.1),
    "weights": lambda x: ff.empirical_fisher(oracle.draw(4, 2), weights=x),
    "targets": lambda x: ff.ScoreFisher(oracle.draw(4, 2)).least_squares(x),
    "theta": lambda x: ff.levenberg_marquardt(lambda theta: theta - 1, x),
    "mean": lambda x: ff.SNES(x, 1.0),
    "x": lambda x: ff.Gaussian(0.0, 1.0).score(x),
    "gradient": lambda x: ff.Adam().step(ff.Adam().start(np.ones(4)), x),
    "losses": lambda x: asked().tell(x),
    "keep": lambda x: ff.marginalize(np.eye(9), x.astype(int)),
}


def asked() -> ff.SNES:
    search = ff.SNES(np.zeros(2), 1.0, population=4)
    search.ask()
    return search


@pytest.mark.parametrize("name", VECTORS)
def test_masks_are_not_ignored(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: expected a plain array, got a masked one"):
        VECTORS[name](masked(1.0, 2.0, 3.0, 4.0))


def test_sparse_matrices_are_called_what_they_are() -> None:
    sparse = pytest.importorskip("scipy.sparse").csr_array(oracle.draw(9, 4))
    with pytest.raises(TypeError, match=r"got csr_array\. Give scores\.toarray\(\)"):
        ff.empirical_fisher(sparse)
    assert np.array_equal(ff.empirical_fisher(sparse.toarray()), F4.to_dense())


def test_an_array_is_no_number_of_anything() -> None:
    for number in (np.array([2]), np.array([[2]]), 2.0, True, "2"):
        with pytest.raises(TypeError, match="k: expected a whole number, got"):
            F4.eigsh(number)  # type: ignore[arg-type]


def test_seeds_and_powers_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="rng: expected a seed of at least 0, got -1"):
        F4.factor().sample(-1)
    for power in (np.nan, np.inf, "half"):
        with pytest.raises(ValueError, match="power: expected a finite number, got"):
            F4.apply_power(np.ones(4), power)  # type: ignore[arg-type]


def test_layers_without_numbers_are_refused() -> None:
    empty, some = np.ones((4, 0)), np.ones((4, 2))
    with pytest.raises(ValueError, match=r"inputs: expected no empty axis, got shape \(4, 0\)\. "):
        ff.KroneckerFisher.from_layers([(empty, some)])
    with pytest.raises(ValueError, match=r"gradients: expected no empty axis, got shape \(4, 0\)"):
        ff.LayerFisher([(some, empty)])


def test_fishers_add_to_fishers_alone() -> None:
    S = oracle.draw(9, 4)
    parts = [ff.DenseFisher.from_scores(part) for part in np.array_split(S, 3)]
    both = sum(parts)
    assert isinstance(both, ff.DenseFisher)
    assert both.n_samples == 9
    assert parts[0].n_samples == 3
    oracle.close(both.to_dense(), ff.empirical_fisher(S), np.float64, 9)
    wrongs: list[Callable[[], Any]] = [
        lambda: F4 + np.eye(4),
        lambda: np.eye(4) + F4,
        lambda: F4 + 1,
    ]
    for wrong in wrongs:
        with pytest.raises(TypeError, match=r"\+: expected another DenseFisher, got .*add_prior"):
            wrong()
    with pytest.raises(TypeError, match="DiagonalFisher"):
        F4 + ff.DiagonalFisher(4)


def test_a_status_is_written_as_its_name() -> None:
    assert f"{ff.Status.SUCCESS}, {ff.Status.STAGNATED!s:>9}" == "SUCCESS, STAGNATED"
    assert int(ff.Status.STAGNATED) == 7


def test_cg_says_what_it_reached() -> None:
    message = r"CG: expected a relative residual of 1e-08, got 0\.\d+ after 1 iteration: max_iter"
    with pytest.raises(ff.ConvergenceError, match=message):
        ff.solve(F4, np.ones(4), damping=1e-3, solver=ff.CG(max_iterations=1))


def test_a_product_of_fishers_is_python_s_own_error() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        F4 @ F4


def test_a_list_of_masked_rows_is_refused_like_one_masked_array() -> None:
    with pytest.raises(TypeError, match="scores: expected a plain array, got a masked one"):
        ff.empirical_fisher([masked(1.0, 2.0), masked(3.0, 4.0)])


def test_numbers_beyond_every_float_are_not_finite() -> None:
    for call in (lambda: F4.apply_power(np.ones(4), 10**400), lambda: ff.CG(rtol=10**400)):
        with pytest.raises(ValueError, match="expected a finite number"):
            call()
