"""Filters of the viewer on 200,000 rows, against the same question asked of the Parquet files directly.

    python -m benchmarks.view [--rows 200000] [--source OUTPUT]

An answer is everything that the page waits for: the cards of the first page with their RLE, and the count.
The bare baseline is DuckDB over the files without an index, and without the cards.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.curate import repeat_rows
from pipeline.dataset import open_dataset
from pipeline.view.config import ViewConfig
from pipeline.view.query import Query, count_hits, find_hits
from pipeline.view.server import Viewer

QUERIES: tuple[dict[str, str], ...] = (
    {},
    {"phrase": "ring"},
    {"phrase": "red circle", "sort": "score"},
    {"sort": "score"},
    {"min_score": "0.5", "max_score": "0.8", "sort": "stability", "direction": "desc"},
    {"unit": "masks", "sort": "score"},
    {"unit": "masks", "phrase": "ring", "min_area": "500", "sort": "area", "verdict": "none"},
    {"target": "no", "sort": "random"},
    {"key": "0077", "status": "ok"},
    {"sort": "score", "offset": "150000"},
)
_BARE = (
    "SELECT key, min(score) AS worst FROM masks WHERE has_target AND contains(phrase, 'ring')"
    " GROUP BY key ORDER BY worst LIMIT 48"
)
_COMPARED = {"phrase": "ring", "target": "yes", "sort": "score"}


def timed(viewer: Viewer, parameters: dict[str, str], repeats: int = 3) -> tuple[float, int]:
    """(slowest seconds of an answer, cards in all); the first run counts as well."""
    query = Query.parse(parameters)
    slowest = 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        viewer.cards(find_hits(viewer.index, query))
        total = count_hits(viewer.index, query)
        slowest = max(slowest, time.perf_counter() - started)
    return slowest, total


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.view")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--source", help="annotation dataset to repeat (default: drawn shapes)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.source
        if source is None:
            from tests.pipeline.annotation_fixture import make_dataset

            source = str(make_dataset(Path(folder) / "small", images=256, shards=1).output)
        large = str(Path(folder) / "large")
        repeat_rows(source, Path(large), arguments.rows)
        viewer = Viewer(ViewConfig(output=large))
        started = time.perf_counter()
        viewer.fill()
        seconds = time.perf_counter() - started
        print(f"index: {arguments.rows:,} rows in {seconds:.1f} s, {arguments.rows / seconds:,.0f} rows/s")
        for parameters in QUERIES:
            seconds, total = timed(viewer, parameters)
            print(f"{seconds * 1000:6.0f} ms  {total:>9,} cards  {urlencode(parameters) or '(no filter)'}")
        with open_dataset(large).connect() as connection:
            started = time.perf_counter()
            connection.sql(_BARE).fetchall()
            bare = time.perf_counter() - started
        seconds, _ = timed(viewer, _COMPARED)
        print(f"bare DuckDB over the files {bare:.2f} s, viewer {seconds:.2f} s: {bare / seconds:.1f} times")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory of all of this {peak:,.0f} MiB")
        viewer.close()


if __name__ == "__main__":
    main()
