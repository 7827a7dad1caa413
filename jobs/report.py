"""`sspsam report OUTPUT`: one self-contained HTML page and a PNG contact sheet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.options import add_storage_options, exit_code, storage_options


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sspsam report",
        description="One HTML page that needs nothing else, and a PNG contact sheet, from an annotation "
        "dataset: images with contours and phrases, best, worst and empty ones, distributions, errors.",
    )
    parser.add_argument("output", help="annotation dataset: a folder or URL (s3://bucket/output)")
    parser.add_argument(
        "-o",
        "--page",
        metavar="FILE",
        help="HTML file to write (OUTPUT/report.html if OUTPUT is local, else ./report.html)",
    )
    parser.add_argument("--sheet", metavar="FILE", help="PNG file to write (the page's name with .png)")
    parser.add_argument(
        "--truth",
        metavar="DATASET",
        help="true masks in the same schema, with the same keys and phrases: shows IoU (OUTPUT/truth, "
        "where it exists)",
    )
    parser.add_argument("--tiles", type=int, default=12, help="images a section (%(default)s)")
    parser.add_argument("--phrases", type=int, default=40, help="rows of the table of phrases (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random samples (%(default)s)")
    parser.add_argument(
        "--memory-mb", type=int, default=1024, help="DuckDB's memory limit, MiB (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=8, help="parallel reads (%(default)s)")
    add_storage_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for a wrong flag or dataset."""
    return exit_code("report", "curate", lambda: _report(build_parser().parse_args(argv)))


def _report(arguments: argparse.Namespace) -> int:
    from pipeline.report import ReportConfig, make_report

    values = {**vars(arguments), "storage_options": storage_options(arguments)}
    summary = make_report(ReportConfig(**values))
    numbers, agreement = summary.numbers, summary.agreement
    print(
        f"{numbers.images:,} images, {numbers.masks:,} masks, {numbers.empty:,} phrases without a target, "
        f"{numbers.statuses['error']:,} errors"
    )
    if agreement is not None:
        found = [("mean IoU", agreement.mean_iou), ("no-target accuracy", agreement.no_target_accuracy)]
        quality = ", ".join(f"{name} {value:.3f}" for name, value in found if value is not None)
        print(f"{quality} over {agreement.compared:,} phrases ({agreement.not_in_truth:,} have no truth)")
        if agreement.broken:
            print(
                f"sspsam report: {agreement.broken:,} phrases have a damaged mask and are not compared",
                file=sys.stderr,
            )
    for _, message in summary.problems:
        print(f"sspsam report: left out: {message}", file=sys.stderr)
    print(f"page:  {summary.page}\nsheet: {summary.sheet}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
