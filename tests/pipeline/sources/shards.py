"""Shards made for tests: tars of given members, and what is in them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.sources import Chunk, ReadOptions, Sample, Shard, read_chunks

#: Retries without waiting.
FAST = ReadOptions(attempts=3, backoff_seconds=0)


def tar_bytes(
    members: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT
) -> tuple[bytes, list[int]]:
    """A tar, and where the content of each member ends in it (without padding)."""
    buffer = io.BytesIO()
    ends = []
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            ends.append(tar.offset - (-len(data) % 512))
    return buffer.getvalue(), ends


def pairs(count: int, size: int = 700) -> list[tuple[str, bytes]]:
    """Members of `count` samples, each an image of `size` bytes and a caption."""
    return [
        member
        for i in range(count)
        for member in (
            (f"{i:04d}.jpg", bytes([i % 256]) * size),
            (f"{i:04d}.txt", f"caption {i}".encode()),
        )
    ]


def shard_of(path: Path, data: bytes, format: str = "tar") -> Shard:
    path.write_bytes(data)
    return Shard(path.name.partition(".")[0], str(path), format, len(data))


def read(shard: Shard, size: int = 4, skip: Sequence[int] = (), options: ReadOptions = FAST) -> list[Sample]:
    """All samples of a shard, after checks that hold for any reading."""
    chunks = list(read_chunks(shard, size, skip=skip, options=options))
    check_chunks(chunks, size, skip)
    return [sample for chunk in chunks for sample in chunk.samples]


def check_chunks(chunks: Sequence[Chunk], size: int, skip: Sequence[int] = ()) -> None:
    indices = [chunk.index for chunk in chunks]
    assert indices == sorted(set(indices))
    assert not set(indices) & set(skip)
    assert [chunk.last for chunk in chunks[:-1]] == [False] * (len(chunks) - 1)
    for chunk in chunks:
        assert chunk.last or len(chunk.samples) == size
        expected = range(chunk.index * size, chunk.index * size + len(chunk.samples))
        assert [sample.index for sample in chunk.samples] == list(expected)
        for sample in chunk.samples:
            assert (sample.image is None) == (sample.error is not None)
