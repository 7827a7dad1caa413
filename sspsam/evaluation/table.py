"""The per-sample table: one row a record, with all that any metric needs, so that metrics can be
computed again, by subset and with intervals, without the model."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from sspsam.schema import ERROR_TYPE, SIGNALS

#: `predicted_*` is what the model drew, whatever it decided; `predicted_has_target` is its decision.
#: Areas, intersections and unions are pixels: of the original image, or (authors_*) of the padded
#: scoring square. Those columns are null where there was no prediction, or no such protocol.
SAMPLE_SCHEMA: Final = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # of the record
        pa.field("shard", pa.string(), nullable=False),  # with image_key: the annotation row
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),  # path or URL
        pa.field("phrase", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("subsets", pa.list_(pa.string())),
        pa.field("ids", pa.string()),  # the dataset's identifiers, JSON
        pa.field("error", ERROR_TYPE),  # why there is no prediction
        pa.field("width", pa.int32()),  # pixels
        pa.field("height", pa.int32()),
        pa.field("has_target", pa.bool_(), nullable=False),  # the truth
        pa.field("predicted_has_target", pa.bool_()),
        pa.field("intersection", pa.int64()),
        pa.field("union", pa.int64()),
        pa.field("area", pa.int64()),  # of the truth; known without a prediction if the size is
        pa.field("predicted_area", pa.int64()),
        pa.field("iou", pa.float64()),  # its term of gIoU: as decided; a right "no target" is 1
        pa.field("box_iou", pa.float64()),  # predicted box with the true one; null without a target
        pa.field("authors_intersection", pa.int64()),
        pa.field("authors_union", pa.int64()),
        pa.field("authors_area", pa.int64()),
        pa.field("authors_predicted_area", pa.int64()),
        pa.field("authors_empty", pa.bool_()),  # so few predicted pixels that an empty truth forgives
        pa.field("authors_box_iou", pa.float64()),
        *(pa.field(name, pa.float32()) for name in SIGNALS),
    ],
    metadata={"sspsam.samples": "1"},
)


def column(table: pa.Table, name: str, fill: float = 0.0) -> np.ndarray:
    """A column as float64 (N,), nulls filled."""
    return table.column(name).cast(pa.float64()).fill_null(fill).to_numpy()


def flags(table: pa.Table, name: str) -> np.ndarray:
    """A boolean column as bool (N,), null as False."""
    values = table.column(name).fill_null(False).to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=bool)


def valid(table: pa.Table, name: str) -> np.ndarray:
    """bool (N,): where a column has a value. Of predicted areas: where there is a prediction."""
    values = table.column(name).is_valid().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=bool)


def image_groups(table: pa.Table) -> np.ndarray:
    """int64 (N,): which image a row is of, counted from 0 by the images' names, so that the order of
    rows does not matter. Phrases of an image are not independent: intervals are drawn over images."""
    names = table.column("image").to_numpy(zero_copy_only=False).astype(str)
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
