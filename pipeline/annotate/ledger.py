"""Who computes what and what is written: samples that kill are found, receipts wait for the driver.

Ray restarts a dead replica and repeats its task, for ever if nothing bounds it. So each process tells
the ledger, a small actor beside the driver, what it is about to do. A task that comes back and finds
its earlier entry still open knows that the process died there: first the chunk is repeated whole (the
node may have been taken away), then in eighths, then sample by sample; a sample whose process dies
twice while nothing else was in it is quarantined, and the rest of its chunk is annotated.

A replica works on two chunks at a time, and its death is held against both. So a chunk that is suspect
runs alone from then on: what dies with it is its own doing, and a chunk that was merely near is soon cleared.

Ray Data's executor costs the driver milliseconds a task and a block, so a row of the chain holds several
chunks, and their receipts come to the driver through the ledger, many at a time. A row that is repeated after
a death skips those of its chunks that are written. How many samples a row holds follows from the measured
speed, and readers wait when they are far ahead of the replicas: what is read early is cut into small rows.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.annotate.chunk_receipt import Receipt
from pipeline.annotate.span_plan import Span, SpanPlan, plan_spans

#: So many replicas started in a row, none of which finished anything: not the samples' fault.
MAX_FRUITLESS_STARTS = 20

#: A row is so many seconds of a replica's work at most, and so small a part of what each has done that all
#: end at about the same time.
ROW_SECONDS = 5.0
_PART_OF_DONE = 1 / 16
#: Readers are ahead of each replica by so many seconds, or chunks while its speed is not known.
_AHEAD_SECONDS, _AHEAD_CHUNKS = 40.0, 8

#: How the keys of replicas' work begin; others are readers'.
_COMPUTING = "annotate "

#: Shard and number of a chunk.
ChunkId = tuple[str, int]


@dataclass
class _Entry:
    """One piece of work under way."""

    size: int
    worker: str
    since: float
    open: Span | None = None
    deaths: Counter[Span] = field(default_factory=Counter)


class Ledger:
    """The book itself: plain Python; `start_ledger` makes it a Ray actor."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._fruitless_starts = 0
        self._dead: set[str] = set()
        self.begin_chain(1, 1)

    def started(self, replica: str) -> int:
        """A replica is about to load its model. Returns the starts since anything was finished."""
        self._fruitless_starts += 1
        self._entries[_loading(replica)] = _Entry(0, replica, time.time())
        return self._fruitless_starts

    def begin_chain(self, chunk_size: int, replicas: int) -> None:
        """A chain of so many replicas starts, whose plan knows what is written."""
        self._chunk_size, self._replicas = chunk_size, replicas
        self._receipts: list[Receipt] = []
        self._written: set[ChunkId] = set()  # of rows that have not ended
        self._rooms: dict[str, array[int]] = {}
        self._read: dict[str, int] = {}
        self._samples, self._seconds = 0, 0.0

    def room(self, run: str, row: int, read: int, wait: bool) -> int:
        """Samples that fit into row number `row` of a run of shards: the same however often it is asked.

        Args:
            read: samples of the run that its earlier rows hold.
            wait: whether the reader can wait; 0 says that it is to ask again.
        """
        self._read[run] = read
        rooms = self._rooms.setdefault(run, array("q"))
        if row == len(rooms):
            speed = self._samples / self._seconds if self._seconds else 0.0
            ahead = max(_AHEAD_SECONDS * speed, _AHEAD_CHUNKS * self._chunk_size) * self._replicas
            if wait and sum(self._read.values()) - self._samples >= ahead:
                return 0
            most = min(ROW_SECONDS * speed, _PART_OF_DONE * self._samples / self._replicas)
            rooms.append(max(self._chunk_size, int(most)))
        return rooms[row]

    def end_run(self, run: str, read: int) -> None:
        """A run of shards is read to its end: so many samples."""
        self._read[run] = read

    def standing(self, chunks: Sequence[ChunkId]) -> list[str]:
        """Of each chunk of a row: `written`, `suspect` if a process died with it under way, or `new`."""
        return [
            "written" if chunk in self._written else self._suspicion(chunk_key(*chunk)) for chunk in chunks
        ]

    def _suspicion(self, key: str) -> str:
        entry = self._entries.get(key)
        return "suspect" if entry is not None and (entry.open is not None or entry.deaths) else "new"

    def written(self, *receipts: Receipt) -> None:
        """The files of chunks are there, so that their work is finished."""
        for receipt in receipts:
            self.end(chunk_key(receipt.shard, receipt.chunk))
            receipt.notes["written_at"] = time.monotonic()  # the driver's clock: it is on the same machine
            self._written.add((receipt.shard, receipt.chunk))
            self._receipts.append(receipt)
            self._samples += receipt.samples
            self._seconds += float(receipt.notes.get("busy_seconds", 0.0))

    def end_row(self, chunks: Iterable[ChunkId]) -> None:
        """All chunks of a row are written."""
        self._written.difference_update(chunks)

    def take(self) -> list[Receipt]:
        """The receipts that came since the last call."""
        taken, self._receipts = self._receipts, []
        return taken

    def enter(
        self, works: Sequence[tuple[str, int]], worker: str, after: Sequence[str] = ()
    ) -> list[SpanPlan]:
        """Enter works that a process does one after the other, as many as may stand open together.

        A death is held against all that are open, so a suspect one is entered alone, or it would soon be
        held against its neighbours that they were near it.

        Args:
            works: key and size in samples.
            after: the works that this process has finished by now.

        Returns:
            The plans of the first of `works` that are entered, one at least; the others are not.
        """
        self.end(*after)
        known = [self._suspicion(key) == "suspect" for key, _ in works]
        together = 1 if known[0] else known.index(True) if True in known else len(works)
        return [self.begin(key, size, worker) for key, size in works[:together]]

    def begin(self, key: str, size: int, worker: str) -> SpanPlan:
        """Enter the work `key` of `size` samples; what was open under it counts as a death."""
        self._entries.pop(_loading(worker), None)
        entry = self._entries.setdefault(key, _Entry(size, worker, time.time()))
        if entry.open is not None:
            entry.deaths[entry.open] += 1
            self._dead.add(entry.worker)
        entry.worker, entry.since = worker, time.time()
        plan = plan_spans(size, entry.deaths)
        entry.open = plan.run[0] if plan.run else None
        return plan

    def advance(self, key: str, span: Span) -> None:
        """The open span of `key` is finished; `span` begins."""
        if key.startswith(_COMPUTING):
            self._fruitless_starts = 0
        if key in self._entries:
            self._entries[key].open = span

    def end(self, *keys: str) -> None:
        """These works are finished. What readers finish does not show that replicas live."""
        for key in keys:
            if key.startswith(_COMPUTING):
                self._fruitless_starts = 0
            self._entries.pop(key, None)

    def forget_open(self) -> None:
        """The whole chain was ended on purpose: what is open now is nobody's death."""
        self._fruitless_starts = 0
        self._entries = {key: entry for key, entry in self._entries.items() if entry.deaths}
        for entry in self._entries.values():
            entry.open = None

    def under_way(self) -> list[dict[str, Any]]:
        """What is being computed now, longest first: key, worker, seconds, deaths."""
        now = time.time()
        rows = [
            {"key": k, "worker": e.worker, "seconds": now - e.since, "deaths": sum(e.deaths.values())}
            for k, e in self._entries.items()
            if e.open is not None or e.size == 0
        ]
        return sorted(rows, key=lambda row: -float(row["seconds"]))

    def deaths(self) -> int:
        """Processes that died while they worked, in this run."""
        return len(self._dead)


def _loading(replica: str) -> str:
    return f"load the model ({replica})"


def chunk_key(shard: str, chunk: int) -> str:
    """The work of computing a chunk."""
    return f"{_COMPUTING}{shard} {chunk}"


class LedgerClient(Protocol):
    """How stages talk to the ledger; `RemoteLedger` in a job, `Ledger` itself without a cluster."""

    def started(self, replica: str) -> int: ...
    def room(self, run: str, row: int, read: int, wait: bool) -> int: ...
    def end_run(self, run: str, read: int) -> None: ...
    def standing(self, chunks: Sequence[ChunkId]) -> list[str]: ...
    def written(self, *receipts: Receipt) -> None: ...
    def end_row(self, chunks: Iterable[ChunkId]) -> None: ...
    def enter(
        self, works: Sequence[tuple[str, int]], worker: str, after: Sequence[str] = ()
    ) -> list[SpanPlan]: ...
    def advance(self, key: str, span: Span) -> None: ...
    def end(self, *keys: str) -> None: ...


@dataclass(frozen=True)
class RemoteLedger:
    """Calls the ledger's actor and waits, so that an entry stands before the danger begins."""

    actor: Any

    def started(self, replica: str) -> int:
        return int(self._call("started", replica))

    def begin_chain(self, chunk_size: int, replicas: int) -> None:
        self._call("begin_chain", chunk_size, replicas)

    def room(self, run: str, row: int, read: int, wait: bool) -> int:
        return int(self._call("room", run, row, read, wait))

    def end_run(self, run: str, read: int) -> None:
        self._call("end_run", run, read)

    def standing(self, chunks: Sequence[ChunkId]) -> list[str]:
        return list(self._call("standing", chunks))

    def written(self, *receipts: Receipt) -> None:
        self._call("written", *receipts)

    def end_row(self, chunks: Iterable[ChunkId]) -> None:
        self._call("end_row", chunks)

    def take(self) -> list[Receipt]:
        return list(self._call("take"))

    def enter(
        self, works: Sequence[tuple[str, int]], worker: str, after: Sequence[str] = ()
    ) -> list[SpanPlan]:
        return list(self._call("enter", works, worker, after))

    def advance(self, key: str, span: Span) -> None:
        self._call("advance", key, span)

    def end(self, *keys: str) -> None:
        self._call("end", *keys)

    def forget_open(self) -> None:
        self._call("forget_open")

    def under_way(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._call("under_way")
        return rows

    def deaths(self) -> int:
        return int(self._call("deaths"))

    def _call(self, method: str, *arguments: Any) -> Any:
        import ray

        return ray.get(getattr(self.actor, method).remote(*arguments), timeout=60)


def start_ledger() -> RemoteLedger:
    """Start the ledger on the driver's node: while the driver lives, so does it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": 0, "scheduling_strategy": here}
    return RemoteLedger(ray.remote(Ledger).options(**options).remote())
