"""Chunks as one Ray Data row: encoded bytes and small Python values, never pixels.

One row a chunk makes retry, output file and accounting the same unit: Ray never splits or merges it. Small
chunks of one reader share a row up to the size of a chunk, because a row costs the driver milliseconds.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
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


def from_table(table: pa.Table) -> list[Travelling]:
    """What `to_table` was given. `table` has one row."""
    return [_unpacked(row) for row in table["chunks"][0].as_py()]


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
