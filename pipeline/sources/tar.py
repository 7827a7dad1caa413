"""A forward-only tar reader that never ends early in silence.

`tarfile` ends without a word at a damaged header and at a cut between members. Here the headers are
parsed by `tarfile.TarInfo.frombuf`, and the archive must end as POSIX.1-1988 says: with two blocks
of zeros, at a multiple of 512 bytes.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.sources.storage import ShardError

BLOCK = tarfile.BLOCKSIZE
_ZEROS = bytes(BLOCK)
_SKIP_BY_SEEKING_BYTES = 2**18
#: A pax or GNU header above it is damage, not a name.
_MAX_HEADER_BYTES = 2**20


class TruncatedTarError(Exception):
    """The bytes end before the archive does. `inside_member`: in the data of one, else between."""

    def __init__(self, message: str, inside_member: bool = False) -> None:
        super().__init__(message)
        self.inside_member = inside_member


@dataclass(frozen=True)
class Member:
    """A member's name, whether it is a file, and where its bytes lie in the (unpacked) archive."""

    name: str
    is_file: bool
    offset: int
    size: int


class TarStream:
    """Iterates over the members of an open archive, front to back, reading only what is requested.

    Archives written one after the other into one file are read on, like `tar --ignore-zeros` does.

    Raises, from iterating and reading:
        TruncatedTarError: the file ends too early.
        ShardError: of kind `not_a_tar` if the first header makes no sense, `damaged_shard` if a
            later one does not.
    """

    def __init__(self, file: BinaryIO, length: int | None = None) -> None:
        self.position = 0
        self._file = file
        self._length = length
        self._seekable = length is not None and file.seekable()
        self._content_end = 0  # of the latest member, without
        self._data_end = 0  # and with the padding to whole blocks

    def __iter__(self) -> Iterator[Member]:
        name = size = None  # from an extended header, for the member that follows it
        zeros = 0
        while True:
            start = self._data_end
            padding = start - self.position
            if padding >= BLOCK:
                self._skip(padding)
                padding = 0
            block = self._file.read(padding + BLOCK)
            self.position += len(block)
            self._data_end = self.position
            if padding:
                if len(block) < padding:
                    raise TruncatedTarError(f"ends at byte {self.position}, behind a member")
                block = block[padding:]
            if not block and zeros >= 2 and name is None:
                return
            if len(block) < BLOCK:
                self._cut(start, len(block), zeros)
            if block == _ZEROS:
                zeros += 1
                continue
            zeros = 0
            if name is None and size is None and (plain := _plain_file(block)):
                self._content_end = self.position + plain[1]
                self._data_end = self.position + -(-plain[1] // BLOCK) * BLOCK
                yield Member(plain[0], True, self.position, plain[1])
                continue
            header = self._parse(block, start)
            if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                body = self._extended(header, start)
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    name = body.partition(b"\0")[0].decode("utf-8", "backslashreplace")
                else:
                    name, size = _pax_fields(body, name, size)
                continue
            length = header.size if size is None else size
            is_file = header.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
            # Links and folders have no data, whatever their size field says; unknown types have.
            has_data = is_file or header.type not in tarfile.SUPPORTED_TYPES
            has_data = has_data or header.type in (*tarfile.GNU_TYPES, tarfile.XGLTYPE)
            padded = -(-length // BLOCK) * BLOCK if has_data else 0
            self._data_end = self.position + padded
            self._content_end = self.position + length if has_data else 0
            if header.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
                yield Member(name or header.name, is_file, self.position, length)
                name = size = None

    def read(self, member: Member) -> bytes:
        """The member's bytes; only for the member that the iteration stands at, once."""
        data = self._file.read(member.size)
        self.position += len(data)
        if len(data) < member.size:
            raise TruncatedTarError(
                f"ends at byte {self.position}, {member.size - len(data)} bytes short of the end "
                f"of member {member.name!r}",
                inside_member=True,
            )
        return data

    def _parse(self, block: bytes, start: int) -> tarfile.TarInfo:
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except tarfile.HeaderError as error:
            if start:
                raise ShardError("damaged_shard", f"no valid tar header at byte {start} ({error})") from error
            raise ShardError(
                "not_a_tar", f"the file is not a tar archive; it starts with {block[:24]!r}"
            ) from error

    def _extended(self, header: tarfile.TarInfo, start: int) -> bytes:
        if header.size > _MAX_HEADER_BYTES:
            raise ShardError("damaged_shard", f"extended header of {header.size} B at byte {start}")
        padded = -(-header.size // BLOCK) * BLOCK
        body = self._file.read(padded)
        self.position += len(body)
        self._data_end = self.position
        if len(body) < padded:
            raise TruncatedTarError(f"ends at byte {self.position}, inside a header")
        return body[: header.size]

    def _skip(self, count: int) -> None:
        end = self.position + count
        if self._seekable and count > _SKIP_BY_SEEKING_BYTES:
            self.position = self._file.seek(min(end, self._length or 0))
        while self.position < end:
            data = self._file.read(min(end - self.position, _SKIP_BY_SEEKING_BYTES))
            self.position += len(data)
            if not data:
                raise TruncatedTarError(
                    f"ends at byte {self.position}, inside a member or its padding",
                    inside_member=self.position < self._content_end,
                )

    def _cut(self, start: int, count: int, zeros: int) -> None:
        if count:
            raise TruncatedTarError(f"ends at byte {start + count}, inside a header or the end mark")
        raise TruncatedTarError(
            f"ends at byte {start} with {zeros * BLOCK} of the 1024 zero bytes that close a tar"
        )


def _plain_file(block: bytes) -> tuple[str, int] | None:
    """Name and size of a file with an everyday header; None for others, right or wrong.

    Several times as fast as `TarInfo.frombuf`, which takes those others.
    """
    try:
        checksum = int(block[148:154], 8)
        size = int(block[124:135], 8)
    except ValueError:
        return None
    if (
        block[154] not in b"\0 "
        or block[156] != 0x30
        or block[345]
        or checksum != sum(block) - sum(block[148:156]) + 256
    ):
        return None  # no regular file, a name in two parts, or damage
    return block[:100].partition(b"\0")[0].decode("utf-8", "backslashreplace"), size


def _pax_fields(body: bytes, name: str | None, size: int | None) -> tuple[str | None, int | None]:
    """`path` and `size` of a pax header: records "LENGTH KEY=VALUE\\n" (POSIX.1-2001)."""
    while body:
        digits = body.partition(b" ")[0]
        if not digits.isdigit() or not 0 < int(digits) <= len(body):
            break
        key, _, value = body[len(digits) + 1 : int(digits) - 1].partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "backslashreplace")
        elif key == b"size" and value.isdigit():
            size = int(value)
        body = body[int(digits) :]
    return name, size
