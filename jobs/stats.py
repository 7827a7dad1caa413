"""`sspsam stats OUTPUT`: counts, phrases, signals, coverage; or how another dataset differs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.options import add_storage_options, exit_code, print_json, storage_options
from sspsam.errors import ConfigError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sspsam stats",
        description="What is in an annotation dataset, or how another one differs from it.",
    )
    parser.add_argument("output", help="annotation dataset: folder or fsspec URL")
    parser.add_argument(
        "--compare", metavar="OTHER", help="another run of the same images, or ground truth (sspsam import)"
    )
    parser.add_argument(
        "--top", type=int, default=20, metavar="N", help="phrases and changes listed (default: 20)"
    )
    parser.add_argument(
        "--coverage-images",
        type=int,
        default=5000,
        metavar="N",
        help="images laid over for coverage (default: 5000)",
    )
    parser.add_argument("--memory-mb", type=int, default=1024, metavar="MIB", help="that DuckDB may hold")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_storage_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for a wrong flag or dataset."""
    return exit_code("stats", "curate", lambda: _stats(build_parser().parse_args(argv)))


def _stats(arguments: argparse.Namespace) -> int:
    for flag, value, least in (
        ("--top", arguments.top, 1),
        ("--coverage-images", arguments.coverage_images, 0),
        ("--memory-mb", arguments.memory_mb, 64),
    ):
        if value < least:
            raise ConfigError(f"{flag} {value}: at least {least}")
    from rich.console import Console

    from pipeline.dataset.annotation_dataset import open_dataset
    from pipeline.stats import compare, summarise
    from pipeline.stats.tables import print_comparison, print_summary

    options = storage_options(arguments)
    dataset = open_dataset(arguments.output, storage_options=options)
    if arguments.compare:
        other = open_dataset(arguments.compare, storage_options=options)
        found = compare(dataset, other, top=arguments.top, memory_mb=arguments.memory_mb)
    else:
        found = summarise(
            dataset,
            top=arguments.top,
            coverage_images=arguments.coverage_images,
            memory_mb=arguments.memory_mb,
        )
    if arguments.json:
        print_json(found)
    elif arguments.compare:
        print_comparison(found, Console())
    else:
        print_summary(found, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
