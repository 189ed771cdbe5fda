"""The scores of a network: every layer's side by side, as products that never form them."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from typing import Any

from fastfisher._ops.portable import Portable

__all__ = ["NetworkScores"]

# Scores that are formed in passing take about this many bytes: a few times a core's cache, so that
# what is done with them costs less than forming them, and never a part of memory worth naming.
_FORMED_BYTES = 2**24


class NetworkScores(Portable):
    """S (n, p): row i holds vec(Σ_t g_it a_itᵀ) of one layer after another.

    Parameters
    ----------
    layers : list of LayerScores
    dtype : dtype
        Of every sum and result.
    """

    def __init__(self, layers: list[Any], ops: Any, dtype: Any) -> None:
        self.layers = layers
        self.ops = ops
        self.dtype = dtype
        self.samples: int = layers[0].samples
        self.shapes: list[tuple[int, int]] = [layer.shape for layer in layers]
        sizes = [rows * columns for rows, columns in self.shapes]
        ends = list(accumulate(sizes))
        self.params: int = ends[-1]
        self.slices = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]

    # ---- without forming a row ----
    def dot(self, V: Any, threads: int) -> Any:
        """Return S V, (n, k)."""
        V = self.ops.xp.ascontiguousarray(V)
        out = self.ops.zeros((self.samples, V.shape[1]), self.dtype)
        if V.shape[1] == 0:
            return out
        for layer, where in zip(self.layers, self.slices, strict=True):
            out += layer.dot(V[where], threads)
        return out

    def transpose_dot(self, Y: Any, threads: int) -> Any:
        """Return Sᵀ Y, (p, k)."""
        Y = self.ops.xp.ascontiguousarray(Y)
        out = self.ops.empty((self.params, Y.shape[1]), self.dtype)
        if Y.shape[1] == 0:
            return out
        for layer, where in zip(self.layers, self.slices, strict=True):
            out[where] = layer.transpose_dot(Y, threads)
        return out

    def squares(self, weights: Any, threads: int) -> Any:
        """Return Σ_i w_i s_i² elementwise, (p,)."""
        out = self.ops.empty(self.params, self.dtype)
        for layer, where in zip(self.layers, self.slices, strict=True):
            out[where] = layer.squares(weights, self.dtype, threads).reshape(-1)
        return out

    def gram(self, threads: int) -> Any:
        """Return S Sᵀ, a triangle (n × n)."""
        triangle = self.ops.Triangle(self.samples, self.dtype)
        for layer in self.layers:
            layer.add_gram(triangle, threads)
        return triangle

    def cross(self, other: "NetworkScores", threads: int) -> Any:
        """Return S S'ᵀ, (n, m), with the m scores S' of the same network on other samples.

        Where a layer has one position (a·a')(g·g') is the product; where it has more the other
        scores are formed, some at a time.
        """
        out = self.ops.zeros((self.samples, other.samples), self.dtype)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            if mine.a.positions == theirs.a.positions == 1:
                a, g, b, h = (
                    side.unrolled(self.dtype)[:, 0] for side in (mine.a, mine.g, theirs.a, theirs.g)
                )
                out += (a @ b.T) * (g @ h.T)
                continue
            for block in other._blocks(theirs):
                rows = theirs.rows(block, self.dtype)
                out[:, block] += mine.dot(self.ops.xp.ascontiguousarray(rows.T), threads)
        return out

    def norms(self) -> Any:
        """Return ‖s_i‖², (n,), by the positions' Gram matrices where those are the smaller."""
        xp = self.ops.xp
        out = self.ops.zeros(self.samples, self.dtype)
        for layer in self.layers:
            d_out, d_in = layer.shape
            pairwise = layer.a.positions * (d_in + d_out) < d_in * d_out
            for block in self._blocks(layer):
                if not pairwise:
                    out[block] += (layer.rows(block, self.dtype) ** 2).sum(axis=1)
                    continue
                a, g = (side.some(block).unrolled(self.dtype) for side in (layer.a, layer.g))
                grams = (a @ xp.swapaxes(a, 1, 2)) * (g @ xp.swapaxes(g, 1, 2))
                out[block] += grams.sum(axis=(1, 2))
        return out

    # ---- some of the scores, formed ----
    def rows(self, block: slice) -> Any:
        """Return some rows of S, (block, p)."""
        return self.ops.xp.concat([layer.rows(block, self.dtype) for layer in self.layers], axis=1)

    def row_blocks(self) -> Iterator[slice]:
        """Yield blocks of samples whose rows of S take a few megabytes."""
        return self._in_blocks(self.params)

    def columns(self, block: slice) -> Any:
        """Return some columns of S, (n, block)."""
        out = self.ops.empty((self.samples, len(range(*block.indices(self.params)))), self.dtype)
        start, stop, _ = block.indices(self.params)
        for layer, where in zip(self.layers, self.slices, strict=True):
            first, last = max(start, where.start), min(stop, where.stop)
            if first < last:
                inside = slice(first - where.start, last - where.start)
                out[:, first - start : last - start] = self._layer_columns(layer, inside)
        return out

    def check_finite(self, name: str = "layers") -> None:
        """Raise NonFiniteError naming the layer, the array and the sample of what is not finite."""
        for place, layer in enumerate(self.layers):
            layer.a.check_finite(f"{name}[{place}].inputs")
            layer.g.check_finite(f"{name}[{place}].gradients")

    def _layer_columns(self, layer: Any, block: slice) -> Any:
        """Return some columns of one layer's scores from the outputs that they belong to."""
        width = layer.shape[1]
        outputs = slice(block.start // width, -(-block.stop // width))
        inside = slice(block.start - outputs.start * width, block.stop - outputs.start * width)
        some = replace(layer, g=replace(layer.g, x=layer.g.x[:, outputs]))
        out = self.ops.empty((self.samples, block.stop - block.start), self.dtype)
        for samples in self._blocks(some):
            out[samples] = some.rows(samples, self.dtype)[:, inside]
        return out

    def _blocks(self, layer: Any) -> Iterator[slice]:
        """Yield blocks of samples of which a layer's scores and unrolled sides are small."""
        d_out, d_in = layer.shape
        return self._in_blocks(max(d_out * d_in, layer.a.positions * max(d_out, d_in)))

    def _in_blocks(self, numbers: int) -> Iterator[slice]:
        samples = self.samples
        step = max(1, _FORMED_BYTES // (numbers * self.dtype.itemsize))
        return (slice(i, min(i + step, samples)) for i in range(0, samples, step))
