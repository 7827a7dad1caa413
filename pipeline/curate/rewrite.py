"""The second pass: survivors of a file as rows of the curated schema."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pycocotools import mask as coco_mask

from pipeline.dataset.dataset_schema import added_signals, schema_of
from pipeline.dataset.phrase_rows import one_array
from pipeline.dataset.segmentations import coco_rles
from pipeline.dataset.vocabulary import stable_hash


def split_of(key: str, split: Mapping[str, float], seed: int) -> str:
    """The split of an image: a function of its key, the shares and the seed alone."""
    point = stable_hash(key, seed) / 2.0**64
    for name, share in split.items():
        point -= share
        if point < 0:
            return name
    return next(name for name, share in reversed(list(split.items())) if share > 0)


def rewrite(
    table: pa.Table, rows: np.ndarray, masks: pa.Table, split: Mapping[str, float], seed: int
) -> pa.Table:
    """Rows of CURATED_SCHEMA, with the ADDED_SIGNALS that the source has.

    table: rows of the source. rows: (R,) which of them stay, ascending. masks: the phrases that stay, in
    order, with columns `row` (as in `rows`), `mask`, `has_target`, `aliases`.
    """
    annotations = one_array(table["annotations"])
    flat = annotations.flatten()
    counts = np.asarray(pc.fill_null(pc.list_value_length(annotations), 0), dtype=np.int64)
    starts = np.cumsum(counts) - counts
    of_row = np.asarray(masks["row"])
    kept = flat.take(pa.array(starts[of_row] + np.asarray(masks["mask"]), pa.int64()))
    number = np.bincount(of_row, minlength=table.num_rows)[rows]
    offsets = np.concatenate([[0], np.cumsum(number)]).astype(np.int32)
    fields = {one.name: kept.field(index) for index, one in enumerate(kept.type)}
    fields.update(_targets(fields, np.asarray(masks["has_target"])))
    fields["aliases"] = one_array(masks["aliases"])
    schema = schema_of(curated=True, added=added_signals(table.schema))
    kind = schema.field("annotations").type.value_type
    structs = pa.StructArray.from_arrays([fields[one.name].cast(one.type) for one in kind], fields=list(kind))
    columns = {name: table[name].take(pa.array(rows)) for name in table.schema.names}
    columns["annotations"] = pa.ListArray.from_arrays(pa.array(offsets), structs)
    columns["split"] = pa.array(
        [split_of(key, split, seed) for key in columns["key"].to_pylist()], pa.string()
    )
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _targets(fields: Mapping[str, pa.Array], decided: np.ndarray) -> dict[str, pa.Array]:
    """`has_target` as decided; where it became true, `area` and `bbox` of the stored segmentation."""
    restored = np.flatnonzero(decided & ~np.asarray(fields["has_target"].fill_null(False)))
    changed = {"has_target": pa.array(decided)}
    if len(restored):
        rles = coco_rles(fields["segmentation"].take(pa.array(restored)))
        area = np.array(fields["area"].fill_null(0).to_numpy(zero_copy_only=False))
        area[restored] = coco_mask.area(rles)
        boxes = fields["bbox"].to_pylist()
        for position, box in zip(restored, coco_mask.toBbox(rles).tolist(), strict=True):
            boxes[position] = box
        changed["area"] = pa.array(area, fields["area"].type)
        changed["bbox"] = pa.array(boxes, fields["bbox"].type)
    return changed
