"""Sealing: the chunks of a shard that has ended become its parts and its receipt. Runs in Ray tasks.

`pipeline.annotate.shard_files` says what readers see meanwhile, and why a crash loses nothing.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.annotate.chunk_receipt import CHUNKS, Receipt, chunk_name
from pipeline.annotate.chunk_writer import WRITING
from pipeline.annotate.rows import count_rows
from pipeline.annotate.shard_files import (
    ANNOTATIONS,
    CHUNK_KEY,
    CHUNKS_KEY,
    RUN_KEY,
    UNREADABLE,
    Parts,
    ShardFiles,
    Source,
    early_name,
    find_sources,
    part_name,
    read_parts,
    sort_files,
)
from pipeline.annotate.shard_receipt import ShardReceipt, receipt_name
from pipeline.dataset.dataset_schema import added_signals
from pipeline.dataset.store import Store
from sspsam.errors import DataError, SSPSAMError
from sspsam.schema import annotation_schema

#: A part is closed when it has grown to so many bytes.
PART_BYTES = 512 << 20
#: Rows of a row group, or fewer if they come to so many bytes: what a reader of one row has to read.
_GROUP_ROWS, _GROUP_BYTES = 1024, 64 << 20


class DamagedError(DataError):
    """A file that should hold a chunk's rows does not. `numbers`: the chunks to compute again."""

    def __init__(self, name: str, numbers: Sequence[int], why: object) -> None:
        super().__init__(f"{name}: its rows are not what was written ({why}); they are computed again")
        self.name, self.numbers = name, numbers


@dataclass(frozen=True)
class Sealed:
    """A sealed shard; `by_other`: another job was first."""

    receipt: ShardReceipt
    by_other: bool = False


def seal_many(store: Store, shards: Sequence[tuple[str, int]]) -> list[Sealed | str]:
    """Seal shards given with their numbers of chunks; what is wrong with one stands in its place."""
    found: list[Sealed | str] = []
    for shard, chunks in shards:
        try:
            found.append(seal_shard(store, shard, chunks))
        except SSPSAMError as error:
            found.append(str(error))
    return found


def seal_shard(store: Store, shard: str, chunks: int, part_bytes: int = PART_BYTES) -> Sealed:
    """Check a shard's `chunks` chunks and write its parts and its receipt. May be repeated at any time.

    Raises:
        DataError: a chunk is missing or damaged. What is damaged counts as missing from then on.
    """
    files = sort_files(store.listing(f"{CHUNKS}/{shard}") | store.listing(f"{ANNOTATIONS}/{shard}"))[0]
    held = files.get(shard, ShardFiles())
    data = store.get(receipt_name(shard))
    receipt = None if data is None else ShardReceipt.from_json(data, store.path(receipt_name(shard)))
    if receipt is not None and receipt.stands(held) and (receipt.files is not None or not held.early):
        store.delete(chunk_name(shard, number) for number in held.chunks)
        return Sealed(receipt, by_other=True)
    parts = read_parts(store, shard, held)
    sources = find_sources(shard, held, parts, receipt.retry if receipt else ())
    if missing := sorted(set(range(chunks)) - set(sources)):
        raise DataError(f"{store.path(chunk_name(shard, missing[0]))} is missing: resume to compute it again")
    try:
        sealed = _write_parts(store, shard, chunks, part_bytes, held, parts, sources)
    except DamagedError as error:
        if error.name.startswith(f"{CHUNKS}/"):
            store.delete([error.name])
        else:
            known = receipt or ShardReceipt.of(shard, [], None)
            store.put(receipt_name(shard), known.without(error.numbers).to_json())
        raise
    store.put(receipt_name(shard), sealed.to_json())
    store.delete(chunk_name(shard, number) for number in {*held.chunks, *held.early})
    return Sealed(sealed)


def _write_parts(
    store: Store,
    shard: str,
    chunks: int,
    part_bytes: int,
    held: ShardFiles,
    parts: Parts,
    sources: dict[int, Source],
) -> ShardReceipt:
    """Write the parts that are not there yet. Returns the receipt, which is not written."""
    if held.early:
        _put_early_aside(store, shard, held, sources)
    store.delete(part_name(shard, first) for first in held.parts if first >= chunks)
    rows = _Rows(store, shard, chunks, parts)
    receipts: list[Receipt] = []
    files: dict[str, int] = {}
    # What is written begins where a part begins or ends, so that it replaces a part or overlaps none.
    ends = (first + len(found) for first, found in parts.items())
    starts = sorted({0, chunks, *(n for n in (*held.parts, *ends) if n < chunks)})
    for first, end in itertools.pairwise(starts):
        run = [sources[number] for number in range(first, end)]
        name = part_name(shard, first)
        whole = len(parts.get(first, ())) == end - first  # a part of just these chunks is there
        if whole and all(source.name == name for source in run):
            receipts += [receipt for _, receipt in rows.read(first, run)]
            files[name] = held.parts[first]
            continue
        part = None
        for table, receipt in rows.read(first, run):
            part = part or _Part(shard, receipt.chunk)
            part.add(table, receipt)
            receipts.append(receipt)
            if not whole and part.size() >= part_bytes:
                files |= part.put(store)
                part = None
        if part is not None:
            files |= part.put(store)
    return ShardReceipt.of(shard, receipts, files)


def _put_early_aside(store: Store, shard: str, held: ShardFiles, sources: dict[int, Source]) -> None:
    """Move chunk files out of readers' sight, those that are of use to where chunks wait."""
    for number in held.early:
        if number in sources and sources[number].name == early_name(shard, number):
            data = store.get(early_name(shard, number))
            if data is not None:
                store.put(chunk_name(shard, number), data)
            sources[number] = Source(chunk_name(shard, number))
    store.delete(early_name(shard, number) for number in held.early)


class _Part:
    """A sealed part in the making."""

    def __init__(self, shard: str, first: int) -> None:
        self.name = part_name(shard, first)
        self._receipts: list[Receipt] = []
        self._sink = pa.BufferOutputStream()
        self._writer: pq.ParquetWriter | None = None
        self._group: list[pa.Table] = []

    def size(self) -> int:
        """Bytes, those of the last row group before compression."""
        return int(self._sink.tell()) + sum(table.nbytes for table in self._group)

    def add(self, table: pa.Table, receipt: Receipt) -> None:
        if self._writer is None:
            run = (table.schema.metadata or {}).get(RUN_KEY)
            schema = _schema(table)
            schema = schema.with_metadata(dict(schema.metadata) | ({RUN_KEY: run} if run else {}))
            self._writer = pq.ParquetWriter(self._sink, schema, **WRITING)
        self._receipts.append(receipt)
        self._group.append(_conform(table))
        full = sum(table.nbytes for table in self._group) >= _GROUP_BYTES
        self._flush(all_rows=full)

    def put(self, store: Store) -> dict[str, int]:
        """Write it. Returns its name and size."""
        assert self._writer is not None
        self._flush(all_rows=True)
        values = [json.loads(receipt.to_json(notes=False)) for receipt in self._receipts]
        self._writer.add_key_value_metadata({CHUNKS_KEY.decode(): json.dumps(values)})
        self._writer.close()
        data = self._sink.getvalue().to_pybytes()
        store.put(self.name, data)
        return {self.name: len(data)}

    def _flush(self, all_rows: bool) -> None:
        """Write the rows that make up whole groups, or all; never a group without rows."""
        assert self._writer is not None
        rows = pa.concat_tables(self._group)
        ready = rows.num_rows if all_rows else rows.num_rows // _GROUP_ROWS * _GROUP_ROWS
        if ready:
            self._writer.write_table(rows.slice(0, ready), row_group_size=_GROUP_ROWS)
            self._group = [rows.slice(ready)]


@dataclass
class _Rows:
    """Reads a shard's chunks in order from wherever they are, each checked against its receipt."""

    store: Store
    shard: str
    chunks: int
    parts: Parts
    highest: int = -1  # index in the shard of the last row so far

    def read(self, first: int, run: Sequence[Source]) -> Iterator[tuple[pa.Table, Receipt]]:
        """The chunks from `first` on with their receipts. Raises DamagedError."""
        table, loaded = None, ""
        for number, source in enumerate(run, first):
            chunks = [r.chunk for r in self.parts[source.part]] if source.part is not None else [number]
            try:
                if source.name != loaded:
                    table, loaded = self._load(source.name), source.name
                assert table is not None
                if source.receipt is None:
                    receipt, rows = Receipt.from_json(table.schema.metadata[CHUNK_KEY]), table
                else:
                    receipt = source.receipt
                    before = (r.samples for r in self.parts[source.part or 0] if r.chunk < number)
                    rows = table.slice(sum(before), receipt.samples)
                self._check(rows, receipt, number)
            except UNREADABLE as error:
                raise DamagedError(source.name, chunks, str(error) or type(error).__name__) from error
            yield rows, receipt

    def _load(self, name: str) -> pa.Table:
        data = self.store.get(name)
        if data is None:
            raise DataError(f"{self.store.path(name)} is gone, by another job or by hand: resume")
        return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()

    def _check(self, rows: pa.Table, receipt: Receipt, number: int) -> None:
        """Raises ValueError unless the rows are the receipt's, each once, in order, and of this shard."""
        counted = count_rows(rows)
        said = {name: getattr(receipt, name) for name in counted}
        if counted != said:
            raise ValueError(f"rows and receipt differ: {counted}, {said}")
        if (receipt.shard, receipt.chunk, receipt.last) != (self.shard, number, number == self.chunks - 1):
            raise ValueError(f"it is chunk {receipt.chunk} of {receipt.shard}, last: {receipt.last}")
        if counted["ok"] + counted["no_phrase"] + counted["error"] != counted["samples"]:
            raise ValueError("rows of an unknown status")
        indices = rows["index"].to_pylist()
        if any(a >= b for a, b in zip([self.highest, *indices], indices, strict=False)):
            raise ValueError("rows are not in order")
        if set(rows["shard"].to_pylist()) - {self.shard}:
            raise ValueError("rows of another shard")
        self.highest = max([self.highest, *indices[-1:]])


def _conform(table: pa.Table) -> pa.Table:
    """The table in the schema of today: what an older version did not write is null."""
    schema = _schema(table)
    columns = [
        table[item.name].cast(item.type)
        if item.name in table.schema.names
        else pa.nulls(len(table), item.type)
        for item in schema
    ]
    return pa.table(columns, schema=schema)


def _schema(table: pa.Table) -> pa.Schema:
    """The schema of today, with the added signals that the rows have."""
    return annotation_schema(added_signals(table.schema))
