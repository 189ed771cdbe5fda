"""How a solve, a step or an iteration ended: one list for the core, the verbs and all above."""

from enum import Enum, IntEnum

__all__ = ["Status"]


class Status(IntEnum):
    """How a solve, a step or an iteration ended.

    The numbers up to ``STAGNATED`` are those of the native core and of ``batch``. An iteration such
    as ``natural_gradient_descent`` or ``levenberg_marquardt`` ends with ``SUCCESS`` when its
    stopping rule was met, or when it started where the gradient is zero, ``STAGNATED`` when no step
    it may take improves the loss, ``NON_FINITE`` when the loss or a gradient turned NaN or infinite
    (the last good parameters are returned), ``MAX_ITERATIONS``, or ``INTERRUPTED`` when a callback
    ended it. ``ZERO_GRADIENT`` is for single steps, ``trust_region_step`` and ``trpo_step``, that
    have no direction to go.

    Examples
    --------
    >>> import fastfisher as ff
    >>> ff.Status.SUCCESS == 0
    True
    >>> for status in ff.Status:
    ...     print(int(status), status)
    0 SUCCESS
    1 NOT_POSITIVE_DEFINITE
    2 NON_FINITE
    3 SHIFTED
    4 TRUNCATED
    5 MAX_ITERATIONS
    6 NEGATIVE_CURVATURE
    7 STAGNATED
    8 ZERO_GRADIENT
    9 INTERRUPTED
    """

    SUCCESS = 0
    NOT_POSITIVE_DEFINITE = 1
    NON_FINITE = 2
    SHIFTED = 3
    TRUNCATED = 4
    MAX_ITERATIONS = 5
    NEGATIVE_CURVATURE = 6
    STAGNATED = 7
    ZERO_GRADIENT = 8
    INTERRUPTED = 9

    def __str__(self) -> str:
        return self.name

    __format__ = Enum.__format__  # as `str` has it: integers would write their number
