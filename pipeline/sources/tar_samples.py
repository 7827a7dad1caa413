"""Samples of a WebDataset tar: runs of members that differ in their last extension alone."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from pipeline.sources.samples import (
    IMAGE_EXTENSIONS,
    ImageRef,
    ReadOptions,
    Sample,
    Shard,
    clean_text,
    find_caption,
    image_ref,
)
from pipeline.sources.storage import ShardError, open_shard
from pipeline.sources.tar import BLOCK, Member, TarStream, TruncatedTarError

_JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


def tar_samples(shard: Shard, options: ReadOptions, wanted: Callable[[int], bool]) -> Iterator[Sample | None]:
    """One item a sample, in the archive's order; None in place of the samples not wanted.

    Raises:
        ShardError: the archive is no tar, damaged or truncated. Its whole samples came before.
        OSError and others of `storage.is_transient`: the storage failed; another attempt may not.
    """
    file, length = open_shard(shard, options.storage_options)
    with closing(file):
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        unpacked = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
        stream = TarStream(unpacked, None if packed else length)
        groups = _Groups(stream, shard, options, wanted, has_offsets=not packed)
        try:
            yield from groups.samples()
        except (TruncatedTarError, EOFError) as error:
            if length is not None and file.tell() < length:
                raise ConnectionError(f"got {file.tell()} of {length} bytes: {error}") from error
            yield from groups.last_if_whole(inside=getattr(error, "inside_member", True))
            if length == 0:
                raise ShardError("not_a_tar", "the file has 0 bytes") from error
            kind = "truncated_shard" if stream.position >= BLOCK else "not_a_tar"
            raise ShardError(kind, str(error), groups.cut_key) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            kind = "damaged_shard" if groups.count or groups.open else "not_a_tar"
            raise ShardError(kind, f"gzip: {error}", groups.cut_key) from error
        except ShardError as error:
            yield from groups.last_if_whole(inside=False)
            raise ShardError(error.kind, str(error), groups.cut_key) from error


@dataclass
class _Group:
    """The members of one sample, as far as they were read."""

    key: str
    wanted: bool
    roles: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    image: bytes | None = None
    ref: ImageRef = field(default_factory=lambda: image_ref(None))
    texts: dict[str, bytes] = field(default_factory=dict)
    error: tuple[str, str] | None = None


class _Groups:
    """Groups members into samples. `count` samples are complete, `open` is the one in progress."""

    def __init__(
        self,
        stream: TarStream,
        shard: Shard,
        options: ReadOptions,
        wanted: Callable[[int], bool],
        has_offsets: bool,
    ) -> None:
        self.count = 0
        self.open: _Group | None = None
        self._stream, self._shard, self._options = stream, shard, options
        self._wanted, self._has_offsets = wanted, has_offsets
        self._keys: set[str] = set()
        self._last_roles: set[str] | None = None

    @property
    def cut_key(self) -> str | None:
        """The key of the sample in progress, unless it is taken."""
        return self.open.key if self.open and self.open.key not in self._keys else None

    def samples(self) -> Iterator[Sample | None]:
        strangers: list[str] = []  # members that are neither image nor caption
        for member in self._stream:
            base = member.name.rpartition("/")[2]
            if base in _JUNK or base.startswith("._") or member.name.startswith("__MACOSX/"):
                continue
            key, role = _key_and_role(member.name, base)
            if role is None:
                if member.is_file:
                    strangers.append(member.name)
                if self.open and member.name.startswith(self.open.key + "."):
                    self.open.names.append(member.name)
                continue
            if self.open is None or key != self.open.key or role in self.open.roles:
                yield from self._close()
                self.open = _Group(key, self._wanted(self.count))
            self._take(self.open, member, role)
        yield from self._close()
        if not self.count and strangers:
            raise ShardError(
                "no_samples",
                f"{len(strangers)} members and no image or caption among them; the first is {strangers[0]!r}",
            )

    def last_if_whole(self, inside: bool) -> Iterator[Sample | None]:
        """The sample in progress when the archive broke off, if it lacks nothing.

        It is whole if the fault was between members, and it has the same kinds of members as the
        sample before it (the first of a shard: an image and a caption).
        """
        if self.open is None or inside:
            return
        roles = self.open.roles
        if roles == self._last_roles or (self._last_roles is None and len(roles) > 1):
            yield from self._close()

    def _take(self, group: _Group, member: Member, role: str) -> None:
        group.roles.add(role)
        group.names.append(member.name)
        if role == "image":
            offset = member.offset if self._has_offsets else None
            length = member.size if self._has_offsets else None
            group.ref = image_ref(self._shard.url, member.name, offset, length)
        if not group.wanted:
            return
        limit = self._options.max_image_bytes
        if not member.is_file:
            group.error = ("missing_image", f"{member.name!r} is a link, with no bytes of its own")
        elif member.size > limit:
            message = f"{member.name!r} has {member.size} bytes; the limit is {limit}"
            group.error = ("too_large", message)
        elif role != "image":
            group.texts[role] = self._stream.read(member)
        elif member.size == 0:
            group.error = ("zero_size", f"{member.name!r} has 0 bytes")
        else:
            group.image = self._stream.read(member)

    def _close(self) -> Iterator[Sample | None]:
        group, self.open = self.open, None
        if group is None:
            return
        index = self.count
        self.count += 1
        duplicate = group.key in self._keys
        self._keys.add(group.key)
        self._last_roles = group.roles
        yield self._sample(group, index, duplicate) if group.wanted else None

    def _sample(self, group: _Group, index: int, duplicate: bool) -> Sample:
        error = group.error
        if error is None and "image" not in group.roles:
            error = ("missing_image", f"no image member beside {', '.join(group.names)}")
        try:
            caption, columns = _caption(group.key, group.texts, self._options.caption_column)
        except ValueError as fault:
            caption, columns = None, {}
            error = error or ("unreadable_caption", str(fault))
        if duplicate:
            error = ("duplicate_key", f"an earlier sample of the shard has the key {group.key!r}")
        image = None if error else group.image
        return Sample(group.key, index, image, caption, columns, group.ref, error)


def _key_and_role(name: str, base: str) -> tuple[str, str | None]:
    """`dir/c.v1.jpg` is the image of `dir/c.v1`: only the last extension, if known, is stripped."""
    stem, dot, suffix = base.rpartition(".")
    extension = (dot + suffix).lower() if stem else ""
    if extension in IMAGE_EXTENSIONS:
        role = "image"
    elif extension in (".txt", ".json"):
        role = extension
    else:
        return name, None
    return name.removeprefix("./")[: -len(extension)], role


def _caption(key: str, texts: dict[str, bytes], field_name: str | None) -> tuple[str | None, dict[str, Any]]:
    """The caption of `.txt`, else of `.json` (a named field: the other way round), and the fields.

    Raises:
        ValueError: not UTF-8, not JSON, or no JSON object; the message names the member.
    """
    columns: dict[str, Any] = {}
    if ".json" in texts:
        try:
            loaded = json.loads(texts[".json"])
        except ValueError as error:
            raise ValueError(f"'{key}.json' cannot be read as JSON: {error}") from error
        if not isinstance(loaded, dict):
            raise ValueError(f"'{key}.json' holds a {type(loaded).__name__}, not an object")
        columns = loaded
    if field_name is not None and columns:
        return find_caption(columns, field_name), columns
    try:
        caption = clean_text(texts.get(".txt", b"").decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"'{key}.txt' is not UTF-8: {error}") from error
    return caption or find_caption(columns, None), columns
