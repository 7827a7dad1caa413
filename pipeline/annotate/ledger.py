"""Who was computing what when a process died: how samples that kill are found and set aside.

Ray restarts a dead replica and repeats its task, for ever if nothing bounds it. So each process tells
the ledger, a small actor beside the driver, what it is about to do. A task that comes back and finds
its earlier entry still open knows that the process died there: first the chunk is repeated whole (the
node may have been taken away), then in eighths, then sample by sample; a sample whose process dies
twice while nothing else was in it is quarantined, and the rest of its chunk is annotated.

A replica works on two chunks at a time, and its death is held against both. So a chunk that is suspect
runs alone from then on: what dies with it is its own doing, and a chunk that was merely near is soon cleared.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

#: [first, last) positions of samples in a chunk.
Span = tuple[int, int]

#: A whole chunk is repeated once before it is split; a lone sample once before it is quarantined.
PATIENCE = 2
PARTS = 8

#: So many replicas started in a row, none of which finished anything: not the samples' fault.
MAX_FRUITLESS_STARTS = 20


@dataclass
class Plan:
    """How to go through a chunk's samples. Both lists in order, disjoint, together the whole chunk."""

    run: list[Span]
    quarantine: list[int] = field(default_factory=list)


def plan_spans(size: int, deaths: dict[Span, int]) -> Plan:
    """Split `size` samples by how often a process died within each span."""
    plan = Plan([])

    def visit(low: int, high: int, patience: int) -> None:
        died = deaths.get((low, high), 0)
        if high - low == 1:
            patience = PATIENCE
        if died < patience:
            plan.run.append((low, high))
        elif high - low == 1:
            plan.quarantine.append(low)
        else:
            step = -(-(high - low) // PARTS)
            for start in range(low, high, step):
                visit(start, min(high, start + step), patience=1)

    if size:
        visit(0, size, PATIENCE)
    return plan


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

    def started(self, replica: str) -> int:
        """A replica is about to load its model. Returns the starts since anything was finished."""
        self._fruitless_starts += 1
        self._entries[_loading(replica)] = _Entry(0, replica, time.time())
        return self._fruitless_starts

    def suspect(self, key: str) -> bool:
        """Whether a process died, or is about to be found dead, with the work `key` under way."""
        entry = self._entries.get(key)
        return entry is not None and (entry.open is not None or bool(entry.deaths))

    def begin(self, key: str, size: int, worker: str) -> Plan:
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
        self._fruitless_starts = 0
        if key in self._entries:
            self._entries[key].open = span

    def end(self, key: str) -> None:
        """The work `key` is finished."""
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


class LedgerClient(Protocol):
    """How stages talk to the ledger; `RemoteLedger` in a job, `Ledger` itself without a cluster."""

    def started(self, replica: str) -> int: ...
    def suspect(self, key: str) -> bool: ...
    def begin(self, key: str, size: int, worker: str) -> Plan: ...
    def advance(self, key: str, span: Span) -> None: ...
    def end(self, key: str) -> None: ...


@dataclass(frozen=True)
class RemoteLedger:
    """Calls the ledger's actor and waits, so that an entry stands before the danger begins."""

    actor: Any

    def started(self, replica: str) -> int:
        return int(self._call("started", replica))

    def suspect(self, key: str) -> bool:
        return bool(self._call("suspect", key))

    def begin(self, key: str, size: int, worker: str) -> Plan:
        plan: Plan = self._call("begin", key, size, worker)
        return plan

    def advance(self, key: str, span: Span) -> None:
        self._call("advance", key, span)

    def end(self, key: str) -> None:
        self._call("end", key)

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
