"""Adam: the relative of natural gradient descent that keeps a diagonal, under a root."""

from dataclasses import dataclass
from typing import Any

from fastfisher import _check
from fastfisher._ops import ops_of
from fastfisher._ops.border import takes_tensors
from fastfisher.applications.descent.model import starting_point

__all__ = ["Adam", "AdamState"]


@dataclass(frozen=True, slots=True, eq=False)
class AdamState:
    """Where Adam is; ``Adam.step`` returns the next.

    Attributes
    ----------
    theta : array (p,)
        The parameters.
    first_moment, second_moment : array (p,)
        m and v: decayed sums of gradients and of their squares, as yet biased towards 0.
    iteration : int
        t, steps taken.

    Examples
    --------
    >>> import fastfisher as ff
    >>> state = ff.Adam().start([1.0])
    >>> state.iteration, state.second_moment
    (0, array([0.]))
    """

    theta: Any
    first_moment: Any
    second_moment: Any
    iteration: int


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam, as published: a frozen choice of its constants, and steps from state to state.

    m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², θ ← θ − α m̂ / (√v̂ + ε), with the moments freed of
    their bias, m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ).

    Parameters
    ----------
    step_size : float
        α > 0.
    beta1, beta2 : float
        Decay of the moments, 0 ≤ β < 1.
    epsilon : float
        ε > 0.

    See Also
    --------
    natural_gradient_descent : with a `DiagonalFisher`, the diagonal natural gradient.

    Notes
    -----
    v is not the diagonal of F, though both are called a mean of squared gradients. g is the mean
    over a batch of B samples, and the square of a mean is not the mean of squares:
    E[g²] = F_ii / B + (1 − 1/B) (E s_i)². Near an optimum, where E s = 0, it is too small by the
    size of the batch. Scores per sample give F itself, and `DiagonalFisher` keeps it. Nor does Adam
    divide by v but by its root: of a parameter in other units, θᵢ / c, it takes steps of the same
    size α, where those of the diagonal natural gradient are divided by c too.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: A method for stochastic optimization", ICLR (2015), Algorithm 1.

    Examples
    --------
    >>> import fastfisher as ff
    >>> adam = ff.Adam(step_size=0.1)
    >>> state = adam.start([1.0, -2.0])
    >>> for _ in range(200):
    ...     state = adam.step(state, 2 * state.theta)  # the gradient of ‖θ‖²
    >>> bool(abs(state.theta).max() < 1e-2)
    True
    """

    step_size: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        for name in ("step_size", "epsilon"):
            _check.positive(name, getattr(self, name))
        for name in ("beta1", "beta2"):
            if not _check.cut(name, getattr(self, name)) < 1.0:
                raise ValueError(
                    f"{name}: expected less than 1, got {getattr(self, name)}. "
                    "It is the share of the moment that is kept."
                )

    @takes_tensors
    def start(self, theta: Any) -> AdamState:
        """Return the state before the first step, at parameters (p,), of which it has a copy."""
        theta = starting_point(theta)
        zero = ops_of(theta).xp.zeros_like(theta)
        return AdamState(theta, zero, zero, 0)

    @takes_tensors
    def step(self, state: AdamState, gradient: Any) -> AdamState:
        """Return the next state; the one given stays as it is.

        Parameters
        ----------
        state : AdamState
        gradient : array (p,)
            ∇L at ``state.theta``, of whatever batch.

        Returns
        -------
        AdamState

        Raises
        ------
        NonFiniteError, TypeError, ValueError
            For a gradient that is not finite, or does not fit.
        """
        ops, theta = ops_of(state.theta), state.theta
        g = _check.finite_columns(ops, "gradient", gradient, theta.shape[0], theta.dtype)
        if g.ndim != 1:
            raise ValueError(
                f"gradient: expected shape ({theta.shape[0]},), got {g.shape}. "
                "Give one number per parameter."
            )
        t = state.iteration + 1
        m = self.beta1 * state.first_moment + (1 - self.beta1) * g
        v = self.beta2 * state.second_moment + (1 - self.beta2) * g**2
        scale = ops.xp.sqrt(v / (1 - self.beta2**t)) + self.epsilon
        theta = theta - self.step_size * (m / (1 - self.beta1**t)) / scale
        return AdamState(theta, m, v, t)
