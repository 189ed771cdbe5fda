"""The scores of a layer against the rows that they stand for: products, squares and Gram matrix."""

from typing import Any

import numpy as np
import pytest

from fastfisher._native import core
from fastfisher._ops import numpy_layer
from fastfisher._ops.numpy_layer import LayerScores
from fastfisher._ops.numpy_patches import Patches
from fastfisher._ops.numpy_triangle import Triangle
from oracle import EPS, draw_weights, rng
from test_patches import TYPES, definition, images, views

# Samples, outputs, shape of the inputs of a sample, and what a kernel does with it. Both ways to a
# Gram matrix (few positions of wide layers; many of narrow ones) and both sides of a contraction.
LAYERS: dict[str, Any] = {
    "linear": (7, 3, (5, 1, 1), {}),
    "linear with a bias": (61, 49, (24, 1, 1), {"ones": True}),
    "many samples": (700, 25, (48, 1, 1), {"ones": True}),
    "wide inputs": (30, 10, (130, 1, 1), {}),
    "wide outputs": (30, 131, (9, 1, 1), {"ones": True}),
    "one sample": (1, 4, (6, 1, 1), {}),
    "no sample": (0, 4, (6, 1, 1), {"ones": True}),
    "two positions": (40, 97, (70, 1, 2), {"ones": True}),
    "positions": (13, 5, (7, 1, 17), {"ones": True}),
    "long": (3, 30, (2, 1, 301), {}),
    "one long sample": (1, 50, (60, 1, 3), {}),
    "no long sample": (0, 5, (6, 1, 3), {}),
    "conv": (9, 26, (6, 7, 8), {"kernel": (3, 3), "padding": (1, 1), "ones": True}),
    "strided": (5, 3, (3, 11, 9), {"kernel": (3, 2), "stride": (2, 3), "dilation": (1, 2)}),
}


def layer(case, dtype=np.float64):
    n, outputs, shape, how = LAYERS[case]
    a = Patches(images((n, *shape), dtype), **how)
    g = Patches(images((n, outputs, *a.grid), dtype))
    return LayerScores(a, g)


def sides(scores):
    """Return the rows of g and of a, (n, T, d) in float64."""
    a, g = scores.a, scores.g
    how = (a.kernel, a.stride, a.padding, a.dilation, a.ones)
    return definition(g.x.astype(float)), definition(a.x.astype(float), *how)


def rows(g, a):
    return np.einsum("ito,itc->ioc", g, a).reshape(len(g), g.shape[2] * a.shape[2])


def assert_close(found, expected, size, terms, held):
    """|found − expected| ≤ (terms + 8)·eps·size, entry by entry."""
    assert found.shape == expected.shape
    assert (abs(found - expected) <= (terms + 8) * EPS[np.dtype(held)] * size).all()


@pytest.mark.parametrize(("stored", "held"), TYPES)
@pytest.mark.parametrize("case", LAYERS)
def test_products(case, stored, held):
    scores = layer(case, stored)
    g, a = sides(scores)
    S, size = rows(g, a), rows(abs(g), abs(a))
    n, p = S.shape
    T = g.shape[1]
    for k in (1, 3):
        V = rng(p, k).standard_normal((p, k)).astype(held)
        assert_close(scores.dot(V, 0), S @ V, size @ abs(V), sum(scores.shape) + T, held)
        Y = rng(n, k).standard_normal((n, k)).astype(held)
        assert_close(scores.transpose_dot(Y, 0), S.T @ Y, size.T @ abs(Y), n * T, held)


@pytest.mark.parametrize(("stored", "held"), TYPES)
@pytest.mark.parametrize("case", LAYERS)
def test_products_with_many_columns_form_some_scores_at_a_time(
    case: str, stored: Any, held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = layer(case, stored)
    g, a = sides(scores)
    S, size = rows(g, a), rows(abs(g), abs(a))
    (n, p), T = S.shape, g.shape[1]
    monkeypatch.setattr(numpy_layer, "_FORMED_BYTES", 4 * p * T * 8)  # several blocks of samples
    V = rng(p, 9).standard_normal((p, 9)).astype(held)
    found = scores.dot(V, 0)
    assert_close(found, S @ V, size @ abs(V), p + T, held)
    assert_close(scores.dot(V[:, :1], 0), found[:, :1], size @ abs(V[:, :1]), 2 * (p + T), held)
    Y = rng(n, 9).standard_normal((n, 9)).astype(held)
    assert_close(scores.transpose_dot(Y, 0), S.T @ Y, size.T @ abs(Y), n + T, held)


@pytest.mark.parametrize(("stored", "held"), TYPES)
@pytest.mark.parametrize("case", LAYERS)
def test_squares(case, stored, held):
    scores = layer(case, stored)
    g, a = sides(scores)
    n, T = g.shape[:2]
    w = draw_weights(n).astype(held) if n else np.ones(0, held)
    for weights in (None, w):
        factor = np.ones(n) if weights is None else weights.astype(float)
        expected, size = (
            np.tensordot(factor, rows(*both).reshape(n, *scores.shape) ** 2, 1)
            for both in ((g, a), (abs(g), abs(a)))
        )
        found = scores.squares(weights, np.dtype(held), 0)
        assert_close(found, expected, size, n + 2 * T, held)
    bases = tuple(
        np.linalg.qr(rng(d, 7).standard_normal((d, d)))[0].astype(held) for d in scores.shape
    )
    U, V = (basis.astype(float) for basis in bases)
    turned = np.einsum("ito,itc->ioc", g @ U, a @ V)
    size = np.einsum("ito,itc->ioc", abs(g) @ abs(U), abs(a) @ abs(V)) ** 2
    found = scores.squares(w, np.dtype(held), 0, bases)
    assert_close(
        found,
        np.tensordot(w.astype(float), turned**2, 1),
        np.tensordot(w.astype(float), size, 1),
        n + 2 * T + 2 * sum(scores.shape),
        held,
    )


@pytest.mark.parametrize(("stored", "held"), TYPES)
@pytest.mark.parametrize("case", LAYERS)
def test_gram(case, stored, held):
    scores = layer(case, stored)
    g, a = sides(scores)
    S, size = rows(g, a), rows(abs(g), abs(a))
    triangle = Triangle.from_dense(np.eye(len(S), dtype=held)) if len(S) else None
    if triangle is None:
        triangle = Triangle(0, np.dtype(held))
    scores.add_gram(triangle, 0)
    K = triangle.to_dense(1.0)
    terms = sum(scores.shape) + g.shape[1] ** 2
    assert_close(K, S @ S.T + np.eye(len(S)), size @ size.T + 1, terms, held)


@pytest.mark.parametrize("case", ["many samples", "positions", "two positions", "conv"])
def test_every_layout(case):
    scores = layer(case)
    V = rng(5).standard_normal((scores.shape[0] * scores.shape[1], 1))
    expected = scores.dot(V, 0), scores.squares(None, V.dtype, 0)
    for x, y in zip(views(scores.a.x), views(scores.g.x), strict=True):
        a = scores.a
        same = LayerScores(
            Patches(x, a.kernel, a.stride, a.padding, a.dilation, a.ones), Patches(y)
        )
        np.testing.assert_allclose(same.dot(V, 0), expected[0], atol=1e-12 * abs(expected[0]).max())
        np.testing.assert_allclose(same.squares(None, V.dtype, 0), expected[1], rtol=1e-12)


@pytest.mark.parametrize("held", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("n", "outputs", "shape", "how"),
    [
        (700, 60, (130, 1, 1), {"ones": True}),
        (150, 130, (140, 1, 3), {"ones": True}),
        (40, 30, (4, 12, 12), {"kernel": (3, 3), "padding": (1, 1)}),
    ],
)
def test_same_bits_for_any_thread_count(n, outputs, shape, how, held):
    a = Patches(images((n, *shape), held), **how)
    scores = LayerScores(a, Patches(images((n, outputs, *a.grid), held)))
    V = rng(1).standard_normal((outputs * a.width, 2)).astype(held)
    Y = rng(2).standard_normal((n, 2)).astype(held)
    bases = tuple(rng(d).standard_normal((d, d)).astype(held) for d in scores.shape)

    def everything(threads):
        triangle = Triangle(n, np.dtype(held))
        scores.add_gram(triangle, threads)
        return (
            scores.dot(V, threads),
            scores.transpose_dot(Y, threads),
            scores.squares(Y[:, 0].copy(), np.dtype(held), threads),
            scores.squares(None, np.dtype(held), threads, bases),
            triangle.to_dense(1.0),
        )

    first = everything(1)
    for threads in (2, 3, 8):
        for found, expected in zip(everything(threads), first, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_bad_sample_stays_its_own():
    scores = layer("conv")
    scores.g.x[4, 2, 3, 3] = np.nan
    triangle = Triangle(scores.samples, np.dtype(np.float64))
    scores.add_gram(triangle, 0)
    V = np.ones((scores.shape[0] * scores.shape[1], 1))
    bad = np.arange(scores.samples) == 4
    np.testing.assert_array_equal(np.isnan(scores.dot(V, 0)[:, 0]), bad)
    np.testing.assert_array_equal(np.isnan(triangle.to_dense(1.0)), bad[:, None] | bad)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.ones((4, 2, 3))}, ValueError, r"^a: expected shape"),
        ({"x": np.ones((4, 2, 3, 3), int)}, TypeError, r"^a: expected float64, float32"),
        ({"x": np.ones((5, 2, 3, 3))}, ValueError, r"^g: expected 5 samples of 4, got 4 of 4"),
        ({"kernel": (5, 2)}, ValueError, r"^a: expected a kernel that fits the padded image"),
        ({"stride": (0, 1)}, ValueError, r"^a: expected a kernel that fits the padded image"),
        ({"dtype": np.float32}, TypeError, r"^a: expected float32 or narrower, got float64"),
    ],
)
def test_what_the_core_refuses(change, error, message):
    how = {"x": np.ones((4, 2, 3, 3)), "kernel": (2, 2), "dtype": np.float64} | change
    dtype = how.pop("dtype")
    left, right = Patches(**how), Patches(np.ones((4, 2, 1, 4), dtype))
    out = np.empty((8, 2), dtype)
    with pytest.raises(error, match=message):
        core.patches_cross(left.x, left.recipe, right.x, right.recipe, None, out, 0)
    assert core.patches_find_nonfinite(np.zeros((1, 1, 1, 1)), 0)[0] == 0
