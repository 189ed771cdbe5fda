"""Past one process: accumulators of parts of the samples, joined in a fixed tree.

Whoever sums which part, the answer has the same bits: they depend on how the samples are cut, and
on nothing else. What travels is an accumulator, for a `DenseFisher` half a matrix.

For example:

>>> import numpy as np, fastfisher as ff
>>> scores = np.random.default_rng(0).standard_normal((1000, 3))
>>> parts = [ff.DenseFisher.from_scores(part) for part in np.array_split(scores, 7)]
>>> ff.distributed.merge_tree(parts).n_samples
1000
"""

from fastfisher.distributed.dask import empirical_fisher
from fastfisher.distributed.mpi import allreduce
from fastfisher.distributed.tree import merge_tree

__all__ = ["allreduce", "empirical_fisher", "merge_tree"]
