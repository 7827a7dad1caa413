"""A run that is given keys leaves none of them behind: not in a file, a log, or the list of processes."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from jobs.report import main as report
from tests.pipeline.annotate.inputs import write_shards
from tests.pipeline.sources.http_server import serve
from tests.processes import descendants, wait_until

pytestmark = [pytest.mark.timeout(900), pytest.mark.chaos]

HUSH = "hUsHhUsH"
SIGNED = f"00000.tar?X-Amz-Expires=60&X-Amz-Signature={HUSH}"


def command_lines(pid: int) -> bytes:
    """The arguments of a process and of those below it, as `ps` shows them."""
    found = b""
    for process in descendants(pid):
        try:
            found += Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
    return found


def content(path: Path) -> bytes:
    """What a file holds; of Parquet, whose pages are compressed, every value and all metadata too."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            data += (
                f"{file.schema_arrow.metadata} {file.metadata.metadata} {file.read().to_pylist()}".encode()
            )
    return data


def files(folder: Path) -> list[bytes]:
    return [content(path) for path in folder.rglob("*") if path.is_file()]


def metrics(folder: Path) -> bytes:
    """What Ray's agents export for Prometheus, by the ports that the session wrote down (some are gRPC's)."""
    found = b""
    for path in folder.rglob("metrics_*port*"):
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            url = f"http://127.0.0.1:{int(path.read_text())}/metrics"
            found += urllib.request.urlopen(url, timeout=5).read()
    return found


def test_no_secret_is_left_behind(
    micro_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = write_shards(tmp_path / "in", shards=1, samples=12), tmp_path / "out"
    options = f'{{"client_kwargs": {{"headers": {{"X-Api-Key": "{HUSH}"}}}}, "secret": "{HUSH}"}}'
    with serve({SIGNED: (source / "00000.tar").read_bytes()}) as server, tempfile.TemporaryDirectory() as ray:
        url = server.url.replace("http://", f"http://user:{HUSH}@") + f"/{SIGNED}"
        command = [
            *(sys.executable, "-m", "jobs.annotate", url, str(output), "--model", str(micro_model)),
            *("--phrases", "whole", "--chunk-size", "8", "--device", "cpu", "--cpus-per-replica", "1"),
            *("--storage-options", options),
        ]
        run = subprocess.Popen(
            command,
            env={**os.environ, "RAY_TMPDIR": ray},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        # What was typed is seen until the command has begun anew.
        wait_until(lambda: b"***" in command_lines(run.pid) or run.poll() is not None, 60, "hidden arguments")
        seen = exported = b""
        while run.poll() is None:
            seen += command_lines(run.pid)
            exported = metrics(Path(ray)) or exported
            time.sleep(0.2)
        said = run.communicate()[0]
        assert run.returncode == 0, said.decode()
        assert pads.dataset(output / "annotations", format="parquet").count_rows() == 12
        assert b"--storage-options" in seen  # without what it says
        assert b"ray_" in exported
        left = [said, seen, exported, *files(Path(ray))]
    assert report([str(output)]) == 0
    left += files(output)
    for data in [*left, *(text.encode() for text in capsys.readouterr())]:
        at = data.find(HUSH.encode())
        assert at < 0, data[max(0, at - 300) : at + 100]
    (row, *_) = pads.dataset(output / "annotations", format="parquet").to_table().to_pylist()
    assert row["image_ref"]["url"] == "00000.tar?X-Amz-Expires=60&X-Amz-Signature=***"
