"""Chunks are computed together or alone, and timed one after the other."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from pipeline.annotate.gate import Gate


def test_alone_is_alone_and_comes_to_its_turn() -> None:
    gate, inside, seen = Gate(), [], []
    lock = threading.Lock()

    def work(number: int) -> None:
        alone = number % 3 == 0
        with gate.enter(alone):
            with lock:
                inside.append(alone)
                seen.append((alone, len(inside)))
                assert not (any(inside) and len(inside) > 1)
            time.sleep(0.002)
            with lock:
                inside.remove(alone)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(60)))
    assert len(seen) == 60
    assert max(count for alone, count in seen if not alone) > 1


def test_the_clock_of_what_came_second_starts_when_the_first_ends() -> None:
    code = """
import time
from pipeline.annotate.gate import Deadlines
clock = Deadlines(0.2)
with clock.of(5):
    second = clock.of(1)
    second.__enter__()
    time.sleep(0.5)  # longer than the second has, but the first is timed
print("first", flush=True)
time.sleep(0.1)
second.__exit__(None, None, None)
print("second", flush=True)
time.sleep(0.3)  # nothing is timed
with clock.of(1):
    time.sleep(5)
print("never")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["first", "second"]
    assert done.returncode == 1
    assert "Timeout" in done.stderr
