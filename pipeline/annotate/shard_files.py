"""Where the rows of a shard stand at every moment: the protocol of names that writing and sealing keep.

    _chunks/<shard>/<chunk>.parquet            a chunk that is computed; no reader looks here
    annotations/<shard>/part-<chunk>.parquet   a sealed part: the chunks from that one on, in input order
    annotations/<shard>/<chunk>.parquet        a chunk as versions before sealing wrote it
    _shards/<shard>.json                       the shard's receipt

Readers take every file below `annotations/`, and stores cannot rename or write two files at once. So:

1. A chunk is written to `_chunks/`, whole or not at all. Readers do not see it.
2. When all chunks of a shard are there they are read, checked against their receipts, and written as
   parts. A part's name says its first chunk, its footer (`sspsam.chunks`) holds the receipts of all. Parts
   of a shard never overlap, so a reader sees each row once or not yet. A part that is written again has the
   chunks that it had, under the same name: it is replaced by one PUT.
3. Then the receipt is written. It names the parts with their sizes, and stands as long as one listing
   shows exactly these. Only then the chunk files are deleted; what a crash leaves of them is rubbish,
   which the next run removes.
4. To compute chunks again (`--retry-errors`) the receipt is replaced by one that names them (`retry`).
   It does not stand then. Their rows stay in the parts, for readers, until the shard is sealed again; a
   chunk in `_chunks/` goes before the same chunk in a part.
5. Chunk files in `annotations/` are copied to `_chunks/` and deleted before the first part is written:
   readers miss their rows for a moment, and never see them twice.

Whatever is killed in between, each chunk is in at least one file, or is known to be missing and computed
again: nothing is deleted before its rows stand elsewhere, but for chunk files that cannot be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.annotate.chunk_receipt import CHUNKS, Receipt, chunk_name
from pipeline.dataset.store import Store

ANNOTATIONS = "annotations"
#: In a part's footer: the receipts of its chunks, in order.
CHUNKS_KEY = b"sspsam.chunks"
#: In the metadata of a chunk's file: its receipt.
CHUNK_KEY = b"sspsam.chunk"
#: In the metadata of both: JSON of the run's model, options and versions.
RUN_KEY = b"sspsam.run"

#: What parsing a damaged file's bytes raises. They are fetched before, so it is never the store.
UNREADABLE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)

#: A part's footer is well within so many of its last bytes.
_FOOTER_BYTES = 8 << 20
_OURS = re.compile(rf"({ANNOTATIONS}|{CHUNKS})/([^/]+)/(part-)?(\d+)\.parquet")


def part_name(shard: str, first: int) -> str:
    return f"{ANNOTATIONS}/{shard}/part-{first:05d}.parquet"


def early_name(shard: str, chunk: int) -> str:
    """A chunk's file as versions before sealing named it."""
    return f"{ANNOTATIONS}/{shard}/{chunk:05d}.parquet"


@dataclass(frozen=True)
class ShardFiles:
    """The files of one shard: number of the (first) chunk to size in bytes, by kind."""

    chunks: dict[int, int] = field(default_factory=dict)
    parts: dict[int, int] = field(default_factory=dict)
    early: dict[int, int] = field(default_factory=dict)

    def visible(self, shard: str) -> dict[str, int]:
        """Name to size of the files that readers see."""
        parts = {part_name(shard, number): size for number, size in self.parts.items()}
        return parts | {early_name(shard, number): size for number, size in self.early.items()}


def sort_files(listing: Mapping[str, int]) -> tuple[dict[str, ShardFiles], list[str]]:
    """A listing of OUTPUT by shard, and the files in `annotations/` that are not of these names."""
    found: dict[str, ShardFiles] = {}
    foreign = []
    for name, size in listing.items():
        match = _OURS.fullmatch(name)
        if match and not (match[1] == CHUNKS and match[3]):
            files = found.setdefault(match[2], ShardFiles())
            kind = files.chunks if match[1] == CHUNKS else files.parts if match[3] else files.early
            kind[int(match[4])] = size
        elif name.startswith(f"{ANNOTATIONS}/") and not name.rpartition("/")[2].startswith((".", "_")):
            foreign.append(name)
    return found, foreign


@dataclass(frozen=True)
class Source:
    """The file that a chunk is taken from; of a part the chunk's `receipt` and the first chunk."""

    name: str
    receipt: Receipt | None = None
    part: int | None = None


#: First chunk of each part that can be read, and the receipts of all its chunks.
Parts = dict[int, list[Receipt]]


def read_parts(store: Store, shard: str, files: ShardFiles) -> Parts:
    """The footers of the parts; of one that cannot be read nothing."""
    found = {first: _part_receipts(store, shard, first) for first in sorted(files.parts)}
    return {first: receipts for first, receipts in found.items() if receipts}


def find_sources(
    shard: str, files: ShardFiles, parts: Parts, retry: Collection[int] = ()
) -> dict[int, Source]:
    """Which file holds which chunk.

    Args:
        retry: chunks that are to be computed again, so that their rows in `annotations/` do not count.
    """
    found: dict[int, Source] = {}
    for first, receipts in parts.items():
        for receipt in receipts:
            found.setdefault(receipt.chunk, Source(part_name(shard, first), receipt, first))
    found |= {number: Source(early_name(shard, number)) for number in files.early}
    found = {number: source for number, source in found.items() if number not in retry}
    return found | {number: Source(chunk_name(shard, number)) for number in files.chunks}


def read_receipt_of(store: Store, source: Source) -> Receipt | None:
    """The receipt of the chunk that a source holds; None if its file cannot be read."""
    if source.receipt is not None:
        return source.receipt
    data = store.get(source.name)
    try:
        metadata = pq.read_schema(pa.BufferReader(data or b"")).metadata or {}
        return Receipt.from_json(metadata[CHUNK_KEY])
    except UNREADABLE:
        return None


def _part_receipts(store: Store, shard: str, first: int) -> list[Receipt]:
    """The receipts in a part's footer; none if it cannot be read or is not the part that its name says."""
    data = store.get(part_name(shard, first), last=_FOOTER_BYTES)
    try:
        metadata = pq.read_metadata(pa.BufferReader(data or b"")).metadata or {}
        receipts = [Receipt(**values) for values in json.loads(metadata[CHUNKS_KEY])]
    except UNREADABLE:
        return []
    sound = [(r.shard, r.chunk) for r in receipts] == [(shard, first + n) for n in range(len(receipts))]
    return receipts if sound else []
