"""Parquet shards that Hugging Face `datasets` loads: `load_dataset(folder)`.

The features (image, class labels) stand in each file's metadata, as `datasets` itself writes them, and the
splits in README.md (https://huggingface.co/docs/datasets/repository_structure).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.image_bytes import in_batches
from pipeline.export.image_stream import ExportImage, ExportJob

_ROWS_A_SHARD = 1000

#: Rows encoded at a time: a row group, which readers hold whole.
_ROWS_A_GROUP = 100


def write(job: ExportJob) -> None:
    """`data/<split>-00000.parquet` and so on, and `README.md`."""
    schema = features(job).arrow_schema
    path = job.scratch / "shard.parquet"
    for split in job.splits:
        for number, images in enumerate(job.portions(split, _ROWS_A_SHARD)):
            with pq.ParquetWriter(path, schema, compression="zstd") as writer:
                for group in in_batches(images, _ROWS_A_GROUP):
                    rows = [_row(job, image) for image in group]
                    writer.write_table(pa.Table.from_pylist(rows, schema))
            job.destination.put_file(f"data/{split}-{number:05d}.parquet", path)
    job.destination.store.put("README.md", _readme(job).encode())


def features(job: ExportJob) -> Any:
    """The `datasets.Features` of the export."""
    from datasets import ClassLabel, Features, Image, List, Value

    mask = {
        "phrase": Value("string"),
        "aliases": List(Value("string")),
        "category": Value("string"),
        "category_id": ClassLabel(names=list(job.categories.names)),
        "segmentation": {"size": List(Value("int32"), length=2), "counts": Value("string")},
        "bbox": List(Value("float32"), length=4),
        "area": Value("int64"),
        **{name: Value("float32") for name in job.signals},
    }
    return Features(
        {
            "key": Value("string"),
            "shard": Value("string"),
            "width": Value("int32"),
            "height": Value("int32"),
            "caption": Value("string"),
            "image": Image(),
            "image_url": Value("string"),
            "annotations": List(mask),
        }
    )


def _row(job: ExportJob, image: ExportImage) -> dict[str, Any]:
    held = None if image.data is None else {"bytes": image.data, "path": f"{image.name}{image.suffix}"}
    return {**job.values(image), "image": held}


def _readme(job: ExportJob) -> str:
    files = "".join(f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in job.splits)
    return (
        "---\ntask_categories:\n- image-segmentation\nconfigs:\n- config_name: default\n"
        f"  data_files:\n{files}---\n\nMask annotations of phrases, made by SSP-SAM Annotate.\n"
    )
