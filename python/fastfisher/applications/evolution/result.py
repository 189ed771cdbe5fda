"""What an evolution strategy tells: a record of each generation, and the result."""

from dataclasses import dataclass
from typing import Any

from fastfisher.solvers.solution import Status

__all__ = ["EvolutionRecord", "EvolutionResult"]


@dataclass(frozen=True, slots=True, eq=False)
class EvolutionRecord:
    """One generation: what it found, and where it left the search distribution.

    Attributes
    ----------
    iteration : int
        Generations so far, this one among them.
    evaluations : int
        Losses evaluated so far.
    loss : float
        The best of this generation.
    best_loss : float
        The best so far.
    sigma : float
        The largest standard deviation after it.
    population : int
        Its number of draws; a restart makes it larger.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> result = ff.SNES(np.ones(3), 0.5, rng=0).minimize(
    ...     lambda x: (x**2).sum(), max_evaluations=21
    ... )
    >>> for record in result.history:
    ...     print(record.iteration, record.evaluations, record.population)
    1 7 7
    2 14 7
    3 21 7
    >>> record.best_loss <= record.loss, record.sigma < 1
    (True, True)
    """

    iteration: int
    evaluations: int
    loss: float
    best_loss: float
    sigma: float
    population: int


@dataclass(frozen=True, slots=True, eq=False)
class EvolutionResult:
    """What ``minimize`` of an evolution strategy found, and why it ended.

    Attributes
    ----------
    theta : array (p,)
        The best point that was evaluated; the mean if no loss was finite.
    loss : float
        Its loss; infinite if none was finite.
    status : Status
        ``SUCCESS`` if the target was reached or, without one, sigma fell below the tolerance;
        ``STAGNATED`` if the search came to rest otherwise, ``MAX_ITERATIONS`` if the next
        generation would pass the budget, ``NON_FINITE`` if losses were no longer finite, one was
        −∞, or the search distribution left the range of float64, ``INTERRUPTED`` if the callback
        said so.
    message : str
        The same in words.
    iterations : int
        Generations that the search learned from.
    evaluations : int
        Losses that were evaluated, those of a generation with −∞ too.
    restarts : int
        How often the search began again.
    history : tuple of EvolutionRecord
        One of each generation: ``[record.loss for record in result.history]``.

    See Also
    --------
    EvolutionRecord

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> result = ff.SNES(np.ones(3), 0.5, rng=0).minimize(
    ...     lambda x: (x**2).sum(axis=1), max_evaluations=5000, target=1e-10, vectorized=True
    ... )
    >>> result.status.name, result.loss <= 1e-10, result.evaluations < 5000
    ('SUCCESS', True, True)
    >>> result.history[-1].best_loss == result.loss
    True
    >>> result.iterations == len(result.history), result.restarts, result.theta.shape
    (True, 0, (3,))
    >>> result.message
    'the loss is at or below the target 1e-10'
    """

    theta: Any
    loss: float
    status: Status
    message: str
    iterations: int
    evaluations: int
    restarts: int
    history: tuple[EvolutionRecord, ...]
