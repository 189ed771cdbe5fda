"""Batches: every verb against NumPy, a status per item, and bits that depend on the item alone."""

import doctest
import subprocess
import sys

import numpy as np
import pytest

import fastfisher as ff
from fastfisher import Status
from oracle import DTYPES, EPS, rng

# One, both sides of the register tiles (3, 4), of the lanes (8, 16), and of both.
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33)
COUNT = 19
VERBS = ("inverse", "inverse_diagonal", "logdet")


def systems(
    p: int, dtype: type[np.floating] = np.float64, count: int = COUNT, k: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    random = rng(p, count)
    S = random.standard_normal((count, 2 * p + 2, p))
    F = (np.swapaxes(S, 1, 2) @ S).astype(dtype)
    return F, random.standard_normal((count, p) if k is None else (count, p, k)).astype(dtype)


def exact(verb: str, F: np.ndarray) -> np.ndarray:
    F = F.astype(np.float64)
    if verb == "logdet":
        answer: np.ndarray = np.linalg.slogdet(F)[1]
        return answer
    inverse = np.linalg.inv(F)
    return inverse if verb == "inverse" else np.einsum("bii->bi", inverse)


def close(found: np.ndarray, wanted: np.ndarray, F: np.ndarray) -> bool:
    """Forward error within p κ eps of the largest entry, as of any backward stable method."""
    p = F.shape[-1]
    kappa = np.linalg.cond(F.astype(np.float64)).max(initial=1.0)
    scale = np.abs(wanted).max(initial=1e-300)
    return bool(np.abs(found - wanted).max(initial=0.0) <= 4 * p * kappa * EPS[F.dtype] * scale)


# ---- right answers ----
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", SIZES)
def test_solve(p: int, dtype: type[np.floating]) -> None:
    for k in (None, 0, 1, 3, 8, 40):
        F, b = systems(p, dtype, k=k)
        solution = ff.batch.solve(F, b)
        wanted = np.linalg.solve(F.astype(np.float64), b if b.ndim == 3 else b[..., None])
        assert solution.value.shape == b.shape
        assert solution.value.dtype == dtype
        assert close(solution.value, wanted.reshape(b.shape), F)
        assert not solution.status.any()
        assert not solution.damping_used.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", SIZES)
@pytest.mark.parametrize("verb", VERBS)
def test_of_the_matrix_alone(verb: str, p: int, dtype: type[np.floating]) -> None:
    F, _ = systems(p, dtype)
    solution = getattr(ff.batch, verb)(F)
    assert close(solution.value, exact(verb, F), F)
    if verb == "inverse":
        assert (solution.value == np.swapaxes(solution.value, 1, 2)).all()


@pytest.mark.parametrize("p", SIZES)
def test_rcond_is_not_below_the_truth_and_not_far_above(p: int) -> None:
    F, b = systems(p)
    root = 2.0 ** -np.floor(np.log2(np.einsum("bii->bi", F)) / 2)
    A = F * root[:, :, None] * root[:, None, :]
    true = 1 / np.linalg.cond(A, 1)
    for found in (ff.batch.solve(F, b).rcond, ff.batch.logdet(F).rcond):
        assert (found >= true * (1 - 1e-10)).all()
        assert (found <= 10 * true).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1, 3, 4, 8, 9, 17])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 40, 300])
def test_empirical_fisher(n: int, p: int, dtype: type[np.floating]) -> None:
    S = rng(n, p).standard_normal((COUNT, n, p)).astype(dtype) + dtype(1)
    W = rng(n).uniform(0.1, 2, (COUNT, n))
    for weights in (None, W, W[0] if n else None):
        w = np.ones((COUNT, n)) if weights is None else np.broadcast_to(weights, (COUNT, n))
        for center in (False, True):
            for reduction in ("sum", "mean") if n else ("sum",):
                total = w.sum(1)[:, None, None]
                X = S.astype(np.float64)
                if center and n:
                    X = X - np.einsum("bn,bni->bi", w, X)[:, None] / total
                wanted = np.einsum("bn,bni,bnj->bij", w, X, X)
                size = np.einsum("bn,bni,bnj->bij", w, np.abs(S), np.abs(S), dtype=np.float64)
                if reduction == "mean":
                    wanted, size = wanted / total, size / total
                found = ff.batch.empirical_fisher(
                    S, weights=weights, center=center, reduction=reduction
                )
                assert found.dtype == dtype
                assert (found == np.swapaxes(found, 1, 2)).all()
                assert (np.abs(found - wanted) <= 2 * (n + 4) * EPS[np.dtype(dtype)] * size).all()


def test_empirical_fisher_sums_in_a_wider_type() -> None:
    S = rng(3).standard_normal((4, 50, 3)).astype(np.float32)
    wide = ff.batch.empirical_fisher(S, dtype=np.float64)
    assert wide.dtype == np.float64
    assert (wide == ff.batch.empirical_fisher(S.astype(np.float64))).all()


# ---- layouts ----
@pytest.mark.parametrize("p", [2, 3, 9])
def test_any_strides(p: int) -> None:
    F, b = systems(p, k=2)
    wanted = ff.batch.solve(F, b).value
    wide = np.zeros((2 * COUNT, 3 * p, 2 * p))
    wide[::2, ::3, ::2] = F
    fixed = F.copy()
    fixed.flags.writeable = False
    raw = np.zeros(F.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(F.dtype).reshape(F.shape)
    misaligned[...] = F
    rows = np.zeros((COUNT, p, p + 3))
    rows[:, :, :p] = F
    for layout in (
        wide[::2, ::3, ::2],
        fixed,
        misaligned,
        rows[:, :, :p],
        np.asfortranarray(F),
        np.swapaxes(F, 1, 2).copy().swapaxes(1, 2),
        F[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
        F.astype(">f8"),
    ):
        assert (ff.batch.solve(layout, b).value == wanted).all()
        assert (ff.batch.solve(layout, np.asfortranarray(b)).value == wanted).all()
    S = rng(p).standard_normal((COUNT, 5, p))
    assert (ff.batch.empirical_fisher(np.asfortranarray(S)) == ff.batch.empirical_fisher(S)).all()


def test_only_the_lower_triangle_is_read() -> None:
    F, b = systems(9)
    spoilt = F + np.triu(np.full((9, 9), np.nan), 1)
    assert (ff.batch.solve(spoilt, b).value == ff.batch.solve(F, b).value).all()
    spoilt[3, 2, 2] = -1
    for policy in ("shift", "pinv"):
        assert np.isfinite(ff.batch.solve(spoilt, b, on_failure=policy).value).all()


def test_one_matrix_serves_every_right_hand_side() -> None:
    F, b = systems(5)
    one = ff.batch.solve(F[:1], b).value
    assert (one == ff.batch.solve(np.repeat(F[:1], COUNT, 0), b).value).all()
    assert ff.batch.solve(F, b[:1]).value.shape == (COUNT, 5)


def test_nothing_in_nothing_out() -> None:
    F, b = np.zeros((0, 3, 3)), np.zeros((0, 3))
    assert ff.batch.solve(F, b).value.shape == (0, 3)
    assert ff.batch.solve(F, b, on_failure="pinv").rank.shape == (0,)
    assert ff.batch.inverse(F).value.shape == (0, 3, 3)
    assert ff.batch.empirical_fisher(np.zeros((0, 4, 3))).shape == (0, 3, 3)


# ---- bits ----
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [2, 3, 8, 17])
def test_bits_depend_on_the_item_alone(p: int, dtype: type[np.floating]) -> None:
    F, b = systems(p, dtype, count=2000)
    S = rng(p).standard_normal((2000, 6, p)).astype(dtype)
    wanted = ff.batch.solve(F, b, n_threads=1)
    fishers = ff.batch.empirical_fisher(S, n_threads=1)
    for threads in (2, 3, 8):
        found = ff.batch.solve(F, b, n_threads=threads)
        assert (found.value == wanted.value).all()
        assert (found.rcond == wanted.rcond).all()
        assert (ff.batch.empirical_fisher(S, n_threads=threads) == fishers).all()
        for verb in VERBS:
            one = getattr(ff.batch, verb)(F, n_threads=1).value
            assert (getattr(ff.batch, verb)(F, n_threads=threads).value == one).all()
    for some in (slice(5, 6), slice(3, 1000, 7)):
        assert (ff.batch.solve(F[some], b[some]).value == wanted.value[some]).all()
        assert (ff.batch.empirical_fisher(S[some]) == fishers[some]).all()
    # Among several right-hand sides, too.
    many = np.repeat(b[:, :, None], 21, axis=2)
    assert (ff.batch.solve(F, many).value == wanted.value[:, :, None]).all()


# ---- bad items ----
@pytest.mark.parametrize("p", [2, 3, 8, 17])
def test_a_bad_item_harms_no_other(p: int) -> None:
    F, b = systems(p, count=200)
    wanted = ff.batch.solve(F, b)
    bad = F.copy()
    expected = np.zeros(200, np.int8)
    bad[3, p - 1, 0], expected[3] = np.nan, Status.NON_FINITE
    bad[17, 0, 0], expected[17] = np.inf, Status.NON_FINITE
    bad[18, p - 1, 0], expected[18] = -np.inf, Status.NON_FINITE
    bad[40, p - 1, p - 1], expected[40] = -1.0, Status.NOT_POSITIVE_DEFINITE
    bad[41], expected[41] = 0.0, Status.NOT_POSITIVE_DEFINITE
    bad[42], expected[42] = 1.0, Status.NOT_POSITIVE_DEFINITE
    bad[90, p - 1, 0], expected[90] = 1e308, Status.NOT_POSITIVE_DEFINITE
    rhs = b.copy()
    rhs[150, 1], expected[150] = np.nan, Status.NON_FINITE
    # Units: exact powers of two, so that even the bits of the answers are known.
    tiny, huge, mixed = 2.0**-996, 2.0**996, 2.0 ** (400 * (-1) ** np.arange(p))
    bad[60] *= tiny
    bad[61] *= huge
    bad[62] *= mixed[:, None] * mixed
    found = ff.batch.solve(bad, rhs, on_failure="nan")
    assert (found.status == expected).all()
    assert np.isnan(found.value[expected != 0]).all()
    assert (found.value[60] == wanted.value[60] / tiny).all()
    assert (found.value[61] == wanted.value[61] / huge).all()
    assert (found.value[62] * mixed == ff.batch.solve(F[62:63], b[62:63] / mixed).value[0]).all()
    others = expected == 0
    others[60:63] = False
    assert (found.value[others] == wanted.value[others]).all()
    assert (found.rcond[others] == wanted.rcond[others]).all()
    assert (found.rcond[[40, 41, 42]] == 0).all()
    assert np.isnan(found.rcond[[3, 17, 18]]).all()
    for verb in VERBS:
        answer = getattr(ff.batch, verb)(bad, on_failure="nan")
        one = getattr(ff.batch, verb)(F).value
        assert (answer.status[others | (np.arange(200) == 62)] == Status.SUCCESS).all()
        assert (answer.value[others] == one[others]).all()


def test_decimal_units() -> None:
    F, b = systems(4, count=3)
    A = F * np.array([1e-300, 1.0, 1e300])[:, None, None] / np.abs(F).max()
    x = ff.batch.solve(A, b * np.array([1e-300, 1.0, 1e300])[:, None]).value
    assert close(x, np.linalg.solve(F, b[..., None])[..., 0] * np.abs(F).max(), F)
    assert np.isfinite(ff.batch.logdet(A).value).all()


def test_an_answer_that_overflows_is_told() -> None:
    solution = ff.batch.solve(1e-300 * np.ones((1, 1, 1)), [[1e300]], on_failure="nan")
    assert solution.status[0] == Status.NON_FINITE
    assert np.isnan(solution.value).all()


def test_raise_names_the_first_and_counts() -> None:
    F, b = systems(3)
    F[4] = 0
    F[7] = np.nan
    with pytest.raises(ff.NotPositiveDefiniteError, match=r"item 4 and 1 more") as raised:
        ff.batch.solve(F, b)
    assert np.isfinite(raised.value.solution.value[5]).all()
    with pytest.raises(ff.NonFiniteError, match=r"item 2,") as other:
        ff.batch.logdet(F[5:8])
    assert other.value.row == 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_shift_takes_the_smallest_rung_that_works(dtype: type[np.floating], scale: float) -> None:
    F, b = systems(5, dtype)
    F[2] = 0
    F[3] = np.ones((5, 5))
    F[4] = np.diag([1, 2, 3, 4, -5])
    F[5, 1, 1] = np.nan
    F = (F * scale).astype(dtype)
    b = (b * scale).astype(dtype)
    solution = ff.batch.solve(F, b, on_failure="shift")
    assert (solution.status[2:6] == [Status.SHIFTED] * 3 + [Status.NON_FINITE]).all()
    assert not solution.status[6:].any()
    assert not solution.damping_used[6:].any()
    used = solution.damping_used[2:5]
    again = ff.batch.solve(F[2:5], b[2:5], damping=used)
    assert (again.value == solution.value[2:5]).all()
    assert not again.status.any()
    half = ff.batch.solve(F[3:5], b[3:5], damping=used[1:] / 2, on_failure="nan")
    assert (half.status == Status.NOT_POSITIVE_DEFINITE).all()
    assert used[2] <= 11 * dtype(scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pinv_cuts_and_tells_the_rank(dtype: type[np.floating]) -> None:
    V = np.linalg.qr(rng(9).standard_normal((6, 6)))[0]
    F = np.stack([np.eye(6), (V * [0, 0, 0, 1, 2, 3]) @ V.T, np.zeros((6, 6)), -np.eye(6)])
    F = F.astype(dtype)
    F[0, 0, 0] = 2
    b = rng(8).standard_normal((4, 6)).astype(dtype)
    solution = ff.batch.solve(F, b, on_failure="pinv")
    assert (solution.rank == [6, 3, 0, 0]).all()
    assert (solution.status == [Status.SUCCESS] + [Status.TRUNCATED] * 3).all()
    wanted = np.linalg.pinv(F[1].astype(np.float64), rcond=1e-5) @ b[1]
    assert np.abs(solution.value[1] - wanted).max() <= 100 * EPS[np.dtype(dtype)]
    assert not solution.value[2:].any()
    assert np.abs(ff.batch.logdet(F, on_failure="pinv").value[1] - np.log(6)) <= 1e-5
    inverse = ff.batch.inverse(F, on_failure="pinv").value
    diagonal = ff.batch.inverse_diagonal(F, on_failure="pinv").value
    assert np.abs(np.einsum("bii->bi", inverse) - diagonal).max() <= 100 * EPS[np.dtype(dtype)]


# ---- damping ----
def test_damping_modes() -> None:
    F, b = systems(4)
    eye, diagonal = np.eye(4), np.einsum("bii->bi", F)
    each = np.linspace(0.1, 2, COUNT)
    for damping in (0.5, each):
        amount = np.broadcast_to(damping, COUNT)
        for mode, used in (
            ("absolute", amount),
            ("trace", amount * diagonal.mean(1)),
            ("diagonal", amount[:, None] * diagonal),
        ):
            solution = ff.batch.solve(F, b, damping=damping, damping_mode=mode)
            assert np.allclose(solution.damping_used, used, rtol=1e-14)
            D = used[:, None, None] * eye if used.ndim == 1 else used[:, :, None] * eye
            assert close(solution.value, np.linalg.solve(F + D, b[..., None])[..., 0], F)


# ---- what is refused ----
def test_messages() -> None:
    F, b = systems(3)
    for call, text in (
        (lambda: ff.batch.solve(F[0], b), "F: expected square matrices"),
        (lambda: ff.batch.solve(F, b[:5]), "rhs: expected shape"),
        (lambda: ff.batch.solve(F, b[:, :2]), "rhs: expected shape"),
        (lambda: ff.batch.solve(F, b, damping=-1.0), "damping: expected finite"),
        (lambda: ff.batch.solve(F, b, damping=[1.0]), "damping: expected a number"),
        (lambda: ff.batch.solve(F, b, damping_mode="x"), "damping_mode: expected one of"),
        (lambda: ff.batch.solve(F, b, on_failure="x"), "on_failure: expected one of"),
        (lambda: ff.batch.solve(F, b, n_threads=0), "n_threads: expected at least 1"),
        (lambda: ff.batch.empirical_fisher(b), "scores: expected shape"),
        (lambda: ff.batch.empirical_fisher(F[:, :0]), "scores: expected at least one sample"),
        (lambda: ff.batch.empirical_fisher(F, weights=[1.0]), "weights: expected shape"),
        (lambda: ff.batch.empirical_fisher(F, weights=[1, 1, -1]), "weights: expected finite"),
        (lambda: ff.batch.empirical_fisher(F, weights=[0, 0, 0]), "weights: expected at least"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    for call, text in (
        (lambda: ff.batch.solve(F.astype(int), b), "F: expected float64 or float32"),
        (lambda: ff.batch.solve(F + 0j, b), "F: expected float64 or float32, got complex128"),
        (lambda: ff.batch.solve(F, b + 1j), "rhs: expected real numbers"),
        (lambda: ff.batch.logdet(F.astype(np.complex64)), "F: expected float64 .* got complex64"),
        (
            lambda: ff.batch.inverse(ff.batch.Scores(F + 0j), precision="extended"),
            "scores: expected float64 or float32, got complex128",
        ),
        (
            lambda: ff.batch.inverse((F, F * 1j), precision="extended"),
            "lo: expected float64 or float32, got complex128",
        ),
        (lambda: ff.batch.solve(F, b, damping=1j), "damping: expected real numbers"),
        (lambda: ff.batch.empirical_fisher(F + 0j), "scores: expected float64 .* got complex128"),
        (lambda: ff.batch.empirical_fisher(F, weights=b[0] + 1j), "weights: expected real numbers"),
        (lambda: ff.batch.empirical_fisher(F, dtype=complex), "dtype: expected real numbers"),
        (lambda: ff.batch.solve(np.ma.array(F), b), "F: expected a plain array, got a masked one"),
        (lambda: ff.batch.empirical_fisher(F, dtype=np.float32), "dtype: expected float64"),
    ):
        with pytest.raises(TypeError, match=text):
            call()


def test_the_size_guard() -> None:
    F = np.broadcast_to(np.eye(1000), (1 << 30, 1000, 1000))
    with pytest.raises(ff.MemoryLimitError, match=r"batch\.inverse: expected at most"):
        ff.batch.inverse(F)
    with pytest.raises(ff.MemoryLimitError, match=r"batch\.empirical_fisher: expected at most"):
        ff.batch.empirical_fisher(F[:, :1])


@pytest.mark.parametrize("name", ff.batch.__all__)
def test_example_runs(name: str) -> None:
    thing = getattr(ff.batch, name)
    found = doctest.DocTestFinder(recurse=False).find(thing, name, globs={})
    assert any(test.examples for test in found)
    for test in found:
        report: list[str] = []
        doctest.DocTestRunner().run(test, out=report.append)
        assert not report, "".join(report)


def test_batch_is_imported_when_asked_for() -> None:
    code = "import sys, fastfisher as ff; print('fastfisher.batch' in sys.modules, ff.batch.solve)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False <function solve")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ff.nonsense
