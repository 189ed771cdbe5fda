"""Every public function on inputs large enough for several threads, as one dictionary of arrays.

Run as a script it prints a digest of all results for each number of threads that it is given.
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import fastfisher as ff

# Tall (row slabs), squarish (tiles), wide (the dual), and p past the order where Cholesky forks.
SHAPES = {"tall": (5000, 60), "tiles": (900, 430), "wide": (150, 1100)}


def draw(n: int, p: int, dtype: npt.DTypeLike = np.float64) -> np.ndarray:
    rng = np.random.default_rng([n, p])
    numbers = rng.standard_normal((n, p))
    if np.dtype(dtype).kind == "c":
        numbers = numbers + 1j * rng.standard_normal((n, p))
    return numbers.astype(dtype)


def functions(scores: Any, weights: Any, n_threads: int | None = None) -> Iterator[tuple[str, Any]]:
    """Yield (name, result) of what takes `n_threads`."""
    some: dict[str, Any] = {"weights": weights, "n_threads": n_threads}
    for center in (False, True):
        both: dict[str, Any] = {"center": center, **some}
        yield "empirical_fisher", ff.empirical_fisher(scores, **both)
        yield "fisher_diagonal", ff.fisher_diagonal(scores, **both)
        yield (
            "gram",
            ff.gram(scores[:900], weights=weights[:900], center=center, n_threads=n_threads),
        )
        for k in (1, 5):
            yield "fvp", ff.fvp(scores, scores[:k].T, damping=0.1, **both)
        yield "natural_gradient", ff.natural_gradient(scores, damping=0.1, **both)
    yield "qr", ff.natural_gradient(scores, damping=0.1, solver=ff.QR(), **some)
    cg = ff.CG(rtol=1e-6)
    yield "cg", ff.natural_gradient(scores, scores[:3].T, damping=1.0, solver=cg, **some)
    F = ff.DenseFisher.from_scores(scores, **some)
    matrix = F.to_dense()
    rhs = scores[:9].T
    for solver in ("auto", cg):
        solution = ff.solve(matrix, rhs, damping=1.0, solver=solver, n_threads=n_threads)
        yield "solve", solution.value
        yield "residual", np.array(solution.residual)
    for held in (F, ff.ScoreFisher(scores, weights=weights)):
        for along in (ff.Cholesky(), ff.CG(rtol=1e-6, preconditioner=None)):
            path = held.solve_path(rhs, [1.0, 3.0], solver=along, n_threads=n_threads)
            yield "solve_path", path.value
    path = ff.ScoreFisher(scores[:9]).solve_path(
        rhs, [1.0, 3.0], solver=ff.Dual(), n_threads=n_threads
    )
    yield "dual path", path.value
    yield "mixed", F.solve(rhs, damping=1.0, solver=ff.Cholesky("mixed"), n_threads=n_threads)
    blocks = ff.CG(rtol=1e-6, preconditioner=ff.BlockJacobi())
    yield "blocks", F.solve(rhs, damping=1.0, solver=blocks, n_threads=n_threads)
    low = ff.LowRankFisher.from_scores(scores[:200], 12, **{**some, "weights": weights[:200]})
    yield "low rank", low.solve(rhs, damping=1.0, n_threads=n_threads)
    yield "one right-hand side", F.solve(rhs[:, 0], damping=1.0, n_threads=n_threads)
    factor = F.factor(damping=1.0, n_threads=n_threads)
    yield "inverse", factor.inverse()
    yield "inverse_diagonal", factor.inverse_diagonal()
    yield "sample", factor.sample(0, 3)
    yield "logdet", np.array([factor.logdet, factor.rcond])


def batches(scores: np.ndarray, n_threads: int | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, result) of what takes a batch of (real) matrices."""
    items = scores[:, :48].reshape(-1, 10, 48)
    F = ff.batch.empirical_fisher(items, n_threads=n_threads)
    yield "batch.empirical_fisher", F
    some: dict[str, Any] = {"damping": 1.0, "n_threads": n_threads}
    yield "batch.solve", ff.batch.solve(F, items[:, 0], **some).value
    for verb in (ff.batch.inverse, ff.batch.inverse_diagonal, ff.batch.logdet):
        yield verb.__name__, verb(F, **some).value
    few = ff.batch.Scores(items[:, :, :6].astype(np.float64))
    yield "extended", ff.batch.inverse(few, precision="extended", **some).value


def methods(scores: Any, weights: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, result) of what follows the default number of threads."""
    params = scores.shape[1]
    sizes = [4] * (params // 8) + [params - 4 * (params // 8)]

    def blocks(scores: Any, **keywords: Any) -> ff.BlockDiagonalFisher:
        return ff.BlockDiagonalFisher.from_scores(scores, sizes, tridiagonal=True, **keywords)

    kinds = (ff.DenseFisher, ff.DiagonalFisher, ff.SquareRootFisher, ff.ScoreFisher)
    for kind in (*(kind.from_scores for kind in kinds), blocks):
        F = kind(scores, weights=weights, center=True)
        name = type(F).__name__
        yield f"{name} @", F @ scores[:3].T
        yield f"{name}.diagonal", F.diagonal()
        yield f"{name}.to_dense", F.to_dense()
        yield f"{name}.quadratic_form", F.quadratic_form(scores[:2].T)
        yield f"{name}.leverage", F.leverage(scores[:100], 0.5)
        yield f"{name}.logdet", np.array(F.logdet(0.5))


def results(
    n_threads: int | None = None,
    dtype: npt.DTypeLike = np.float64,
    shapes: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Return {name: array} of every public function, for all shapes or those named."""
    found = {}
    dtype = np.dtype(dtype)
    for shape in SHAPES if shapes is None else shapes:
        n, p = SHAPES[shape]
        scores = draw(n, p // 2 if dtype.kind == "c" else p, dtype)  # of the same real form
        weights = np.linspace(0.5, 2.0, n)
        for place, (name, value) in enumerate(functions(scores, weights, n_threads)):
            found[f"{dtype} {shape} {place} {name}"] = value
        if dtype.kind != "c":
            for name, value in batches(scores, n_threads):
                found[f"{dtype} {shape} {name}"] = value
        if n_threads is None:
            found |= {f"{dtype} {shape} {name}": value for name, value in methods(scores, weights)}
    return found


def digest(found: Any) -> Any:
    state = hashlib.sha256()
    for name, value in found.items():
        state.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return state.hexdigest()


if __name__ == "__main__":
    for n_threads in map(int, sys.argv[1:]):
        ff.set_num_threads(n_threads)
        found = results(shapes=("tiles",))
        print(ff.get_num_threads(), digest(found))
