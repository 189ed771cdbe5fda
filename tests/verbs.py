"""A call for everything that computes, so that one table can ask for its bits again and again."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

import fastfisher as ff
import network
import oracle
from fastfisher.fisher.accumulator import Accumulator
from fastfisher.fisher.factor import Factor

# Made once: NumPy's own products may have other bits on other threads of BLAS.
scores: Callable[..., np.ndarray] = cache(oracle.draw)
layers: Callable[..., list[Any]] = cache(network.draw)


@cache
def matrix(p: int, dtype: type[Any]) -> np.ndarray:
    return oracle.fisher(oracle.draw(2 * p, p, dtype)).astype(dtype)


def calls(dtype: Any, S: np.ndarray | None = None) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield (name, function without arguments): sums, products, factors, solves, statistics.

    Each follows the default number of threads. `S` stands in for the scores (700, 150).
    """
    S = scores(700, 150, dtype) if S is None else S
    wide, w = scores(60, 400, dtype), np.linspace(0.5, 2.0, 700)
    real = np.dtype(dtype).kind != "c"
    b = np.ascontiguousarray(scores(3, 150, dtype).T)
    B = np.ascontiguousarray(scores(2, 400, dtype).T)
    square = matrix(150, dtype)
    for center in (False, True):
        some: dict[str, Any] = {"weights": w, "center": center}
        yield "empirical_fisher", lambda some=some: ff.empirical_fisher(S, **some)
        yield "fisher_diagonal", lambda some=some: ff.fisher_diagonal(S, **some)
        yield "gram", lambda some=some: ff.gram(S, **some)
        yield "fvp", lambda some=some: ff.fvp(S, b, damping=0.1, **some)
        yield "natural_gradient", lambda some=some: ff.natural_gradient(S, damping=0.1, **some)
    if real:
        yield "strassen", lambda: ff.empirical_fisher(S, algorithm="strassen")
        yield "half", lambda: ff.empirical_fisher(S.astype(np.float16))

    sizes = [40] * 3 + [30]
    many = [2] * 75
    made: dict[str, Callable[[], Any]] = {
        "dense": lambda: ff.DenseFisher.from_scores(S, weights=w),
        "centred": lambda: ff.DenseFisher.from_scores(S, center=True),
        "matrix": lambda: ff.DenseFisher.from_matrix(square),
        "diagonal": lambda: ff.DiagonalFisher.from_scores(S, weights=w),
        "blocks": lambda: ff.BlockDiagonalFisher.from_scores(S, sizes),
        "many blocks": lambda: ff.BlockDiagonalFisher.from_scores(S, many),
        "chain": lambda: ff.BlockDiagonalFisher.from_scores(S, sizes, tridiagonal=True),
        "root": lambda: ff.SquareRootFisher.from_scores(S, weights=w),
        "scores": lambda: ff.ScoreFisher(S, weights=w),
    }
    for name, make in made.items():
        yield f"{name}: @", lambda make=make: make() @ b
        yield f"{name}: diagonal", lambda make=make: make().diagonal()
        yield f"{name}: to_dense", lambda make=make: make().to_dense()
        yield f"{name}: quadratic_form", lambda make=make: make().quadratic_form(b)
        yield f"{name}: factor", lambda make=make: of_factor(make().factor(damping=0.5), b)
        yield f"{name}: leverage", lambda make=make: make().leverage(S[:50], 0.5)
        yield f"{name}: CG", lambda make=make: make().solve(b, damping=0.5, solver=LOOSE)
        yield (
            f"{name}: path by CG",
            lambda make=make: make().solve_path(b, [0.5, 2.0], solver=LOOSE).value,
        )
        yield f"{name}: CG, any product", lambda make=make: cg_of_products(make(), b)
        if name != "scores":
            yield f"{name}: merge, decay", lambda make=make: merged(make).to_dense()
        yield (
            f"{name}: effective_dimension",
            lambda make=make: np.array(make().effective_dimension(0.5)),
        )

    def centred_blocks() -> ff.BlockDiagonalFisher:
        first, last = (
            ff.BlockDiagonalFisher.from_scores(rows, sizes, center=True)
            for rows in (S[:300], S[300:])
        )
        return first.merge(last)

    yield "centred blocks: merge", lambda: centred_blocks().to_dense()
    yield "low rank: update", lambda: ff.LowRankFisher.from_scores(S[:60], 8).to_dense()

    solvers = {
        "Cholesky": ff.Cholesky(),
        "mixed": ff.Cholesky(precision="mixed"),
        "QR": ff.QR(),
        "CG, Jacobi": ff.CG(rtol=1e-3),
        "CG, block Jacobi": ff.CG(rtol=1e-3, preconditioner=ff.BlockJacobi()),
    }
    for name, solver in solvers.items():
        yield name, lambda s=solver: ff.ScoreFisher(S).solve(b, damping=0.5, solver=s)
        if name.startswith("CG"):
            yield f"{name}, dense", lambda s=solver: made["dense"]().solve(b, damping=0.5, solver=s)
    short = ff.ScoreFisher(wide, weights=w[:60])
    yield "dual", lambda: ff.ScoreFisher(wide).solve(B, damping=0.5, solver=ff.Dual())
    yield "dual: mean", lambda: ff.natural_gradient(wide, damping=0.5, center=True)
    yield "dual: path", lambda: short.solve_path(B, [0.5, 1.0], solver=ff.Dual()).value
    yield "dual: factor", lambda: of_factor(short.factor(damping=0.5), B)
    yield "dual: vector damping", lambda: short.solve(B, damping=np.linspace(0.1, 1, 400))
    yield "least squares", lambda: ff.ScoreFisher(S).least_squares(S[:, 0], solver=ff.QR()).value
    if not real:
        return

    yield "sandwich", lambda: ff.sandwich_covariance(square, S, clusters=np.arange(700) // 7)
    yield "opg", lambda: ff.opg_covariance(S, weights=w)
    yield "score_test", lambda: np.array(ff.score_test(S, df=150).statistic)
    images = layers(150, dtype)
    yield "layers", lambda: of_factor(ff.LayerFisher(images[:3]).factor(damping=0.5), None)
    whole = ff.LayerFisher(images)
    v = oracle.draw(1, whole.shape[0], dtype)[0]
    yield "layers: @", lambda: whole @ v
    yield "layers: diagonal", lambda: ff.LayerFisher(images, center=True).diagonal()
    yield "layers: mean_score", lambda: flattened(whole.mean_score())
    yield "layers: gram", lambda: ff.LayerFisher(images).gram()
    yield "layers: to_dense", lambda: ff.LayerFisher(images, weights=w[:150]).to_dense()
    layerwise: tuple[tuple[str, list[Any], dict[str, Any]], ...] = (
        ("plain", images, {}),
        ("reduced", images, {"weight_sharing": "reduce"}),
        ("chain", images[:2], {"tridiagonal": True}),
    )
    for name, layered, options in layerwise:
        K = partial(ff.KroneckerFisher.from_layers, layered, **options)
        yield f"Kronecker {name}: factors", lambda K=K: [x for pair in K().factors for x in pair]
        yield (
            f"Kronecker {name}: factored damping",
            lambda K=K: of_factor(K().factor(damping=0.5, damping_mode="factored"), None),
        )

    items = S[:, :48].reshape(-1, 10, 48)
    F = ff.batch.empirical_fisher(items)
    yield "batch.empirical_fisher", lambda: ff.batch.empirical_fisher(items, center=True)
    yield "batch.solve", lambda: ff.batch.solve(F, items[:, 0], damping=1.0).value
    for verb in (ff.batch.inverse, ff.batch.inverse_diagonal, ff.batch.logdet):
        yield f"batch.{verb.__name__}", lambda verb=verb: verb(F, damping=1.0).value
    few = ff.batch.Scores(items[:9, :, :6].astype(np.float64))
    yield "batch, extended", lambda: ff.batch.inverse(few, precision="extended", damping=1.0).value


LOOSE = ff.CG(rtol=1e-3, preconditioner=None)


def flattened(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [weight.ravel() for weight in weights]


def of_factor(factor: Factor, b: np.ndarray | None) -> list[np.ndarray]:
    if b is None:
        b = np.ones((factor.shape[0], 2), factor._dtype)
    return [
        factor.solve(b),
        factor.inverse_diagonal(),
        factor.sample(0, 3),
        factor.inverse(),
        np.array([factor.logdet, factor.rcond]),
    ]


def cg_of_products(F: ff.Fisher, b: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.solve(Products(F), b, damping=0.5, solver=LOOSE).value
    return answer


class Products:
    """What has a shape, a dtype and products alone."""

    def __init__(self, F: ff.Fisher) -> None:
        self.F, self.shape, self.dtype = F, F.shape, F.dtype

    def __matmul__(self, v: np.ndarray) -> np.ndarray:
        answer: np.ndarray = self.F @ v
        return answer


def merged(make: Callable[[], Accumulator]) -> Accumulator:
    return make().decay(0.5).merge(make())


def of_blas(dtype: type[Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield what goes through NumPy's products and LAPACK: on other threads of BLAS, other bits."""
    S = scores(700, 150, dtype)
    b = np.ascontiguousarray(scores(3, 150, dtype).T)
    F = ff.DenseFisher.from_scores(S)
    yield "Eigh", lambda: F.solve(b, damping=0.5, solver=ff.Eigh())
    yield "apply_power", lambda: F.apply_power(b, -0.5, damping=0.5)
    yield "eigsh", lambda: F.eigsh(3)[0]
    yield "low rank", lambda: ff.LowRankFisher.from_scores(S, 12).to_dense()
    yield "Nystrom", lambda: F.solve(b, damping=0.5, solver=ff.CG(preconditioner=ff.Nystrom(9)))
    revealing = ff.QR(rank_revealing=True)
    yield "rank-revealing QR", lambda: ff.ScoreFisher(S).solve(b, damping=0.5, solver=revealing)
