"""The stream of images that every format writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.dataset.annotation_dataset import AnnotationDataset, AnnotationFile
from pipeline.dataset.destination import Destination
from pipeline.dataset.image_bytes import ahead, image_bytes, local_file, place_of, safe_name, url_of
from pipeline.dataset.phrase_rows import one_array, open_batch
from pipeline.dataset.segmentations import decode, segmentation_problems
from pipeline.export.categories import Categories
from pipeline.export.export_config import ExportConfig
from sspsam.errors import ConfigError, DataError
from sspsam.schema import SIGNALS


@dataclass(frozen=True)
class ExportMask:
    """One mask of an image. `number`: unique in the export, from 1. `category`: position in the names."""

    number: int
    category: int
    phrase: str
    aliases: tuple[str, ...]
    segmentation: dict[str, Any]
    bbox: tuple[float, ...]
    area: int
    signals: dict[str, float | None]

    def decode(self) -> np.ndarray:
        """Boolean (height, width) mask."""
        return decode(self.segmentation)


@dataclass(frozen=True)
class ExportImage:
    """One image with its masks (those that have a target). `number`: unique in the export, from 1.

    data: encoded bytes, None unless they are copied. name: file name without suffix, unique in the export.
    """

    number: int
    name: str
    suffix: str
    split: str
    row: Mapping[str, Any] = field(repr=False)
    data: bytes | None = field(repr=False)
    masks: tuple[ExportMask, ...]

    @property
    def width(self) -> int:
        return int(self.row["width"])

    @property
    def height(self) -> int:
        return int(self.row["height"])


@dataclass
class ExportJob:
    """The input, output and settings of one export, and its counters."""

    dataset: AnnotationDataset
    destination: Destination
    config: ExportConfig
    categories: Categories
    splits: tuple[str, ...]
    scratch: Path
    counts: Counter[str] = field(default_factory=Counter)

    def images(self, split: str) -> Iterator[ExportImage]:
        """The images of a split in the order of the dataset.

        An image whose file cannot be read is left out, counted and listed in `skipped_path`. Raises
        DataError for an invalid mask.
        """
        pairs = ahead(self._fetch, _rows(self.dataset, split), self.config.workers)
        for row, data, suffix, problem in pairs:
            if problem is not None:
                self._skip(row, problem)
                continue
            self.counts["images"] += 1
            self.counts[f"images_{split}"] += 1
            masks = []
            for one in row["annotations"]:
                self.counts["masks"] += 1
                masks.append(self._mask(one))
            name = f"{safe_name(row['shard'])}__{safe_name(row['key'])}"
            yield ExportImage(self.counts["images"], name, suffix, split, row, data, tuple(masks))

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals of each mask, with what commands added where the dataset has it."""
        return (*SIGNALS, *self.dataset.added)

    def portions(self, split: str, size: int | None = None) -> Iterator[Iterable[ExportImage]]:
        """`images` in portions of --images-per-file, each to be read before the next.

        size: images a portion if the option is not given; one portion of all if None.
        """
        images, limit = self.images(split), self.config.images_per_file or size
        if limit is None:
            yield images
            return
        while (first := next(images, None)) is not None:
            yield chain([first], islice(images, limit - 1))

    def values(self, image: ExportImage) -> dict[str, Any]:
        """An image and its masks as plain values, under the names of the schema."""
        row = image.row
        return {
            "key": row["key"],
            "shard": row["shard"],
            "width": image.width,
            "height": image.height,
            "caption": row["caption"],
            "image_url": url_of(row),
            "annotations": [
                {
                    "phrase": mask.phrase,
                    "aliases": list(mask.aliases),
                    "category": self.categories.names[mask.category],
                    "category_id": mask.category,
                    "segmentation": mask.segmentation,
                    "bbox": list(mask.bbox),
                    "area": mask.area,
                    **mask.signals,
                }
                for mask in image.masks
            ],
        }

    def place(self, image: ExportImage, folder: str) -> str:
        """Put an image's file under `folder`; what to call it relative to that, or its URL."""
        name = f"{image.name}{image.suffix}"
        if self.config.images == "reference":
            return url_of(image.row)
        if self.config.images == "link":
            link = Path(self.destination.store.path(f"{folder}/{name}"))
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(local_file(image.row))
        elif image.data is not None:
            self.destination.store.put(f"{folder}/{name}", image.data)
        return name

    @property
    def skipped_path(self) -> Path:
        return self.scratch / "skipped.jsonl"

    def _skip(self, row: Mapping[str, Any], reason: str) -> None:
        self.counts["images_skipped"] += 1
        line = json.dumps({"key": row["key"], "shard": row["shard"], "reason": reason}, ensure_ascii=False)
        with self.skipped_path.open("a", encoding="utf-8") as lines:
            lines.write(f"{line}\n")

    def _mask(self, one: Mapping[str, Any]) -> ExportMask:
        return ExportMask(
            self.counts["masks"],
            self.categories.of(one["phrase"] or ""),
            one["phrase"] or "",
            tuple(one.get("aliases") or ()),
            {"size": list(one["segmentation"]["size"]), "counts": one["segmentation"]["counts"]},
            tuple(one["bbox"]),
            int(one["area"]),
            {name: one[name] for name in self.signals},
        )

    def _fetch(self, row: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes | None, str, str | None]:
        """(row, bytes, suffix, why it cannot be exported)."""
        places = self.dataset.image_places
        try:
            if self.config.images == "copy":
                return row, *image_bytes(row, self.dataset.storage_options, places), None
            # Whoever follows a reference decides that; a link is followed by every tool that opens it.
            follow = places.locate if self.config.images == "reference" else places.admit
            row = {**row, "image_ref": follow(row["image_ref"] or {})}
            suffix = (local_file(row).suffix.lower() or ".img") if self.config.images == "link" else ""
            return row, None, suffix, None
        except DataError as error:
            return row, None, "", f"{place_of(row)}: {error}" if self.config.images != "copy" else str(error)


def check_link(config: ExportConfig, destination: Destination) -> None:
    """Raise ConfigError for --images link to a destination that is not local."""
    if config.images == "link" and not destination.store.local:
        raise ConfigError(f"--images link: {destination.url} is not a local folder; use copy or reference")


def _rows(dataset: AnnotationDataset, split: str) -> Iterator[dict[str, Any]]:
    """Rows without error of one split, `annotations` reduced to those with a target."""
    for file in dataset.files:
        for table in dataset.read_batches(file, rows=256):
            status = np.array(table["status"].to_pylist(), dtype=object)
            of_split = np.array(
                [(name or "train") for name in table["split"].to_pylist()]
                if dataset.curated
                else ["train"] * table.num_rows,
                dtype=object,
            )
            chosen = table.filter(pa.array((status != "error") & (of_split == split)))
            _check(dataset, file, chosen)
            for row in chosen.to_pylist():
                found = row["annotations"] or []
                row["annotations"] = [one for one in found if one and one["has_target"]]
                yield row


def _check(dataset: AnnotationDataset, file: AnnotationFile, table: pa.Table) -> None:
    """Raise DataError, naming file, key and phrase, if a mask is invalid."""
    if not table.num_rows:
        return
    batch = open_batch(table)
    problems = segmentation_problems(one_array(batch.masks["segmentation"]), batch.sizes[batch.row_of])
    for name in ("bbox", "area"):
        missing = np.flatnonzero(np.asarray(batch.masks[name].is_null()))
        problems.update(dict.fromkeys(missing.tolist(), f"{name} is null"))
    for position, problem in sorted(problems.items()):
        if batch.has_target[position]:
            key = table["key"][int(batch.row_of[position])].as_py()
            phrase = batch.masks["phrase"][position].as_py()
            raise DataError(
                f"{dataset.locate(file.path)}: image {key!r}, phrase {phrase!r}: {problem}."
                " `sspsam curate` drops such masks and counts them."
            )
