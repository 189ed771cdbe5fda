"""Families: distributions with known score and Fisher information, and the models they end.

Examples
--------
>>> import numpy as np, fastfisher as ff
>>> family = ff.families.Poisson(3.0)
>>> x = family.sample(100_000, rng=0)
>>> empirical = ff.empirical_fisher(family.score(x))
>>> bool(np.allclose(empirical, family.fisher_information(), rtol=0.02))
True
"""

from fastfisher.families.categorical import Categorical
from fastfisher.families.counts import Bernoulli, Binomial, Poisson
from fastfisher.families.exponential import Exponential
from fastfisher.families.family import Family
from fastfisher.families.gaussian import Gaussian
from fastfisher.families.multivariate import MultivariateGaussian
from fastfisher.families.outputs import exact_fisher, monte_carlo_fisher, output_fisher

__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "Exponential",
    "Family",
    "Gaussian",
    "MultivariateGaussian",
    "Poisson",
    "exact_fisher",
    "monte_carlo_fisher",
    "output_fisher",
]
