"""The size guard: refuses an array that will not fit, before anything is allocated."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fastfisher.errors import MemoryLimitError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["SMALL", "available_memory", "guard"]

# Below this many bytes the question is not worth the 50 microseconds that the answer takes.
UNGUARDED = 64 * 2**20
# A matrix of so few rows stays below that with all its partial sums: do not even ask.
SMALL = 256


def guard(size: int, what: str, advice: str, ops: "ModuleType | None" = None) -> None:
    """Raise if `size` bytes are more than the memory that is left.

    Parameters
    ----------
    size : int
        Bytes about to be allocated.
    what : str
        Which call or class asks.
    advice : str
        The representation to use instead, as one sentence.
    ops : module, optional
        The verbs of the arrays, whose device's memory it is; None for the host's.

    Raises
    ------
    MemoryLimitError
        Says the size in GiB, what is left, and `advice`.
    """
    if size <= UNGUARDED:
        return
    left = available_memory() if ops is None else ops.available_bytes()
    if left is not None and size > left:
        where = f" on {ops.here()}" if ops is not None and ops.here() else ""
        raise MemoryLimitError(
            f"{what}: expected at most the memory that is left{where}, {left / 2**30:.3g} GiB, "
            f"got a need of {size / 2**30:.3g} GiB. {advice}"
        )


def available_memory() -> int | None:
    """Return the bytes this process may still allocate; None where the system does not say.

    The smallest of what the machine has left and what every control group above the process
    leaves. File cache that can be dropped counts as free.
    """
    known = [left for left in (_machine(), *_control_groups()) if left is not None]
    return min(known, default=None)


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _control_groups() -> list[int | None]:
    """Read what each control group of this process leaves (Linux; versions 2 and 1)."""
    root = Path("/sys/fs/cgroup")
    try:
        memberships = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    left: list[int | None] = []
    for line in memberships:
        _, controllers, group = line.split(":", 2)
        inner = Path(group.lstrip("/"))
        if controllers == "":
            names = ("memory.max", "memory.current", "inactive_file")
            mount = root
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            mount = root / "memory"
        else:
            continue
        left += [_left_in(mount / level, *names) for level in (inner, *inner.parents)]
    return left


def _left_in(group: Path, limit: str, usage: str, cache: str) -> int | None:
    try:
        room = (group / limit).read_text(encoding="ascii").strip()
        if room == "max":
            return None
        left = int(room) - int((group / usage).read_text(encoding="ascii"))
        for line in (group / "memory.stat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == cache:
                left += int(value)
    except (OSError, ValueError):
        return None
    return max(left, 0)
