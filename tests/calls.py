"""Every public function as one call, once with what it wants and once with what it refuses."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import everything
import fastfisher as ff
import kronecker
import network

THREADS = 8  # more than there are stacks of former threads to take over
LAYER_SHAPES = ((30, 40), (20, 30))


class Inputs:
    """What the calls are given, of a size that is worth some threads and some megabytes."""

    def __init__(self, n: int = 2000, p: int = 300) -> None:
        self.p = p
        self.S = everything.draw(n, p)
        self.wide = everything.draw(p, n)
        self.w = np.linspace(0.5, 2.0, n)
        self.v = np.linspace(1.0, 2.0, p)
        self.items = everything.draw(n, 60).reshape(-1, 10, 60)
        self.few = ff.batch.Scores(np.ascontiguousarray(self.items[:, :, :6]))
        self.F = ff.DenseFisher.from_scores(self.S)
        self.matrix = self.F.to_dense()
        self.stack = ff.batch.empirical_fisher(self.items[:, :, :20])
        self.held = ff.ScoreFisher(self.wide)
        self.factor = self.F.factor(damping=1.0)
        self.layers = kronecker.draw(50, LAYER_SHAPES, np.float64)
        self.network = network.draw(60, np.float64)[:2]
        self.bad = self.S.copy()
        self.bad[-1, -1] = np.nan
        self.singular = -np.eye(p)
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "f.npz")
        self.F.save(self.path)
        self.damaged = Path(self.folder.name, "damaged.npz")
        self.damaged.write_bytes(self.path.read_bytes()[:-50])


def save(fisher: Any, path: Any) -> Any:
    fisher.save(path)
    return ff.load(path)


BLOCKS = [40, 10, 50]
KINDS: dict[str, Callable[..., Any]] = {
    "dense": lambda i: ff.DenseFisher.from_scores(i.S, center=True),
    "diagonal": lambda i: ff.DiagonalFisher.from_scores(i.S, weights=i.w),
    "root": lambda i: ff.SquareRootFisher.from_scores(i.S),
    "blocks": lambda i: ff.BlockDiagonalFisher.from_scores(i.S[:, :100], BLOCKS, tridiagonal=True),
    "low rank": lambda i: ff.LowRankFisher.from_scores(i.S, 20),
    "kfac": lambda i: ff.KroneckerFisher.from_layers(i.layers),
    "ekfac": lambda i: ff.KroneckerFisher.from_layers(i.layers, eigen=True),
    "scores": lambda i: ff.ScoreFisher(i.wide),
    "layers": lambda i: ff.LayerFisher(i.network),
}


def verbs(F: Any) -> Any:
    """Use a representation in every way that takes no special argument."""
    v = np.ones(F.shape[0])
    return (
        F @ v, F.diagonal(), F.trace(), F.quadratic_form(v), F.solve(v, damping=1.0),
        F.logdet(1.0), F.effective_dimension(1.0),
        ff.solve(F, v, damping=1.0, solver=ff.CG(max_iterations=10, allow_truncated=True)),
    )  # fmt: skip


CALLS: dict[str, Callable[[Any], Any]] = {
    "empirical_fisher": lambda i: ff.empirical_fisher(
        i.S, weights=i.w, center=True, n_threads=THREADS
    ),
    "empirical_fisher f16": lambda i: ff.empirical_fisher(
        i.S.astype(np.float16), n_threads=THREADS
    ),
    "empirical_fisher complex": lambda i: ff.empirical_fisher(i.S + 1j * i.S, n_threads=THREADS),
    "fisher_diagonal": lambda i: ff.fisher_diagonal(i.S, center=True, n_threads=THREADS),
    "gram": lambda i: ff.gram(i.S, n_threads=THREADS),
    "fvp": lambda i: ff.fvp(i.S, i.S[:7].T, damping=1.0, n_threads=THREADS),
    "natural_gradient": lambda i: ff.natural_gradient(i.S, damping=1.0, n_threads=THREADS),
    "dual": lambda i: ff.natural_gradient(i.wide, damping=1.0, n_threads=THREADS),
    "qr": lambda i: ff.natural_gradient(i.S, damping=1.0, solver=ff.QR(), n_threads=THREADS),
    "cg": lambda i: ff.natural_gradient(i.S, i.v, damping=1.0, solver=ff.CG(), n_threads=THREADS),
    "solve": lambda i: ff.solve(i.matrix, i.v, damping=1.0, n_threads=THREADS),
    "solve mixed": lambda i: ff.solve(i.matrix, i.v, damping=1.0, solver=ff.Cholesky("mixed")),
    "solve eigh": lambda i: ff.solve(i.matrix, i.v, solver=ff.Eigh()),
    "solve_path": lambda i: ff.solve_path(i.matrix, i.v, [0.5, 1.0, 2.0], n_threads=THREADS),
    "inverse": lambda i: (i.factor.inverse(), i.factor.inverse_diagonal(), i.factor.sample(0, 3)),
    "batch fisher": lambda i: ff.batch.empirical_fisher(i.items, n_threads=THREADS),
    "batch solve": lambda i: ff.batch.solve(
        i.stack, i.items[:, 0, :20], damping=1.0, n_threads=THREADS
    ),
    "batch inverse": lambda i: ff.batch.inverse(i.stack, damping=1.0, n_threads=THREADS),
    "batch extended": lambda i: ff.batch.inverse(i.few, damping=1.0, precision="extended"),
    "stream": lambda i: ff.DenseFisher(i.p).update_from(
        ff.chunks(i.S, rows=700), n_threads=THREADS
    ),
    "leverage": lambda i: i.F.leverage(i.S, 1.0),
    "eigsh": lambda i: (i.F.eigsh(3), i.F.apply_power(i.v, -0.5, damping=1.0)),
    "merge": lambda i: (i.F + i.F).decay(0.5),
    "nystrom": lambda i: ff.LowRankFisher.from_fisher(i.F, 20),
    "cramer_rao_bound": lambda i: ff.cramer_rao_bound(i.F),
    "sandwich_covariance": lambda i: ff.sandwich_covariance(i.matrix, i.S),
    "files": lambda i: save(i.F, i.path.with_name("g.npz")),
    **{name: partial(lambda make, i: verbs(make(i)), make) for name, make in KINDS.items()},
}

REFUSED: dict[str, Callable[..., Any]] = {
    "empirical_fisher": lambda i: ff.empirical_fisher(i.bad),
    "empirical_fisher list": lambda i: ff.empirical_fisher("no scores"),
    "fisher_diagonal": lambda i: ff.fisher_diagonal(i.bad),
    "gram": lambda i: ff.gram(i.bad),
    "fvp": lambda i: ff.fvp(i.bad, i.v),
    "natural_gradient": lambda i: ff.natural_gradient(i.bad, damping=1.0),
    "dual": lambda i: ff.natural_gradient(i.wide, damping=0.0),
    "qr": lambda i: ff.natural_gradient(i.bad, damping=1.0, solver=ff.QR()),
    "cg": lambda i: ff.solve(i.F, i.v, solver=ff.CG(max_iterations=1)),
    "solve": lambda i: ff.solve(i.singular, i.v),
    "solve_path": lambda i: ff.solve_path(i.singular, i.v, [0.0, 0.5]),
    "batch solve": lambda i: ff.batch.solve(-i.stack, i.items[:, 0, :20]),
    "batch extended": lambda i: ff.batch.inverse(-i.stack[:9, :6, :6], precision="extended"),
    "update": lambda i: i.F.update(i.bad),
    "fresh update": lambda i: ff.SquareRootFisher(i.p).update(i.bad),
    "blocks": lambda i: ff.BlockDiagonalFisher(BLOCKS).update(i.bad[:, -100:]),
    "low rank": lambda i: ff.LowRankFisher(i.p, 20).update(i.bad),
    "kfac": lambda i: ff.KroneckerFisher([(30, 40), (20, 30)]).update(i.network),
    "merge": lambda i: i.F.merge(ff.DenseFisher(2)),
    "stream": lambda i: ff.DenseFisher(i.p).update_from(iter([i.S, i.bad])),
    "size": lambda i: ff.DenseFisher(10**7),
    "load": lambda i: ff.load(i.damaged),
    "save": lambda i: i.F.save(i.folder.name),
    "sandwich_covariance": lambda i: ff.sandwich_covariance(i.singular, i.bad),
}
