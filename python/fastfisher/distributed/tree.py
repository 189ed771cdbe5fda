"""The tree in which parts are joined: fixed by their order, whoever computed them and when."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from fastfisher._ops.border import inside, takes_tensors
from fastfisher.errors import NonFiniteError
from fastfisher.fisher.additive import Additive

__all__ = ["add", "finite", "merge_tree", "tree"]

Part = TypeVar("Part")
Sum = TypeVar("Sum", bound=Additive)


@takes_tensors
def merge_tree(parts: Iterable[Sum]) -> Sum:
    """Return the Fisher of all samples from those of its parts, joined in a fixed tree.

    Equivalent to ``functools.reduce(operator.add, parts)`` to rounding.

    Parameters
    ----------
    parts : iterable of accumulators
        At least one, of one class and built the same way; none of them is changed. It may be a
        generator, such as ``pool.map(…)`` or ``joblib.Parallel(return_as="generator")(…)``.

    Returns
    -------
    accumulator, of the class of the parts
        One of its own: updating it changes no part.

    Raises
    ------
    TypeError, ValueError
        If there are none, or if they do not merge.
    NonFiniteError
        If the sum is not finite: it overflows, or a part was not.

    Notes
    -----
    Neighbours are joined first, then pairs of them, and so on, so that rounding grows with the
    logarithm of the number of parts. The bits depend on the parts and their order alone. Of m parts
    from a generator ⌈log₂ m⌉ + 2 at most are held at a time.

    References
    ----------
    N. J. Higham, "The accuracy of floating point summation", SIAM J. Sci. Comput. 14 (1993) 783.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> blocks = np.random.default_rng(0).standard_normal((8, 500, 3))
    >>> def part(block):
    ...     return ff.DenseFisher.from_scores(block, n_threads=1)
    >>> with ThreadPoolExecutor(2) as pool:
    ...     F = ff.distributed.merge_tree(pool.map(part, blocks))
    >>> F.n_samples
    4000
    """
    seen = 0

    def checked(part: Sum) -> Sum:
        nonlocal seen
        seen += 1
        if not isinstance(part, Additive):
            raise TypeError(
                f"parts: expected accumulators, got {type(part).__name__}. "
                "Use what merges, such as DenseFisher or DiagonalFisher."
            )
        return part

    total: Sum = tree(map(checked, parts), add)
    return finite(total.copy() if seen == 1 else total)


def tree(parts: Iterable[Part], join: Callable[[Part, Part], Part]) -> Part:
    """Return ``join`` of all parts: neighbours first, then pairs of them, the rest from the right.

    Of seven parts ((0 1)(2 3))((4 5) 6). Parts may be what stands for an accumulator elsewhere: a
    task that will sum it, the number of a process that holds it.
    """
    joined: list[tuple[int, Part]] = []  # with heights that fall, as the digits of a binary counter
    for part in parts:
        height = 0
        while joined and joined[-1][0] == height:
            part = join(joined.pop()[1], part)
            height += 1
        joined.append((height, part))
    if not joined:
        raise ValueError("parts: expected at least one, got none. There is nothing to join.")
    _, total = joined.pop()
    while joined:
        total = join(joined.pop()[1], total)
    return total


def add(one: Any, two: Any) -> Any:
    """Return the sum of two accumulators, which stay as they are; `finite` looks at the last."""
    with np.errstate(over="ignore", invalid="ignore"):
        return one.copy()._merge((two,), check_finite=False)


@inside  # whatever the parts were made of
def finite(fisher: Sum) -> Sum:
    """Return what was joined, unless it is not finite: the sum of finite parts may overflow.

    No entry of F is larger than the largest on its diagonal, so that is where to look.
    """
    if fisher.weight_sum == 0.0:
        return fisher
    with np.errstate(over="ignore", invalid="ignore"):
        diagonal = fisher.diagonal()
    bad = ~np.isfinite(diagonal)
    if bad.any():
        place = int(bad.argmax())
        raise NonFiniteError(
            f"fisher: expected finite sums, got {diagonal[place]} at parameter {place}, of parts "
            f"summed in {fisher.dtype}. Scale the scores down, or sum in a wider dtype.",
            column=place,
        )
    return fisher
