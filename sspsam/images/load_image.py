"""An input image's encoded bytes again, from the reference that its annotation row holds.

`schema.IMAGE_REF_TYPE` has four forms:

- plain tar: `url` of the tar, `member`, and the `offset` and `length` of its bytes: one range read;
- compressed tar: `url` and `member`: the tar is read up to the member;
- Parquet: `url` and `member`, the row number as a decimal string: one row group of one column is read;
- a file: `url` and `member` is a path below it, or `member` is null and `url` the file itself.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from sspsam.errors import DataError
from sspsam.images.image_places import TARS, ImagePlaces, is_archive
from sspsam.storage.storage_options import options_for

#: Parquet columns that images stand in, best first; without any of them the first that can hold one.
IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "bytes")


def load_image(
    ref: Mapping[str, Any],
    storage_options: Mapping[str, Any] | None = None,
    image_column: str | None = None,
    places: ImagePlaces | None = None,
) -> bytes:
    """The encoded bytes of an image.

    Args:
        ref: a row's `image_ref`: url, member, offset, length.
        storage_options: for the file system of the URL; those that it does not know are left out.
        image_column: of a Parquet file; None finds it.
        places: where the reference may lead, for rows of somebody else; web redirects are not followed then.
            None follows any reference.

    Raises:
        DataError: what is referred to is not there, is shorter, holds no image, or is not in `places`; the
            message names it.
    """
    if places is not None:
        ref = places.admit(ref)
    url, member = ref.get("url"), ref.get("member")
    if not url:
        raise DataError("the row has no image reference (image_ref.url is null)")
    name = url if member is None else f"{url} ({member})"
    options = options_for(url, storage_options)
    if places is not None and url.lower().startswith("http"):
        options["allow_redirects"] = False
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
        found = _read(filesystem, path, ref, image_column, name)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(
            f"{name}: the image is not there any more; was the input moved? (--image-root)"
        ) from error
    except ImportError as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:  # stores have their own exceptions
        raise DataError(f"{name}: {type(error).__name__}: {error}") from error
    if not found and "allow_redirects" in options:
        raise DataError(
            f"{name}: no bytes; a web redirect is not followed, because anybody can make it lead elsewhere"
        )
    if isinstance(found, bytes):
        return found
    beside = found if "://" in found else f"{url.rpartition('/')[0]}/{found}"
    return load_image({"url": beside}, storage_options, places=places)


def _read(
    filesystem: Any, path: str, ref: Mapping[str, Any], image_column: str | None, name: str
) -> bytes | str:
    """The bytes, or the URL or path beside the file that a Parquet file has instead."""
    member = ref.get("member")
    if ref.get("offset") is not None:
        return _range(filesystem, path, int(ref["offset"]), int(ref["length"]), name)
    if not is_archive(ref):
        return bytes(filesystem.cat_file(f"{path.rstrip('/')}/{member}"))
    if member is None:
        return bytes(filesystem.cat_file(path))
    if path.lower().split("?", 1)[0].endswith(TARS):
        return _from_tar(filesystem, path, member, name)
    return _from_parquet(filesystem, path, member, image_column, name)


def _range(filesystem: Any, path: str, offset: int, length: int, name: str) -> bytes:
    data = bytes(filesystem.cat_file(path, start=offset, end=offset + length))
    if len(data) > length:  # a web server that knows no ranges sends all of the file
        data = data[offset : offset + length]
    if len(data) != length:
        raise DataError(f"{name}: {len(data)} of {length} bytes at {offset}; was the tar replaced?")
    return data


def _from_tar(filesystem: Any, path: str, member: str, name: str) -> bytes:
    with filesystem.open(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
        for entry in tar:
            if entry.name == member and entry.isfile():
                file = tar.extractfile(entry)
                if file is not None:
                    return file.read()
    raise DataError(f"{name}: no such member in the tar")


def _from_parquet(
    filesystem: Any,
    path: str,
    member: str,
    image_column: str | None,
    name: str,
) -> bytes | str:
    if not member.isdecimal():
        raise DataError(f"{name}: the member of a Parquet file must be a row number")
    version = str(filesystem.ukey(path))
    file = _Opened(filesystem, path)
    values, row = _row_group(file, version, int(member), image_column)
    value = values[row].as_py()
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        value = value.get("path")
    followed = _layout(file, version, image_column)[2]
    if isinstance(value, bytes) or (isinstance(value, str) and value and followed):
        return value
    raise DataError(f"{name}: the row holds no image")


class _Opened:
    """A file by identity of its place, so that the last row groups can be remembered."""

    def __init__(self, filesystem: Any, path: str) -> None:
        self.filesystem = filesystem
        self.path = path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Opened) and (self.path, self.filesystem) == (
            other.path,
            other.filesystem,
        )

    def __hash__(self) -> int:
        return hash(self.path)


def _row_group(
    file: _Opened, version: str, row: int, image_column: str | None
) -> tuple[pa.ChunkedArray, int]:
    """The image column of the row group that holds `row`, and the row's place in it."""
    starts, column, _ = _layout(file, version, image_column)
    for group in range(len(starts) - 1):
        if starts[group] <= row < starts[group + 1]:
            return _column(file, version, group, column), row - starts[group]
    raise DataError(f"{file.path}: no row {row}, the file has {starts[-1]}; was it replaced?")


@lru_cache(maxsize=64)
def _layout(file: _Opened, version: str, image_column: str | None) -> tuple[list[int], str, bool]:
    """First row of each row group and the number of rows, the name of the image column, and whether paths in
    it lead to images: not so in annotation files, where they are keys."""
    with file.filesystem.open(file.path, "rb") as stream:
        parquet = pq.ParquetFile(stream)
        metadata = parquet.metadata
        starts = [0]
        for group in range(metadata.num_row_groups):
            starts.append(starts[-1] + metadata.row_group(group).num_rows)
        schema = parquet.schema_arrow
        return starts, image_column or find_image_column(schema, file.path), "image_ref" not in schema.names


# People page through images in order: the group that was read last is the one asked for next.
@lru_cache(maxsize=2)
def _column(file: _Opened, version: str, group: int, column: str) -> pa.ChunkedArray:
    with file.filesystem.open(file.path, "rb") as stream:
        return pq.ParquetFile(stream).read_row_group(group, columns=[column])[column]


def find_image_column(schema: pa.Schema, name: str) -> str:
    """Which column of a Parquet file holds images: encoded bytes or a struct with `bytes`.

    Raises:
        DataError: none can; the message lists the columns.
    """
    candidates = [field.name for field in schema if _holds_images(field.type)]
    if not candidates:
        listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise DataError(f"{name}: no column of image bytes among {listed}; name it (image_column)")
    lower = {candidate.lower(): candidate for candidate in candidates}
    return next((lower[known] for known in IMAGE_COLUMNS if known in lower), candidates[0])


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
