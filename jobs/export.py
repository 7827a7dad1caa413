"""`sspsam export DATASET TARGET --format FORMAT`: masks in the format of another tool."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.options import add_storage_options, exit_code, print_written, storage_options


def build_parser() -> argparse.ArgumentParser:
    from pipeline.export.export_config import CATEGORIES, FORMATS, IMAGES

    formats = "\n".join(f"  {name:<14} {text}" for name, text in FORMATS.items())
    parser = argparse.ArgumentParser(
        prog="sspsam export",
        description="Write an annotation dataset, best a curated one, for another tool.",
        epilog=f"formats:\n{formats}\n\ndocs/curation.md says how each is read.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", help="folder or fsspec URL that annotate, curate or import wrote")
    parser.add_argument("target", help="new folder or fsspec URL")
    parser.add_argument("--format", required=True, choices=tuple(FORMATS), metavar="FORMAT", help="see below")
    parser.add_argument(
        "--images",
        choices=IMAGES,
        default="copy",
        help="copy (default), link to local files, or reference by URL",
    )
    parser.add_argument(
        "--categories",
        choices=CATEGORIES,
        default="phrase",
        help="of a mask: its normalised phrase (default), the phrase's head noun, or a single one",
    )
    parser.add_argument("--images-per-file", type=int, metavar="N", help="where a file holds many images")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="images fetched at a time (default: 2 a core)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a TARGET that export wrote")
    parser.add_argument("--json", action="store_true", help="print _export.json")
    add_storage_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 if images could not be read and are left out; 2 for a wrong flag or dataset."""
    return exit_code("export", "curate,export", lambda: _export(build_parser().parse_args(argv)))


def _export(arguments: argparse.Namespace) -> int:
    from pipeline.export import ExportConfig, export

    given = {"workers": arguments.workers} if arguments.workers is not None else {}
    config = ExportConfig(
        arguments.format, arguments.images, arguments.categories, arguments.images_per_file, **given
    )
    manifest = export(
        arguments.dataset,
        arguments.target,
        config,
        overwrite=arguments.overwrite,
        storage_options=storage_options(arguments),
    )
    splits = ", ".join(f"{name} {count:,}" for name, count in manifest["splits"].items())
    summary = (
        f"{manifest['images']:,} images ({splits}), {manifest['masks']:,} masks,"
        f" {manifest['categories']:,} categories"
    )
    return print_written(
        "export", arguments.target, manifest, "" if arguments.json else summary, unit="images"
    )


if __name__ == "__main__":
    sys.exit(main())
