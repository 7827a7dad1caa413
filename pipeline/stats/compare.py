"""Two annotation datasets of the same images: two runs, or a run and ground truth."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from pipeline.dataset.annotation_dataset import AnnotationDataset, AnnotationFile
from pipeline.dataset.phrase_rows import one_array
from pipeline.dataset.segmentations import coco_rle, segmentation_problems
from pipeline.dataset.vocabulary import normalise
from pipeline.sources.storage import is_local
from pipeline.stats.duckdb_faults import named_faults
from sspsam.errors import DataError
from sspsam.schema import RLE_TYPE, SIGNALS

_THRESHOLDS: Final = (0.5, 0.75, 0.9)
_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


def compare(
    first: AnnotationDataset, second: AnnotationDataset, *, top: int = 20, memory_mb: int = 1024
) -> dict[str, Any]:
    """How `second` differs from `first`, as JSON values.

    Images are matched by key (within a shard where both have the same shards), phrases by their normalised
    text and how often it came before in the image. A pair of masks has the IoU of its pixels; if neither has
    a target it counts as agreement and not in the mean, if one has none the IoU is 0. `cumulative_iou` is
    summed intersection over summed union. Raises DataError if no image is in both, or, naming the file, if
    one cannot be read.
    """
    images: Counter[str] = Counter()
    status: Counter[str] = Counter()
    with pairing(first, second, memory_mb) as connection:
        for files in portions(first, second):
            count_images(connection, first, second, files, images, status)
            measure(connection, first, second, files)
        if not images["both"]:
            raise nothing_in_both(first, second)
        found = _found(connection, top)
    return {
        "first": first.url,
        "second": second.url,
        "images": {name: images[name] for name in ("both", "only_first", "only_second")},
        "status": dict(status.most_common()),
        **found,
    }


@contextmanager
def pairing(
    first: AnnotationDataset, second: AnnotationDataset, memory_mb: int
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own, on disk, for `count_images` and `measure`; its errors come as DataError."""
    with named_faults(first, second), tempfile.TemporaryDirectory(prefix="compare-") as scratch:
        config: Any = {"memory_limit": f"{memory_mb}MiB", "threads": 1}
        with duckdb.connect(f"{scratch}/pairs.duckdb", config=config) as connection:
            for fs in {id(one.fs): one.fs for one in (first, second) if not is_local(one.fs)}.values():
                connection.register_filesystem(fs)
            connection.create_function("normalise", normalise, ["VARCHAR"], "VARCHAR")  # type: ignore[list-item]
            yield connection


def nothing_in_both(first: AnnotationDataset, second: AnnotationDataset) -> DataError:
    """The error for two datasets of different images."""
    return DataError(
        f"{first.url} and {second.url}: no image key is in both, so there is nothing to compare."
        " `sspsam import` takes keys from file names; annotate takes them from the input."
    )


def _found(connection: duckdb.DuckDBPyConnection, top: int) -> dict[str, Any]:
    """What the table `pairs` says; `top` entries of each list."""

    def rows(sql: str, *names: str) -> list[dict[str, Any]]:
        return [dict(zip(names, row, strict=True)) for row in connection.execute(sql).fetchall()]

    def only(side: str) -> list[dict[str, Any]]:
        counted = f"SELECT phrase, count(*) FROM pairs WHERE side = '{side}' GROUP BY phrase"
        return rows(f"{counted} ORDER BY count(*) DESC, phrase LIMIT {top}", "phrase", "count")

    def by_phrase(order: str) -> list[dict[str, Any]]:
        sql = (
            "SELECT phrase, count(*) AS n, avg(iou) AS mean FROM sound WHERE iou IS NOT NULL"
            f" GROUP BY phrase ORDER BY {order} LIMIT {top}"
        )
        return rows(sql, "phrase", "count", "mean_iou")

    connection.execute("CREATE VIEW sound AS SELECT * FROM pairs WHERE side = 'both' AND NOT broken")
    sides = dict(connection.execute("SELECT side, count(*) FROM pairs GROUP BY 1").fetchall())
    targets = dict(connection.execute("SELECT targets, count(*) FROM sound GROUP BY 1").fetchall())
    both = sum(targets.values())
    ((broken,),) = connection.execute("SELECT count(*) FROM pairs WHERE side = 'both' AND broken").fetchall()
    least = ", ".join(f"count(*) FILTER (iou >= {share})" for share in _THRESHOLDS)
    ((number, mean, cumulative, identical, quantiles, *reached),) = connection.execute(
        "SELECT count(iou), avg(iou), sum(intersection) / sum(area_of_union), count(*) FILTER (iou = 1),"
        f" quantile_disc(iou, {list(_QUANTILES)}), {least} FROM sound"
    ).fetchall()
    moved = {
        name: rows(
            "SELECT count(moved), avg(moved), avg(abs(moved)) FROM"
            f" (SELECT second.{name} - first.{name} AS moved FROM sound)",
            *("pairs", "mean", "mean_absolute"),
        )[0]
        for name in SIGNALS
    }
    listed = ", ".join(
        f"{{'has_target': coalesce({side}.has_target, false), 'score': {side}.score, 'area': {side}.area}}"
        for side in ("first", "second")
    )
    return {
        "phrases": {name: sides.get(name, 0) for name in ("both", "only_first", "only_second")},
        "most_frequent_only": {"first": only("only_first"), "second": only("only_second")},
        "targets": {name: targets.get(name, 0) for name in ("both", "only_first", "only_second", "neither")},
        "target_agreement": (targets.get("both", 0) + targets.get("neither", 0)) / both if both else None,
        "masks_compared": number,
        "masks_broken": broken,
        "mean_iou": mean,
        "cumulative_iou": cumulative,
        "identical": identical,
        "iou_at_least": dict(zip(map(str, _THRESHOLDS), reached, strict=True)),
        "iou_quantiles": dict(zip(map(str, _QUANTILES), quantiles, strict=True)) if number else {},
        "signal_change": {name: one for name, one in moved.items() if one["pairs"]},
        "iou_by_phrase": {
            "frequent": by_phrase("n DESC, phrase"),
            "lowest": by_phrase("mean, n DESC, phrase"),
        },
        "changed_most": rows(
            f"SELECT key, shard, phrase, iou, {listed} FROM sound"
            f" WHERE iou < 1 ORDER BY iou, shard, key, phrase LIMIT {top}",
            *("key", "shard", "phrase", "iou", "first", "second"),
        ),
    }


Files = tuple[list[AnnotationFile], list[AnnotationFile]]


def portions(first: AnnotationDataset, second: AnnotationDataset) -> Iterator[tuple[Files, bool]]:
    """Files to join with each other, and whether keys are unique in them only with their shard.

    Shard by shard where the names are the same, so that what is held does not grow with the dataset.
    """
    shards: dict[str, Files] = {}
    for side, dataset in enumerate((first, second)):
        for file in dataset.files:
            shards.setdefault(dataset.shard_of(file), ([], []))[side].append(file)
    if any(all(sides) for sides in shards.values()):
        yield from ((sides, True) for sides in shards.values())
    else:
        yield (list(first.files), list(second.files)), False


def _source(dataset: AnnotationDataset, files: list[AnnotationFile]) -> str:
    return dataset.parquet_source(files or dataset.files[:1])


def count_images(
    connection: duckdb.DuckDBPyConnection,
    first: AnnotationDataset,
    second: AnnotationDataset,
    portion: tuple[Files, bool],
    images: Counter[str],
    status: Counter[str],
) -> None:
    (one, two), by_shard = portion
    if not by_shard:
        _refuse_repeated_keys(connection, first, second)
    rows = connection.execute(
        f"SELECT a.status, b.status, count(*) FROM"
        f" (SELECT key, status FROM {_source(first, one)} WHERE {bool(one)}) a FULL JOIN"
        f" (SELECT key, status FROM {_source(second, two)} WHERE {bool(two)}) b USING (key) GROUP BY ALL"
    ).fetchall()
    for before, after, number in rows:
        if before is None or after is None:
            images["only_second" if before is None else "only_first"] += number
        else:
            images["both"] += number
            status[before if before == after else f"{before} -> {after}"] += number


def _refuse_repeated_keys(
    connection: duckdb.DuckDBPyConnection, first: AnnotationDataset, second: AnnotationDataset
) -> None:
    """Raise DataError if a key stands in two shards, so that it does not say which image is meant."""
    for dataset in (first, second):
        repeated = connection.execute(
            f"SELECT key, min(shard), max(shard) FROM {_source(dataset, list(dataset.files))}"
            " GROUP BY key HAVING count(*) > 1 LIMIT 1"
        ).fetchall()
        for key, one, other in repeated:
            raise DataError(
                f"{dataset.url}: key {key!r} is in the shards {one} and {other}, and the two datasets have no"
                " shard name in common, so images cannot be told apart. Name the shards alike."
            )


def measure(
    connection: duckdb.DuckDBPyConnection,
    first: AnnotationDataset,
    second: AnnotationDataset,
    portion: tuple[Files, bool],
) -> None:
    """Add every phrase of the images that are in both to the table `pairs`.

    side: who has the phrase. place: its place among the first's of the image, from 1. first, second: their
    annotations, without the masks. targets: who has one. iou, intersection, area_of_union: of the masks, null
    where neither has a target.
    """
    (one, two), _ = portion
    if not (one and two):
        return
    fields = ", ".join(f"'{name}': a.{name}" for name in ("has_target", "area", *SIGNALS))
    sides = [
        f"SELECT key, shard, normalise(a.phrase) AS phrase, {{{fields}}} AS rest, a.segmentation AS mask,"
        " place, row_number() OVER (PARTITION BY key, normalise(a.phrase) ORDER BY place) AS nth"
        f" FROM (SELECT key, shard, unnest(annotations) AS a, generate_subscripts(annotations, 1) AS place"
        f" FROM {_source(dataset, files)} SEMI JOIN (SELECT key FROM {_source(other, others)}) USING (key))"
        for dataset, files, other, others in ((first, one, second, two), (second, two, first, one))
    ]
    who = (
        "CASE WHEN {0} AND {1} THEN 'both' WHEN {0} THEN 'only_first' WHEN {1} THEN 'only_second'"
        " ELSE 'neither' END"
    )
    joined: Any = connection.sql(
        "SELECT key, coalesce(a.shard, b.shard) AS shard, phrase, a.place AS place,"
        " a.rest AS first, b.rest AS second, a.mask AS first_mask, b.mask AS second_mask,"
        f" {who.format('a.rest IS NOT NULL', 'b.rest IS NOT NULL')} AS side,"
        f" {who.format('a.rest.has_target', 'b.rest.has_target')} AS targets"
        f" FROM ({sides[0]}) a FULL JOIN ({sides[1]}) b USING (key, phrase, nth) ORDER BY key, phrase, nth"
    )
    with connection.cursor() as spool:
        reader = joined.to_arrow_reader(4096)
        tables = (pa.Table.from_batches([batch]) for batch in reader)
        for table in chain([reader.schema.empty_table()], tables):
            spool.register("measured", _measured(table))
            spool.execute("CREATE TABLE IF NOT EXISTS pairs AS FROM measured LIMIT 0")
            spool.execute("INSERT INTO pairs FROM measured")


def _measured(batch: pa.Table) -> pa.Table:
    """The phrases with `broken` and the overlaps, in place of the masks."""
    unknown = np.full((batch.num_rows, 2), -1)
    broken = np.zeros(batch.num_rows, dtype=bool)
    for side in ("first_mask", "second_mask"):
        broken[list(segmentation_problems(one_array(batch[side]).cast(RLE_TYPE), unknown))] = True
    sound = (np.array(batch["side"].to_pylist(), dtype=object) == "both") & ~broken
    overlaps = np.full((batch.num_rows, 3), np.nan)
    pairs = zip(*(batch[name].to_pylist() for name in ("first_mask", "second_mask", "targets")), strict=True)
    for at, (first, second, targets) in enumerate(pairs):
        if sound[at] and targets != "neither":
            overlaps[at] = _overlap(first, second, targets)
    found = batch.drop_columns(["first_mask", "second_mask"]).append_column("broken", pa.array(broken))
    for name, values in zip(("iou", "intersection", "area_of_union"), overlaps.T, strict=True):
        found = found.append_column(name, pa.array(values, from_pandas=True))
    return found


def _overlap(first: dict[str, Any], second: dict[str, Any], targets: str) -> tuple[float, float, float]:
    """(IoU, intersection, union) in pixels; a mask without a target is empty."""
    rles = [coco_rle(first), coco_rle(second)]
    areas = [
        float(coco_mask.area(rle)) if targets in ("both", only) else 0.0
        for rle, only in zip(rles, ("only_first", "only_second"), strict=True)
    ]
    if first["size"] != second["size"] or not all(areas):
        return 0.0, 0.0, sum(areas)
    iou = float(coco_mask.iou(rles[:1], rles[1:], [0])[0, 0])
    union = sum(areas) / (1.0 + iou)
    return iou, union * iou, union
