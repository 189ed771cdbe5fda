"""The command line: ``python -m fastfisher demo`` and ``python -m fastfisher config``."""

from __future__ import annotations

import argparse
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and run what it names."""
    parser = argparse.ArgumentParser(
        prog="python -m fastfisher",
        description="Scores in, Fisher out, solved at the speed of the machine.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("config", help="show versions, instruction set and threads")
    demo = commands.add_parser(
        "demo",
        help="train on handwritten digits by natural gradient, and measure the speed",
        description="Trains two networks on scikit-learn's digits by natural gradient beside "
        "gradient descent and Adam, measures the six functions beside NumPy, saves one picture.",
    )
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("fastfisher-demo.png"),
        metavar="PATH",
        help="where the picture goes (default: %(default)s; .png, .svg or .pdf)",
    )
    demo.add_argument("--quick", action="store_true", help="few steps and small sizes")
    options = parser.parse_args(arguments)
    if options.command == "config":
        from ._native import show_config

        show_config()
    else:
        from .demo import run

        run(output=options.output, quick=options.quick)


if __name__ == "__main__":
    main()
