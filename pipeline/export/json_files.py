"""JSON files of a few long lists, written without holding the lists."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any


class JsonLists(ExitStack):
    """Collects items of named lists in scratch files; `save` joins them into one JSON object."""

    def __init__(self, scratch: Path, names: Sequence[str]) -> None:
        super().__init__()
        self._files = {
            name: self.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", dir=scratch))  # noqa: SIM115
            for name in names
        }
        self._begun: set[str] = set()

    def append(self, name: str, item: Mapping[str, Any]) -> None:
        self._files[name].write(",\n" if name in self._begun else "")
        self._files[name].write(json.dumps(item, ensure_ascii=False))
        self._begun.add(name)

    def save(self, path: Path, rest: Mapping[str, Any]) -> None:
        """Write the object: the members of `rest`, and the lists."""
        with path.open("w", encoding="utf-8") as out:
            out.write("{")
            for name, value in rest.items():
                out.write(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)},\n")
            for place, (name, items) in enumerate(self._files.items()):
                out.write(f"{',' if place else ''}{json.dumps(name)}: [\n")
                items.seek(0)
                shutil.copyfileobj(items, out, 1 << 20)
                out.write("\n]")
            out.write("}\n")
