"""Lance datasets (https://lancedb.github.io/lance/): `lance.dataset("<target>/train.lance")`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.dataset.image_bytes import in_batches
from pipeline.export.image_stream import ExportImage, ExportJob
from sspsam.errors import SSPSAMError
from sspsam.schema import BOX_TYPE, RLE_TYPE

_ROWS_A_BATCH = 64


def schema(job: ExportJob) -> pa.Schema:
    """One row an image; `image` holds the encoded bytes, null if images are only referenced."""
    mask = pa.struct(
        [
            ("phrase", pa.string()),
            ("aliases", pa.list_(pa.string())),
            ("category", pa.string()),
            ("category_id", pa.int32()),
            ("segmentation", RLE_TYPE),
            ("bbox", BOX_TYPE),
            ("area", pa.int64()),
            *((name, pa.float32()) for name in job.signals),
        ]
    )
    return pa.schema(
        [
            ("key", pa.string()),
            ("shard", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("caption", pa.string()),
            ("image", pa.large_binary()),
            ("image_url", pa.string()),
            ("annotations", pa.list_(mask)),
        ]
    )


def write(job: ExportJob) -> None:
    """`<split>.lance`, of --images-per-file rows a fragment."""
    import lance

    failed: list[SSPSAMError] = []
    kind = schema(job)
    for split in job.splits:
        folder = job.scratch / f"{split}.lance"
        reader = pa.RecordBatchReader.from_batches(kind, _batches(job, job.images(split), failed))
        limits: dict[str, Any] = {}
        if job.config.images_per_file is not None:
            limits["max_rows_per_file"] = job.config.images_per_file
        try:
            lance.write_dataset(reader, str(folder), schema=kind, mode="create", **limits)
        except OSError:
            if failed:  # Lance only says that its source failed
                raise failed[0] from None
            raise
        job.destination.put_folder(folder.name, folder)


def _batches(
    job: ExportJob, images: Iterator[ExportImage], failed: list[SSPSAMError]
) -> Iterator[pa.RecordBatch]:
    """The rows of `images`; an SSPSAMError on the way is kept in `failed`."""
    try:
        kind = schema(job)
        for batch in in_batches(images, _ROWS_A_BATCH):
            rows = [{**job.values(image), "image": image.data} for image in batch]
            yield pa.RecordBatch.from_pylist(rows, kind)
    except SSPSAMError as error:
        failed.append(error)
        raise
