"""One record against one prediction, in both frames, against plain numpy and Pillow."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sspsam.data import ImageRef, Record, Segmentation
from sspsam.evaluation import Prediction, score_image
from sspsam.model_config import SSPSAMConfig

CONFIG = SSPSAMConfig.preset("b16-224")  # 1024 and 512, as published


def packed(mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def disk(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def square_by_pillow(mask: np.ndarray) -> np.ndarray:
    """The authors' target: Pillow's bilinear to 1024, > 0, padded, every second pixel."""
    height, width = mask.shape
    scale = 1024 / max(height, width)
    sides = (int(width * scale + 0.5), int(height * scale + 0.5))
    resized = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(sides, Image.Resampling.BILINEAR))
    square = np.zeros((1024, 1024), bool)
    square[: sides[1], : sides[0]] = resized > 0
    return square[::2, ::2]


def record(mask: np.ndarray | None, **fields) -> Record:
    segmentation = None
    if mask is not None:
        rle = packed(mask)
        segmentation = Segmentation(rles=((tuple(rle["size"]), rle["counts"]),))
    return Record(
        key="k",
        image=ImageRef("x.jpg"),
        phrase="disk",
        split="val",
        has_target=mask is not None,
        segmentation=segmentation,
        **fields,
    )


def predicted(mask: np.ndarray, square: np.ndarray, *, has_target: bool = True, box=(0, 0, 1, 1)):
    return SimpleNamespace(
        rle=packed(mask),
        square_rle=packed(square),
        has_target=has_target,
        predicted_box=box,
        score=0.5,
        predicted_iou=0.25,
        stability=None,
        box_agreement=None,
        clip_score=0.125,
    )


def score(record: Record, mask, height: int, width: int, *, authors: bool = True) -> dict:
    prediction = Prediction({"disk": mask} if mask else {}, width, height)
    [row] = score_image([record], prediction, shard="s", image_key="i", config=CONFIG, authors=authors)
    return row


@pytest.mark.parametrize("size", [(48, 64), (480, 640), (640, 427), (1500, 2000), (900, 90)])
def test_both_frames(size: tuple[int, int]):
    height, width = size
    side = min(size)
    truth = disk(height, width, width / 2, height / 2, side / 5)
    drawn = disk(height, width, width / 2 + side / 10, height / 2, side / 5)
    square = square_by_pillow(drawn)
    box = (width / 2 - side / 5, height / 2 - side / 5, side * 2 / 5, side * 2 / 5)
    row = score(record(truth, box=box), predicted(drawn, square, box=box), height, width)
    assert row["intersection"] == (truth & drawn).sum()
    assert row["union"] == (truth | drawn).sum()
    assert row["area"] == truth.sum()
    assert row["predicted_area"] == drawn.sum()
    assert row["iou"] == pytest.approx((truth & drawn).sum() / (truth | drawn).sum())
    assert row["box_iou"] == row["authors_box_iou"] == pytest.approx(1)
    target = square_by_pillow(truth)
    assert row["authors_area"] == target.sum()
    assert row["authors_intersection"] == (target & square).sum()
    assert row["authors_union"] == (target | square).sum()
    assert row["score"] == 0.5
    assert row["stability"] is None


def test_without_a_target():
    nothing = np.zeros((48, 64), bool)
    scribble = disk(512, 512, 20, 20, 3)
    row = score(record(None), predicted(nothing, scribble, has_target=False), 48, 64)
    assert row["iou"] == 1
    assert row["box_iou"] is None
    assert (row["authors_area"], row["authors_predicted_area"]) == (0, scribble.sum())
    assert row["authors_empty"]  # 29 pixels of 50
    assert row["authors_box_iou"] == 1  # a predicted box below 10 square pixels counts as none
    large = predicted(disk(48, 64, 20, 20, 9), scribble, box=(0, 0, 5, 2))
    assert score(record(None), large, 48, 64)["iou"] == 0
    assert score(record(None), large, 48, 64)["authors_box_iou"] == 0


def test_what_cannot_be_scored_says_why():
    truth = disk(48, 64, 30, 20, 9)
    row = score(record(truth), predicted(truth, truth), 64, 48)
    assert row["error"]["kind"] == "data"
    assert "64 x 48 pixels, its image has 48 x 64" in row["error"]["message"]
    [row] = score_image(
        [record(truth, width=64, height=48)],
        Prediction({}, None, None, ("not_an_image", "no decoder")),
        shard="s",
        image_key="i",
        config=CONFIG,
        authors=True,
    )
    assert row["error"] == {"kind": "not_an_image", "message": "no decoder"}
    assert row["area"] == truth.sum()  # still in the union
    assert row["authors_area"] == square_by_pillow(truth).sum()
    assert "intersection" not in row
    boxed = dataclasses.replace(record(truth), segmentation=None, box=(1, 1, 2, 2))
    assert "has a box and no mask" in score(boxed, predicted(truth, truth), 48, 64)["error"]["message"]
