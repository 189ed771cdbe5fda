"""Layers: what a layer's inputs and output gradients look like, checked and brought to one form."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from fastfisher import _check
from fastfisher._ops import ops_of
from fastfisher._ops.types import Pair

__all__ = ["Conv2dLayer", "LinearLayer", "layers_of", "weight_shapes"]

# Of a kernel, stride, padding or dilation: the kernels multiply two of them in 64 bits.
_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class LinearLayer:
    """A linear layer: what went in, and the gradient of each sample's log-likelihood at its output.

    A plain pair ``(inputs, gradients)`` is the same without a bias. Per sample the gradient of the
    weight is ``np.outer(gradients[i], inputs[i])``, summed over positions where there are any.

    Parameters
    ----------
    inputs : array (n, d_in) or (n, d_in, positions)
    gradients : array (n, d_out) or (n, d_out, positions)
    bias : bool
        Append the homogeneous coordinate 1 to the inputs: the weight is (d_out, d_in + 1), its last
        column the bias. No copy of the inputs is made.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> L = ff.LayerFisher([ff.LinearLayer(np.ones((5, 3)), np.ones((5, 2)), bias=True)])
    >>> L.shape  # 2 × (3 + 1) parameters
    (8, 8)
    >>> layer = ff.LinearLayer(np.ones((5, 3)), np.ones((5, 2)), bias=True)
    >>> layer.inputs.shape, layer.gradients.shape, layer.bias
    ((5, 3), (5, 2), True)
    """

    inputs: Any
    gradients: Any
    _: KW_ONLY
    bias: bool = False

    def _scores(self, name: str) -> Any:
        ops = ops_of(self.inputs)
        a = _array(ops, f"{name}.inputs", self.inputs, (2, 3), "(n, d_in) or (n, d_in, positions)")
        g = _array(
            ops, f"{name}.gradients", self.gradients, (2, 3), "(n, d_out) or (n, d_out, positions)"
        )
        inputs = ops.Patches(_image(a), ones=_check.flag(f"{name}.bias", self.bias))
        return _joined(name, ops, inputs, ops.Patches(_image(g)))


@dataclass(frozen=True, slots=True, eq=False)
class Conv2dLayer:
    """A convolution: its images and output gradients; patches are gathered where they are used.

    Parameters
    ----------
    inputs : array (n, channels, height, width)
    gradients : array (n, d_out, out_height, out_width)
        Of each sample's log-likelihood at the output of the convolution.
    kernel_size : int or (int, int)
    stride, padding, dilation : int or (int, int)
        As in the convolution; the padding is with zeros.
    bias : bool
        Append the homogeneous coordinate 1 to each patch.

    Notes
    -----
    The weight is (d_out, channels · kernel height · kernel width), plus the column of the bias: the
    C-order ravel of the usual (d_out, channels, kernel height, kernel width).

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> layer = ff.Conv2dLayer(np.ones((4, 1, 8, 8)), np.ones((4, 3, 8, 8)), 3, padding=1)
    >>> ff.LayerFisher([layer]).shape  # 3 × (1 · 3 · 3)
    (27, 27)
    >>> layer.inputs.shape, layer.gradients.shape, layer.bias
    ((4, 1, 8, 8), (4, 3, 8, 8), False)
    >>> layer.kernel_size, layer.stride, layer.padding, layer.dilation
    (3, 1, 1, 1)
    """

    inputs: Any
    gradients: Any
    kernel_size: int | Pair
    _: KW_ONLY
    stride: int | Pair = 1
    padding: int | Pair = 0
    dilation: int | Pair = 1
    bias: bool = False

    def _scores(self, name: str) -> Any:
        ops = ops_of(self.inputs)
        a = _array(ops, f"{name}.inputs", self.inputs, (4,), "(n, channels, height, width)")
        g = _array(
            ops, f"{name}.gradients", self.gradients, (4,), "(n, d_out, out_height, out_width)"
        )
        inputs = ops.Patches(
            a,
            kernel=_pair(f"{name}.kernel_size", self.kernel_size, 1),
            stride=_pair(f"{name}.stride", self.stride, 1),
            padding=_pair(f"{name}.padding", self.padding, 0),
            dilation=_pair(f"{name}.dilation", self.dilation, 1),
            ones=_check.flag(f"{name}.bias", self.bias),
        )
        if min(inputs.grid) < 1:
            raise ValueError(
                f"{name}.kernel_size: expected a kernel that fits the padded image, got "
                f"{inputs.kernel} with dilation {inputs.dilation} on {a.shape[2:]} padded by "
                f"{inputs.padding}. Check height, width and padding."
            )
        if g.shape[2:] != inputs.grid:
            raise ValueError(
                f"{name}.gradients: expected {inputs.grid} positions as the convolution has them, "
                f"got {g.shape[2:]}. Check kernel_size, stride, padding and dilation."
            )
        return _joined(name, ops, inputs, ops.Patches(g))


def layers_of(value: Any, shapes: Sequence[Pair] | None = None, name: str = "layers") -> list[Any]:
    """Return the scores of each layer, one ``LayerScores`` each, checked.

    `shapes`, if given, are the (d_out, d_in) that the weights must have.
    """
    if not isinstance(value, (list, tuple)) or (
        len(value) == 2 and all(hasattr(x, "ndim") for x in value)
    ):
        raise TypeError(
            f"{name}: expected a list of layers, got {type(value).__name__}. "
            "A layer is a pair (inputs, gradients), LinearLayer or Conv2dLayer; one layer is a "
            "list of one."
        )
    if len(value) == 0:
        raise ValueError(f"{name}: expected at least one layer, got none. Give a list of pairs.")
    found = [_scores_of(f"{name}[{place}]", layer) for place, layer in enumerate(value)]
    ops = ops_of(found[0].a.x)
    for place, scores in enumerate(found):
        ops.to_array(f"{name}[{place}]", scores.a.x, halves=True)  # of the library of the first
        if scores.samples != found[0].samples:
            raise ValueError(
                f"{name}[{place}]: expected {found[0].samples} samples as in {name}[0], got "
                f"{scores.samples}. Row i of every layer belongs to sample i."
            )
    if shapes is not None:
        given = [scores.shape for scores in found]
        if len(given) != len(shapes):
            raise ValueError(
                f"{name}: expected {len(shapes)} layers, got {len(given)}. "
                "Give one for each of the shapes."
            )
        for place, (one, held) in enumerate(zip(given, shapes, strict=True)):
            if one != tuple(held):
                raise ValueError(
                    f"{name}[{place}]: expected (d_out, d_in) = {tuple(held)}, got {one}. "
                    "LinearLayer(a, g, bias=True) appends the coordinate of a bias."
                )
    return found


def weight_shapes(shapes: Any) -> list[Pair]:
    """Return (d_out, d_in) of each layer, checked."""
    if not isinstance(shapes, (list, tuple)) or len(shapes) == 0:
        raise ValueError(
            f"shapes: expected a list of (d_out, d_in), got {shapes!r}. One pair for each layer."
        )
    found = []
    for place, one in enumerate(shapes):
        if not isinstance(one, (list, tuple)) or len(one) != 2:
            raise ValueError(
                f"shapes[{place}]: expected a pair (d_out, d_in), got {one!r}. "
                "A bias counts as one more input."
            )
        rows, columns = (_check.count(f"shapes[{place}]", length, 1) for length in one)
        found.append((rows, columns))
    return found


def _scores_of(name: str, layer: Any) -> Any:
    if isinstance(layer, (LinearLayer, Conv2dLayer)):
        return layer._scores(name)
    if isinstance(layer, (list, tuple)) and len(layer) == 2:
        return LinearLayer(*layer)._scores(name)
    raise TypeError(
        f"{name}: expected a pair (inputs, gradients), LinearLayer or Conv2dLayer, got "
        f"{type(layer).__name__}. Row i of both arrays belongs to sample i."
    )


def _array(ops: Any, name: str, value: Any, ranks: tuple[int, ...], shape: str) -> Any:
    array = ops.to_array(name, value, halves=True)
    if array.ndim not in ranks:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}. Samples come first.")
    if array.dtype.kind == "c":
        raise TypeError(
            f"{name}: expected real numbers, got {array.dtype}. "
            "Complex scores are served as arrays: use ScoreFisher or DenseFisher."
        )
    if 0 in array.shape[1:]:
        raise ValueError(
            f"{name}: expected no empty axis, got shape {array.shape}. "
            "Only samples may be none: leave out a layer without parameters."
        )
    return array


def _image(array: Any) -> Any:
    """Return (n, d) or (n, d, T) as (n, d, 1, T)."""
    return array[:, :, None, None] if array.ndim == 2 else array[:, :, None, :]


def _joined(name: str, ops: Any, inputs: Any, gradients: Any) -> Any:
    if inputs.samples != gradients.samples or inputs.positions != gradients.positions:
        raise ValueError(
            f"{name}: expected inputs and gradients of the same samples and positions, got "
            f"{inputs.samples} × {inputs.positions} and {gradients.samples} × "
            f"{gradients.positions}. Row i of both belongs to sample i."
        )
    if inputs.x.dtype != gradients.x.dtype:
        raise TypeError(
            f"{name}: expected inputs and gradients of one dtype, got {inputs.x.dtype} and "
            f"{gradients.x.dtype}. Convert one of them."
        )
    return ops.LayerScores(inputs, gradients)


def _pair(name: str, value: Any, least: int) -> Pair:
    both = value if isinstance(value, (list, tuple)) else (value, value)
    if len(both) != 2:
        raise ValueError(f"{name}: expected a number or a pair, got {value!r}. As (down, across).")
    down, across = (_check.count(name, one, least, _MOST) for one in both)
    return down, across
