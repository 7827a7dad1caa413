"""A batch of rows with their phrases unnested, and which of them are kept so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.dataset_schema import added_signals, schema_of
from pipeline.dataset.vocabulary import normalise, stable_hash

#: (stage, "dropped_images" | "dropped_phrases" | "changed_phrases", reason) -> count
Counts = Counter[tuple[str, str, str]]

#: A phrase whose image was dropped in the same stage.
WITH_IMAGE: Final = "its_image_dropped"

#: The survivors' few numbers. `file` counts the dataset's files, `row` the rows of one, `mask` the
#: phrases of a row, all from 0. `order`: smaller is kept first among equals.
IMAGES: Final = pa.schema(
    [
        ("file", pa.int32()),
        ("row", pa.int32()),
        ("phash", pa.int64()),
        ("accepted", pa.bool_()),
        ("pixels", pa.int64()),
    ]
)
MASKS: Final = pa.schema(
    [
        ("file", pa.int32()),
        ("row", pa.int32()),
        ("mask", pa.int32()),
        ("phrase", pa.string()),
        ("has_target", pa.bool_()),
        ("accepted", pa.bool_()),
        ("score", pa.float32()),
        ("order", pa.uint64()),
        ("aliases", pa.list_(pa.string())),
    ]
)


@dataclass
class Batch:
    """A batch of rows of one file, and which of them are kept so far.

    rows: the image columns with `phrase_count` and `mask_count`. masks: one row a phrase, as in the view
    `masks`. row_of: (masks,) the row of each. aliases: phrases merged into a mask, by its position.
    """

    rows: pa.Table
    masks: pa.Table
    row_of: np.ndarray
    live_rows: np.ndarray
    live_masks: np.ndarray
    has_target: np.ndarray
    accepted_rows: np.ndarray
    accepted_masks: np.ndarray
    counts: Counts = field(default_factory=Counter)
    aliases: dict[int, list[str]] = field(default_factory=dict)

    @property
    def sizes(self) -> np.ndarray:
        """(rows, 2) int64: height and width of each image, -1 where unknown."""
        sides = [self.rows[name].cast(pa.int64()).fill_null(-1) for name in ("height", "width")]
        return np.stack([np.asarray(side) for side in sides], axis=1)

    def drop_rows(self, stage: str, which: np.ndarray, reason: str) -> None:
        """Drop the live rows of `which` (rows,) bool, and their masks."""
        dropped = self.live_rows & which
        if dropped.any():
            self.counts[stage, "dropped_images", reason] += int(dropped.sum())
            self.drop_masks(stage, dropped[self.row_of], WITH_IMAGE)
            self.live_rows &= ~dropped

    def drop_masks(self, stage: str, which: np.ndarray, reason: str) -> None:
        """Drop the live masks of `which` (masks,) bool."""
        dropped = self.live_masks & which
        if dropped.any():
            self.counts[stage, "dropped_phrases", reason] += int(dropped.sum())
            self.live_masks &= ~dropped


def batch_schema(schema: pa.Schema) -> pa.Schema:
    """The columns that predicates may name: those of the views `images` and `masks`."""
    batch = open_batch(schema.empty_table())
    return pa.schema(
        [*batch.rows.schema, *(one for one in batch.masks.schema if one.name not in _ROW_COLUMNS)]
    )


_ROW_COLUMNS: Final = frozenset(["key", "shard", "index"])


def open_batch(table: pa.Table) -> Batch:
    """Unnest the annotations of some rows."""
    annotations = one_array(table["annotations"])
    count = pc.fill_null(pc.list_value_length(annotations), 0).to_numpy(zero_copy_only=False)
    flat = annotations.flatten()
    row_of = np.repeat(np.arange(table.num_rows), count)
    masks = pa.Table.from_struct_array(flat)
    has_target = np.asarray(masks["has_target"].fill_null(False), dtype=bool)
    starts = np.cumsum(count) - count
    masks = masks.append_column("phrase_index", pa.array(np.arange(len(row_of)) - starts[row_of], pa.int64()))
    names = [name for name in table.schema.names if name not in ("annotations", "image")]
    targets = np.bincount(row_of[has_target], minlength=table.num_rows)
    rows = table.select(names).append_column("phrase_count", pa.array(count, pa.int64()))
    rows = rows.append_column("mask_count", pa.array(targets, pa.int64()))
    return Batch(
        rows,
        masks,
        row_of,
        np.ones(table.num_rows, dtype=bool),
        np.ones(len(row_of), dtype=bool),
        has_target,
        np.zeros(table.num_rows, dtype=bool),
        np.zeros(len(row_of), dtype=bool),
    )


def add_signals(table: pa.Table, values: Mapping[str, np.ndarray]) -> pa.Table:
    """The rows with fields added to, or replaced in, their annotations.

    values: {one of ADDED_SIGNALS: a value a phrase, NaN where it has none}, in the order of rows and phrases.
    """
    added = {*added_signals(table.schema), *values}
    schema = schema_of("split" in table.schema.names, added)
    annotations = one_array(table["annotations"])
    flat = annotations.flatten()
    counts = np.asarray(pc.fill_null(pc.list_value_length(annotations), 0), dtype=np.int64)
    kind = schema.field("annotations").type.value_type
    fields = {one.name: flat.field(at) for at, one in enumerate(flat.type)}
    fields |= {name: pa.array(told, pa.float32(), from_pandas=True) for name, told in values.items()}
    structs = pa.StructArray.from_arrays([fields[one.name] for one in kind], fields=list(kind))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    lists = pa.ListArray.from_arrays(offsets, structs)
    place = table.schema.get_field_index("annotations")
    whole = table.set_column(place, schema.field("annotations"), lists)
    return whole.replace_schema_metadata(table.schema.metadata or schema.metadata)


def one_array(column: pa.ChunkedArray) -> Any:
    """A column's values as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def survivors(
    batch: Batch, file: int, first_row: int, *, seed: int, hashed: bool
) -> tuple[pa.Table, pa.Table]:
    """What is left of a batch as IMAGES and MASKS. hashed: whether `order` is a hash, not 0."""
    rows = np.flatnonzero(batch.live_rows)
    kept = batch.rows.take(pa.array(rows))
    sides = [kept[name].cast(pa.int64()).fill_null(0) for name in ("width", "height")]
    images = pa.table(
        [
            pa.array(np.full(len(rows), file), pa.int32()),
            pa.array(rows + first_row, pa.int32()),
            kept["phash"],
            pa.array(batch.accepted_rows[rows]),
            pc.multiply(*sides),
        ],
        schema=IMAGES,
    )
    at = np.flatnonzero(batch.live_masks)
    masks = batch.masks.take(pa.array(at))
    phrases = [phrase or "" for phrase in masks["phrase"].to_pylist()]
    order: Any = np.zeros(len(at), dtype=np.uint64)
    if hashed:
        keys = batch.rows["key"].to_pylist()
        pairs = zip(batch.row_of[at], phrases, strict=True)
        order = np.array([stable_hash(f"{keys[row]}\0{phrase}", seed) for row, phrase in pairs], np.uint64)
    table = pa.table(
        [
            pa.array(np.full(len(at), file), pa.int32()),
            pa.array(batch.row_of[at] + first_row, pa.int32()),
            masks["phrase_index"].cast(pa.int32()),
            pa.array([normalise(phrase) for phrase in phrases], pa.string()),
            pa.array(batch.has_target[at]),
            pa.array(batch.accepted_masks[at]),
            masks["score"],
            pa.array(order),
            pa.array([_aliases(batch, position) for position in at.tolist()], pa.list_(pa.string())),
        ],
        schema=MASKS,
    )
    return images, table


def given_aliases(masks: pa.Table, position: int) -> list[str]:
    """Aliases from an earlier curation."""
    if "aliases" not in masks.schema.names:
        return []
    return list(masks["aliases"][position].as_py() or [])


def _aliases(batch: Batch, position: int) -> list[str]:
    """Every other phrase of a mask, each once."""
    names: dict[Any, None] = dict.fromkeys(given_aliases(batch.masks, position))
    if position in batch.aliases:
        names.update(dict.fromkeys(batch.aliases[position]))
        names.pop(batch.masks["phrase"][position].as_py(), None)
    return list(names)
