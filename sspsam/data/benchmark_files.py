"""Files of a benchmark, local or by fsspec URL; a missing one is named with its download page."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

import fsspec
import ijson

from sspsam.data.json_depth import Nested
from sspsam.errors import DataError, one_line
from sspsam.storage.storage_options import options_for

COCO_IMAGES = (
    "COCO's train2014 images (13 GB): http://images.cocodataset.org/zips/train2014.zip, or give "
    "--images http://images.cocodataset.org/train2014 to read them one by one"
)


def join(folder: str, *names: str) -> str:
    """Path or URL of something in a folder given as path or URL."""
    return posixpath.join(folder.rstrip("/") or "/", *names)


def parent(path: str) -> str:
    """The folder that holds a path or URL."""
    return posixpath.dirname(path.rstrip("/")) or "."


def exists(path: str, storage_options: dict[str, Any] | None = None) -> bool:
    fs, inner = fsspec.core.url_to_fs(path, **options_for(path, storage_options))
    return bool(fs.exists(inner))


def listing(folder: str, storage_options: dict[str, Any] | None = None) -> list[str]:
    """Names in a folder, sorted; empty if there is no such folder."""
    fs, inner = fsspec.core.url_to_fs(folder, **options_for(folder, storage_options))
    try:
        return sorted(posixpath.basename(name.rstrip("/")) for name in fs.ls(inner, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def require(files: dict[str, str], where: str, storage_options: dict[str, Any] | None = None) -> None:
    """Check that files exist.

    Args:
        files: path or URL -> what it is.
        where: download page.
        storage_options: for fsspec.

    Raises:
        DataError: some do not; names them all, and the download page.
    """
    missing = [f"{path} ({what})" for path, what in files.items() if not exists(path, storage_options)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise DataError(f"{' and '.join(missing)} {verb} missing. Download: {where}")


def read_bytes(path: str, storage_options: dict[str, Any] | None = None) -> bytes:
    """All bytes of a file.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    try:
        with opened(path, storage_options) as handle:
            return bytes(handle.read())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error


def opened(path: str, storage_options: dict[str, Any] | None = None) -> fsspec.core.OpenFile:
    """A context manager that opens a file to read its bytes."""
    return fsspec.open(path, "rb", **options_for(path, storage_options))


def stream_json(
    path: str, prefix: str = "item", storage_options: dict[str, Any] | None = None
) -> Iterator[Any]:
    """The items of an array in a JSON file, one at a time: these files have hundreds of megabytes.

    Args:
        path: file or URL.
        prefix: "item" for a file that is one array, "annotations.item" for an array in an object.

    Raises:
        DataError: not JSON, or it ends early; names the file.
    """
    try:
        with opened(path, storage_options) as handle:
            yield from ijson.items(Nested(handle), prefix, use_float=True)
    except ijson.JSONError as error:
        raise DataError(f"{path} is not whole JSON ({one_line(error)}): fetch it again") from error


def find_image_folder(
    first: str,
    folders: list[str],
    where: str,
    storage_options: dict[str, Any] | None = None,
) -> str:
    """The first of `folders` that holds the image `first`.

    Raises:
        DataError: none does; lists the places, and the download page.
    """
    for folder in folders:
        if exists(join(folder, first), storage_options):
            return folder
    tried = ", ".join(join(folder, first) for folder in folders)
    raise DataError(
        f"no image {first}; looked for {tried}. Give the folder or URL by --images. Download: {where}"
    )


def pick_splits(split: str, known: list[str], path: str) -> list[str]:
    """`split` ("val", or several with commas) as a list.

    Raises:
        DataError: one of them is not in the dataset; lists those that are.
    """
    wanted = [name.strip() for name in split.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise DataError(
            f"no split {', '.join(unknown) or repr(split)} in {path}; --split takes "
            f"{', '.join(known)}, or several with commas"
        )
    return wanted
