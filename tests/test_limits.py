"""The ends of the number range: what leaves it is refused or named, and nothing turns to NaN."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastfisher as ff
import oracle
from fastfisher import _check, _memory
from fastfisher._ops import numpy_ops
from fastfisher._ops.numpy_triangle import LARGEST, Triangle
from fastfisher.fisher.accumulator import Accumulator

S = oracle.draw(40, 6)
SCALES = {np.dtype(np.float64): (1e-293, 1e-309, 1e307), np.dtype(np.float32): (1e-32, 1e-40, 3e37)}


# ---- weights ----
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize(
    "call",
    [
        ff.empirical_fisher,
        ff.fisher_diagonal,
        ff.gram,
        lambda s, weights: ff.natural_gradient(s, damping=1.0, weights=weights),
        lambda s, weights: ff.DenseFisher(6, dtype=s.dtype).update(s, weights),
        lambda s, weights: ff.ScoreFisher(s, weights=weights),
    ],
)
def test_weights_whose_sum_leaves_the_range_are_refused(
    call: Callable[..., Any], which: int, dtype: type[np.floating]
) -> None:
    scores = S[:30].astype(dtype)
    scale = SCALES[np.dtype(dtype)][which]
    with pytest.raises(ValueError, match=r"weights: .*[Ss]cale the weights"):
        call(scores, weights=np.full(30, scale))


def test_weights_that_vanish_or_overflow_in_the_dtype_are_named() -> None:
    scores = S.astype(np.float32)
    with pytest.raises(ValueError, match=r"all zero in float32\. .*scale the weights"):
        ff.empirical_fisher(scores, weights=np.full(40, 1e-60))
    with pytest.raises(
        ValueError, match=r"got inf at index 0\. Scale the weights if they overflow"
    ):
        ff.empirical_fisher(scores, weights=np.full(40, 1e60))


@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_only_the_ratios_of_weights_matter_up_to_the_ends(dtype: type[np.floating]) -> None:
    scores = S.astype(dtype)
    expected = ff.empirical_fisher(scores, weights=np.ones(40))
    info = np.finfo(dtype)
    for total in (41 * float(info.tiny) / float(info.eps), 0.2 / float(info.tiny)):
        found = ff.empirical_fisher(scores, weights=np.full(40, total / 40, dtype))
        oracle.close(found, expected, dtype, 40)


# ---- counts ----
@pytest.mark.parametrize("n", [4097, 2**31, 2**63, 10**30])
def test_absurd_numbers_of_threads_are_refused(n: int) -> None:
    for call in (
        lambda: ff.empirical_fisher(S, n_threads=n),
        lambda: ff.fvp(S, np.ones(6), n_threads=n),
        lambda: ff.solve(np.eye(2), np.ones(2), n_threads=n),
        lambda: ff.DenseFisher.from_scores(S, n_threads=n),
    ):
        with pytest.raises(ValueError, match=f"n_threads: expected at most 4096, got {n}"):
            call()
    with pytest.raises(ValueError, match=f"n: expected at most 4096 threads, got {n}"):
        ff.set_num_threads(n)


def test_absurd_numbers_of_iterations_are_refused() -> None:
    with pytest.raises(ValueError, match="max_iterations: expected at most"):
        ff.CG(max_iterations=2**64)
    assert ff.solve(np.eye(2), np.ones(2), solver=ff.CG(max_iterations=2**60)).status == 0


# ---- residuals ----
@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("size", [1e-40, 1e-30, 1.0, 1e30, 3e38])
def test_residuals_of_tiny_and_huge_vectors(size: float, dtype: type[np.floating]) -> None:
    rhs = np.array([[1.0, 0.0], [-1.0, 0.0], [0.5, 0.0]], dtype) * dtype(size)
    rhs[:, 1] = dtype(size) / 2
    product = (rhs * dtype(0.75)).astype(dtype)
    found = numpy_ops.worst_residual(rhs, product)
    assert found == pytest.approx(0.25, rel=1e-3)
    assert numpy_ops.worst_residual(rhs, rhs) == 0.0


def test_residuals_at_the_ends_of_float64() -> None:
    for size in (1e-300, 1e-200, 1e200, 1e300):
        rhs = np.full((3, 1), size)
        assert numpy_ops.worst_residual(rhs, 0.5 * rhs) == pytest.approx(0.5)
    zero = np.zeros((3, 2))
    assert numpy_ops.worst_residual(zero, zero) == 0.0
    assert numpy_ops.worst_residual(np.ones((3, 0)), np.ones((3, 0))) == 0.0
    spoiled = numpy_ops.worst_residual(np.ones((2, 1)), np.array([[np.inf], [np.nan]]))
    assert np.isnan(spoiled)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_residual_of_a_solution_is_true_in_float32(size: float) -> None:
    F = np.diag(np.arange(1.0, 5.0)).astype(np.float32)
    solution = ff.solve(F, np.full(4, size, np.float32))
    assert solution.residual is not None
    assert solution.residual < 1e-6
    b = np.full(4, size)
    x = solution.value.astype(float)
    assert solution.residual == pytest.approx(
        np.linalg.norm(b - np.diag(F) * x) / np.linalg.norm(b), abs=1e-7
    )


# ---- memory ----
def test_the_size_guard_counts_the_partial_sums_of_tall_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def available() -> int:
        asked.append(1)
        return 10**8

    monkeypatch.setattr(_memory, "available_memory", available)
    tall = np.broadcast_to(1.0, (1152 * 1024, 1152))  # a view: 64 partial sums of 5.4 MB
    for call in (
        lambda: ff.empirical_fisher(tall),
        lambda: ff.gram(tall.T),
        lambda: ff.DenseFisher(1152).update(tall, check_finite=False),
        lambda: ff.ScoreFisher(tall).factor(damping=1.0),
    ):
        with pytest.raises(ff.MemoryLimitError, match=r"got a need of 0\.3\d+ GiB"):
            call()
    assert len(asked) == 4


@pytest.mark.parametrize("dtype", [np.dtype(t) for t in oracle.EVERY])
def test_the_size_guard_counts_what_an_inverse_takes(
    monkeypatch: pytest.MonkeyPatch, dtype: np.dtype
) -> None:
    S = oracle.draw(7, 50, dtype)
    full = 50 * 50 * dtype.itemsize
    dense = ff.DenseFisher.from_scores(S)
    for F, size in (
        (dense, full + dense._ops.Triangle.bytes_for(50, dtype)),
        (ff.ScoreFisher(S), (5 if dtype.kind == "c" else 3) * full),
    ):
        factor = F.factor(damping=1.0)
        assert factor.inverse().nbytes == full
        with monkeypatch.context() as patched:
            patched.setattr(_memory, "UNGUARDED", 0)
            patched.setattr(_memory, "available_memory", lambda: 9)
            need = f"{size / 2**30:.3g}"
            with pytest.raises(ff.MemoryLimitError, match=f"inverse: .* got a need of {need} GiB"):
                factor.inverse()


@pytest.mark.parametrize("dtype", [np.dtype(t) for t in oracle.DTYPES])
def test_bytes_to_sum(dtype: np.dtype) -> None:
    assert Triangle.bytes_to_sum(10**9, _memory.SMALL, dtype, dense=True) < _memory.UNGUARDED
    half = Triangle.bytes_for(100, dtype)
    assert Triangle.bytes_for(0, dtype) == Triangle.scratch_bytes(0, 100, dtype) == 0
    assert Triangle.scratch_bytes(800, 100, dtype) == 8 * half
    assert Triangle.scratch_bytes(10**9, 100, dtype) == 64 * half
    assert Triangle.scratch_bytes(799, 100, dtype) < 8 * half
    assert Triangle.bytes_to_sum(800, 100, dtype) == 9 * half
    assert Triangle.bytes_for(2**40, np.dtype(np.float64)) == 2**82
    big = Triangle.bytes_to_sum(10, 10**4, dtype, dense=True)
    assert big == Triangle.bytes_for(10**4, dtype) + 10**8 * dtype.itemsize


@pytest.mark.parametrize("size", [2**50, 2**62, 10**30])
def test_a_diagonal_that_will_not_fit_is_refused(size: int) -> None:
    with pytest.raises(ff.MemoryLimitError, match="DiagonalFisher: expected at most the memory"):
        ff.DiagonalFisher(size)


def test_sizes_that_would_wrap_are_refused(tmp_path: Path) -> None:
    ff.DenseFisher.from_scores(S).save(tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header")))
    for size in (LARGEST + 1, 2**31, 2**32, 2**62, 2**64, 10**30):
        header["state"]["n_params"] = size
        np.savez(tmp_path / "g.npz", header=np.array(json.dumps(header)), **arrays)
        with pytest.raises(ff.FileFormatError, match=f"n_params: expected at most .*, got {size}"):
            ff.load(tmp_path / "g.npz")
        with pytest.raises(ValueError, match="n_params: expected at most"):
            Triangle.length(size, S.dtype)


# ---- NaN and overflow ----
def spoiled(p: int = 6, bad: float = np.nan) -> np.ndarray:
    scores = oracle.draw(40, p)
    scores[3, p // 2] = bad
    return scores


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, of inf · 0
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("p", [1, 6, 60, 400])
@pytest.mark.parametrize(
    "kind", [ff.DenseFisher, ff.DiagonalFisher, ff.SquareRootFisher, ff.ScoreFisher]
)
def test_nan_is_not_called_indefinite(kind: type[Any], p: int, bad: float) -> None:
    F = kind.from_scores(spoiled(p, bad), check_finite=False)
    with pytest.raises(ff.NonFiniteError):
        F.factor(damping=1.0)
    for solver in ("auto", ff.CG()):
        for policy in ("raise", "shift", "pinv"):
            with pytest.raises(ff.NonFiniteError):
                ff.solve(F, np.ones(p), damping=1.0, on_failure=policy, solver=solver)
        solution = ff.solve(F, np.ones(p), damping=1.0, on_failure="nan", solver=solver)
        assert solution.status == ff.Status.NON_FINITE
        assert np.isnan(solution.value).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("p", [1, 6, 60])
@pytest.mark.parametrize("solver", ["auto", ff.Cholesky(), ff.Dual(), ff.CG()])
def test_nan_in_the_natural_gradient_is_not_called_indefinite(
    solver: Any, p: int, bad: float
) -> None:
    for grad in (None, np.ones(p)):
        with pytest.raises(ff.NonFiniteError):
            ff.natural_gradient(
                spoiled(p, bad), grad, damping=1.0, solver=solver, check_finite=False
            )


def test_the_sums_that_overflow_name_their_column() -> None:
    scores = np.ones((10, 3))
    scores[:, 1] = 1e308
    with pytest.raises(
        ff.NonFiniteError, match=r"overflow in column 1, .*\. Scale the scores down"
    ):
        ff.fisher_diagonal(scores)
    narrow = np.ones((10, 3), np.float32)
    narrow[:, 2] = 1e30
    with pytest.raises(ff.NonFiniteError, match="overflow in column 2") as caught:
        ff.DiagonalFisher.from_scores(narrow)
    assert (caught.value.row, caught.value.column) == (None, 2)


def test_reports_without_a_place() -> None:
    for column, text in ((4, "overflow in column 4"), (-1, "got overflow, though")):
        with pytest.raises(ff.NonFiniteError, match=text):
            _check.finite_report((2, -1, column, np.inf), "scores")
    _check.finite_report((0, -1, -1, 0.0), "scores")


# ---- solutions past the end of the range ----
LITTLE = {"f": 1e-40, "d": 1e-310}
OVERFLOWING = {
    "Cholesky": ff.Cholesky(),
    "mixed": ff.Cholesky("mixed"),
    "QR": ff.QR(),
    "CG": ff.CG(),
    "Eigh": ff.Eigh(),
    "Dual": ff.Dual(),
}


@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("solver", OVERFLOWING)
def test_a_solution_that_overflows_is_not_a_success(solver: str, dtype: npt.DTypeLike) -> None:
    little = LITTLE[np.finfo(dtype).dtype.char]
    n = 2 if solver == "Dual" else 3
    scores = (np.eye(n, 3) * little**0.5).astype(dtype)
    F = ff.ScoreFisher(scores, reduction="sum")
    how: dict[str, Any]
    rhs, how = np.full(3, 1e3, dtype), {"damping": little, "solver": OVERFLOWING[solver]}
    with pytest.raises(ff.NonFiniteError, match=r"expected .*(overflow|not finite)"):
        ff.solve(F, rhs, **how)
    with pytest.raises(ff.NonFiniteError):
        F.solve(rhs, **how)
    solution = ff.solve(F, rhs, on_failure="nan", **how)
    assert solution.status == ff.Status.NON_FINITE
    assert np.isnan(solution.value).all()
    if solver != "QR":
        path = F.solve_path(rhs, [little, 1.0], solver=OVERFLOWING[solver], on_failure="nan")
        assert list(path.status) == [ff.Status.NON_FINITE, ff.Status.SUCCESS]
        assert np.isfinite(path.value[1]).all()


@pytest.mark.parametrize("kind", [ff.DiagonalFisher, ff.DenseFisher, ff.SquareRootFisher])
def test_no_representation_answers_infinity(kind: type[Any]) -> None:
    F = kind.from_scores(np.eye(3) * 1e-155, reduction="sum")
    with pytest.raises(ff.NonFiniteError, match="x: expected a solution within the range of float"):
        F.solve(np.full(3, 1e3))
    shifted = ff.solve(np.diag([-1e-310, 1e-310]), np.ones(2), on_failure="shift")
    assert shifted.status == ff.Status.SHIFTED
    assert np.isfinite(shifted.value).all()


def test_products_that_overflow_are_named() -> None:
    for dtype in oracle.EVERY:
        with pytest.raises(ff.NonFiniteError, match="scores: expected finite products, got over"):
            ff.fvp(np.full((4, 3), np.finfo(dtype).max ** 0.75, dtype), np.ones(3, dtype))


def overflowing_sums() -> Iterator[tuple[Accumulator, str, np.ndarray | Accumulator]]:
    """Sums that overflow though no batch of them does: what does it, and on what."""
    big, far = np.full((1, 2), 1.2e154), np.array([[1.3e154, 0.0]])
    sums: tuple[Any, ...] = (ff.DenseFisher, ff.DiagonalFisher, ff.BlockDiagonalFisher)
    for kind in sums:
        for how in ("update", "merge"):
            F = kind([1, 1] if kind is sums[2] else 2, reduction="sum").update(big)
            yield F, how, big if how == "update" else F.copy()
    for kind in (ff.DenseFisher, ff.DiagonalFisher):  # by the distance of their means
        yield kind(2, center=True).update(-far), "merge", kind(2, center=True).update(far)


def test_a_stream_or_a_merge_that_overflows_is_refused_and_nothing_changes() -> None:
    for F, how, more in overflowing_sums():
        before = F.to_dense()
        with pytest.raises(ff.NonFiniteError, match=r"got overflow at parameter 0, .* Scale the"):
            getattr(F, how)(more)
        assert np.array_equal(F.to_dense(), before)


def test_a_batch_that_overflows_by_itself_says_that_the_sums_are_lost() -> None:
    S = np.ones((2, 300))
    for F in (ff.DenseFisher(300), ff.BlockDiagonalFisher([150, 150])):
        F.update(S)
        with pytest.raises(ff.NonFiniteError, match=r"column 1, of this .*It has spoilt this F"):
            F.update(S * np.where(np.arange(300) == 1, 1e200, 1.0))
        with pytest.raises(ff.NonFiniteError, match=r"got (inf|nan) at parameter 1"):
            F.solve(np.ones(300), damping=1.0)


@pytest.mark.parametrize("kind", [ff.DenseFisher, ff.DiagonalFisher])
def test_errors_that_numpy_is_asked_to_raise_tear_nothing(kind: Any) -> None:
    """float32 means that differ by so little that the square of the step underflows."""
    S = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    S[:, 1], S[:20, 1] = 0, 1.1e-38
    step = np.array([5, 0, 0], np.float32)
    F, expected = (kind(3, dtype=np.float32, center=True).update(S[:20]) for _ in range(2))
    expected.update(S[20:] + step).decay(0.3).merge(expected.copy())
    with np.errstate(all="raise"):
        F.update(S[20:] + step).decay(0.3).merge(F.copy())
    assert F.n_samples == expected.n_samples
    assert F.weight_sum == expected.weight_sum
    assert np.array_equal(F.to_dense(), expected.to_dense())


def test_scores_are_not_blamed_for_what_came_in_unchecked() -> None:
    F = ff.DiagonalFisher(2).update([[np.inf, 1.0]], check_finite=False)
    assert F.update([[1.0, 1.0]]).n_samples == 2


S155 = oracle.draw(50, 4) * 1e-155
TOO_MUCH: dict[str, Callable[..., Any]] = {
    "product": lambda: ff.ScoreFisher(np.full((2, 2), 1e160)) @ np.ones(2),
    "quadratic_form": lambda: ff.DenseFisher.from_matrix(np.eye(2) * 1e300).quadratic_form(
        np.full(2, 1e10)
    ),
    "trace": lambda: ff.DenseFisher.from_matrix(np.eye(4) * 1e308).trace(),
    "apply_power": lambda: ff.DenseFisher.from_matrix(np.eye(2) * 1e300).apply_power(
        np.ones(2), 2.0
    ),
    "leverage": lambda: ff.DenseFisher.from_scores(S155).leverage(S155 * 1e155),
    "solve": lambda: ff.DenseFisher.from_scores(S155).factor().solve(np.ones(4)),
    "inverse": lambda: ff.DenseFisher.from_scores(S155).factor().inverse(),
    "inverse of blocks": lambda: (
        ff.BlockDiagonalFisher.from_scores(S155, [2, 2]).factor().inverse()
    ),
    "inverse_diagonal": lambda: ff.DiagonalFisher.from_scores(S155).factor().inverse_diagonal(),
    "opg_covariance": lambda: ff.opg_covariance(S155),
    "KroneckerFisher.to_dense": lambda: ff.KroneckerFisher.from_layers(
        [(np.full((3, 2), 1e100), np.full((3, 2), 1e100))]
    ).to_dense(),
    "KroneckerFisher.diagonal": lambda: ff.KroneckerFisher.from_layers(
        [(np.full((3, 2), 1e100), np.full((3, 2), 1e100))]
    ).diagonal(),
    "LayerFisher.diagonal": lambda: ff.LayerFisher(
        [(np.full((3, 2), 1e100), np.full((3, 2), 1e100))]
    ).diagonal(),
    "wald_test": lambda: ff.wald_test(np.full(2, 1e10), np.eye(2) * 1e300),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_result_that_overflows_is_named_and_not_infinity(name: str) -> None:
    with pytest.raises(
        ff.NonFiniteError, match=r"expected a result within the range of float64, got overflow\. S"
    ):
        TOO_MUCH[name]()


# ---- what is held ----
def test_a_matrix_whose_sum_overflows_is_refused() -> None:
    with pytest.raises(ff.NonFiniteError, match=r"matrix: expected a matrix whose sum over 10{10}"):
        ff.DenseFisher.from_matrix([[1e300]], n_samples=10**10)
    off = np.array([[1.0, 1e300], [1e300, 1.0]])
    with pytest.raises(ff.NonFiniteError, match="got overflow in float64"):
        ff.DenseFisher.from_matrix(off, n_samples=10**10)
    assert ff.DenseFisher.from_matrix([[1e300]], n_samples=10**7).to_dense() == 1e300


def test_ekfac_does_not_square_what_weighs_nothing() -> None:
    a, g = oracle.draw(9, 3), oracle.draw(9, 2)
    weights = np.linspace(0.5, 1.0, 9)
    weights[[2, 5]] = 0
    huge = a.copy()
    huge[[2, 5]] = 1e200
    some = weights > 0
    found, expected = (
        ff.KroneckerFisher.from_layers([layer], weights=w, eigen=True)
        for layer, w in (((huge, g), weights), ((a[some], g[some]), weights[some]))
    )
    oracle.close(found.to_dense(), expected.to_dense(), float, 90)
    assert (found.n_samples, found.weight_sum) == (9, weights.sum())


@pytest.mark.parametrize("options", [{}, {"eigen": True}])
def test_a_fisher_of_nothing_has_no_scale_to_be_small_beside(options: dict[str, Any]) -> None:
    K = ff.KroneckerFisher.from_layers([(np.ones((5, 3)), np.zeros((5, 2)))], **options)
    with pytest.raises(ff.NotPositiveDefiniteError) as caught:
        K.solve(np.ones(6))
    assert caught.value.damping is None
    for F in (K, np.zeros((6, 6))):
        solution = ff.solve(F, np.ones(6), on_failure="shift")
        assert solution.damping_used == 1.0
        oracle.close(solution.value, np.ones(6), float, 6)


def test_a_list_that_is_no_array_is_refused_in_our_words() -> None:
    F = ff.DenseFisher.from_scores(S)
    parts = [np.ones((1, 4)), np.ones((2, 1))]
    for use in (F.solve, F.__matmul__, lambda v: ff.natural_gradient(S, v, damping=1.0)):
        with pytest.raises(ValueError, match="expected one array of numbers, got a list of parts"):
            use(parts)


def test_adam_names_squares_that_overflow() -> None:
    adam = ff.Adam()
    state = adam.start(np.ones(2, np.float32))
    with pytest.raises(ff.NonFiniteError, match="gradient: expected squares within the range of"):
        adam.step(state, np.array([1e25, 1.0], np.float32))


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1.4e19), (np.float64, 1.1e154)])
def test_sketches_whose_sum_overflows_are_not_joined(dtype: type[np.floating], size: float) -> None:
    scores = np.diag([size, 1.0]).astype(dtype)
    F = ff.LowRankFisher.from_scores(scores, 2, reduction="sum")
    before = F.to_dense()
    for join in (lambda: F + F, lambda: F.merge(F.copy()), lambda: F.update(scores)):
        with pytest.raises(ff.NonFiniteError, match="scores: expected finite sums, got"):
            join()
        assert np.array_equal(F.to_dense(), before)
        assert F.n_samples == 2


@pytest.mark.parametrize("size", [1e-100, 1e100])
def test_eigenvalues_of_layers_whose_products_leave_the_range_are_named(size: float) -> None:
    layers = [(oracle.draw(9, 3) * size, oracle.draw(9, 2) * size)]
    for eigen in (False, True):
        with pytest.raises(
            ff.FisherError, match=r"got (inf|overflow|the eigenvalue 0 in the [mp])"
        ):
            ff.KroneckerFisher.from_layers(layers, eigen=eigen).solve(
                np.ones(6), damping=1.0, damping_mode="trace"
            )


def test_spring_names_residuals_whose_step_overflows() -> None:
    spring = ff.Spring(0.1)
    step = spring.step(oracle.draw(9, 3), np.ones(9) + np.arange(9))
    with pytest.raises(ff.NonFiniteError, match="residuals: expected a step within the range of"):
        spring.step(oracle.draw(9, 3), np.where(np.arange(9) % 2, 1e308, -1e308))
    assert np.array_equal(spring.direction, step)
