"""Blocks of scores that a worker makes by itself; some leave a note of who made them, and wait."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

ROWS, PARAMS = 200, 30


def block(place: int, rows: int = ROWS, params: int = PARAMS) -> np.ndarray:
    rng = np.random.default_rng([place, rows, params])
    return rng.standard_normal((rows, params)) + 3.0  # a mean for centring to take out


def waiting_block(place: int, folder: Any, timeout: Any) -> Any:
    """Make a block; the third of each process waits for the file "go"."""
    Path(folder, f"{place}-{os.getpid()}-{time.monotonic_ns()}").touch()
    deadline = time.monotonic() + timeout
    while makers(folder).count(os.getpid()) == 3 and time.monotonic() < deadline:
        if Path(folder, "go").exists():
            break
        time.sleep(0.01)
    return block(place)


def makers(folder: Any) -> Any:
    """Return the process of each block that was begun, as often as it was."""
    return [int(note.name.split("-")[1]) for note in Path(folder).glob("*-*-*")]


def layers(place: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(place)
    return [(rng.standard_normal((50, 4)), rng.standard_normal((50, 3)))]
