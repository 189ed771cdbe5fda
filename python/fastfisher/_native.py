"""Picks the native core once, at import: its instruction-set level and its number of threads."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from fastfisher._version import __version__


def in_subinterpreter() -> bool:
    """Tell whether this is an interpreter beside the main one of its process."""
    try:
        interpreters = import_module("_interpreters")
    except ImportError:
        try:
            interpreters = import_module("_xxsubinterpreters")  # until Python 3.12
        except ImportError:
            return False
    return bool(interpreters.get_current() != interpreters.get_main())


if in_subinterpreter():  # NumPy does not support them; before Python 3.12 our modules would hang
    raise ImportError(
        "fastfisher: expected the main interpreter of the process, got a subinterpreter. "
        "Use threads, which share the accumulators, or processes."
    )

from fastfisher import _cpu  # noqa: E402

__all__ = ["core", "get_num_threads", "isa", "set_num_threads", "show_config"]

# Every level there is: CMakeLists.txt compiles them, `_cpu` says which can run, the fastest last.
MODULES = {
    "baseline": "_core",
    "avx2": "_core_avx2",
    "avx512": "_core_avx512",
    "avx512_bf16": "_core_avx512_bf16",
    "amx": "_core_amx",
}
# More than any machine has cores for; OpenMP ends the process on absurd numbers.
MOST_THREADS = 4096


def choose_isa(requested: str | None, supported: list[str], built: list[str]) -> str:
    """Return the level to load: the requested one if it can be had, else the fastest that can.

    Parameters
    ----------
    requested : str or None
        What ``FASTFISHER_ISA`` says; None or empty when the choice is ours.
    supported, built : list of str
        Levels that this machine can run, the fastest last, and levels that this installation holds.

    Raises
    ------
    ImportError
        If the request is unknown, cannot run here or was not built, or if there is no choice.
    """
    usable = [level for level in supported if level in built]
    if not usable:
        raise ImportError(
            f"fastfisher: expected a core module for one of {', '.join(supported)}, got "
            f"{', '.join(built) or 'none'}. Build the package first: pip install ."
        )
    if not requested:
        return usable[-1]
    if requested not in MODULES:
        raise ImportError(
            f"FASTFISHER_ISA: expected one of {', '.join(MODULES)}, got {requested!r}. "
            "Leave it unset to get the fastest level of this machine."
        )
    if requested not in supported:
        raise ImportError(
            f"FASTFISHER_ISA: expected a level that this processor and operating system can run "
            f"({', '.join(supported)}), got {requested!r}. "
            "Leave it unset to get the fastest level of this machine."
        )
    if requested not in built:
        raise ImportError(
            f"FASTFISHER_ISA: expected a level that this installation holds "
            f"({', '.join(built)}), got {requested!r}. "
            "Build the package with -DFASTFISHER_LEVELS=all to have every level."
        )
    return requested


@contextmanager
def calm_openmp() -> Iterator[None]:
    """Set OpenMP's waiting policy for the time of one import, and put the environment back.

    After a parallel region the workers of libgomp and libomp spin for milliseconds in the hope of
    more work, and take the cores away from whatever the caller runs next, such as NumPy's own
    product. Both runtimes read the variables once, while they are loaded, so setting them here
    calms our copy and neither the rest of the process nor its children. A spin count of 1000
    lasts some tens of microseconds (one `pause` each): enough to bridge two regions of one of our
    calls, too short to be missed by anyone. Whoever has chosen a policy keeps it; a runtime that
    somebody loaded before us keeps its own.
    """
    calm = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
    chosen = "OMP_WAIT_POLICY" in os.environ
    added = [] if chosen else [name for name in calm if name not in os.environ]
    os.environ.update((name, calm[name]) for name in added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


isa: str = choose_isa(
    os.environ.get("FASTFISHER_ISA"),
    _cpu.supported(),
    [level for level, module in MODULES.items() if find_spec(f"fastfisher.{module}") is not None],
)

if TYPE_CHECKING:
    from fastfisher import _core as core
else:
    with calm_openmp():
        core = import_module(f"fastfisher.{MODULES[isa]}")


def cpu_quota(memberships: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int | None:
    """Return the processor quota of this process's control groups, rounded up; None without one.

    A container that may use two processors' worth of time still sees every processor of its host;
    more threads than the quota only wait for one another. Both versions of Linux's control groups
    are read, at every level up to the root, because the tightest level binds.
    """
    try:
        lines = Path(memberships).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, read = Path(root), _quota_v2
        elif "cpu" in controllers.split(","):
            mount, read = Path(root, controllers), _quota_v1
        else:
            continue
        inner = Path(group.lstrip("/"))
        quotas += [q for level in (inner, *inner.parents) if (q := read(mount / level)) is not None]
    return max(1, math.ceil(min(quotas))) if quotas else None


def _quota_v2(group: Path) -> float | None:
    """Read ``cpu.max``: "quota period" or "max period", in microseconds."""
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    """Read the two files of the first version; a quota of -1 is none."""
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period = int((group / "cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def set_num_threads(n: int | None) -> None:
    """Set how many threads each call may use from now on.

    Results have the same bits whatever the number.

    Parameters
    ----------
    n : int or None
        From 1 to 4096; more than OpenMP allows (``OMP_NUM_THREADS``, or the processors this process
        may run on) counts as what it allows. None goes back to the default: what OpenMP allows,
        but no more than the control group's quota.

    Raises
    ------
    TypeError, ValueError
        If `n` is not a whole number, or not from 1 to 4096.

    Examples
    --------
    >>> import fastfisher as ff
    >>> ff.set_num_threads(1)
    >>> ff.get_num_threads()
    1
    >>> ff.set_num_threads(None)
    """
    if n is None:
        core.set_threads(0)
        quota = cpu_quota()
        if quota is not None and quota < core.max_threads():
            core.set_threads(quota)
        return
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(
            f"n: expected a whole number of threads or None, got {type(n).__name__}. "
            "None goes back to the default."
        )
    if n.__index__() < 1:
        raise ValueError(f"n: expected at least 1 thread, got {n}. None goes back to the default.")
    if n.__index__() > MOST_THREADS:
        raise ValueError(
            f"n: expected at most {MOST_THREADS} threads, got {n}. None goes back to the default."
        )
    core.set_threads(n.__index__())


def get_num_threads() -> int:
    """Return how many threads a call would use now.

    Examples
    --------
    >>> import fastfisher as ff
    >>> ff.get_num_threads() >= 1
    True
    """
    return core.max_threads()


@overload
def show_config(mode: Literal["print"] = ...) -> None: ...
@overload
def show_config(mode: Literal["dict"]) -> dict[str, Any]: ...
def show_config(mode: Literal["print", "dict"] = "print") -> dict[str, Any] | None:
    """Show what runs here: versions, instruction-set level, threads; paste it into a bug report.

    Parameters
    ----------
    mode : {"print", "dict"}
        Print a table, or return the same as a dictionary.

    Raises
    ------
    ValueError
        If `mode` is neither.

    Examples
    --------
    >>> import fastfisher as ff
    >>> ff.show_config("dict")["isa"] in ff.show_config("dict")["isa_supported"]
    True
    """
    if mode not in ("print", "dict"):
        raise ValueError(
            f"mode: expected 'print' or 'dict', got {mode!r}. 'print' writes a table to stdout."
        )
    import platform

    import numpy as np

    config: dict[str, Any] = {
        "fastfisher": __version__,
        "isa": isa,
        "isa_supported": _cpu.supported(),
        "threads": get_num_threads(),
        "openmp": core.openmp,
        "eigen": core.eigen_version,
        "compiler": core.compiler,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
    }
    if mode == "dict":
        return config
    for name, value in config.items():
        print(f"{name:14}{', '.join(value) if isinstance(value, list) else value}")
    return None


set_num_threads(None)
