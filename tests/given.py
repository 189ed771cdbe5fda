"""What the verbs are given: scores, weights and vectors of one library and dtype, and answers."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastfisher as ff
import libraries
import oracle
from fastfisher import _check
from fastfisher._ops import for_dtype, ops_of

DTYPES = (*libraries.REAL, *libraries.COMPLEX)
STORED = (*DTYPES, *libraries.HALVES)

N, P = 61, 7  # prime


class Given:
    """Scores, weights, vectors and verbs of one library and dtype."""

    def __init__(self, library: libraries.Library, dtype: str) -> None:
        self.library, self.to = library, library.to
        self.dtype = libraries.half(dtype)
        self.sums = _check.sum_dtype(self.dtype)
        self.S = oracle.draw(N, P, self.sums).astype(self.dtype)
        self.w = oracle.draw_weights(N).astype(_check.real_of(self.sums))
        self.V = oracle.draw(P, 3, self.sums)
        self.scores, self.weights = self.to(self.S), self.to(self.w)
        if library.has_verbs:
            self.ops = for_dtype(ops_of(self.scores), self.sums)
        self.m = oracle.mean(self.S, self.w).astype(self.sums)
        self.mean = self.to(self.m)
        self.F = oracle.fisher(self.S, self.w, reduction="sum")
        self.centred = oracle.rooted(self.S, self.w, center=True)

    def triangle(self) -> Any:
        triangle = self.ops.Triangle(P, self.sums)
        triangle.add_scores(
            self.scores, self.weights, None, fresh=True, check_finite=True, threads=0
        )
        return triangle

    def close(
        self,
        actual: Any,
        expected: np.ndarray,
        terms: int = N,
        scale: float | np.floating | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        if not np.isscalar(actual):
            assert self.library.is_own(actual), f"an array of {type(actual)}"
            actual = self.library.back(actual)
        oracle.close(actual, expected, dtype or self.sums, terms, scale)


def agree(library: libraries.Library, found: ff.Fisher, expected: ff.Fisher) -> None:
    """Assert that two representations hold the same matrix."""
    dense = found.to_dense()
    assert library.is_own(dense)
    oracle.close(library.back(dense), expected.to_dense(), expected.dtype, 8 * N)
    assert found.weight_sum == pytest.approx(expected.weight_sum)
    assert found.n_samples == expected.n_samples
