"""The one command: measures everything, prints the tables as Markdown and draws the plots."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import scipy

import fastfisher as ff
from fastfisher.demo.clock import Roofs, measure_roofs

from . import manners, scaling, slopes, table
from .jobs import JOBS
from .measure import Row, measure
from .plot import draw
from .worker import CORE_TYPES, Worker, openblas_kernels

FIGURES = Path(__file__).parent / "figures"


def main() -> None:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: do all jobs still run?")
    parser.add_argument("--only", default="", metavar="TEXT", help="jobs whose key has this text")
    parser.add_argument("--torch", action="store_true", help="measure torch on the CPU too")
    parser.add_argument("--no-forced", action="store_true", help="OpenBLAS as shipped alone")
    parser.add_argument("--write", action="store_true", help="put the tables into bench/README.md")
    parser.add_argument(
        "--figures",
        type=Path,
        help="folder of the plots; bench/figures with --write, else build/bench",
    )
    options = parser.parse_args()
    if options.write and (options.quick or options.only):
        parser.error("--write: expected all jobs in full size. Leave --quick and --only away.")
    if options.torch and find_spec("torch") is None:
        parser.error("torch: expected the package, got none. Install a CPU build of it first.")

    full = not options.quick
    jobs = [job for job in JOBS if options.only.lower() in job.key.lower()]
    roofs = measure_roofs(bytes_read=1 << (29 if full else 24), rounds=5 if full else 1)
    workers = [] if options.no_forced else forced_workers()
    kernels = [openblas_kernels(), *(f"{w.name} ({w.ask(do='kernels')})" for w in workers)]
    if options.torch:
        workers.append(Worker("torch"))
    rows = []
    for i, job in enumerate(jobs):
        print(f"[{i + 1}/{len(jobs)}] {job.key}", file=sys.stderr)
        rows.append(measure(job, roofs, workers, full=full))
    for worker in workers:
        worker.close()
    if options.only:
        print(table.speed_table(rows))
        return
    figures = options.figures or (FIGURES if options.write else Path("build/bench"))
    figures.mkdir(parents=True, exist_ok=True)
    draw(rows, figures / "speed.png")
    print("memory, import, neighbours, disk", file=sys.stderr)
    texts = {"measured": report(rows, manners.facts(full), roofs, kernels)}
    print("slopes", file=sys.stderr)
    texts["slopes"] = slopes.report(full, figures / "slopes.png")
    print("scaling", file=sys.stderr)
    texts["scaling"] = scaling.report(full)
    for section, text in texts.items():
        print(text, end="\n\n")
        if options.write:
            table.put(section, text)


def forced_workers() -> list[Worker]:
    """The fastest of the forced kernels, if it beats what OpenBLAS chose by itself."""
    shipped = Worker("numpy")
    best, best_seconds = None, 0.97 * shipped.ask(do="probe")
    shipped.close()
    for core_type in CORE_TYPES:
        worker = Worker("numpy", core_type)
        try:
            seconds = worker.ask(do="probe")
        except RuntimeError:  # kernels that this processor cannot run
            continue
        if seconds < best_seconds:
            best, worker, best_seconds = worker, best, seconds
        if worker is not None:
            worker.close()
    return [] if best is None else [best]


def report(rows: list[Row], facts: list[manners.Fact], roofs: Roofs, kernels: list[str]) -> str:
    """All tables, and what they were measured on."""
    config = ff.show_config("dict")
    core = f"{config['threads']} threads, {config['isa']}, compiler {config['compiler']}"
    peaks = f"{roofs.float64 / 1e9:.0f} Gflop/s float64, {roofs.float32 / 1e9:.0f} float32"
    parts = [
        f"{processor()}, {core}.",
        f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}.",
        f"OpenBLAS kernels: {'; '.join(kernels)}.",
        f"Roofs: {peaks}, {roofs.bandwidth / 1e9:.0f} GB/s read.",
        table.speed_table(rows),
        table.facts_table(facts),
        "The fastest line of each job, as shipped:",
        table.lines_table(rows),
    ]
    return "\n\n".join(parts)


def processor() -> str:
    """The processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
