"""Out of core: a file of scores is summed chunk by chunk, at the speed of the disk.

python examples/out_of_core.py [MiB]: writes a file of that size (default 256), streams it in a
few megabytes of memory, and shows that the answer is that of the whole array.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import fastfisher as ff


def main(mebibytes: int = 256, params: int = 256) -> None:
    """Write, stream, compare."""
    rows_a_write = 1024
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "scores.f64")
        with path.open("wb") as file:  # as a model would, batch by batch
            for _ in range(mebibytes * 2**20 // (8 * params * rows_a_write)):
                rng.standard_normal((rows_a_write, params)).tofile(file)

        # A map looks like an array, and costs nothing until it is read.
        scores = np.memmap(path, np.float64, "r").reshape(-1, params)

        def progress(done: int, total: int | None) -> None:
            print(f"\r{done} of {total} samples", end="")

        start = time.perf_counter()
        F = ff.DenseFisher(params).update_from(scores, progress=progress)
        seconds = time.perf_counter() - start
        print(f", {scores.nbytes / seconds / 1e9:.2f} GB/s")

        # Weights go along with the rows; any generator of (scores, weights) would do as well.
        weights = np.linspace(0.5, 1.5, len(scores))
        D = ff.DiagonalFisher(params, center=True).update_from(ff.chunks(scores, weights))
        print(f"largest variance of a score: {D.diagonal().max():.3f}")

        # Products and iterative solves read the map as it stands, once per product.
        x = ff.ScoreFisher(scores).solve(np.ones(params), damping=0.1, solver=ff.CG())
        difference = np.abs(x - F.solve(np.ones(params), damping=0.1)).max()
        print(f"CG on the file, Cholesky of the stream: they differ by {difference:.0e}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
