"""Two annotation datasets of the same images: two runs, or a run and ground truth."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import count as counter
from pathlib import PurePosixPath
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from pipeline.dataset.annotation_dataset import AnnotationDataset, AnnotationFile
from pipeline.dataset.segmentations import coco_rle, segmentation_problems
from pipeline.dataset.vocabulary import normalise
from pipeline.sources.storage import is_local
from pipeline.stats.duckdb_faults import named_faults
from sspsam.errors import DataError
from sspsam.schema import RLE_TYPE, SIGNALS

_THRESHOLDS: Final = (0.5, 0.75, 0.9)


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
    tally = _Tally(top)
    config: Any = {"memory_limit": f"{memory_mb}MiB", "threads": 1}
    with named_faults(first, second), duckdb.connect(config=config) as connection:
        for fs in {id(one.fs): one.fs for one in (first, second) if not is_local(one.fs)}.values():
            connection.register_filesystem(fs)
        connection.create_function("normalise", normalise, ["VARCHAR"], "VARCHAR")  # type: ignore[list-item]
        for files in _portions(first, second):
            _count_images(connection, first, second, files, tally)
            for batch in _pairs(connection, first, second, files):
                tally.add(batch)
    if not tally.images["both"]:
        raise DataError(
            f"{first.url} and {second.url}: no image key is in both, so there is nothing to compare."
            " `sspsam import` takes keys from file names; annotate takes them from the input."
        )
    return {"first": first.url, "second": second.url, **tally.result()}


class _Tally:
    """Sums over all pairs, and the few that are listed."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.images: Counter[str] = Counter()
        self.status: Counter[str] = Counter()
        self.phrases: Counter[str] = Counter()
        self.targets: Counter[str] = Counter()
        self.only: dict[str, Counter[str]] = {"first": Counter(), "second": Counter()}
        self.by_phrase: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.histogram = np.zeros(1001, dtype=np.int64)
        self.intersection = self.union = self.sum = 0.0
        self.pairs = self.identical = self.broken = 0
        self.moves: dict[str, list[float]] = {name: [0, 0.0, 0.0] for name in SIGNALS}
        self.changed: list[tuple[float, int, dict[str, Any]]] = []
        self._order = counter()

    def add(self, batch: pa.Table) -> None:
        rows = batch.to_pylist()
        broken = _broken(batch)
        for at, row in enumerate(rows):
            sides = [side for side in ("first", "second") if row[side] is not None]
            self.phrases["both" if len(sides) == 2 else f"only_{sides[0]}"] += 1
            if len(sides) == 1:
                self.only[sides[0]][row["phrase"]] += 1
            elif at in broken:
                self.broken += 1
            else:
                self._add_pair(row)

    def _add_pair(self, row: dict[str, Any]) -> None:
        one, two = row["first"], row["second"]
        targets = (bool(one["has_target"]), bool(two["has_target"]))
        name = {(True, True): "both", (True, False): "only_first", (False, True): "only_second"}
        self.targets[name.get(targets, "neither")] += 1
        for signal, sums in self.moves.items():
            if None not in (one[signal], two[signal]):
                difference = two[signal] - one[signal]
                sums[0], sums[1], sums[2] = sums[0] + 1, sums[1] + difference, sums[2] + abs(difference)
        if targets == (False, False):
            return
        iou, intersection, union = _overlap(one, two, targets)
        self.pairs += 1
        self.sum += iou
        self.intersection += intersection
        self.union += union
        self.identical += iou == 1.0
        self.histogram[round(iou * 1000)] += 1
        sums_of = self.by_phrase[row["phrase"]]
        sums_of[0], sums_of[1] = sums_of[0] + 1, sums_of[1] + iou
        listed = {
            "key": row["key"],
            "shard": row["shard"],
            "phrase": row["phrase"],
            "iou": iou,
            "first": {"has_target": targets[0], "score": one["score"], "area": one["area"]},
            "second": {"has_target": targets[1], "score": two["score"], "area": two["area"]},
        }
        if iou < 1.0:
            # The least IoUs; among equals the first ones met.
            heapq.heappush(self.changed, (-iou, -next(self._order), listed))
            if len(self.changed) > self.top:
                heapq.heappop(self.changed)

    def result(self) -> dict[str, Any]:
        ranked = sorted(
            ((name, int(number), total / number) for name, (number, total) in self.by_phrase.items()),
            key=lambda one: (one[2], -one[1], one[0]),
        )
        frequent = sorted(ranked, key=lambda one: (-one[1], one[0]))
        both = sum(self.targets.values())
        agreed = self.targets["both"] + self.targets["neither"]
        return {
            "images": {name: self.images[name] for name in ("both", "only_first", "only_second")},
            "status": dict(self.status.most_common()),
            "phrases": {name: self.phrases[name] for name in ("both", "only_first", "only_second")},
            "most_frequent_only": {
                side: [{"phrase": name, "count": number} for name, number in found.most_common(self.top)]
                for side, found in self.only.items()
            },
            "targets": {
                name: self.targets[name] for name in ("both", "only_first", "only_second", "neither")
            },
            "target_agreement": agreed / both if both else None,
            "masks_compared": self.pairs,
            "masks_broken": self.broken,
            "mean_iou": self.sum / self.pairs if self.pairs else None,
            "cumulative_iou": self.intersection / self.union if self.union else None,
            "identical": self.identical,
            "iou_at_least": {str(one): int(self.histogram[round(one * 1000) :].sum()) for one in _THRESHOLDS},
            "iou_quantiles": self._quantiles(),
            "signal_change": {
                name: {"pairs": number, "mean": total / number, "mean_absolute": absolute / number}
                for name, (number, total, absolute) in self.moves.items()
                if number
            },
            "iou_by_phrase": {
                "frequent": [_phrase_entry(one) for one in frequent[: self.top]],
                "lowest": [_phrase_entry(one) for one in ranked[: self.top]],
            },
            "changed_most": [one for *_, one in sorted(self.changed, key=lambda item: (-item[0], -item[1]))],
        }

    def _quantiles(self) -> dict[str, float]:
        """Of the IoUs, to a thousandth."""
        if not self.pairs:
            return {}
        reached = np.cumsum(self.histogram)
        places = {
            share: np.searchsorted(reached, share * self.pairs) for share in (0.05, 0.25, 0.5, 0.75, 0.95)
        }
        return {str(share): float(place) / 1000 for share, place in places.items()}


def _phrase_entry(one: tuple[str, int, float]) -> dict[str, Any]:
    return {"phrase": one[0], "count": one[1], "mean_iou": one[2]}


def _overlap(
    one: dict[str, Any], two: dict[str, Any], targets: tuple[bool, bool]
) -> tuple[float, float, float]:
    """(IoU, intersection, union) in pixels; a mask without a target is empty."""
    sizes = (one["segmentation"]["size"], two["segmentation"]["size"])
    rles = [coco_rle(one["segmentation"]), coco_rle(two["segmentation"])]
    areas = [float(coco_mask.area(rle)) if has else 0.0 for rle, has in zip(rles, targets, strict=True)]
    if sizes[0] != sizes[1] or not all(areas):
        return 0.0, 0.0, sum(areas)
    iou = float(coco_mask.iou(rles[:1], rles[1:], [0])[0, 0])
    union = sum(areas) / (1.0 + iou)
    return iou, union * iou, union


def _broken(batch: pa.Table) -> set[int]:
    """Positions of the pairs in which a mask is not one."""
    problems: set[int] = set()
    for side in ("first", "second"):
        column = batch[side].combine_chunks()
        there = np.flatnonzero(np.asarray(column.is_valid()))
        segmentations = column.take(pa.array(there)).field("segmentation")
        unknown = np.full((len(there), 2), -1)
        found = segmentation_problems(segmentations.cast(RLE_TYPE), unknown)
        problems.update(there[list(found)].tolist())
    return problems


Files = tuple[list[AnnotationFile], list[AnnotationFile]]


def _portions(first: AnnotationDataset, second: AnnotationDataset) -> Iterator[tuple[Files, bool]]:
    """Files to join with each other, and whether keys are unique in them only with their shard.

    Shard by shard where the names are the same, so that what is held does not grow with the dataset.
    """
    shards: dict[str, Files] = {}
    for side, dataset in enumerate((first, second)):
        for file in dataset.files:
            shards.setdefault(_shard(dataset, file), ([], []))[side].append(file)
    if any(all(sides) for sides in shards.values()):
        yield from ((sides, True) for sides in shards.values())
    else:
        yield (list(first.files), list(second.files)), False


def _shard(dataset: AnnotationDataset, file: AnnotationFile) -> str:
    return str(PurePosixPath(file.path).parent.relative_to(f"{dataset.root}/annotations"))


def _source(dataset: AnnotationDataset, files: list[AnnotationFile]) -> str:
    return dataset.parquet_source(files or dataset.files[:1])


def _count_images(
    connection: duckdb.DuckDBPyConnection,
    first: AnnotationDataset,
    second: AnnotationDataset,
    portion: tuple[Files, bool],
    tally: _Tally,
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
            tally.images["only_second" if before is None else "only_first"] += number
        else:
            tally.images["both"] += number
            tally.status[before if before == after else f"{before} -> {after}"] += number


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


def _pairs(
    connection: duckdb.DuckDBPyConnection,
    first: AnnotationDataset,
    second: AnnotationDataset,
    portion: tuple[Files, bool],
) -> Iterator[pa.Table]:
    """key, shard, phrase and the structs `first` and `second`, for images that are in both."""
    (one, two), _ = portion
    if not (one and two):
        return
    fields = ", ".join(f"'{name}': a.{name}" for name in ("has_target", "segmentation", "area", *SIGNALS))
    sides = [
        f"SELECT key, shard, normalise(a.phrase) AS phrase, {{{fields}}} AS mask,"
        " row_number() OVER (PARTITION BY key, normalise(a.phrase) ORDER BY place) AS nth"
        f" FROM (SELECT key, shard, unnest(annotations) AS a, generate_subscripts(annotations, 1) AS place"
        f" FROM {_source(dataset, files)} SEMI JOIN (SELECT key FROM {_source(other, others)}) USING (key))"
        for dataset, files, other, others in ((first, one, second, two), (second, two, first, one))
    ]
    joined: Any = connection.sql(
        f"SELECT key, coalesce(a.shard, b.shard) AS shard, phrase, a.mask AS first, b.mask AS second"
        f" FROM ({sides[0]}) a FULL JOIN ({sides[1]}) b USING (key, phrase, nth) ORDER BY key, phrase, nth"
    )
    for batch in joined.to_arrow_reader(4096):
        yield pa.Table.from_batches([batch])
