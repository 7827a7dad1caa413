"""`sspsam view OUTPUT`: browse, filter and review an annotation dataset in the browser."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from jobs.options import FLAT, run, serve_page
from pipeline.view.view_config import ViewConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 once interrupted, or 2 for a wrong flag or dataset."""
    return run(view, argv, "curate")


def view(config: Annotated[ViewConfig, FLAT], *, open: bool = False) -> int:
    """A local web page over an annotation dataset: look at masks, search, filter, sort, review.

    Verdicts go to OUTPUT/reviews/, never into the annotations.

    Args:
        open: open the page in the browser
    """
    serve_page(config, f"Viewing {config.output}", open)
    return 0


if __name__ == "__main__":
    sys.exit(main())
