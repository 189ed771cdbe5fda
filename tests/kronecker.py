"""Kronecker-factored Fishers as explicit matrices: each definition in a few lines of NumPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import oracle


def draw(
    n: int,
    shapes: Sequence[tuple[int, int]],
    dtype: npt.DTypeLike = np.float64,
    positions: int | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return layers (a, g) whose neighbours depend on each other, so that chains have links."""
    layers: list[Any]
    rng, layers = oracle.rng(n, len(shapes), *shapes[0]), []
    tail = () if positions is None else (positions,)
    for d_out, d_in in shapes:
        a, g = rng.standard_normal((n, d_in, *tail)), rng.standard_normal((n, d_out, *tail))
        if layers:
            a[:, :1] += layers[-1][0][:, -1:]
            g[:, -1:] -= layers[-1][1][:, :1]
        layers.append((a.astype(dtype), g.astype(dtype)))
    return layers


def unrolled(x: np.ndarray) -> np.ndarray:
    """Return (n, d) or (n, d, T) as (n, T, d) in float64."""
    x = oracle.wide(x)
    return x[:, None] if x.ndim == 2 else x.transpose(0, 2, 1)


def gradients(layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Return the per-sample gradients of each layer, (n, d_out, d_in)."""
    return [np.einsum("ito,itc->ioc", unrolled(g), unrolled(a)) for a, g in layers]


def scores(layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    rows = np.hstack([grads.reshape(len(grads), -1) for grads in gradients(layers)])
    return rows.astype(layers[0][0].dtype)


def factors(
    layers: Sequence[tuple[np.ndarray, np.ndarray]],
    weights: np.ndarray | None = None,
    sharing: str = "expand",
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (A, G) of each layer."""
    return [cross(one, one, weights, sharing) for one in layers]


def cross(
    one: tuple[np.ndarray, np.ndarray],
    two: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray | None = None,
    sharing: str = "expand",
) -> tuple[np.ndarray, np.ndarray]:
    """Return E[a a'ᵀ] and E[g g'ᵀ] of two layers."""
    (a, g), (b, h) = ([unrolled(x) for x in pair] for pair in (one, two))
    positions = a.shape[1]
    if sharing == "reduce":
        a, b = (x.mean(axis=1, keepdims=True) for x in (a, b))
        g, h = (x.sum(axis=1, keepdims=True) for x in (g, h))
        positions = 1
    w = np.ones(len(a)) if weights is None else weights
    A = np.einsum("i,itj,itk->jk", w, a, b) / (w.sum() * positions)
    return A, np.einsum("i,itj,itk->jk", w, g, h) / w.sum()


def whole(
    layers: Sequence[tuple[np.ndarray, np.ndarray]], weights: np.ndarray | None, reduction: str
) -> float:
    return oracle.total(layers[0][0], weights) if reduction == "sum" else 1.0


def block_diagonal(blocks: Sequence[np.ndarray]) -> np.ndarray:
    sizes = np.cumsum([0, *map(len, blocks)])
    out = np.zeros((sizes[-1], sizes[-1]))
    for start, stop, block in zip(sizes, sizes[1:], blocks, strict=False):
        out[start:stop, start:stop] = block
    return out


def kfac(
    layers: Sequence[tuple[np.ndarray, np.ndarray]],
    weights: np.ndarray | None = None,
    reduction: str = "mean",
    sharing: str = "expand",
    damping: float = 0.0,
) -> np.ndarray:
    """Return the block diagonal of G ⊗ A, with factored damping."""
    blocks = [np.kron(G, A) for A, G in damped(factors(layers, weights, sharing), damping)]
    return block_diagonal(blocks) * whole(layers, weights, reduction)


def damped(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], damping: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (A + π √λ I, G + √λ / π I) with π² the ratio of the mean diagonals."""
    out = []
    for A, G in pairs:
        pi = np.sqrt((np.trace(A) / len(A)) / (np.trace(G) / len(G)))
        A = A + pi * np.sqrt(damping) * np.eye(len(A))
        out.append((A, G + np.sqrt(damping) / pi * np.eye(len(G))))
    return out


def ekfac(
    layers: Sequence[tuple[np.ndarray, np.ndarray]],
    weights: np.ndarray | None = None,
    reduction: str = "mean",
    sharing: str = "expand",
) -> np.ndarray:
    """Return the per-sample second moments in the eigenbasis of the factors, rotated back."""
    w, blocks = np.ones(len(layers[0][0])) if weights is None else weights, []
    for (A, G), grads in zip(factors(layers, weights, sharing), gradients(layers), strict=True):
        Q = np.kron(np.linalg.eigh(G)[1], np.linalg.eigh(A)[1])
        second = w @ (grads.reshape(len(w), -1) @ Q) ** 2 / w.sum()
        blocks.append(Q * second @ Q.T)
    return block_diagonal(blocks) * whole(layers, weights, reduction)


def chain(
    layers: Sequence[tuple[np.ndarray, np.ndarray]],
    weights: np.ndarray | None = None,
    reduction: str = "mean",
    sharing: str = "expand",
    damping: float = 0.0,
) -> np.ndarray:
    """Return the Markov completion: Ξ⁻¹ Σ Ξ⁻ᵀ of the tridiagonal blocks G_lm ⊗ A_lm."""
    pairs = damped(factors(layers, weights, sharing), damping)
    own = [np.kron(G, A) for A, G in pairs]
    sizes = np.cumsum([0, *map(len, own)])
    Xi, sigma = np.eye(sizes[-1]), list(own)
    for i in range(len(layers) - 1):
        A, G = cross(layers[i], layers[i + 1], weights, sharing)
        beside = np.kron(G, A)
        psi = np.linalg.solve(own[i + 1], beside.T).T
        Xi[sizes[i] : sizes[i + 1], sizes[i + 1] : sizes[i + 2]] = -psi
        sigma[i] = own[i] - psi @ beside.T
    inverse = np.linalg.inv(Xi)
    answer: np.ndarray = (
        inverse @ block_diagonal(sigma) @ inverse.T * whole(layers, weights, reduction)
    )
    return answer


DEFINITIONS: dict[str, Any] = {"kfac": kfac, "eigen": ekfac, "tridiagonal": chain}
