"""Holds the tree to ARCHITECTURE.md: every file on the map, every arrow in its direction.

Run as a script it rewrites the map: ``python tests/test_codebase.py``.
"""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAP = re.compile(r"(?<=<!-- map -->\n).*?(?=<!-- end of map -->)", re.DOTALL)
ROOMS = {
    "src/cpp/kernels": "mathematics, knows no Python",
    "src/cpp/bindings": "doors, no arithmetic",
    "python/fastfisher": "the library people see",
    "tests": "what holds it to its word",
    "bench": "what it costs",
    "examples": "what one does with it",
}
SUFFIXES = {".cpp", ".cu", ".cuh", ".hpp", ".py", ".pyi"}


def sources(room: str, *suffixes: str) -> list[Path]:
    """Return the room's source files, rooms in rooms included, in a fixed order."""
    return sorted(
        path
        for path in (ROOT / room).rglob("*")
        if path.suffix in (suffixes or SUFFIXES) and "__pycache__" not in path.parts
    )


KERNELS = sources("src/cpp/kernels")
BINDINGS = sources("src/cpp/bindings")
LIBRARY = sources("python/fastfisher", ".py")


# What a part of the library may import: what stands in a line before its own, or beside it.
FLOORS = (
    {"_version", "_cpu"},
    {"_native", "_status", "errors"},
    {"_check", "_memory", "_range", "_turns"},
    {"_ops"},
    {"_persist", "fisher", "functions", "path", "solvers"},
    {"applications", "batch", "distributed", "families"},
    {"__init__", "__main__", "demo"},
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def first_sentence(path: Path) -> str:
    """Return the sentence that a file opens with: its docstring's or comment's first sentence."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in {".py", ".pyi"}:
        opening = ast.get_docstring(ast.parse(text)) or ""
        opening = opening.split("\n\n")[0].replace("\n", " ")
    else:
        lines = text.split("\n")
        opening = lines[0].removeprefix("// ") if lines[0].startswith("// ") else ""
        for line in lines[1:]:
            if opening.endswith(".") or not line.startswith("// "):
                break
            opening += " " + line.removeprefix("// ")
    return opening


def the_map() -> str:
    lines = []
    for room, purpose in ROOMS.items():
        files = sources(room)
        if files:
            lines += [f"\n### `{room}/`: {purpose}\n"]
            lines += [
                f"- `{p.relative_to(ROOT / room).as_posix()}` {first_sentence(p)}" for p in files
            ]
    return "\n".join(lines) + "\n\n"


def code(path: Path) -> str:
    """Return a C++ file without its comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def included(path: Path) -> list[str]:
    return re.findall(r'#\s*include\s*[<"]([^>"]+)[>"]', code(path))


def imported(path: Path) -> set[str]:
    """Return the top-level names of all modules that a Python file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", [p for room in ROOMS for p in sources(room)], ids=name)
def test_every_file_opens_with_one_sentence(path: Path) -> None:
    sentence = first_sentence(path)
    assert sentence.endswith("."), f"{name(path)}: expected a first sentence, got {sentence!r}."


def test_architecture_has_the_map() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    found = MAP.search(text)
    assert found is not None
    assert found.group() == the_map(), "Run `python tests/test_codebase.py` and read the diff."


@pytest.mark.parametrize("path", KERNELS, ids=name)
def test_kernels_know_no_python(path: Path) -> None:
    for header in included(path):
        assert not re.search(r"pybind11|Python\.h|numpy|bindings/", header), header


def floors() -> dict[str, int]:
    """Return on which line of the drawing in ARCHITECTURE.md each kernel stands."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    drawing = re.search(r"<!-- floors -->\n```text\n(.*?)```", text, re.DOTALL)
    assert drawing is not None
    lines = [line.split("  ")[0].split() for line in drawing.group(1).splitlines()]
    return {stem: -row for row, stems in enumerate(lines) for stem in stems}


@pytest.mark.parametrize("path", KERNELS, ids=name)
def test_kernels_include_only_what_stands_below(path: Path) -> None:
    floor = floors()
    assert path.stem in floor, f"Draw {path.stem} into the floors of ARCHITECTURE.md."
    for header in (Path(h) for h in included(path) if h.endswith(".hpp")):
        assert header.stem == path.stem or floor[header.stem] < floor[path.stem], header


@pytest.mark.parametrize("path", KERNELS, ids=name)
def test_kernels_never_throw_or_print(path: Path) -> None:
    text = code(path)
    assert not re.search(r"\b(std::cout|std::cerr|printf)\b", text)
    # memory.hpp reports exhausted memory the way the language does.
    assert path.name == "memory.hpp" or not re.search(r"\bthrow\b", text)


@pytest.mark.parametrize("path", KERNELS + BINDINGS, ids=name)
def test_only_parallel_names_openmp(path: Path) -> None:
    if path.stem != "parallel":
        assert not re.search(r"\bomp_\w+|#\s*pragma\s+omp|\b_OPENMP\b|<omp\.h>", code(path))


@pytest.mark.parametrize("path", KERNELS + BINDINGS, ids=name)
def test_only_simd_names_instructions(path: Path) -> None:
    if path.name not in {"simd.hpp", "cpu_module.cpp"}:
        pattern = (
            r"\b__m(128|256|512)|\b_mm\d*_|\bfloat32x|\bfloat64x|immintrin|arm_neon|vector_size"
        )
        assert not re.search(pattern, code(path))
        assert not re.search(r"\b__(AVX|SSE|FMA|ARM_NEON)\w*|\b_M_(X64|ARM64)\b", code(path))


@pytest.mark.parametrize("path", KERNELS + BINDINGS, ids=name)
def test_sums_have_a_fixed_order(path: Path) -> None:
    text = code(path)
    assert "reduction(" not in text
    assert not re.search(r"#\s*pragma\s+omp\s+atomic|fast-math|pragma\s+STDC|optimize\s*\(", text)


def parts_imported(path: Path) -> set[str]:
    """Return the parts of the library that a file of it needs when it runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastfisher."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "fastfisher":
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_parts_import_only_what_stands_below(path: Path) -> None:
    floor = {part: level for level, parts in enumerate(FLOORS) for part in parts}
    part = path.relative_to(ROOT / "python/fastfisher").parts[0].removesuffix(".py")
    for other in parts_imported(path) & set(floor):
        # Which verbs serve an array is asked while it is checked.
        if (part, other) != ("_check", "_ops"):
            assert floor[other] <= floor[part], f"{name(path)}: {other} stands above {part}."


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_only_ops_imports_another_array_library(path: Path) -> None:
    if "_ops" not in path.parts:
        assert not imported(path) & {"cupy", "cupyx", "torch", "jax", "tensorflow"}


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_only_one_file_imports_dask(path: Path) -> None:
    # Its arrays are lists of tasks, each of which meets NumPy's: a scheduler, no kind of array.
    allowed = name(path).endswith("fastfisher/distributed/dask.py")
    assert allowed or not imported(path) & {"dask", "distributed"}


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_only_ops_and_native_touch_the_core(path: Path) -> None:
    # The demo asks for the roofs, which are no array's business.
    if "_ops" in path.parts or name(path).endswith(("/_native.py", "demo/clock.py")):
        return
    names = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module in {"fastfisher._native", "_native"}
        for alias in node.names
    }
    assert "core" not in names


@pytest.mark.parametrize("path", [p for p in LIBRARY if "applications" in p.parts], ids=name)
def test_applications_leave_linear_algebra_to_fisher(path: Path) -> None:
    # Eigenbases are NumPy's everywhere; what solves, factors or inverts belongs to a Fisher.
    theirs = {"inv", "solve", "cholesky", "lstsq", "pinv", "qr", "svd", "det", "slogdet"}
    called = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("linalg")
    }
    assert not called & theirs


def test_flags_keep_the_bits() -> None:
    text = re.sub(r"#[^\n]*", "", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    for flag in ("fast-math", "march=native", "mtune=native", "-Ofast", "/fp:fast", "unsafe-math"):
        assert flag not in text
    assert set(re.findall(r"-march=(\S+)\b", text)) == {"x86-64-v3", "x86-64-v4"}


def test_cmake_lists_every_source() -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    for room in ("kernels", "bindings"):
        found = re.search(rf"^set\({room} ([^)]*)\)$", text, re.MULTILINE)
        assert found is not None
        listed = found.group(1).split()
        there = [p.stem for p in sources(f"src/cpp/{room}", ".cpp") if p.stem != "cpu_module"]
        assert sorted(listed) == sorted(there)


def test_numpy_is_the_only_requirement() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dependencies"] == ["numpy>=2.0"]


def test_types_are_checked_strictly_everywhere() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert settings["strict"]
    assert {"examples", "bench", "tests"} < set(settings["files"])
    tables = (settings, *settings["overrides"])
    assert not [key for table in tables for key, value in table.items() if value is False]


if __name__ == "__main__":
    architecture = ROOT / "ARCHITECTURE.md"
    before = architecture.read_text(encoding="utf-8")
    architecture.write_text(MAP.sub(lambda _: the_map(), before), encoding="utf-8")
