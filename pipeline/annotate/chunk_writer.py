"""The write stage: a chunk's rows become one Parquet file and one small receipt."""

from __future__ import annotations

import json
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

#: What the annotate stage hands to the write stage: one row a chunk, its table as an Arrow stream.
ANNOTATED_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("chunk", pa.int64()),
        ("last", pa.bool_()),
        ("samples", pa.int64()),  # samples that the reader handed over
        ("rows", pa.large_binary()),
        ("notes", pa.string()),  # JSON of measurements
    ]
)

_ROW_GROUP_ROWS = 4096


def annotated_row(shard: str, chunk: int, last: bool, table: pa.Table, notes: dict[str, Any]) -> pa.Table:
    """One chunk's annotation rows as one Ray Data row."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    row = {
        "shard": shard,
        "chunk": chunk,
        "last": last,
        "samples": table.num_rows,
        "rows": sink.getvalue().to_pybytes(),
        "notes": json.dumps(notes),
    }
    return pa.Table.from_pylist([row], schema=ANNOTATED_SCHEMA)


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
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_index=True) as writer:
        if table.num_rows:  # a row group without rows is an error to Hugging Face `datasets`
            writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
    data: bytes = sink.getvalue().to_pybytes()
    return data


@dataclass(frozen=True)
class Writer:
    """A map over annotated chunks: writes each one's file, returns its receipt as a row."""

    store: Store
    run: str
    image_root: str | None = None

    def __call__(self, annotated: pa.Table) -> pa.Table:
        """`annotated`: one row of ANNOTATED_SCHEMA. Returns one row with the receipt's JSON."""
        row = {name: annotated[name][0] for name in annotated.column_names}
        started = time.perf_counter()
        with pa.ipc.open_stream(row["rows"].as_buffer()) as stream:
            table = relative_refs(stream.read_all(), self.image_root)
        receipt = Receipt(
            shard=row["shard"].as_py(),
            chunk=row["chunk"].as_py(),
            last=row["last"].as_py(),
            notes=json.loads(row["notes"].as_py()),
            **count_rows(table),
        )
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
        return pa.table({"receipt": [receipt.to_json()]})
