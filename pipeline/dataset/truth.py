"""How well masks agree with true ones: a dataset of the same schema with the same keys and phrases.

Results stand in the index's table `truth(image_id, position, iou, truth_area)`, so that readers can
sort and sample by them; nothing else grows with the dataset.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

from pipeline.dataset.image_rows import Rows
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.phrase_index import Index
from pipeline.dataset.segmentations import coco_rle
from sspsam.errors import DataError
from sspsam.rle import check_rle

_BATCH = 1024  # images
_COLUMNS = ("key", "shard", "annotations")
_SCHEMA = pa.schema(
    [("image_id", pa.int64()), ("position", pa.int32()), ("iou", pa.float32()), ("area", pa.int64())]
)


@dataclass(frozen=True)
class Agreement:
    """Over phrases whose true mask is known. An empty mask where nothing is, is right.

    mean_iou: over phrases that have a true target; a missing mask counts as 0.
    no_target_accuracy: of phrases without a true target, the share left empty (gRefCOCO's N-acc.).
    """

    compared: int
    not_in_truth: int  # phrases of the dataset
    mean_iou: float | None
    no_target_accuracy: float | None
    missed: int  # with a true target, but left empty
    spearman: float | None  # rank correlation of score and IoU, masks with a target
    broken: int = 0  # phrases left out because a mask of theirs is damaged, or of another size


def make_table(index: Index) -> None:
    """An empty table `truth`, for queries that join it."""
    index.query(
        "create or replace table truth (image_id bigint, position integer, iou float, truth_area bigint)"
    )


class Truth:
    """A dataset of true masks, opened beside the index of the dataset that is compared with it.

    Images match by shard and key, or by key alone where no shard is common to both.
    """

    def __init__(self, index: Index, url: str, *, memory_mb: int = 1024, threads: int = 8) -> None:
        """Raises DataError if a file of it cannot be read."""
        self._mine = index
        self.url = url
        dataset = open_dataset(url, storage_options=index.dataset.storage_options, tolerant=True)
        self._index = Index(dataset, memory_mb=memory_mb, threads=threads)
        self._rows = Rows(self._index, threads=threads)
        self._index.refresh()
        problems = self._index.progress().problems
        if problems:
            raise DataError(problems[0][1])
        shards = [shard for (shard,) in self._index.query("select distinct shard from images")]
        ((common,),) = index.query("select count(*) from images where list_contains(?, shard)", [shards])
        self._name = 'shard || chr(0) || "key"' if common else '"key"'

    def rows(self, images: Sequence[int]) -> dict[int, dict[str, Any]]:
        """{id in the dataset compared: true row} of those images that the truth holds."""
        if not images:
            return {}
        mine = self._mine.query(
            f"select {self._name}, id from images where id in ({','.join(map(str, images))})"
        )
        found = dict(
            self._index.query(
                f"select {self._name}, min(id) from images where status = 'ok'"
                f" and {self._name} in (select unnest(?)) group by 1",
                [[name for name, _ in mine]],
            )
        )
        pairs = [(image, found[name]) for name, image in mine if name in found]
        rows = self._rows.read([other for _, other in pairs], _COLUMNS)
        return {image: row for (image, _), row in zip(pairs, rows, strict=True)}

    def held(self) -> list[tuple[str, str]]:
        """(shard, key) of the images that the truth holds."""
        names = [
            name for (name,) in self._index.query(f"select {self._name} from images where status = 'ok'")
        ]
        return self._mine.query(
            f'select shard, "key" from images where {self._name} in (select unnest(?))', [names]
        )

    def compare(self, rows: Rows) -> Agreement:
        """Fill the index's table `truth`; a pair of masks of which one is none is counted and left out.

        Raises DataError if nothing is common to both, or no pair can be compared.
        """
        last, broken = -1, 0
        problems: list[DataError] = []
        while True:
            batch = self._mine.query(
                f"select id from images where status = 'ok' and id > {last} order by id limit {_BATCH}"
            )
            if not batch:
                break
            last = batch[-1][0]
            true = self.rows([image for (image,) in batch])
            found: list[tuple[int, int, float, int]] = []
            for row in rows.read(list(true), _COLUMNS):
                for pair in _of_image(row, true[row["id"]]):
                    if isinstance(pair, DataError):
                        problems, broken = problems or [pair], broken + 1
                    else:
                        found.append(pair)
            _insert(self._mine, found)
        measured = measure(self._mine)
        agreement = replace(measured, broken=broken, not_in_truth=measured.not_in_truth - broken)
        if problems and not agreement.compared:
            raise problems[0]
        if not agreement.compared:
            raise DataError(
                f"--truth {self.url}: no image and phrase of it is in {self._mine.dataset.url};"
                " keys and phrases must be the same"
            )
        return agreement

    def close(self) -> None:
        self._rows.close()
        self._index.close()


def true_ious(index: Index, url: str, *, memory_mb: int) -> dict[tuple[str, str], dict[int, float]]:
    """{(shard, key) of an image that the dataset `url` holds: {position of a phrase: IoU with the truth}}.

    Phrases that `url` has not, and pairs that cannot be compared, are left out. Raises DataError as `Truth`.
    """
    make_table(index)
    truth, rows = Truth(index, url, memory_mb=memory_mb), Rows(index)
    try:
        truth.compare(rows)
        held = truth.held()
    finally:
        truth.close()
        rows.close()
    found: dict[tuple[str, str], dict[int, float]] = {image: {} for image in held}
    for shard, key, position, iou in index.query(
        'select shard, "key", position, iou from truth join images on id = image_id'
    ):
        found[shard, key][position] = iou
    return found


def load_samples(index: Index, path: str) -> Agreement:
    """Fill the table `truth` from the samples table of `sspsam evaluate` (sspsam.evaluation.table).

    Raises DataError if it is another table.
    """
    columns = ["shard", "image_key", "phrase", "has_target", "area", "iou"]
    try:
        with index.dataset.fs.open(path, "rb") as stream:
            samples = pq.read_table(stream, columns=columns).select(columns)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise DataError(f"{index.dataset.locate(path)}: no table of samples ({error})") from error
    with index.cursor() as cursor:
        cursor.register("samples", samples)
        cursor.execute(
            """insert into truth
            select i.id, min(m.position), any_value(s.iou),
                   any_value(case when s.has_target then coalesce(s.area, 1) else 0 end)
            from samples s join images i on i.shard = s.shard and i."key" = s.image_key
            join phrases p on p.phrase = s.phrase
            join masks m on m.image_id = i.id and m.phrase_id = p.phrase_id
            where s.iou is not null group by i.id, s.phrase"""
        )
    return measure(index)


def measure(index: Index) -> Agreement:
    """The numbers of what stands in the table `truth`."""
    ((compared, mean, accuracy, missed),) = index.query(
        """select count(*), avg(iou) filter (truth_area > 0),
        avg((not has_target)::integer) filter (truth_area = 0),
        count(*) filter (truth_area > 0 and not has_target)
        from truth join masks using (image_id, position)"""
    )
    ((phrases,),) = index.query("select count(*) from masks")
    ((spearman,),) = index.query(
        """select corr(a, b) from (
            select rank() over (order by score) + (count(*) over (partition by score) - 1) / 2.0 as a,
                   rank() over (order by iou) + (count(*) over (partition by iou) - 1) / 2.0 as b
            from truth join masks using (image_id, position)
            where has_target and truth_area > 0 and isfinite(score))"""
    )
    if spearman is not None and math.isnan(spearman):
        spearman = None
    return Agreement(compared, phrases - compared, mean, accuracy, missed, spearman)


def _of_image(
    mine: dict[str, Any], theirs: dict[str, Any]
) -> Iterator[tuple[int, int, float, int] | DataError]:
    """(image id, position, IoU, true area) of each phrase that both hold, or why masks cannot be compared.

    Repeats of a phrase pair in order.
    """
    waiting: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for annotation in reversed(theirs["annotations"] or []):
        waiting[annotation["phrase"]].append(annotation)
    for position, annotation in enumerate(mine["annotations"] or []):
        if not waiting[annotation["phrase"]]:
            continue
        true = waiting[annotation["phrase"]].pop()
        true_area = int(true["area"] or 0) if true["has_target"] else 0
        try:
            iou = _iou(mine["key"], annotation, true, true_area)
        except DataError as error:
            yield error
            continue
        yield mine["id"], position, iou, true_area


def _iou(key: str, annotation: dict[str, Any], true: dict[str, Any], true_area: int) -> float:
    if not annotation["has_target"] or not true_area:
        return 1.0 if not annotation["has_target"] and not true_area else 0.0
    first, second = annotation["segmentation"] or {}, true["segmentation"] or {}
    for where, rle in ((key, first), (f"truth of {key}", second)):
        try:
            check_rle(rle)
        except DataError as error:
            raise DataError(f"{where}, {annotation['phrase']!r}: {error}") from error
    if first["size"] != second["size"]:
        raise DataError(
            f"{key}: the mask is {first['size']} (height, width), the true one {second['size']};"
            " truth must be of the images that were annotated"
        )
    return float(coco_mask.iou([coco_rle(first)], [coco_rle(second)], [0])[0][0])


def _insert(index: Index, found: list[tuple[int, int, float, int]]) -> None:
    if not found:
        return
    columns = dict(zip(_SCHEMA.names, zip(*found, strict=True), strict=True))
    with index.cursor() as cursor:
        cursor.register("found", pa.table(columns, schema=_SCHEMA))
        cursor.execute("insert into truth select * from found")
