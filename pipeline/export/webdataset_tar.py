"""WebDataset tars: image, caption and JSON of each sample (https://github.com/webdataset/webdataset).

`<name>.json` holds the row: masks as COCO RLE under "annotations", `category` and `category_id` with each.
"""

from __future__ import annotations

from typing import Any

from pipeline.dataset.image_bytes import url_of
from pipeline.export.image_stream import ExportImage, ExportJob

_SAMPLES_A_SHARD = 1000


def write(job: ExportJob) -> None:
    """`<split>-000000.tar` and so on, of --images-per-file samples (default 1000)."""
    import webdataset

    for split in job.splits:
        finished: list[str] = []
        pattern = str(job.scratch / f"{split}-%06d.tar")
        limit = job.config.images_per_file or _SAMPLES_A_SHARD

        def post(path: str, done: list[str] = finished) -> None:
            done.append(path)

        with webdataset.ShardWriter(pattern, maxcount=limit, verbose=0, post=post) as sink:
            for image in job.images(split):
                sink.write(_sample(job, image))
                _move(job, finished)
        _move(job, finished)


def annotation_values(job: ExportJob, image: ExportImage) -> list[dict[str, Any]]:
    """The masks of an image as plain values."""
    return [
        {
            "phrase": mask.phrase,
            "aliases": list(mask.aliases),
            "category": job.categories.names[mask.category],
            "category_id": mask.category,
            "segmentation": mask.segmentation,
            "bbox": list(mask.bbox),
            "area": mask.area,
            **mask.signals,
        }
        for mask in image.masks
    ]


def _sample(job: ExportJob, image: ExportImage) -> dict[str, Any]:
    row = image.row
    sample: dict[str, Any] = {
        "__key__": image.name,
        "json": {
            "key": row["key"],
            "shard": row["shard"],
            "width": image.width,
            "height": image.height,
            "caption": row["caption"],
            "image_url": url_of(row),
            "annotations": annotation_values(job, image),
        },
    }
    if row["caption"] is not None:
        sample["txt"] = row["caption"]
    if image.data is not None:
        sample[image.suffix.lstrip(".")] = image.data
    return sample


def _move(job: ExportJob, finished: list[str]) -> None:
    """Bring finished shards to the destination."""
    for path in finished:
        local = job.scratch / path
        job.destination.put_file(local.name, local)
    finished.clear()
