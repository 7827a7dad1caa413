"""`sspsam import --format coco SRC DEST`: ground truth of another format into the annotation schema."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.options import add_storage_options, exit_code, print_written, storage_options


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sspsam import",
        description="Turn ground truth into an annotation dataset: to view, curate, train on, compare with.",
    )
    parser.add_argument("source", metavar="SRC", help="instances JSON: path or fsspec URL")
    parser.add_argument("dest", help="new folder or fsspec URL")
    parser.add_argument("--format", required=True, choices=("coco",), help="of SRC")
    parser.add_argument("--images", metavar="FOLDER", help="what file names are relative to")
    parser.add_argument(
        "--phrase-field",
        default="phrase",
        metavar="NAME",
        help="of an annotation (default: phrase, else category)",
    )
    parser.add_argument(
        "--instances",
        choices=("merge", "separate"),
        default="merge",
        help="whether instances of one phrase of an image are one mask (default: merge)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a DEST that import wrote")
    parser.add_argument("--json", action="store_true", help="print _import.json")
    add_storage_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 if instances could not be read and are left out; 2 for a wrong flag or file."""
    return exit_code("import", "curate", lambda: _import(build_parser().parse_args(argv)))


def _import(arguments: argparse.Namespace) -> int:
    from pipeline.import_.import_coco import ImportConfig, import_coco

    manifest = import_coco(
        arguments.source,
        arguments.dest,
        ImportConfig(arguments.images, arguments.phrase_field, arguments.instances),
        overwrite=arguments.overwrite,
        storage_options=storage_options(arguments),
    )
    summary = (
        f"{manifest['images']:,} images, {manifest['phrases']:,} phrases of"
        f" {manifest['instances']:,} instances"
    )
    return print_written(
        "import", arguments.dest, manifest, "" if arguments.json else summary, unit="instances"
    )


if __name__ == "__main__":
    sys.exit(main())
