"""The segmentations of annotation rows: checked, and handed to pycocotools and numpy.

pycocotools trusts its input and reads past the end of a mask that is cut short, so every mask that comes
from a file passes `segmentation_problems` before it is decoded or compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from sspsam.errors import DataError
from sspsam.rle import check_rle


def segmentation_problems(segmentations: pa.StructArray, sizes: np.ndarray) -> dict[int, str]:
    """What is wrong with each broken mask, by its position; an empty dict if all are sound.

    segmentations: `segmentation` structs {size: [h, w], counts: str}.
    sizes: (N, 2) int, the image's (height, width) for each; -1 where unknown.
    """
    problems: dict[int, str] = {}
    for at, (rle, (height, width)) in enumerate(zip(segmentations.to_pylist(), sizes.tolist(), strict=True)):
        try:
            check_rle(rle or {})
        except (DataError, TypeError) as error:
            problems[at] = str(error)
            continue
        if -1 not in (height, width) and rle["size"] != [height, width]:
            problems[at] = (
                f"the RLE is of {rle['size'][1]} x {rle['size'][0]} pixels, its image of {width} x {height}"
            )
    return problems


def coco_rles(segmentations: pa.StructArray) -> list[dict[str, Any]]:
    """The masks as pycocotools takes them: {"size": [h, w], "counts": bytes}."""
    return [
        {"size": one["size"], "counts": one["counts"].encode("ascii")} for one in segmentations.to_pylist()
    ]


def decode(segmentation: dict[str, Any]) -> np.ndarray:
    """Boolean (height, width) mask of one checked `segmentation`."""
    counts = segmentation["counts"].encode("ascii")
    return np.asarray(coco_mask.decode({"size": segmentation["size"], "counts": counts}), dtype=bool)
