"""Instances of the kernel templates: those that tests run, and those that only have to compile."""

from collections.abc import Sequence

SUMS = {
    "double": ("double",),
    "float": ("float", "double"),
    "Half": ("float", "double"),
    "Bfloat": ("float",),
}
PAIRS = [(scores, sums) for scores, kinds in SUMS.items() for sums in kinds]
WIDTH = {"double": 2, "float": 4}
REAL = ("double", "float")


def instances(
    systems: Sequence[int], products: Sequence[tuple[int, int, str]]
) -> dict[str, list[str]]:
    """Return ``{file: expressions}`` for sizes of small systems and (K, E, Wide) of products."""
    stream = [
        f"column_sums<{scores}, {sums}, {width}, {squares}>"
        for scores, sums in PAIRS
        for width in (1, WIDTH[sums])
        for squares in ("true", "false")
    ]
    stream += [f"sum_partials<{sums}>" for sums in REAL]
    stream += [
        f"fvp_rows<{scores}, {sums}, {width}, {k}, {packs}, {block}, {centred}>"
        for scores, sums in PAIRS
        for width in (1, WIDTH[sums])
        for k, packs, block in products
        for centred in ("true", "false")
    ]
    prepare = [f"prepare<{scores}, {sums}>" for scores, sums in PAIRS]
    prepare += [f"first_bad<{scores}>" for scores in SUMS]
    prepare += [f"mirror<{sums}, {parts}>" for sums in REAL for parts in (1, 2)]
    batch = [f"batch_warp<{sums}, {job}>" for sums in REAL for job in range(4)]
    batch += [
        f"batch_thread<{sums}, {p}, {job}>" for sums in REAL for p in systems for job in range(4)
    ]
    return {"stream.cu": stream, "prepare.cu": prepare, "batch.cu": batch}


# What the emulated tests need.
RUN = instances((1, 3, 8), ((1, 1, "false"), (2, 1, "false"), (2, 2, "false"), (4, 1, "false")))
for _sums in REAL:
    RUN["stream.cu"] += [
        f"fvp_rows<{_sums}, {_sums}, {team}, true>"
        for team in (
            f"{WIDTH[_sums]}, 4, 2, true",
            f"{WIDTH[_sums]}, 8, 1, true",
            f"{WIDTH[_sums]}, 8, 1, false",
            "1, 8, 1, true",
        )
    ]
RUN["stream.cu"] += [
    f"fvp_rows<{team}, true>"
    for team in (
        "double, double, 2, 1, 8, false",
        "double, double, 2, 1, 8, true",
        "float, float, 4, 1, 4, false",
        "float, float, 1, 1, 8, true",
    )
]
# The largest of each kind.
COMPILED = instances((2, 8), ((1, 8, "true"), (8, 1, "false")))
