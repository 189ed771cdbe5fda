"""LAPACK's test program for every routine here: worst ratios, per routine and dtype, as a table.

Run as a script it runs all cases at every instruction-set level of this machine, one process each,
and writes the table into ``docs/reliability.md``: ``python tests/lapack_table.py``.
"""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import fastfisher as ff
import lapack
from fastfisher import _cpu
from lapack_routines import ROUTINES, THRESHOLD, THRESHOLDS
from oracle import EVERY

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
MARKS = "<!-- the table -->", "<!-- end of the table -->"
THREADS = (1, 2, 3, 8)
FEWER = (1, 2, 3, 5, 10, 23, 24, 25, 50, 193)  # at levels but the fastest: it takes minutes
NAMES = [np.dtype(dtype).name for dtype in EVERY]


def cases(
    sizes: Sequence[int] = lapack.SIZES,
) -> Iterator[tuple[str, str, int, type[np.inexact]]]:
    """Yield (routine, kind, p, dtype) of all that there is to do."""
    for name, how in ROUTINES.items():
        for dtype in how.dtypes:
            for p in sizes:
                if how.least <= p <= how.largest:
                    for kind in how.kinds:
                        yield name, kind, p, dtype


def run(
    name: str, kind: str, p: int, dtype: npt.DTypeLike, threads: Sequence[int] = THREADS
) -> str | dict[str, Any]:
    """Return the ratios of one case, or the name of the error that was its answer.

    Every number of threads has to give the same bits, so that ratios are those of all of them.
    """
    how = ROUTINES[name]
    answer, judge = how.pose(kind, p, dtype)
    answers = [outcome(answer, count) for count in threads]
    place = f"{name}, {kind}, p = {p}, {np.dtype(dtype).name}"
    for count, other in zip(threads[1:], answers[1:], strict=True):
        assert same(other, answers[0]), f"{place}: other bits on {count} threads"
    if isinstance(answers[0], ff.FisherError):
        error = answers[0]
        assert kind in how.may_fail, f"{place}: {error}"
        zero = lapack.zero_of(kind, p)
        if zero is not None and getattr(error, "pivot", None) is not None and name == "Cholesky":
            assert isinstance(error, ff.NotPositiveDefiniteError)
            assert error.pivot == zero, f"{place}: {error}"
        return type(error).__name__
    assert all(np.isfinite(array).all() for array in answers[0]), f"{place}: not finite"
    result: str | dict[str, Any] = judge(*answers[0])
    return result


def outcome(
    answer: Callable[[int], tuple[np.ndarray, ...]], threads: int
) -> ff.FisherError | tuple[np.ndarray, ...]:
    try:
        return answer(threads)
    except ff.FisherError as error:
        return error


def same(
    one: ff.FisherError | Sequence[np.ndarray],
    two: ff.FisherError | Sequence[np.ndarray],
) -> bool:
    if isinstance(one, ff.FisherError) or isinstance(two, ff.FisherError):
        return type(one) is type(two) and str(one) == str(two)
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))


def worst(
    found: Any,
) -> tuple[Any, Any, Any]:
    """Return {routine: {ratio: {dtype: worst}}}, {routine: cases} and {routine: named failures}."""
    ratios: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(float)))
    counts: Any
    failures: Any
    counts, failures = defaultdict(int), defaultdict(int)
    for (name, _, _, dtype), result in found:
        counts[name] += 1
        failures[name] += isinstance(result, str)
        for ratio, value in ({} if isinstance(result, str) else result).items():
            key = np.dtype(dtype).name
            ratios[name][ratio][key] = max(ratios[name][ratio][key], value)
    return ratios, counts, failures


def every_level() -> Any:
    """Run all cases at each level in a process of its own; return {level: what it printed}."""
    found: dict[str, Any] = {}
    for level in reversed(_cpu.supported()):
        done = subprocess.run(
            [sys.executable, __file__, "--here", *map(str, FEWER if found else lapack.SIZES)],
            env={**os.environ, "FASTFISHER_ISA": level, "OPENBLAS_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            check=True,
        )
        found[level] = json.loads(done.stdout)
        print(level, f"{found[level]['seconds']:.0f} s", flush=True)
    return found


def table(levels: Any) -> Any:
    """Return the Markdown of all levels: the worst of them, and each by itself."""
    lines = [
        "| routine | ratio | below | " + " | ".join(NAMES) + " |",
        "|---|---|---|" + "---|" * len(NAMES),
    ]
    results = list(levels.values())
    for name, ratios in results[0]["ratios"].items():
        for ratio in ratios:
            row = []
            for dtype in NAMES:
                values = [r["ratios"][name][ratio].get(dtype) for r in results]
                row.append("" if None in values else f"{max(values):.2g}")
            limit = THRESHOLDS.get(ratio, THRESHOLD)
            written = ratio.replace("|", "\\|")
            lines.append(f"| {name} | {written} | {limit} | " + " | ".join(row) + " |")
    lines += [
        "",
        "| routine | cases at each level | of them named errors |",
        "|---|---|---|",
    ]
    for name, count in results[0]["counts"].items():
        failures = sorted({r["failures"][name] for r in results})
        told = "–".join(map(str, (failures[0], failures[-1]))) if failures[1:] else str(failures[0])
        lines.append(f"| {name} | {count} | {told} |")
    lines += ["", "| level | cases | sizes up to | worst ratio ÷ threshold |", "|---|---|---|---|"]
    for level, result in levels.items():
        share = max(
            value / THRESHOLDS.get(ratio, THRESHOLD)
            for ratios in result["ratios"].values()
            for ratio, values in ratios.items()
            for value in values.values()
        )
        count, largest = sum(result["counts"].values()), max(result["sizes"])
        lines.append(f"| `{level}` | {count} | {largest} | {share:.2f} |")
    return "\n".join(lines)


def write(text: Any) -> None:
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(MARKS[0])
    _, tail = rest.split(MARKS[1])
    PAGE.write_text(f"{head}{MARKS[0]}\n{text}\n{MARKS[1]}{tail}", encoding="utf-8")


def here(sizes: Sequence[int]) -> Any:
    start = time.monotonic()
    ratios, counts, failures = worst((case, run(*case)) for case in cases(sizes))
    return {
        "ratios": ratios,
        "counts": counts,
        "failures": failures,
        "sizes": list(sizes),
        "seconds": time.monotonic() - start,
    }


if __name__ == "__main__":
    if "--here" in sys.argv:
        json.dump(here([int(p) for p in sys.argv[2:]]), sys.stdout)
    else:
        write(table(every_level()))
