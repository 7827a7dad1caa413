"""Filters of the viewer on 200,000 rows, against the same question asked of the Parquet files directly.

    python -m benchmarks.view_speed [--rows 200000] [--source OUTPUT]

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

from benchmarks.repeated import add_options, make_large
from pipeline.dataset.annotation_dataset import AnnotationDataset
from pipeline.dataset.image_query import Query, count_hits, find_hits
from pipeline.dataset.opening import open_dataset
from pipeline.view.server import Viewer
from pipeline.view.view_config import ViewConfig

_BARE = (
    "SELECT key, min(score) AS worst FROM masks WHERE has_target AND contains(phrase, ?)"
    " GROUP BY key ORDER BY worst LIMIT 48"
)


def queries(phrase: str, rows: int) -> list[dict[str, str]]:
    """What people ask; `phrase` stands in the dataset."""
    word = phrase.rpartition(" ")[2]
    return [
        {},
        {"phrase": word},
        {"phrase": f'"{phrase}"', "sort": "score"},
        {"sort": "score"},
        {"min_score": "0.5", "max_score": "0.8", "sort": "stability", "direction": "desc"},
        {"unit": "masks", "sort": "score"},
        {"unit": "masks", "phrase": word, "min_area": "500", "sort": "area", "verdict": "none"},
        {"target": "no", "sort": "random"},
        {"key": "0077", "status": "ok"},
        {"sort": "score", "offset": str(rows * 3 // 4)},
    ]


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


def bare(dataset: AnnotationDataset, word: str) -> float:
    """Seconds of DuckDB over the files."""
    with dataset.connect() as connection:
        started = time.perf_counter()
        connection.execute(_BARE, [word]).fetchall()
        return time.perf_counter() - started


def run(viewer: Viewer, rows: int) -> None:
    started = time.perf_counter()
    viewer.fill()
    if viewer.problem:
        raise SystemExit(viewer.problem)
    seconds = time.perf_counter() - started
    print(f"index: {rows:,} rows in {seconds:.1f} s, {rows / seconds:,.0f} rows/s")
    ((phrase,),) = viewer.index.query(
        "select phrase from masks join phrases using (phrase_id) where has_target"
        " group by phrase order by count(*) desc, phrase limit 1"
    )
    slowest = 0.0
    for parameters in queries(phrase, rows):
        seconds, total = timed(viewer, parameters)
        slowest = max(slowest, seconds)
        print(f"{seconds * 1000:6.0f} ms  {total:>9,} cards  {urlencode(parameters) or '(no filter)'}")
    word = phrase.rpartition(" ")[2]
    unaided = bare(open_dataset(viewer.dataset.url), word)
    seconds, _ = timed(viewer, {"phrase": word, "target": "yes", "sort": "score"})
    print(
        f"bare DuckDB over the files {unaided:.2f} s, viewer {seconds:.2f} s: {unaided / seconds:.1f} times"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"slowest answer {slowest * 1000:.0f} ms; peak memory with the bare query {peak:,.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.view_speed")
    add_options(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_large(Path(folder) / "large", arguments)
        viewer = Viewer(ViewConfig(output=str(Path(folder) / "large")))
        try:
            run(viewer, arguments.rows)
        finally:
            viewer.close()


if __name__ == "__main__":
    main()
