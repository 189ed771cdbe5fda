"""Every public call with little memory left: it works or raises MemoryError, nothing else.

``python tests/memory_limits.py [MEGABYTES…]`` forks for every call and every allowance, limits the
address space of the child to so much more than it has, and tells which calls did what.
"""

import ctypes
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import calls

ALLOWANCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # MB
TIMEOUT = 60.0  # seconds; what hangs, hangs for ever
c_library = ctypes.CDLL(None)
if hasattr(c_library, "mallopt"):
    c_library.mallopt(-8, 1)  # M_ARENA_MAX: others hold 64 MB that no limit counts again
OUTCOMES = {41: "works", 42: "raises MemoryError"}  # by exit codes that no library ends with


def used() -> Any:
    """Return the bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def outcome(call: Any, inputs: Any, megabytes: Any) -> Any:
    """Return in words what a call does in a child of limited address space."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if hasattr(c_library, "malloc_trim"):
                c_library.malloc_trim(0)  # what was freed would be an allowance beside ours
            limit = used() + megabytes * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            call(inputs)
            code = 41
        except MemoryError:
            code = 42
        finally:
            os._exit(code)
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return OUTCOMES.get(code, f"ends with {code}")
        time.sleep(0.001)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "hangs"


def run(allowances: Any, names: Any = None) -> Iterator[Any]:
    """Yield (call, megabytes, outcome)."""
    inputs = calls.Inputs()
    for name, call in calls.CALLS.items():
        if names is None or name in names:
            for megabytes in allowances:
                yield name, megabytes, outcome(call, inputs, megabytes)


if __name__ == "__main__":
    failed = 0
    allowances = [int(text) for text in sys.argv[1:]] or ALLOWANCES
    for name, megabytes, found in run(allowances):
        if found not in OUTCOMES.values():
            failed += 1
        print(f"{name:26} with {megabytes:4} MB {found}")
    print(f"{failed} calls did something else")
    sys.exit(failed > 0)
