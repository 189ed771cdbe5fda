"""Arrays as callers hold them: every layout of every argument, ends of the range, refusals."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle

N, P = 12, 5


def matrix(p: int, dtype: type[np.inexact] = np.float64) -> np.ndarray:
    return oracle.fisher(oracle.draw(3 * p, p, dtype)).astype(dtype)


def arrays(dtype: type[np.inexact] = np.float64) -> dict[str, np.ndarray]:
    """Return the arrays that the calls below take, by the names of their arguments."""
    S = oracle.draw(N, P, dtype)
    return {
        "scores": S,
        "weights": np.linspace(0.5, 2.0, N).astype(S.real.dtype),
        "v": oracle.draw(P, 2, dtype),
        "g": oracle.draw(P, 1, dtype)[:, 0],
        "matrix": matrix(P, dtype),
        "damping": np.linspace(0.5, 1.0, P).astype(S.real.dtype),
        "targets": oracle.draw(N, 1, dtype)[:, 0],
        "stack": np.stack([matrix(P), 2 * matrix(P)]).astype(dtype),
        "columns": oracle.draw(2, P, dtype),
        "batch": oracle.draw(N, P, dtype).reshape(2, N // 2, P),
        "inputs": oracle.draw(N, 3, dtype),
        "gradients": oracle.draw(N, 2, dtype)[::-1].copy(),
        "labels": np.arange(N) // 2,
    }


def used(
    F: ff.DenseFisher,
    v: np.ndarray | Sequence[Sequence[complex]],
    damping: np.ndarray | Sequence[float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what a Fisher tells, as one tuple of arrays."""
    return F @ v, F.diagonal(), F.solve(v, damping=damping), F.quadratic_form(v)


def of_scores(
    make: Callable[..., Any],
) -> Callable[..., tuple[np.ndarray, ...]]:
    return lambda scores, weights, v, damping: used(make(scores, weights=weights), v, damping)


def layered(
    make: Callable[..., Any],
) -> Callable[..., tuple[np.ndarray, ...]]:
    def call(
        inputs: np.ndarray | Sequence[Sequence[float]],
        gradients: np.ndarray | Sequence[Sequence[float]],
        weights: np.ndarray | Sequence[float],
    ) -> tuple[np.ndarray, np.ndarray]:
        F = make([(inputs, gradients)], weights=weights)
        return F.diagonal(), F.solve(np.ones(6, F.dtype), damping=0.5)

    return call


REAL = {
    "KroneckerFisher": layered(ff.KroneckerFisher.from_layers),
    "EKFAC": layered(lambda *a, **k: ff.KroneckerFisher.from_layers(*a, eigen=True, **k)),
    "LayerFisher": layered(ff.LayerFisher),
    "batch.empirical_fisher": lambda batch: ff.batch.empirical_fisher(batch, center=True),
    "batch.solve": lambda stack, columns: ff.batch.solve(stack, columns).value,
    "batch.inverse": lambda stack: ff.batch.inverse(stack, damping=0.5).value,
    "batch.inverse_diagonal": lambda stack: ff.batch.inverse_diagonal(stack).value,
    "batch.logdet": lambda stack: ff.batch.logdet(stack).value,
    "sandwich_covariance": lambda matrix, scores, labels: ff.sandwich_covariance(
        matrix, scores, clusters=labels
    ),
    "opg_covariance": lambda scores, weights: ff.opg_covariance(scores, weights=weights),
    "score_test": lambda scores: np.array(ff.score_test(scores, df=P).statistic),
}
EVERY: dict[str, Callable[..., Any]] = {
    "empirical_fisher": lambda scores, weights: ff.empirical_fisher(
        scores, weights=weights, center=True
    ),
    "fisher_diagonal": lambda scores, weights: ff.fisher_diagonal(scores, weights=weights),
    "gram": lambda scores, weights: ff.gram(scores, weights=weights),
    "fvp": lambda scores, v, weights: ff.fvp(scores, v, weights=weights),
    "natural_gradient": lambda scores, v, weights: ff.natural_gradient(
        scores, v, damping=0.5, weights=weights
    ),
    "dual": lambda scores, v: ff.natural_gradient(scores[:3], v, damping=0.5),
    "solve": lambda matrix, v, damping: ff.solve(matrix, v, damping=damping).value,
    "CG": lambda matrix, v: ff.solve(matrix, v, damping=0.5, solver=ff.CG()).value,
    "from_matrix": lambda matrix: ff.DenseFisher.from_matrix(matrix).factor().inverse(),
    "DenseFisher": of_scores(ff.DenseFisher.from_scores),
    "DiagonalFisher": of_scores(ff.DiagonalFisher.from_scores),
    "SquareRootFisher": of_scores(ff.SquareRootFisher.from_scores),
    "ScoreFisher": of_scores(ff.ScoreFisher),
    "LowRankFisher": lambda scores, weights: ff.LowRankFisher.from_scores(
        scores, P, weights=weights
    ).to_dense(),
    "BlockDiagonalFisher": of_scores(
        lambda s, weights: ff.BlockDiagonalFisher.from_scores(s, [2, 3], weights=weights)
    ),
    "chain": of_scores(
        lambda s, weights: ff.BlockDiagonalFisher.from_scores(
            s, [3, 2], weights=weights, tridiagonal=True
        )
    ),
    "leverage": lambda scores, matrix: ff.DenseFisher.from_matrix(matrix).leverage(scores, 0.5),
    "apply_power": lambda matrix, v: ff.DenseFisher.from_matrix(matrix).apply_power(v, 0.5),
    "least_squares": lambda scores, targets: (
        ff.ScoreFisher(scores).least_squares(targets, solver=ff.QR()).value
    ),
    "cramer_rao_bound": lambda matrix: np.array(ff.cramer_rao_bound(matrix)),
    "kl_quadratic": lambda matrix, g: np.array(ff.kl_quadratic(matrix, g)),
}
TABLE: list[tuple[str, Any, tuple[Any, ...]]] = [
    (name, call, oracle.EVERY) for name, call in EVERY.items()
]
TABLE += [(name, call, oracle.DTYPES) for name, call in REAL.items()]


def names_of(call: Callable[..., np.ndarray | tuple[np.ndarray, ...]]) -> tuple[str, ...]:
    inner = call.__code__
    return inner.co_varnames[: inner.co_argcount]


def layouts(array: np.ndarray, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (name, the same numbers in other memory)."""
    yield "fortran", np.asfortranarray(array)
    wide = np.zeros([2 * size + 1 for size in array.shape], array.dtype)
    where = tuple(slice(0, 2 * size, 2) for size in array.shape)
    wide[where] = array
    yield "strided", wide[where]
    back = (slice(None, None, -1),) * array.ndim
    yield "negative", np.ascontiguousarray(array[back])[back]
    fixed = array.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed
    yield "byte-swapped", array.astype(array.dtype.newbyteorder())
    raw = np.zeros(array.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(array.dtype).reshape(array.shape)
    misaligned[...] = array
    yield "misaligned", misaligned
    field = np.zeros(len(array), [("flag", "i1"), ("x", array.dtype, array.shape[1:])])["x"]
    field[...] = array
    yield "field of a structure", field
    mapped = np.memmap(path, array.dtype, "w+", shape=array.shape)
    mapped[...] = array
    yield "memory-mapped", mapped
    yield "nested lists", array.tolist()
    if array.dtype.kind in "fc":
        yield "transposed twice", np.moveaxis(np.moveaxis(array, 0, -1).copy(), -1, 0)


def parts(result: np.ndarray | Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize(("name", "call", "dtypes"), TABLE, ids=[row[0] for row in TABLE])
def test_every_layout_of_every_argument(
    name: str,
    call: Callable[..., np.ndarray | tuple[np.ndarray, ...]],
    dtypes: Sequence[type[np.inexact]],
    tmp_path: Path,
) -> None:
    for dtype in dtypes:
        given = {key: arrays(dtype)[key] for key in names_of(call)}
        expected = parts(call(**given))
        for key, array in given.items():
            for layout, held in layouts(array, tmp_path / "mapped"):
                if layout == "nested lists" and np.dtype(dtype) not in (np.float64, np.complex128):
                    continue  # Python's numbers are of double precision
                before = np.array(held)
                found = parts(call(**given | {key: held}))
                for one, two in zip(found, expected, strict=True):
                    scale = 300 * max(np.abs(two).max(), 1.0)
                    oracle.close(one, two, dtype, N, scale)
                    assert one.dtype == two.dtype, (key, layout)
                assert np.array_equal(np.array(held), before), (key, layout)
                assert type(one) is type(two), (key, layout)
        again = parts(call(**given))
        assert all(map(np.array_equal, again, expected)), "the arguments changed"


@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_rows_and_columns_of_stride_zero(dtype: type[np.inexact]) -> None:
    row, column = oracle.draw(1, P, dtype), oracle.draw(N, 1, dtype)
    for S in (np.broadcast_to(row, (N, P)), np.broadcast_to(column, (N, P))):
        call: Callable[..., Any]
        for call in (
            ff.empirical_fisher,
            ff.fisher_diagonal,
            ff.gram,
            lambda s: ff.fvp(s, np.broadcast_to(row[0, 0], P)),
            lambda s: ff.natural_gradient(s, damping=0.5),
            lambda s: ff.SquareRootFisher.from_scores(s).to_dense(),
            lambda s: ff.ScoreFisher(s).solve(np.broadcast_to(row[0], (P,)), damping=0.5),
        ):
            oracle.close(call(S), call(S.copy()), dtype, 20 * N, np.abs(S).max() ** 2 * N + 1)
    same = ff.empirical_fisher(oracle.draw(N, P, dtype), weights=np.broadcast_to(2.0, N))
    oracle.close(same, oracle.fisher(oracle.draw(N, P, dtype)), dtype, N)


# ---- refusals ----
WRONG: dict[str, Callable[..., Any]] = {
    "objects": lambda x: x.astype(object),
    "strings": lambda x: x.astype(str),
    "dates": lambda x: np.zeros(x.shape, "M8[s]"),
    "structures": lambda x: np.zeros(x.shape, [("a", float), ("b", float)]),
    "bytes": lambda x: np.zeros(x.shape, "V3"),
    "nothing": lambda x: np.full(x.shape, None),
}


@pytest.mark.parametrize(("name", "call", "dtypes"), TABLE, ids=[row[0] for row in TABLE])
def test_what_holds_no_numbers_is_refused_by_name(
    name: str,
    call: Callable[..., np.ndarray | tuple[np.ndarray, ...]],
    dtypes: Sequence[type[np.inexact]],
) -> None:
    given = {key: arrays()[key] for key in names_of(call)}
    for key, array in given.items():
        if key == "labels":  # of clusters: strings and dates are as good as numbers
            continue
        for make in WRONG.values():
            with pytest.raises((TypeError, ValueError), match=r"^[\w\[\]. ]+: expected .*, got"):
                call(**given | {key: make(array)})
    assert all(np.array_equal(given[key], arrays()[key]) for key in given)


def test_truth_values_are_no_scores() -> None:
    for call in (ff.empirical_fisher, ff.gram, ff.DenseFisher.from_scores, ff.ScoreFisher):
        for dtype in (bool, int, np.uint8):
            with pytest.raises(TypeError, match=r"scores: expected .* got (bool|u?int)"):
                call(np.ones((N, P), dtype))


@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_an_output_that_will_not_do(dtype: type[np.inexact]) -> None:
    raw = np.zeros(2000, dtype)
    S = raw[: N * P].reshape(N, P)
    S[...] = oracle.draw(N, P, dtype)
    w = np.ones(N, S.real.dtype)
    kept = S.copy()
    fixed = np.zeros((P, P), dtype)
    fixed.flags.writeable = False
    bad = {
        "overlaps": raw[N * P - 1 :][: P * P].reshape(P, P),
        "aligned": np.zeros(P * P * S.itemsize + 1, np.uint8)[1:].view(dtype).reshape(P, P),
        "writable": fixed,
        "shape": np.zeros((P, P + 1), dtype),
        "dtype": np.zeros((P, P), np.dtype(dtype).newbyteorder()),
        "NumPy array": [[0.0]],
    }
    for word, out in bad.items():
        with pytest.raises((TypeError, ValueError), match=f"out: expected .*{word}"):
            ff.empirical_fisher(S, weights=w, out=out)
    assert np.array_equal(S, kept)
    for good in (
        raw[500:][: P * P].reshape(P, P),
        raw[900:][: P * P].reshape(P, P).T,
        raw[1000:1100:4].reshape(P, P),
    ):
        assert ff.empirical_fisher(S, weights=w, out=good) is good
        oracle.close(good, oracle.fisher(S), dtype, N)
    assert np.array_equal(S, kept)


# ---- no samples, no columns ----
@pytest.mark.parametrize("dtype", oracle.EVERY)
def test_sizes_of_zero(dtype: type[np.inexact]) -> None:
    none, empty = np.zeros((0, P), dtype), np.zeros((P, 0), dtype)
    S = oracle.draw(N, P, dtype)
    assert not ff.empirical_fisher(none, reduction="sum").any()
    assert ff.gram(none, reduction="sum").shape == (0, 0)
    assert ff.fvp(S, empty).shape == (P, 0)
    for solver in (ff.Cholesky(), ff.CG(), ff.QR(), ff.Eigh()):
        assert ff.ScoreFisher(S).solve(empty, damping=1.0, solver=solver).shape == (P, 0)
    assert ff.ScoreFisher(S[:2]).solve(empty, damping=1.0).shape == (P, 0)
    for kind in (ff.DenseFisher, ff.DiagonalFisher, ff.SquareRootFisher):
        F = kind(P, dtype=dtype, reduction="sum").update(none)
        assert not F.to_dense().any()
        assert F.n_samples == 0
    if np.dtype(dtype).kind == "f":
        assert ff.batch.solve(np.zeros((0, P, P), dtype), np.zeros((0, P), dtype)).value.size == 0
        assert ff.batch.empirical_fisher(np.zeros((0, 3, P), dtype)).shape == (0, P, P)


# ---- the ends of the range ----
def scaled(dtype: type[Any]) -> tuple[int, int, int, int, int, int]:
    """Return powers of two: scores of about 1e±150 or 1e±19, just outside, and subnormal ones."""
    return (-1070, -560, -498, 498, 508, 1020) if dtype(0).real.dtype == "d" else (
        -145, -76, -63, 61, 63, 125
    )  # fmt: skip


SUMS: dict[str, Callable[..., Any]] = {
    "empirical_fisher": lambda S: ff.empirical_fisher(S, center=True),
    "fisher_diagonal": ff.fisher_diagonal,
    "gram": ff.gram,
    "fvp": lambda S: ff.fvp(S, np.ones(P, S.dtype)),
    "SquareRootFisher": lambda S: ff.SquareRootFisher.from_scores(S).to_dense(),
    "BlockDiagonalFisher": lambda S: ff.BlockDiagonalFisher.from_scores(S, [2, 3]).to_dense(),
    "ScoreFisher": lambda S: ff.ScoreFisher(S).to_dense(),
}


@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize("name", SUMS)
def test_sums_at_the_ends_are_right_or_named(name: str, dtype: type[np.floating]) -> None:
    S, info = oracle.draw(N, P, dtype), np.finfo(dtype)
    expected, seen = SUMS[name](S), []
    for power in scaled(dtype):
        T = np.ldexp(S.real, power).astype(S.real.dtype)
        if S.dtype.kind == "c":
            T = (T + 1j * np.ldexp(S.imag, power)).astype(dtype)
        try:
            found = SUMS[name](T)
        except ff.NonFiniteError:
            assert power > 0
            seen.append("named")
            continue
        assert np.isfinite(found).all(), power
        exact = expected.astype(np.clongdouble) * np.longdouble(2.0) ** (2 * power)
        # Products below the normal numbers lose what lies beneath the smallest one.
        allowed = 40 * N * float(info.eps) * np.abs(exact).max() + 40 * N * float(info.tiny)
        assert np.abs(found - exact).max() <= allowed, power
        seen.append("right")
    assert seen[-1] == "named"
    assert seen[:2] == ["right", "right"]


@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize(
    "solver",
    [ff.Cholesky(), ff.Cholesky("mixed"), ff.QR(), ff.Dual(), ff.CG(), ff.Eigh()],
    ids=repr,
)
def test_solutions_at_the_ends_are_right_or_named(solver: Any, dtype: type[Any]) -> None:
    n = P - 2 if isinstance(solver, ff.Dual) else N
    S = oracle.draw(n, P, dtype)
    g = oracle.draw(P, 1, dtype)[:, 0]
    expected = ff.natural_gradient(S, g, damping=0.5, solver=ff.Cholesky())
    right = named = 0
    for power in (*scaled(dtype), -20, 20):
        T = np.ldexp(S.real, power).astype(S.real.dtype)
        if S.dtype.kind == "c":
            T = (T + 1j * np.ldexp(S.imag, power)).astype(dtype)
        with np.errstate(under="ignore", over="ignore"):
            damping = float(np.ldexp(0.5, 2 * power))
        try:
            x = ff.natural_gradient(T, g, damping=damping, solver=solver)
        except (ff.FisherError, ValueError):
            named += 1
            continue
        assert np.isfinite(x).all(), power
        exact = expected.astype(np.clongdouble) * np.longdouble(2.0) ** (-2 * power)
        info = np.finfo(dtype)
        allowed = 1e4 * float(info.eps) * np.abs(exact).max() + 4 * float(info.smallest_subnormal)
        assert np.abs(x - exact).max() <= allowed, power
        right += 1
    assert right >= 2
    assert named <= len(scaled(dtype))


@pytest.mark.parametrize("dtype", oracle.EVERY)
@pytest.mark.parametrize(
    "solver", [ff.Cholesky(), ff.QR(), ff.QR(rank_revealing=True), ff.CG(), ff.Eigh()], ids=repr
)
def test_mean_scores_solved_at_the_ends_are_right_or_named(solver: Any, dtype: type[Any]) -> None:
    S, seen = oracle.draw(N, P, dtype), []
    for power in (*scaled(dtype), -20, 20):
        with np.errstate(under="ignore"):
            T = np.ldexp(S.real, power).astype(S.real.dtype)
            if S.dtype.kind == "c":
                T = (T + 1j * np.ldexp(S.imag, power)).astype(dtype)
        try:
            x = ff.natural_gradient(T, damping=0.0, solver=solver)
        except ff.FisherError:
            seen.append("named")
            continue
        # Of the numbers that were given, subnormal ones with the digits that they have left.
        given = np.ldexp(oracle.wide(T).view(float), -power).view(oracle.wide(T).dtype)
        exact = np.linalg.solve(oracle.fisher(given), given.mean(axis=0).conj())
        error = np.abs(x - exact.astype(np.clongdouble) * np.longdouble(2.0) ** -power).max()
        info = np.finfo(dtype)
        allowed = 1e4 * float(info.eps) * np.abs(exact).max() * np.longdouble(2.0) ** -power
        assert error <= allowed + 4 * float(info.smallest_subnormal), power
        seen.append("right")
    assert seen[-2:] == ["right", "right"]
    if isinstance(solver, ff.QR):  # which forms no squares: up to where a solution has no place
        assert seen[1:3] == ["right", "right"]
