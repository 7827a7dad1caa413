"""`sspsam report OUTPUT`: one self-contained HTML page and a PNG contact sheet."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from jobs.options import FLAT, run
from pipeline.report.report_config import ReportConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for a wrong flag or dataset."""
    return run(report, argv, "curate")


def report(config: Annotated[ReportConfig, FLAT]) -> int:
    """One self-contained HTML page and a PNG contact sheet of an annotation dataset.

    Images with contours and phrases (random, best, worst, no target), distributions, errors.
    """
    from pipeline.report import make_report

    summary = make_report(config)
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
