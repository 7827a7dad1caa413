"""When silence has lasted too long, and how rounds go on after a lost node; without a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.annotate import rounds, watch
from pipeline.annotate.chunk_receipt import Receipt
from pipeline.annotate.ledger import Ledger
from pipeline.annotate.receipts import Survey, Tasks
from pipeline.annotate.watch import LostNodeError, Patience, StallError
from pipeline.dataset.store import Store
from pipeline.sources import Shard


class Clock:
    """Stands in for `time` in the module under test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: self.now))

    def wait(self, seconds: float, patience: Patience, ledger: Any) -> None:
        """Let time pass as a running chain does, asking every second."""
        for _ in range(round(seconds)):
            self.now += 1.0
            patience.check(ledger)


def chunk(busy_seconds: float) -> Receipt:
    return Receipt("shard", 0, False, 1, 1, 0, 0, 1, 1, {}, notes={"busy_seconds": busy_seconds})


def test_silence_is_borne_for_less_time_after_a_node_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, ledger, alive = Clock(monkeypatch), Ledger(), {"head", "first"}
    patience = Patience(stall_seconds=1800.0, nodes=lambda: alive)
    clock.wait(40, patience, ledger)
    patience.heard(chunk(busy_seconds=10.0))  # so 30 s to start
    alive.add("second")
    clock.wait(1000, patience, ledger)  # nothing was lost: only --stall-timeout counts
    patience.heard(chunk(busy_seconds=25.0))
    alive.remove("second")
    clock.wait(130, patience, ledger)
    patience.heard(chunk(busy_seconds=25.0))  # Ray goes on by itself
    clock.wait(30 + 2 * (30 + 25), patience, ledger)
    with pytest.raises(LostNodeError, match="node second was lost, and nothing came for 141 s"):
        clock.wait(1, patience, ledger)

    patience.begin_round()  # a new chain, which does not know the node that is gone
    ledger.begin("annotate 00007 3", 64, "node head pid 1")
    clock.wait(1800 + 120, patience, ledger)
    with pytest.raises(StallError, match=r"for 1800 s\. Under way: annotate 00007 3 on node head"):
        clock.wait(1, patience, ledger)


def test_a_node_lost_before_anything_is_finished_waits_half_the_stall_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, alive = Clock(monkeypatch), {"head", "first"}
    patience = Patience(stall_seconds=600.0, nodes=lambda: alive)
    clock.wait(10, patience, Ledger())
    alive.remove("first")
    clock.wait(300, patience, Ledger())
    with pytest.raises(LostNodeError):
        clock.wait(5, patience, Ledger())


def test_rounds_go_on_after_lost_nodes_and_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A chain that loses its node again and again without finishing anything."""
    ledger = Ledger()
    remote: Any = ledger  # its methods are those of the remote one
    ran: list[Any] = []
    tasks = Tasks([Shard("00000", "/nowhere/00000.tar", "tar", 1, None)], {})

    def losing(dataset: Any, *_: Any) -> Iterator[None]:
        ran.append(dataset)
        ledger.begin("annotate 00000 0", 8, "node x pid 1")
        yield None
        raise LostNodeError("node x was lost, and nothing came for 60 s")

    monkeypatch.setattr(rounds, "watch", losing)
    patience: Any = None

    def run(chain: Any) -> dict[str, str]:
        book = rounds.Bookkeeper(Store(str(tmp_path), {}), Survey({}, {}), time.monotonic())
        rounds.run_rounds(book, lambda _: (tasks, {}), chain, remote, patience)
        book.conclude(str(tmp_path), [])
        return book.problems

    assert run(lambda tasks: "chain") == {"chain": "node x was lost, and nothing came for 60 s"}
    assert ran == ["chain"] * 10
    assert ledger.deaths() == 0  # ended on purpose: no sample is suspected
    assert ledger.under_way() == []

    def no_node(tasks: Any) -> Any:
        raise StallError("waited 60 s for nodes: the nodes have room for 0 replicas")

    assert "room for 0 replicas" in run(no_node)["stalled"]
    assert len(ran) == 10


def test_ctrl_c_does_not_wait_for_shards_to_be_sealed(tmp_path: Path) -> None:
    """Two shards are to be sealed when it comes, and sealing them would never end."""
    store = Store(str(tmp_path), {})
    never: Future[Any] = Future()
    book = rounds.Bookkeeper(store, Survey({}, {}), time.monotonic(), start_sealing=lambda shards: never)
    tasks = Tasks([Shard("new", "/in/new.tar", "tar")], {})

    def chain(tasks: Tasks) -> Any:
        book.collect()
        raise KeyboardInterrupt

    patience = Patience(1800.0, lambda: ())
    with pytest.raises(KeyboardInterrupt):
        rounds.run_rounds(book, lambda found: (tasks, {"one": 1, "other": 2}), chain, Ledger(), patience)
    assert not book.ended
