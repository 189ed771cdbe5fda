"""Calls everything over and over and looks for what grows: bytes of C, objects of Python, memory.

``python tests/leaks.py CALLS`` prints what each public function keeps per call, when it works and
when it raises; ``--resident`` also holds it against the memory that the system has given.
"""

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import calls

# A call that leaks one object or one allocation leaks as many as there are calls; caches of the
# interpreter (free lists, specialised bytecode) fill up and are full: what leaks grows each time.
ROUNDS = 6  # each twice as long as the one before
OBJECTS_PER_CALL = 0.9
BYTES_PER_CALL = 32.0
RESIDENT_PER_CALL = 1024.0  # where a thousand calls may shuffle a megabyte


class _Mallinfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]


library = ctypes.CDLL(None) if sys.platform == "linux" else None
counts_bytes = hasattr(library, "mallinfo2")
if counts_bytes:
    assert library is not None
    library.mallinfo2.restype = _Mallinfo


def held() -> Any:
    """Return the bytes that C allocations hold, the Python objects, and the resident bytes."""
    gc.collect()
    numbers = library.mallinfo2() if library is not None and counts_bytes else None
    count = numbers.uordblks + numbers.hblkhd if numbers else 0
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if numbers else 0
    return count, sys.getallocatedblocks(), pages * resource.getpagesize()


def kept(call: Any, inputs: Any, times: Any) -> Any:
    """Return what one call keeps on average: bytes, objects, resident bytes."""
    fisher = inputs.F

    def once() -> None:
        inputs.F = fisher.copy()
        with suppress(Exception):
            call(inputs)

    for _ in range(3):
        once()
    before = held()
    for _ in range(times):
        once()
    return [(now - then) / times for now, then in zip(held(), before, strict=True)]


def run(times: Any, *, resident: bool = False) -> Iterator[Any]:
    """Yield (name, bytes, objects, resident bytes, whether that is a leak)."""
    inputs = calls.Inputs(n=300, p=100)
    for table, how in ((calls.CALLS, "works"), (calls.REFUSED, "raises")):
        for name, call in table.items():
            for doublings in range(ROUNDS):
                found = kept(call, inputs, times << doublings)
                leaks = found[0] > BYTES_PER_CALL or found[1] > OBJECTS_PER_CALL
                leaks = leaks or (resident and found[2] > RESIDENT_PER_CALL)
                if not leaks:
                    break
            yield f"{name} ({how})", *found, leaks


if __name__ == "__main__":
    leaking = 0
    for name, count, objects, pages, leaks in run(
        int(sys.argv[1]), resident="--resident" in sys.argv
    ):
        leaking += leaks
        mark = "LEAKS" if leaks else ""
        print(f"{name:34} {count:9.1f} B {objects:7.2f} objects {pages:10.0f} B resident {mark}")
    print(f"{leaking} leaks")
    sys.exit(leaking > 0)
