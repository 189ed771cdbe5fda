"""A deep autoencoder of handwritten digits: KFAC, EKFAC, the exact layered Fisher, and Adam.

python examples/train_autoencoder.py [picture.png]: eight layers, 64-100-50-25-6 units and back,
26 020 parameters, each method tuned over six settings. Needs the `demo` extra.
"""

import sys
from itertools import pairwise
from pathlib import Path

from fastfisher.demo.contests import digits_contests
from fastfisher.demo.training import Contest, Run
from networks import Bernoulli, Dense, Network
from training import compete

WIDTHS = (64, 100, 50, 25, 6, 25, 50, 100, 64)


def main(output: str | Path = "autoencoder.png", *, steps: int | None = None) -> list[Run]:
    """Train, print, draw; `steps` makes it short."""
    digits = digits_contests(seed=0, quick=False)[0]
    # The target of an image is the image itself.
    train, validation, held_out = (
        (x, x) for x, _ in (digits.train, digits.validation, digits.held_out)
    )
    contest = Contest(
        "Deep autoencoder of handwritten digits",
        Network([Dense(d_in, d_out) for d_in, d_out in pairwise(WIDTHS)], Bernoulli()),
        train,
        validation,
        held_out,
        target=5.0,
    )
    loss = "Held-out loss per image: nats above a perfect reconstruction"
    ticks = (4, 6, 8, 10, 15, 20)
    return compete(
        contest, Path(output), limits=(1000, 500, 60), ticks=ticks, loss=loss, steps=steps
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])
