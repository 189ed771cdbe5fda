"""Categorical: one of K classes, by logits."""

from typing import Any, Self

import numpy as np

from fastfisher._ops.border import Shown, takes_tensors
from fastfisher.families import domain
from fastfisher.families.divergence import divergence
from fastfisher.families.domain import Array
from fastfisher.families.family import Family

__all__ = ["Categorical"]


class Categorical(Family):
    """The distribution of a label 0 … K−1, with probabilities π = softmax(logits).

    Parameters
    ----------
    logits : array (K,) or (n, K), K ≥ 2
        Adding a constant to all changes nothing.

    Attributes
    ----------
    probabilities : array (K,) or (n, K)

    Notes
    -----
    F = diag(π) − π πᵀ, which is *singular*, of rank K − 1: the logits' common constant has no
    information. Solve with damping, or fix one of the logits.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> family = ff.Categorical(np.log([0.5, 0.25, 0.25]))
    >>> family.fisher_information().round(4)
    array([[ 0.25  , -0.125 , -0.125 ],
           [-0.125 ,  0.1875, -0.0625],
           [-0.125 , -0.0625,  0.1875]])
    >>> family.score([0])
    array([[ 0.5 , -0.25, -0.25]])
    """

    logits = Shown()
    probabilities = Shown()
    _held = ("logits",)
    _derived = ("probabilities", "_log_probabilities")

    def __init__(self, logits: Any) -> None:
        logits = domain.real("logits", logits)
        if logits.ndim == 0 or logits.shape[-1] < 2:
            raise ValueError(
                f"logits: expected shape (K,) or (n, K) with K ≥ 2, got {logits.shape}. "
                "The last axis has one number per class; Bernoulli has a single one."
            )
        self._batch = logits.shape[:-1]
        self._classes = logits.shape[-1]
        self.logits = domain.own(logits, logits.shape)
        shifted = logits - logits.max(axis=-1, keepdims=True)
        self._log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        self.probabilities = domain.own(np.exp(self._log_probabilities), logits.shape)

    @property
    @takes_tensors
    def parameters(self) -> Any:
        """The logits."""
        return self.logits

    def with_parameters(self, parameters: Any) -> Self:
        """Return the same family at other logits."""
        return type(self)(self._new_parameters(parameters))

    def _check_support(self, x: Array) -> None:
        domain.whole("x", x, "A label is a whole number.")
        domain.at_most("x", x, self._classes - 1, "Labels count from 0.")

    def _log_prob(self, x: Array) -> Any:
        rows = np.broadcast_to(self._log_probabilities, (*x.shape, self._classes))
        labels = x.astype(np.intp)[..., None]
        return np.take_along_axis(rows, labels, axis=-1)[..., 0]

    def _score(self, x: Array) -> Any:
        scores = np.broadcast_to(-self.probabilities, (*x.shape, self._classes)).copy()
        labels = x.astype(np.intp)[..., None]
        hit = np.take_along_axis(scores, labels, axis=-1)
        np.put_along_axis(scores, labels, hit + 1, axis=-1)
        return scores

    def _fisher_information(self) -> Any:
        pi = self.probabilities
        return pi[..., None] * (np.eye(self._classes) - pi[..., None, :])

    def _information_root(self) -> Any:
        # Row y is √π_y times the score of label y: R = diag(√π) (I − 1πᵀ)
        pi = self.probabilities
        return np.sqrt(pi)[..., None] * (np.eye(self._classes) - pi[..., None, :])

    def _draw(self, count: int, generator: np.random.Generator) -> Any:
        edges = self.probabilities.cumsum(axis=-1)[..., :-1]
        uniform = generator.random((count, *self._batch))
        return (uniform[..., None] >= edges).sum(axis=-1)

    def _kl(self, other: Self) -> Any:
        if other._classes != self._classes:
            raise ValueError(
                f"other: expected {self._classes} classes, got {other._classes}. "
                "Both must be distributions of the same labels."
            )
        log_ratio = self._log_probabilities - other._log_probabilities
        return divergence(self.probabilities, other.probabilities, log_ratio).sum(axis=-1)
