"""The gallery's entries, made of the examples' docstrings and of the pictures that they draw."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def examples():
    """Return the examples that one runs: not what they share."""
    paths = sorted((ROOT / "examples").glob("*.py"))
    return [path for path in paths if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]


def gallery():
    """Return the entry of each example: what it shows, its picture, how to run it, and details."""
    entries = []
    for path in examples():
        opening = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        first, _, rest = (part.replace("\n", " ") for part in opening.partition("\n\n"))
        title, _, what = first.removesuffix(".").partition(": ")
        command, _, details = rest.partition(": ")
        entry = [f"## {title}", *([f"{what[:1].upper()}{what[1:]}."] if what else [])]
        picture = ROOT / "docs" / "figures" / f"{path.stem}.png"
        if picture.exists():
            entry.append(f"![{title}](figures/{picture.name})")
        entries += [*entry, f"```bash\n{command}\n```", details[:1].upper() + details[1:]]
    return "\n\n".join(entries)
