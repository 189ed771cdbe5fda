"""Descent: the loop of natural gradients for any model, and Adam as its diagonal relative."""

from fastfisher.applications.descent.adam import Adam, AdamState
from fastfisher.applications.descent.loop import natural_gradient_descent
from fastfisher.applications.descent.result import DescentRecord, DescentResult, DescentState

__all__ = [
    "Adam",
    "AdamState",
    "DescentRecord",
    "DescentResult",
    "DescentState",
    "natural_gradient_descent",
]
