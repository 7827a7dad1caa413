"""Writes a chunk: its rows become one Parquet file and one small receipt."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.annotate import prometheus
from pipeline.annotate.chunk_receipt import Receipt, chunk_name
from pipeline.annotate.rows import count_rows, relative_refs
from pipeline.annotate.shard_files import CHUNK_KEY, CHUNKS_KEY, RUN_KEY, part_name
from pipeline.annotate.shard_reader import WHOLE_SHARD
from pipeline.annotate.shard_receipt import ShardReceipt, receipt_name
from pipeline.dataset.store import Store
from pipeline.sources import Chunk

_ROW_GROUP_ROWS = 4096
#: How chunks and parts are written: with checksums, because not every network brings bytes as they were.
WRITING: dict[str, Any] = {"compression": "zstd", "write_page_index": True, "write_page_checksum": True}


def encode_chunk(table: pa.Table, receipt: Receipt, run: str) -> bytes:
    """The chunk's Parquet file: zstd, the explicit schema, the receipt and the run in its metadata.

    Args:
        run: JSON of the run's model, options and versions.
    """
    metadata = dict(table.schema.metadata or {})
    said = receipt.to_json(notes=False)
    metadata |= {CHUNK_KEY: said.encode(), CHUNKS_KEY: f"[{said}]".encode(), RUN_KEY: run.encode()}
    table = table.replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **WRITING) as writer:
        if table.num_rows:  # a row group without rows is an error to Hugging Face `datasets`
            writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
    data: bytes = sink.getvalue().to_pybytes()
    return data


@dataclass(frozen=True)
class Writer:
    """Writes chunks to `store`.

    Args:
        run: JSON of the run's model, options and versions.
        image_root: folder that the references to images are made relative to.
    """

    store: Store
    run: str
    image_root: str | None = None

    def write(self, chunk: Chunk, table: pa.Table, notes: dict[str, Any]) -> Receipt:
        """Write the file of a chunk whose annotation rows are `table`.

        Args:
            notes: measurements so far, kept in the receipt.
        """
        started = time.perf_counter()
        table = relative_refs(table, self.image_root)
        receipt = Receipt(chunk.shard.name, chunk.index, chunk.last, notes=notes, **count_rows(table))
        data = encode_chunk(table, receipt, self.run)
        if receipt.notes.get(WHOLE_SHARD):
            # Two requests in place of seven: nothing of this shard is anywhere else.
            name = part_name(receipt.shard, 0)
            self.store.put(name, data)
            sealed = ShardReceipt.of(receipt.shard, [receipt], {name: len(data)})
            self.store.put(receipt_name(receipt.shard), sealed.to_json())
        else:
            self.store.put(chunk_name(receipt.shard, receipt.chunk), data)
        seconds = time.perf_counter() - started
        receipt.notes.update({"write_seconds": seconds, "bytes_out": len(data)})
        prometheus.count_receipt(receipt)
        return receipt
