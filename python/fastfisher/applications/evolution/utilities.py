"""Utilities: what a draw is worth by the rank of its loss, and sums over draws weighted so."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfisher.families import domain

__all__ = ["Array", "by_rank", "of_population", "signed_sum"]

Array = NDArray[np.float64]


def of_population(given: Any, population: int) -> Any:
    """Return the utilities of the draws from best to worst: as given, or else as published."""
    if given is None:
        ranks = np.arange(1, population + 1)
        shares = np.maximum(0.0, math.log(population / 2 + 1) - np.log(ranks))
        return shares / shares.sum() - 1 / population
    utilities = domain.real("utilities", given)
    if utilities.shape != (population,):
        raise ValueError(
            f"utilities: expected shape ({population},), got {utilities.shape}. "
            "Give one number per draw, or leave them out and any population will do."
        )
    if (np.diff(utilities) > 0).any() or utilities[0] == utilities[-1]:
        raise ValueError(
            f"utilities: expected numbers that fall from the best draw to the worst, got "
            f"{utilities}. The best draw comes first."
        )
    return domain.own(utilities, utilities.shape)


def by_rank(utilities: Array, losses: Array) -> Any:
    """Return the utility of each draw: that of its rank, the mean of those of equal losses."""
    _, place = np.unique(losses, return_inverse=True)
    return (np.bincount(np.sort(place), utilities) / np.bincount(place))[place]


def signed_sum(function: Callable[..., Any], draws: Array, utilities: Array) -> Any:
    """Return Σ u z zᵀ, or its diagonal: weights are not negative, so those below 0 are apart."""
    good, bad = utilities > 0, utilities < 0
    gain = function(draws[good], weights=utilities[good], reduction="sum")
    return gain - function(draws[bad], weights=-utilities[bad], reduction="sum")
