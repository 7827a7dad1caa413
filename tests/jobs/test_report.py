"""The real command `sspsam report`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.report import main
from tests.pipeline.annotation_fixture import make_dataset


def test_writes_page_and_sheet_and_says_where(tmp_path: Path) -> None:
    made = make_dataset(tmp_path, images=6, shards=1)
    made.truth.rename(made.output / "truth")
    command = [sys.executable, "-m", "jobs.cli", "report", str(made.output), "--tiles", "2"]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert (result.returncode, result.stderr) == (0, "")
    page, sheet = made.output / "report.html", made.output / "report.png"
    assert f"page:  {page}\nsheet: {sheet}" in result.stdout
    assert "mean IoU 0." in result.stdout
    assert page.stat().st_size > 10_000
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_dataset(tmp_path, images=2, shards=1)
    for arguments, says in (
        ([str(tmp_path / "none")], "no such folder"),
        ([str(made.output), "-o", str(tmp_path / "no/where.html")], "does not exist"),
        ([str(made.output), "--tiles", "0"], "--tiles 0"),
        ([str(made.output), "--storage-options", "[]"], "must be a JSON object"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("sspsam report: ")
        assert says in error
