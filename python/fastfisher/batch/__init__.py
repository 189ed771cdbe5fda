"""Many small Fishers at once: (B, p, p) in, one status per item out; a bad one harms no other.

For example:

>>> import numpy as np, fastfisher as ff
>>> scores = np.random.default_rng(0).standard_normal((1000, 20, 3))
>>> F = ff.batch.empirical_fisher(scores)
>>> F.shape
(1000, 3, 3)
>>> F[7] = np.nan
>>> solution = ff.batch.solve(F, np.ones((1000, 3)), on_failure="nan")
>>> solution.status[6:9] == ff.Status.NON_FINITE
array([False,  True, False])
"""

from fastfisher.batch.extended import Scores
from fastfisher.batch.scores import empirical_fisher
from fastfisher.batch.solution import BatchSolution
from fastfisher.batch.systems import inverse, inverse_diagonal, logdet, solve

__all__ = [
    "BatchSolution",
    "Scores",
    "empirical_fisher",
    "inverse",
    "inverse_diagonal",
    "logdet",
    "solve",
]
