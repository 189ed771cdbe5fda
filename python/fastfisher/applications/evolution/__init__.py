"""Evolution strategies: natural gradients of a search distribution, where only losses are known."""

from fastfisher.applications.evolution.result import EvolutionRecord, EvolutionResult
from fastfisher.applications.evolution.snes import SNES
from fastfisher.applications.evolution.xnes import XNES

__all__ = ["SNES", "XNES", "EvolutionRecord", "EvolutionResult"]
