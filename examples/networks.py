"""Dense and convolutional networks in plain NumPy that give each layer's inputs and gradients.

Parameters are one flat vector, as the layered Fishers have them: the C-order ravel of each layer's
``(d_out, d_in + 1)`` weight (the last column is the bias), layers concatenated. The units are tanh,
the last layer gives the natural parameters of a likelihood, and every gradient is that of the
log-likelihood, so that a step *along* it is an ascent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import fastfisher as ff

Array = NDArray[np.float64]
Scores = ff.LinearLayer | ff.Conv2dLayer


@dataclass(frozen=True)
class Dense:
    """z = W x + b, with whatever shape x has flattened."""

    d_in: int
    d_out: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.d_out, self.d_in + 1

    def forward(self, W: Array, x: Array, one: float = 1.0) -> Array:
        """Return W (x, one): the tangent of x has a zero where x has the one of the bias."""
        return x.reshape(len(x), -1) @ W[:, :-1].T + one * W[:, -1]

    def backward(self, W: Array, g: Array, x: Array) -> Array:
        """Return the gradient at the input, of the shape of x."""
        return (g @ W[:, :-1]).reshape(x.shape)

    def gradient(self, x: Array, g: Array) -> Array:
        """Return Σᵢ gᵢ (xᵢ, 1)ᵀ, (d_out, d_in + 1)."""
        return np.column_stack([g.T @ x.reshape(len(x), -1), g.sum(axis=0)])

    def scores(self, x: Array, g: Array) -> ff.LinearLayer:
        """Return what a layered Fisher takes."""
        return ff.LinearLayer(x.reshape(len(x), -1), g, bias=True)


@dataclass(frozen=True)
class Conv:
    """A convolution with a 3 × 3 kernel and a border of one zero."""

    channels: int
    d_out: int
    stride: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        return self.d_out, 9 * self.channels + 1

    def forward(self, W: Array, x: Array, one: float = 1.0) -> Array:
        patches, grid = self._patches(x)
        z = patches @ W[:, :-1].T + one * W[:, -1]
        return np.ascontiguousarray(z.reshape(len(x), *grid, -1).transpose(0, 3, 1, 2))

    def backward(self, W: Array, g: Array, x: Array) -> Array:
        n, channels, height, width = x.shape
        down, across = (self.stride * length for length in g.shape[2:])
        padded = np.zeros((n, channels, height + 2, width + 2))
        kernels = W[:, :-1].reshape(self.d_out, channels, 3, 3)
        for i in range(3):
            for j in range(3):
                window = padded[:, :, i : i + down : self.stride, j : j + across : self.stride]
                window += np.tensordot(kernels[:, :, i, j], g, (0, 1)).transpose(1, 0, 2, 3)
        return padded[:, :, 1:-1, 1:-1]

    def gradient(self, x: Array, g: Array) -> Array:
        g = g.transpose(0, 2, 3, 1).reshape(-1, self.d_out)
        return np.column_stack([g.T @ self._patches(x)[0], g.sum(axis=0)])

    def scores(self, x: Array, g: Array) -> ff.Conv2dLayer:
        return ff.Conv2dLayer(x, g, 3, stride=self.stride, padding=1, bias=True)

    def _patches(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        """Return the patches, (n · positions, 9 · channels), and the grid they lie on."""
        n, channels, height, width = x.shape
        padded = np.zeros((n, channels, height + 2, width + 2))
        padded[:, :, 1:-1, 1:-1] = x
        # Which pixels the windows of one image see; one gather for all of them takes a third of
        # the time that copying the windows takes.
        pixels = np.arange(padded[0].size).reshape(padded.shape[1:])
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3), axis=(1, 2))
        windows = windows[:, :: self.stride, :: self.stride].transpose(1, 2, 0, 3, 4)
        seen = windows.reshape(-1, 9 * channels)
        patches = padded.reshape(n, -1).take(seen, axis=1).reshape(-1, 9 * channels)
        return patches, windows.shape[:2]


class Bernoulli:
    """Independent bits with logits z; targets may be grey, anything from 0 to 1."""

    def mean(self, z: Array) -> Array:
        return 0.5 + 0.5 * np.tanh(0.5 * z)

    def loss(self, z: Array, y: Array) -> Array:
        """Kullback-Leibler divergence of each sample: 0 where mean(z) = y."""
        floor = np.zeros_like(y)
        for share in (y, 1 - y):
            floor += share * np.log(share, out=np.zeros_like(y), where=share > 0)
        divergence: Array = (np.logaddexp(0, z) - y * z + floor).sum(axis=1)
        return divergence

    def right(self, z: Array, y: Array) -> NDArray[Any]:
        """Share of bits on the right side of one half."""
        share: Array = ((z > 0) == (y > 0.5)).mean(axis=1)
        return share

    def draw(self, z: Array, rng: np.random.Generator) -> Array:
        return (rng.random(z.shape) < self.mean(z)).astype(float)

    def fisher(self, z: Array, v: Array) -> Array:
        """Return diag(π(1 − π)) v for each sample."""
        pi = self.mean(z)
        return pi * (1 - pi) * v


class Categorical:
    """One of K classes with logits z; targets are one-hot."""

    def mean(self, z: Array) -> Array:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        pi: Array = e / e.sum(axis=1, keepdims=True)
        return pi

    def loss(self, z: Array, y: Array) -> Array:
        """−log p(y) of each sample, in nats."""
        z = z - z.max(axis=1, keepdims=True)
        loss: Array = np.log(np.exp(z).sum(axis=1)) - (y * z).sum(axis=1)
        return loss

    def right(self, z: Array, y: Array) -> NDArray[Any]:
        right: NDArray[np.bool] = z.argmax(axis=1) == y.argmax(axis=1)
        return right

    def draw(self, z: Array, rng: np.random.Generator) -> Array:
        # The largest of logits plus Gumbel noise is a draw from the softmax.
        drawn: Array = np.eye(z.shape[1])[(z + rng.gumbel(size=z.shape)).argmax(axis=1)]
        return drawn

    def fisher(self, z: Array, v: Array) -> Array:
        """Return (diag π − π πᵀ) v for each sample."""
        pi = self.mean(z)
        product: Array = pi * (v - (pi * v).sum(axis=1, keepdims=True))
        return product


class Layer(Protocol):
    """What a network asks of a layer: a linear map of its inputs, and its derivatives."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def forward(self, W: Array, x: Array, one: float = 1.0) -> Array: ...

    def backward(self, W: Array, g: Array, x: Array) -> Array: ...

    def gradient(self, x: Array, g: Array) -> Array: ...

    def scores(self, x: Array, g: Array) -> Scores: ...


class Likelihood(Protocol):
    """What a network asks of a likelihood, and its training of both."""

    def mean(self, z: Array) -> Array: ...

    def loss(self, z: Array, y: Array) -> Array: ...

    def right(self, z: Array, y: Array) -> NDArray[Any]: ...

    def draw(self, z: Array, rng: np.random.Generator) -> Array: ...

    def fisher(self, z: Array, v: Array) -> Array: ...


class Network:
    """Layers of tanh units under a likelihood.

    Parameters
    ----------
    layers
        ``Dense`` and ``Conv``, from the input to the output.
    likelihood
        Of the targets given the last layer's outputs.
    """

    def __init__(self, layers: Sequence[Layer], likelihood: Likelihood) -> None:
        self.layers, self.likelihood = layers, likelihood
        self.shapes = [layer.shape for layer in layers]
        self.n_params = sum(rows * columns for rows, columns in self.shapes)

    def initial(self, rng: np.random.Generator) -> Array:
        """Draw weights of variance 1/d_in, with zero biases."""
        theta = np.zeros(self.n_params)
        for W in self.weights(theta):
            d_in = W.shape[1] - 1
            W[:, :-1] = rng.standard_normal((len(W), d_in)) / np.sqrt(d_in)
        return theta

    def weights(self, theta: Array) -> list[Array]:
        """Views of the flat vector, one (d_out, d_in + 1) for each layer."""
        ends = [0, *accumulate(rows * columns for rows, columns in self.shapes)]
        parts = [theta[start:end] for start, end in pairwise(ends)]
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def evaluate(self, theta: Array, x: Array, y: Array) -> tuple[float, float]:
        """Mean loss and the share of right guesses."""
        _, z = self.forward(theta, x)
        return float(self.likelihood.loss(z, y).mean()), float(self.likelihood.right(z, y).mean())

    def mean_score(self, theta: Array, x: Array, y: Array) -> Array:
        """Gradient of the mean log-likelihood, ``(p,)``."""
        inputs, z = self.forward(theta, x)
        return self.mean_gradient(inputs, self.backward(theta, inputs, y - self.likelihood.mean(z)))

    def forward(self, theta: Array, x: Array) -> tuple[list[Array], Array]:
        """Inputs of each layer and the outputs of the last."""
        inputs = [x]
        for layer, W in zip(self.layers, self.weights(theta), strict=True):
            inputs.append(np.tanh(z := layer.forward(W, inputs[-1])))
        return inputs[:-1], z

    def backward(self, theta: Array, inputs: list[Array], g: Array) -> list[Array]:
        """Gradients at each layer's outputs, one sample at a time, from those at the last."""
        gradients, weights = [g], self.weights(theta)
        for layer, W, a in reversed([*zip(self.layers, weights, inputs, strict=True)][1:]):
            g = layer.backward(W, g, a) * (1 - a**2)
            gradients.insert(0, g)
        return gradients

    def tangent(self, theta: Array, inputs: list[Array], v: Array) -> Array:
        """Return J v: how each sample's outputs change as theta moves along v."""
        steps = zip(self.layers, self.weights(theta), self.weights(v), inputs, strict=True)
        dz: Array | None = None
        for layer, W, V, a in steps:
            # a is the tanh of the outputs before, whose tangent is dz: z' = V a + W (1 − a²) dz.
            before = 0 if dz is None else layer.forward(W, (1 - a**2) * dz, one=0.0)
            dz = layer.forward(V, a) + before
        assert dz is not None  # a network has a layer
        return dz

    def mean_gradient(self, inputs: list[Array], gradients: list[Array]) -> Array:
        """Mean over the samples of the gradients of all weights, ``(p,)``."""
        return np.concatenate(
            [
                layer.gradient(a, g).ravel() / len(a)
                for layer, a, g in zip(self.layers, inputs, gradients, strict=True)
            ]
        )

    def scores(self, inputs: list[Array], gradients: list[Array]) -> list[Scores]:
        """Return what a layered Fisher takes: the list of layers."""
        both = zip(self.layers, inputs, gradients, strict=True)
        return [layer.scores(a, g) for layer, a, g in both]
