"""The segmentations of annotation rows: checked, and handed to pycocotools and numpy. No torch.

pycocotools trusts its input and reads past the end of a mask that is cut short, so every mask that comes
from a file passes `segmentation_problem` before it is decoded or compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from sspsam.errors import DataError
from sspsam.rle import check_rle


def segmentation_problem(segmentation: Mapping[str, Any] | None, height: int, width: int) -> str | None:
    """What is wrong with the mask {size: [h, w], counts: str} of an image; None if it is sound.

    height, width: the image's; -1 where unknown.
    """
    rle = segmentation or {}
    try:
        check_rle(rle)
    except (DataError, TypeError, ValueError, OverflowError) as error:
        return str(error)
    if -1 not in (height, width) and list(rle["size"]) != [height, width]:
        return f"the RLE is of {rle['size'][1]} x {rle['size'][0]} pixels, its image of {width} x {height}"
    return None


def segmentation_problems(segmentations: pa.StructArray, sizes: np.ndarray) -> dict[int, str]:
    """What is wrong with each broken mask, by its position; an empty dict if all are sound.

    segmentations: structs as `segmentation_problem` takes them. sizes: (N, 2) int, (height, width) for each.
    """
    pairs = zip(segmentations.to_pylist(), sizes.tolist(), strict=True)
    found = {at: segmentation_problem(rle, *size) for at, (rle, size) in enumerate(pairs)}
    return {at: problem for at, problem in found.items() if problem is not None}


def coco_rle(segmentation: Mapping[str, Any]) -> dict[str, Any]:
    """A mask as pycocotools takes it: {"size": [h, w], "counts": bytes}."""
    return {"size": list(segmentation["size"]), "counts": segmentation["counts"].encode("ascii")}


def coco_rles(segmentations: pa.StructArray) -> list[dict[str, Any]]:
    """`coco_rle` of each."""
    return [coco_rle(one) for one in segmentations.to_pylist()]


def decode(segmentation: Mapping[str, Any]) -> np.ndarray:
    """Boolean (height, width) mask of one checked `segmentation`."""
    return np.asarray(coco_mask.decode(coco_rle(segmentation)), dtype=bool)
