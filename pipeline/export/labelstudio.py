"""Label Studio: tasks with brush masks as predictions, to be corrected by people.

The brush RLE is label-studio-sdk's own codec. `label_config.xml` is the labelling configuration to give to
the project. With copied or linked images, serve the folder as local storage:
LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true, LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=<the export folder>.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from pipeline.export.image_stream import ExportImage, ExportJob, ExportMask

_TASKS_A_FILE = 1000


def write(job: ExportJob) -> None:
    """`tasks_<split>-00000.json` (lists of tasks), `label_config.xml`, and `images/<split>/`."""
    from label_studio_sdk.converter.brush import mask2rle

    for split in job.splits:
        for number, images in enumerate(job.portions(split, _TASKS_A_FILE)):
            tasks = [
                _task(job, image, split, [_result(job, image, mask, mask2rle) for mask in image.masks])
                for image in images
            ]
            text = json.dumps(tasks, ensure_ascii=False)
            job.destination.store.put(f"tasks_{split}-{number:05d}.json", text.encode())
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in job.categories.names)
    config = (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="tag" toName="image">\n{labels}  </BrushLabels>\n'
        '  <Text name="caption" value="$caption"/>\n</View>\n'
    )
    job.destination.store.put("label_config.xml", config.encode())


def _task(job: ExportJob, image: ExportImage, split: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    name = job.place(image, f"images/{split}")
    url = (
        name
        if job.config.images == "reference"
        else f"/data/local-files/?d={quote(f'images/{split}/{name}')}"
    )
    scores = [mask.signals["score"] for mask in image.masks if mask.signals["score"] is not None]
    return {
        "data": {
            "image": url,
            "caption": image.row["caption"] or "",
            "key": image.row["key"],
            "shard": image.row["shard"],
        },
        "predictions": [
            {
                "model_version": "sspsam",
                "score": float(np.mean(scores)) if scores else 0.0,
                "result": results,
            }
        ],
    }


def _result(job: ExportJob, image: ExportImage, mask: ExportMask, mask2rle: Any) -> dict[str, Any]:
    # The codec takes 0 and 255; anything above 0 is drawn.
    rle = mask2rle(mask.decode().astype(np.uint8) * 255)
    return {
        "id": f"m{mask.number}",
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "score": mask.signals["score"],
        "meta": {"text": [mask.phrase]},
        "value": {"format": "rle", "rle": rle, "brushlabels": [job.categories.names[mask.category]]},
    }
