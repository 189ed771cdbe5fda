"""Inference: what total information says about estimates, for any representation of it."""

from fastfisher.applications.inference.laplace import kl_quadratic, laplace_sample

__all__ = ["kl_quadratic", "laplace_sample"]
