"""Patches against the rows they stand for: every kernel shape, layout, dtype and thread count."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastfisher as ff
from fastfisher._ops.numpy_patches import Patches
from fastfisher._ops.numpy_triangle import Triangle
from fastfisher.errors import NonFiniteError
from oracle import EPS, draw_weights, rng

# x, then kernel, stride, padding, dilation, ones: linear layers on one position and on many, both
# sides of a panel (24 float64, 48 float32) and of a register's lanes; convolutions of every kind.
PLAIN: dict[str, Any] = {}
CASES = {
    "linear": ((7, 5, 1, 1), PLAIN),
    "linear with ones": ((50, 24, 1, 1), {"ones": True}),
    "wide": ((300, 97, 1, 1), {"ones": True}),
    "one sample": ((1, 48, 1, 1), {"ones": True}),
    "no sample": ((0, 4, 1, 1), {"ones": True}),
    "tall": ((2003, 9, 1, 1), {"ones": True}),
    "positions": ((11, 30, 1, 17), PLAIN),
    "positions with ones": ((40, 47, 1, 16), {"ones": True}),
    "many positions": ((2, 3, 1, 601), {"ones": True}),
    "grid of single pixels": ((4, 6, 5, 7), {"stride": (2, 3)}),
    "conv": ((5, 6, 9, 11), {"kernel": (3, 3), "padding": (1, 1)}),
    "conv with ones": ((3, 16, 8, 8), {"kernel": (3, 3), "padding": (1, 1), "ones": True}),
    "conv of full panels": ((3, 8, 6, 20), {"kernel": (3, 2), "ones": True}),
    "strided": ((4, 3, 13, 14), {"kernel": (3, 2), "stride": (2, 3), "padding": (1, 0)}),
    "dilated": ((3, 4, 12, 15), {"kernel": (2, 3), "dilation": (3, 2), "padding": (0, 2)}),
    "both": (
        (2, 5, 17, 16),
        {"kernel": (3, 3), "stride": (2, 2), "dilation": (2, 3), "padding": (2, 1), "ones": True},
    ),
    "kernel of the image": ((6, 2, 4, 4), {"kernel": (4, 4), "ones": True}),
    "all padding": ((3, 2, 2, 1), {"kernel": (1, 1), "padding": (2, 3)}),
    "one wide line": ((2, 2, 1, 700), {"kernel": (1, 5), "stride": (1, 2), "padding": (0, 2)}),
    "large image": ((1, 90, 6, 450), {"kernel": (3, 3), "stride": (1, 3), "padding": (1, 1)}),
}
TYPES = [
    (np.float64, np.float64),
    (np.float32, np.float32),
    (np.float32, np.float64),
    (np.float16, np.float32),
    ("bfloat16", np.float32),
]


def images(shape: tuple[int, int, int, int], dtype: npt.DTypeLike = np.float64) -> np.ndarray:
    x = rng(*shape).standard_normal(shape)
    if dtype == "bfloat16":
        return x.astype(pytest.importorskip("ml_dtypes").bfloat16)
    return x.astype(dtype)


def definition(
    x: np.ndarray,
    kernel: tuple[int, int] = (1, 1),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    ones: bool = False,
) -> np.ndarray:
    """Return the rows (n, T, d) in float64, entry by entry as the equation has them."""
    n, channels, height, width = x.shape
    padded = np.zeros((n, channels, height + 2 * padding[0], width + 2 * padding[1]))
    padded[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = x
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    rows = [
        padded[:, :, y : y + reach[0] + 1 : dilation[0], z : z + reach[1] + 1 : dilation[1]]
        for y in range(0, padded.shape[2] - reach[0], stride[0])
        for z in range(0, padded.shape[3] - reach[1], stride[1])
    ]
    stacked = np.stack(rows, axis=1).reshape(n, len(rows), channels * kernel[0] * kernel[1])
    return np.concatenate([stacked, np.ones((*stacked.shape[:2], 1))], axis=2) if ones else stacked


def moment(
    patches: Patches,
    held: type[np.floating],
    weights: np.ndarray | None = None,
    threads: int = 0,
    fresh: bool = True,
) -> np.ndarray:
    triangle = Triangle(patches.width, np.dtype(held))
    patches.add_moment(triangle, weights, fresh=fresh, check_finite=True, threads=threads)
    return triangle.to_dense(1.0)


def assert_sums(
    found: np.ndarray, left: np.ndarray, right: np.ndarray, held: type[np.floating]
) -> None:
    """|found − LᵀR| ≤ (k + 6)·eps·|L|ᵀ|R|, k terms in each sum."""
    bound = (len(left) + 6) * EPS[np.dtype(held)] * (abs(left).T @ abs(right))
    assert found.shape == bound.shape
    assert (abs(found - left.T @ right) <= bound).all()


@pytest.mark.parametrize("case", CASES)
def test_unrolled(case: str) -> None:
    shape, how = CASES[case]
    x = images(shape)
    patches = Patches(x, **how)
    rows = definition(x, **how)
    assert (patches.samples, patches.positions, patches.width) == rows.shape
    np.testing.assert_array_equal(patches.unrolled(np.dtype(np.float64)), rows)


@pytest.mark.parametrize(("stored", "held"), TYPES)
@pytest.mark.parametrize("case", CASES)
def test_moment(case: str, stored: npt.DTypeLike, held: type[np.floating]) -> None:
    shape, how = CASES[case]
    x = images(shape, stored)
    patches, rows = Patches(x, **how), definition(x, **how)
    Y = rows.reshape(-1, rows.shape[2])
    for fresh in (True, False):
        assert_sums(moment(patches, held, fresh=fresh), Y, Y, held)
    if len(x):
        w = draw_weights(len(x)).astype(held)
        W = np.repeat(w, patches.positions)[:, None].astype(float)
        assert_sums(moment(patches, held, w), W * Y, Y, held)


@pytest.mark.parametrize(("stored", "held"), TYPES)
@pytest.mark.parametrize("case", CASES)
def test_cross(case: str, stored: npt.DTypeLike, held: type[np.floating]) -> None:
    shape, how = CASES[case]
    x = images(shape, stored)
    patches, rows = Patches(x, **how), definition(x, **how)
    z = images((shape[0], 5, 1, patches.positions), stored)
    other = Patches(z, ones=True)
    Y = rows.reshape(-1, rows.shape[2])
    Z = definition(z, ones=True).reshape(len(Y), 6)
    assert_sums(patches.cross(other, None, held, 0), Y, Z, held)
    assert_sums(other.cross(patches, None, held, 0), Z, Y, held)
    if len(x):
        w = draw_weights(len(x)).astype(held)
        W = np.repeat(w, patches.positions)[:, None].astype(float)
        assert_sums(patches.cross(other, w, held, 0), W * Y, Z, held)


@pytest.mark.parametrize("held", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES)
def test_reduced(case: str, held: type[np.floating]) -> None:
    shape, how = CASES[case]
    x = images(shape, np.float32)
    patches, rows = Patches(x, **how), definition(x, **how)
    for mean, expected in ((False, rows.sum(1)), (True, rows.mean(1))):
        found = patches.reduced(mean=mean, dtype=np.dtype(held)).unrolled(np.dtype(held))[:, 0]
        # Summed in double and rounded once; the mean is multiplied by a rounded 1/T.
        bound = 4 * EPS[np.dtype(held)] * (abs(rows).mean(1) if mean else abs(rows).sum(1))
        assert (abs(found - expected) <= bound).all()


def views(x: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the same images in every kind of memory."""
    yield np.asfortranarray(x)
    yield np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, 3)), 3, 1)
    n, channels, height, width = x.shape
    room = np.zeros((2 * n, channels, 3 * height, 2 * width), x.dtype)
    room[::2, :, ::3, ::2] = x
    yield room[::2, :, ::3, ::2]
    yield np.ascontiguousarray(x[::-1, ::-1, ::-1, ::-1])[::-1, ::-1, ::-1, ::-1]
    fixed = x.copy()
    fixed.flags.writeable = False
    yield fixed


@pytest.mark.parametrize("held", [np.float64, np.float32])
@pytest.mark.parametrize(
    "case", ["wide", "positions", "conv with ones", "strided", "grid of single pixels"]
)
def test_every_layout(case: str, held: type[np.floating]) -> None:
    shape, how = CASES[case]
    x = images(shape, held)
    rows = definition(x, **how)
    Y = rows.reshape(-1, rows.shape[2])
    for view in views(x):
        np.testing.assert_array_equal(view, x)
        patches = Patches(view, **how)
        assert_sums(moment(patches, held), Y, Y, held)
        assert_sums(patches.cross(patches, None, held, 0), Y, Y, held)
        np.testing.assert_allclose(
            patches.reduced(mean=False, dtype=np.dtype(held)).x[:, :, 0, 0],
            rows.sum(1),
            rtol=0,
            atol=4 * EPS[np.dtype(held)] * abs(rows).sum(1).max(),
        )


def test_one_sample_seen_as_many() -> None:
    x = np.broadcast_to(images((1, 7, 6, 5)), (9, 7, 6, 5))
    how: dict[str, Any] = {"kernel": (2, 2), "ones": True}
    Y = definition(x, **how).reshape(-1, 29)
    assert_sums(moment(Patches(x, **how), np.float64), Y, Y, np.float64)


@pytest.mark.parametrize("held", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((600, 300, 1, 1), {"ones": True}),
        ((60, 40, 1, 64), {"ones": True}),
        ((24, 24, 16, 16), {"kernel": (3, 3), "padding": (1, 1)}),
        ((64, 4, 18, 16), {"kernel": (3, 3), "stride": (2, 1), "ones": True}),
    ],
)
def test_same_bits_for_any_thread_count(
    shape: tuple[int, int, int, int], how: dict[str, Any], held: type[np.floating]
) -> None:
    patches = Patches(images(shape, held), **how)
    w = draw_weights(shape[0]).astype(held)
    first = moment(patches, held, w, threads=1), patches.cross(patches, w, held, 1)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(moment(patches, held, w, threads), first[0])
        np.testing.assert_array_equal(patches.cross(patches, w, held, threads), first[1])


@pytest.mark.parametrize("stored", [np.float64, np.float32, np.float16, "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    "case", ["linear", "wide", "tall", "positions", "conv", "conv with ones", "strided"]
)
def test_what_is_not_finite_is_named(
    case: str, fresh: bool, value: float, stored: type[np.floating]
) -> None:
    shape, how = CASES[case]
    x = images(shape, stored)
    place = (shape[0] // 2, shape[1] // 3, shape[2] // 2, shape[3] // 2)
    x[place] = value
    held = np.dtype(np.float64 if stored is np.float64 else np.float32)
    for view in views(x):
        patches = Patches(view, **how)
        with pytest.raises(NonFiniteError, match=r"^gradients: expected finite") as raised:
            patches.check_finite("gradients")
        assert (raised.value.row, raised.value.column) == place[:2]
        triangle = Triangle(patches.width, held)
        before = triangle.panels.copy()
        with pytest.raises(NonFiniteError) as raised:
            patches.add_moment(triangle, None, fresh=fresh, check_finite=True, threads=0)
        assert (raised.value.row, raised.value.column) == place[:2]
        if not fresh:
            np.testing.assert_array_equal(triangle.panels, before)


@pytest.mark.parametrize("fresh", [True, False])
def test_sums_that_overflow_are_named(fresh: bool) -> None:
    x = images((20, 3, 6, 6), np.float32)  # tall: the sums are looked at before they are added
    x[1, 2, 3, 3] = 1e30
    patches = Patches(x, kernel=(3, 3))
    triangle = Triangle(patches.width, np.dtype(np.float32))
    before = triangle.panels.copy()
    with pytest.raises(NonFiniteError, match="overflow in column"):
        patches.add_moment(triangle, None, fresh=fresh, check_finite=True, threads=0)
    if not fresh:
        np.testing.assert_array_equal(triangle.panels, before)


@pytest.mark.parametrize("name", ["kernel_size", "stride", "padding", "dilation"])
def test_what_the_kernels_cannot_count_is_refused(name: str) -> None:
    images = np.ones((2, 1, 3, 3))
    options: dict[str, Any] = {"kernel_size": 1, name: 2**64}
    with pytest.raises(ValueError, match=rf"{name}: expected at most 2147483647, got {2**64}"):
        ff.LayerFisher([ff.Conv2dLayer(images, images, **options)])
