"""`export`: the chain from a dataset to the files of another tool."""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.dataset.destination import Destination
from pipeline.dataset.opening import open_dataset
from pipeline.export.categories import read_categories
from pipeline.export.export_config import ExportConfig
from pipeline.export.image_stream import ExportJob, check_link

MANIFEST = "_export.json"

#: format -> module with `write(job)`.
_WRITERS = {
    "coco": "coco",
    "coco-panoptic": "panoptic",
    "yolo": "yolo",
    "labelstudio": "labelstudio",
    "fiftyone": "coco",
    "webdataset": "webdataset_tar",
    "hf": "hugging_face",
    "lance": "lance_table",
}


def export(
    source: str,
    target: str,
    config: ExportConfig,
    *,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the dataset `source` to the folder `target` in `config.format`; return its `_export.json`.

    Rows with an error and phrases without a target are left out; images that cannot be read are left out,
    counted, and listed in `_skipped.jsonl`. Raises ConfigError or DataError.
    """
    started = time.monotonic()
    dataset = open_dataset(source, storage_options=storage_options, image_roots=config.image_root)
    categories, images = read_categories(dataset, config.categories)
    destination = Destination(str(target), MANIFEST, dict(storage_options or {}))
    check_link(config, destination)
    module = importlib.import_module(f"pipeline.export.{_WRITERS[config.format]}")
    destination.begin(overwrite=overwrite, sources=[source])
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        job = ExportJob(dataset, destination, config, categories, tuple(sorted(images)), Path(scratch))
        module.write(job)
        if job.skipped_path.exists():
            destination.put_file("_skipped.jsonl", job.skipped_path)
    manifest = {
        "version": 1,
        "source": dataset.url,
        "config": config.as_json(),
        "rows_in": dataset.rows,
        "rows_with_error": dataset.rows - images.total(),
        **{name: job.counts[name] for name in ("images", "masks", "images_skipped", "segments_covered")},
        "splits": {split: job.counts[f"images_{split}"] for split in job.splits},
        "categories": len(categories.names),
        "seconds": round(time.monotonic() - started, 3),
    }
    destination.finish(manifest)
    return {"complete": True, **manifest}
