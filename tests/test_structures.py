"""The page on structures keeps its word: its snippets run, and give what it says they give."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastfisher.fisher import REPRESENTATIONS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "structures.md"
DAMPING = 1e-3


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """Names that the page's snippets leave behind, run in their order."""
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(code, PAGE.name, "exec"), names)
    return names


def damped_solve(F: np.ndarray, g: np.ndarray) -> np.ndarray:
    return np.linalg.solve(F + DAMPING * np.eye(len(F)), g)


def same(x: np.ndarray, y: np.ndarray) -> None:
    # κ(F + λI) is below 10⁴ here: 10⁴ · 10 ε, and LayerFisher's dual loses as many once more.
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-9 * np.abs(y).max())


def test_what_the_page_calls_exact_is(page: dict[str, Any]) -> None:
    S, g = page["scores"], page["gradient"]
    F = S.T @ S / len(S)
    exact = damped_solve(F, g)
    for name in ("step", "exact"):
        same(page[name], exact)
    same(np.concatenate([w.ravel() for w in page["weights"]]), exact)
    few = S[:50]
    same(page["dual"].value, damped_solve(few.T @ few / 50, g))
    assert page["dual"].method == "dual"
    for name in ("by_root", "by_qr"):
        same(page[name], np.linalg.solve(F, g))


def test_what_the_page_drops_is_dropped(page: dict[str, Any]) -> None:
    S, g, sizes = page["scores"], page["gradient"], page["sizes"]
    F = S.T @ S / len(S)
    same(page["scaled"], g / (np.diag(F) + DAMPING))
    layer = np.repeat([0, 1], sizes)
    same(page["by_layer"], damped_solve(F * (layer[:, None] == layer), g))
    neuron = np.repeat(np.arange(10), [9] * 6 + [7] * 4)
    np.testing.assert_allclose(
        page["unit_wise"].to_dense(), F * (neuron[:, None] == neuron), atol=1e-13
    )


def test_factors_and_sketches_are_as_far_as_the_page_says(page: dict[str, Any]) -> None:
    S, g = page["scores"], page["gradient"]
    F = S.T @ S / len(S)
    layer = np.repeat([0, 1], page["sizes"])
    blocks = F * (layer[:, None] == layer)
    K, E, R = page["K"].to_dense(), page["E"].to_dense(), page["R"].to_dense()
    same(page["ekfac"], damped_solve(E, g))
    assert np.linalg.norm(blocks - E) < np.linalg.norm(blocks - K)
    assert np.linalg.norm(F - R, 2) <= page["R"].error_bound * (1 + 1e-9)
    same(page["low_rank"], damped_solve(R, g))
    assert page["kfac"].shape == g.shape


def test_the_page_names_every_representation() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in REPRESENTATIONS if f"`{name}`" not in text] == []
