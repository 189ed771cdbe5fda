"""What a model says at some parameters, checked: loss, gradient, and a Fisher of any kind."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastfisher import _check
from fastfisher._ops import ops_of
from fastfisher.applications.metric import as_metric
from fastfisher.errors import NonFiniteError
from fastfisher.fisher import Fisher, LayerFisher, ScoreFisher
from fastfisher.fisher.operator import is_operator

__all__ = ["Model", "Point", "evaluate", "finite_loss", "starting_point"]

Model = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Parameters, and what the model said there; `samples` tells whether F was updated since."""

    theta: Any
    loss: float
    gradient: Any
    fisher: Fisher
    samples: int


def starting_point(theta: Any) -> Any:
    """Return the parameters as a new float64 or float32 array (p,)."""
    ops = ops_of(theta)
    single = getattr(theta, "dtype", None) == np.float32
    array = ops.to_vector("theta", theta, np.dtype(np.float32 if single else np.float64))
    if array.ndim != 1 or array.shape[0] == 0:
        raise ValueError(
            f"theta: expected shape (p,) with p ≥ 1, got {array.shape}. "
            "Give all parameters as one flat vector."
        )
    if not ops.all_finite(array):
        raise NonFiniteError(
            "theta: expected finite values, got NaN or infinity. Find out where it comes from."
        )
    return array.copy()


def evaluate(model: Model, theta: Any) -> Point:
    """Return the model at θ, of which it gets a copy; raise what is wrong with its answer."""
    ops = ops_of(theta)
    if not ops.all_finite(theta):
        raise NonFiniteError(
            "theta: expected finite values after a step, got NaN or infinity. "
            "Take shorter steps: max_kl bounds them, damping shortens them."
        )
    answer = model(theta.copy())
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        got = f"{len(answer)} values" if isinstance(answer, tuple) else type(answer).__name__
        raise TypeError(
            f"model: expected (loss, gradient, curvature), got {got}. "
            "Return all three for the parameters it is called with."
        )
    loss = finite_loss(answer[0])
    fisher = _as_fisher(answer[2], theta)
    gradient, _ = fisher._unfolded("gradient", answer[1])
    gradient = _check.finite_columns(ops, "gradient", gradient, theta.shape[0], theta.dtype)
    if gradient.ndim != 1:
        raise ValueError(
            f"gradient: expected shape ({theta.shape[0]},), got {gradient.shape}. "
            "It is that of the loss, one number per parameter."
        )
    return Point(theta, loss, gradient.copy(), fisher, fisher.n_samples)


def finite_loss(value: Any) -> float:
    """Return the loss as a float."""
    array = np.asarray(ops_of(value).to_host(value))
    if array.ndim != 0 or array.dtype.kind not in "fiub":
        raise TypeError(
            f"loss: expected a real number, got {type(value).__name__} of shape {array.shape}. "
            "Return the one number that is to be minimised."
        )
    loss = float(array)
    if not math.isfinite(loss):
        raise NonFiniteError(
            f"loss: expected a finite number, got {loss}. "
            "Look for overflow, or for parameters outside the domain of the model."
        )
    return loss


def _as_fisher(curvature: Any, theta: Any) -> Fisher:
    """Return a `ScoreFisher` of scores, a `LayerFisher` of layers, and any other metric's own."""
    params = theta.shape[0]
    if isinstance(curvature, Fisher) or is_operator(curvature) or callable(curvature):
        fisher = as_metric(curvature, theta)
    elif isinstance(curvature, tuple | list):
        fisher = LayerFisher(curvature)
    else:
        if np.shape(curvature) == (params, params):
            raise ValueError(
                f"curvature: expected scores (n, {params}), layers or a Fisher, got an array of "
                f"shape ({params}, {params}), which may be scores or a matrix. "
                "Say ff.ScoreFisher(S), or ff.DenseFisher.from_matrix(F)."
            )
        fisher = ScoreFisher(curvature)
    if fisher.dtype.kind == "c":
        raise TypeError(
            f"curvature: expected real numbers, got {fisher.dtype}. "
            "For complex wave functions stack real and imaginary parts, or use ff.Spring."
        )
    if fisher.shape[0] != params:
        raise ValueError(
            f"curvature: expected {params} parameters as theta has, got {fisher.shape[0]}. "
            "Both must be of the same model."
        )
    return fisher
