"""A run that is given keys leaves none of them behind: not in a file, a log, or the list of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.dataset as pads
import pytest

from jobs.report import main as report
from tests.pipeline.annotate.inputs import write_shards
from tests.pipeline.sources.http_server import serve
from tests.processes import descendants

pytestmark = pytest.mark.timeout(900)

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


def test_no_secret_is_left_behind(
    micro_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = write_shards(tmp_path / "in", shards=1, samples=12), tmp_path / "out"
    options = f'{{"client_kwargs": {{"headers": {{"Authorization": "Bearer {HUSH}"}}}}, "secret": "{HUSH}"}}'
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
        time.sleep(1.0)  # what was typed is seen until the command has begun anew
        seen = b""
        while run.poll() is None:
            seen += command_lines(run.pid)
            time.sleep(0.2)
        said = run.communicate()[0]
        assert run.returncode == 0, said.decode()
        assert pads.dataset(output / "annotations", format="parquet").count_rows() == 12
        assert b"--storage-options" in seen  # without what it says
        left = [said, seen, *(path.read_bytes() for path in Path(ray).rglob("*") if path.is_file())]
    assert report([str(output)]) == 0
    left += [path.read_bytes() for path in output.rglob("*") if path.is_file()]
    for data in [*left, *(text.encode() for text in capsys.readouterr())]:
        at = data.find(HUSH.encode())
        assert at < 0, data[max(0, at - 300) : at + 100]
    (row, *_) = pads.dataset(output / "annotations", format="parquet").to_table().to_pylist()
    assert row["image_ref"]["url"] == "00000.tar?X-Amz-Expires=60&X-Amz-Signature=***"
