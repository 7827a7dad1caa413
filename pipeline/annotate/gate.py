"""Which chunks of a replica may be computed at the same time, and how long they may take."""

from __future__ import annotations

import faulthandler
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2  # the file number: Ray replaces sys.stderr's text layer, crashes write below it


class Gate:
    """Lets threads in together, or one alone, which then does not wait for ever."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = 0  # that wait to be alone, or are

    @contextmanager
    def enter(self, alone: bool) -> Iterator[None]:
        """The block is entered once it may be."""
        with self._changed:
            if alone:
                self._changed.wait_for(lambda: not self._alone)
                self._alone = 1
            self._changed.wait_for(lambda: not (self._inside if alone else self._alone))
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                if alone:
                    self._alone = 0
                self._changed.notify_all()


class Deadlines:
    """Ends the process, with every thread's traceback, when samples take too long.

    A process has one such timer. It times the work that began first; what began after it is timed from
    then on, because until then it had less than the whole machine.

    Args:
        seconds: allowed a sample.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._samples: dict[object, int] = {}

    @contextmanager
    def of(self, samples: int) -> Iterator[None]:
        """The block computes so many samples."""
        token = object()
        with self._lock:
            self._samples[token] = samples
            if len(self._samples) == 1:
                self._arm()
        try:
            yield
        finally:
            with self._lock:
                first = next(iter(self._samples)) is token
                del self._samples[token]
                if first:
                    self._arm()

    def _arm(self) -> None:
        if self._samples:
            seconds = self._seconds * next(iter(self._samples.values()))
            faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
        else:
            faulthandler.cancel_dump_traceback_later()
