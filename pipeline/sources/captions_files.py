"""Captions files of image folders: JSON lines, CSV, and COCO captions JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, Final

from pipeline.sources.samples import IMAGE_EXTENSIONS
from pipeline.sources.storage import filesystem, is_transient
from sspsam.errors import ConfigError

#: Names of the field that says which image a caption is for, best first.
_FILE_NAMES: Final = (
    *("file_name", "filename", "image", "image_path", "filepath", "file", "path", "img"),
    *("image_name", "img_path", "name", "key", "image_id"),
)
#: Names of captions files, looked for in a folder of images in this order.
_USUAL_NAMES: Final = tuple(
    f"{stem}{ending}"
    for stem in ("captions", "metadata", "annotations", "results", "labels")
    for ending in (".jsonl", ".csv", ".json", ".tsv")
)
ENDINGS: Final = (".jsonl", ".ndjson", ".csv", ".tsv", ".json")

#: (file name of the image, fields of the entry)
Entry = tuple[str, Mapping[str, Any]]


def find_captions_file(folder: str, names: Iterable[str]) -> str:
    """The captions file among the names of the files right in a folder.

    Raises:
        ConfigError: there is none, or it is not clear which; the message names `--captions`.
    """
    there = {name.lower(): name for name in names if name.lower().endswith(ENDINGS)}
    usual = [there[name] for name in _USUAL_NAMES if name in there]
    found = usual or list(there.values())
    if usual or len(found) == 1:
        return found[0]
    kinds = "captions.jsonl, captions.csv or captions.json (COCO)"
    if not found:
        raise ConfigError(
            f"INPUT {folder}: images, and no captions file; put {kinds} there, name one with "
            "--captions FILE, or say --captions none"
        )
    raise ConfigError(
        f"INPUT {folder}: which of {', '.join(sorted(found))} holds the captions? Say it with --captions FILE"
    )


def read_captions(url: str, storage_options: Mapping[str, Any] | None) -> Iterator[Entry]:
    """The entries of a captions file, in its order; an image may have several.

    Raises:
        ConfigError: there is no such file, or it has none of the known forms; the message says where.
    """
    fs, path = filesystem(url, storage_options)
    name = url.lower()
    try:
        opened = fs.open(path, "rb")
    except FileNotFoundError as error:
        if is_transient(error):
            raise
        raise ConfigError(f"--captions {url}: no such file") from error
    with opened as raw:
        text = io.TextIOWrapper(raw, "utf-8-sig", newline="")
        try:
            if name.endswith((".csv", ".tsv")):
                yield from _from_csv(url, text)
            elif name.endswith((".jsonl", ".ndjson")):
                yield from _from_json_lines(url, text)
            else:
                yield from _from_json(url, json.load(text))
        except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
            raise ConfigError(f"--captions {url} cannot be read: {error}") from error


def _from_json_lines(url: str, lines: Iterable[str]) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"--captions {url}, line {number}: {error}") from error
        yield _entry(fields, f"--captions {url}, line {number}")


def _from_csv(url: str, file: io.TextIOWrapper) -> Iterator[Entry]:
    head = file.readline()
    delimiter = max("\t|;,", key=head.count)
    names = [cell.strip() for cell in next(csv.reader([head], delimiter=delimiter), [])]
    rows: Iterable[list[str]] = csv.reader(file, delimiter=delimiter)
    if names and PurePosixPath(names[0]).suffix.lower() in IMAGE_EXTENSIONS:
        # No header: file, caption
        rows = chain([names], rows)
        names = ["file_name", "caption"]
    for number, row in enumerate(rows, 2):
        if not any(row):
            continue
        fields = dict(zip(names, (cell.strip() for cell in row), strict=False))
        yield _entry(fields, f"--captions {url}, row {number}")


def _from_json(url: str, loaded: object) -> Iterator[Entry]:
    """COCO captions, a list of entries, or a mapping from file names to captions."""
    if isinstance(loaded, dict) and {"images", "annotations"} <= loaded.keys():
        try:
            names = {image["id"]: image["file_name"] for image in loaded["images"]}
            captions = [(names[a["image_id"]], a) for a in loaded["annotations"]]
        except (KeyError, TypeError) as error:
            raise ConfigError(f"--captions {url} is no COCO captions file: {error!r} is missing") from error
        if captions and "caption" not in captions[0][1]:
            raise ConfigError(f"--captions {url}: its annotations have no 'caption'")
        yield from captions
        captioned = {name for name, _ in captions}
        yield from ((name, {}) for name in names.values() if name not in captioned)
    elif isinstance(loaded, dict):
        for name, caption in loaded.items():
            yield name, caption if isinstance(caption, dict) else {"caption": caption}
    elif isinstance(loaded, list):
        for number, fields in enumerate(loaded):
            yield _entry(fields, f"--captions {url}, entry {number}")
    else:
        raise ConfigError(f"--captions {url}: neither COCO, a list, nor a mapping")


def _entry(fields: object, where: str) -> Entry:
    if not isinstance(fields, dict):
        raise ConfigError(f"{where}: a {type(fields).__name__}, not an object with named fields")
    lowered = {str(name).lower(): name for name in fields}
    for name in _FILE_NAMES:
        value = fields.get(lowered.get(name))
        if isinstance(value, (str, int)) and value != "":
            return str(value), fields
    raise ConfigError(
        f"{where}: no field names the image file; name it file_name (there are "
        f"{', '.join(map(str, fields)) or 'no fields'})"
    )
