"""One record against one prediction: areas, intersections, unions and box overlaps, under both
protocols. Masks are compared as run lengths; only the authors' truth is ever drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from pycocotools import mask as coco_mask

from sspsam.data.records import Record
from sspsam.errors import DataError, SSPSAMError
from sspsam.images.geometry import Geometry
from sspsam.model_config import SSPSAMConfig
from sspsam.schema import SIGNALS

if TYPE_CHECKING:
    from sspsam.inference.masks import Mask

#: A predicted box of less area (pixels of the original) counts as none on a phrase without a target.
AUTHORS_EMPTY_BOX: Final = 10.0


@dataclass(frozen=True)
class Prediction:
    """The model's masks for an image, or the error.

    Attributes:
        masks: by phrase; empty if there is no prediction.
        width, height: of the image in pixels; None if it could not be read.
        error: (kind, message) if there is no prediction.
    """

    masks: dict[str, Mask]
    width: int | None
    height: int | None
    error: tuple[str, str] | None = None


def score_image(
    records: Sequence[Record],
    prediction: Prediction,
    *,
    shard: str,
    image_key: str,
    config: SSPSAMConfig,
    authors: bool,
    storage_options: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Rows of `SAMPLE_SCHEMA` for the records of one image, in order.

    Args:
        records: all of one image.
        prediction: the model's masks for it.
        shard, image_key: which annotation row holds the prediction.
        config: of the model: its squares are those of the authors' protocol.
        authors: whether the masks carry `square_rle`, and the columns authors_* are wanted.
        storage_options: fsspec's, for true masks that lie in files.
    """
    rows = []
    for record in records:
        row = _blank(record, shard, image_key)
        row["width"] = prediction.width or record.width
        row["height"] = prediction.height or record.height
        row["error"] = _error(prediction.error)
        mask = prediction.masks.get(record.phrase)
        try:
            if row["width"] and row["height"]:
                truth = record.rle(row["height"], row["width"], storage_options)
                row["area"] = int(coco_mask.area(truth))
                row["subsets"] = [*record.subsets, *_size_band(record, row)]
                if mask is not None:
                    row.update(_standard(record, truth, mask))
                if authors:
                    row.update(_authors(record, truth, mask, config))
        except SSPSAMError as error:
            row["error"] = _error((error.kind, str(error)))
        rows.append(row)
    return rows


def mask_overlap(a: dict[str, Any], b: dict[str, Any]) -> tuple[int, int]:
    """(intersection, union) in pixels of two COCO RLEs of one size.

    Raises:
        DataError: the sizes differ.
    """
    if list(a["size"]) != list(b["size"]):
        raise DataError(
            f"the truth has {a['size'][1]} x {a['size'][0]} pixels and the prediction "
            f"{b['size'][1]} x {b['size'][0]}: the annotations are of another version of the image"
        )
    intersection = int(coco_mask.area(coco_mask.merge([a, b], intersect=True)))
    return intersection, int(coco_mask.area(a)) + int(coco_mask.area(b)) - intersection


def box_overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x, y, width, height); 0 if both have no area."""
    return float(coco_mask.iou([list(a)], [list(b)], [0])[0, 0])


def _standard(record: Record, truth: dict[str, Any], mask: Mask) -> dict[str, Any]:
    """At the original resolution, what was drawn."""
    predicted = _bytes(mask.rle)
    intersection, union = mask_overlap(truth, predicted)
    box = record.box
    return {
        "predicted_has_target": bool(mask.has_target),
        "intersection": intersection,
        "union": union,
        "predicted_area": int(coco_mask.area(predicted)),
        "iou": _decided_iou(record, intersection, union, bool(mask.has_target)),
        # A model without boxes of its own is judged by those of its masks.
        "box_iou": None if box is None else box_overlap(box, mask.predicted_box or mask.bbox),
        **{name: getattr(mask, name) for name in SIGNALS},
    }


def _decided_iou(record: Record, intersection: int, union: int, found: bool) -> float:
    """The term of gIoU: what the model decided counts, and a right "no target" is 1."""
    if not record.has_target:
        return float(not found)
    return intersection / union if found and union else 0.0


def _authors(
    record: Record, truth: dict[str, Any], mask: Mask | None, config: SSPSAMConfig
) -> dict[str, Any]:
    """In the padded scoring square, as `metric/mask_op.py` of the authors; emptiness by pixels."""
    square = _square_truth(truth, config)
    row: dict[str, Any] = {"authors_area": int(coco_mask.area(square))}
    if mask is None:
        return row
    rle = getattr(mask, "square_rle", None)
    if rle is None:
        raise DataError("the authors' protocol needs SegmenterConfig.square_masks")
    predicted = _bytes(rle)
    intersection, union = mask_overlap(square, predicted)
    _, _, width, height = box = mask.predicted_box or (0.0, 0.0, 0.0, 0.0)
    row.update(
        authors_intersection=intersection,
        authors_union=union,
        authors_predicted_area=(area := int(coco_mask.area(predicted))),
        authors_empty=area < config.min_target_pixels,
        authors_box_iou=(
            float(width * height < AUTHORS_EMPTY_BOX) if record.box is None else box_overlap(record.box, box)
        ),
    )
    return row


def _square_truth(truth: dict[str, Any], config: SSPSAMConfig) -> dict[str, Any]:
    """RLE of the training target: resized bilinearly, > 0, padded, nearest to `score_size`."""
    height, width = truth["size"]
    size = config.score_size
    if not coco_mask.area(truth):
        return coco_mask.encode(np.zeros((size, size), np.uint8, order="F"))
    drawn = torch.from_numpy(coco_mask.decode(truth))[None]
    frame = Geometry.of(width, height, config).sam
    square = frame.masks_to_square(drawn, size)[0].numpy()
    return coco_mask.encode(np.asfortranarray(square, dtype=np.uint8))


def _blank(record: Record, shard: str, image_key: str) -> dict[str, Any]:
    return {
        "key": record.key,
        "shard": shard,
        "image_key": image_key,
        "image": image_name(record),
        "phrase": record.phrase,
        "split": record.split,
        "subsets": list(record.subsets),
        "ids": json.dumps(record.ids, ensure_ascii=False),
        "has_target": record.has_target,
    }


def image_name(record: Record) -> str:
    """One string that tells the images of a dataset apart."""
    reference = record.image
    return reference.url if reference.member is None else f"{reference.url}#{reference.member}"


def _size_band(record: Record, row: dict[str, Any]) -> list[str]:
    """PhraseCut's subsets by size; as its evaluator has it, both ends belong to the middle."""
    if not any(name.startswith("i_") for name in record.subsets):
        return []
    share = row["area"] / (row["width"] * row["height"])
    return ["s_small" if share < 0.02 else "s_large" if share > 0.2 else "s_mid"]


def _error(reason: tuple[str, str] | None) -> dict[str, str] | None:
    return None if reason is None else {"kind": reason[0], "message": reason[1]}


def _bytes(rle: dict[str, Any]) -> dict[str, Any]:
    """An RLE with `counts` as the bytes that pycocotools takes."""
    counts = rle["counts"]
    return {**rle, "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
