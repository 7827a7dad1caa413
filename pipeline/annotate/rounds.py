"""Runs the chain, keeps the books, and runs it again for what is still missing.

A fault that Ray cannot mend ends the chain; the files that are there stay. So a round is: plan what
is missing, run it, count. Rounds go on while they bring something, and stop when several in a row bring
nothing or nothing moves for `--stall-timeout`: the run always ends.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TYPE_CHECKING

from pipeline.annotate.chunk_receipt import CHUNKS, Receipt, chunk_name
from pipeline.annotate.ledger import RemoteLedger
from pipeline.annotate.progress import Progress
from pipeline.annotate.receipts import Survey, Tasks, survey
from pipeline.annotate.run_summary import Measures, RunSummary, totals
from pipeline.annotate.seal import Sealed, seal_many
from pipeline.annotate.shard_files import part_name
from pipeline.annotate.shard_reader import WHOLE_SHARD
from pipeline.annotate.shard_receipt import ShardReceipt
from pipeline.annotate.watch import LostNodeError, Patience, StallError, watch
from pipeline.dataset.store import Store
from pipeline.sources import Shard
from sspsam.storage.secrets import redact

if TYPE_CHECKING:
    import ray.data

#: Sealing tasks at a time, and shards that wait for one which it takes together.
_SEALING = 4
_SEALED_TOGETHER = 32
_MAX_FRUITLESS_ROUNDS = 2
#: A round that ends by a lost node says little about the next one.
_MAX_FRUITLESS_LOSSES = 10

#: What Ray Data adds to an error: settings of its own that do not apply here.
_ADVICE = re.compile(r"Failed to .{0,200} after \d+/\d+ attempts .*?to be transient\.", re.DOTALL)

Plan = Callable[[Survey], tuple[Tasks, dict[str, int]]]
#: Starts to seal shards, given with their numbers of chunks.
StartSealing = Callable[[list[tuple[str, int]]], "Future[list[Sealed | str]]"]


class Bookkeeper:
    """Which chunks are written, which shards have ended, and why others have not.

    Args:
        start_sealing: seals shards somewhere else than in the driver; None for threads of its own.
    """

    def __init__(
        self,
        store: Store,
        found: Survey,
        started: float,
        progress: Progress | None = None,
        start_sealing: StartSealing | None = None,
    ) -> None:
        self.store = store
        self.progress = progress
        self.ended: dict[str, ShardReceipt] = dict(found.ended)
        self.problems: dict[str, str] = {}
        self.found = found
        self.deaths = 0
        self.shared = False  # with another job
        self._measures = Measures(started)
        self._written: dict[str, set[int]] = {}
        self._ends: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        self._sealing: dict[Future[list[Sealed | str]], list[tuple[str, int]]] = {}
        self._pool = ThreadPoolExecutor(_SEALING)
        self._start_sealing = start_sealing or (lambda shards: self._pool.submit(seal_many, store, shards))

    def begin_round(self, found: Survey, unsealed: dict[str, int]) -> None:
        self.problems.clear()
        self.found = found
        self._written, self._ends = {}, {}
        self._waiting = dict(unsealed)

    def add(self, receipt: Receipt) -> None:
        """A chunk's file is written. When it completes its shard, the shard is sealed."""
        shard = receipt.shard
        if shard in self.ended:
            return
        if shard not in self._written:
            begun = self.found.begun.get(shard)
            self._written[shard] = set(begun.done) if begun else set()
            if begun and begun.chunks is not None:
                self._ends[shard] = begun.chunks
        written = self._written[shard]
        if receipt.chunk in written:
            return  # Ray repeated the chunk for a node that was lost: same name, same rows
        self._measures.add(receipt)
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
        if receipt.notes.get(WHOLE_SHARD):
            size = int(receipt.notes["bytes_out"])
            self._end(shard, ShardReceipt.of(shard, [receipt], {part_name(shard, 0): size}))
        elif len(written) == self._ends.get(shard):
            self._waiting[shard] = self._ends[shard]

    def collect(self, to_the_end: bool = False) -> None:
        """Take in the shards that were sealed since the last call, and have those that wait sealed."""
        while True:
            while self._waiting and len(self._sealing) < _SEALING:
                some = list(islice(self._waiting.items(), _SEALED_TOGETHER))
                for shard, _ in some:
                    del self._waiting[shard]
                self._sealing[self._start_sealing(some)] = some
            if to_the_end and self._sealing:
                wait(self._sealing, return_when=FIRST_COMPLETED)
            done = [future for future in self._sealing if future.done()]
            for future in done:
                self._take_in(future, self._sealing.pop(future))
            if not self._sealing or (not done and not to_the_end):
                return

    def _take_in(self, future: Future[list[Sealed | str]], shards: list[tuple[str, int]]) -> None:
        error = future.exception()
        results = [str(error)] * len(shards) if error else future.result()
        for (shard, _), result in zip(shards, results, strict=True):
            if isinstance(result, str):
                self.problems[shard] = f"shard {shard}: {result}"
                continue
            if result.by_other and not self.shared:
                self.shared = True
                self.say("another job writes to this OUTPUT too; every row stays there once")
            self._end(shard, result.receipt)

    def _end(self, shard: str, receipt: ShardReceipt) -> None:
        self.ended[shard] = receipt
        self._written.pop(shard, None)
        self._ends.pop(shard, None)
        if self.progress:
            self.progress.end_shard(shard)

    def audit(self) -> Survey:
        """Look once more whether every shard that ended is there; those that are not become problems."""
        found = survey(self.store, self.ended, known=self.ended)
        for shard in self.ended.keys() - found.ended.keys():
            self.problems[shard] = f"shard {shard}: its files are not those that were sealed any more"
        self.ended = dict(found.ended)
        return found

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
        if len(ended) == len(shards):
            self.store.prune(CHUNKS)
        return RunSummary(
            output=redact(output),
            shards=len(shards),
            ended=len(ended),
            **totals(ended),
            **self._measures.summary(),
            deaths=self.deaths,
            problems=tuple(map(redact, problems)),
        )


def run_rounds(
    book: Bookkeeper,
    plan: Plan,
    chain: Callable[[Tasks], ray.data.Dataset],
    ledger: RemoteLedger,
    patience: Patience,
) -> None:
    """Run `chain` for what `plan` finds missing until nothing is, or rounds bring nothing.

    What could not be done stands in `book.problems`.
    """
    found, fruitless = book.found, 0
    while True:
        tasks, unsealed = plan(found)
        book.begin_round(found, unsealed)
        before, chunks = len(book.ended), 0
        failure, most = "", _MAX_FRUITLESS_ROUNDS
        try:
            for receipt in watch(chain(tasks), ledger, patience) if tasks.shards else ():
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
            _settle(book, ledger)
        audited = None
        if not failure and not book.problems:
            audited = book.audit()
            if not book.problems:
                return
        if failure:
            book.problems["chain"] = failure
        # Chunks are progress if the chain broke; if it came to its end, only a shard that ended is.
        fruitless = 0 if (chunks and failure) or len(book.ended) > before else fruitless + 1
        if fruitless >= most:
            return
        for problem in book.problems.values():
            book.say(f"{problem}; going on with what is missing")
        names = [*(shard.name for shard in tasks.shards), *unsealed, *(audited.begun if audited else ())]
        fresh = survey(book.store, names, known=book.ended)
        book.ended |= fresh.ended
        found = Survey(dict(book.ended), fresh.begun)


def _settle(book: Bookkeeper, ledger: RemoteLedger) -> None:
    """At the end of a chain. Whoever stops the run does not wait for sealing: the next run does it."""
    if not isinstance(sys.exc_info()[1], KeyboardInterrupt):
        book.collect(to_the_end=True)
    with contextlib.suppress(Exception):  # a cluster that is gone cannot be asked
        book.deaths = ledger.deaths()


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
    text = _ADVICE.sub("", str(said))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    # Ray's own errors carry a traceback as text, whose last line is what was raised.
    ours = not type(said).__module__.startswith("ray")
    return f"{type(said).__name__}: {' '.join(lines)[:800]}" if ours else lines[-1][:800]
