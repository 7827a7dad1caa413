"""Generated scenes as a benchmark: the split's pictures are drawn into a folder, their truth is exact."""

from __future__ import annotations

import io
from collections.abc import Iterator

import fsspec
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from sspsam.data.benchmark_files import join, pick_splits
from sspsam.data.data_config import DataConfig
from sspsam.data.records import ImageRef, Record, Segmentation
from sspsam.errors import DataError
from sspsam.storage.storage_options import options_for

DEFAULT_SCENES = 250


def read_scenes(config: DataConfig) -> Iterator[Record]:
    """Records of generated scenes; a record's subset is its phrase's kind ("relation", "absent", ...).

    `config.dataset` is "scenes" or "scenes:COUNT", `config.images` the folder or URL that the
    pictures (PNG) are written to. The same split gives the same scenes everywhere.

    Raises:
        DataError: `config.dataset` says something else, there is no such split, or no folder.
    """
    from sspsam.scenes import SPLITS, scenes

    splits = pick_splits(config.split, list(SPLITS), "generated scenes")
    count = _count(config.dataset)
    if config.images is None:
        raise DataError("scenes are drawn when they are read: give the folder for them by --images")
    fs, folder = fsspec.core.url_to_fs(config.images, **options_for(config.images, config.options))
    fs.makedirs(folder, exist_ok=True)
    for split in splits:
        for scene in scenes(split, 0, count):
            picture = io.BytesIO()
            Image.fromarray(scene.image).save(picture, "PNG")
            fs.pipe_file(join(folder, f"{scene.key}.png"), picture.getvalue())
            height, width = scene.labels.shape
            for number, phrase in enumerate(scene.phrases):
                rle = coco_mask.encode(np.asfortranarray(scene.mask(phrase), dtype=np.uint8))
                there = bool(phrase.targets)
                segmentation = Segmentation.from_coco([rle]) if there else None
                x, y, w, h = (float(side) for side in coco_mask.toBbox(rle))
                yield Record(
                    key=f"{scene.key}-{number}",
                    image=ImageRef(join(config.images, f"{scene.key}.png")),
                    phrase=phrase.text,
                    split=split,
                    has_target=there,
                    segmentation=segmentation,
                    box=(x, y, w, h) if there else None,
                    width=width,
                    height=height,
                    ids={"scene": scene.key},
                    subsets=(phrase.kind, _COUNTS[min(len(phrase.targets), 2)]),
                )


_COUNTS = ("no target", "one target", "several targets")  # as gRefCOCO's subsets


def _count(dataset: str) -> int:
    name, _, count = dataset.partition(":")
    if name != "scenes" or (count and not count.isdecimal()) or count == "0":
        raise DataError(f"--format scenes reads DATASET scenes or scenes:COUNT, {dataset!r} is neither")
    return int(count) if count else DEFAULT_SCENES
