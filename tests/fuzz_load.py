"""Damages saved files in every way it can think of and loads them: refused or read, nothing else.

``python tests/fuzz_load.py SECONDS [SEED]`` goes on for that long and prints how many it tried.
"""

import io
import json
import os
import random
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

try:
    import resource
except ImportError:  # Windows, where time alone is looked at
    resource = None  # type: ignore[assignment]

import numpy as np

import fastfisher as ff
import network
import oracle
import representations

LONGEST = 1.0  # seconds of processor time for any file
MOST_MEMORY = 2**28  # bytes more than before, for files of a few kB
NUMBERS = (0, 1, -1, 2, 3, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63, 2**64, 10**18, 10**30)
LEAVES: tuple[Any, ...] = (
    *NUMBERS, None, True, False, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "float32", "f2",
    "float64", "complex128", ">f8", "object", "sum", "mean", "\ud800", [], {}, [[]], [3], [[3, 4]],
    [-1], [10**18, 10**18], {"a": 1}, "x" * 1000,
)  # fmt: skip
DTYPES = ("<f8", "<f4", ">f8", "<c16", "<i8", "<f2", "|b1", "<U3", "|S4", "<M8[s]", "|V3", "<u2")


def saved() -> dict[str, bytes]:
    """Return {name: bytes} of a file of every representation, holding samples and empty."""
    some = {}
    for dtype in (np.float64, np.complex64):
        for name, fisher, *_ in representations.cases(dtype):
            if "60" not in name:
                some[f"{name}-{np.dtype(dtype)}"] = fisher
        for name, fisher, _ in representations.streams(dtype):
            some[f"empty-{name}-{np.dtype(dtype)}"] = fisher
    layers = network.draw(9, np.float32)
    some["layer-float32"] = ff.LayerFisher(layers[1:4], weights=oracle.draw_weights(9))
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "f.npz")
        for name, fisher in some.items():
            fisher.save(path)
            files[name] = path.read_bytes()
    return files


# ---- damage to bytes ----
def flip(chance: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8, 50))):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def cut(chance: random.Random, content: bytes) -> bytes:
    start, stop = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    return chance.choice((content[:start], content[stop:], content[:start] + content[stop:]))


def repeat(chance: random.Random, content: bytes) -> bytes:
    start, stop = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    return content[:stop] + content[start:stop] * chance.choice((1, 2)) + content[stop:]


def overwrite(chance: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    place, size = chance.randrange(len(damaged)), chance.choice((1, 2, 4, 8, 40))
    number = chance.choice(NUMBERS) % 256 ** min(size, 8)
    damaged[place : place + size] = number.to_bytes(size, "little")
    return bytes(damaged)


# ---- damage to the archive ----
def fields(chance: random.Random, content: bytes) -> bytes:
    """Set numbers of the archive's own records."""
    damaged = bytearray(content)
    places = []
    for mark, size in ((b"PK\3\4", 30), (b"PK\1\2", 46), (b"PK\5\6", 22)):
        place = damaged.find(mark)
        while place >= 0:
            places.append((place, size))
            place = damaged.find(mark, place + 1)
    for _ in range(chance.choice((1, 1, 2, 3))):
        place, size = chance.choice(places)
        width = chance.choice((1, 2, 4))
        number = chance.choice((*NUMBERS, len(damaged), len(damaged) // 2, 8, 14, 99))
        at = place + chance.randrange(4, size)
        damaged[at : at + width] = (number % 256**width).to_bytes(width, "little")
    return bytes(damaged)


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def archived(parts: Any, how: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        with zipfile.ZipFile(out, "w", how) as archive:
            for name, part in parts:
                archive.writestr(name, part)
    return out.getvalue()


def shuffled(chance: random.Random, content: bytes) -> bytes:
    """Drop, repeat, rename, swap, compress or damage members."""
    parts = list(members(content).items())
    chance.shuffle(parts)
    for _ in range(chance.choice((1, 1, 2))):
        place = chance.randrange(len(parts))
        name, part = parts[place]
        what = chance.randrange(6)
        if what == 0 and len(parts) > 1:
            del parts[place]
        elif what == 1:
            parts.append((name, part))
        elif what == 2:
            names = ("header.npy", "mean.npy", "sums.npy", "x", "", "../x.npy", name * 500)
            parts[place] = (chance.choice(names), part)
        elif what == 3:
            parts[place] = (name, chance.choice(parts)[1])
        elif what == 4:
            parts[place] = (name, bytes(chance.choice((0, 1, 100, 10**6))))
        else:
            damage = chance.choice((flip, cut, repeat, overwrite))
            parts[place] = (name, damage(chance, part) if part else b"")
    how = chance.choice((zipfile.ZIP_STORED,) * 5 + (zipfile.ZIP_DEFLATED,))
    return archived(parts, how)


# ---- damage by someone who knows the format ----
def header_of_array(chance: random.Random, content: bytes) -> bytes:
    """Rewrite what an array says of its dtype, order and shape."""
    parts = members(content)
    name = chance.choice(list(parts))
    size = struct.unpack("<H", parts[name][8:10])[0]
    rest = parts[name][10 + size :]
    shapes = ["()", "(0,)", "(3,)", "(1, 3)", "(-1,)", f"({10**18},)", "(2**62, 8)", "((3,),)"]
    shapes += [f"({len(rest) // 8},)", f"({len(rest) // 4},)", "(" * 500, "None", "[3]", "(True,)"]
    shapes += ["(0, 10**30)", f"(0, {10**30})", f"({2**63}, 0)", "(1e3,)", "'(3,)'"]
    told = (
        f"{{'descr': {chance.choice(DTYPES)!r}, "
        f"'fortran_order': {chance.choice(('False', 'True', 'None', '7'))}, "
        f"'shape': {chance.choice(shapes)}, }}"
    )
    told = chance.choice((told, told, told, told[:-1], told + told, "", "{}", "[" * 9000)) + "\n"
    version = bytes(chance.choice(((1, 0), (1, 0), (1, 0), (2, 0), (3, 0), (0, 0))))
    length = struct.pack("<H" if version[0] == 1 else "<I", len(told) % 2**16)
    parts[name] = b"\x93NUMPY" + version + length + told.encode() + rest
    return archived(parts.items())


def array(chance: random.Random, content: bytes) -> bytes:
    """Put another array in the place of one."""
    parts = members(content)
    name = chance.choice([name for name in parts if name != "header.npy"] or list(parts))
    found = np.load(io.BytesIO(parts[name]), allow_pickle=False)
    dtype = np.dtype(chance.choice(DTYPES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        others = (
            lambda: found[..., None], lambda: found.ravel()[:-1], lambda: found * np.nan,
            lambda: np.asfortranarray(found), lambda: found.astype(found.dtype.newbyteorder()),
            lambda: -found, lambda: found * np.inf, lambda: found.astype(dtype), lambda: found[:0],
            lambda: np.zeros(found.shape, dtype), lambda: np.zeros(chance.choice((0, 1, 7)), dtype),
            lambda: np.full_like(found, 1e300),
        )  # fmt: skip
        try:
            changed = chance.choice(others)()
        except (TypeError, ValueError, IndexError):
            return content
    out = io.BytesIO()
    np.save(out, changed, allow_pickle=False)
    parts[name] = out.getvalue()
    return archived(parts.items())


def places_in(
    value: Sequence[Any] | dict[str, Any], path: tuple[str | int, ...] = ()
) -> Iterator[tuple[str | int, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in items:
        if isinstance(one, (dict, list)):
            yield from places_in(one, (*path, key))
        else:
            yield (*path, key)


def header(chance: random.Random, content: bytes) -> bytes:
    """Set, drop or add entries of the header; what is in `state` most of all."""
    parts = members(content)
    told = json.loads(str(np.load(io.BytesIO(parts["header.npy"]))))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        paths = [path for path in places_in(told) if path]
        inner = [path for path in paths if path[0] in ("state", "class")]
        path = chance.choice(inner if inner and chance.random() < 0.9 else paths)
        holder = told
        for key in path[:-1]:
            holder = holder[key]
        what = chance.random()
        if what < 0.1:
            del holder[path[-1]]
        elif what < 0.15 and isinstance(holder, dict):
            holder[chance.choice(("rank", "eigen", "mean", "sums", "like", "x"))] = chance.choice(
                LEAVES
            )
        elif what < 0.25:
            names = ("DenseFisher", "KroneckerFisher", "LowRankFisher", "LayerFisher", "Fisher")
            told["class"] = chance.choice(names)
        else:
            holder[path[-1]] = chance.choice(LEAVES)
    out = io.BytesIO()
    text = json.dumps(told)
    text = chance.choice((text, text, text, text, text, text[:-1], "[" * 20000, "9" * 6000))
    np.save(out, np.array(text), allow_pickle=False)
    parts["header.npy"] = out.getvalue()
    return archived(parts.items())


# What our own tools say of a file that was damaged before.
BROKEN = (
    zipfile.BadZipFile, ValueError, EOFError, struct.error, OSError, NotImplementedError,
    RuntimeError, zlib.error, MemoryError, OverflowError, SyntaxError, TokenError,
)  # fmt: skip
KINDS = (flip, cut, repeat, overwrite, fields, shuffled, header_of_array, array, header, header)


def use(fisher: ff.Fisher) -> None:
    """Use what was loaded: whatever it holds, the answer is numbers or an error of ours."""
    try:
        p = fisher.shape[0]
        if p < 500:
            fisher @ np.ones(p)
            fisher.diagonal()
            fisher.to_dense()
            fisher.solve(np.ones(p), damping=1.0)
            fisher.copy() if hasattr(fisher, "copy") else None
    except (ff.FisherError, ValueError):
        pass  # no samples, NaN, not positive definite


def most_memory() -> int:
    usage = getattr(resource, "getrusage", None)
    return 1024 * usage(resource.RUSAGE_SELF).ru_maxrss if usage else 0


def try_one(path: Path, content: bytes) -> str:
    """Return what is wrong with what came of it, "" if nothing."""
    path.write_bytes(content)
    before = most_memory()
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, of numbers that are not finite
            fisher: object = ff.load(path)
            if not isinstance(fisher, ff.Fisher):
                return f"loaded {type(fisher)}"
            use(fisher)
    except ff.FisherError:
        pass
    except Exception:  # noqa: BLE001 (whatever it is, it is a finding)
        return traceback.format_exc()
    taken = time.process_time() - start
    if taken > LONGEST:
        return f"it took {taken:.1f} s"
    grown = most_memory() - before
    return f"it took {grown} bytes" if grown > MOST_MEMORY else ""


def run(
    folder: Path | str,
    *,
    cases: int | None = None,
    seconds: float | None = None,
    seed: int | None = 0,
) -> tuple[int, list[Any]]:
    """Try so many cases, or for so long; return how many and the findings."""
    chance = random.Random(seed)
    files = list(saved().values())
    findings, count = [], 0
    end = None if seconds is None else time.monotonic() + seconds
    while (cases is None or count < cases) and (end is None or time.monotonic() < end):
        content = chance.choice(files)
        for _ in range(chance.choice((1, 1, 1, 2))):
            damage = chance.choice(KINDS)
            try:
                content = damage(chance, content)
            except (*BROKEN, IndexError, KeyError, TypeError):  # no archive any more, nor bytes
                content = flip(chance, content) if content else b""
        wrong = try_one(Path(folder, "damaged.npz"), content)
        count += 1
        if wrong:
            findings.append((damage.__name__, wrong, content))
    return count, findings


if __name__ == "__main__":
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    used = [line for line in lines if "VmSize" in line]
    if used:  # then what asks for more raises MemoryError, a finding
        limit = int(used[0].split()[1]) * 1024 + 2**30
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory() as folder:
        count, findings = run(
            folder, seconds=float(sys.argv[1]), seed=int(sys.argv[2]) if sys.argv[2:] else None
        )
    for place, (damage, wrong, content) in enumerate(findings[:20]):
        name = f"finding-{os.getpid()}-{place}.npz"
        Path(name).write_bytes(content)
        print(f"---- {damage}: {name}\n{wrong}")
    print(f"{count} damaged files, {len(findings)} findings")
    sys.exit(bool(findings))
