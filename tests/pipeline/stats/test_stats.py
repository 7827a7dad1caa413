"""Statistics and comparisons against what numpy says of the same rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.curate import CurateConfig, CurateResources, curate
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.vocabulary import normalise
from pipeline.stats import compare, summarise
from sspsam.errors import DataError
from sspsam.schema import ANNOTATION_SCHEMA
from tests.pipeline.annotation_fixture import MadeDataset, make_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    return make_dataset(tmp_path_factory.mktemp("stats"), images=30, shards=2)


def ok_rows(made: MadeDataset) -> list[dict[str, Any]]:
    return [row for row in made.rows.values() if row["status"] == "ok"]


def test_a_summary_counts_what_is_there(made: MadeDataset) -> None:
    found = summarise(open_dataset(str(made.output)), top=3)
    rows = ok_rows(made)
    masks = [one for row in rows for one in row["annotations"]]
    targets = [one for one in masks if one["has_target"]]
    assert found["images"] == 30
    assert found["status"] == {"ok": 26, "no_phrase": 2, "error": 2}
    assert found["errors"]["truncated_image"]["images"] == 2
    assert "ends after 400 bytes" in found["errors"]["truncated_image"]["example"]["message"]
    assert (found["phrases"], found["masks"]) == (len(masks), len(targets))
    assert found["no_target"] == len(masks) - len(targets)
    names = Counter(normalise(one["phrase"]) for one in masks)
    assert found["vocabulary"]["different"] == len(names)
    assert found["vocabulary"]["seen_once"] == sum(count == 1 for count in names.values())
    top = sorted(names.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
    assert [(one["phrase"], one["count"]) for one in found["vocabulary"]["top"]] == top
    for one in found["vocabulary"]["top"]:
        annotations = made.rows[one["example_key"]]["annotations"]
        assert one["phrase"] in [normalise(mask["phrase"]) for mask in annotations]
    an_image = Counter(sum(one["has_target"] for one in row["annotations"]) for row in rows)
    assert found["masks_an_image"]["histogram"] == {
        str(number): an_image[number] for number in sorted(an_image)
    }
    for name in ("score", "stability", "area"):
        values = np.array([one[name] for one in targets], np.float32 if name != "area" else np.float64)
        assert found["signals"][name]["known"] == len(values)
        for share, value in found["signals"][name]["quantiles"].items():
            assert value == pytest.approx(np.quantile(values, float(share)), rel=1e-6)


def test_coverage_is_the_union_of_the_masks(made: MadeDataset) -> None:
    found = summarise(open_dataset(str(made.output)))["coverage"]
    covered, twice = [], []
    for row in ok_rows(made):
        layers = np.zeros((row["height"], row["width"]), dtype=int)
        for position, one in enumerate(row["annotations"]):
            if one["has_target"]:
                layers += made.mask(row["key"], position)
        covered.append((layers > 0).mean())
        twice.append((layers > 1).mean())
    assert found["images"] == 26
    assert found["mean_covered"] == pytest.approx(np.mean(covered))
    assert found["mean_covered_twice"] == pytest.approx(np.mean(twice))
    few = summarise(open_dataset(str(made.output)), coverage_images=8)["coverage"]
    assert 3 <= few["images"] <= 9


def test_a_run_against_ground_truth(made: MadeDataset) -> None:
    found = compare(open_dataset(str(made.output)), open_dataset(str(made.truth)), top=5)
    pairs = []
    intersections = unions = 0
    for row in ok_rows(made):
        for position, one in enumerate(row["annotations"]):
            if not one["has_target"]:
                continue
            drawn, exact = (made.mask(row["key"], position, truth=truth) for truth in (False, True))
            intersections += int((drawn & exact).sum())
            unions += int((drawn | exact).sum())
            iou = (drawn & exact).sum() / (drawn | exact).sum()
            pairs.append((iou, row["key"], normalise(one["phrase"])))
    ious = np.array([iou for iou, *_ in pairs])
    assert found["images"] == {"both": 30, "only_first": 0, "only_second": 0}
    assert found["masks_compared"] == len(pairs) == found["targets"]["both"]
    assert found["target_agreement"] == 1.0
    assert found["mean_iou"] == pytest.approx(ious.mean())
    assert found["cumulative_iou"] == pytest.approx(intersections / unions)
    assert found["iou_at_least"]["0.5"] == pytest.approx((ious >= 0.5).sum(), abs=1)
    assert found["iou_quantiles"]["0.5"] == pytest.approx(np.quantile(ious, 0.5), abs=0.02)
    worst = [(one["iou"], one["key"]) for one in found["changed_most"]]
    assert [iou for iou, _ in worst] == pytest.approx(sorted(ious)[:5])
    by_phrase = {one["phrase"]: one["mean_iou"] for one in found["iou_by_phrase"]["frequent"]}
    for phrase, mean in by_phrase.items():
        assert mean == pytest.approx(np.mean([iou for iou, _, name in pairs if name == phrase]))


def test_two_runs_that_differ(made: MadeDataset, tmp_path: Path) -> None:
    """The second run lost images and phrases, and sees fewer targets; shards have other names."""
    second = tmp_path / "second"
    config = CurateConfig(keep_no_target=True, min_target_pixels=4000, where=("phrase not like '%circle'",))
    curate(str(made.output), str(second), config, CurateResources(workers=1))
    first_set, second_set = open_dataset(str(made.output)), open_dataset(str(second))
    found = compare(first_set, second_set)
    assert found["images"]["only_first"] == 30 - second_set.rows > 0
    assert found["phrases"]["only_first"] > 0
    assert all(one["phrase"].endswith("circle") for one in found["most_frequent_only"]["first"])
    assert found["targets"]["only_first"] > 0
    assert found["target_agreement"] < 1.0
    assert found["identical"] == found["targets"]["both"]
    assert found["iou_quantiles"]["0.05"] in (0.0, 1.0)
    for shard in ("shard-0000", "shard-0001"):
        (second / "annotations" / shard).rename(second / "annotations" / f"other-{shard}")
    renamed = compare(first_set, open_dataset(str(second)))
    for name in ("images", "phrases", "targets", "mean_iou", "status"):
        assert renamed[name] == found[name], name


def test_nothing_in_common_and_repeated_keys_are_said(made: MadeDataset, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", images=4, shards=1)
    path = other.output / "annotations/shard-0000/00000.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["key"] = "x" + row["key"]
    pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), path)
    first, second = open_dataset(str(made.output)), open_dataset(str(other.output))
    with pytest.raises(DataError, match="no image key is in both"):
        compare(first, second)
    for shard in ("a", "b"):
        (other.output / "annotations" / shard).mkdir()
        pq.write_table(
            pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), path.parents[1] / shard / "0.parquet"
        )
    path.unlink()
    with pytest.raises(DataError, match="cannot be told apart"):
        compare(first, open_dataset(str(other.output)))


def test_a_broken_mask_is_counted_not_compared(made: MadeDataset, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", images=4, shards=1)
    path = other.output / "annotations/shard-0000/00000.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0]["annotations"][0]["segmentation"]["counts"] = "00"
    pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), path)
    found = compare(open_dataset(str(other.truth)), open_dataset(str(other.output)))
    assert found["masks_broken"] == 1
    assert summarise(open_dataset(str(other.output)))["coverage"]["images"] == 4


def test_a_file_damaged_behind_its_footer_is_named(made: MadeDataset, tmp_path: Path) -> None:
    """The footer is whole, so the dataset opens; DuckDB, which reads the rest, would not say which file."""
    other = make_dataset(tmp_path / "other", images=8, shards=1)
    path = other.output / "annotations/shard-0000/00001.parquet"
    data = path.read_bytes()
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[:4] + b"\xff" * (end - 4) + data[end:])
    damaged, whole = open_dataset(str(other.output)), open_dataset(str(other.truth))
    for work in (
        lambda: summarise(damaged),
        lambda: compare(damaged, whole),
        lambda: compare(whole, damaged),
    ):
        with pytest.raises(DataError, match=r"00001\.parquet: not a whole Parquet file"):
            work()
