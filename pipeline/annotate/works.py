"""`Works`: what one process does piece by piece, told to the ledger several small pieces in a message."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

from pipeline.annotate.ledger import LedgerClient
from pipeline.annotate.span_plan import SpanPlan

#: Pieces that share a message at most.
_TOGETHER = 32
#: Key in the ledger, size in samples, and what it takes of the room that a message has.
Piece = tuple[str, int, int]


class Works:
    """The pieces of work that a process does one after the other; each is entered before it is begun.

    A message to the ledger costs milliseconds on both sides, as much as a small chunk. So it enters the next
    pieces that fit into `room` together, or one that does not fit. What dies is held against all that are
    entered; the ledger then has each entered alone, which clears those that were merely near.

    Args:
        pieces: in the order in which they are begun.
    """

    def __init__(self, ledger: LedgerClient, pieces: Iterable[Piece], room: int) -> None:
        self._ledger, self._room = ledger, room
        self._left = deque(pieces)
        self._entered: deque[tuple[Piece, SpanPlan]] = deque()  # not begun yet
        self._open: list[str] = []  # what the ledger takes for under way

    @property
    def ahead(self) -> int:
        """How many pieces are entered that have not begun."""
        return len(self._entered)

    def begin(self) -> SpanPlan:
        """The plan of the next piece; those before it have ended."""
        if not self._entered:
            room, some = self._room, list[Piece]()
            for piece in islice(self._left, _TOGETHER):
                room -= piece[2]
                if some and room < 0:
                    break
                some.append(piece)
            plans = self._ledger.enter([(key, size) for key, size, _ in some], worker(), self._open)
            self._entered.extend(zip(some, plans, strict=False))
            self._open = [key for (key, _, _), _ in self._entered]
            for _ in plans:
                self._left.popleft()
        return self._entered.popleft()[1]

    def put_first(self, piece: Piece) -> None:
        """One more piece, which comes next."""
        self._leave()
        self._left.appendleft(piece)

    def end(self) -> None:
        """All that was begun has ended, and nobody is to blame for what happens until the next begins."""
        self._leave()
        if self._open:
            self._ledger.end(*self._open)
            self._open = []

    def _leave(self) -> None:
        """Take back what has not begun; it stays open in the ledger until that is told the next time."""
        self._left.extendleft(piece for piece, _ in reversed(self._entered))
        self._entered.clear()


def worker() -> str:
    """This process, as people find it in Ray's dashboard: node and process id."""
    import ray

    context: Any = ray.get_runtime_context() if ray.is_initialized() else None
    node = context.get_node_id()[:8] if context else "local"
    return f"node {node} pid {os.getpid()}"
