"""The SSP-SAM authors' merged annotations: `anns/<dataset>.json`, `masks/<dataset>/<mask_id>.npy`.

Format and file names: github.com/WayneTomas/SSP-SAM, `data_seg/` and `datasets/dataset.py`. The
name of the file says which dataset it is, and with it how images are named and boxes written.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from sspsam.data.benchmark_files import (
    COCO_IMAGES,
    find_image_folder,
    join,
    opened,
    parent,
    pick_splits,
    require,
    stream_json,
)
from sspsam.data.data_config import DataConfig
from sspsam.data.json_depth import Nested
from sspsam.data.records import ImageRef, Record, Segmentation
from sspsam.errors import DataError, one_line

HOME = (
    "https://huggingface.co/wayneicloud/SSP-SAM (data_seg/anns/*.json; masks are made by "
    "data_seg/run.sh of https://github.com/WayneTomas/SSP-SAM)"
)
XYXY = ("grefcoco", "phrase_cut", "merge")  # boxes are corners there, xywh elsewhere
IMAGE_FOLDERS = {
    "coco": "coco/train2014",
    "referit": "referit/images",
    "flickr": "flickr",
    "vg": "VG",
    "phrase_cut": "vg",
}


def read_authors(config: DataConfig) -> Iterator[Record]:
    """Records of one annotation file, a record a sentence, streamed.

    `config.dataset` is the JSON file; its masks are looked for in `../masks/<name>/`. The file of
    the pre-training stage, `merge.json`, has boxes and no masks.

    Raises:
        DataError: a file is missing or not in the format, or there is no such split.
    """
    options = config.options
    path = config.dataset
    require({path: "the merged annotations"}, HOME, options)
    name = posixpath.basename(path).removesuffix(".json")
    splits = pick_splits(config.split, _split_names(path, options), path)
    places = _Places(config, name, path)
    for split in splits:
        # Sentences of one referent share its mask_id, so the position keeps keys apart.
        for position, ann in enumerate(stream_json(path, f"{split}.item", options)):
            try:
                image = ImageRef(places.image(ann))
                segmentation = places.mask(ann)
                box = _box(ann["bbox"], xyxy=name.startswith(XYXY))
                for number, phrase in enumerate(ann["refs"]):
                    yield Record(
                        key=f"{split}-{position}-{number}",
                        image=image,
                        phrase=phrase,
                        split=split,
                        has_target=box is not None,
                        segmentation=segmentation if box is not None else None,
                        box=box,
                        ids={
                            field: ann[field]
                            for field in ("iid", "mask_id", "cat_id", "task_id")
                            if field in ann
                        },
                        subsets=() if box else ("no target",),
                    )
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{path}: entry {position} of split {split} has not the fields of the authors' "
                    f"format ({error!r})"
                ) from error


class _Places:
    """Where the images and masks of one annotation file are; the first of either is looked for."""

    def __init__(self, config: DataConfig, name: str, path: str) -> None:
        self.config, self.name = config, name
        folder = "phrase_cut_mask" if name.startswith("phrase_cut") else name
        self.masks = None if name.startswith("merge") else join(parent(parent(path)), "masks", folder)
        self.roots: dict[str, str] = {}
        self.masks_found = False
        self.data = config.images or join(parent(parent(parent(path))), "data")

    def image(self, ann: dict[str, Any]) -> str:
        source, file = _image_name(self.name, ann)
        if source not in self.roots:
            tried = [join(self.data, IMAGE_FOLDERS[source]), self.data]
            tried.append(join(self.data, posixpath.basename(IMAGE_FOLDERS[source])))
            where = COCO_IMAGES if source == "coco" else "the README of " + HOME
            self.roots[source] = find_image_folder(file, tried, where, self.config.options)
        return join(self.roots[source], file)

    def mask(self, ann: dict[str, Any]) -> Segmentation | None:
        if self.masks is None:
            return None
        file = join(self.masks, f"{ann['mask_id']}.npy")
        if not self.masks_found:
            require({file: "the first of the masks"}, HOME, self.config.options)
            self.masks_found = True
        return Segmentation(file=file)


def _image_name(name: str, ann: dict[str, Any]) -> tuple[str, str]:
    """Which of `IMAGE_FOLDERS` the image is in, and its file name there."""
    if name.startswith("phrase_cut"):
        return "phrase_cut", join(str(ann["img_folder"]), f"{ann['iid']}.jpg")
    if name.startswith("merge"):
        source = ann["data_source"]
        if source == "coco":
            return "coco", f"COCO_train2014_{int(str(ann['iid']).split('.')[0]):012d}.jpg"
        return (source if source in ("flickr", "vg") else "referit"), str(ann["iid"])
    if name.startswith("refclef"):
        return "referit", f"{int(ann['iid'])}.jpg"
    return "coco", f"COCO_train2014_{int(ann['iid']):012d}.jpg"


def _box(values: list[float], *, xyxy: bool) -> tuple[float, float, float, float] | None:
    """(x, y, width, height); None for the zeros that stand for no target."""
    x, y, right, bottom = (float(value) for value in values)
    if not any(values):
        return None
    return (x, y, right - x, bottom - y) if xyxy else (x, y, right, bottom)


def _split_names(path: str, options: dict[str, Any]) -> list[str]:
    """Keys of the outermost object, read from the stream."""
    import ijson

    try:
        with opened(path, options) as handle:
            return [
                value
                for prefix, event, value in ijson.parse(Nested(handle))
                if prefix == "" and event == "map_key"
            ]
    except ijson.JSONError as error:
        raise DataError(f"{path} is not whole JSON ({one_line(error)}): fetch it again") from error
