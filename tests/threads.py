"""Calls every kernel on three threads, and one accumulator from several, for the thread sanitizer.

``python tests/threads.py`` in a build with ``-fsanitize=thread -DFASTFISHER_STD_THREADS``: with the
sanitizer's runtime loaded first, a race between two of our own threads ends it.
"""

import threading
from typing import Any

import numpy as np

import calls
import everything
import fastfisher as ff
import verbs

THREADS = 3


def one_accumulator() -> None:
    """Let threads update, merge and read the same accumulators."""
    S = everything.draw(400, 60)
    for F in (ff.DenseFisher(60), ff.SquareRootFisher(60), ff.LowRankFisher(60, 9)):
        other = F.copy().update(S)

        def work(F: Any = F, other: Any = other) -> None:
            for _ in range(3):
                F.update(S, n_threads=2).merge(other).decay(0.5)
                F @ np.ones(60)
                F.solve(np.ones(60), damping=1.0)

        team = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()


if __name__ == "__main__":
    ff.set_num_threads(THREADS)
    calls.THREADS = THREADS
    everything.SHAPES = {"tall": (2000, 60), "tiles": (400, 230), "wide": (70, 500)}
    for dtype in (np.float64, np.complex64):
        everything.results(THREADS, dtype)
        for name, call in verbs.calls(dtype):  # test_reproducibility.py: these reach every kernel
            print(name, flush=True)
            call()
        print(dtype.__name__, flush=True)
    inputs = calls.Inputs(n=600, p=120)
    for name, call in calls.CALLS.items():
        print(name, flush=True)
        call(inputs)
    one_accumulator()
    print("done")
