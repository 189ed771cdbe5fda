"""The pages of the documentation keep their word: what they show runs, what they name exists."""

import ast
import doctest
import re
import runpy
import tomllib
from functools import cache
from pathlib import Path

import pytest

import fastfisher as ff

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
GALLERY = runpy.run_path(str(DOCS / "_gallery.py"))
ENTRIES = GALLERY["gallery"]()
# A block that a reader sees, or what has to be there before it and would only distract.
CODE = re.compile(r"^```python\n(.*?)^```$|^<!-- setup\n(.*?)^-->$", re.DOTALL | re.MULTILINE)

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run_page(name):
    """Run all code of a page in its order and in one namespace; return what differs."""
    report: list[str]
    names, report = {"__name__": "__main__"}, []
    for found in CODE.finditer(PAGES[name]):
        code, line = found[1] or found[2], PAGES[name].count("\n", 0, found.start()) + 1
        if ">>> " in code:
            shown = doctest.DocTestParser().get_doctest(code, {}, name, f"{name}.md", line)
            shown.globs = names  # not a copy: functions of one block see names of the next
            doctest.DocTestRunner().run(shown, out=report.append, clear_globs=False)
        else:
            exec(compile("\n" * line + code, f"{name}.md", "exec"), names)
    return "".join(report)


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if CODE.search(text)])
def test_the_page_shows_what_it_prints(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for library in ("cupy", "torch"):  # which the test extra leaves out
        if f"import {library}" in PAGES[name]:
            pytest.importorskip(library)
    assert not run_page(name)


def test_a_page_that_prints_something_else_is_found(monkeypatch):
    monkeypatch.setitem(PAGES, "wrong", "```python\nx = 1\n```\n\n```python\n>>> x\n2\n\n```\n")
    assert "Expected:\n    2\nGot:\n    1" in run_page("wrong")
    monkeypatch.setitem(PAGES, "broken", "```python\nx = 1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError):
        run_page("broken")


@pytest.mark.parametrize("name", PAGES)
def test_no_code_hides_behind_another_name(name):
    """A block is Python, which runs, or what Python is not."""
    for kind, block in FENCE.findall(PAGES[name]):
        assert kind.startswith("{") or kind in {"python", "bash", "text", ""}
        assert kind == "python" or not re.search(">>> |import ", block)


def test_every_page_is_once_in_the_table_of_contents():
    tables = re.findall(r"```{toctree}(.*?)```", PAGES["index"], re.DOTALL)
    listed = re.findall(r"^(?:.*<)?(\w+)>?$", "\n".join(tables), re.MULTILINE)
    assert sorted(listed) == sorted(set(PAGES) - {"index"})


def test_no_section_of_the_first_page_is_there_twice_or_empty():
    sections = re.split(r"^## ", PAGES["index"], flags=re.MULTILINE)[1:]
    titles, texts = zip(*(section.split("\n", 1) for section in sections), strict=True)
    captions = re.findall(r"^:caption: (.*)$", PAGES["index"], re.MULTILINE)
    for names in (titles, captions):
        assert len(set(names)) == len(names)
    assert all(map(str.strip, texts))
    assert "{toctree}" not in "".join(texts)


def test_every_public_name_has_its_entry():
    listed = set(re.findall(r"^ {3}([\w.]+)$", PAGES["api"], re.MULTILINE))
    modules = {"batch": ff.batch, "distributed": ff.distributed}
    wanted = {name for name in ff.__all__ if name != "__version__"} - {*modules, "families"}
    for name, module in modules.items():
        wanted |= {f"{name}.{verb}" for verb in module.__all__}
    assert listed == wanted | {"families.Family", "fisher.factor.Factor"}


@pytest.mark.parametrize("name", ["CONTRIBUTING", *PAGES])
def test_commands_name_what_exists(name):
    text = PAGES.get(name) or (ROOT / f"{name}.md").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    for listed in re.findall(r'pip install "(?:\.|fastfisher)\[([\w,]+)\]"', text):
        assert set(listed.split(",")) <= set(extras)
    for script in re.findall(r"(?:examples|bench|tests|docs)/\w+\.(?:py|md|png|svg)", text):
        assert (ROOT / script).exists(), script
    for session in re.findall(r"nox -s (\w+)", text):
        assert session in sessions()


def test_the_sessions_that_contributors_read_are_those_that_nox_lists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    assert dict(rows) == sessions()
    assert [name for name, _ in rows] == list(sessions())
    assert all(line.endswith(".") and "\n" not in line for line in sessions().values())


def sessions() -> dict[str, str]:
    """Return the noxfile's sessions with what each says of itself, without importing nox."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return {
        node.name: ast.get_docstring(node) or ""
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("session" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


# ---- promises and their kin: what they name as their check ----


@cache
def functions_of(path):
    """Return the names of the functions in a file, tests among them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    "name", [name for name, text in PAGES.items() if re.search(r"`test_\w+\.py", text)]
)
def test_the_checks_that_a_page_names_exist(name):
    named = re.findall(r"`(test_\w+)\.py(?:::(\w+))?`", PAGES[name])
    assert named
    for file, function in named:
        path = ROOT / "tests" / f"{file}.py"
        assert path.exists(), file
        assert not function or function in functions_of(path), f"{file}.py::{function}"
    everywhere = set().union(*map(functions_of, (ROOT / "tests").glob("test_*.py")))
    assert set(re.findall(r"`(test_\w+)`", PAGES[name])) <= everywhere
    for session in re.findall(r"`nox -s (\w+)`", PAGES[name]):
        assert session in sessions(), session


def test_no_promise_stands_without_its_check():
    tables = re.findall(r"^\| promise.*?(?=\n\n)", PAGES["promises"], re.DOTALL | re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()[2:]]
    assert len(rows) > 30
    for row in rows:
        assert re.search(r"`test_\w+\.py(?:::\w+)?`|`nox -s \w+`", row.split("|")[2]), row


# ---- the gallery ----
@pytest.mark.parametrize("path", GALLERY["examples"](), ids=lambda path: path.stem)
def test_every_example_is_in_the_gallery(path):
    assert f"python examples/{path.name}" in ENTRIES
    if "[picture.png]" in path.read_text(encoding="utf-8"):
        assert f"(figures/{path.stem}.png)" in ENTRIES
        assert (DOCS / "figures" / f"{path.stem}.png").stat().st_size < 120_000
