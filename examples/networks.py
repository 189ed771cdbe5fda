"""Dense and convolutional networks in plain NumPy that give each layer's inputs and gradients.

Parameters are one flat vector, as the layered Fishers have them: the C-order ravel of each layer's
``(d_out, d_in + 1)`` weight (the last column is the bias), layers concatenated. The units are tanh,
the last layer gives the natural parameters of a likelihood, and every gradient is that of the
log-likelihood, so that a step *along* it is an ascent.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

import fastfisher as ff


@dataclass(frozen=True)
class Dense:
    """z = W x + b, with whatever shape x has flattened."""

    d_in: int
    d_out: int

    @property
    def shape(self):
        return self.d_out, self.d_in + 1

    def forward(self, W, x, one=1.0):
        """Return W (x, one): the tangent of x has a zero where x has the one of the bias."""
        return x.reshape(len(x), -1) @ W[:, :-1].T + one * W[:, -1]

    def backward(self, W, g, x):
        """Return the gradient at the input, of the shape of x."""
        return (g @ W[:, :-1]).reshape(x.shape)

    def gradient(self, x, g):
        """Return Σᵢ gᵢ (xᵢ, 1)ᵀ, (d_out, d_in + 1)."""
        return np.column_stack([g.T @ x.reshape(len(x), -1), g.sum(axis=0)])

    def scores(self, x, g):
        """Return what a layered Fisher takes."""
        return ff.LinearLayer(x.reshape(len(x), -1), g, bias=True)


@dataclass(frozen=True)
class Conv:
    """A convolution with a 3 × 3 kernel and a border of one zero."""

    channels: int
    d_out: int
    stride: int = 1

    @property
    def shape(self):
        return self.d_out, 9 * self.channels + 1

    def forward(self, W, x, one=1.0):
        patches, grid = self._patches(x)
        z = patches @ W[:, :-1].T + one * W[:, -1]
        return np.ascontiguousarray(z.reshape(len(x), *grid, -1).transpose(0, 3, 1, 2))

    def backward(self, W, g, x):
        n, channels, height, width = x.shape
        down, across = (self.stride * length for length in g.shape[2:])
        padded = np.zeros((n, channels, height + 2, width + 2))
        kernels = W[:, :-1].reshape(self.d_out, channels, 3, 3)
        for i in range(3):
            for j in range(3):
                window = padded[:, :, i : i + down : self.stride, j : j + across : self.stride]
                window += np.tensordot(kernels[:, :, i, j], g, (0, 1)).transpose(1, 0, 2, 3)
        return padded[:, :, 1:-1, 1:-1]

    def gradient(self, x, g):
        g = g.transpose(0, 2, 3, 1).reshape(-1, self.d_out)
        return np.column_stack([g.T @ self._patches(x)[0], g.sum(axis=0)])

    def scores(self, x, g):
        return ff.Conv2dLayer(x, g, 3, stride=self.stride, padding=1, bias=True)

    def _patches(self, x):
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

    def mean(self, z):
        return 0.5 + 0.5 * np.tanh(0.5 * z)

    def loss(self, z, y):
        """Kullback-Leibler divergence of each sample: 0 where mean(z) = y."""
        floor = np.zeros_like(y)
        for share in (y, 1 - y):
            floor += share * np.log(share, out=np.zeros_like(y), where=share > 0)
        return (np.logaddexp(0, z) - y * z + floor).sum(axis=1)

    def right(self, z, y):
        """Share of bits on the right side of one half."""
        return ((z > 0) == (y > 0.5)).mean(axis=1)

    def draw(self, z, rng):
        return (rng.random(z.shape) < self.mean(z)).astype(float)

    def fisher(self, z, v):
        """Return diag(π(1 − π)) v for each sample."""
        pi = self.mean(z)
        return pi * (1 - pi) * v


class Categorical:
    """One of K classes with logits z; targets are one-hot."""

    def mean(self, z):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def loss(self, z, y):
        """−log p(y) of each sample, in nats."""
        z = z - z.max(axis=1, keepdims=True)
        return np.log(np.exp(z).sum(axis=1)) - (y * z).sum(axis=1)

    def right(self, z, y):
        return z.argmax(axis=1) == y.argmax(axis=1)

    def draw(self, z, rng):
        # The largest of logits plus Gumbel noise is a draw from the softmax.
        return np.eye(z.shape[1])[(z + rng.gumbel(size=z.shape)).argmax(axis=1)]

    def fisher(self, z, v):
        """Return (diag π − π πᵀ) v for each sample."""
        pi = self.mean(z)
        return pi * (v - (pi * v).sum(axis=1, keepdims=True))


class Network:
    """Layers of tanh units under a likelihood.

    Parameters
    ----------
    layers
        ``Dense`` and ``Conv``, from the input to the output.
    likelihood
        Of the targets given the last layer's outputs.
    """

    def __init__(self, layers, likelihood):
        self.layers, self.likelihood = layers, likelihood
        self.shapes = [layer.shape for layer in layers]
        self.n_params = sum(rows * columns for rows, columns in self.shapes)

    def initial(self, rng):
        """Draw weights of variance 1/d_in, with zero biases."""
        theta = np.zeros(self.n_params)
        for W in self.weights(theta):
            d_in = W.shape[1] - 1
            W[:, :-1] = rng.standard_normal((len(W), d_in)) / np.sqrt(d_in)
        return theta

    def weights(self, theta):
        """Views of the flat vector, one (d_out, d_in + 1) for each layer."""
        ends = [0, *accumulate(rows * columns for rows, columns in self.shapes)]
        parts = [theta[start:end] for start, end in pairwise(ends)]
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def evaluate(self, theta, x, y):
        """Mean loss and the share of right guesses."""
        _, z = self.forward(theta, x)
        return float(self.likelihood.loss(z, y).mean()), float(self.likelihood.right(z, y).mean())

    def mean_score(self, theta, x, y):
        """Gradient of the mean log-likelihood, ``(p,)``."""
        inputs, z = self.forward(theta, x)
        return self.mean_gradient(inputs, self.backward(theta, inputs, y - self.likelihood.mean(z)))

    def forward(self, theta, x):
        """Inputs of each layer and the outputs of the last."""
        inputs = [x]
        for layer, W in zip(self.layers, self.weights(theta), strict=True):
            inputs.append(np.tanh(z := layer.forward(W, inputs[-1])))
        return inputs[:-1], z

    def backward(self, theta, inputs, g):
        """Gradients at each layer's outputs, one sample at a time, from those at the last."""
        gradients, weights = [g], self.weights(theta)
        for layer, W, a in reversed([*zip(self.layers, weights, inputs, strict=True)][1:]):
            g = layer.backward(W, g, a) * (1 - a**2)
            gradients.insert(0, g)
        return gradients

    def tangent(self, theta, inputs, v):
        """Return J v: how each sample's outputs change as theta moves along v."""
        steps = zip(self.layers, self.weights(theta), self.weights(v), inputs, strict=True)
        dz = None
        for layer, W, V, a in steps:
            # a is the tanh of the outputs before, whose tangent is dz: z' = V a + W (1 − a²) dz.
            before = 0 if dz is None else layer.forward(W, (1 - a**2) * dz, one=0.0)
            dz = layer.forward(V, a) + before
        return dz

    def mean_gradient(self, inputs, gradients):
        """Mean over the samples of the gradients of all weights, ``(p,)``."""
        return np.concatenate(
            [
                layer.gradient(a, g).ravel() / len(a)
                for layer, a, g in zip(self.layers, inputs, gradients, strict=True)
            ]
        )

    def scores(self, inputs, gradients):
        """Return what a layered Fisher takes: the list of layers."""
        both = zip(self.layers, inputs, gradients, strict=True)
        return [layer.scores(a, g) for layer, a, g in both]
