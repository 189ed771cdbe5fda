"""Trust region: the best step whose KL divergence is bounded, and TRPO, which checks it."""

from fastfisher.applications.trust_region.step import trust_region_step
from fastfisher.applications.trust_region.trpo import TRPOStep, trpo_step

__all__ = ["TRPOStep", "trpo_step", "trust_region_step"]
