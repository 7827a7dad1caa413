"""`python -m jobs.annotate` stopped from outside: one line, the documented exit code, and it resumes."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset as pads
import pytest

from tests.pipeline.annotate.expected import expected_rows, without_places
from tests.pipeline.annotate.inputs import write_shards
from tests.processes import descendants, running, wait_until
from tests.reliability import record
from tests.seed import SEED

pytestmark = pytest.mark.timeout(900)

#: So many that a run lasts well beyond the moment at which it is stopped.
SHARDS = 5


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_a_stopped_run_says_one_line_and_the_same_command_resumes(
    micro_model: Path, tmp_path: Path, number: signal.Signals, code: int, word: str
) -> None:
    source, output = write_shards(tmp_path / "in", shards=SHARDS, samples=100), tmp_path / "out"
    command = [
        *(sys.executable, "-m", "jobs.annotate", str(source), str(output), "--model", str(micro_model)),
        *("--phrases", "whole", "--chunk-size", "4", "--device", "cpu", "--cpus-per-replica", "1"),
    ]

    def chunks() -> int:
        """Those written, also of sealed shards, which have their 25 no more, or not for long."""
        sealed = {receipt.stem for receipt in output.glob("_shards/*")}
        return 25 * len(sealed) + sum(one.parent.name not in sealed for one in output.glob("_chunks/*/*"))

    log = tmp_path / "log"
    with log.open("wb") as sink:  # as a terminal or a scheduler has it: a process group of its own
        # A shell's background jobs, as these tests may be, ignore SIGINT, and so would what they start.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        run = subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True)
        signal.signal(signal.SIGINT, before)
    wanted = random.Random(f"{SEED} {number.name}").randrange(1, 30)
    wait_until(lambda: chunks() >= wanted or run.poll() is not None, 600, "chunks")
    family = descendants(run.pid)
    os.killpg(run.pid, number) if number == signal.SIGINT else os.kill(run.pid, number)
    assert run.wait(timeout=120) == code
    said = log.read_text()
    line = f"sspsam annotate: {word}; what is finished is written, the same command resumes"
    assert said.splitlines()[-1] == line
    assert "Traceback" not in said
    assert f"{number.name} received" not in said  # Ray's own handler
    wait_until(lambda: not running(family), 60, "no process left")
    done = chunks()
    assert done < 25 * SHARDS

    began = time.monotonic()
    again = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert again.returncode == 0, again.stderr
    computed = re.search(r"computed now\D+(\d+) images", again.stdout)
    assert computed is not None, again.stdout
    assert int(computed[1]) <= 100 * SHARDS - 4 * done
    rows = pads.dataset(output / "annotations", format="parquet").to_table().to_pylist()
    rows.sort(key=lambda row: (row["shard"], row["index"]))
    assert without_places(rows) == without_places(expected_rows(source, micro_model, 4, "whole"))
    what = f"{number.name} once {wanted} chunks were written, then the same command; a local disk"
    record("Ctrl-C and SIGTERM", what, "yes", f"exit {code}: {line}; then exit 0", time.monotonic() - began)
