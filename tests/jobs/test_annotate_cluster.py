"""The job as people run it: a real S3 server, a real Ray head, real submissions, real kills."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from tests.jobs.services import RayHead, ray_head
from tests.pipeline.annotate.expected import expected_rows, without_places
from tests.pipeline.annotate.inputs import caption, picture, write_shards
from tests.reliability import record
from tests.s3_server import S3Server, s3_server

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3"), "bucket") as server:
        yield server


@pytest.fixture(scope="module")
def head(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    with ray_head(tmp_path_factory.mktemp("ray"), s3.environment) as started:
        yield started


def kill_driver(output: str) -> None:
    """Kill -9 the process that runs `jobs.annotate` for this output."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = entry.read_bytes().decode(errors="replace").split("\0")
            if "jobs.annotate" in command and output in command and "submit" not in command:
                found.append(int(entry.parent.name))
    assert found
    for process in found:
        os.kill(process, signal.SIGKILL)


@pytest.mark.chaos
def test_on_s3_through_a_driver_and_a_server_that_die(
    s3: S3Server, head: RayHead, tiny_model_dir: Path, tmp_path: Path
) -> None:
    source = write_shards(tmp_path / "in", shards=2, samples=60)
    columns: dict[str, Any] = {
        "image": [{"bytes": picture(n), "path": f"{n}.jpg"} for n in range(900, 940)],
        "caption": [caption(n) for n in range(40)],
    }
    pq.write_table(pa.table(columns), source / "more.parquet")
    fs = s3.filesystem()
    fs.put(f"{source}/", "bucket/in", recursive=True)
    names = ("00000.tar", "00001.tar", "more.parquet")
    fs.pipe_file("bucket/shards.txt", "\n".join(f"s3://bucket/in/{n}" for n in names).encode())
    fs.put(f"{tiny_model_dir}/", "bucket/model", recursive=True)
    output = "s3://bucket/out"
    arguments = [
        *("s3://bucket/shards.txt", output, "--model", "s3://bucket/model", "--chunk-size", "8"),
        *("--cpus-per-replica", "1", "--phrases", "whole"),
    ]

    def chunks() -> set[str]:
        """Chunks that are done: those that wait, and those of sealed shards."""
        waiting = {path.partition("/_chunks/")[2] for path in map(str, fs.find("bucket/out/_chunks"))}
        for path in fs.find("bucket/out/_shards"):
            receipt = json.loads(fs.cat_file(path))
            waiting |= {f"{receipt['shard']}/{n:05d}.parquet" for n in range(receipt["chunks"])}
        return waiting

    first = head.submit(tmp_path / "first.log", *arguments)
    first.wait_until(lambda: len(chunks()) >= 3, 600, "the first chunks")
    kill_driver(output)
    code, said = first.finish(60)
    assert code != 0, said
    done = chunks()
    assert 3 <= len(done) < 20
    assert not fs.exists("bucket/out/_stats.json")

    second = head.submit(tmp_path / "second.log", *arguments)
    second.wait_until(lambda: len(chunks()) >= len(done) + 3, 600, "further chunks")
    s3.kill()
    time.sleep(10)
    s3.start()
    back = time.monotonic()
    code, said = second.finish(600)
    assert code == 0, said
    assert "every image is accounted for" in said
    computed = re.search(r"computed now\D+(\d+) images", said)
    assert computed is not None, said
    rows_done = sum(4 if name.endswith("00007.parquet") else 8 for name in done)
    assert int(computed[1]) <= 160 - rows_done

    table = pads.dataset("bucket/out/annotations", format="parquet", filesystem=fs).to_table()
    rows = sorted(table.to_pylist(), key=lambda row: (row["shard"], row["index"]))
    wanted = expected_rows(source, tiny_model_dir, 8, "whole")
    assert len(rows) == len(wanted) == 160
    assert without_places(rows) == without_places(wanted)
    fault = "driver killed, the job submitted again"
    done = "SIGKILL to the driver on a Ray head; in the second job the S3 server is killed for 10 s"
    record(fault, done, "yes", "exit 0: every image is accounted for", time.monotonic() - back)

    with urllib.request.urlopen(f"{head.metrics}/metrics", timeout=10) as answer:
        exported = answer.read().decode()
    for name in ("images", "masks", "phrases", "stage_seconds", "batch_occupancy"):
        assert f"ray_sspsam_{name}" in exported


@pytest.mark.chaos
def test_a_job_that_cannot_succeed_says_so_and_fails(head: RayHead, tmp_path: Path) -> None:
    where = ("s3://no-such-bucket/in", "s3://no-such-bucket/out")
    job = head.submit(tmp_path / "job.log", *where, "--model", "random:tiny")
    code, said = job.finish(300)
    assert code == 1
    assert "no-such-bucket" in said
