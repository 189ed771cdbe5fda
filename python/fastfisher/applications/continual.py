"""Continual learning: elastic weight consolidation of any number of tasks, with any Fisher."""

import math
from collections.abc import Callable
from copy import deepcopy
from itertools import compress
from types import ModuleType
from typing import Any, Self

import numpy as np

from fastfisher import _check
from fastfisher._ops import ops_of
from fastfisher._ops.border import TakesTensors, takes_tensors
from fastfisher.applications.semidefinite import semidefinite
from fastfisher.errors import NonFiniteError
from fastfisher.fisher.diagonal import DiagonalFisher
from fastfisher.fisher.protocol import Fisher
from fastfisher.functions import as_fisher

__all__ = ["ElasticWeightConsolidation", "ewc_penalty"]

MODES = ("separate", "online")


@takes_tensors
def ewc_penalty(
    fisher_diagonal: Any, theta: Any, anchor: Any, strength: float
) -> tuple[float, Any]:
    """Return the penalty of elastic weight consolidation and its gradient.

    Equivalent to ``0.5 * strength * (F * d**2).sum(), strength * F * d`` with the diagonal F and
    ``d = theta - anchor``; with any other Fisher ``0.5 * strength * d @ F @ d, strength * F @ d``.

    Parameters
    ----------
    fisher_diagonal : array (p,), array (p, p) or Fisher
        How much the old task depends on each parameter: the mean of the squares of its *per-sample*
        scores, as ``fisher_diagonal`` and `DiagonalFisher` give it. (The square of the mean
        gradient is something else.) A matrix or any other representation gives the whole quadratic
        form, of which the diagonal is the special case.
    theta : array (p,)
        The parameters that are being trained; for a Fisher of layers also the list of the weights.
    anchor : array (p,)
        The parameters at the end of the old task, where F was taken, in either form.
    strength : float
        Not negative. The Fisher is taken as it reads: a mean-reduced one is per sample. Beside a
        loss that is the mean over n_B samples of the new task, the product of posteriors has
        n_A / n_B for an old task of n_A samples; the best strength may be far from that, and is
        found by trying.

    Returns
    -------
    value : float
        ½ · strength · Σ F_ii (θ_i − anchor_i)².
    gradient : array (p,)
        strength · F_ii (θ_i − anchor_i), in the form of `theta`.

    Raises
    ------
    NonFiniteError
        Also where the penalty overflows.
    NotPositiveDefiniteError
        Where it comes out negative by more than rounding.
    TypeError, ValueError

    See Also
    --------
    ElasticWeightConsolidation : any number of tasks.

    Notes
    -----
    One product with F. It is `strength` times the leading term of KL(anchor ‖ θ), so moves that
    the old task does not notice are free, which is what a plain ‖θ − anchor‖² forbids. Of complex
    parameters it is half of that, as `kl_quadratic` explains; the gradient is ∂/∂x + i ∂/∂y.

    References
    ----------
    J. Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 114 (2017)
    3521.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> theta, anchor = np.array([1.0, 2.0]), np.array([0.0, 2.5])
    >>> ff.ewc_penalty(np.array([4.0, 2.0]), theta, anchor, strength=10.0)
    (22.5, array([ 40., -10.]))
    """
    F = _fisher("fisher_diagonal", fisher_diagonal)
    theta, fold = _vector(F, "theta", theta)
    d = theta - _vector(F, "anchor", anchor)[0]
    value, gradient = _penalty(F, d, _check.cut("strength", strength))
    return value, fold(gradient)


class ElasticWeightConsolidation(TakesTensors):
    """What earlier tasks ask of the parameters: a penalty to add to the loss of the next one.

    Mode "separate" keeps an anchor and a Fisher of each task; its penalty is
    ½ s Σ_k (θ − θ_k)ᵀ F_k (θ − θ_k). Mode "online" keeps the last anchor θ_K and the running Fisher
    F ← γ F + F_k; its penalty is ½ s (θ − θ_K)ᵀ F (θ − θ_K).

    Parameters
    ----------
    strength : float
        s, not negative, as in `ewc_penalty`; it may be set again later.
    mode : {"separate", "online"}
    decay : float
        γ of online mode, 0 to 1: what each new task leaves of the *old* Fisher, as in
        ``Fisher.decay``. 1 forgets nothing, 0 all tasks but the last.

    Attributes
    ----------
    n_tasks : int
        How many tasks were consolidated.

    See Also
    --------
    ewc_penalty, DiagonalFisher

    Notes
    -----
    The solution of the second task is pulled towards the first already, so Laplace's approximation
    of what both say is F₁ + F₂ about θ₂ alone: online mode with γ = 1 (Huszár). Separate mode
    counts earlier tasks once more with each task, which holds them tighter (Kirkpatrick et al.).
    With γ < 1 they fade (Schwarz et al., who multiply by γ once more when the penalty is used:
    their λ is s / γ).

    Fishers are taken as they read. Mean-reduced ones are per sample, so tasks count alike however
    many samples they had; those of reduction "sum" count by their samples, as Bayes' rule has it,
    with s = 1 / n for a loss that is the mean over n samples.

    Of diagonals, online mode holds 2p numbers and separate mode 2p for each task. Any other
    representation is kept as it is for each task, in either mode, since a sum of two need not be
    one of its kind. Where it is, ``F.decay(gamma).merge(F_k)`` is the running sum, for reduction
    "sum".

    References
    ----------
    J. Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 114 (2017)
    3521. F. Huszár, "Note on the quadratic penalties in elastic weight consolidation", PNAS 115
    (2018) E2496. J. Schwarz et al., "Progress & compress: a scalable framework for continual
    learning", ICML (2018).

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> ewc = ff.ElasticWeightConsolidation(strength=10.0)
    >>> scores = np.array([[2.0, 0.0], [0.0, 1.0]])  # one row per sample, at the end of a task
    >>> ewc = ewc.consolidate(np.array([1.0, 1.0]), ff.fisher_diagonal(scores))
    >>> ewc.penalty(np.zeros(2))
    (12.5, array([-20.,  -5.]))
    """

    def __init__(self, strength: float, *, mode: str = "separate", decay: float = 1.0) -> None:
        self.strength = strength
        if mode not in MODES:
            raise ValueError(
                f"mode: expected one of {', '.join(MODES)}, got {mode!r}. "
                "'online' keeps one anchor and one running Fisher."
            )
        self.mode = mode
        self.decay = _check.cut("decay", decay)
        if self.decay > 1.0 or (mode == "separate" and self.decay < 1.0):
            raise ValueError(
                f"decay: expected {'1' if mode == 'separate' else '0 to 1'} in mode {mode!r}, got "
                f"{decay}. It is what online mode keeps of the old Fisher."
            )
        self.n_tasks = 0
        # Weight, Fisher and anchor: the penalty is the sum of theirs.
        self._terms: list[tuple[float, Fisher, Any]] = []

    @property
    def _filled(self) -> bool:
        return self.n_tasks > 0

    @property
    def strength(self) -> float:
        """What the penalty is multiplied by."""
        return self._strength

    @strength.setter
    def strength(self, strength: float) -> None:
        self._strength = _check.cut("strength", strength)

    def __repr__(self) -> str:
        return (
            f"ElasticWeightConsolidation(strength={self.strength:g}, mode={self.mode!r}, "
            f"decay={self.decay:g}, n_tasks={self.n_tasks})"
        )

    def consolidate(self, theta: Any, fisher: Any) -> Self:
        """Remember a task that is done, and return self; an error changes nothing.

        Parameters
        ----------
        theta : array (p,)
            The parameters at its end.
        fisher : array (p,), array (p, p) or Fisher
            Of this task alone, at `theta`; a diagonal or any other, as in `ewc_penalty`. Both are
            copied.

        Raises
        ------
        NonFiniteError, TypeError, ValueError
            Also for a number of parameters, or for real or complex ones, that the first task did
            not have.
        """
        F = _fisher("fisher", fisher)
        if self._terms and F.shape != self._terms[0][1].shape:
            raise ValueError(
                f"fisher: expected {self._terms[0][1].shape[0]} parameters, as the first task had, "
                f"got {F.shape[0]}. Consolidate the parameters that all tasks share."
            )
        if self._terms and F.dtype.kind != self._terms[0][1].dtype.kind:
            raise TypeError(
                f"fisher: expected numbers like {self._terms[0][1].dtype}, as the first task had, "
                f"got {F.dtype}. Parameters are real or complex in all tasks alike."
            )
        anchor = _vector(F, "theta", theta)[0].copy()
        _penalty(F, anchor - anchor, 1.0)  # a Fisher of no samples fails here, not in the next task
        F = deepcopy(F)
        if self.mode == "separate":
            self._terms = [*self._terms, (1.0, F, anchor)]
        else:
            held = [(self.decay * weight, old) for weight, old, _ in self._terms]
            held = [(weight, old) for weight, old in held if weight > 0.0]  # it may underflow
            self._terms = [(weight, one, anchor) for weight, one in _gathered([*held, (1.0, F)])]
        self.n_tasks += 1
        return self

    def penalty(self, theta: Any) -> tuple[float, Any]:
        """Return the penalty at `theta` and its gradient, to be added to a loss and its gradient.

        Parameters
        ----------
        theta : array (p,)
            If the first Fisher that is kept is one of layers, also the list of the weights.

        Returns
        -------
        value : float
            0.0 before the first task.
        gradient : array (p,)
            In the form of `theta`.

        Raises
        ------
        NonFiniteError, NotPositiveDefiniteError, TypeError, ValueError
        """
        if not self._terms:
            return 0.0, _no_gradient(theta)
        theta, fold = _vector(self._terms[0][1], "theta", theta)
        parts = [
            _penalty(F, theta - anchor, self.strength * weight) for weight, F, anchor in self._terms
        ]
        values, gradients = zip(*parts, strict=True)
        return math.fsum(values), fold(sum(gradients))


def _fisher(name: str, fisher: Any) -> Fisher:
    """Return a representation as it is, of a vector the diagonal, of a matrix all of it."""
    if isinstance(fisher, Fisher):
        return fisher
    ops = ops_of(fisher)
    if ops.xp.ndim(fisher) == 2:
        return as_fisher(fisher)
    return DiagonalFisher.from_diagonal(_check.diagonal(ops, fisher, name), reduction="sum")


def _vector(F: Fisher, name: str, value: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return a finite vector (p,) in double precision, so that θ − anchor has all its digits.

    And what gives a vector the form of the value, flat or the list of a network's weights.
    """
    flat, fold = F._unfolded(name, value)
    dtype = np.result_type(F.dtype, np.float64)
    return _flat(F._ops, name, flat, F.shape[0], dtype), fold


def _flat(ops: ModuleType, name: str, value: Any, params: int, dtype: np.dtype[Any]) -> Any:
    vector = _check.finite_columns(ops, name, value, params, dtype)
    if vector.ndim != 1:
        raise ValueError(
            f"{name}: expected shape ({params},), got {vector.shape}. "
            "Give all parameters as one flat vector."
        )
    return vector


def _no_gradient(theta: Any) -> Any:
    """Return zeros in the form of θ, flat or a list of weights, where no Fisher knows its shape."""
    if isinstance(theta, list | tuple) and any(np.ndim(one) for one in theta[:1]):
        return [_no_gradient(np.ravel(one)).reshape(np.shape(one)) for one in theta]
    dtype = np.dtype(np.complex128 if np.iscomplexobj(theta) else np.float64)
    ops = ops_of(theta)
    flat = _flat(ops, "theta", theta, np.size(theta), dtype)
    return ops.zeros(flat.shape, flat.dtype)


def _penalty(F: Fisher, d: Any, strength: float) -> tuple[float, Any]:
    """Return ½ strength d* F d and strength F d, flat, for d = θ − anchor."""
    with np.errstate(over="ignore", invalid="ignore"):
        gradient = strength * (F @ d)
        value = 0.5 * float((d.conj() * gradient).real.sum())
    if not math.isfinite(value):
        raise NonFiniteError(
            f"penalty: expected a finite number, got {value}. θ is too far from the anchor, or the "
            "Fisher is not finite."
        )
    if value < 0.0:
        semidefinite(F, d, value / (0.5 * strength))
    return value, gradient


def _gathered(terms: list[tuple[float, Fisher]]) -> list[tuple[float, Fisher]]:
    """Return the same weighted sum of Fishers with all real diagonals in one."""
    real = [isinstance(F, DiagonalFisher) and F.dtype.kind != "c" for _, F in terms]
    if sum(real) < 2:
        return terms
    total = sum(weight * F.diagonal() for weight, F in compress(terms, real))
    others = [term for term, diagonal in zip(terms, real, strict=True) if not diagonal]
    return [*others, (1.0, DiagonalFisher.from_diagonal(total, reduction="sum"))]
