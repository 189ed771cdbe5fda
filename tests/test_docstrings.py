"""Every public name has a docstring whose example runs."""

import doctest
import inspect

import pytest

import fastfisher as ff

PUBLIC = [name for name in ff.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", PUBLIC)
def test_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thing = getattr(ff, name)
    found = doctest.DocTestFinder(recurse=False).find(thing, name, globs={})
    examples = [test for test in found if test.examples]
    assert examples, f"{name}: expected an example in its docstring, got none."
    for test in examples:
        report = []
        doctest.DocTestRunner().run(test, out=report.append)
        assert not report, "".join(report)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_method_says_what_it_does(name):
    thing = getattr(ff, name)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        for method, value in vars(thing).items():
            if not method.startswith("_") and callable(value):
                assert inspect.getdoc(getattr(thing, method)), f"{name}.{method}"


def test_names_are_sorted_and_there():
    order = sorted(ff.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert order == list(ff.__all__)
    assert all(hasattr(ff, name) for name in ff.__all__)
