"""Paths of dampings: each damping as if solved alone, failures named one by one, work shared."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastfisher as ff
import oracle
from fastfisher import _memory
from fastfisher.fisher.accumulator import Accumulator
from fastfisher.solvers import auto
from representations import cases

DAMPINGS = [3.0, 1e-3, 0.1, 1.0, 0.1]
RTOL = 1e-10
NO_PRECONDITIONER = ff.CG(rtol=RTOL, preconditioner=None)
SOLVERS = ["auto", ff.Cholesky(), ff.Eigh(), NO_PRECONDITIONER, ff.CG(rtol=RTOL)]
CASES = [
    pytest.param(*rest, id=f"{name}-{np.dtype(dtype)}")
    for dtype in (float, complex)
    for name, *rest in cases(dtype)
]


def alone(F: np.ndarray, rhs: np.ndarray, dampings: np.ndarray | Sequence[float]) -> np.ndarray:
    return np.stack([np.linalg.solve(F + x * np.eye(len(F)), rhs) for x in dampings])


def agrees(
    path: ff.PathSolution,
    F: np.ndarray,
    rhs: np.ndarray,
    dampings: np.ndarray | Sequence[float],
    dtype: type[np.inexact] = np.float64,
    rtol: float = RTOL,
) -> None:
    """Assert each x exact to c·p·eps·(1 + ‖F‖/λ), and to the tolerance of an iteration."""
    exact = alone(oracle.wide(F), oracle.wide(rhs), dampings)
    terms = 10 * len(F) + (rtol / oracle.EPS[np.dtype(dtype)] if "cg" in path.method else 0)
    for found, x, damping in zip(path.value, exact, dampings, strict=True):
        condition = 1 + np.linalg.norm(F, 2) / damping
        oracle.close(found, x, dtype, terms, np.linalg.norm(x) * condition)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize(("fisher", "F", "S"), CASES)
def test_every_damping_as_if_alone(
    fisher: Accumulator, F: np.ndarray, S: np.ndarray, solver: Any
) -> None:
    p = len(F)
    for rhs in (np.arange(1.0, p + 1), oracle.draw(p, 3, S.dtype), oracle.draw(p, 0, S.dtype)):
        path = ff.solve_path(fisher, rhs, DAMPINGS, solver=solver)
        agrees(path, F, rhs, DAMPINGS)
        assert path.value.dtype == S.dtype
        assert path.value.shape == (len(DAMPINGS), *rhs.shape)
        assert (path.status == ff.Status.SUCCESS).all()
        assert (path.residual <= RTOL).all()
        assert np.array_equal(path.damping_used, DAMPINGS)
        if path.method != "eigh":  # the bits of NumPy's product depend on the column's place
            assert np.array_equal(path.value[2], path.value[4])


@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(10, 47), (60, 25), (1, 3), (4, 1)])
def test_scores_by_every_solver(
    shape: tuple[int, int], weighted: bool, center: bool, dtype: type[np.inexact]
) -> None:
    n, p = shape
    S = oracle.draw(n, p, dtype)
    weights = oracle.draw_weights(n) if weighted else None
    F, rhs = oracle.fisher(S, weights, center), oracle.draw(p, 2, dtype)
    fisher = ff.ScoreFisher(S, weights=weights, center=center)
    rtol = 50 * (n + p) * oracle.EPS[np.dtype(dtype)]
    tight = ff.CG(rtol=rtol, preconditioner=None)
    revealing = ff.QR(rank_revealing=True)
    for solver in (ff.Dual(), ff.Eigh(), ff.Cholesky(), ff.QR(), revealing, tight, "auto"):
        dampings = [1.0, 0.05]
        path = fisher.solve_path(rhs, dampings, solver=solver)
        agrees(path, F, rhs, dampings, dtype, rtol)
        assert path.value.dtype == dtype


def test_trace_mode_and_a_plain_matrix() -> None:
    F, rhs = oracle.fisher(oracle.draw(30, 7)), np.ones(7)
    path = ff.solve_path(F, rhs, [0.5, 2.0], damping_mode="trace")
    assert np.allclose(path.damping_used, np.array([0.5, 2.0]) * np.trace(F) / 7)
    agrees(path, F, rhs, path.damping_used)


def test_a_path_is_a_sequence_of_solutions() -> None:
    F, rhs = oracle.fisher(oracle.draw(30, 7)), np.ones(7)
    path = ff.solve_path(F, rhs, [0.5, 2.0])
    assert len(path) == len(list(path)) == 2
    for solution, damping in zip(path, [0.5, 2.0], strict=True):
        single = ff.solve(F, rhs, damping=damping)
        assert isinstance(solution, ff.Solution)
        assert np.array_equal(solution.value, single.value)
        assert solution.damping_used == damping
        assert solution.rcond == pytest.approx(single.rcond)
        assert solution.method == "cholesky"
    assert path[-1].damping_used == 2.0
    assert ff.solve_path(F, rhs, [1.0], solver=NO_PRECONDITIONER)[0].rcond is None
    with pytest.raises(IndexError):
        path[2]


def test_auto_chooses_by_shape_and_count(monkeypatch: pytest.MonkeyPatch) -> None:
    S = oracle.draw(12, 30)
    few, many = np.linspace(0.1, 1, 5), np.linspace(0.1, 1, auto.EIGH_PAYS)
    rhs = np.ones(30)
    dense, diagonal = ff.DenseFisher.from_scores(S), ff.DiagonalFisher.from_scores(S)
    assert ff.solve_path(ff.ScoreFisher(S), rhs, few).method == "dual"
    assert ff.solve_path(dense, rhs, few).method == "cholesky"
    for fisher in (dense, ff.ScoreFisher(S)):
        path = fisher.solve_path(rhs, many)
        assert path.method == "eigh"
        agrees(path, dense.to_dense(), rhs, many)
    assert diagonal.solve_path(rhs, many).method == "cholesky"
    monkeypatch.setattr(auto, "DIRECT_LIMIT", 10)
    for fisher in (dense, ff.ScoreFisher(S)):
        path = fisher.solve_path(rhs, few)
        assert path.method == "shifted cg"
        assert (path.iterations > 0).all()


# ---- work ----
class Counted(ff.ScoreFisher):
    """Counts its products, and has none of the native short cuts."""

    products = 0

    def _product(self, V: np.ndarray, threads: int) -> np.ndarray:
        self.products += 1
        answer: np.ndarray = super()._product(V, threads)
        return answer

    _conjugate_gradients = ff.Fisher._conjugate_gradients
    _shifted_conjugate_gradients = ff.Fisher._shifted_conjugate_gradients


@pytest.mark.parametrize(("k", "dtype"), [(1, float), (3, float), (2, complex)])
def test_a_path_takes_the_products_of_its_hardest_system(k: int, dtype: npt.DTypeLike) -> None:
    S, rhs = oracle.draw(300, 80, dtype) * np.geomspace(1, 0.1, 80), oracle.draw(80, k, dtype)
    dampings = np.geomspace(1e-2, 10, 25)
    fisher, single = Counted(S), Counted(S)
    solver = ff.CG(rtol=1e-6, preconditioner=None)  # fewer steps than p: rounding decides nothing
    path = fisher.solve_path(rhs, dampings, solver=solver)
    hardest = ff.solve(single, rhs, damping=dampings[0], solver=solver)
    assert fisher.products <= single.products + 2
    assert abs(path.iterations[0] - hardest.iterations) <= 2
    assert (np.diff(path.iterations) <= 0).all()
    assert (path.residual <= 1e-6).all()
    agrees(path, oracle.fisher(S), rhs, dampings, rtol=1e-6)


def test_a_recurrence_that_was_too_sure_goes_on_alone() -> None:
    """In float32 the recurrence loses the true residual; the path finds out and makes it good."""
    S, rhs = oracle.draw(600, 300, np.float32), np.ones(300)
    fisher = Counted(S * np.geomspace(1, 0.1, 300, dtype=np.float32))
    path = fisher.solve_path(rhs, [3e-4, 0.1], solver=ff.CG(rtol=4e-6, preconditioner=None))
    assert (path.residual <= 4e-6).all()
    assert fisher.products > path.iterations.max() + 1


@pytest.mark.parametrize("dtype", [*oracle.DTYPES, np.complex128])
def test_same_bits_for_any_number_of_threads(dtype: type[np.inexact]) -> None:
    S, rhs = oracle.draw(500, 400, dtype), oracle.draw(400, 2, dtype)
    solver = ff.CG(rtol=1e-4, preconditioner=None)
    for fisher in (ff.ScoreFisher(S), ff.DenseFisher.from_scores(S)):
        one, two, eight = (
            fisher.solve_path(rhs, np.geomspace(0.01, 10, 50), solver=solver, n_threads=threads)
            for threads in (1, 2, 8)
        )
        assert one.value.tobytes() == two.value.tobytes() == eight.value.tobytes()
        assert one.residual.tobytes() == two.residual.tobytes() == eight.residual.tobytes()


# ---- failures ----
SINGULAR = np.diag([1.0, 2.0, 0.0, 3.0])


@pytest.mark.parametrize("solver", [*SOLVERS, ff.CG(preconditioner=None)], ids=str)
@pytest.mark.parametrize("dtype", [float, complex])
def test_a_failure_harms_no_other_damping(dtype: npt.DTypeLike, solver: Any) -> None:
    singular = SINGULAR.astype(dtype)
    rhs = np.array([1.0, 2.0, 3.0, 4.0])
    dampings = [1.0, 0.0, 0.5]
    path = ff.solve_path(singular, rhs, dampings, solver=solver, on_failure="nan")
    assert np.isnan(path.value[1]).all()
    assert np.isnan(path.residual[1])
    assert (path.iterations[1] > 0) == isinstance(solver, ff.CG)
    assert path.messages[1]
    assert path.messages[0] == path.messages[2] == ""
    named = {ff.Status.NOT_POSITIVE_DEFINITE}
    if isinstance(solver, ff.CG):
        named = {ff.Status.STAGNATED, ff.Status.NEGATIVE_CURVATURE}
    assert path.status[1] in named
    for place in (0, 2):
        assert path[place].status == ff.Status.SUCCESS
        exact = alone(SINGULAR, rhs, [dampings[place]])[0]
        assert np.allclose(path.value[place], exact, rtol=1e-7)
    with pytest.raises(
        (ff.NotPositiveDefiniteError, ff.ConvergenceError), match=r"dampings: at place 1, damping 0"
    ):
        ff.solve_path(singular, rhs, dampings, solver=solver)
    assert path.methods[1] == "none"


def test_an_error_carries_the_last_iterate() -> None:
    with pytest.raises(ff.ConvergenceError) as caught:
        ff.solve_path(
            np.diag(np.geomspace(1, 1e3, 30)),
            np.ones(30),
            [0.0],
            solver=ff.CG(preconditioner=None, max_iterations=3),
        )
    assert caught.value.solution.status == ff.Status.MAX_ITERATIONS
    assert caught.value.solution.value.shape == (30,)


@pytest.mark.parametrize("solver", [ff.Cholesky(), ff.Cholesky(precision="mixed")])
def test_want_of_memory_is_no_failure_of_a_damping(
    monkeypatch: pytest.MonkeyPatch, solver: ff.Cholesky
) -> None:
    F = ff.DenseFisher(3000, reduction="sum")
    monkeypatch.setattr(_memory, "available_memory", lambda: 10**6)
    monkeypatch.setattr(_memory, "UNGUARDED", 10**7)
    with pytest.raises(ff.MemoryLimitError, match="a factor beside the matrix: expected"):
        F.solve_path(np.ones(3000), [1.0], solver=solver, on_failure="nan")
    with pytest.raises(ff.MemoryLimitError):
        ff.solve(F, np.ones(3000), damping=1.0, solver=solver, on_failure="nan")


def test_every_damping_may_fail() -> None:
    path = ff.solve_path(-np.eye(3), np.ones(3), [0.0, 0.5], on_failure="nan")
    assert path.method == "none"
    assert np.isnan(path.value).all()
    for solver in (ff.Eigh(), NO_PRECONDITIONER):
        path = ff.solve_path(-np.eye(3), np.ones(3), [0.0, 0.5], on_failure="nan", solver=solver)
        assert (path.status != ff.Status.SUCCESS).all()
    for alone in (ff.Dual(), ff.Eigh()):
        wide = ff.ScoreFisher(oracle.draw(2, 5))
        path = wide.solve_path(np.ones(5), [0.0], on_failure="nan", solver=alone)
        assert path.status[0] == ff.Status.NOT_POSITIVE_DEFINITE


def test_truncated_cg_is_taken_only_when_allowed() -> None:
    F, rhs = np.diag(np.geomspace(1, 1e3, 30)), np.ones(30)
    short = ff.CG(preconditioner=None, max_iterations=3)
    path = ff.solve_path(F, rhs, [0.0, 1e9], solver=short, on_failure="nan")
    assert path.status.tolist() == [ff.Status.MAX_ITERATIONS, ff.Status.SUCCESS]
    short = ff.CG(preconditioner=None, max_iterations=3, allow_truncated=True)
    path = ff.solve_path(F, rhs, [0.0, 1e9], solver=short)
    assert path.status.tolist() == [ff.Status.MAX_ITERATIONS, ff.Status.SUCCESS]
    true = np.linalg.norm(rhs - F @ path.value[0]) / np.linalg.norm(rhs)
    assert path.residual[0] == pytest.approx(true)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_scales_near_the_ends_of_the_numbers(scale: float) -> None:
    F, rhs = np.diag([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0])
    solver = ff.CG(rtol=1e-12, preconditioner=None)
    for a, b, x in ((scale, scale, 1.0), (1.0, scale, scale)):
        path = ff.solve_path(F * a, rhs * b, [0.0, a], solver=solver)
        assert (path.status == 0).all()
        assert np.allclose(path.value / x, alone(F, rhs, [0.0, 1.0]), rtol=1e-10)


def test_bad_arguments() -> None:
    F, rhs = np.eye(2), np.ones(2)
    for dampings, text in (
        ([], r"dampings: expected shape \(m,\) with m ≥ 1, got shape \(0,\)"),
        (1.0, r"dampings: expected shape \(m,\)"),
        ([[1.0]], r"dampings: expected shape \(m,\)"),
        ([1.0, -1.0], "dampings: expected finite numbers that are not negative"),
        ([np.nan], "dampings: expected finite numbers"),
    ):
        with pytest.raises(ValueError, match=text):
            ff.solve_path(F, rhs, dampings)
    with pytest.raises(ValueError, match="damping_mode: expected one of absolute, trace in a path"):
        ff.solve_path(F, rhs, [1.0], damping_mode="diagonal")
    with pytest.raises(ValueError, match="on_failure: expected one of raise, nan in a path"):
        ff.solve_path(F, rhs, [1.0], on_failure="shift")
    with pytest.raises(ff.NonFiniteError, match="rhs"):
        ff.solve_path(F, [1.0, np.nan], [1.0])
    with pytest.raises(TypeError, match="solver: expected"):
        ff.solve_path(F, rhs, [1.0], solver="cg")
    with pytest.raises(TypeError, match="needs the scores"):
        ff.solve_path(F, rhs, [1.0], solver=ff.Dual())
    with pytest.raises(TypeError, match="rhs: expected real numbers, got complex128"):
        ff.solve_path(F, rhs * 1j, [1.0])
    with pytest.raises(TypeError, match="dampings: expected real numbers, got complex128"):
        ff.solve_path(F.astype(complex), rhs, [1.0 + 0j])
    path = ff.solve_path(
        F, [1.0, np.inf], [1.0], check_finite=False, solver=NO_PRECONDITIONER, on_failure="nan"
    )
    assert path.status[0] == ff.Status.NON_FINITE


def test_a_solver_of_ones_own_is_asked_once_per_damping() -> None:
    class Mine:
        def solve(
            self,
            fisher: ff.DenseFisher,
            rhs: np.ndarray,
            shift: float,
            *,
            threads: int = 0,
            diagnose: bool = True,
        ) -> ff.Solution:
            return ff.Cholesky().solve(fisher, rhs, shift, threads=threads, diagnose=diagnose)

    path = ff.solve_path(np.eye(2), np.ones(2), [0.0, 1.0], solver=Mine())
    assert np.allclose(path.value, [[1.0, 1.0], [0.5, 0.5]])


def test_eigh_solves_a_single_system_too() -> None:
    F, rhs = oracle.fisher(oracle.draw(30, 7)), oracle.draw(7, 2)
    for damping in (0.1, np.linspace(0.1, 1, 7)):
        solution = ff.solve(F, rhs, damping=damping, solver=ff.Eigh())
        assert solution.method == "eigh"
        assert solution.residual is not None
        assert solution.residual < 1e-13
    S = oracle.draw(30, 7)
    x = ff.natural_gradient(S, damping=0.1, solver=ff.Eigh())
    assert np.allclose(x, oracle.natural_gradient(S, 0.1))
    with pytest.raises(ff.NotPositiveDefiniteError):
        ff.solve(SINGULAR, np.ones(4), solver=ff.Eigh())


def test_a_solver_of_its_own_is_known_by_what_it_says() -> None:
    class Own(ff.ScoreFisher):
        @property
        def _own_solver(self) -> ff.QR:
            return ff.QR()  # another object each time

    F = Own(oracle.draw(20, 3))
    assert auto.choose_for_path(F, "auto", [1.0] * auto.EIGH_PAYS) == ff.QR()
