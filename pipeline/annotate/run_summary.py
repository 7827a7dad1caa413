"""The summary of a run: counts that must add up, speed, bottleneck, and the exit code."""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from pipeline.annotate.chunk_receipt import Receipt
from pipeline.annotate.prometheus import STAGES
from pipeline.annotate.shard_receipt import COUNTS, ShardReceipt

NAME = "_stats.json"

#: Below this share of a replica's time spent waiting for chunks, the input does not bound the run.
_IDLE_SHARE = 0.15
#: From the first chunk to the last: in less, waiting for chunks says nothing, since all of it is starting up.
_STEADY_SECONDS = 30.0


@dataclass(frozen=True)
class RunSummary:
    """A run's result. Counts cover the whole dataset; rates and seconds this run alone.

    Args:
        shards, ended: shards of the input, and those whose every image is accounted for.
        samples: images read; = ok + no_phrase + error.
        language: those of no_phrase whose caption is in a language that is not read.
        kinds: error rows by kind.
        computed: images that this run computed.
        seconds: from start to end; start_seconds of it went by before the first chunk was ready.
        steady_images, steady_seconds: images after the first chunk, and from that chunk to the last.
        stage_seconds: summed over the processes of each stage.
        occupancy: filled share of the model's batches: `image`, `phrase`.
        deaths: processes that died while they worked.
        verdict: one sentence on what bounds the run.
        problems: why shards are unaccounted for; empty when none is.
    """

    output: str
    shards: int
    ended: int
    samples: int
    ok: int
    no_phrase: int
    error: int
    phrases: int
    masks: int
    kinds: dict[str, int]
    computed: int
    seconds: float
    start_seconds: float
    steady_images: int = 0
    steady_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    occupancy: dict[str, float] = field(default_factory=dict)
    deaths: int = 0
    verdict: str = ""
    problems: tuple[str, ...] = ()
    language: int = 0

    @property
    def images_per_second(self) -> float:
        """Images a second in the steady state; of the whole run if it had a single chunk."""
        if self.steady_images and self.steady_seconds > 0:
            return self.steady_images / self.steady_seconds
        return self.computed / self.seconds if self.seconds > 0 else 0.0

    @property
    def complete(self) -> bool:
        """Whether every image of every shard is accounted for, each once."""
        adds_up = self.ok + self.no_phrase + self.error == self.samples
        return adds_up and self.ended == self.shards and not self.problems

    @property
    def exit_code(self) -> int:
        """0 if complete, else 1."""
        return 0 if self.complete else 1

    def to_json(self) -> bytes:
        values = asdict(self)
        values |= {"images_per_second": self.images_per_second, "complete": self.complete}
        return json.dumps(values, indent=1, sort_keys=True).encode()

    def render(self) -> Group:
        """The table that ends a run, for a rich console."""
        table = Table(title=self.output, show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_row("shards", f"{self.ended:,} of {self.shards:,}")
        table.add_row("images", f"{self.samples:,}")
        table.add_row("  ok", f"{self.ok:,}")
        table.add_row("  no phrase", f"{self.no_phrase:,}")
        if self.language:
            table.add_row("    language", f"{self.language:,}")
        table.add_row("  error", f"{self.error:,}")
        for kind, count in sorted(self.kinds.items(), key=lambda item: -item[1]):
            table.add_row(f"    {kind}", f"{count:,}")
        table.add_row("phrases", f"{self.phrases:,}")
        table.add_row("masks", f"{self.masks:,}")
        table.add_row("computed now", f"{self.computed:,} images in {duration(self.seconds)}")
        if self.computed:
            table.add_row("speed", f"{self.images_per_second:,.2f} images/s")
            table.add_row("start-up", duration(self.start_seconds))
        if self.deaths:
            table.add_row("processes lost", f"{self.deaths:,}")
        accounted = "every image is accounted for" if self.complete else "INCOMPLETE"
        lines = [*([self.verdict] if self.verdict else []), *self.problems, accounted]
        where = shlex.quote(self.output)
        if self.error:
            lines.append(f"the errors, an example of each kind: sspsam stats {where}")
        if self.phrases:
            lines.append(f"look at them: sspsam view {where}\none page to share: sspsam report {where}")
        return Group(table, *lines)

    def print(self, console: Console | None = None) -> None:
        (console or Console(highlight=False)).print(self.render(), markup=False)


def totals(receipts: Iterable[ShardReceipt]) -> dict[str, Any]:
    """Counts over shards, as `RunSummary` names them."""
    total: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for receipt in receipts:
        for name in COUNTS:
            total[name] += getattr(receipt, name)
        kinds.update(receipt.kinds())
    return {**{name: total[name] for name in COUNTS}, "kinds": dict(kinds)}


class Measures:
    """What a run took, added up chunk by chunk: nothing of a chunk is kept.

    `started`: when the run began, on the monotonic clock.
    """

    def __init__(self, started: float) -> None:
        self._started = self._first = self._last = started
        self._start_seconds: float | None = None
        self._images = self._first_images = 0
        self._seconds: Counter[str] = Counter()
        self._seconds.update(stage_seconds({}))
        self._filled: Counter[str] = Counter()  # shares of the model's batches, summed over chunks
        self._chunks: Counter[str] = Counter()  # that have such a share

    def add(self, receipt: Receipt) -> None:
        self._last = receipt.notes.get("written_at") or time.monotonic()
        if self._start_seconds is None:
            busy = float(receipt.notes.get("busy_seconds", 0.0))
            self._first, self._first_images = self._last, receipt.samples
            self._start_seconds = max(0.0, self._first - self._started - busy)
        self._images += receipt.samples
        self._seconds.update(stage_seconds(receipt.notes))
        for batch in ("image", "phrase"):
            if (share := receipt.notes.get(f"{batch}_occupancy")) is not None:
                self._filled[batch] += share
                self._chunks[batch] += 1

    def summary(self) -> dict[str, Any]:
        """The fields of RunSummary that say what this run did."""
        elapsed = time.monotonic() - self._started
        seconds: dict[str, float] = dict(self._seconds)
        return {
            "computed": self._images,
            "seconds": elapsed,
            "steady_images": self._images - self._first_images,
            "steady_seconds": self._last - self._first,
            "start_seconds": elapsed if self._start_seconds is None else self._start_seconds,
            "stage_seconds": seconds,
            "occupancy": {batch: self._filled[batch] / number for batch, number in self._chunks.items()},
            "verdict": verdict(seconds, self._last - self._first),
        }


def stage_seconds(notes: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by stage that the notes of a receipt say."""
    return {stage: float(notes.get(f"{stage}_seconds", 0.0)) for stage in (*STAGES, "busy")}


def verdict(seconds: dict[str, float], steady_seconds: float) -> str:
    """One sentence: what the replicas' time went into, and what to change about it.

    Args:
        seconds: by stage, summed over chunks; `idle` is a replica waiting for its next chunk,
            `decode` the model waiting for images inside a chunk.
        steady_seconds: from the first chunk to the last.
    """
    idle, decode, model = seconds["idle"], seconds["decode"], seconds["model"]
    whole = idle + seconds["busy"]
    if whole <= 0:
        return ""
    model = min(model, whole)  # its two halves work on different batches at once, and add up to more
    share = f"(replicas: model {model / whole:.0%}, decoding {decode / whole:.0%}, idle {idle / whole:.0%})"
    if idle / whole > _IDLE_SHARE and idle >= decode:
        if steady_seconds < _STEADY_SECONDS:
            cause = "The run was too short to say what bounds it"
        # Replicas write by themselves: what took less than they idled is not what they waited for.
        elif seconds["write"] >= max(idle, seconds["read"], seconds["phrases"]):
            cause = "Writing bounds the run: put the replicas near OUTPUT"
        elif seconds["phrases"] > seconds["read"]:
            cause = "Finding phrases bounds the run: add CPU nodes"
        else:
            cause = "Reading bounds the run: put the cluster near the bucket, or add CPU nodes"
    elif decode / whole > _IDLE_SHARE:
        cause = "Decoding images bounds the run: raise --cpus-per-replica"
    else:
        cause = "The model bounds the run: more or faster replicas make it faster"
    return f"{cause} {share}."


def duration(seconds: float) -> str:
    """Seconds as people read them: 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
