"""LAPACK's test program, its small sizes here and now, and the page with the ratios of all."""

import re

import numpy as np
import pytest

import lapack_table
from lapack_routines import ROUTINES, THRESHOLD, THRESHOLDS

# Small, and on both sides of a panel of float64; `lapack_table.py` has all.
SMALL = (1, 2, 5, 25)


@pytest.mark.parametrize("name", ROUTINES)
def test_ratios(name: str) -> None:
    found = [
        (case, lapack_table.run(name, kind, p, dtype, threads=(1, 3)))
        for case in lapack_table.cases(SMALL)
        for routine, kind, p, dtype in [case]
        if routine == name
    ]
    ratios, counts, failures = lapack_table.worst(found)
    assert failures[name] < counts[name]
    for ratio, values in ratios[name].items():
        assert max(values.values()) < THRESHOLDS.get(ratio, THRESHOLD), (ratio, dict(values))
    dtypes = {np.dtype(dtype).name for dtype in ROUTINES[name].dtypes}
    assert all(set(values) <= dtypes for values in ratios[name].values())


def test_a_wrong_answer_is_seen() -> None:
    answer, judge = ROUTINES["Cholesky"].pose("well-conditioned", 25, np.float64)
    panels, x, numbers, inverse, variances = answer(1)
    wrong = [1 + 1e-12, 1 + 1e-12, np.array([1 + 1e-12, 0.01]), 1 + 1e-12, 1 + 1e-12]
    given = (panels, x, numbers, inverse, variances)
    for place, factor in enumerate(wrong):
        spoiled = [a * factor if i == place else a for i, a in enumerate(given)]
        assert max(judge(*spoiled).values()) > THRESHOLD
    assert max(judge(*given).values()) < THRESHOLD


def ratios_of(text: str) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of the page's first table."""
    start, end = (text.index(mark) for mark in lapack_table.MARKS)
    lines = text[start:end].replace("\\|", "¦").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    width = 3 + len(lapack_table.NAMES)
    return rows, [row for row in rows if len(row) == width][2:]


def test_the_page_says_what_is_above_the_threshold_in_the_unit_of_lapack() -> None:
    text = lapack_table.PAGE.read_text(encoding="utf-8")
    above: dict[str, float] = {}
    for name, ratio, limit, *cells in ratios_of(text)[1]:
        worst = 2 * max(float(cell) for cell in cells if cell)
        if worst >= int(limit) and not ratio.startswith("rcond"):  # which is in no unit
            above[name] = max(worst, above.get(name, 0.0))
    told = " and ".join(f"{name} ({worst:g})" for name, worst in above.items())
    assert f"Above the threshold in that unit: {told}, and nothing else." in text


def test_the_page_names_every_routine_below_its_threshold() -> None:
    rows, ratios = ratios_of(lapack_table.PAGE.read_text(encoding="utf-8"))
    assert {row[0] for row in ratios} == set(ROUTINES)
    for name, ratio, limit, *cells in ratios:
        assert int(limit) == THRESHOLDS.get(ratio.replace("¦", "|"), THRESHOLD)
        for dtype, cell in zip(lapack_table.NAMES, cells, strict=True):
            served = any(np.dtype(kind).name == dtype for kind in ROUTINES[name].dtypes)
            assert bool(cell) == served, (name, ratio, dtype)
            assert not cell or float(cell) < int(limit), (name, ratio, dtype)
    text = " ".join(lapack_table.PAGE.read_text(encoding="utf-8").split())
    told = text[text.index("Sizes are ") : text.index("Batches go up to")]
    sizes = {size for row in rows if len(row) == 4 and row[2].isdigit() for size in [row[2]]}
    assert all(re.search(rf"\b{size}\b", told) for size in sizes)
    levels = {row[0].strip("`") for row in rows if len(row) == 4}
    assert levels >= {"amx", "avx512_bf16", "avx512", "avx2", "baseline"}
