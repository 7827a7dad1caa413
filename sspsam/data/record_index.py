"""Records as an Arrow table: what evaluation hands to its workers and training reads by row number.

Whatever format a benchmark has, its index is small (masks stay polygons, run lengths or file names)
and opens without parsing the benchmark again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

import pyarrow as pa

from sspsam.data.records import ImageRef, Record, Segmentation
from sspsam.schema import IMAGE_REF_TYPE, RLE_TYPE

SEGMENTATION_TYPE: Final = pa.struct(
    [
        ("rings", pa.list_(pa.binary())),  # (n, 2) little-endian float64 (x, y) each
        ("rles", pa.list_(RLE_TYPE)),
        ("file", pa.string()),
        ("rasteriser", pa.string()),
    ]
)

#: The fields of `Record`; `image_key` names the image, unique in the index.
RECORD_SCHEMA: Final = pa.schema(
    [
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", IMAGE_REF_TYPE, nullable=False),
        pa.field("phrase", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("has_target", pa.bool_(), nullable=False),
        pa.field("segmentation", SEGMENTATION_TYPE),
        pa.field("box", pa.list_(pa.float64(), 4)),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("ids", pa.string()),  # JSON
        pa.field("subsets", pa.list_(pa.string())),
    ],
    metadata={"sspsam.records": "1"},
)


def records_digest(records: Iterable[Record]) -> str:
    """What tells the records of two readings apart: how many, and a digest of all but where images lie."""
    digest, count = hashlib.blake2b(digest_size=8), 0
    for count, one in enumerate(records, start=1):  # noqa: B007
        image = one.image.url.rsplit("/", 1)[-1], one.image.member
        told = (one.key, image, one.phrase, one.split, one.has_target, one.box, one.segmentation)
        digest.update(repr(told).encode())
    return f"{count:,}, {digest.hexdigest()}"


def image_keys(groups: Iterable[list[Record]]) -> list[str]:
    """A name for the image of each group: its key in our own dataset, or its file's name; made unique
    by a number where images of two folders have the same name."""
    taken: dict[str, int] = {}
    names = []
    for records in groups:
        image = records[0].image
        fallback = (image.member or image.url).rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
        name = str(records[0].ids.get("key") or fallback)
        taken[name] = taken.get(name, 0) + 1
        names.append(name if taken[name] == 1 else f"{name}~{taken[name]}")
    return names


def records_table(groups: list[list[Record]], keys: list[str]) -> pa.Table:
    """The records of groups of one image each, in order, under `RECORD_SCHEMA`."""
    rows = [_row(record, key) for records, key in zip(groups, keys, strict=True) for record in records]
    return pa.Table.from_pylist(rows, schema=RECORD_SCHEMA)


def table_records(table: pa.Table) -> list[Record]:
    """The inverse of `records_table`: the records in order."""
    return [_record(row) for row in table.to_pylist()]


def _row(record: Record, image_key: str) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in RECORD_SCHEMA.names if hasattr(record, name)}
    segmentation = record.segmentation
    row |= {
        "image_key": image_key,
        "image": asdict(record.image),
        "ids": json.dumps(record.ids, ensure_ascii=False),
        "segmentation": None if segmentation is None else asdict(segmentation),
    }
    if segmentation is not None:
        row["segmentation"]["rles"] = [
            {"size": list(size), "counts": counts} for size, counts in segmentation.rles
        ]
    return row


def _record(row: dict[str, Any]) -> Record:
    fields = {name: value for name, value in row.items() if name != "image_key"}
    parts = fields["segmentation"]
    if parts is not None:
        parts["rings"] = tuple(parts["rings"])
        parts["rles"] = tuple((tuple(rle["size"]), rle["counts"]) for rle in parts["rles"])
        fields["segmentation"] = Segmentation(**parts)
    fields["image"] = ImageRef(**fields["image"])
    fields["box"] = None if fields["box"] is None else tuple(fields["box"])
    fields["ids"] = json.loads(fields["ids"])
    fields["subsets"] = tuple(fields["subsets"] or ())
    return Record(**fields)
