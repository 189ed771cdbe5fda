"""The pages of the documentation keep their word: what they show is what their code prints."""

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if ">>> " in text])
def test_the_page_shows_what_it_prints(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "import torch" in PAGES[name]:
        pytest.importorskip("torch")
    report = []
    page = doctest.DocTestParser().get_doctest(PAGES[name].replace("```", ""), {}, name, name, 0)
    doctest.DocTestRunner().run(page, out=report.append)
    assert not report, "".join(report)


def test_every_page_is_in_the_table_of_contents():
    tables = re.findall(r"```{toctree}(.*?)```", PAGES["index"], re.DOTALL)
    assert set(PAGES) - {"index"} <= set(" ".join(tables).split())
