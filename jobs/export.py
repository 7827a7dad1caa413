"""`sspsam export DATASET TARGET --format FORMAT`: masks in the format of another tool."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from jobs.options import FLAT, print_written, run
from pipeline.export.export_config import FORMATS, ExportConfig
from pipeline.sources.flags import StorageOptions

EPILOGUE = "Formats:\n\n" + "\n\n".join(f"{name}: {text}" for name, text in FORMATS.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 if images could not be read and are left out; 2 for a wrong flag or dataset."""
    return run(export, argv, "curate,export", EPILOGUE)


def export(
    dataset: str,
    target: str,
    /,
    *,
    config: Annotated[ExportConfig, FLAT],
    overwrite: bool = False,
    json: bool = False,
    storage_options: StorageOptions | None = None,
) -> int:
    """Write an annotation dataset, preferably a curated one, in the format of another tool.

    docs/curation.md describes each format.

    Args:
        dataset: folder or fsspec URL that annotate, curate or import wrote
        target: new folder or fsspec URL
        overwrite: replace a TARGET that export wrote
        json: print _export.json
        storage_options: options of fsspec, as JSON
    """
    from pipeline import export as exporting

    manifest = exporting.export(
        dataset, target, config, overwrite=overwrite, storage_options=storage_options or {}
    )
    splits = ", ".join(f"{name} {count:,}" for name, count in manifest["splits"].items())
    summary = (
        f"{manifest['images']:,} images ({splits}), {manifest['masks']:,} masks,"
        f" {manifest['categories']:,} categories"
    )
    return print_written("export", target, manifest, "" if json else summary, unit="images")


if __name__ == "__main__":
    sys.exit(main())
