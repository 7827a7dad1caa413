"""`make docs`: the file tables of docs/architecture.md, one line a file, from the files' docstrings.

What stands above the marker in the page is written by hand and stays.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
MARKER = "<!-- Below this line: `make docs`, from the first sentence of each file's docstring. -->\n"
PACKAGES = ("jobs", "pipeline", "sspsam", "benchmarks", "examples")


def first_sentence(path: Path) -> str:
    """The first paragraph of a file's docstring up to its first full stop, on one line.

    Raises:
        ValueError: the file has no docstring.
    """
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{path.relative_to(ROOT)} has no docstring: say in one sentence what it holds")
    paragraph = " ".join(text.split("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return sentence + (stop and ".")


def tables() -> Iterator[str]:
    """Markdown: one heading a folder, one row a file, folders in the order of their names."""
    for package in PACKAGES:
        folders = sorted({path.parent for path in (ROOT / package).rglob("*.py")})
        for folder in folders:
            yield f"\n{'##' if folder.parent == ROOT else '###'} {folder.relative_to(ROOT)}/\n"
            about = folder / "__init__.py"
            if about.exists() and about.stat().st_size:
                yield f"\n{first_sentence(about)}\n"
            files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
            if files:
                yield "\n| file | what it holds |\n|---|---|\n"
                yield from (f"| `{path.name}` | {first_sentence(path)} |\n" for path in files)


def page() -> str:
    """The whole page, with fresh tables."""
    by_hand, marker, _ = PAGE.read_text(encoding="utf-8").partition(MARKER)
    if not marker:
        raise ValueError(f"{PAGE.relative_to(ROOT)} has lost its marker line: {MARKER.strip()}")
    return by_hand + MARKER + "".join(tables())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
