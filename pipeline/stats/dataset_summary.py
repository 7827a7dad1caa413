"""Counts, phrases, signals and coverage of one annotation dataset."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from pipeline.dataset.annotation_dataset import AnnotationDataset
from pipeline.dataset.phrase_rows import one_array, open_batch
from pipeline.dataset.segmentations import coco_rles, segmentation_problems
from pipeline.dataset.vocabulary import normalise
from pipeline.stats.duckdb_faults import named_faults
from sspsam.schema import SIGNALS, STATUSES

QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

#: Rows above which quantiles are approximate (t-digest, within a few thousandths of a rank).
_EXACT_ROWS: Final = 5_000_000

_FIELDS: Final = ("phrase", "has_target", "area", "truncated", *SIGNALS)

_SPOOL: Final = pa.schema(
    [
        ("phrase", pa.string()),
        ("key", pa.string()),
        ("has_target", pa.bool_()),
        ("truncated", pa.bool_()),
        ("area", pa.float64()),
        ("area_share", pa.float64()),
        *((name, pa.float32()) for name in SIGNALS),
    ]
)


def summarise(
    dataset: AnnotationDataset, *, top: int = 20, coverage_images: int = 5000, memory_mb: int = 1024
) -> dict[str, Any]:
    """Everything `sspsam stats` prints, as JSON values.

    top: phrases listed, by frequency.  coverage_images: images whose masks are laid over each other for
    `coverage` (evenly spread; the masks of other files are not read).  memory_mb: DuckDB's limit.
    Raises DataError, naming the file, if one cannot be read to its end.
    """
    images: Counter[str] = Counter()
    errors: dict[str, dict[str, Any]] = {}
    masks_an_image: Counter[int] = Counter()
    splits: Counter[str] = Counter()
    with named_faults(dataset), tempfile.TemporaryDirectory(prefix="stats-") as scratch:
        config: Any = {"memory_limit": f"{memory_mb}MiB", "temp_directory": f"{scratch}/spill"}
        with duckdb.connect(f"{scratch}/masks.duckdb", config=config) as spool:
            reader = pa.RecordBatchReader.from_batches(
                _SPOOL, _spooled(dataset, images, errors, masks_an_image, splits)
            )
            spool.register("reader", reader)
            spool.execute("CREATE TABLE masks AS SELECT * FROM reader")
            spool.unregister("reader")
            phrases, signals = _phrases(spool, top), _signals(spool)
    return {
        "dataset": dataset.url,
        "images": images.total(),
        "status": {status: images[status] for status in (*STATUSES, *images) if images[status]},
        "errors": dict(sorted(errors.items(), key=lambda pair: -pair[1]["images"])),
        "splits": dict(splits),
        **phrases,
        "masks_an_image": _histogram(masks_an_image),
        "signals": signals,
        "coverage": coverage(dataset, coverage_images),
    }


def _spooled(
    dataset: AnnotationDataset,
    images: Counter[str],
    errors: dict[str, dict[str, Any]],
    masks_an_image: Counter[int],
    splits: Counter[str],
) -> Iterator[pa.RecordBatch]:
    """One row a phrase; counts images on the way."""
    columns = ["key", "status", "error", "width", "height", *(["split"] if dataset.curated else [])]
    for file in dataset.files:
        for table in dataset.read_fields(file, _FIELDS, columns):
            images.update(table["status"].to_pylist())
            if dataset.curated:
                splits.update(table["split"].to_pylist())
            _count_errors(table, errors)
            batch = open_batch(table)
            good = np.array([status == "ok" for status in table["status"].to_pylist()], dtype=bool)
            targets = np.bincount(batch.row_of[batch.has_target], minlength=table.num_rows)
            masks_an_image.update(targets[good].tolist())
            yield from _mask_rows(table, batch.masks, batch.row_of).to_batches()


def _mask_rows(table: pa.Table, masks: pa.Table, row_of: np.ndarray) -> pa.Table:
    sides = [np.asarray(table[name].cast(pa.float64()).fill_null(np.nan)) for name in ("width", "height")]
    area = masks["area"].cast(pa.float64())
    share = np.asarray(area.fill_null(np.nan)) / (sides[0] * sides[1])[row_of]
    values = {
        **{name: masks[name] for name in ("has_target", "truncated", *SIGNALS)},
        "phrase": pa.array([normalise(phrase or "") for phrase in masks["phrase"].to_pylist()], pa.string()),
        "key": table["key"].take(pa.array(row_of)),
        "area": area,
        "area_share": pa.array(share, from_pandas=True),
    }
    return pa.table([values[name].cast(_SPOOL.field(name).type) for name in _SPOOL.names], schema=_SPOOL)


def _count_errors(table: pa.Table, errors: dict[str, dict[str, Any]]) -> None:
    rows = zip(*(table[name].to_pylist() for name in ("status", "error", "key")), strict=True)
    for status, error, key in rows:
        if status == "error":
            kind = str((error or {}).get("kind"))
            known = errors.setdefault(kind, {"images": 0, "example": {}})
            known["images"] += 1
            known["example"] = known["example"] or {"key": key, "message": (error or {}).get("message")}


def _phrases(spool: duckdb.DuckDBPyConnection, top: int) -> dict[str, Any]:
    """Counts of phrases and the most frequent ones, each with an example image."""
    ((phrases, masks, different, once, truncated),) = spool.execute(
        "SELECT count(*), count(*) FILTER (has_target), count(DISTINCT phrase), "
        " (SELECT count(*) FROM (SELECT phrase FROM masks GROUP BY phrase HAVING count(*) = 1)),"
        " count(*) FILTER (truncated) FROM masks"
    ).fetchall()
    rows = spool.execute(
        "SELECT phrase, count(*) AS n, count(*) FILTER (has_target), avg(score) FILTER (has_target),"
        " avg(area_share) FILTER (has_target), min(key)"
        f" FROM masks GROUP BY phrase ORDER BY n DESC, phrase LIMIT {int(top)}"
    ).fetchall()
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


def _signals(spool: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Quantiles of each signal, the area and its share of the image, over masks with a target."""
    ((number,),) = spool.execute("SELECT count(*) FROM masks").fetchall()
    quantile = "quantile_cont" if number <= _EXACT_ROWS else "approx_quantile"
    found = {}
    for name in (*SIGNALS, "area", "area_share"):
        ((known, mean, values),) = spool.execute(
            f"SELECT count({name}), avg({name}), {quantile}({name}, {list(QUANTILES)})"
            " FROM masks WHERE has_target"
        ).fetchall()
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
        if status[row] != "ok":
            continue
        members = np.flatnonzero(sound & (batch.row_of == row))
        pixels = float(batch.sizes[row].prod())
        rles = coco_rles(segmentations.take(pa.array(members)))
        union = float(coco_mask.area(coco_mask.merge(rles))) if rles else 0.0
        twice = 0.0
        if len(rles) > 1:
            layers = sum(coco_mask.decode(rle).astype(np.uint16) for rle in rles)
            twice = float((np.asarray(layers) > 1).sum())
        yield union / pixels, twice / pixels


def _histogram(counts: Counter[int]) -> dict[str, Any]:
    """How many `ok` images have how many masks."""
    total = counts.total()
    mean = sum(number * images for number, images in counts.items()) / total if total else None
    return {"mean": mean, "histogram": {str(number): counts[number] for number in sorted(counts)}}
