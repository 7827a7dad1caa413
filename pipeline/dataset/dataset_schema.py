"""Schemas around the annotation schema, and the check that a file has it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from sspsam.errors import DataError
from sspsam.schema import ADDED_SIGNALS, ANNOTATION_SCHEMA, DESCRIPTIONS, annotation_schema

#: One row per verdict; `phrase` is null for a verdict on the whole image. The newest one wins.
REVIEW_SCHEMA: Final = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("phrase", pa.string()),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("note", pa.string()),
        pa.field("reviewed_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("reviewer", pa.string()),  # who gave it; null in files of earlier versions, or if not said
        pa.field("seconds", pa.float32()),  # from the moment it was shown
    ],
    metadata=ANNOTATION_SCHEMA.metadata,
)

#: Verdicts of a review; "none" withdraws the earlier ones.
VERDICTS: Final = ("accept", "reject", "flag")


#: What commands add -> the command that a message names.
WRITERS: Final = {
    "split": "curate",
    "agreement": "agree",
    "p_correct": "calibrate",
    "expected_iou": "annotate --verify",
    "flip_iou": "annotate --verify full",
}


def schema_of(curated: bool, added: Collection[str] = ()) -> pa.Schema:
    """The schema of a dataset that `curate` wrote, or one with some of ADDED_SIGNALS, or both.

    `curate` adds `split` to the row and `aliases` (phrases of merged masks) to each annotation.
    """
    schema = annotation_schema(added)
    if not curated:
        return schema
    place = schema.get_field_index("annotations")
    fields = [*schema.field(place).type.value_type, pa.field("aliases", pa.list_(pa.string()))]
    schema = schema.set(place, pa.field("annotations", pa.list_(pa.struct(fields))))
    return schema.append(pa.field("split", pa.string()))


#: What each field holds, those that commands add among them, by its path.
DESCRIBED: Final = {
    **DESCRIPTIONS,
    "split": "train, val or test",
    "annotations.aliases": "phrases of other masks of the image that were merged into this one",
    **{f"annotations.{name}": text for name, text in ADDED_SIGNALS.items()},
}

CURATED_SCHEMA: Final = schema_of(curated=True)


def added_signals(found: pa.Schema) -> tuple[str, ...]:
    """Which of ADDED_SIGNALS a file of annotations has."""
    names = found.field("annotations").type.value_type.names
    return tuple(name for name in ADDED_SIGNALS if name in names)


def check_schema(found: pa.Schema, where: str) -> bool:
    """Raise DataError, naming file and field, unless `found` is the annotation schema.

    Integers and floats of another width, large strings, and lists without a fixed length pass:
    other tools write those when they rewrite a file. Returns whether it has what `curate` adds.
    """
    curated = "split" in found.names
    expected = CURATED_SCHEMA if curated else ANNOTATION_SCHEMA
    for column in expected:
        if column.name not in found.names:
            raise DataError(
                f"{where}: no column {column.name!r}, so it is not an annotation file"
                f" (it has {', '.join(found.names[:12]) or 'no columns'})."
                " Give the folder that `sspsam annotate`, `curate` or `import` wrote."
            )
        problem = _type_problem(column.type, found.field(column.name).type, column.name)
        if problem:
            raise DataError(
                f"{where}: {problem}. Was it written by another version or tool?"
                " docs/schema.md has the schema; annotate the shard again or move the file away."
            )
    return curated


def _type_problem(expected: pa.DataType, found: pa.DataType, name: str) -> str | None:
    """One sentence on the first difference that reading cannot mend, or None."""
    if pa.types.is_struct(expected) and pa.types.is_struct(found):
        for child in expected:
            index = found.get_field_index(child.name)
            if index < 0:
                return f"column {name!r} has no field {child.name!r}"
            problem = _type_problem(child.type, found.field(index).type, f"{name}.{child.name}")
            if problem:
                return problem
        return None
    if _is_list(expected) and _is_list(found):
        return _type_problem(expected.value_type, found.value_type, f"{name}[]")
    if any(same(expected) and same(found) for same in _SAME_KIND):
        return None
    return f"column {name!r} is {found}, not {expected}"


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


_SAME_KIND: Final = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    _is_text,
    _is_bytes,
)


def leaf_columns(file: pq.ParquetFile, fields: Collection[str], columns: Collection[str] = ()) -> list[str]:
    """Paths of some `fields` of the annotations and some whole `columns`, as pyarrow reads them.

    A Parquet file stores each field of a nested struct apart; reading the phrases alone leaves the masks,
    which are nearly all of the file, on the disk.
    """
    paths = [file.schema.column(number).path for number in range(len(file.schema))]
    chosen = []
    for path in paths:
        parts = path.split(".")  # annotations, list, element, field, ...
        if parts[0] in columns or (parts[0] == "annotations" and len(parts) > 3 and parts[3] in fields):
            chosen.append(path)
    return chosen
