"""`annotate --verify fast` through Ray: the signals are in the rows, and every command works with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli import main as cli
from pipeline.dataset.annotation_dataset import open_dataset
from pipeline.stats import summarise
from sspsam.schema import VERIFICATION_SIGNALS, annotation_schema

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(600)]

SHARD = Path(__file__).parents[3] / "examples/shards/scenes-00.tar"


def test_verify_fast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, kept = tmp_path / "out", tmp_path / "kept"
    command = ["annotate", str(SHARD), str(output), "--limit", "3", "--device", "cpu", "--replicas", "1"]
    assert cli([*command, "--verify", "fast"]) == 0
    dataset = open_dataset(str(output))
    assert dataset.added == VERIFICATION_SIGNALS["fast"]
    assert dataset.schema.equals(annotation_schema(VERIFICATION_SIGNALS["fast"]))
    with dataset.connect() as connection:
        rows = connection.sql(f"SELECT {', '.join(dataset.added)}, area FROM masks").fetchall()
    assert any(row[-1] for row in rows)
    assert all(None not in row[:4] for row in rows if row[-1])  # shared_region needs another mask
    assert summarise(dataset)["signals"]["rival_margin"]["known"] > 0
    assert "annotations.rival_iou" in (output / "README.md").read_text()
    assert (
        cli(["curate", str(output), str(kept), "--where", "rival_margin > -1 and paraphrase_iou >= 0"]) == 0
    )
    assert open_dataset(str(kept)).added == dataset.added
    capsys.readouterr()
    assert cli(command) == 2  # it would go on with rows of another kind
    assert "--verify was 'fast', now 'none'" in capsys.readouterr().err
