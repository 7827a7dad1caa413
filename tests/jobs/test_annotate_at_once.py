"""Several `python -m jobs.annotate` at once on one OUTPUT: each row once, and totals that say so."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset as pads
import pytest

from tests.pipeline.annotate.expected import expected_rows, without_places
from tests.pipeline.annotate.inputs import write_shards
from tests.reliability import record

pytestmark = [pytest.mark.timeout(900), pytest.mark.chaos]


def test_jobs_of_both_parts_and_one_more_of_the_second(micro_model: Path, tmp_path: Path) -> None:
    """Two jobs with the same part both compute it, and one of them at least says that it is not alone."""
    parts = ("1/2", "2/2", "2/2")
    source, output = write_shards(tmp_path / "in", shards=6, samples=40), tmp_path / "out"
    jobs, logs = [], [tmp_path / f"log-{number}" for number in range(len(parts))]
    began = time.monotonic()
    for part, log in zip(parts, logs, strict=True):
        command = [
            *(sys.executable, "-m", "jobs.annotate", str(source), str(output), "--model", str(micro_model)),
            *("--phrases", "whole", "--device", "cpu", "--cpus-per-replica", "1", "--chunk-size", "16"),
            *("--part", part),
        ]
        with log.open("wb") as sink:
            jobs.append(subprocess.Popen(command, stdout=sink, stderr=sink))
    codes = [job.wait(timeout=800) for job in jobs]
    said = [log.read_text() for log in logs]
    assert codes == [0] * len(jobs), said
    assert any("another job writes to this OUTPUT too" in text for text in said), said
    rows = pads.dataset(output / "annotations", format="parquet").to_table().to_pylist()
    rows.sort(key=lambda row: (row["shard"], row["index"]))
    assert without_places(rows) == without_places(expected_rows(source, micro_model, 16, "whole"))
    assert not list(output.glob("_chunks/*/*"))
    totals = json.loads((output / "_stats.json").read_bytes())
    assert (totals["complete"], totals["samples"]) == (True, 240)
    seconds = time.monotonic() - began
    done = "jobs of parts 1/2, 2/2 and 2/2 at once; OUTPUT on a local disk"
    said = "each exits 0, one says that the other is there"
    record("jobs at once on one OUTPUT", done, "yes", said, seconds)
