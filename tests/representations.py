"""Every representation with its explicit matrix, so that one table of tests serves them all."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import fastfisher as ff
import kronecker
import network
import oracle


def as_it_is(array: np.ndarray) -> np.ndarray:
    return array


def cases(
    dtype: npt.DTypeLike = np.float64,
    to: Callable[[np.ndarray], Any] = as_it_is,
) -> Iterator[tuple[str, ff.Fisher, np.ndarray, np.ndarray]]:
    """Yield (name, representation, explicit matrix in double precision, the scores).

    `to` turns NumPy's arrays into those that the representation is made of.
    """
    for n, p in ((60, 13), (9, 26)):
        S = oracle.draw(n, p, dtype)
        weights = oracle.draw_weights(n)
        rows = to(S)
        for center in (False, True):
            for reduction in ("mean", "sum"):
                keywords: dict[str, Any] = {
                    "weights": weights,
                    "center": center,
                    "reduction": reduction,
                }
                F = oracle.fisher(S, **keywords)
                keywords["weights"] = to(weights)
                tail = f"{n}x{p}-{'centred' if center else 'plain'}-{reduction}"
                yield f"dense-{tail}", ff.DenseFisher.from_scores(rows, **keywords), F, S
                diagonal = ff.DiagonalFisher.from_scores(rows, **keywords)
                yield f"diagonal-{tail}", diagonal, np.diag(np.diag(F)), S
                root = ff.SquareRootFisher.from_scores(rows, **keywords)
                yield f"root-{tail}", root, F, S
                # Two neighbouring blocks are all of F. Of three, the masked matrix is positive
                # definite where samples are many.
                for sizes, tridiagonal in (
                    ((p - 9, 2, 7), False),
                    ((5, p - 5), True),
                    ((6, 4, p - 10), n > p),
                ):
                    blocks = ff.BlockDiagonalFisher.from_scores(
                        rows, sizes, tridiagonal=tridiagonal, **keywords
                    )
                    name = f"{'tridiagonal' if tridiagonal else 'blocks'}{len(sizes)}-{tail}"
                    yield name, blocks, oracle.masked(F, sizes, tridiagonal), S
                yield f"score-{tail}", ff.ScoreFisher(rows, **keywords), F, S
                exact = ff.LowRankFisher.from_scores(rows, min(n, p), **keywords)
                yield f"low-rank-{tail}", exact, F, S
                truncated = ff.LowRankFisher.from_scores(rows, 2, **keywords)
                total = oracle.total(S, weights, reduction)
                U = oracle.rooted(S, weights, center)
                yield f"truncated-{tail}", truncated, frequent_directions(U, 2) / total, S
    if np.dtype(dtype).kind != "c":
        yield from of_layers(dtype, to)
        yield from of_networks(dtype, to)


def of_networks(
    dtype: npt.DTypeLike,
    to: Callable[[np.ndarray], Any] = as_it_is,
) -> Iterator[tuple[str, ff.LayerFisher, np.ndarray, np.ndarray]]:
    """Yield the cases of a whole network, with more samples than parameters and with fewer."""
    for n, some in ((60, slice(2)), (9, slice(1, 4))):
        layers = network.draw(n, dtype)[some]
        S, weights = network.scores(layers), oracle.draw_weights(n)
        for center in (False, True):
            for reduction in ("mean", "sum"):
                keywords: dict[str, Any] = {
                    "weights": weights,
                    "center": center,
                    "reduction": reduction,
                }
                tail = f"{n}-{'centred' if center else 'plain'}-{reduction}"
                F = oracle.fisher(S, **keywords)
                keywords["weights"] = to(weights)
                fisher = ff.LayerFisher(network.moved(layers, to), **keywords)
                yield f"layer-{tail}", fisher, F, S.astype(dtype)


def of_layers(
    dtype: npt.DTypeLike,
    to: Callable[[np.ndarray], Any] = as_it_is,
) -> Iterator[tuple[str, ff.KroneckerFisher, np.ndarray, np.ndarray]]:
    """Yield the cases of two layers; their scores are the per-sample gradients."""
    for n, shapes in ((60, ((3, 4), (2, 3))), (9, ((1, 5), (4, 2)))):
        layers = kronecker.draw(n, shapes, dtype)
        weights, S = oracle.draw_weights(n), kronecker.scores(layers)
        for reduction in ("mean", "sum"):
            keywords: dict[str, Any] = {"weights": weights, "reduction": reduction}
            for name, define in kronecker.DEFINITIONS.items():
                options = {} if name == "kfac" else {name: True}
                F = define(layers, **keywords)
                fisher = ff.KroneckerFisher.from_layers(
                    network.moved(layers, to), **(keywords | options | {"weights": to(weights)})
                )
                yield f"{name}-{n}-{reduction}", fisher, F, S


def streams(
    dtype: npt.DTypeLike = np.float64,
    to: Callable[[np.ndarray], Any] = as_it_is,
) -> Iterator[tuple[str, Any, Callable[..., Any]]]:
    """Yield (name, empty representation, what to update with for some of 60 samples).

    Of those named "approximate" a merge keeps the trace alone.
    """
    S, weights = to(oracle.draw(60, 13, dtype)), to(oracle.draw_weights(60))
    empty: dict[str, Callable[..., Any]] = {
        "dense": lambda **k: ff.DenseFisher(13, **k),
        "diagonal": lambda **k: ff.DiagonalFisher(13, **k),
        "blocks": lambda **k: ff.BlockDiagonalFisher([6, 4, 3], **k),
        "tridiagonal": lambda **k: ff.BlockDiagonalFisher([6, 4, 3], tridiagonal=True, **k),
        "root": lambda **k: ff.SquareRootFisher(13, **k),
        "low-rank": lambda **k: ff.LowRankFisher(13, 13, **k),
        "approximate-low-rank": lambda **k: ff.LowRankFisher(13, 3, **k),
    }
    for center in (False, True):
        for name, make in empty.items():
            tail = "centred" if center else "plain"
            fisher: ff.Fisher = make(dtype=dtype, center=center, like=S)
            yield f"{name}-{tail}", fisher, lambda rows: (S[rows], weights[rows])
    if np.dtype(dtype).kind == "c":
        return
    shapes = ((3, 4), (2, 3))
    layers = network.moved(kronecker.draw(60, shapes, dtype), to)
    kinds: dict[str, dict[str, Any]] = {
        "kfac": {},
        "approximate-ekfac": {"eigen": True},
        "chain": {"tridiagonal": True},
    }
    for name, options in kinds.items():
        fisher = ff.KroneckerFisher(shapes, dtype=dtype, like=S, **options)
        yield name, fisher, lambda rows: ([(a[rows], g[rows]) for a, g in layers], weights[rows])


def frequent_directions(U: np.ndarray, rank: int) -> np.ndarray:
    """Return BᴴB + ρI of the sketch of these rows, by a singular value decomposition per shrink."""
    B, lost = U[:0], 0.0
    for row in U:
        if len(B) == 3 * rank:
            _, s, V = np.linalg.svd(B, full_matrices=False)
            kept = s[:rank] ** 2 - s[rank] ** 2
            lost += (s**2).sum() - kept.sum()
            B = np.sqrt(kept)[:, None] * V[:rank]
        B = np.vstack([B, row])
    answer: np.ndarray = B.conj().T @ B + lost / U.shape[1] * np.eye(U.shape[1])
    return answer
