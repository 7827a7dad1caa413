"""The folder that `curate`, `import` and `export` write: refused if not empty, marked incomplete until done.

A manifest (`_curation.json`, say) says `complete: false` until everything is written, so that readers
refuse an interrupted one. Every file is written whole or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fsspec.core import url_to_fs

from pipeline.dataset.store import Store
from sspsam.errors import ConfigError
from sspsam.storage.secrets import redact_urls


@dataclass(frozen=True)
class Destination:
    """An output folder at `url`, and the name of its manifest."""

    url: str
    manifest: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def store(self) -> Store:
        return Store(self.url, self.storage_options)

    def begin(self, *, overwrite: bool, sources: Sequence[str]) -> None:
        """Claim the folder and empty it. Raises ConfigError if it must not be touched.

        overwrite: whether a folder that the same command wrote before is emptied; any other folder with
        something in it is refused all the same. sources: folders that are read and so never written into.
        """
        refuse_overlap(self.url, sources)
        store = self.store
        found = [name for name in store.listing() if not name.startswith("_tmp/")]
        if found and self.manifest not in found:
            raise ConfigError(
                f"{self.url}: holds {found[0]} and more, which this command did not write; give a new folder"
            )
        if found and not overwrite:
            raise ConfigError(f"{self.url}: exists already; --overwrite replaces it")
        self.write_manifest({"complete": False})
        store.delete(name for name in found if name != self.manifest)

    def write_manifest(self, values: Mapping[str, Any]) -> None:
        text = json.dumps(redact_urls(dict(values)), indent=2, ensure_ascii=False)
        self.store.put(self.manifest, f"{text}\n".encode())

    def put_file(self, name: str, path: Path) -> None:
        """Move a finished local file to `name`."""
        if self.store.local:
            target = Path(self.store.path(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
        else:
            fs, root = url_to_fs(self.url, **self.storage_options)
            fs.put_file(str(path), f"{root.rstrip('/')}/{name}")
            path.unlink()

    def put_folder(self, name: str, folder: Path) -> None:
        """Move every file of a finished local folder to below `name`."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put_file(f"{name}/{path.relative_to(folder).as_posix()}", path)

    def finish(self, values: Mapping[str, Any]) -> None:
        """Write the final manifest, which says that the folder is whole."""
        self.write_manifest({"complete": True, **values})
        self.store.tidy()


def refuse_overlap(destination: str, sources: Sequence[str]) -> None:
    """Raise ConfigError if `destination` is one of `sources`, inside of one, or around one."""
    target = _absolute(destination)
    for source in sources:
        other = _absolute(source)
        if f"{target}/".startswith(f"{other}/") or f"{other}/".startswith(f"{target}/"):
            raise ConfigError(
                f"{destination}: is not apart from {source}, which is only read; give another folder"
            )


def _absolute(url: str) -> str:
    """The canonical path or URL of a folder, without a trailing slash."""
    parts = urlsplit(str(url))
    if len(parts.scheme) > 1 and parts.scheme not in ("file", "local"):
        return str(url).rstrip("/")
    return str(Path(parts.path if parts.scheme in ("file", "local") else str(url)).resolve())
