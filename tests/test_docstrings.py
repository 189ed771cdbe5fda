"""Every public name, method and attribute has an example, and every example runs."""

import doctest
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastfisher as ff
from fastfisher import batch, distributed, families
from fastfisher.fisher.factor import Factor

PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (ff, batch, distributed, families)
    for name in module.__all__
    if name != "__version__"
}
PUBLIC["Factor"] = Factor  # what F.factor returns: no name of its own, but methods
CLASSES = {name: thing for name, thing in PUBLIC.items() if inspect.isclass(thing)}
EXAMPLES = doctest.DocTestParser()


def ours(thing: type[Any]) -> list[type[Any]]:
    """Return the classes of fastfisher that `thing` is made of."""
    return [base for base in thing.__mro__ if base.__module__.startswith("fastfisher")]


def members(thing: type[Any]) -> list[str]:
    """Return the names that a user of the class may ask for."""
    return sorted({name for base in ours(thing) for name in vars(base) if not name.startswith("_")})


def examples(text: str | None) -> str:
    """Return what examples show, and what they print."""
    return " ".join(f"{e.source} {e.want}" for e in EXAMPLES.get_examples(text or ""))


def run(thing: Callable[..., Any], name: str) -> list[doctest.DocTest]:
    """Run the examples of a docstring and of those of its methods."""
    found = doctest.DocTestFinder(recurse=True).find(thing, name, module=False, globs={})
    with_examples = [test for test in found if test.examples]
    for test in with_examples:
        report: list[str] = []
        doctest.DocTestRunner().run(test, out=report.append)
        assert not report, "".join(report)
    return with_examples


@pytest.mark.parametrize("name", PUBLIC)
def test_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = {test.name for test in run(PUBLIC[name], name)}
    assert name in shown, f"{name}: expected an example in its docstring, got none."


@pytest.mark.parametrize("base", sorted({b for c in CLASSES.values() for b in ours(c)}, key=str))
def test_example_of_a_base_runs(
    base: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(base, base.__name__)


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_method_says_what_it_does(name: str) -> None:
    for member in members(CLASSES[name]):
        if callable(getattr(CLASSES[name], member)):
            assert inspect.getdoc(getattr(CLASSES[name], member)), f"{name}.{member}"


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_member_is_shown(name: str) -> None:
    """An example uses it: its own, its class's, or one of a class that this one is made of."""
    thing = CLASSES[name]
    for member in members(thing):
        texts = [text for base in ours(thing) for text in (base, vars(base).get(member))]
        shown = " ".join(examples(inspect.getdoc(text)) for text in texts if text is not None)
        assert re.search(rf"\b{member}\b", shown), f"{name}.{member}: expected an example."


@pytest.mark.parametrize("name", CLASSES)
def test_every_attribute_is_explained(name: str) -> None:
    """A field is in the docstring's list of parameters or attributes."""
    thing = CLASSES[name]
    explained = " ".join(base.__doc__ or "" for base in ours(thing))
    for field in getattr(thing, "__dataclass_fields__", ()):
        if not field.startswith("_"):
            assert re.search(
                rf"^\s*(?:\w+, )*{field}(?:, \w+)*(?: :|$)", explained, re.MULTILINE
            ), f"{name}.{field}: expected a line in its docstring."


def test_a_member_without_an_example_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLASSES, "bare", type("Bare", (), {"go": test_names_are_sorted_and_there}))
    CLASSES["bare"].__module__ = "fastfisher.bare"
    with pytest.raises(AssertionError, match=r"bare.go: expected an example"):
        test_every_public_member_is_shown("bare")


def test_names_are_sorted_and_there() -> None:
    order = sorted(ff.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert order == list(ff.__all__)
    assert all(hasattr(ff, name) for name in ff.__all__)
