"""Chunks as one Ray Data row: encoded bytes and small Python values, never pixels.

A row holds chunks that one reader read one after the other, because a row costs the driver milliseconds. Ray
never splits or merges it; the ledger knows which of its chunks are written when it is repeated.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.phrases import Phrase
from pipeline.sources import Chunk, Sample

Phrases = list[list[Phrase]]

#: A chunk, its phrases if known, and measurements made so far.
Travelling = tuple[Chunk, "Phrases | None", dict[str, Any]]

#: `images` stays an Arrow column, so that Ray hands its buffers over without a copy; 64-bit offsets,
#: because a chunk of large scans passes 2 GiB. `samples` and `phrases` are pickles of small values.
_CHUNK = pa.struct(
    [
        ("shard", pa.string()),
        ("chunk", pa.int64()),
        ("samples", pa.large_binary()),
        ("images", pa.list_(pa.large_binary())),
        ("phrases", pa.large_binary()),  # null until the phrases are known
        ("notes", pa.large_binary()),  # pickled dict of measurements, kept by later stages
    ]
)
CHUNK_SCHEMA = pa.schema([("chunks", pa.list_(_CHUNK))])


def to_table(travelling: Sequence[Travelling]) -> pa.Table:
    """One row that holds these chunks."""
    return pa.Table.from_pylist([{"chunks": [_packed(*each) for each in travelling]}], schema=CHUNK_SCHEMA)


def from_table(table: pa.Table) -> Iterator[Travelling]:
    """What `to_table` was given, one after the other, so that images are copied late. `table` has one row."""
    return (_unpacked(chunk.as_py()) for chunk in table["chunks"][0].values)


def numbers(table: pa.Table) -> list[tuple[str, int]]:
    """Shard and number of each chunk of the one row of `table`."""
    found = table["chunks"][0].values
    return list(zip(found.field("shard").to_pylist(), found.field("chunk").to_pylist(), strict=True))


def sizes(table: pa.Table) -> list[int]:
    """Samples of each chunk of the one row of `table`."""
    lengths: list[int] = table["chunks"][0].values.field("images").value_lengths().to_pylist()
    return lengths


def _packed(chunk: Chunk, phrases: Phrases | None, notes: dict[str, Any]) -> dict[str, Any]:
    bare = [dataclasses.replace(sample, image=None) for sample in chunk.samples]
    return {
        "shard": chunk.shard.name,
        "chunk": chunk.index,
        "samples": pickle.dumps((chunk.shard, chunk.last, bare)),
        "images": [sample.image for sample in chunk.samples],
        "phrases": None if phrases is None else pickle.dumps(phrases),
        "notes": pickle.dumps(notes),
    }


def _unpacked(row: dict[str, Any]) -> Travelling:
    shard, last, bare = pickle.loads(row["samples"])
    samples: list[Sample] = [
        dataclasses.replace(sample, image=image) for sample, image in zip(bare, row["images"], strict=True)
    ]
    return (
        Chunk(shard=shard, index=row["chunk"], samples=samples, last=last),
        None if row["phrases"] is None else pickle.loads(row["phrases"]),
        pickle.loads(row["notes"]),
    )
