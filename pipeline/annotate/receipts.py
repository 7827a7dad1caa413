"""What is done already: one listing of OUTPUT, and receipts of shards counted from their files.

`annotations/<shard>/<chunk>.parquet` is a chunk that is done. `_shards/<shard>.json` is a shard that
has ended: written last, after its files were read back and their rows counted, so that it stands for
"all of this shard is here". It lies outside `annotations/`, because readers take every file there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.annotate.chunk_receipt import ANNOTATIONS, Receipt, chunk_name
from pipeline.annotate.shard_reader import ShardTask
from pipeline.dataset.store import Store
from pipeline.phrases import LANGUAGE
from pipeline.sources import Shard
from sspsam.errors import DataError

SHARDS = "_shards"
#: What receipts and summaries count.
COUNTS = ("samples", "ok", "no_phrase", "language", "error", "phrases", "masks")
_THREADS = 16
_VERIFY_COLUMNS = ["shard", "index", "status", "error.kind", "annotations.list.element.has_target"]


@dataclass(frozen=True)
class ShardReceipt:
    """A shard that has ended: its rows, counted from its files.

    `samples` = `ok` + `no_phrase` + `error`; `language`: those of `no_phrase` whose caption is in a
    language that is not read, 0 in receipts older than this count; `error_chunks`: chunk number (as
    text) to the number of its error rows by kind.
    """

    shard: str
    chunks: int
    samples: int
    ok: int
    no_phrase: int
    error: int
    phrases: int
    masks: int
    error_chunks: dict[str, dict[str, int]] = field(default_factory=dict)
    language: int = 0

    def kinds(self) -> Counter[str]:
        """Error rows by kind."""
        total: Counter[str] = Counter()
        for kinds in self.error_chunks.values():
            total.update(kinds)
        return total

    def chunks_to_retry(self, kind: str) -> frozenset[int]:
        """Chunks with an error row of `kind`, or of any kind if `kind` is `any`."""
        found = self.error_chunks.items()
        return frozenset(int(chunk) for chunk, kinds in found if kind == "any" or kind in kinds)


def receipt_name(shard: str) -> str:
    return f"{SHARDS}/{shard}.json"


def read_receipt(data: bytes, where: str) -> ShardReceipt:
    try:
        return ShardReceipt(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise DataError(f"{where} is damaged ({error}): delete it, then resume") from error


@dataclass(frozen=True)
class Survey:
    """What one listing said: shards that ended, and chunk numbers of those that did not."""

    ended: dict[str, ShardReceipt]
    begun: dict[str, frozenset[int]]

    def without(self, store: Store, kind: str) -> Survey:
        """Delete the chunks that hold error rows of `kind`, and their shards' receipts.

        The receipts go first: if this is cut short, the shards count as begun, never as ended.
        """
        receipts = dict(self.ended)
        for shard, there in self.begun.items():
            found = {n: read_chunk_receipt(store, shard, n).kinds for n in sorted(there)}
            with_errors = {str(n): kinds for n, kinds in found.items() if kinds}
            receipts[shard] = ShardReceipt(shard, len(there), 0, 0, 0, 0, 0, 0, with_errors)
        retry = {shard: receipt.chunks_to_retry(kind) for shard, receipt in receipts.items()}
        doomed = {shard: chunks for shard, chunks in retry.items() if chunks}
        store.delete(receipt_name(shard) for shard in doomed)
        store.delete(chunk_name(s, number) for s, numbers in doomed.items() for number in numbers)
        begun = dict(self.begun)
        for shard, numbers in doomed.items():
            begun[shard] = begun.get(shard, frozenset(range(receipts[shard].chunks))) - numbers
        ended = {shard: r for shard, r in self.ended.items() if shard not in doomed}
        return Survey(ended, begun)


def survey(store: Store, shards: Iterable[Shard]) -> Survey:
    """What of `shards` is at OUTPUT, by one listing and the receipts that it names."""
    listing = store.listing()
    chunks: dict[str, set[int]] = {}
    for name in listing:
        parts = name.split("/")
        number, _, ending = parts[-1].partition(".")
        if len(parts) == 3 and parts[0] == ANNOTATIONS and ending == "parquet" and number.isdigit():
            chunks.setdefault(parts[1], set()).add(int(number))
    names = [shard.name for shard in shards]
    with_receipt = [name for name in names if receipt_name(name) in listing]
    found = store.get_many(map(receipt_name, with_receipt))
    ended = {}
    for name in with_receipt:
        data = found[receipt_name(name)]
        if data is not None:
            ended[name] = read_receipt(data, store.path(receipt_name(name)))
    # A receipt whose files were deleted by hand does not stand for them any more.
    ended = {n: r for n, r in ended.items() if chunks.get(n, set()) == set(range(r.chunks))}
    begun = {n: frozenset(chunks[n]) for n in names if n in chunks and n not in ended}
    return Survey(ended, begun)


def plan_tasks(
    store: Store, shards: Sequence[Shard], found: Survey, limits: dict[str, int] | None
) -> tuple[list[ShardTask], dict[str, int]]:
    """What is left to read, and the shards that only lack their receipt with their chunk counts.

    Args:
        limits: rows to take from each shard under --limit; shards that it lacks are not read.
    """
    wanted = [s for s in shards if limits is None or s.name in limits]
    begun = [s for s in wanted if found.begun.get(s.name)]
    with ThreadPoolExecutor(_THREADS) as pool:
        ends = dict(
            zip(
                (s.name for s in begun),
                pool.map(lambda s: _end_of(store, s.name, found.begun[s.name]), begun),
                strict=True,
            )
        )
    tasks, unverified = [], {}
    for shard in wanted:
        if shard.name in found.ended:
            continue
        done = found.begun.get(shard.name, frozenset())
        end = ends.get(shard.name)
        if end is not None and done == frozenset(range(end)):
            unverified[shard.name] = end
            continue
        limit = limits[shard.name] if limits else None
        tasks.append(ShardTask(shard, done, end, limit))
    return tasks, unverified


def _end_of(store: Store, shard: str, numbers: frozenset[int]) -> int | None:
    """How many chunks the shard has, if its last one is there to say so."""
    highest = max(numbers)
    return highest + 1 if read_chunk_receipt(store, shard, highest).last else None


def read_chunk_receipt(store: Store, shard: str, chunk: int) -> Receipt:
    """The receipt in a chunk file's metadata.

    Raises:
        DataError: the file is missing, damaged, or not written by this program.
    """
    name = chunk_name(shard, chunk)
    try:
        metadata = store.use(name, pq.read_schema).metadata or {}
        return Receipt.from_json(metadata[b"sspsam.chunk"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{store.path(name)} is not a chunk of this program ({error}): delete it, then resume"
        ) from error


def verify_shard(store: Store, shard: str, chunks: int) -> ShardReceipt:
    """Read a finished shard's files back, count their rows, and write the shard's receipt.

    Raises:
        DataError: the rows are not what the reader handed over, each once and in order.
    """
    names = [chunk_name(shard, number) for number in range(chunks)]
    total: Counter[str] = Counter()
    error_chunks: dict[str, dict[str, int]] = {}
    previous = -1
    for number, name in enumerate(names):
        counted = _count_file(store, name, shard, previous)
        receipt = counted["receipt"]
        emitted = {k: getattr(receipt, k) for k in ("samples", "ok", "no_phrase", "error", "masks")}
        differing = {k: (v, counted[k]) for k, v in emitted.items() if counted[k] != v}
        if differing or receipt.last != (number == chunks - 1):
            raise DataError(
                f"{store.path(name)}: its rows and its receipt differ ({differing or 'end of shard'}): "
                "delete it, then resume"
            )
        previous = counted.pop("highest")
        if counted["kinds"]:
            error_chunks[str(number)] = counted["kinds"]
        total.update({name: counted[name] for name in COUNTS})
    if total["ok"] + total["no_phrase"] + total["error"] != total["samples"]:
        raise DataError(f"shard {shard}: rows by status do not add up to the samples read: {total}")
    verified = ShardReceipt(shard, chunks, error_chunks=error_chunks, **{n: total[n] for n in COUNTS})
    store.put(receipt_name(shard), json.dumps(asdict(verified), sort_keys=True).encode())
    return verified


def _count_file(store: Store, name: str, shard: str, previous: int) -> dict[str, Any]:
    """Count one file's rows; `previous` is the highest sample index of the file before it."""

    def read(file: BinaryIO) -> pa.Table:
        return pq.ParquetFile(file).read(columns=_VERIFY_COLUMNS)

    try:
        table = store.use(name, read)
    except FileNotFoundError as error:
        raise DataError(f"{store.path(name)} is missing: resume to compute it again") from error
    receipt = Receipt.from_json((table.schema.metadata or {})[b"sspsam.chunk"])
    statuses = Counter(table["status"].to_pylist())
    unknown = set(statuses) - {"ok", "no_phrase", "error"}
    indices = table["index"].to_pylist()
    ascending = all(a < b for a, b in zip([previous, *indices], indices, strict=False))
    if unknown or not ascending or set(table["shard"].to_pylist()) - {shard}:
        raise DataError(f"{store.path(name)}: its rows are not this shard's, each once and in order")
    errors = list(zip(table["status"].to_pylist(), table["error"].to_pylist(), strict=True))
    kinds: Counter[str] = Counter(e["kind"] for status, e in errors if status == "error")
    foreign = sum(status == "no_phrase" and e["kind"] == LANGUAGE for status, e in errors if e)
    flags = table["annotations"].combine_chunks().flatten().field("has_target").to_pylist()
    return {
        "receipt": receipt,
        "samples": table.num_rows,
        **{status: statuses[status] for status in ("ok", "no_phrase", "error")},
        "language": foreign,
        "phrases": len(flags),
        "masks": sum(flag is True for flag in flags),
        "kinds": dict(kinds),
        "highest": indices[-1] if indices else previous,
    }
