"""What is done already: one listing of OUTPUT, the receipts that it names, and what is left to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.annotate.chunk_receipt import chunk_name
from pipeline.annotate.shard_files import (
    ShardFiles,
    Source,
    find_sources,
    read_parts,
    read_receipt_of,
    sort_files,
)
from pipeline.annotate.shard_reader import ShardTask
from pipeline.annotate.shard_receipt import ShardReceipt, receipt_name
from pipeline.dataset.store import Store
from pipeline.sources import Shard

_THREADS = 16


@dataclass(frozen=True)
class Begun:
    """A shard that has not ended.

    Args:
        sources: chunks that need not be computed, and where they are.
        chunks: how many it has, None if its end is not known.
        files: all that is there of it.
        receipt: one that does not stand, if there is any.
    """

    sources: dict[int, Source]
    chunks: int | None
    files: ShardFiles
    receipt: ShardReceipt | None

    @property
    def done(self) -> frozenset[int]:
        return frozenset(self.sources)


@dataclass(frozen=True)
class Survey:
    """What one listing said: shards that ended, those that did not, and files that are not ours."""

    ended: dict[str, ShardReceipt]
    begun: dict[str, Begun]
    foreign: tuple[str, ...] = ()

    def without(self, store: Store, kind: str) -> Survey:
        """What is left after the chunks that hold error rows of `kind` are marked to be computed again.

        Their rows stay for readers until the shard is sealed again (`pipeline.annotate.shard_files`).
        """
        ended, begun = dict(self.ended), dict(self.begun)
        for shard, receipt in self.ended.items():
            if numbers := receipt.chunks_to_retry(kind):
                mark = ended.pop(shard).without(sorted(numbers))
                store.put(receipt_name(shard), mark.to_json())
                kept = dict.fromkeys(set(range(receipt.chunks)) - numbers, Source(""))
                begun[shard] = Begun(kept, receipt.chunks, ShardFiles(), mark)
        for shard, found in self.begun.items():
            receipts = {n: read_receipt_of(store, source) for n, source in found.sources.items()}
            numbers = frozenset(
                n for n, r in receipts.items() if r and r.kinds and (kind == "any" or kind in r.kinds)
            )
            known = found.receipt or ShardReceipt.of(shard, [], None)
            if numbers and found.files.visible(shard):
                store.put(receipt_name(shard), known.without(sorted(numbers)).to_json())
            store.delete(chunk_name(shard, number) for number in numbers)
            kept = {n: source for n, source in found.sources.items() if n not in numbers}
            begun[shard] = Begun(kept, found.chunks, found.files, found.receipt)
        return Survey(ended, begun, self.foreign)


def survey(store: Store, shards: Iterable[str], known: Mapping[str, ShardReceipt] | None = None) -> Survey:
    """What of the shards of these names is at OUTPUT, by one listing and the receipts that it names.

    Chunk files of shards that have ended are removed: what a crash left, or another job was late with.

    Args:
        known: receipts that need not be read again if they stand.
    """
    listing = store.listing()
    files, foreign = sort_files(listing)
    receipts: dict[str, ShardReceipt] = {}
    held = {name: files.get(name, ShardFiles()) for name in shards}
    unknown = []
    for name, there in held.items():
        receipt = (known or {}).get(name)
        if receipt_name(name) in listing:
            if receipt is not None and receipt.stands(there):
                receipts[name] = receipt
            else:
                unknown.append(name)
    texts = store.get_many(map(receipt_name, unknown))
    for name in unknown:
        data = texts[receipt_name(name)]
        if data is not None:
            receipts[name] = ShardReceipt.from_json(data, store.path(receipt_name(name)))
    ended = {name: r for name, r in receipts.items() if r.stands(held[name])}
    store.delete(chunk_name(name, number) for name in ended for number in held[name].chunks)
    others = [n for n in held if n not in ended and (n in files or n in receipts)]
    with ThreadPoolExecutor(_THREADS) as pool:
        looked = pool.map(lambda name: _look(store, name, held[name], receipts.get(name)), others)
        begun = dict(zip(others, looked, strict=True))
    return Survey(ended, begun, tuple(foreign))


def _look(store: Store, shard: str, files: ShardFiles, receipt: ShardReceipt | None) -> Begun:
    """What is there of a shard that has not ended."""
    retry = receipt.retry if receipt else ()
    sources = find_sources(shard, files, read_parts(store, shard, files), retry)
    chunks = (receipt.chunks if receipt else 0) or None
    if sources:
        highest = max(sources)
        last = read_receipt_of(store, sources[highest])
        if last is None:
            del sources[highest]  # cut short: computed again
        elif last.last:
            chunks = chunks or highest + 1
    return Begun(sources, chunks, files, receipt)


@dataclass(frozen=True)
class Tasks:
    """What is left to read: `shards`, each of which becomes a task when that is asked for."""

    shards: Sequence[Shard]
    begun: Mapping[str, Begun]
    limits: Mapping[str, int] | None = None

    def task(self, number: int) -> ShardTask:
        """What is left to do of shard number `number`."""
        shard = self.shards[number]
        begun = self.begun.get(shard.name)
        done, end = (begun.done, begun.chunks) if begun else (frozenset(), None)
        limit = self.limits[shard.name] if self.limits else None
        return ShardTask(shard, done, end, limit, fresh=begun is None)


def plan_tasks(
    shards: Sequence[Shard], found: Survey, limits: Mapping[str, int] | None
) -> tuple[Tasks, dict[str, int]]:
    """What is left to read, and the shards that only need to be sealed with their chunk counts.

    Args:
        limits: rows to take from each shard under --limit; shards that it lacks are not read.
    """
    whole = {
        name: begun.chunks
        for name, begun in found.begun.items()
        if begun.chunks is not None and begun.done >= set(range(begun.chunks))
    }
    wanted = [s for s in shards if s.name not in found.ended and (limits is None or s.name in limits)]
    unsealed = {shard.name: whole[shard.name] for shard in wanted if shard.name in whole}
    return Tasks([shard for shard in wanted if shard.name not in whole], found.begun, limits), unsealed
