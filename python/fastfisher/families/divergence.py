"""The divergence of two positive numbers, of which log-probabilities and KL divergences are made.

D(x‖y) = x log(x/y) − x + y ≥ 0 is the KL divergence of two Poisson distributions. The logarithm of
a Poisson probability is its value at the peak λ = x less D(x‖λ), so no large terms cancel:

    log p(x | λ) = [x log x − x − log x!] − D(x‖λ)

and a binomial one has two such terms. D(1‖r) = r − 1 − log r serves scales and means.

References
----------
C. Loader, "Fast and accurate computation of binomial probabilities" (2000).
"""

from typing import Any

import numpy as np

from fastfisher.families.domain import Array

__all__ = ["divergence", "log_peak"]

# log((1 + v)/(1 − v)) = 2 (v + v³/3 + v⁵/5 + …): for |v| < 0.1 the first term left out,
# v^20/21 relative to the first kept, v²/3, is below 2e-19.
_NEAR = 0.1
_ARTANH = tuple(1.0 / odd for odd in range(19, 1, -2))
# log x! = x log x − x + ½ log 2πx + 1/(12x) − 1/(360x³) + …; from x = 16 the first term left out,
# 691/(360360 x¹¹), is below 2e-16.
_STIRLING = (1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12)
_FIRST = 16


def divergence(x: Any, y: Any, log_ratio: Any = None) -> Any:
    """Return D(x‖y) = x log(x/y) − x + y for x, y ≥ 0, to a few eps of itself.

    Where x ≈ y, with v = (x − y)/(x + y):  D = (x − y) v + 2 x v (v²/3 + v⁴/5 + …).

    Shapes: x and y broadcast. 0 log 0 is 0; D(x‖0) is infinite for x > 0. `log_ratio` is log(x/y)
    where the caller knows it better than the quotient does.
    """
    with np.errstate(all="ignore"):
        x, y = np.asarray(x), np.asarray(y)
        difference = x - y
        v = difference / (x + y)
        square = v * v
        near = difference * v + 2 * x * v * (square * np.polyval(_ARTANH, square))
        if log_ratio is None:
            ratio = x / y
            inside = (ratio > 0) & (ratio < np.inf)  # else it left the range of float64
            log_ratio = np.where(inside, np.log(ratio), np.log(x) - np.log(y))
        far = np.where(x > 0, x * log_ratio, 0.0) - difference
        return np.where(np.abs(v) < _NEAR, near, far)


def log_peak(x: Array) -> Array:
    """Return x log x − x − log x! for whole x ≥ 0: log p(x | λ = x) of a Poisson distribution."""
    large = np.maximum(x, _FIRST)
    series = _series(large)
    small: Array = _TABLE[np.minimum(x, _FIRST).astype(np.intp)]
    return np.where(x < _FIRST, small, series)


def _series(x: Any) -> Any:
    return -0.5 * np.log(2 * np.pi * x) - np.polyval(_STIRLING, 1 / x**2) / x


def _table() -> Array:
    """Return log_peak(0 … 16), downwards: log_peak(x) = log_peak(x + 1) + 1 − x log(1 + 1/x)."""
    peaks = np.zeros(_FIRST + 1)
    peaks[_FIRST] = _series(float(_FIRST))
    for x in range(_FIRST - 1, 0, -1):
        peaks[x] = peaks[x + 1] + 1 - x * np.log1p(1 / x)
    return peaks


_TABLE = _table()
