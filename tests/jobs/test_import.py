"""`sspsam import`: COCO ground truth, as made by hand and as `sspsam export` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from jobs.cli import main
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.segmentations import decode
from pipeline.import_.import_coco import import_coco
from pipeline.import_.import_config import ImportConfig
from sspsam.data import DataConfig, read_records
from sspsam.errors import DataError
from sspsam.images.load_image import load_image
from tests.pipeline.annotation_fixture import encode_rle, make_dataset


def read(folder: Path) -> dict[str, dict[str, Any]]:
    dataset = open_dataset(str(folder))
    rows = [row for file in dataset.files for part in dataset.read_batches(file) for row in part.to_pylist()]
    return {row["key"]: row for row in rows}


def test_what_was_exported_comes_back(tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "made", images=18, shards=2)
    x = tmp_path / "x"
    assert main(["export", str(made.output), str(x), "--format", "coco", "--workers", "1"]) == 0
    labels = str(x / "annotations/instances_train.json")
    command = [
        "import",
        "--format",
        "coco",
        labels,
        str(tmp_path / "back"),
        "--images",
        str(x / "images/train"),
    ]
    assert main(command) == 0
    back = read(tmp_path / "back")
    rows = {key: row for key, row in made.rows.items() if row["status"] != "error"}
    assert back.keys() == rows.keys()
    for key, row in back.items():
        assert (row["shard"], row["caption"]) == (rows[key]["shard"], rows[key]["caption"])
        given = [one for one in rows[key]["annotations"] if one["has_target"]]
        assert row["status"] == ("ok" if given else "no_phrase")
        for one, source in zip(row["annotations"], given, strict=True):
            names = ("phrase", "segmentation", "bbox", "area", "has_target")
            assert {name: one[name] for name in names} == {name: source[name] for name in names}
            assert one["start"] is None or row["caption"][one["start"] : one["end"]] == one["phrase"]
            assert one["score"] is None
            assert one["target_pixels"] is None
        assert load_image(row["image_ref"])[:2] in (b"\xff\xd8", b"\x89P")
    assert "No model: these masks were given." in (tmp_path / "back" / "README.md").read_text()
    assert main(command) == 2  # exists already


def by_hand() -> dict[str, Any]:
    disc = np.hypot(*np.mgrid[-20:20, -30:30]) < 15
    uncompressed = coco_mask.encode(np.asfortranarray(disc.astype(np.uint8)))
    runs = [0] if disc.T.ravel()[0] else []
    flat = disc.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs += np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    assert coco_mask.area(uncompressed) == disc.sum()
    size = {"width": 60, "height": 40}
    return {
        "annotations": [  # before the images, as some tools write them
            {
                "id": 1,
                "image_id": 7,
                "category_id": 1,
                "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]],
                "iscrowd": 0,
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 1,
                "segmentation": [[40, 5, 50, 5, 50, 15], [52, 5, 58, 5, 58, 9]],
            },
            {
                "id": 3,
                "image_id": 8,
                "category_id": 2,
                "segmentation": {"size": [40, 60], "counts": runs},
                "iscrowd": 1,
            },
            {
                "id": 4,
                "image_id": 7,
                "category_id": 2,
                "phrase": "the <b>cat</b>",
                "segmentation": encode_rle(disc),
            },
            {"id": 5, "image_id": 99, "category_id": 1, "segmentation": [[1, 1, 2, 2, 3, 3]]},
            {"id": 6, "image_id": 7, "category_id": 1, "segmentation": [[1, 1, 2, 2]]},
            {"id": 7, "image_id": 7, "category_id": 1, "segmentation": {"size": [4, 4], "counts": "04"}},
            {"id": 8, "image_id": 7, "category_id": 1, "segmentation": {"size": [40, 60], "counts": [1, 2]}},
            {"id": 10, "image_id": 7, "category_id": 1, "segmentation": {"size": [40, 60], "counts": ["x"]}},
            {"id": 9, "image_id": 7, "category_id": 5, "segmentation": [[1, 1, 9, 1, 9, 9]]},
        ],
        "images": [
            {"id": 7, "file_name": "a/one.jpg", **size},
            {"id": 8, "file_name": "a/two.jpg", "caption": "a cat on a mat", **size},
            {"id": 9, "file_name": "b/one.jpg", "coco_url": "http://x/one.jpg", "shard": "../../up", **size},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }


@pytest.mark.parametrize("instances", ["merge", "separate"])
def test_every_kind_of_segmentation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], instances: str
) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(by_hand()))
    command = [
        "import",
        "--format",
        "coco",
        str(path),
        str(tmp_path / "out"),
        "--images",
        "s3://bucket/images/",
    ]
    assert main([*command, "--instances", instances]) == 1
    assert "6 instances could not be read" in capsys.readouterr().err
    reasons = [json.loads(line) for line in (tmp_path / "out/_skipped.jsonl").read_text().splitlines()]
    assert [one["annotation"] for one in reasons] == [5, 6, 7, 8, 10, 9]
    for one, says in zip(
        reasons,
        (
            "no image has the id 99",
            "three points",
            "4 x 4",
            "does not fit",
            "whole numbers",
            "category of id 5",
        ),
        strict=True,
    ):
        assert says in one["reason"]
    rows = read(tmp_path / "out")
    coco = COCO(str(path))
    one, two, none = rows["a/one"], rows["a/two"], rows["b/one"]
    assert (one["shard"], none["shard"], none["status"]) == ("instances", "../../up", "no_phrase")
    assert one["image_ref"] == {
        "url": "s3://bucket/images",
        "member": "a/one.jpg",
        "offset": None,
        "length": None,
    }
    expected = [coco.annToMask(coco.anns[number]).astype(bool) for number in (1, 2)]
    dogs = [decode(mask["segmentation"]) for mask in one["annotations"] if mask["phrase"] == "dog"]
    if instances == "merge":
        expected = [expected[0] | expected[1]]
    assert len(dogs) == len(expected)
    assert all(np.array_equal(first, second) for first, second in zip(dogs, expected, strict=True))
    (cat,) = two["annotations"]
    assert np.array_equal(decode(cat["segmentation"]), coco.annToMask(coco.anns[3]))
    assert two["caption"][cat["start"] : cat["end"]] == "cat"
    assert one["annotations"][-1]["phrase"] == "the <b>cat</b>"
    assert not (tmp_path.parent / "up").exists()


def test_what_is_not_in_an_image_is_a_phrase_without_a_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As LVIS writes negatives, or as phrases; what is there after all is no negative."""
    instances = by_hand()
    for image, negatives in zip(instances["images"], ([2, "a blue bus", 1], [1], [1, 2]), strict=True):
        image["neg_category_ids"] = negatives
    path, images = tmp_path / "instances.json", ("--images", "s3://bucket/images/")
    path.write_text(json.dumps(instances))
    command = ["import", "--format", "coco", str(path)]
    assert main([*command, str(tmp_path / "out"), *images]) == 1  # for its bad instances
    assert "5 without a target" in capsys.readouterr().out
    told = {
        key: [one["phrase"] for one in row["annotations"] if not one["has_target"]]
        for key, row in read(tmp_path / "out").items()
    }
    assert told == {"a/one": ["cat", "a blue bus"], "a/two": ["dog"], "b/one": ["dog", "cat"]}
    records = read_records(DataConfig(str(tmp_path / "out"), "annotations", split="all"))
    absent = [record for record in records if not record.has_target]
    assert len(absent) == 5
    assert not any(record.mask(40, 60).any() for record in absent)
    assert main([*command, str(tmp_path / "none"), *images, "--negatives", ""]) == 1
    assert all(one["has_target"] for row in read(tmp_path / "none").values() for one in row["annotations"])
    instances["images"][0]["neg_category_ids"] = [77]
    path.write_text(json.dumps(instances))
    assert main([*command, str(tmp_path / "bad"), *images]) == 2
    assert "77, which is the id of no category" in capsys.readouterr().err


TWICE = {"id": 1, "file_name": "a.jpg", "width": 2, "height": 2}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"images": [{"id": 1', "cannot be read as JSON"),
        ('{"annotations": []}', "no list 'images'"),
        ('{"images": [{"id": 1}]}', "needs id, file_name"),
        (json.dumps({"images": [TWICE, TWICE]}), "twice"),
        (json.dumps({"images": [TWICE], "annotations": [7]}), "not as COCO has it"),
        ("hello", "cannot be read as JSON"),
    ],
)
def test_a_file_that_is_not_coco_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        import_coco(str(path), str(tmp_path / "out"), ImportConfig(images="/data"))
    assert str(path) in str(caught.value)
    if (tmp_path / "out").exists():  # the fault was met on the way: what stands is not taken for whole
        with pytest.raises(DataError, match="did not finish"):
            open_dataset(str(tmp_path / "out"))
