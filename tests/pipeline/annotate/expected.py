"""The rows that a run must write, computed without Ray: a bare loop over reader and Segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.annotate.annotator import LoadSegmenter
from pipeline.annotate.rows import annotation_row, rows_table
from pipeline.phrases import phrase_source
from pipeline.sources import ReadOptions, list_shards, read_chunks


def expected_rows(source: Path, model: Path, chunk_size: int, phrases: str) -> list[dict[str, Any]]:
    """Every row of `source`, in order of shard and index."""
    segmenter = LoadSegmenter(str(model), "cpu", threads=1)()
    ask = phrase_source(phrases)
    tables = []
    # One by one: a folder with both tars and Parquet files is refused unless --format says which.
    for shard in list_shards([str(path) for path in sorted(source.iterdir())]):
        for chunk in read_chunks(shard, chunk_size, options=ReadOptions()):
            asked = ask(chunk.samples)
            texts = [[phrase.text for phrase in of_image] for of_image in asked]
            results = segmenter.segment_images([s.image or b"" for s in chunk.samples], texts)
            tables.append(
                rows_table(
                    annotation_row(sample, shard.name, of_image, result, sample.error, False)
                    for sample, of_image, result in zip(chunk.samples, asked, results, strict=True)
                )
            )
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return rows


def without_places(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without the image's URL, which differs between a folder and a bucket."""
    return [{**row, "image_ref": {**row["image_ref"], "url": None}} for row in rows]
