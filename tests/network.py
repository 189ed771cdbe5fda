"""Networks for the tests: layers of every kind drawn at random, and their scores spelled out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

import fastfisher as ff
import oracle


def draw(n: int, dtype: npt.DTypeLike = np.float64, seed: int = 0) -> list[Any]:
    """Return layers: plain, with bias, with positions, and convolutions; 49 parameters."""
    rng = oracle.rng(n, seed)

    def normal(*shape: int) -> np.ndarray:
        return (0.6 * rng.standard_normal(shape)).astype(dtype)  # scores of about 1

    return [
        (normal(n, 5), normal(n, 2)),
        ff.LinearLayer(normal(n, 3), normal(n, 2), bias=True),
        ff.LinearLayer(normal(n, 2, 4), normal(n, 3, 4), bias=True),
        ff.Conv2dLayer(
            normal(n, 2, 4, 3), normal(n, 2, 2, 3), (2, 1), stride=(2, 1), padding=(0, 0), bias=True
        ),
        ff.Conv2dLayer(normal(n, 1, 3, 3), normal(n, 1, 2, 3), 3, stride=(2, 1), padding=1),
        (normal(n, 3), normal(n, 1)),
    ]


def moved(layers: Sequence[Any], to: Callable[[np.ndarray], Any]) -> list[Any]:
    """Return the layers with their arrays turned into others by `to`."""
    return [
        tuple(map(to, layer))
        if isinstance(layer, tuple)
        else replace(layer, inputs=to(layer.inputs), gradients=to(layer.gradients))
        for layer in layers
    ]


def scores(layers: Sequence[Any]) -> np.ndarray:
    """Return the per-sample gradients (n, p) in double precision, one position at a time."""
    return np.hstack([_scores(layer) for layer in layers])


def _scores(layer: ff.Conv2dLayer | ff.LinearLayer | tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    if not isinstance(layer, ff.Conv2dLayer):
        a, g, bias = (*layer, False) if isinstance(layer, tuple) else _linear(layer)
        a, g = (np.asarray(x, float).reshape(*x.shape[:2], -1) for x in (a, g))
        if bias:
            a = np.concatenate([a, np.ones_like(a[:, :1])], axis=1)
        answer: np.ndarray = np.einsum("not,nct->noc", g, a).reshape(len(a), -1)
        return answer
    (kh, kw), (sh, sw), (ph, pw) = (
        np.broadcast_to(x, 2) for x in (layer.kernel_size, layer.stride, layer.padding)
    )
    a, g = np.asarray(layer.inputs, float), np.asarray(layer.gradients, float)
    a = np.pad(a, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    total: Any = 0
    for y in range(g.shape[2]):
        for x in range(g.shape[3]):
            patch = a[:, :, y * sh : y * sh + kh, x * sw : x * sw + kw].reshape(len(a), -1)
            if layer.bias:
                patch = np.hstack([patch, np.ones((len(a), 1))])
            total = total + np.einsum("no,nc->noc", g[:, :, y, x], patch)
    scores: np.ndarray = total.reshape(len(a), -1)
    return scores


def _linear(layer: ff.LinearLayer) -> tuple[np.ndarray, np.ndarray, bool]:
    return layer.inputs, layer.gradients, layer.bias
