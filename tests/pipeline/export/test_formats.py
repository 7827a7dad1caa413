"""Each format is read back by the tool it is for, and its masks compared pixel by pixel."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pipeline.curate import CurateConfig, CurateResources, curate
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.segmentations import decode
from pipeline.dataset.vocabulary import normalise
from pipeline.export import ExportConfig, export
from pipeline.export.yolo import polygon
from tests.pipeline.annotation_fixture import make_dataset


@dataclass(frozen=True)
class Source:
    """A curated dataset and, by (split, key), its row, encoded image and masks."""

    folder: str
    rows: dict[tuple[str, str], dict[str, Any]]
    masks: dict[tuple[str, str], dict[str, np.ndarray]]

    def expected(self, split: str) -> dict[str, dict[str, np.ndarray]]:
        return {key: masks for (of, key), masks in self.masks.items() if of == split}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """16 images in two splits, of which two have no phrase; hostile text, aliases, phrases without target."""
    folder = tmp_path_factory.mktemp("export")
    made = make_dataset(folder, images=18, shards=2)
    config = CurateConfig(
        keep_empty=True, keep_no_target=True, merge_iou=0.9, split={"train": 0.7, "val": 0.3}
    )
    curate(str(made.output), str(folder / "curated"), config, CurateResources(workers=1))
    dataset = open_dataset(str(folder / "curated"))
    rows = {
        (row["split"], row["key"]): row
        for file in dataset.files
        for table in dataset.read_batches(file)
        for row in table.to_pylist()
    }
    masks = {
        place: {one["phrase"]: decode(one["segmentation"]) for one in row["annotations"] if one["has_target"]}
        for place, row in rows.items()
    }
    assert {split for split, _ in rows} == {"train", "val"}
    assert any(not one for one in masks.values())
    assert sum(map(len, masks.values())) > 30
    return Source(str(folder / "curated"), rows, masks)


def run(source: Source, target: Path, **options: Any) -> dict[str, Any]:
    manifest = export(source.folder, str(target), ExportConfig(workers=2, **options))
    assert manifest["images"] == len(source.rows)
    assert manifest["masks"] == sum(map(len, source.masks.values()))
    assert manifest["images_skipped"] == 0
    assert not list(target.rglob("*.part"))
    return manifest


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert sorted(found) == sorted(expected)
    for phrase, mask in expected.items():
        assert np.array_equal(found[phrase], mask), phrase


def read_coco(path: Path, images: Path) -> Iterator[tuple[str, dict[str, np.ndarray], dict[int, str]]]:
    """(key, masks by phrase, category names by id) of each image, by pycocotools."""
    coco = COCO(str(path))
    names = {one["id"]: one["name"] for one in coco.loadCats(coco.getCatIds())}
    for image in coco.loadImgs(coco.getImgIds()):
        with Image.open(images / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        for one in annotations:
            assert one["area"] == coco.annToMask(one).sum()
            assert names[one["category_id"]] == normalise(one["phrase"])
        yield image["key"], {one["phrase"]: coco.annToMask(one).astype(bool) for one in annotations}, names


@pytest.mark.parametrize("format", ["coco", "fiftyone"])
def test_coco_by_pycocotools_and_supervision(source: Source, tmp_path: Path, format: str) -> None:
    import supervision

    run(source, tmp_path / "x", format=format)
    for split in ("train", "val"):
        folder = tmp_path / "x" / (f"{split}/data" if format == "fiftyone" else f"images/{split}")
        labels = "train/labels.json" if format == "fiftyone" else "annotations/instances_train.json"
        path = tmp_path / "x" / labels.replace("train", split)
        found = {key: masks for key, masks, _ in read_coco(path, folder)}
        assert found.keys() == source.expected(split).keys()
        for key, masks in found.items():
            same(masks, source.expected(split)[key])
        read = supervision.DetectionDataset.from_coco(str(folder), str(path), force_masks=True)
        assert sum(len(one[2]) for one in read) == sum(map(len, source.expected(split).values()))


def test_coco_in_portions_by_reference_with_one_category(source: Source, tmp_path: Path) -> None:
    run(source, tmp_path / "x", format="coco", images="reference", categories="single", images_per_file=3)
    numbers: list[int] = []
    for path in sorted((tmp_path / "x/annotations").iterdir()):
        coco = json.loads(path.read_text())
        assert 0 < len(coco["images"]) <= 3
        assert [one["name"] for one in coco["categories"]] == ["object"]
        numbers += [one["id"] for one in coco["images"]]
        ids = {one["id"] for one in coco["images"]}
        assert all(one["image_id"] in ids for one in coco["annotations"])
        for image in coco["images"]:
            url, _, member = image["file_name"].partition("#")
            assert Path(url).suffix == ".tar"
            assert Path(member).stem == image["key"]
    assert sorted(numbers) == list(range(1, len(source.rows) + 1))
    assert not (tmp_path / "x/images").exists()


def test_categories_by_head_noun(source: Source, tmp_path: Path) -> None:
    run(source, tmp_path / "x", format="coco", images="reference", categories="head")
    coco = json.loads((tmp_path / "x/annotations/instances_train.json").read_text())
    names = {one["id"]: one["name"] for one in coco["categories"]}
    heads = {one["phrase"]: names[one["category_id"]] for one in coco["annotations"]}
    assert {heads[phrase] for phrase in heads if phrase.endswith("circle")} == {"circle"}
    assert {heads[phrase] for phrase in heads if phrase.endswith("square")} == {"square"}


def test_panoptic_by_transformers(source: Source, tmp_path: Path) -> None:
    from transformers.models.detr.image_processing_pil_detr import prepare_coco_panoptic_annotation

    run(source, tmp_path / "x", format="coco-panoptic")
    for split in ("train", "val"):
        coco = json.loads((tmp_path / f"x/annotations/panoptic_{split}.json").read_text())
        images = {one["id"]: one for one in coco["images"]}
        assert len(images) == len(coco["annotations"]) == len(source.expected(split))
        for target in coco["annotations"]:
            image = images[target["image_id"]]
            expected = dict(source.expected(split)[image["key"]])
            row = source.rows[split, image["key"]]
            scores = {one["phrase"]: one["score"] for one in row["annotations"]}
            for phrase, mask in expected.items():  # the masks of higher scores are on top
                above = [other for other in expected if scores[other] > scores[phrase]]
                expected[phrase] = mask & ~np.any(
                    [source.masks[split, image["key"]][one] for one in above], 0
                )
            pixels = np.zeros((image["height"], image["width"], 3), dtype=np.uint8)
            read = prepare_coco_panoptic_annotation(
                pixels, {"id": 1, **target}, tmp_path / f"x/annotations/panoptic_{split}"
            )
            masks = read.get("masks", np.zeros((0, *pixels.shape[:2])))
            assert len(masks) == len(target["segments_info"])
            for mask, segment in zip(masks, target["segments_info"], strict=True):
                assert np.array_equal(mask.astype(bool), expected[segment["phrase"]])
                assert segment["area"] == mask.sum()


def test_yolo_by_supervision(source: Source, tmp_path: Path) -> None:
    import supervision

    run(source, tmp_path / "x", format="yolo")
    worst = []
    for split in ("train", "val"):
        read = supervision.DetectionDataset.from_yolo(
            str(tmp_path / f"x/images/{split}"),
            str(tmp_path / f"x/labels/{split}"),
            str(tmp_path / "x/data.yaml"),
            force_masks=True,
        )
        assert len(read) == len(source.expected(split))
        for path, _, detections in read:
            key = Path(path).stem.partition("__")[2]
            expected = source.expected(split)[key]
            assert len(detections) == len(expected)
            for at, (phrase, mask) in enumerate(expected.items()):
                assert read.classes[int(detections.class_id[at])] == normalise(phrase)
                found = detections.mask[at]
                worst.append((found & mask).sum() / (found | mask).sum())
    # Rings have a hole and hidden shapes several parts: a bridge one pixel wide joins them.
    assert min(worst) > 0.97
    assert sorted(worst)[len(worst) // 2] == 1.0


def test_polygons_of_holes_parts_and_specks() -> None:
    from supervision import polygon_to_mask

    def iou(mask: np.ndarray) -> float:
        back = polygon_to_mask(polygon(mask).round().astype(np.int32), mask.shape[::-1]).astype(bool)
        return float((back & mask).sum() / (back | mask).sum())

    mask = np.zeros((80, 100), dtype=bool)
    mask[5:40, 5:40] = True
    assert iou(mask) == 1.0
    mask[15:30, 15:30] = False
    assert iou(mask) == 1.0
    mask[18:22, 18:22] = True  # a part in the hole
    mask[60:70, 70:90] = True
    assert iou(mask) > 0.95
    speck = np.zeros((10, 10), dtype=bool)
    speck[3, 4] = True
    assert len(polygon(speck)) >= 3
    assert iou(speck) == 1.0


def test_label_studio_by_its_sdk(source: Source, tmp_path: Path) -> None:
    from label_studio_sdk.converter.brush import decode_rle
    from label_studio_sdk.label_interface import LabelInterface

    run(source, tmp_path / "x", format="labelstudio", images_per_file=5)
    text = (tmp_path / "x/label_config.xml").read_text()
    interface = LabelInterface(text)
    interface.validate()
    assert ET.fromstring(text).find("BrushLabels") is not None
    found: dict[str, int] = {}
    for path in sorted((tmp_path / "x").glob("tasks_*.json")):
        split = path.name.removeprefix("tasks_").partition("-")[0]
        for task in json.loads(path.read_text()):
            key = task["data"]["key"]
            assert interface.validate_task({"data": task["data"]})
            local = tmp_path / "x" / task["data"]["image"].partition("?d=")[2]
            assert Image.open(local).size[0] == source.rows[split, key]["width"]
            (prediction,) = task["predictions"]
            assert not prediction["result"] or interface.validate_prediction(prediction)
            masks = {}
            for result in prediction["result"]:
                shape = (result["original_height"], result["original_width"], 4)
                masks[result["meta"]["text"][0]] = (
                    decode_rle(result["value"]["rle"]).reshape(shape)[:, :, 3] > 0
                )
            same(masks, source.expected(split)[key])
            found[key] = len(masks)
    assert len(found) == len(source.rows)


def test_webdataset_by_its_reader(source: Source, tmp_path: Path) -> None:
    import webdataset

    run(source, tmp_path / "x", format="webdataset", images_per_file=4)
    for split in ("train", "val"):
        shards = sorted(str(path) for path in (tmp_path / "x").glob(f"{split}-*.tar"))
        assert len(shards) == -(-len(source.expected(split)) // 4)
        seen = {}
        for sample in webdataset.WebDataset(shards, shardshuffle=False).decode("pil"):
            row = sample["json"]
            image = sample.get("jpg", sample.get("png"))
            assert image.size == (row["width"], row["height"])
            assert sample["txt"] == row["caption"] == source.rows[split, row["key"]]["caption"]
            seen[row["key"]] = {one["phrase"]: decode(one["segmentation"]) for one in row["annotations"]}
        assert seen.keys() == source.expected(split).keys()
        for key, masks in seen.items():
            same(masks, source.expected(split)[key])


def test_hugging_face_by_datasets(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    run(source, tmp_path / "x", format="hf", images_per_file=4)
    read = datasets.load_dataset(str(tmp_path / "x"), cache_dir=str(tmp_path / "cache"))
    for split in ("train", "val"):
        labels = read[split].features["annotations"].feature["category_id"]
        assert len(read[split]) == len(source.expected(split))
        for row in read[split]:
            assert row["image"].size == (row["width"], row["height"])
            masks = {one["phrase"]: decode(one["segmentation"]) for one in row["annotations"]}
            same(masks, source.expected(split)[row["key"]])
            for one in row["annotations"]:
                assert labels.int2str(one["category_id"]) == one["category"] == normalise(one["phrase"])
            aliases = [one["aliases"] for one in row["annotations"]]
            given = source.rows[split, row["key"]]["annotations"]
            assert aliases == [one["aliases"] for one in given if one["has_target"]]


def test_lance_by_lance(source: Source, tmp_path: Path) -> None:
    import lance

    run(source, tmp_path / "x", format="lance", images_per_file=5)
    for split in ("train", "val"):
        table = lance.dataset(str(tmp_path / f"x/{split}.lance")).to_table()
        assert table.num_rows == len(source.expected(split))
        for row in table.to_pylist():
            assert Image.open(io.BytesIO(row["image"])).size == (row["width"], row["height"])
            masks = {one["phrase"]: decode(one["segmentation"]) for one in row["annotations"]}
            same(masks, source.expected(split)[row["key"]])
