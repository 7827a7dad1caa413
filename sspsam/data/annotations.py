"""Our own annotation Parquet as labelled data: what `annotate`, `curate` and `import` write."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.dataset as pads

from sspsam.data.benchmark_files import exists, join, pick_splits, read_bytes
from sspsam.data.data_config import DataConfig
from sspsam.data.records import ImageRef, Record, Segmentation
from sspsam.errors import DataError
from sspsam.images.image_places import ImagePlaces
from sspsam.storage.storage_options import options_for

COLUMNS = ("key", "shard", "index", "status", "width", "height", "annotations", "image_ref")
ALL = "all"


def read_annotations(config: DataConfig) -> Iterator[Record]:
    """Records of an annotation dataset, a record a phrase, streamed file by file.

    Rows with status "ok" only. An annotation without a target is a phrase that means nothing in the
    image. Aliases that `curate` found are records of their own, in subset "alias". `config.split`
    chooses by the column `split` that `curate` writes; without that column only "all" exists.

    Raises:
        DataError: not an annotation dataset, or there is no such split.
    """
    table = _open(config.dataset, config.options)
    columns = [*COLUMNS, *(["split"] if "split" in table.schema.names else [])]
    wanted = None
    if config.split != ALL:
        known = _splits(table) if "split" in columns else []
        wanted = pick_splits(config.split, [*known, ALL], config.dataset)
    places = ImagePlaces.of_dataset(
        config.dataset,
        functools.partial(_manifest, config),
        (*config.image_root, *([config.images] if config.images else [])),
    )
    for fragment in table.get_fragments():
        path = _url(config.dataset, fragment.path)
        embedded = _has_images(fragment)
        batches = fragment.to_batches(schema=table.schema, columns=columns, batch_size=1024)
        for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
            if row["status"] == "ok" and (wanted is None or row.get("split") in wanted):
                image = ImageRef(path, member=str(number)) if embedded else _image_ref(row, path, places)
                yield from _records(row, image)


def drawn_by(config: DataConfig) -> str | None:
    """The model that drew a dataset's masks; None where people did, or accepted every one of them."""
    made = _manifest(config, "_curation.json") or _manifest(config, "_agreement.json") or {}
    run = _manifest(config, "_run.json") or made.get("run")
    if not run or (made.get("config") or {}).get("reviews") == "accepted":
        return None
    return str((run.get("model") or {}).get("name", "a model"))


def _open(dataset: str, options: dict[str, Any]) -> pads.Dataset:
    folder = join(dataset, "annotations")
    if not exists(folder, options):
        folder = dataset
    fs, inner = fsspec.core.url_to_fs(folder, **options_for(folder, options))
    try:
        table = pads.dataset(inner, filesystem=fs, format="parquet")
    except (FileNotFoundError, pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{dataset} is no annotation dataset ({error}); it is the OUTPUT folder of annotate, "
            "curate or import, which holds annotations/<shard>/<chunk>.parquet"
        ) from error
    missing = [name for name in COLUMNS if name not in table.schema.names]
    if missing:
        raise DataError(
            f"{dataset} has not the annotation schema: no column {', '.join(missing)}; "
            "`sspsam import` makes such a dataset of others"
        )
    return table


def _url(dataset: str, path: str) -> str:
    """The path of a fragment with the protocol of the dataset it is in."""
    protocol, found, _ = dataset.partition("://")
    return f"{protocol}://{path}" if found else path


def _splits(table: pads.Dataset) -> list[str]:
    names: set[str] = set()
    for batch in table.to_batches(columns=["split"]):
        names.update(batch.column("split").unique().to_pylist())
    return sorted(name for name in names if name is not None)


def _has_images(fragment: pads.ParquetFileFragment) -> bool:
    """Whether a file embeds its images, from its footer alone: nothing of the bytes is read."""
    for group in range(fragment.metadata.num_row_groups):
        columns = fragment.metadata.row_group(group)
        for index in range(columns.num_columns):
            column = columns.column(index)
            if column.path_in_schema == "image.bytes":
                statistics = column.statistics
                return statistics is None or statistics.null_count < column.num_values
    return False


def _manifest(config: DataConfig, name: str) -> dict[str, Any] | None:
    path = join(config.dataset, name)
    if not exists(path, config.options):
        return None
    try:
        return dict(json.loads(read_bytes(path, config.options)))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: not valid JSON ({error}). Delete it or restore it.") from error


def _image_ref(row: dict[str, Any], path: str, places: ImagePlaces) -> ImageRef:
    if row["image_ref"] is None:
        raise DataError(
            f"{path}: image {row['key']} has neither image_ref nor image bytes, so it cannot be "
            "read again; annotate with --embed-images"
        )
    try:
        return ImageRef(**places.admit(row["image_ref"]))
    except DataError as error:
        raise DataError(f"{path}: image {row['key']}: {error}") from error


def _records(row: dict[str, Any], image: ImageRef) -> Iterator[Record]:
    for position, annotation in enumerate(row["annotations"] or []):
        has_target = bool(annotation["has_target"])
        segmentation, box = None, None
        if has_target:
            rle = annotation["segmentation"]
            segmentation = Segmentation(rles=((tuple(rle["size"]), rle["counts"]),))
            box = tuple(annotation["bbox"])
        phrases = [annotation["phrase"], *(annotation.get("aliases") or [])]
        for number, phrase in enumerate(phrases):
            yield Record(
                key=f"{row['shard']}/{row['index']}-{position}-{number}",
                image=image,
                phrase=phrase,
                split=row.get("split") or ALL,
                has_target=has_target,
                segmentation=segmentation,
                box=box,
                width=row["width"],
                height=row["height"],
                ids={
                    "key": row["key"],
                    "shard": row["shard"],
                    "index": row["index"],
                    "position": position,
                },
                subsets=(
                    "target" if has_target else "no target",
                    *(["alias"] if number else []),
                ),
            )
