"""Loads a split of the `fiftyone` export with FiftyOne and prints what it holds, as JSON.

    python fiftyone_reader.py TARGET/train

Runs in an environment with FiftyOne (and none of this project), so it imports nothing of ours. The call of
`from_dir` is the one of docs/curation.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fiftyone as fo
import numpy as np
from pycocotools import mask as coco_mask

folder = Path(sys.argv[1])
dataset = fo.Dataset.from_dir(
    data_path=str(folder / "data"),
    labels_path=str(folder / "labels.json"),
    dataset_type=fo.types.COCODetectionDataset,
    label_types="segmentations",
    extra_attrs=True,
)
found = {}
for sample in dataset:
    width, height = sample.metadata.width, sample.metadata.height
    masks = {}
    for one in sample.ground_truth.detections if sample.ground_truth else []:
        # FiftyOne holds the part of the mask inside the box, and the box as shares of the image.
        left, top = round(one.bounding_box[0] * width), round(one.bounding_box[1] * height)
        mask = np.zeros((height, width), dtype=np.uint8, order="F")
        mask[top : top + one.mask.shape[0], left : left + one.mask.shape[1]] = one.mask
        counts = coco_mask.encode(mask)["counts"].decode("ascii")
        masks[one.phrase] = {"label": one.label, "score": one.confidence, "counts": counts}
    found[Path(sample.filepath).stem.partition("__")[2]] = {"size": [height, width], "masks": masks}
print(json.dumps(found))
