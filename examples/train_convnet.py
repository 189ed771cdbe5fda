"""A small convolutional network on handwritten digits: KFAC, EKFAC, the exact Fisher, and Adam.

python examples/train_convnet.py [picture.png]: two convolutions and a dense layer, 6090 parameters,
each method tuned over six settings. Needs the `demo` extra.
"""

import sys
from pathlib import Path

import numpy as np

from fastfisher.demo.contests import digits_contests
from fastfisher.demo.training import Contest, Run
from networks import Categorical, Conv, Dense, Network
from training import compete


def main(output: str | Path = "convnet.png", *, steps: int | None = None) -> list[Run]:
    """Train, print, draw; `steps` makes it short."""
    digits = digits_contests(seed=0, quick=False)[0]
    train, validation, held_out = (
        (x.reshape(-1, 1, 8, 8), np.eye(10)[y])
        for x, y in (digits.train, digits.validation, digits.held_out)
    )
    contest = Contest(
        "Convolutional network on handwritten digits",
        Network([Conv(1, 16, stride=2), Conv(16, 32, stride=2), Dense(128, 10)], Categorical()),
        train,
        validation,
        held_out,
        target=0.12,
    )
    loss = "Held-out loss: nats"
    ticks = (0.05, 0.1, 0.2, 0.5, 1, 2)
    return compete(
        contest, Path(output), limits=(400, 150, 30), ticks=ticks, loss=loss, steps=steps
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])
