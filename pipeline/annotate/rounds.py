"""Runs the chain, keeps the books, and runs it again for what is still missing.

A fault that Ray cannot mend ends the chain; the files that are there stay. So a round is: plan what
is missing, run it, count. Rounds go on while they bring something, and stop when several in a row bring
nothing or nothing moves for `--stall-timeout`: the run always ends.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pipeline.annotate.chunk_receipt import Receipt, chunk_name
from pipeline.annotate.ledger import RemoteLedger
from pipeline.annotate.progress import Progress
from pipeline.annotate.receipts import ShardReceipt, Survey, survey, verify_shard
from pipeline.annotate.run_summary import RunSummary, stage_seconds, totals, verdict
from pipeline.annotate.shard_reader import ShardTask
from pipeline.annotate.watch import LostNodeError, Patience, StallError, watch
from pipeline.dataset.store import Store
from pipeline.sources import Shard
from sspsam.errors import SSPSAMError
from sspsam.storage.secrets import redact

if TYPE_CHECKING:
    import ray.data

_VERIFY_THREADS = 8
_MAX_FRUITLESS_ROUNDS = 2
#: A round that ends by a lost node says little about the next one.
_MAX_FRUITLESS_LOSSES = 10

Plan = Callable[[Survey], tuple[list[ShardTask], dict[str, int]]]


class Bookkeeper:
    """Which chunks are written, which shards have ended, and why others have not."""

    def __init__(self, store: Store, found: Survey, started: float, progress: Progress | None = None) -> None:
        self.store = store
        self.progress = progress
        self.ended: dict[str, ShardReceipt] = dict(found.ended)
        self.problems: dict[str, str] = {}
        self.found = found
        self.deaths = 0
        self._started = started
        self._start_seconds: float | None = None
        self._first_receipt = self._last_receipt = started
        self._first_images = 0
        self._written: dict[str, set[int]] = {}
        self._ends: dict[str, int] = {}
        self._notes: list[dict[str, Any]] = []
        self._images = 0
        self._checks: dict[str, Future[ShardReceipt]] = {}
        self._pool = ThreadPoolExecutor(_VERIFY_THREADS)

    def begin_round(self, tasks: Sequence[ShardTask], unverified: dict[str, int]) -> None:
        self.problems.clear()
        self._written = {task.shard.name: set(task.done) for task in tasks}
        self._ends = {task.shard.name: task.chunks for task in tasks if task.chunks is not None}
        for shard, count in unverified.items():
            self._check(shard, count)

    def add(self, receipt: Receipt) -> None:
        """A chunk's file is written. When it completes its shard, the shard is read back."""
        shard, written = receipt.shard, self._written[receipt.shard]
        if receipt.chunk in written:
            return  # Ray repeated the chunk for a node that was lost: same name, same rows
        if self._start_seconds is None:
            busy = float(receipt.notes.get("busy_seconds", 0.0))
            self._first_receipt, self._first_images = time.monotonic(), receipt.samples
            self._start_seconds = max(0.0, self._first_receipt - self._started - busy)
        self._last_receipt = time.monotonic()
        self._notes.append(receipt.notes)
        self._images += receipt.samples
        if self.progress:
            self.progress.add(receipt)
        if receipt.last and any(number > receipt.chunk for number in written):
            # Reading broke here although later chunks were read before: this end is not the end.
            self.store.delete([chunk_name(shard, receipt.chunk)])
            self.problems[shard] = f"shard {shard}: reading broke at chunk {receipt.chunk}"
            return
        written.add(receipt.chunk)
        if receipt.last:
            self._ends[shard] = receipt.chunk + 1
        if written == set(range(self._ends.get(shard, -1))):
            self._check(shard, self._ends[shard])

    def collect(self, wait: bool = False) -> None:
        """Take in the shards that were read back since the last call."""
        for shard, check in list(self._checks.items()):
            if wait or check.done():
                del self._checks[shard]
                try:
                    self.ended[shard] = check.result()
                except (SSPSAMError, OSError, ValueError, KeyError) as error:
                    self.problems[shard] = f"shard {shard}: {error}"
                else:
                    if self.progress:
                        self.progress.end_shard(shard)

    def tick(self) -> None:
        """To be called every second or so."""
        self.collect()
        if self.progress:
            self.progress.show()

    def say(self, text: str) -> None:
        if self.progress:
            self.progress.say(redact(text))

    def conclude(self, output: str, shards: Sequence[Shard]) -> RunSummary:
        """The summary over `shards`. Ends the bookkeeper's threads."""
        self._pool.shutdown(wait=False)
        ended = [self.ended[shard.name] for shard in shards if shard.name in self.ended]
        missing = [s.name for s in shards if s.name not in self.ended and s.name not in self.problems]
        problems = list(self.problems.values())
        if missing:
            problems.append(f"{len(missing):,} shards not finished, the first {missing[0]}: resume")
        seconds = stage_seconds(self._notes)
        elapsed = time.monotonic() - self._started
        return RunSummary(
            output=redact(output),
            shards=len(shards),
            ended=len(ended),
            **totals(ended),
            computed=self._images,
            seconds=elapsed,
            steady_images=self._images - self._first_images,
            steady_seconds=self._last_receipt - self._first_receipt,
            start_seconds=elapsed if self._start_seconds is None else self._start_seconds,
            stage_seconds=seconds,
            occupancy=self._occupancy(),
            deaths=self.deaths,
            verdict=verdict(seconds),
            problems=tuple(map(redact, problems)),
        )

    def _check(self, shard: str, chunks: int) -> None:
        self._checks[shard] = self._pool.submit(verify_shard, self.store, shard, chunks)

    def _occupancy(self) -> dict[str, float]:
        shares = {
            batch: [n[f"{batch}_occupancy"] for n in self._notes if f"{batch}_occupancy" in n]
            for batch in ("image", "phrase")
        }
        return {batch: sum(found) / len(found) for batch, found in shares.items() if found}


def run_rounds(
    book: Bookkeeper,
    plan: Plan,
    chain: Callable[[list[ShardTask]], ray.data.Dataset],
    ledger: RemoteLedger,
    patience: Patience,
) -> None:
    """Run `chain` for what `plan` finds missing until nothing is, or rounds bring nothing.

    What could not be done stands in `book.problems`.
    """
    found, fruitless = book.found, 0
    while True:
        tasks, unverified = plan(found)
        book.begin_round(tasks, unverified)
        before, chunks = len(book.ended), 0
        failure, most = "", _MAX_FRUITLESS_ROUNDS
        try:
            for receipt in watch(chain(tasks), ledger, patience) if tasks else ():
                if receipt is not None:
                    chunks += 1
                    book.add(receipt)
                book.tick()
        except StallError as error:
            book.problems["stalled"] = str(error)
            return
        except LostNodeError as error:
            failure, most = str(error), _MAX_FRUITLESS_LOSSES
            with contextlib.suppress(Exception):
                ledger.forget_open()
        except Exception as error:  # whatever ends the chain, the files that are there count
            failure = f"the chain broke: {_cause(error)}"
        finally:
            book.collect(wait=True)
            with contextlib.suppress(Exception):  # a cluster that is gone cannot be asked
                book.deaths = ledger.deaths()
        if not failure and not book.problems:
            return
        if failure:
            book.problems["chain"] = failure
        fruitless = 0 if chunks or len(book.ended) > before else fruitless + 1
        if fruitless >= most:
            return
        for problem in book.problems.values():
            book.say(f"{problem}; going on with what is missing")
        fresh = survey(book.store, [task.shard for task in tasks])
        found = Survey(book.ended | fresh.ended, fresh.begun)


def _cause(error: BaseException) -> str:
    """The innermost error of Ray's wrappers that says something, on one line."""
    said = error
    inner: BaseException | None = error
    seen: set[int] = set()
    while isinstance(inner, BaseException) and id(inner) not in seen:
        seen.add(id(inner))
        if str(inner).strip():
            said = inner
        inner = getattr(inner, "cause", None) or inner.__cause__ or inner.__context__
    lines = [line.strip() for line in str(said).splitlines() if line.strip()] or ["no message"]
    # Ray's own errors carry a traceback as text, whose last line is what was raised.
    ours = not type(said).__module__.startswith("ray")
    return f"{type(said).__name__}: {' '.join(lines)[:800]}" if ours else lines[-1][:800]
