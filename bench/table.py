"""Writes the measurements as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .manners import Fact
    from .measure import Row

README = Path(__file__).parent / "README.md"

COLUMNS = (
    "job shape dtype NumPy best·other ours ×·NumPy ×·best roof of·roof our·error NumPy's·error"
)
HEADER = (
    f"| {' | '.join(COLUMNS.split()).replace('·', ' ')} |",
    f"|---|---|---|{'--:|' * (len(COLUMNS.split()) - 3)}",
)


def put(section: str, text: str) -> None:
    """Put the text between the markers of a section of the README."""
    begin, end = (f"<!-- {section}: {what} -->" for what in ("begin", "end"))
    before, rest = README.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    README.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def speed_table(rows: list[Row]) -> str:
    """One line per job: medians, ratios, the roof and both errors."""
    return "\n".join([*HEADER, *map(_line, rows)])


def facts_table(facts: list[Fact]) -> str:
    """Memory, import, neighbours."""
    lines = [f"| {what} | {measured} | {goal} |" for what, measured, goal in facts]
    return "\n".join(["| | measured | goal |", "|---|---|---|", *lines])


def lines_table(rows: list[Row]) -> str:
    """Which line of NumPy or SciPy was the fastest."""
    chosen = dict.fromkeys((row.name, row.line) for row in rows)
    lines = [f"| {name} | `{line}` |" for name, line in chosen]
    return "\n".join(["| job | NumPy or SciPy line |", "|---|---|", *lines])


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 999.5 * size else f"{seconds:.0f} s"
    return f"{seconds * 1e9:.0f} ns"


def _line(row: Row) -> str:
    best = row.numpy if row.other is None else min(row.numpy, row.other)
    cells = [
        row.name,
        " × ".join(f"{size:,}".replace(",", " ") for size in row.shape),
        row.dtype.replace("float", "f").replace("complex", "c"),
        duration(row.numpy),
        "–" if row.other is None else f"{duration(row.other)} ({row.other_name})",
        duration(row.ours),
        f"**{row.numpy / row.ours:.2g}**",
        f"{best / row.ours:.2g}",
        "–" if row.roof is None else duration(row.roof),
        "–" if row.roof is None else f"{row.roof / row.ours:.0%}",
        f"{row.error:.0e}",
        f"{row.numpy_error:.0e}",
    ]
    return "| " + " | ".join(cells) + " |"
