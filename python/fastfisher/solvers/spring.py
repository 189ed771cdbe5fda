"""Spring: natural gradients of variational Monte Carlo that remember the step before."""

import math
from typing import Any

from fastfisher import _check
from fastfisher._ops.border import Shown, TakesTensors, takes_tensors
from fastfisher.fisher.score import ScoreFisher

__all__ = ["Spring"]


class Spring(TakesTensors):
    """SPRING: the dual natural gradient of local energies, with momentum.

    Each step φ_t solves Ō φ = ε̄ as nearly as the damping allows, starting from the last one:
    it minimises ‖Ō φ − ε̄‖² + λ ‖φ − μ φ_{t−1}‖², which is

        φ_t = μ φ_{t−1} + Ōᴴ (Ō Ōᴴ + λI)⁻¹ (ε̄ − μ Ō φ_{t−1}),

    with Ō = W½ (S − 1mᵀ) / √Σw and ε̄ = √w (ε − Σwε / Σw) / √Σw the centred scores and residuals.
    The first step, and every one with μ = 0, is that of stochastic reconfiguration in its dual form
    (minSR): (F + λI)⁻¹ E[(s − m)* (ε − ε̄)].

    Parameters
    ----------
    damping : float
        λ > 0, of the mean-reduced Gram matrix; the paper finds 1e-3.
    momentum : float
        μ, 0 ≤ μ < 1. The paper finds 0.99 for most systems.

    Attributes
    ----------
    direction : array (p,) or None
        φ of the last step.

    See Also
    --------
    natural_gradient, Dual

    Notes
    -----
    A step costs n² p + 6 n p multiplications and n³/3: made for n < p. The parameters move by
    θ ← θ − η φ to lower the energy. The bound on ‖η φ‖ that the paper puts on a step is left to the
    caller. For complex wave functions of real parameters, whose F is Re E[s* sᵀ], stack the parts:
    ``step(np.vstack([S.real, S.imag]), np.r_[E.real, E.imag])`` with S and E centred before and
    half the damping, for they are twice as many samples.

    References
    ----------
    G. Goldshlager, N. Abrahamsen and L. Lin, "A Kaczmarz-inspired approach to accelerate the
    optimization of neural network wavefunctions", J. Comput. Phys. 516 (2024) 113351.
    A. Chen and M. Heyl, "Empowering deep neural quantum states through efficient optimization",
    Nat. Phys. 20 (2024) 1476.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> rng = np.random.default_rng(0)
    >>> spring, energies = ff.Spring(damping=1e-3, momentum=0.9), rng.standard_normal(8)
    >>> for _ in range(3):
    ...     step = spring.step(rng.standard_normal((8, 100)), energies)
    >>> step.shape
    (100,)
    >>> bool((spring.direction == step).all())
    True
    """

    _last = Shown()

    def __init__(self, damping: float, momentum: float = 0.99) -> None:
        self.damping = _check.cut("damping", damping)
        if self.damping == 0.0:
            raise ValueError(
                "damping: expected a positive number, got 0. Centred scores have a singular Gram "
                "matrix."
            )
        self.momentum = _check.cut("momentum", momentum)
        if not self.momentum < 1.0:
            raise ValueError(
                f"momentum: expected less than 1, got {momentum}. 0.99 keeps most of the last step."
            )
        self._last = None

    @property
    def _filled(self) -> bool:
        return self._last is not None

    @property
    @takes_tensors
    def direction(self) -> Any:
        """φ of the last step, (p,), a copy; None before the first."""
        return None if self._last is None else self._last.copy()

    def __repr__(self) -> str:
        return f"Spring(damping={self.damping:g}, momentum={self.momentum:g})"

    def step(
        self,
        scores: Any,
        residuals: Any,
        weights: Any = None,
        *,
        check_finite: bool = True,
        n_threads: int | None = None,
    ) -> Any:
        """Return φ_t for these samples, (p,), and remember it; an error changes nothing.

        Parameters
        ----------
        scores : array (n, p)
            One row per sample: ∂ log ψ / ∂θ. Neither they nor the residuals need be centred.
        residuals : array (n,)
            Local energies, or whatever the scores shall reproduce.
        weights : array (n,), optional
            Not negative, not all zero.
        check_finite : bool
            Raise on NaN and infinity.
        n_threads : int, optional

        Returns
        -------
        array (p,)

        Raises
        ------
        NonFiniteError, MemoryLimitError, TypeError, ValueError
        """
        fisher = ScoreFisher(
            scores, weights=weights, center=True, check_finite=check_finite, n_threads=n_threads
        )
        threads = _check.threads(n_threads)
        samples, params = fisher.n_samples, fisher.shape[0]
        check = _check.finite_columns if check_finite else _check.columns
        energies = check(fisher._ops, "residuals", residuals, samples, fisher.dtype)
        if energies.ndim != 1:
            raise ValueError(
                f"residuals: expected shape ({samples},), got {energies.shape}. "
                "Give one number per sample."
            )
        last = self._last
        if last is not None and last.shape != (params,):
            raise ValueError(
                f"scores: expected {last.shape[0]} parameters, as the last step had, got {params}. "
                "Begin another Spring for another model."
            )
        unit = math.sqrt(fisher._scale)
        energies = (energies - fisher._weighted_mean(energies))[:, None]
        target = unit * fisher._root_weights() * energies.astype(fisher.dtype)
        start = 0.0
        if last is not None and self.momentum > 0.0:
            _check.same_kind(fisher.dtype, last.dtype)
            start = self.momentum * last.reshape(-1, 1).astype(fisher.dtype)
            target = target - unit * fisher._rooted_dot(start, threads)
        factor = fisher._dual_factor(self.damping, threads=threads, with_norm=False)
        inner = (unit * factor.solve_gram(target)).astype(fisher.dtype, copy=False)
        self._last = (start + fisher._rooted_transpose_dot(inner, threads)).reshape(-1)
        return self._last.copy()
