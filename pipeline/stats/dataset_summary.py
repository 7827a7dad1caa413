"""Counts, phrases, signals and coverage of one annotation dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from pipeline.dataset.annotation_dataset import AnnotationDataset
from pipeline.dataset.parts import unfinished
from pipeline.dataset.phrase_index import Index
from pipeline.dataset.phrase_rows import one_array, open_batch
from pipeline.dataset.segmentations import coco_rles, segmentation_problems
from pipeline.dataset.vocabulary import normalise
from pipeline.stats.duckdb_faults import named_faults
from sspsam.errors import DataError
from sspsam.schema import STATUSES

QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

#: Masks above which quantiles are approximate (t-digest, within a few thousandths of a rank).
_EXACT_MASKS: Final = 5_000_000


def summarise(
    dataset: AnnotationDataset, *, top: int = 20, coverage_images: int = 5000, memory_mb: int = 1024
) -> dict[str, Any]:
    """Everything `sspsam stats` prints, as JSON values.

    top: phrases listed, by frequency.  coverage_images: images whose masks are laid over each other for
    `coverage` (evenly spread; the masks of other files are not read).  memory_mb: DuckDB's limit.
    Raises DataError, naming the file, if one cannot be read to its end.
    """
    with named_faults(dataset), closing(Index(dataset, memory_mb=memory_mb)) as index:
        index.refresh()
        for _, problem in index.progress().problems:
            raise DataError(problem)
        statuses = dict(index.query("select status, count(*) from images group by 1"))
        counts = {
            "dataset": dataset.url,
            "unfinished": unfinished(dataset),
            "images": sum(statuses.values()),
            "status": {name: statuses[name] for name in (*STATUSES, *statuses) if name in statuses},
            "errors": _errors(index),
            "splits": dict(
                index.query(
                    "select split, count(*) from images where split is not null group by 1 order by min(id)"
                )
            ),
            **_phrases(index, top),
            "masks_an_image": _masks_an_image(index),
            "signals": _signals(index),
        }
    return {**counts, "coverage": coverage(dataset, coverage_images)}


def _errors(index: Index) -> dict[str, Any]:
    """Images with each kind of error, the most frequent first, and the first of them."""
    rows = index.query(
        """select error_kind, count(*) as n, arg_min("key", id), arg_min(error_message, id)
        from images where status = 'error' group by 1 order by n desc, 1"""
    )
    return {
        str(kind): {"images": images, "example": {"key": key, "message": message}}
        for kind, images, key, message in rows
    }


def _phrases(index: Index, top: int) -> dict[str, Any]:
    """Counts of phrases and the most frequent ones, each with an example image."""
    with index.cursor() as cursor:
        cursor.create_function("normalise", normalise, ["VARCHAR"], "VARCHAR")  # type: ignore[list-item]
        cursor.execute("create table names as select phrase_id, normalise(phrase) as name from phrases")
    ((phrases, masks, truncated),) = index.query(
        "select count(*), count(*) filter (has_target), count(*) filter (truncated) from masks"
    )
    ((different, once),) = index.query(
        "select count(*), count(*) filter (n = 1) from"
        " (select count(*) as n from masks join names using (phrase_id) group by name)"
    )
    rows = index.query(
        """select name, count(*) as n, count(*) filter (has_target), avg(score) filter (has_target),
        avg(area_fraction) filter (has_target), min("key")
        from masks join names using (phrase_id) join images on image_id = id
        group by name order by n desc, name limit ?""",
        [top],
    )
    names = ("phrase", "count", "with_target", "mean_score", "mean_area_share", "example_key")
    return {
        "phrases": phrases,
        "masks": masks,
        "no_target": phrases - masks,
        "truncated": truncated,
        "vocabulary": {
            "different": different,
            "seen_once": once,
            "top": [dict(zip(names, row, strict=True)) for row in rows],
        },
    }


def _masks_an_image(index: Index) -> dict[str, Any]:
    """How many `ok` images have how many masks."""
    counts = index.masks_an_image()
    total = sum(images for _, images in counts)
    mean = sum(number * images for number, images in counts) / total if total else None
    return {"mean": mean, "histogram": {str(number): images for number, images in counts}}


def _signals(index: Index) -> dict[str, Any]:
    """Quantiles of each signal, the area and its share of the image, over masks with a target."""
    ((number,),) = index.query("select count(*) from masks")
    quantile = "quantile_cont" if number <= _EXACT_MASKS else "approx_quantile"
    found = {}
    for name in (*index.dataset.signals(), "area", "area_share"):
        measure = {"area": "area::double", "area_share": "area_fraction"}.get(name, name)
        ((known, mean, values),) = index.query(
            f"select count({measure}), avg({measure}), {quantile}({measure}, {list(QUANTILES)})"
            " from masks where has_target"
        )
        quantiles = dict(zip(map(str, QUANTILES), values, strict=True)) if known else None
        found[name] = {"known": known, "mean": mean, "quantiles": quantiles}
    return found


def coverage(dataset: AnnotationDataset, most: int) -> dict[str, Any]:
    """Share of an image's pixels that some mask covers, and that more than one does, as means."""
    files = [file for file in dataset.files if file.rows]
    # Whole files are left out first, for their masks need not be read then.
    needed = max(1, -(-len(files) * most // max(1, dataset.rows)))
    files = files[:: max(1, len(files) // needed)]
    step = max(1, -(-sum(file.rows for file in files) // max(1, most)))
    any_share, many_share, seen = [], [], 0
    for file in files:
        for table in dataset.read_batches(file, ["key", "status", "width", "height", "annotations"], 256):
            chosen = np.arange(seen, seen + table.num_rows) % step == 0
            seen += table.num_rows
            for covered, twice in _covered(table.filter(pa.array(chosen))):
                any_share.append(covered)
                many_share.append(twice)
    return {
        "images": len(any_share),
        "mean_covered": float(np.mean(any_share)) if any_share else None,
        "mean_covered_twice": float(np.mean(many_share)) if many_share else None,
    }


def _covered(table: pa.Table) -> Iterator[tuple[float, float]]:
    """For each `ok` row: shares of pixels in at least one, and in at least two, sound masks with a target."""
    batch = open_batch(table)
    segmentations = one_array(batch.masks["segmentation"])
    broken = segmentation_problems(segmentations, batch.sizes[batch.row_of])
    sound = batch.has_target.copy()
    sound[list(broken)] = False
    status = table["status"].to_pylist()
    for row in range(table.num_rows):
        pixels = float(batch.sizes[row].prod())
        if status[row] != "ok" or pixels <= 0:
            continue
        members = np.flatnonzero(sound & (batch.row_of == row))
        rles = coco_rles(segmentations.take(pa.array(members)))
        union = float(coco_mask.area(coco_mask.merge(rles))) if rles else 0.0
        twice = 0.0
        if len(rles) > 1:
            layers = sum(coco_mask.decode(rle).astype(np.uint16) for rle in rles)
            twice = float((np.asarray(layers) > 1).sum())
        yield union / pixels, twice / pixels
