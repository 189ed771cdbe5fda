"""Damping: turns a number or vector and a mode into what is added to F."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastfisher import _check

if TYPE_CHECKING:
    from fastfisher.fisher.protocol import Fisher

__all__ = ["MODES", "FactoredDamping", "diagonal_shift"]

MODES = ("absolute", "trace", "diagonal")


@dataclass(frozen=True, slots=True)
class FactoredDamping:
    """A damping λ that is shared out to the factors of a Kronecker product, no shift of F.

    It is not a float on purpose: whatever takes it for a diagonal fails.
    """

    damping: float

    def __add__(self, extra: float) -> "FactoredDamping":
        """Return it with more damping."""
        return FactoredDamping(self.damping + extra)


def diagonal_shift(fisher: "Fisher", damping: Any, mode: str = "absolute") -> Any:
    """Return the shift D of F + D, as a float or a vector (p,), or a damping of F's factors.

    Parameters
    ----------
    fisher : Fisher
        F; its trace or diagonal is read in the relative modes.
    damping : float or array (p,)
        λ, finite and not negative; a vector has one number per parameter.
    mode : {"absolute", "trace", "diagonal", "factored"}
        D = λ, λ · tr(F)/p, or λ · diag(F) (Marquardt). What "factored" damps, a representation
        with factors says; the others refuse it.

    Returns
    -------
    float, array (p,) or FactoredDamping
    """
    damping = _check.damping(fisher._ops, damping, fisher.shape[0])
    if mode == "absolute":
        return damping
    if mode == "trace":
        return damping * (fisher.trace() / fisher.shape[0])
    if mode == "diagonal":
        return damping * fisher.diagonal()
    if mode == "factored":
        return fisher._factored_damping(damping)
    raise ValueError(
        f"damping_mode: expected one of {', '.join(MODES)}, got {mode!r}. "
        "'absolute' is F + λI in every representation."
    )
