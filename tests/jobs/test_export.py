"""`sspsam export` as people run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.cli import main
from tests.pipeline.annotation_fixture import make_dataset


def test_export_says_what_it_wrote_and_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_dataset(tmp_path, images=6, shards=1)
    command = ["export", str(made.output), str(tmp_path / "x"), "--format", "coco", "--workers", "1"]
    assert main([*command, "--categories", "single"]) == 0
    printed = capsys.readouterr().out
    assert "5 images (train 5)" in printed
    assert "1 categories" in printed
    (made.input / "shard-0000.tar").unlink()
    assert main([*command, "--overwrite", "--json"]) == 1
    printed, warned = capsys.readouterr()
    assert json.loads(printed)["images_skipped"] == 5
    assert "_skipped.jsonl says why" in warned
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
