"""The main job: natural gradient on handwritten digits and the speed here, in one picture."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

NEEDED = {"sklearn": "scikit-learn", "scipy": "scipy", "matplotlib": "matplotlib", "tqdm": "tqdm"}


def run(*, output: Path = Path("fastfisher-demo.png"), quick: bool = False, seed: int = 0) -> None:
    """Train, measure, print both tables and save the picture.

    Parameters
    ----------
    output
        Where the picture goes.
    quick
        Few steps and small sizes: shows that everything works, says little about speed.
    seed
        Everything but the seconds is the same for the same seed.

    Raises
    ------
    SystemExit
        If a package of the ``demo`` extra is missing, or the picture has nowhere to go.
    """
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise SystemExit(
            f"demo: expected {', '.join(NEEDED.values())}, got no {', '.join(missing)}. "
            'Install what the demo draws with: pip install "fastfisher[demo]"'
        )
    if not output.absolute().parent.is_dir():
        raise SystemExit(
            f"output: expected a file in an existing folder, got {output}. Make the folder first."
        )
    from threadpoolctl import threadpool_limits  # scikit-learn brings it
    from tqdm import tqdm

    from .contests import count_runs, digits_contests, entrants
    from .picture import draw
    from .speed import measure_speed
    from .tables import speed_table, training_table
    from .training import tune_and_run

    contests = digits_contests(seed, quick)
    with tqdm(total=count_runs(contests, quick) + 6, unit="run", file=sys.stderr) as bar:
        results = []
        for contest in contests:
            runs = []
            for entrant in entrants(contest, quick):
                bar.set_description(f"{contest.title}, {entrant.name}")
                # The networks' own products are small: beside busy neighbours, two BLAS threads
                # took ten times as long over them as one.
                with threadpool_limits(limits=1, user_api="blas"):
                    runs.append(tune_and_run(contest, entrant, bar.update, seed))
            results.append((contest, runs))
        bar.set_description("speed of the six functions")
        measurements, roofs = measure_speed(bar.update, quick=quick, seed=seed)
        bar.set_description("done")
    for contest, runs in results:
        print(training_table(contest, runs))
    print(speed_table(measurements, roofs))
    draw(results, measurements, output)
    print(f"Picture: {output}")
