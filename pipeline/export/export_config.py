"""The settings of `sspsam export`: the format, and how images and phrases are written."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from pipeline.sources.settings import check_settings
from sspsam.errors import ConfigError

#: format -> one line of help.
FORMATS: Final = {
    "coco": "instances_<split>.json, masks as RLE",
    "coco-panoptic": "one PNG of segment ids an image, panoptic_<split>.json",
    "yolo": "one text file of polygons an image, data.yaml",
    "labelstudio": "tasks with brush masks as predictions, and the labelling configuration",
    "fiftyone": "FiftyOne's COCODetectionDataset: data/ and labels.json a split",
    "webdataset": "tar shards of image, caption and JSON",
    "hf": "Parquet shards with Hugging Face features, loaded by `datasets`",
    "lance": "one Lance dataset a split",
}

#: Formats that hold the images inside their own files, or need them beside the labels.
EMBEDDING: Final = ("webdataset", "hf", "lance")
NEEDS_FILES: Final = ("yolo", "fiftyone")


@dataclass(frozen=True)
class ExportConfig:
    """One export.

    Args:
        format: target format, see below
        images: copy them, link to local files (symbolic), or reference them by URL
        categories: category of a mask: its normalised phrase, the head noun of the phrase, or one for all
        images_per_file: images per file, where a file holds many; by default what is usual for the format
        workers: images fetched in parallel
        image_root: new location of INPUT, another location to read images from, or FROM=TO; repeatable
    """

    format: str
    images: Literal["copy", "link", "reference"] = "copy"
    categories: Literal["phrase", "head", "single"] = "phrase"
    images_per_file: int | None = None
    workers: int = 2 * (os.cpu_count() or 1)
    image_root: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigError(f"--format {self.format!r}: one of {', '.join(FORMATS)}")
        check_settings(self, images_per_file=1, workers=1)
        if self.images == "link" and self.format in EMBEDDING:
            raise ConfigError(
                f"--images link: {self.format} holds images inside its files; use copy or reference"
            )
        if self.images == "reference" and self.format in NEEDS_FILES:
            raise ConfigError(
                f"--images reference: {self.format} finds images by file name; use copy or link"
            )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
