"""Blocks of scores that a worker makes by itself; slow ones leave a note of who made them."""

import os
import time
from pathlib import Path

import numpy as np

ROWS, PARAMS = 200, 30


def block(place, rows=ROWS, params=PARAMS):
    rng = np.random.default_rng([place, rows, params])
    return rng.standard_normal((rows, params)) + 3.0  # a mean for centring to take out


def slow_block(place, folder, seconds):
    note = Path(folder, f"{place}-{os.getpid()}-{time.monotonic_ns()}")
    note.touch()
    time.sleep(seconds)
    return block(place)


def makers(folder):
    """Return the process of each block that was begun, as often as it was."""
    return [int(note.name.split("-")[1]) for note in Path(folder).iterdir()]


def layers(place):
    rng = np.random.default_rng(place)
    return [(rng.standard_normal((50, 4)), rng.standard_normal((50, 3)))]
