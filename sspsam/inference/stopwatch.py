"""Where a Segmenter's time goes, without making the device wait to find out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MOST_PENDING = 1000  # event pairs: a run that never asks for the times must not pile them up


class Stopwatch:
    """Seconds by stage and counts, both only growing.

    On CUDA, work is queued and done later: a stage is timed by events in its stream, read when asked
    for. Elsewhere by the clock. Stages of several threads may be timed at once.
    """

    def __init__(self, device: torch.device, names: tuple[str, ...]) -> None:
        self._device = device
        self._values = dict.fromkeys(names, 0.0)
        self._pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._lock = threading.Lock()

    def add(self, name: str, value: float) -> None:
        """Count `value` more."""
        with self._lock:
            self._values[name] += value

    @contextmanager
    def on_device(self, name: str) -> Iterator[None]:
        """Time the device's work inside the block."""
        if self._device.type != "cuda":
            with self.on_clock(name):
                yield
            return
        stream = torch.cuda.current_stream(self._device)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(stream)
        try:
            yield
        finally:
            end.record(stream)
            with self._lock:
                self._pending.append((name, begin, end))
            if len(self._pending) > _MOST_PENDING:
                self.read()

    @contextmanager
    def on_clock(self, name: str) -> Iterator[None]:
        """Time the block by the clock."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def read(self) -> dict[str, float]:
        """All values of what is done by now; what is still queued on the device counts later."""
        with self._lock:
            queued = []
            for name, begin, end in self._pending:
                if end.query():
                    self._values[name] += begin.elapsed_time(end) / 1000
                else:
                    queued.append((name, begin, end))
            self._pending = queued
            return dict(self._values)

    def reset(self) -> None:
        """Back to zero."""
        self.read()
        with self._lock:
            self._values = dict.fromkeys(self._values, 0.0)
