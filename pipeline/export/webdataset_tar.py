"""WebDataset tars: image, caption and JSON of each sample (https://github.com/webdataset/webdataset).

`<name>.json` holds the row: masks as COCO RLE under "annotations", `category` and `category_id` with each.
"""

from __future__ import annotations

from typing import Any

from pipeline.export.image_stream import ExportImage, ExportJob

_SAMPLES_A_SHARD = 1000


def write(job: ExportJob) -> None:
    """`<split>-000000.tar` and so on, of --images-per-file samples (default 1000)."""
    import webdataset

    for split in job.splits:
        finished: list[str] = []
        pattern = str(job.scratch / f"{split}-%06d.tar")
        limit = job.config.images_per_file or _SAMPLES_A_SHARD
        with webdataset.ShardWriter(pattern, maxcount=limit, verbose=0, post=finished.append) as sink:
            for image in job.images(split):
                sink.write(_sample(job, image))
                _move(job, finished)
        _move(job, finished)


def _sample(job: ExportJob, image: ExportImage) -> dict[str, Any]:
    sample: dict[str, Any] = {
        "__key__": image.name,
        "json": job.values(image),
    }
    if image.row["caption"] is not None:
        sample["txt"] = image.row["caption"]
    if image.data is not None:
        sample[image.suffix.lstrip(".")] = image.data
    return sample


def _move(job: ExportJob, finished: list[str]) -> None:
    """Bring finished shards to the destination."""
    for path in finished:
        local = job.scratch / path
        job.destination.put_file(local.name, local)
    finished.clear()
