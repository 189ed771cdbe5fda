"""Inference: tests, covariances and samples of estimates, from scores and total information."""

from fastfisher.applications.inference.covariance import (
    opg_covariance,
    sandwich_covariance,
    score_covariance,
)
from fastfisher.applications.inference.hypothesis import ChiSquaredTest, score_test, wald_test
from fastfisher.applications.inference.laplace import kl_quadratic, laplace_sample
from fastfisher.applications.inference.scan import ScoreTests, score_tests

__all__ = [
    "ChiSquaredTest",
    "ScoreTests",
    "kl_quadratic",
    "laplace_sample",
    "opg_covariance",
    "sandwich_covariance",
    "score_covariance",
    "score_test",
    "score_tests",
    "wald_test",
]
