"""The README keeps its word: its example prints what it shows, its files and commands exist."""

import contextlib
import io
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
found = re.search(r"```python\n(.*?)```\s+```\n(.*?)```", TEXT, re.DOTALL)
assert found is not None
EXAMPLE = found


def test_the_example_prints_what_is_shown() -> None:
    code, expected = EXAMPLE.groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == expected


def test_the_example_has_fifteen_lines() -> None:
    lines = [line for line in EXAMPLE.group(1).splitlines() if line.strip()]
    assert len(lines) <= 15


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT):
        assert "://" in target or (ROOT / target).exists(), target


def test_commands_install_extras_that_exist() -> None:
    extras = re.findall(r'pip install "\.\[(\w+)\]"', TEXT)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extras
    assert set(extras) <= set(project["optional-dependencies"])
