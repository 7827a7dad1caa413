"""Progress of a run: one line that updates on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipeline.annotate.chunk_receipt import Receipt
from pipeline.annotate.run_summary import duration
from pipeline.sources import Shard

_WINDOW_SECONDS = 120.0
_PLAIN_EVERY_SECONDS = 10.0


class Progress:
    """Counts receipts and shows them.

    Time left comes from bytes (images, of a folder): those of the shards that remain over the rate of
    the last two minutes.
    It is unknown while a shard's size is (`-`).

    Args:
        shards: all shards of the input; ended: names of those that had ended before.
        stream: where to write; a terminal gets the line that updates.
    """

    def __init__(self, shards: Sequence[Shard], ended: set[str], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._sizes = {shard.name: shard.size for shard in shards}
        self._folders = {shard.name for shard in shards if shard.format == "folder"}
        self._ended = set(ended)
        self._remaining = {n: s for n, s in self._sizes.items() if n not in ended}
        self._read = dict.fromkeys(self._remaining, 0)
        self._recent: deque[tuple[float, int, int]] = deque()
        self.images = self.masks = self.errors = 0
        self._started = time.monotonic()
        self._shown = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self._stream.isatty():
            console = Console(file=self._stream, highlight=False)
            self._live = Live(Text(""), console=console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.show(force=True)
        if self._live is not None:
            self._live.stop()

    def add(self, receipt: Receipt) -> None:
        """One chunk is written."""
        counted = receipt.shard in self._folders
        size = receipt.samples if counted else int(receipt.notes.get("bytes_in", 0))
        self.images += receipt.samples
        self.masks += receipt.masks
        self.errors += receipt.error
        if receipt.shard in self._read:
            self._read[receipt.shard] += size
        self._recent.append((time.monotonic(), receipt.samples, size))

    def end_shard(self, shard: str) -> None:
        """Every chunk of the shard is written and counted."""
        self._ended.add(shard)
        self._remaining.pop(shard, None)

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._live is not None:
            self._live.console.print(text, markup=False)
        else:
            print(text, file=self._stream, flush=True)

    def show(self, force: bool = False) -> None:
        """Bring the display up to date; cheap, to be called every second."""
        if self._live is not None:
            self._live.update(Text(self.line()))
            return
        now = time.monotonic()
        if force or now - self._shown >= _PLAIN_EVERY_SECONDS:
            self._shown = now
            print(self.line(), file=self._stream, flush=True)

    def line(self) -> str:
        """shards, images, masks, images/s, errors, time left"""
        images, size = self._rates()
        left = self._seconds_left(size)
        return (
            f"shards {len(self._ended):,}/{len(self._sizes):,}  images {self.images:,}  "
            f"masks {self.masks:,}  {images:.1f} images/s  errors {self.errors:,}  "
            f"time {duration(time.monotonic() - self._started)}  "
            f"left {duration(left) if left is not None else '-'}"
        )

    def _rates(self) -> tuple[float, float]:
        """(images/s, bytes/s) of the last two minutes."""
        now = time.monotonic()
        while self._recent and self._recent[0][0] < now - _WINDOW_SECONDS:
            self._recent.popleft()
        span = min(now - self._started, _WINDOW_SECONDS)
        if not self._recent or span <= 0:
            return 0.0, 0.0
        images = sum(images for _, images, _ in self._recent)
        return images / span, sum(size for _, _, size in self._recent) / span

    def _seconds_left(self, rate: float) -> float | None:
        sizes = self._remaining
        if rate <= 0 or any(size is None for size in sizes.values()):
            return None
        left = sum(max(0, (size or 0) - self._read[name]) for name, size in sizes.items())
        return left / rate
