"""COCO instances (https://cocodataset.org/#format-data), and FiftyOne's folder of the same.

Masks are compressed RLE: exact, holes and parts included. pycocotools, detectron2, FiftyOne and others take
RLE whatever `iscrowd` says. `phrase`, `aliases` and the signals stand beside the standard fields.

FiftyOne's COCODetectionDataset is `data/` and `labels.json` in one folder (a split each):
https://docs.voxel51.com/user_guide/import_datasets.html#cocodetectiondataset
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.export.image_stream import ExportImage, ExportJob
from pipeline.export.json_files import JsonLists


def write(job: ExportJob) -> None:
    """`annotations/instances_<split>.json` and `images/<split>/`, or FiftyOne's layout of them.

    With --images-per-file the JSON is cut into `instances_<split>-00000.json` and so on.
    """
    fiftyone = job.config.format == "fiftyone"
    for split in job.splits:
        folder = f"{split}/data" if fiftyone else f"images/{split}"
        for number, images in enumerate(job.portions(split)):
            part = "" if job.config.images_per_file is None else f"-{number:05d}"
            name = f"{split}/labels{part}.json" if fiftyone else f"annotations/instances_{split}{part}.json"
            _write_file(job, images, folder, name)


def category_list(job: ExportJob) -> list[dict[str, Any]]:
    """COCO's `categories`, ids from 1."""
    return [
        {"id": place + 1, "name": name, "supercategory": ""}
        for place, name in enumerate(job.categories.names)
    ]


def image_entry(image: ExportImage, file_name: str) -> dict[str, Any]:
    """One entry of COCO's `images`."""
    row = image.row
    return {
        "id": image.number,
        "file_name": file_name,
        "width": image.width,
        "height": image.height,
        "caption": row["caption"],
        "key": row["key"],
        "shard": row["shard"],
    }


def _write_file(job: ExportJob, images: Iterable[ExportImage], folder: str, name: str) -> None:
    with JsonLists(job.scratch, ["images", "annotations"]) as lists:
        for image in images:
            lists.append("images", image_entry(image, job.place(image, folder)))
            for mask in image.masks:
                lists.append(
                    "annotations",
                    {
                        "id": mask.number,
                        "image_id": image.number,
                        "category_id": mask.category + 1,
                        "segmentation": mask.segmentation,
                        "bbox": list(mask.bbox),
                        "area": mask.area,
                        "iscrowd": 0,
                        "phrase": mask.phrase,
                        "aliases": list(mask.aliases),
                        **mask.signals,
                    },
                )
        path = job.scratch / "coco.json"
        info = {"description": f"{job.dataset.url} by sspsam export", "version": "1"}
        lists.save(path, {"info": info, "licenses": [], "categories": category_list(job)})
    job.destination.put_file(name, path)
