"""`sspsam curate OUTPUT DEST`: filter, deduplicate, balance and split an annotation dataset."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Annotated, Any

from cyclopts import Parameter

from jobs.options import FLAT, flags_of, given, print_json, run
from pipeline.curate.curate_config import CurateConfig, CurateResources, parse_split
from pipeline.sources.flags import StorageOptions

EPILOGUE = "Stages run in the order of the flags and are off by default. Flags win over --config."
Flags = flags_of(
    CurateConfig,
    CurateResources,
    split=Annotated[str, Parameter(show_default=False)],
)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for a wrong flag or dataset."""
    return run(curate, argv, "curate,trust", EPILOGUE)


def curate(
    output: str,
    dest: str,
    /,
    *,
    config: str | None = None,
    overwrite: bool = False,
    flags: Annotated[Flags | None, FLAT] = None,  # type: ignore[valid-type]
    json: bool = False,
    storage_options: StorageOptions | None = None,
    image_root: tuple[str, ...] = (),
) -> int:
    """Write what is worth training on to DEST, with the reason of every drop.

    Args:
        output: annotation dataset, folder or fsspec URL (only read)
        dest: new folder or fsspec URL
        config: YAML file of the flags below, with _ for -
        overwrite: replace a DEST that curate wrote
        json: print _curation.json instead of a table
        storage_options: options of fsspec, as JSON
        image_root: new location of INPUT, another location to read images from, or FROM=TO; repeatable
    """
    from rich.console import Console

    from pipeline import curate as curation
    from pipeline.curate.funnel import print_funnel

    values = given(flags)
    if "split" in values:
        values["split"] = parse_split(values["split"])
    manifest = curation.curate(
        output,
        dest,
        replace(CurateConfig.from_yaml(config) if config else CurateConfig(), **_of(CurateConfig, values)),
        CurateResources(**_of(CurateResources, values)),
        overwrite=overwrite,
        storage_options=dict(storage_options or {}),
        image_roots=image_root,
    )
    if json:
        print_json(manifest)
    else:
        print_funnel(manifest, Console())
    return 0


def _of(config: type, values: dict[str, Any]) -> dict[str, Any]:
    return {one.name: values[one.name] for one in fields(config) if one.name in values}


if __name__ == "__main__":
    sys.exit(main())
