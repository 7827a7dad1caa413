"""Curation of small datasets, compared with a plain statement of the rules, row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.curate import CurateConfig, CurateResources, curate
from pipeline.curate.rewrite import split_of
from pipeline.dataset.opening import open_dataset
from sspsam.errors import ConfigError, DataError
from sspsam.schema import ANNOTATION_SCHEMA
from tests.pipeline.annotation_fixture import MadeDataset, make_dataset
from tests.pipeline.curate.plainly import Row, decoded, plainly
from tests.pipeline.dataset.test_annotation_dataset import write_reviews

ONE = CurateResources(workers=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    """48 images with verdicts of every kind, one broken mask and one without a hash."""
    made = make_dataset(tmp_path_factory.mktemp("made"), images=48, shards=3, chunk=5)
    keys = [key for key, row in made.rows.items() if row["status"] == "ok"]
    phrase = made.rows[keys[3]]["annotations"][0]["phrase"]
    accepted = made.rows[keys[4]]["annotations"][-2]["phrase"]
    place = {key: made.rows[key]["shard"] for key in keys}
    write_reviews(
        made.output,
        "a.parquet",
        [
            (keys[0], place[keys[0]], None, "accept", 1),
            (keys[0], place[keys[0]], None, "reject", 2),
            (keys[1], place[keys[1]], None, "reject", 1),
            (keys[1], place[keys[1]], None, "none", 9),
            (keys[2], place[keys[2]], None, "flag", 1),
            (keys[3], place[keys[3]], phrase, "reject", 1),
            (keys[4], place[keys[4]], accepted, "accept", 1),
            ("no such key", "shard-0000", None, "reject", 1),
        ],
    )
    broken = made.rows[keys[7]]["annotations"][0]["segmentation"]
    broken["counts"] = broken["counts"][:-1]
    made.rows[keys[8]]["phash"] = None
    for row in made.rows.values():
        _rewrite(made.output, row)
    return made


def _rewrite(output: Path, row: Row) -> None:
    """Put `row` in the place of the row of its key."""
    for path in (output / "annotations" / row["shard"]).glob("*.parquet"):
        rows = pq.read_table(path).to_pylist()
        if row["key"] in [one["key"] for one in rows]:
            rows = [row if one["key"] == row["key"] else one for one in rows]
            pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), path)


def read(folder: Path) -> list[Row]:
    dataset = open_dataset(str(folder))
    return [
        row for file in dataset.files for table in dataset.read_batches(file) for row in table.to_pylist()
    ]


CASES: list[tuple[CurateConfig, Callable[[Row, Row], bool]]] = [
    (CurateConfig(), lambda row, mask: True),
    (
        CurateConfig(where=("score > 0.6 and area > 100", "width > 110"), merge_iou=0.9, phash_distance=4),
        lambda row, mask: mask["score"] > 0.6 and mask["area"] > 100 and row["width"] > 110,
    ),
    (
        CurateConfig(
            reviews="ignore", max_per_phrase=2, merge_iou=0.5, keep_no_target=True, cap_order="hash", seed=3
        ),
        lambda row, mask: True,
    ),
    (
        CurateConfig(drop_flagged=True, min_target_pixels=10, phash_distance=0, max_per_phrase=1),
        lambda *_: True,
    ),
    (CurateConfig(reviews="accepted", min_target_pixels=3000), lambda row, mask: True),
    (
        CurateConfig(where=("phrase like 'the %' or mask_count = 3",), keep_no_target=True),
        lambda row, mask: (
            mask["phrase"].startswith("the ") or sum(one["has_target"] for one in row["annotations"]) == 3
        ),
    ),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_what_stays_is_what_the_rules_say(
    made: MadeDataset, tmp_path: Path, case: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.curate.curate_run.ROWS_A_PROCESS", 1)
    config, where = CASES[case]
    resources = CurateResources(workers=2 if case == 1 else 1, rows_per_file=7)
    manifest = curate(str(made.output), str(tmp_path / "dest"), config, resources)
    found = read(tmp_path / "dest")
    expected = plainly(read(made.output), config, where)
    assert [row["key"] for row in found] == [row["key"] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        names = [(one["phrase"], sorted(one["aliases"]), one["has_target"]) for one in row["annotations"]]
        assert names == [
            (one["phrase"], sorted(set(one["aliases"])), one["has_target"]) for one in wanted["annotations"]
        ], row["key"]
        for one, source in zip(row["annotations"], wanted["annotations"], strict=True):
            assert {name: one[name] for name in source if name not in ("aliases", "accepted")} == {
                name: value for name, value in source.items() if name not in ("aliases", "accepted")
            }
        assert row["split"] == split_of(row["key"], config.split, config.seed)
        for name in ("caption", "image_ref", "index", "phash", "width", "height"):
            assert row[name] == wanted[name]
    _check_funnel(manifest, found, made)
    assert manifest == {**json.loads((tmp_path / "dest/_curation.json").read_text())}


def _check_funnel(manifest: Row, found: list[Row], made: MadeDataset) -> None:
    """Every image and phrase that went in came out or was dropped for a reason, stage by stage."""
    assert manifest["images_in"] == len(made.rows)
    assert manifest["phrases_in"] == sum(len(row["annotations"]) for row in made.rows.values())
    images, masks = manifest["images_in"], manifest["phrases_in"]
    for step in manifest["funnel"]:
        images -= sum(step["dropped_images"].values())
        masks -= sum(step["dropped_phrases"].values())
        assert (images, masks) == (step["images"], step["phrases"])
    assert images == manifest["images_out"] == len(found)
    assert masks == manifest["phrases_out"] == sum(len(row["annotations"]) for row in found)
    assert sum(split["images"] for split in manifest["splits"].values()) == images
    assert manifest["funnel"][0]["dropped_images"] == {"no_phrase": 3, "error_truncated_image": 3}


def test_thresholds_down_bring_masks_back(made: MadeDataset, tmp_path: Path) -> None:
    """has_target follows target_pixels; what the model drew is there again, with its area and box."""
    config = CurateConfig(min_target_pixels=1, reviews="ignore")
    manifest = curate(str(made.output), str(tmp_path / "dest"), config, ONE)
    back = [
        one
        for row in read(tmp_path / "dest")
        for one in row["annotations"]
        if one["phrase"].startswith("the ")
    ]
    targets = next(step for step in manifest["funnel"] if step["stage"] == "targets")
    assert len(back) == targets["changed_phrases"]["given_a_target"] > 3
    for one in back:
        mask = decoded(one)
        assert one["has_target"]
        assert one["area"] == mask.sum() == 4
        assert one["bbox"] == [2.0, 2.0, 2.0, 2.0]


def test_a_curated_dataset_is_curated_again(made: MadeDataset, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    curate(str(made.output), str(first), CurateConfig(merge_iou=0.95, keep_empty=True), ONE)
    manifest = curate(str(first), str(second), CurateConfig(merge_iou=0.05, where=("split = 'train'",)), ONE)
    before = {row["key"]: row for row in read(first)}
    assert any(one["aliases"] for row in before.values() for one in row["annotations"])
    for row in read(second):
        assert row["split"] == before[row["key"]]["split"] == "train"
        given = [[one["phrase"], *one["aliases"]] for one in before[row["key"]]["annotations"]]
        taken = [[one["phrase"], *one["aliases"]] for one in row["annotations"]]
        assert sorted(chain(*taken)) == sorted(chain(*given))
    assert manifest["run"]["model"]["name"] == "drawn"
    where = next(step for step in manifest["funnel"] if step["stage"].startswith("where"))
    assert where["dropped_images"]["predicate_false"] > 0
    assert any(row["annotations"] == [] for row in before.values())


def test_nothing_is_overwritten_by_accident(made: MadeDataset, tmp_path: Path) -> None:
    source, dest = str(made.output), tmp_path / "dest"
    before = {path: path.read_bytes() for path in made.output.rglob("*") if path.is_file()}
    curate(source, str(dest), resources=ONE)
    whole = {path.relative_to(dest): path.read_bytes() for path in dest.rglob("*.parquet")}
    with pytest.raises(ConfigError, match="--overwrite replaces it"):
        curate(source, str(dest), resources=ONE)
    (dest / "annotations/shard-0000/stale.parquet").write_bytes(b"x")
    curate(source, str(dest), resources=ONE, overwrite=True)
    again = {path.relative_to(dest): path.read_bytes() for path in dest.rglob("*.parquet")}
    assert again == whole
    assert not (dest / "_tmp").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    for target, says in (
        (other, "did not write"),
        (made.output / "x", "is not apart"),
        (made.output, "apart"),
    ):
        with pytest.raises(ConfigError, match=says):
            curate(source, str(target), resources=ONE, overwrite=True)
    after = {path: path.read_bytes() for path in made.output.rglob("*") if path.is_file()}
    assert after == before


def test_an_interrupted_curation_is_not_taken_for_a_dataset(
    made: MadeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "dest"
    monkeypatch.setattr("pipeline.curate.curate_run._manifest", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        curate(str(made.output), str(dest), resources=ONE)
    monkeypatch.undo()
    assert list(dest.rglob("*.parquet"))
    with pytest.raises(DataError, match=r"did not finish.*--overwrite"):
        open_dataset(str(dest))
    curate(str(made.output), str(dest), resources=ONE, overwrite=True)
    assert read(dest)
