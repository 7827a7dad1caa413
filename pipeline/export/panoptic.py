"""COCO panoptic (https://cocodataset.org/#format-data): one PNG of segment ids an image.

Every pixel has one segment, so where masks overlap the one of the higher score is on top. A mask that others
cover wholly has no segment and is counted as `segments_covered`. Pixels of none have the id 0.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from pipeline.export.coco import category_list, image_entry
from pipeline.export.image_stream import ExportImage, ExportJob
from pipeline.export.json_files import JsonLists


def write(job: ExportJob) -> None:
    """`annotations/panoptic_<split>.json`, `annotations/panoptic_<split>/*.png` and `images/<split>/`."""
    for split in job.splits:
        with JsonLists(job.scratch, ["images", "annotations"]) as lists:
            for image in job.images(split):
                lists.append("images", image_entry(image, job.place(image, f"images/{split}")))
                png, segments = paint(image)
                job.counts["segments_covered"] += len(image.masks) - len(segments)
                job.destination.store.put(f"annotations/panoptic_{split}/{image.name}.png", png)
                lists.append(
                    "annotations",
                    {"image_id": image.number, "file_name": f"{image.name}.png", "segments_info": segments},
                )
            path = job.scratch / "panoptic.json"
            categories = [{**one, "isthing": 1} for one in category_list(job)]
            lists.save(path, {"info": {"version": "1"}, "licenses": [], "categories": categories})
        job.destination.put_file(f"annotations/panoptic_{split}.json", path)


def paint(image: ExportImage) -> tuple[bytes, list[dict[str, Any]]]:
    """(PNG, segments_info) of one image; id = R + 256 G + 65536 B, from 1 within the image."""
    ids = np.zeros((image.height, image.width), dtype=np.uint32)
    order = sorted(range(len(image.masks)), key=lambda at: (image.masks[at].signals["score"] or -1.0, -at))
    for at in order:
        ids[image.masks[at].decode()] = at + 1
    segments = []
    for at, mask in enumerate(image.masks):
        seen = ids == at + 1
        if not seen.any():
            continue
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        segments.append(
            {
                "id": at + 1,
                "category_id": mask.category + 1,
                "area": int(seen.sum()),
                "bbox": [int(side) for side in box],
                "iscrowd": 0,
                "phrase": mask.phrase,
                "score": mask.signals["score"],
            }
        )
    colours = np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours, "RGB").save(buffer, "PNG")
    return buffer.getvalue(), segments
