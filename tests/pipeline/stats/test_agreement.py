"""`sspsam agree`: the second dataset's agreement as a signal of the first, and what works on it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from jobs.agree import main
from pipeline.curate import CurateConfig, CurateResources, curate
from pipeline.dataset.opening import open_dataset
from pipeline.export import ExportConfig, export
from pipeline.report import ReportConfig, make_report
from pipeline.stats import agree, summarise
from sspsam.errors import ConfigError, DataError
from sspsam.inference.masks import decode_rle
from tests.pipeline.annotation_fixture import make_dataset


def rows(output: Path) -> dict[str, dict[str, Any]]:
    table = pads.dataset(output / "annotations", format="parquet").to_table()
    return {row["key"]: row for row in table.to_pylist()}


def expected(first: dict[str, Any], second: dict[str, Any] | None) -> list[float | None]:
    """Agreement of each phrase of one row, by decoding both masks."""
    found: list[float | None] = []
    seen: Counter[str] = Counter()
    for one in first["annotations"]:
        same = [a for a in (second or {"annotations": []})["annotations"] if a["phrase"] == one["phrase"]]
        nth = seen[one["phrase"]]
        seen[one["phrase"]] += 1
        if nth >= len(same):
            found.append(None)
            continue
        masks = [decode_rle(a["segmentation"]) & a["has_target"] for a in (one, same[nth])]
        if not (one["has_target"] or same[nth]["has_target"]):
            found.append(1.0)
            continue
        found.append(float((masks[0] & masks[1]).sum() / max(1, (masks[0] | masks[1]).sum())))
    return found


@pytest.mark.parametrize("renamed", [False, True])
def test_agreement_is_the_iou_of_the_same_phrases(tmp_path: Path, renamed: bool) -> None:
    made = make_dataset(tmp_path / "made", images=16, shards=2)
    second = tmp_path / "second"
    config = CurateConfig(keep_no_target=True, min_target_pixels=4000, where=("phrase not like '%circle'",))
    curate(str(made.truth), str(second), config, CurateResources(workers=1))
    if renamed:  # then images are matched by their keys alone
        (second / "annotations/shard-0000").rename(second / "annotations/other")
        (second / "annotations/shard-0001").rename(second / "annotations/another")
    told = agree(str(made.output), str(second), str(tmp_path / "agreed"))
    first, other, found = rows(made.output), rows(second), rows(tmp_path / "agreed")
    assert found.keys() == first.keys()
    values = []
    for key, row in found.items():
        of_row = [a.pop("agreement") for a in row["annotations"]]
        assert row == first[key]
        assert of_row == [
            None if value is None else pytest.approx(value, abs=1e-6)
            for value in expected(first[key], other.get(key))
        ]
        values += of_row
    known = [value for value in values if value is not None]
    assert told["phrases_compared"] == len(known)
    assert told["mean_agreement"] == pytest.approx(np.mean(known))
    assert (told["images"], told["phrases"]) == (len(first), len(values))
    assert {0.0, 1.0, None} < set(values)
    assert told["run"] == open_dataset(str(made.output)).read_json("_run.json")


def test_what_works_on_it_and_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_dataset(tmp_path / "made", images=12, shards=1)
    output, truth, agreed = (str(path) for path in (made.output, made.truth, tmp_path / "agreed"))
    assert main([output, truth, agreed]) == 0
    assert "12 images" in capsys.readouterr().out
    told = curate(agreed, str(tmp_path / "kept"), CurateConfig(where="agreement > 0.5"))
    assert 0 < told["phrases_out"] < told["phrases_in"]
    assert told["run"] == open_dataset(output).read_json("_run.json")
    kept = rows(tmp_path / "kept")
    assert all(a["agreement"] > 0.5 for row in kept.values() for a in row["annotations"])
    again = curate(str(tmp_path / "kept"), str(tmp_path / "again"), CurateConfig(where="agreement > 0.7"))
    assert 0 < again["phrases_out"] <= told["phrases_out"]
    with open_dataset(agreed).connect() as connection:
        ((number,),) = connection.execute("SELECT count(*) FROM masks WHERE agreement >= 0").fetchall()
    assert number > 0
    signals = summarise(open_dataset(agreed))["signals"]
    assert signals["agreement"]["known"] == signals["area"]["known"]
    assert "agreement" not in summarise(open_dataset(output))["signals"]
    make_report(ReportConfig(agreed, page=str(tmp_path / "page.html")))
    assert "agreement of models, median" in (tmp_path / "page.html").read_text()
    by_key = {
        (key, one["phrase"]): one["agreement"]
        for key, row in rows(tmp_path / "agreed").items()
        for one in row["annotations"]
        if one["has_target"]
    }
    export(agreed, str(tmp_path / "coco"), ExportConfig(format="coco"))
    coco = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert sorted(one["agreement"] for one in coco["annotations"]) == sorted(by_key.values())
    export(agreed, str(tmp_path / "lance"), ExportConfig(format="lance"))
    export(agreed, str(tmp_path / "hf"), ExportConfig(format="hf"))
    (parquet,) = (tmp_path / "hf/data").iterdir()
    for table in (lance.dataset(str(tmp_path / "lance/train.lance")).to_table(), pq.read_table(parquet)):
        assert by_key == {
            (row["key"], one["phrase"]): one["agreement"]
            for row in table.to_pylist()
            for one in row["annotations"]
        }

    assert main([agreed, truth, str(tmp_path / "twice")]) == 2
    assert "has `agreement` already" in capsys.readouterr().err
    assert main([output, truth, agreed]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert main([output, truth, agreed, "--overwrite", "--json"]) == 0
    assert '"complete": true' in capsys.readouterr().out
    with pytest.raises(ConfigError, match="is not apart from"):
        agree(output, truth, f"{output}/inside")
    other = make_dataset(tmp_path / "mixed", images=2, shards=1)
    mixed = tmp_path / "agreed/annotations/shard-0000/00009.parquet"
    next((other.output / "annotations").rglob("*.parquet")).rename(mixed)
    with pytest.raises(DataError, match=r"was written by `sspsam agree`, .*00009.* was not"):
        open_dataset(agreed)
