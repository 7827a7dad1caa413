"""`python -m examples.own_labels` on a shard of the examples: every step once, and nothing again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.own_labels import main
from jobs.cli import main as cli

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_loop_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}.items():
        monkeypatch.setenv(name, value)
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=2**28)
    try:
        go_through(tmp_path, capsys)
    finally:
        ray.shutdown()


def go_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards, truth = sorted((EXAMPLES / "shards").glob("*.tar")), str(EXAMPLES / "truth")
    known, file = str(tmp_path / "known"), str(tmp_path / "c.json")
    assert cli(["annotate", str(shards[0]), known, "--device", "cpu"]) == 0
    assert cli(["calibrate", known, "--truth", truth, "--out", file]) == 0
    command = [str(shards[1]), str(tmp_path / "work"), "--calibration", file, "--truth", truth]
    command += ["--annotate=--device cpu --limit 20"]
    with pytest.raises(SystemExit) as refused:  # so few images show nothing of the kind
        main([*command, "--precision", "0.98"])
    assert refused.value.code == 2
    assert "that the calibration does not know (0 wrong), show no threshold" in capsys.readouterr().err
    again = [*command, "--precision", "0.55", "--train", "--steps 2 --epochs 0 --device cpu --images 2"]
    assert main(again) == 0
    work = tmp_path / "work"
    assert json.loads((work / "kept/_curation.json").read_text())["guarantee"]["precision"] == 0.55
    assert json.loads((work / "again/_run.json").read_text())["model"]["name"] == str(work / "trained/model")
    assert "p_correct" not in (work / "again/README.md").read_text()
    kinds = ("*.parquet", "*.safetensors", "_curation.json")
    files = {path: path.stat().st_mtime_ns for kind in kinds for path in work.rglob(kind)}
    assert len(files) > 4
    assert main(again) == 0
    assert {path: path.stat().st_mtime_ns for kind in kinds for path in work.rglob(kind)} == files
