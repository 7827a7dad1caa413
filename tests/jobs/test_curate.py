"""`sspsam curate` as people run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import main
from tests.pipeline.annotation_fixture import make_dataset


def test_flags_win_over_the_config_and_the_funnel_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(make_dataset(tmp_path).output)
    config = tmp_path / "curate.yaml"
    config.write_text("where: score > 0.99\nmerge_iou: 0.9\nsplit: {train: 1.0}\n")
    given = ["curate", output, str(tmp_path / "dest"), "--config", str(config), "--workers", "1"]
    assert main([*given, "--where", "score > 0.5 and phrase != '[bold]'", "--where", "area > 9"]) == 0
    printed = capsys.readouterr().out
    assert "merged as alias" in printed
    assert "'[bold]'" in printed
    manifest = json.loads((tmp_path / "dest/_curation.json").read_text())
    assert manifest["config"]["where"] == ["score > 0.5 and phrase != '[bold]'", "area > 9"]
    assert manifest["config"]["merge_iou"] == 0.9
    assert list(manifest["splits"]) == ["train"]
    assert manifest["phrases_out"] > 0
    assert main([*given, "--overwrite", "--split", "train:1"]) == 2
    assert "write it as train=0.9,val=0.1" in capsys.readouterr().err
    assert main([*given, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["phrases_out"] == 0


def test_a_bad_predicate_ends_with_code_2_and_the_columns(tmp_path: Path) -> None:
    output = str(make_dataset(tmp_path, images=2, shards=1).output)
    command = [sys.executable, "-m", "jobs.curate", output, str(tmp_path / "dest"), "--where", "scre > 1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "Did you mean score?" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "dest").exists()
