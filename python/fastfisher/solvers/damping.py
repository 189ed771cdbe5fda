"""Damping: turns a number or vector and a mode into what is added to the diagonal of F."""

from typing import TYPE_CHECKING, Any

from fastfisher import _check

if TYPE_CHECKING:
    from fastfisher.fisher.protocol import Fisher

__all__ = ["MODES", "diagonal_shift"]

MODES = ("absolute", "trace", "diagonal")


def diagonal_shift(fisher: "Fisher", damping: Any, mode: str = "absolute") -> Any:
    """Return the shift D of F + D, as a float or a vector (p,).

    Parameters
    ----------
    fisher : Fisher
        F; its trace or diagonal is read in the relative modes.
    damping : float or array (p,)
        λ, finite and not negative; a vector has one number per parameter.
    mode : {"absolute", "trace", "diagonal"}
        D = λ, λ · tr(F)/p, or λ · diag(F) (Marquardt).

    Returns
    -------
    float or array (p,)
    """
    damping = _check.damping(fisher._ops, damping, fisher.shape[0])
    if mode == "absolute":
        return damping
    if mode == "trace":
        return damping * (fisher.trace() / fisher.shape[0])
    if mode == "diagonal":
        return damping * fisher.diagonal()
    raise ValueError(
        f"damping_mode: expected one of {', '.join(MODES)}, got {mode!r}. "
        "'absolute' is F + λI in every representation."
    )
