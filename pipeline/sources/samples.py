"""The types of the readers: shards, samples, chunks, and read options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict

from sspsam.errors import ConfigError

#: The formats a shard may have.
FORMATS: Final = ("tar", "parquet", "folder")

#: File name extensions of encoded images, lower case. Members are matched without case.
IMAGE_EXTENSIONS: Final = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"),
        *(".tif", ".tiff", ".avif", ".jp2"),
    }
)

#: Names under which captions stand in JSON members, Parquet files and captions files, best first.
CAPTION_NAMES: Final = (
    *("caption", "text", "captions", "sentence", "sentences", "alt_text", "alt", "description"),
    *("prompt", "comment", "title", "raw", "query"),
)


class ImageRef(TypedDict):
    """Where an image's encoded bytes are: `sspsam.schema.IMAGE_REF_TYPE` as a dict."""

    url: str | None
    member: str | None
    offset: int | None
    length: int | None


def image_ref(
    url: str | None, member: str | None = None, offset: int | None = None, length: int | None = None
) -> ImageRef:
    return {"url": url, "member": member, "offset": offset, "length": length}


@dataclass(frozen=True, slots=True)  # a run holds all of its shards
class Shard:
    """One unit of input: a tar, a Parquet file, or a run of a folder's images.

    `name` is unique in a listing, safe as a folder name, and a function of the input alone.
    `size` is in bytes (of a folder: number of images), `etag` the store's tag or, on a local disk,
    the modification time; either is None where the store does not say. `members` and `captions`
    are a folder shard's alone: its images (path below `url`, name in the captions file or None),
    and the URL of that file.
    """

    name: str
    url: str
    format: str
    size: int | None = None
    etag: str | None = None
    members: tuple[tuple[str, str | None], ...] = field(default=(), repr=False)
    captions: str | None = None


@dataclass(frozen=True)
class Sample:
    """One image and what belongs to it.

    `index` counts a shard's samples from 0. `image` holds encoded bytes, None when `error` says why
    the sample cannot be used. `error` is (kind, message); the kinds stand in docs/input.md.
    """

    key: str
    index: int
    image: bytes | None
    caption: str | None
    columns: dict[str, Any]
    ref: ImageRef
    error: tuple[str, str] | None = None


@dataclass(frozen=True)
class Chunk:
    """Samples `index * chunk_size` and following of a shard; `last` if the shard ends with them.

    `shard.members` is emptied, so that a folder's listing does not travel with every chunk.
    """

    shard: Shard
    index: int
    samples: list[Sample]
    last: bool


@dataclass(frozen=True)
class ReadOptions:
    """How shards are read.

    Args:
        image_column: Parquet column of image bytes or image URLs; None finds it.
        caption_column: column or JSON field of the caption; None finds it.
        columns: further columns that samples shall carry (JSON fields of tars always come along).
        storage_options: passed to the fsspec filesystem, over what the environment says.
        attempts: how often a shard or image URL is tried before it is reported, without progress.
        backoff_seconds: wait before the second attempt; doubles with each, up to
            `backoff_limit_seconds`.
        fetch_threads: image URLs fetched at a time by one reader.
        fetch_timeout_seconds: silence after which one fetch of an image URL is given up.
        max_image_bytes: encoded images above it become `too_large` errors.
    """

    image_column: str | None = None
    caption_column: str | None = None
    columns: tuple[str, ...] = ()
    storage_options: Mapping[str, Any] | None = None
    attempts: int = 7
    backoff_seconds: float = 0.5
    backoff_limit_seconds: float = 30.0
    fetch_threads: int = 16
    fetch_timeout_seconds: float = 20.0
    max_image_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        for name in ("attempts", "fetch_threads", "fetch_timeout_seconds", "max_image_bytes"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"ReadOptions.{name} is {getattr(self, name)}; it must be above 0")
        if self.backoff_seconds < 0:
            raise ConfigError(f"ReadOptions.backoff_seconds is {self.backoff_seconds}, below 0")


def clean_text(value: object) -> str | None:
    """A caption as valid Unicode, several joined by newlines; None if there is none.

    JSON may hold lone surrogates, which no UTF-8 file can; they become U+FFFD.
    """
    if isinstance(value, (list, tuple)):
        lines = [text for text in map(clean_text, value) if text]
        return "\n".join(lines) or None
    if isinstance(value, Mapping):  # such as COCO's {"raw": ..., "tokens": ...}
        return find_caption(value, None)
    if not isinstance(value, str) or not value.strip():
        return None
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def find_caption(fields: Mapping[str, Any], name: str | None) -> str | None:
    """The caption among named fields: the field `name`, or the first of `CAPTION_NAMES`."""
    if name is not None:
        return clean_text(fields.get(name))
    lowered = {str(key).lower(): key for key in fields}
    for candidate in CAPTION_NAMES:
        if candidate in lowered and (text := clean_text(fields[lowered[candidate]])):
            return text
    return None
