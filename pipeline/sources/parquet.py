"""Samples of a Parquet file with image bytes or image URLs, read batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources.fetch_many import Fetched, Fetcher, fetcher, resolve
from pipeline.sources.samples import (
    CAPTION_NAMES,
    ReadOptions,
    Sample,
    Shard,
    clean_text,
    image_ref,
)
from pipeline.sources.storage import ShardError, describe, is_transient, open_shard

_BATCH_ROWS = 64
_BUFFER_BYTES = 2**20
_KEY_NAMES = ("key", "__key__", "id", "uid")
_IMAGE_NAMES = (
    *("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content"),
    *("picture", "photo", "data"),
)
_URL_NAMES = (
    *("url", "image_url", "img_url", "image_link", "imageurl", "link", "src", "image", "img"),
    *("image_path", "file_name", "filename", "path"),
)


@dataclass(frozen=True)
class Columns:
    """Names of the columns that make a sample; `is_url` if `image` holds URLs instead of bytes."""

    image: str
    is_url: bool
    caption: str | None
    key: str | None


def find_columns(schema: pa.Schema, image: str | None, caption: str | None) -> Columns:
    """The columns that hold image, caption and key: those named, else by type and usual name.

    Raises:
        ShardError: of kind `missing_column`; the message names the flag.
    """
    names = ", ".join(f"{field.name}: {field.type}" for field in schema)
    kinds = {field.name: _kind(field.type) for field in schema}
    if caption is not None and caption not in kinds:
        raise ShardError("missing_column", f"--caption-column {caption}: the file has {names}")
    if image is None:
        stored = [name for name, kind in kinds.items() if kind == "bytes"]
        urls = [name for name, kind in kinds.items() if kind == "text"]
        image = _first(_IMAGE_NAMES, stored) or (stored[0] if len(stored) == 1 else None)
        image = image or (None if stored else _first(_URL_NAMES, urls))
        if image is None:
            raise ShardError(
                "missing_column",
                f"no column of images found; name it with --image-column; the file has {names}",
            )
    elif kinds.get(image) not in ("bytes", "text"):
        raise ShardError(
            "missing_column",
            f"--image-column {image}: no such column of bytes or URLs; the file has {names}",
        )
    texts = [name for name, kind in kinds.items() if kind in ("text", "texts") and name != image]
    keys = [name for name, kind in kinds.items() if kind in ("text", "number") and name != image]
    return Columns(
        image,
        kinds[image] == "text",
        caption or _first(CAPTION_NAMES, texts),
        _first(_KEY_NAMES, keys),
    )


def check_columns(shard: Shard, options: ReadOptions) -> None:
    """Find the columns of a file without reading its rows.

    Raises:
        ShardError: as `find_columns` and `parquet_samples`.
    """
    file, _ = open_shard(shard, options.storage_options)
    with closing(file):
        schema = _open(file).schema_arrow
    find_columns(schema, options.image_column, options.caption_column)
    _extra_columns(schema, options)


def parquet_samples(
    shard: Shard, options: ReadOptions, wanted: Callable[[int], bool]
) -> Iterator[Sample | None]:
    """One item a row, in the file's order; None in place of the rows not wanted.

    A damaged row group gives one `damaged_shard` sample for each of its rows.

    Raises:
        ShardError: the file is no Parquet, cut, or lacks a column.
        OSError and others of `storage.is_transient`: the storage failed; another attempt may not.
    """
    with ExitStack() as stack:
        file, _ = open_shard(shard, options.storage_options)
        stack.enter_context(closing(file))
        parquet = _open(file)
        columns = find_columns(parquet.schema_arrow, options.image_column, options.caption_column)
        extra = _extra_columns(parquet.schema_arrow, options)
        named = (columns.image, columns.caption, columns.key, *extra)
        chosen = sorted({name for name in named if name is not None})
        maker = _SampleMaker(shard, options, columns, extra, stack.enter_context(fetcher(options)))
        row = 0
        for group in range(parquet.num_row_groups):
            end = row + parquet.metadata.row_group(group).num_rows
            if not any(map(wanted, range(row, end))):
                yield from itertools.repeat(None, end - row)
                row = end
                continue
            try:
                batches = parquet.iter_batches(
                    _BATCH_ROWS, row_groups=[group], columns=chosen, use_threads=False
                )
                for batch in batches:
                    for sample in maker.samples(batch, row, wanted):
                        yield sample
                        row += 1
            except Exception as error:
                if is_transient(error) and not _is_damage(error):
                    raise
                reason = f"{shard.url}: row group {group}: {describe(error)}"
            else:
                reason = f"{shard.url}: row group {group} has fewer rows than it says"
            for missing in range(row, end):
                yield maker.error(missing, ("damaged_shard", reason)) if wanted(missing) else None
            row = end


class _SampleMaker:
    def __init__(
        self,
        shard: Shard,
        options: ReadOptions,
        columns: Columns,
        extra: list[str],
        fetcher: Fetcher,
    ) -> None:
        self._shard, self._options, self._columns = shard, options, columns
        self._extra, self._fetcher = extra, fetcher
        self._keys: set[str] = set()

    def samples(
        self, batch: pa.RecordBatch, first: int, wanted: Callable[[int], bool]
    ) -> Iterator[Sample | None]:
        """The rows of a batch, whose first is row `first` of the file."""
        keys = self._values(batch, self._columns.key)
        rows = range(first, first + len(batch))
        if not any(map(wanted, rows)):
            for key, row in zip(keys, rows, strict=True):
                self._key(key, row)
                yield None
            return
        images = self._values(batch, self._columns.image)
        captions = self._values(batch, self._columns.caption)
        extra = {name: self._values(batch, name) for name in self._extra}
        urls = [self._url(value) if wanted(row) else None for value, row in zip(images, rows, strict=True)]
        fetched = self._fetcher.fetch(urls, missing="missing_image")
        for i, row in enumerate(rows):
            key, error = self._key(keys[i], row)
            if not wanted(row):
                yield None
                continue
            image: Fetched | None = fetched[i] if urls[i] else _bytes(images[i])
            if error is None:
                error = self._fault(image)
            url = urls[i]
            ref = image_ref(url) if url else image_ref(self._shard.url, str(row))
            columns = {name: values[i] for name, values in extra.items()}
            encoded = image if isinstance(image, bytes) and error is None else None
            yield Sample(key, row, encoded, clean_text(captions[i]), columns, ref, error)

    @staticmethod
    def _values(batch: pa.RecordBatch, name: str | None) -> list[Any]:
        return [None] * len(batch) if name is None else batch.column(name).to_pylist()

    def error(self, row: int, reason: tuple[str, str]) -> Sample:
        key, _ = self._key(None, row)
        return Sample(key, row, None, None, {}, image_ref(self._shard.url, str(row)), reason)

    def _key(self, value: object, row: int) -> tuple[str, tuple[str, str] | None]:
        key = f"{self._shard.name}-{row:08d}" if value is None else str(value)
        duplicate = key in self._keys
        self._keys.add(key)
        message = f"an earlier row of the shard has the key {key!r} (column {self._columns.key})"
        return key, ("duplicate_key", message) if duplicate else None

    def _url(self, value: object) -> str | None:
        """Where the image is, if its bytes are not in the row."""
        if isinstance(value, Mapping):
            value = None if value.get("bytes") else value.get("path")
        return resolve(value, self._shard.url) if isinstance(value, str) and value else None

    def _fault(self, image: Fetched | None) -> tuple[str, str] | None:
        if image is None:
            return "missing_image", f"column {self._columns.image} is null"
        if isinstance(image, tuple):
            return image
        limit = self._options.max_image_bytes
        if not image:
            return "zero_size", f"column {self._columns.image} has 0 bytes"
        if len(image) > limit:
            return "too_large", f"the image has {len(image)} bytes; the limit is {limit}"
        return None


def _open(file: Any) -> pq.ParquetFile:
    try:
        # Without pre_buffer a row group is streamed, not loaded: it may hold gigabytes of images.
        return pq.ParquetFile(
            file, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
        )
    except Exception as error:
        if is_transient(error) and not _is_damage(error):
            raise
        file.seek(0)
        magic = file.read(4)
        if magic == b"PAR1":
            message = f"begins as Parquet and has no whole footer: {describe(error)}"
            raise ShardError("truncated_shard", message) from error
        message = f"the file is not Parquet; it starts with {magic!r}"
        raise ShardError("not_a_parquet", message) from error


def _is_damage(error: BaseException) -> bool:
    """Arrow reports damaged data as its own errors, or as OSErrors that have no number."""
    return isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None)


def _extra_columns(schema: pa.Schema, options: ReadOptions) -> list[str]:
    missing = [name for name in options.columns if name not in schema.names]
    if missing:
        names = ", ".join(schema.names)
        raise ShardError(
            "missing_column", f"no column {missing[0]!r} (--phrases column:NAME); there are {names}"
        )
    return list(options.columns)


def _bytes(value: object) -> bytes | None:
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None


def _first(names: tuple[str, ...], candidates: list[str]) -> str | None:
    lowered = {name.lower(): name for name in reversed(candidates)}
    return next((lowered[name] for name in names if name in lowered), None)


def _kind(kind: pa.DataType) -> str | None:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_struct(kind):
        return "bytes" if kind.get_field_index("bytes") >= 0 else None
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return "bytes"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if types.is_list(kind) or types.is_large_list(kind):
        return "texts" if _kind(kind.value_type) == "text" else None
    return "number" if types.is_integer(kind) else None
