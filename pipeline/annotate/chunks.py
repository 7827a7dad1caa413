"""A chunk as one Ray Data row: encoded bytes and small Python values, never pixels.

One row a chunk makes retry, output file and accounting the same unit: Ray never splits or merges it.
"""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pyarrow as pa

from pipeline.phrases import Phrase
from pipeline.sources import Chunk, Sample

Phrases = list[list[Phrase]]

#: `images` stays an Arrow column, so that Ray hands its buffers over without a copy; 64-bit offsets,
#: because a chunk of large scans passes 2 GiB. `samples` and `phrases` are pickles of small values.
CHUNK_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("chunk", pa.int64()),
        ("samples", pa.large_binary()),
        ("images", pa.list_(pa.large_binary())),
        ("phrases", pa.large_binary()),  # null until the phrases are known
        ("notes", pa.large_binary()),  # pickled dict of measurements, kept by later stages
    ]
)


def to_table(chunk: Chunk, phrases: Phrases | None = None, notes: dict[str, Any] | None = None) -> pa.Table:
    """One row that holds `chunk`, its phrases if known, and measurements made so far."""
    bare = [dataclasses.replace(sample, image=None) for sample in chunk.samples]
    row = {
        "shard": chunk.shard.name,
        "chunk": chunk.index,
        "samples": pickle.dumps((chunk.shard, chunk.last, bare)),
        "images": [sample.image for sample in chunk.samples],
        "phrases": None if phrases is None else pickle.dumps(phrases),
        "notes": pickle.dumps(notes or {}),
    }
    return pa.Table.from_pylist([row], schema=CHUNK_SCHEMA)


def from_table(table: pa.Table) -> tuple[Chunk, Phrases | None, dict[str, Any]]:
    """What `to_table` was given. `table` has one row."""
    shard, last, bare = pickle.loads(table["samples"][0].as_py())
    images = table["images"][0].as_py()
    samples: list[Sample] = [
        dataclasses.replace(sample, image=image) for sample, image in zip(bare, images, strict=True)
    ]
    phrases = table["phrases"][0].as_py()
    return (
        Chunk(shard=shard, index=table["chunk"][0].as_py(), samples=samples, last=last),
        None if phrases is None else pickle.loads(phrases),
        pickle.loads(table["notes"][0].as_py()),
    )
