"""Runs fuzz cases in a process of its own, with a limit on memory and time: `python -m tests.fuzz.runner`.

python -m tests.fuzz.runner TARGET SEED NUMBER       one case again, in this process
python -m tests.fuzz.runner TARGET,... SEED          cases of these targets in turn, until Ctrl-C
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

_MIB = 2**20
MEMORY_LIMIT_MIB = 3072  # that a case may ask for over what the process holds before it
PEAK_MIB = 1200  # that a case may take
CASE_SECONDS = 90  # of silence: a hang
CPU_SECONDS = 20


def _status(field: str) -> int:
    """A field of /proc/self/status, MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) // 1024


def run_case(target: str, seed: int, number: int) -> str:
    """What was wrong in one case; empty if nothing. The same arguments make the same input."""
    from tests.fuzz.targets import TARGETS

    rng = random.Random(f"{target} {seed} {number}")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began = _status("VmRSS"), time.process_time()
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as folder:
        try:
            TARGETS[target](rng, Path(folder))
        except BaseException:  # a MemoryError, RecursionError or panic is a finding, whatever its base
            kept = Path(tempfile.gettempdir()) / f"fuzz-{target}-{seed}-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
            return f"{traceback.format_exc(limit=-12)}\ninput: {kept}"
    grown, took = _status("VmHWM") - before, time.process_time() - began
    if grown > PEAK_MIB:
        return f"took {grown} MiB of memory"
    return f"took {took:.0f} s" if took > CPU_SECONDS else ""


def _serve(connection: Connection) -> None:
    """Answers (target, seed, number) with what was wrong, until None comes."""
    import tests.fuzz.targets  # noqa: F401  before the limit is counted

    limit = (_status("VmData") + MEMORY_LIMIT_MIB) * _MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    connection.send("")
    while (case := connection.recv()) is not None:
        connection.send(run_case(*case))


class Runner:
    """A process that runs cases; it begins anew after one that killed or hung it."""

    def __enter__(self) -> Runner:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        assert self._answer() == ""
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()

    def run(self, target: str, seed: int, number: int) -> str:
        self._connection.send((target, seed, number))
        wrong = self._answer()
        if not self._process.is_alive():
            self.__exit__()
            self.__enter__()
        return wrong

    def _answer(self) -> str:
        try:
            if self._connection.poll(CASE_SECONDS):
                return str(self._connection.recv())
            self._process.kill()
            self._process.join()
            return f"hangs: no answer within {CASE_SECONDS} s"
        except EOFError:
            self._process.join()
            return f"killed its process: exit code {self._process.exitcode}"


def main() -> None:
    targets, seed = sys.argv[1].split(","), int(sys.argv[2])
    numbers = [int(sys.argv[3])] if len(sys.argv) > 3 else itertools.count()
    with Runner() as runner:
        for number, target in ((number, target) for number in numbers for target in targets):
            wrong = run_case(target, seed, number) if len(sys.argv) > 3 else runner.run(target, seed, number)
            if wrong:
                print(f"{target} {seed} {number}: {wrong}\n", flush=True)


if __name__ == "__main__":
    main()
