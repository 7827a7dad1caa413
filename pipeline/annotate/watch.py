"""Follows a running chain: its receipts as they come, and when silence has lasted too long.

Ray repeats the work of a lost node by itself, outside of what Ray Data plans, and not always: a replica
that must start again waits for a node with room for it, and the chunks it was given wait with it. So
after a loss silence is allowed for minutes only; then the chain is ended, and the next round runs what
has no receipt on the nodes that there are, or says what it waits for.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

from pipeline.annotate.chunk_receipt import Receipt
from pipeline.annotate.ledger import RemoteLedger
from sspsam.errors import DataError

if TYPE_CHECKING:
    import ray.data

_TICK_SECONDS = 0.5
_LOOK_SECONDS = 3.0
#: Ray Data gives a stalled chain up by itself; if not even that happens, so much later we do.
_GRACE_SECONDS = 120.0
#: Silence allowed after a lost node, beside twice what a replica needs to start and compute a chunk.
_LOST_NODE_SECONDS = 30.0
_END_SECONDS = 60.0
_NAMED_STRAGGLERS = 5


class StallError(DataError):
    """Nothing moved for too long; the message names what was under way."""

    kind = "stalled"


class LostNodeError(DataError):
    """Nothing came any more after a node was lost."""

    kind = "lost_node"


class Patience:
    """How long a run may stay silent: `--stall-timeout`, less once a node is lost. One for all rounds.

    Args:
        nodes: the ids of the cluster's nodes that are alive.
    """

    def __init__(self, stall_seconds: float, nodes: Callable[[], Collection[str]]) -> None:
        self.stall_seconds = stall_seconds
        self._nodes = nodes
        self._started = time.monotonic()
        self._usual: float | None = None  # seconds to start a replica and compute the slowest chunk
        self._start_seconds: float | None = None
        self.begin_round()

    def begin_round(self) -> None:
        """A chain starts: what the cluster lost before does not concern it."""
        self._heard = self._looked = time.monotonic()
        self._alive = set(self._nodes())
        self._lost: set[str] = set()

    def heard(self, receipt: Receipt) -> None:
        """A chunk is written."""
        self._heard = time.monotonic()
        busy = float(receipt.notes.get("busy_seconds", 0.0))
        if self._start_seconds is None:
            self._start_seconds = max(0.0, self._heard - self._started - busy)
        self._usual = max(self._usual or 0.0, self._start_seconds + busy)

    def allowed(self) -> float:
        """Seconds of silence allowed now."""
        if not self._lost:
            return self.stall_seconds + _GRACE_SECONDS
        if self._usual is None:
            return self.stall_seconds / 2
        return min(self.stall_seconds / 2, _LOST_NODE_SECONDS + 2 * self._usual)

    def check(self, ledger: RemoteLedger) -> None:
        """To be called every second or so in which nothing came.

        Raises:
            LostNodeError: nothing came for too long since a node was lost.
            StallError: nothing came for too long.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            alive = set(self._nodes())
            if gone := self._alive - alive:
                self._lost |= gone
                self._heard = now  # Ray begins to repeat its work now
            self._alive = alive
        silent = now - self._heard
        if silent <= self.allowed():
            return
        if not self._lost:
            raise StallError(stalled(ledger, self.stall_seconds))
        named = ", ".join(sorted(node[:8] for node in self._lost))
        raise LostNodeError(f"node {named} was lost, and nothing came for {silent:.0f} s")


def watch(dataset: ray.data.Dataset, ledger: RemoteLedger, patience: Patience) -> Iterator[Receipt | None]:
    """The receipts of a running chain as they come, and None after each look at the ledger.

    The chain does not outlive this.

    Raises:
        StallError: nothing moved for too long.
        LostNodeError: nothing came any more after a node was lost.
        Exception: whatever ended the chain.
    """
    from ray.data.exceptions import ExecutionTimeoutError

    from pipeline.annotate.execution import end_execution

    results: queue.Queue[BaseException | None] = queue.Queue()

    def consume() -> None:
        try:
            # Batches would cost the driver two threads and a copy more; what rows say the ledger says too.
            for _ in dataset.iter_internal_ref_bundles():
                pass
            results.put(None)
        except BaseException as error:
            results.put(error)

    # A thread of its own, because Ray Data's iterator blocks and cannot be given a time limit.
    reader = threading.Thread(target=consume, name="chain", daemon=True)
    patience.begin_round()
    reader.start()
    try:
        while True:
            try:
                result, ended = results.get(timeout=_TICK_SECONDS), True
            except queue.Empty:
                result, ended = None, False
            for receipt in (taken := ledger.take()):
                patience.heard(receipt)
                yield receipt
            if not ended:
                if not taken:
                    patience.check(ledger)
                yield None
                continue
            if result is None:
                return
            if isinstance(result, ExecutionTimeoutError):
                raise StallError(stalled(ledger, patience.stall_seconds)) from result
            if isinstance(result, BaseException):
                raise result
    finally:
        end_execution(reader, _END_SECONDS)


def stalled(ledger: RemoteLedger, stall_seconds: float) -> str:
    """What was under way when nothing came any more."""
    try:
        rows = ledger.under_way()[:_NAMED_STRAGGLERS]
    except Exception as error:  # the message must come whatever state the cluster is in
        rows = [{"key": f"unknown ({error})", "worker": "unknown", "seconds": 0.0}]
    named = "; ".join(f"{r['key']} on {r['worker']} for {r['seconds']:.0f} s" for r in rows)
    return (
        f"nothing moved for {stall_seconds:.0f} s. Under way: {named or 'nothing'}. If the "
        "cluster was waiting for nodes, raise --stall-timeout; the same command resumes"
    )
