"""`sspsam import --format coco SRC DEST`: ground truth of another format into the annotation schema."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from jobs.options import FLAT, print_written, run
from pipeline.import_.import_coco import import_coco
from pipeline.import_.import_config import ImportConfig
from pipeline.sources.flags import StorageOptions


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 if instances could not be read and are left out; 2 for a wrong flag or file."""
    return run(import_, argv, "curate")


def import_(
    source: str,
    dest: str,
    /,
    *,
    format: Literal["coco"],
    config: Annotated[ImportConfig | None, FLAT] = None,
    overwrite: bool = False,
    json: bool = False,
    storage_options: StorageOptions | None = None,
) -> int:
    """Convert ground truth to an annotation dataset, to view, curate, train on or compare with.

    Args:
        source: instances JSON, path or fsspec URL
        dest: new folder or fsspec URL
        format: of SOURCE
        overwrite: replace a DEST that import wrote
        json: print _import.json
        storage_options: options of fsspec, as JSON
    """
    manifest = import_coco(source, dest, config, overwrite=overwrite, storage_options=storage_options or {})
    summary = (
        f"{manifest['images']:,} images, {manifest['phrases']:,} phrases of"
        f" {manifest['instances']:,} instances, {manifest['without_target']:,} without a target"
    )
    return print_written("import", dest, manifest, "" if json else summary, unit="instances")


if __name__ == "__main__":
    sys.exit(main())
