"""`sspsam curate OUTPUT DEST`: filter, deduplicate, balance and split an annotation dataset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from jobs.options import add_storage_options, exit_code, print_json, storage_options


def build_parser() -> argparse.ArgumentParser:
    from pipeline.curate.curate_config import CAP_ORDERS, REVIEWS

    parser = argparse.ArgumentParser(
        prog="sspsam curate",
        description="Write what is worth training on to DEST, and say why the rest is not there.",
        epilog="Flags win over --config. docs/curation.md explains each stage.",
    )
    parser.add_argument("output", help="annotation dataset: folder or fsspec URL (only read)")
    parser.add_argument("dest", help="new folder or fsspec URL")
    parser.add_argument("--config", metavar="FILE", help="YAML file of the options below, with _ for -")
    parser.add_argument("--overwrite", action="store_true", help="replace a DEST that curate wrote")
    keep = parser.add_argument_group(
        "what stays", "stages run in this order; all but reviews are off by default"
    )
    keep.add_argument(
        "--reviews", choices=REVIEWS, help="verdicts: apply (default), accepted (only those), ignore"
    )
    keep.add_argument("--drop-flagged", action=argparse.BooleanOptionalAction, help="flagged ones go too")
    keep.add_argument(
        "--min-target-pixels", type=int, metavar="N", help="has_target again: target_pixels >= N"
    )
    keep.add_argument(
        "--keep-no-target", action=argparse.BooleanOptionalAction, help="keep phrases without a target"
    )
    keep.add_argument(
        "--where", action="append", metavar="SQL", help="predicate over image and mask columns; repeatable"
    )
    keep.add_argument(
        "--merge-iou", type=float, metavar="IOU", help="merge masks of one image from this IoU up"
    )
    keep.add_argument(
        "--phash-distance", type=int, metavar="BITS", help="drop images this close, 0 to 8 bits"
    )
    keep.add_argument("--max-per-phrase", type=int, metavar="N", help="masks of one phrase in the dataset")
    keep.add_argument("--cap-order", choices=CAP_ORDERS, help="which stay under the cap (default: score)")
    keep.add_argument(
        "--keep-empty", action=argparse.BooleanOptionalAction, help="keep images without a phrase"
    )
    keep.add_argument("--split", metavar="NAME=SHARE,...", help="default: train=0.9,val=0.1")
    keep.add_argument("--seed", type=int, metavar="N", help="of split and hash order (default: 0)")
    how = parser.add_argument_group("how")
    how.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    how.add_argument("--memory-mb", type=int, metavar="MIB", help="that DuckDB may hold (default: 1024)")
    how.add_argument("--scratch", metavar="DIR", help="local folder for intermediate files")
    how.add_argument("--rows-per-file", type=int, metavar="N", help="images a written file (default: 5000)")
    how.add_argument("--json", action="store_true", help="print _curation.json instead of a table")
    add_storage_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for a wrong flag or dataset."""
    return exit_code("curate", "curate", lambda: _run(build_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    manifest = _curate(arguments)
    if arguments.json:
        print_json(manifest)
        return 0
    from rich.console import Console

    from pipeline.curate.funnel import print_funnel

    print_funnel(manifest, Console())
    return 0


def _curate(arguments: argparse.Namespace) -> dict[str, Any]:
    from pipeline.curate import CurateConfig, CurateResources, curate
    from pipeline.curate.curate_config import parse_split

    if arguments.split is not None:
        arguments.split = parse_split(arguments.split)

    config = CurateConfig.from_yaml(arguments.config) if arguments.config else CurateConfig()
    return curate(
        arguments.output,
        arguments.dest,
        replace(config, **_given(arguments, CurateConfig)),
        replace(CurateResources(), **_given(arguments, CurateResources)),
        overwrite=arguments.overwrite,
        storage_options=storage_options(arguments),
    )


def _given(arguments: argparse.Namespace, config: type) -> dict[str, Any]:
    """The flags that the user gave, of those that are fields of `config`."""
    values = {one.name: getattr(arguments, one.name) for one in fields(config)}
    return {name: value for name, value in values.items() if value is not None}


if __name__ == "__main__":
    sys.exit(main())
