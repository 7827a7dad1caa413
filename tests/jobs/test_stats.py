"""`sspsam stats` as people run it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from sspsam.schema import ANNOTATION_SCHEMA
from tests.pipeline.annotation_fixture import make_dataset


def test_stats_print_tables_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_dataset(tmp_path, images=8, shards=1)
    path = made.output / "annotations/shard-0000/00000.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0]["annotations"][0]["phrase"] = "[red]\x1b[31mwet paint[/] ☂"
    pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), path)
    output = str(made.output)
    assert main(["stats", output]) == 0
    printed = capsys.readouterr().out
    assert "[31mwet" in printed
    assert "\x1b" not in printed
    assert "truncated_image" in printed
    assert main(["stats", output, "--compare", str(made.truth)]) == 0
    assert "mean IoU" in capsys.readouterr().out
    assert main(["stats", output, "--json", "--top", "2"]) == 0
    assert len(json.loads(capsys.readouterr().out)["vocabulary"]["top"]) == 2
    assert main(["stats", str(tmp_path)]) == 2
    assert "no Parquet file under" in capsys.readouterr().err
    assert main(["stats", output, "--top", "0"]) == 2
    assert "--top 0" in capsys.readouterr().err
