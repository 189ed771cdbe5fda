"""Softmax classifiers in plain NumPy that give their gradients one sample at a time.

Parameters are one flat vector: the C-order ravel of each layer's ``(d_out, d_in + 1)`` weight (the
last column is the bias), layers concatenated. Every derivative here is one reverse pass, vectorised
over the samples.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.intp]


class Network:
    """Layers of tanh units under a softmax; two widths make it softmax regression.

    Parameters
    ----------
    widths
        Inputs, hidden units per layer, classes: ``(64, 10)`` or ``(64, 16, 10)``.
    """

    def __init__(self, *widths: int) -> None:
        self.shapes = [(d_out, d_in + 1) for d_in, d_out in pairwise(widths)]
        self.n_params = sum(rows * columns for rows, columns in self.shapes)
        self.n_classes = widths[-1]

    def initial(self, rng: np.random.Generator) -> Array:
        """Draw weights of variance 1/d_in, with zero biases."""
        theta = np.zeros(self.n_params)
        for W in self._layers(theta):
            d_in = W.shape[1] - 1
            W[:, :-1] = rng.standard_normal((len(W), d_in)) / np.sqrt(d_in)
        return theta

    def probabilities(self, theta: Array, x: Array) -> Array:
        """Class probabilities, ``(n, K)``."""
        return self._forward(theta, x)[1]

    def evaluate(self, theta: Array, x: Array, y: Labels) -> tuple[float, float]:
        """Mean negative log-likelihood in nats, and the share of right guesses."""
        pi = self.probabilities(theta, x)
        likelihood = np.maximum(pi[np.arange(len(y)), y], 1e-300)  # a wrong certainty stays finite
        return float(-np.log(likelihood).mean()), float(np.mean(pi.argmax(axis=1) == y))

    def mean_score(self, theta: Array, x: Array, y: Labels) -> Array:
        """Gradient of the mean log-likelihood, ``(p,)``, without the per-sample scores.

        Equivalent to ``scores(theta, x, y).mean(axis=0)``.
        """
        inputs, pi = self._forward(theta, x)
        layers = self._layers(theta)
        delta = (np.eye(self.n_classes)[y] - pi) / len(x)
        gradients = [delta.T @ inputs[-1]]
        for i in reversed(range(len(layers) - 1)):
            delta = (delta @ layers[i + 1][:, :-1]) * (1 - inputs[i + 1][:, :-1] ** 2)
            gradients.insert(0, delta.T @ inputs[i])
        return np.concatenate([gradient.ravel() for gradient in gradients])

    def scores(self, theta: Array, x: Array, y: Labels) -> Array:
        """Per-sample gradients of log p(y | x): row i is Jᵢᵀ(e_yᵢ − πᵢ), ``(n, p)``."""
        inputs, pi = self._forward(theta, x)
        cotangents = np.eye(self.n_classes)[y] - pi
        return self._pull_back(theta, inputs, cotangents[:, None, :])[:, 0]

    def class_scores(self, theta: Array, x: Array) -> tuple[Array, Array]:
        """Scores of *every* class and their probabilities, ``(n·K, p)`` and ``(n·K,)``.

        The weighted Fisher of these rows is the exact (type-II) Fisher: it sums the labels out,
        Σ_k π_k s_k s_kᵀ = Jᵀ (diag π − π πᵀ) J.
        """
        inputs, pi = self._forward(theta, x)
        cotangents = np.eye(self.n_classes) - pi[:, None, :]
        rows = self._pull_back(theta, inputs, cotangents)
        return rows.reshape(-1, self.n_params), pi.ravel()

    def jacobians(self, theta: Array, x: Array) -> Array:
        """Jacobian of the logits for each sample, ``(n, K, p)``."""
        inputs, _ = self._forward(theta, x)
        eye = np.eye(self.n_classes)
        return self._pull_back(theta, inputs, np.broadcast_to(eye, (len(x), *eye.shape)))

    def _layers(self, theta: Array) -> list[Array]:
        """Views of the flat vector, one weight matrix per layer."""
        ends = np.cumsum([rows * columns for rows, columns in self.shapes])
        return [
            part.reshape(shape)
            for part, shape in zip(np.split(theta, ends[:-1]), self.shapes, strict=True)
        ]

    def _forward(self, theta: Array, x: Array) -> tuple[list[Array], Array]:
        """Inputs of each layer (with a column of ones for the bias) and the class probabilities."""
        inputs, ones = [], np.ones((len(x), 1))
        *hidden, last = self._layers(theta)
        for W in hidden:
            inputs.append(np.hstack([x, ones]))
            x = np.tanh(inputs[-1] @ W.T)
        inputs.append(np.hstack([x, ones]))
        z = inputs[-1] @ last.T
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return inputs, e / e.sum(axis=1, keepdims=True)

    def _pull_back(self, theta: Array, inputs: list[Array], cotangents: Array) -> Array:
        """Rows cᵀJᵢ for m cotangents c of the logits per sample: ``(n, m, K)`` to ``(n, m, p)``."""
        layers = self._layers(theta)
        n, m, _ = cotangents.shape
        rows = np.empty((n, m, self.n_params))
        delta, stop = cotangents, self.n_params
        for i in reversed(range(len(layers))):
            if i + 1 < len(layers):
                delta = (delta @ layers[i + 1][:, :-1]) * (1 - inputs[i + 1][:, None, :-1] ** 2)
            start = stop - layers[i].size
            block = rows[:, :, start:stop].reshape(n, m, *self.shapes[i])  # a view
            np.multiply(delta[..., None], inputs[i][:, None, None, :], out=block)
            stop = start
        return rows
