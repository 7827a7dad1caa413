"""The real command `sspsam view`: it says where it is, answers, ends cleanly, and explains itself."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from jobs.view import main
from tests.pipeline.annotation_fixture import make_dataset


def test_serves_until_interrupted(tmp_path: Path) -> None:
    made = make_dataset(tmp_path, images=6, shards=1)
    command = [sys.executable, "-m", "jobs.cli", "view", str(made.output), "--port", "0", "--host", "0.0.0.0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            found = re.search(r"at http://0\.0\.0\.0:(\d+)/\?token=(\S+)", line)
            assert found, line + process.stderr.read()
            request = urllib.request.Request(f"http://127.0.0.1:{found[1]}/api/state")
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(request, timeout=60)
            request.add_header("Authorization", f"Bearer {found[2]}")
            with urllib.request.urlopen(request, timeout=60) as response:
                assert json.load(response)["dataset"] == str(made.output)
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


def test_mistakes_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_dataset(tmp_path, images=2, shards=1)
    for arguments, says in (
        ([str(tmp_path / "none")], "no such folder"),
        ([str(made.output), "--storage-options", "{"], "--storage-options is not JSON"),
        ([str(made.output), "--port", "70000"], "--port 70000"),
        ([str(made.output), "--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
        ([str(made.output), "--model", "no-such-model"], "no-such-model"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("sspsam view: ")
        assert says in error
