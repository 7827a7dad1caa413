"""The read stage: shards become chunks, and chunks get their phrases. Runs in Ray tasks."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.annotate import chunks
from pipeline.annotate.annotate_config import InputConfig
from pipeline.annotate.ledger import LedgerClient
from pipeline.annotate.rows import KILLED_WORKER, PHRASE_SOURCE, Reason, reason_of
from pipeline.annotate.works import Works
from pipeline.phrases import Phrase
from pipeline.sources import Chunk, Sample, Shard
from sspsam.errors import SSPSAMError

#: shard, chunk size, skip= -> chunks; `pipeline.sources.read_chunks` with its options bound.
Reader = Callable[..., Iterator[Chunk]]
PhraseSource = Callable[[list[Sample]], list[list[Phrase]]]

#: The note on a chunk that is all there is of its shard.
WHOLE_SHARD = "whole_shard"

#: One reading task takes shards of so many bytes together, and at most so many shards.
_READ_BYTES, _READ_SHARDS = 32 << 20, 256
#: Reading tasks in all: each is known to the driver from the start. Beyond that they take more shards.
_READ_TASKS = 4096

#: Chunks that share a row at most, and bytes of their images.
_TRAVEL_TOGETHER, _ROW_BYTES = 256, 64 << 20
#: A reader that is far ahead of the replicas asks again so often, and goes on after a while in any case.
_ASK_SECONDS, _WAIT_SECONDS = 0.25, 30.0

#: The ledger is told together of shards of so many bytes, and of finding the phrases of so many samples.
_TOLD_BYTES, TOLD_SAMPLES = 8 << 20, 64

#: With --sample, so many chunks' worth of samples are read for one chunk's worth of rows at most.
_MAX_READ_AHEAD = 16


@dataclass(frozen=True)
class ShardTask:
    """What is left to do of a shard.

    Args:
        done: chunks that need not be computed.
        chunks: how many the shard has; None if its end is not known yet.
        limit: rows to take from the shard, None for all.
        fresh: nothing of it is at OUTPUT, so that a shard of one chunk may be written as sealed at once.
    """

    shard: Shard
    done: frozenset[int] = frozenset()
    chunks: int | None = None
    limit: int | None = None
    fresh: bool = False

    def last_needed(self) -> int | None:
        """The last chunk that is missing, None if that is not known."""
        if self.chunks is None:
            return None
        return max(set(range(self.chunks)) - self.done, default=-1)


def read_together(shards: Sequence[Shard], readers: int) -> list[range]:
    """Runs of shards that one reader takes: small ones share one, as long as there are enough for all."""
    known = sum(shard.size or 0 for shard in shards if shard.format != "folder")
    most = max(min(_READ_BYTES, known // (4 * readers)), known // _READ_TASKS)
    together = max(_READ_SHARDS, len(shards) // _READ_TASKS)
    starts: list[int] = []
    room = 0
    for number, shard in enumerate(shards):
        size = most if shard.size is None or shard.format == "folder" else shard.size
        if not starts or size > room or number - starts[-1] >= together:
            starts.append(number)
            room = most
        room -= size
    return [range(first, end) for first, end in itertools.pairwise([*starts, len(shards)])]


def keeps(key: str, fraction: float) -> bool:
    """Whether the sample of this key is in the --sample: the same keys in every run."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def select_chunks(task: ShardTask, reader: Reader, chunk_size: int, fraction: float) -> Iterator[Chunk]:
    """The chunks of a task that are to be annotated, after --sample and --limit.

    A chunk keeps its number whatever is skipped, and `last` marks the end of what is wanted.
    """
    read_size = min(round(chunk_size / fraction), chunk_size * _MAX_READ_AHEAD)
    # A limit counts rows of earlier chunks, so these are read even if they are done.
    skip: Container[int] = task.done if task.limit is None else ()
    taken, needed = 0, task.last_needed()
    for chunk in reader(task.shard, read_size, skip=skip):
        kept = [s for s in chunk.samples if fraction >= 1 or keeps(s.key, fraction)]
        last = chunk.last
        if task.limit is not None:
            kept = kept[: task.limit - taken]
            taken += len(kept)
            last = last or taken >= task.limit
        if chunk.index not in task.done:
            yield replace(chunk, samples=kept, last=last)
        if last or (needed is not None and chunk.index >= needed):
            return


def count_limits(
    shards: Sequence[Shard], reader: Reader, chunk_size: int, source: InputConfig
) -> dict[str, int] | None:
    """Rows to take from each shard under --limit, in input order; None without a limit.

    Reads the shards as far as the limit goes, because tars do not say how many samples they hold.
    """
    if source.limit is None:
        return None
    limits: dict[str, int] = {}
    left = source.limit
    for shard in shards:
        if left <= 0:
            break
        task = ShardTask(shard, limit=left)
        found = select_chunks(task, reader, chunk_size, source.sample)
        limits[shard.name] = sum(len(chunk.samples) for chunk in found)
        left -= limits[shard.name]
    return limits


@dataclass(frozen=True)
class ShardReader:
    """A map over runs of shard tasks that yields a row as soon as its chunks are read.

    How many samples a row holds is the ledger's to say, which repeats itself, so that a reader that is run
    again yields the same rows.
    A shard whose next chunk has killed its reader twice ends there, with a row that says so.
    """

    reader: Reader
    chunk_size: int
    fraction: float
    ledger: LedgerClient

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for pickled in batch["tasks"].to_pylist():
            yield from map(chunks.to_table, self._rows(pickle.loads(pickled)))

    def _rows(self, tasks: Sequence[ShardTask]) -> Iterator[list[chunks.Travelling]]:
        run, rows, read = tasks[0].shard.name, itertools.count(), 0
        firsts = ((_reading(task, 0), 1, task.shard.size or _TOLD_BYTES) for task in tasks)
        works = Works(self.ledger, firsts, _TOLD_BYTES)
        row: list[chunks.Travelling] = []
        room = space = 0
        for chunk, notes in itertools.chain.from_iterable(self._read(task, works) for task in tasks):
            size = notes.get("bytes_in", 0)
            if row and (len(chunk.samples) > room or size > space):
                works.end()
                yield row
                row = []
            if not row:
                room, space = self._room(run, next(rows), read, works), _ROW_BYTES
            row.append((chunk, None, notes))
            read, room, space = read + len(chunk.samples), room - len(chunk.samples), space - size
            if room <= 0 or space <= 0 or len(row) == _TRAVEL_TOGETHER:
                works.end()
                yield row
                row = []
        works.end()
        if row:
            yield row
        self.ledger.end_run(run, read)

    def _room(self, run: str, row: int, read: int, works: Works) -> int:
        end = time.monotonic() + _WAIT_SECONDS
        while not (room := self.ledger.room(run, row, read, wait=time.monotonic() < end)):
            works.end()
            time.sleep(_ASK_SECONDS)
        return room

    def _read(self, task: ShardTask, works: Works) -> Iterator[tuple[Chunk, dict[str, Any]]]:
        """Each chunk with its notes; reading the first is the next of `works`."""
        found = select_chunks(task, self.reader, self.chunk_size, self.fraction)
        for step in range(2**62):
            if step:
                works.put_first((_reading(task, step), 1, 0))
            if not works.begin().run:
                yield self._unreadable(task.shard, self._next_number(task, step)), {}
                return
            started = time.perf_counter()
            chunk = next(found, None)
            if chunk is None:
                return
            size = sum(len(sample.image or b"") for sample in chunk.samples)
            notes: dict[str, Any] = {"read_seconds": time.perf_counter() - started, "bytes_in": size}
            if task.fresh and chunk.last and chunk.index == 0:
                notes[WHOLE_SHARD] = True
            yield chunk, notes
            if chunk.last:
                return

    @staticmethod
    def _next_number(task: ShardTask, step: int) -> int:
        """The number of the chunk that follows the first `step` chunks that are not done."""
        number = 0
        while True:
            if number not in task.done:
                if step == 0:
                    return number
                step -= 1
            number += 1

    def _unreadable(self, shard: Shard, number: int) -> Chunk:
        index = number * self.chunk_size
        message = f"reading {shard.url} from sample {index} on killed its process twice"
        sample = Sample(
            key=f"{shard.name}/{index}",
            index=index,
            image=None,
            caption=None,
            columns={},
            ref={"url": shard.url, "member": None, "offset": None, "length": None},
            error=(KILLED_WORKER, message),
        )
        return Chunk(shard=shard, index=number, samples=[sample], last=True)


def _reading(task: ShardTask, step: int) -> str:
    return f"read {task.shard.name} after {step} chunks"


@dataclass(frozen=True)
class Phraser:
    """A map over chunks that adds their phrases.

    A chunk whose captions have killed this process twice goes on without: the annotate stage, which
    can take a chunk apart, finds the caption that does it.
    """

    source: PhraseSource
    ledger: LedgerClient

    def __call__(self, table: pa.Table) -> pa.Table:
        done: list[chunks.Travelling] = []
        all_sizes = zip(chunks.numbers(table), chunks.sizes(table), strict=True)
        pieces = ((f"phrases {shard} {number}", 1, size) for (shard, number), size in all_sizes)
        works = Works(self.ledger, pieces, TOLD_SAMPLES)
        for chunk, _, notes in chunks.from_table(table):
            started = time.perf_counter()
            phrases = find_phrases(self.source, chunk.samples) if works.begin().run else None
            notes["phrases_seconds"] = time.perf_counter() - started
            done.append((chunk, phrases, notes))
        works.end()
        return chunks.to_table(done)


def find_phrases(source: PhraseSource, samples: list[Sample]) -> list[list[Phrase]] | None:
    """The phrases of each sample; None if the source fails on them together."""
    usable = [sample for sample in samples if sample.error is None]
    try:
        found = iter(source(usable) if usable else [])
        phrases = [next(found) if sample.error is None else [] for sample in samples]
        return phrases if next(found, None) is None else None
    except Exception:  # a user's source may raise anything; the annotate stage says which sample
        return None


def find_alone(source: PhraseSource, sample: Sample) -> list[Phrase] | Reason:
    """The phrases of one sample, or why there are none, for a chunk whose samples failed together."""
    try:
        (phrases,) = source([sample])
        return list(phrases)
    except Exception as error:  # a user's source may raise anything
        kind, message = reason_of(error)
        return kind if isinstance(error, SSPSAMError) else PHRASE_SOURCE, message
