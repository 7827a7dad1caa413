"""JSON files of a few long lists, written without holding the lists."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any


class JsonLists:
    """Collects items of named lists in scratch files; `save` joins them into one JSON object."""

    def __init__(self, scratch: Path, names: Sequence[str]) -> None:
        self._paths = {name: scratch / f"{name}.part" for name in names}
        self._files: dict[str, IO[str]] = {}
        self._counts = dict.fromkeys(names, 0)

    def __enter__(self) -> JsonLists:
        for name, path in self._paths.items():
            self._files[name] = path.open("w", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def append(self, name: str, item: Mapping[str, Any]) -> None:
        separator = ",\n" if self._counts[name] else ""
        self._files[name].write(separator + json.dumps(item, ensure_ascii=False))
        self._counts[name] += 1

    def save(self, path: Path, rest: Mapping[str, Any]) -> None:
        """Write the object: the lists, and the members of `rest`."""
        for file in self._files.values():
            file.close()
        with path.open("w", encoding="utf-8") as out:
            out.write("{")
            for name, value in rest.items():
                out.write(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)},\n")
            for place, (name, part) in enumerate(self._paths.items()):
                out.write(f"{',' if place else ''}{json.dumps(name)}: [\n")
                with part.open(encoding="utf-8") as items:
                    shutil.copyfileobj(items, out, 1 << 20)
                out.write("\n]")
            out.write("}\n")
