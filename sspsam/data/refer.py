"""REFER (RefCOCO, RefCOCO+, RefCOCOg, RefCLEF) and gRefCOCO.

A folder holds `refs(unc).p` (a pickle) or `grefs(unc).json`, and `instances.json` in COCO's format.
Formats: github.com/lichengunc/refer and github.com/henghuiding/gRefCOCO.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterator
from typing import Any

from sspsam.data.benchmark_files import (
    COCO_IMAGES,
    find_image_folder,
    join,
    listing,
    parent,
    pick_splits,
    read_bytes,
    require,
    stream_json,
)
from sspsam.data.data_config import DataConfig
from sspsam.data.records import ImageRef, Record, Segmentation, union_box
from sspsam.errors import DataError

REFER_HOME = "https://github.com/lichengunc/refer (refcoco.zip, refcoco+.zip, refcocog.zip, refclef.zip)"
GREF_HOME = (
    "https://huggingface.co/datasets/FudanCVL/gRefCOCO (grefs(unc).json and instances.json; page: "
    "https://github.com/henghuiding/gRefCOCO)"
)
INSTANCES = "instances.json"
REFCLEF_IMAGES = "RefCLEF's images (saiapr_tc-12.zip), by way of https://github.com/lichengunc/refer"


class _PlainUnpickler(pickle.Unpickler):
    """Unpickles dicts, lists, tuples, strings and numbers; anything else could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants to import {module}.{name}")


def unpickle_plain(data: bytes, name: str) -> Any:
    """The plain containers in a pickle.

    Python 2's byte strings (REFER's files are of its time) are read as UTF-8, or else as Latin-1.

    Raises:
        DataError: the pickle holds anything but plain containers, or is damaged; nothing of it ran.
    """
    for encoding in ("utf-8", "latin-1"):
        try:
            return _PlainUnpickler(io.BytesIO(data), encoding=encoding).load()
        except UnicodeDecodeError:
            continue
        except Exception as error:
            raise DataError(
                f"{name} is not a pickle of plain lists and dicts ({error}); it was not run. Get "
                f"it from {REFER_HOME}"
            ) from error
    raise DataError(f"{name} holds strings that are neither UTF-8 nor Latin-1")


def read_refer(config: DataConfig) -> Iterator[Record]:
    """Records of a REFER folder, a record a sentence, in the order of its file.

    Raises:
        DataError: a file is missing or not in the format, or there is no such split.
    """
    options = config.options
    path = _refs_path(config, "refs", "p")
    _require(path, REFER_HOME, options)
    refs = unpickle_plain(read_bytes(path, options), path)
    if not isinstance(refs, list):
        raise DataError(f"{path} holds a {type(refs).__name__}, not the list of refs of REFER")
    yield from _records(config, path, refs)


def read_grefcoco(config: DataConfig) -> Iterator[Record]:
    """Records of a gRefCOCO folder. `ann_id` [-1] means no target; several ids mean their union.

    Raises:
        DataError: a file is missing or not in the format, or there is no such split.
    """
    path = _refs_path(config, "grefs", "json")
    _require(path, GREF_HOME, config.options)
    refs = list(stream_json(path, "item", config.options))
    yield from _records(config, path, refs)


def _require(path: str, where: str, options: dict[str, Any]) -> None:
    """Both files, so that one message names what is missing."""
    instances = join(parent(path), INSTANCES)
    require({path: "the referring expressions", instances: "their annotations"}, where, options)


def _refs_path(config: DataConfig, stem: str, suffix: str) -> str:
    """The one `refs(MAKER).p` of the folder, or the one that `split_by` names.

    Raises:
        DataError: there are several and none is named, or others than the one that is.
    """
    if config.dataset.endswith(f".{suffix}"):
        return config.dataset
    pattern = re.compile(rf"{stem}\((.+)\)\.{suffix}$")
    makers = [match[1] for name in listing(config.dataset, config.options) if (match := pattern.match(name))]
    maker = config.split_by or (makers[0] if len(makers) == 1 else "")
    if makers and maker not in makers:
        raise DataError(f"{config.dataset} is split by {', '.join(makers)}: choose one by --split-by")
    return join(config.dataset, f"{stem}({maker or 'unc'}).{suffix}")


def _records(config: DataConfig, path: str, refs: list[dict[str, Any]]) -> Iterator[Record]:
    options = config.options
    try:
        known = sorted({ref["split"] for ref in refs})
        names = sorted({name for split in known for name in _names(split)})
        splits = set(pick_splits(config.split, names, path))
        refs = [ref for ref in refs if not splits.isdisjoint(_names(ref["split"]))]
        wanted = {ann_id for ref in refs for ann_id in _ann_ids(ref)}
        image_ids = {ref["image_id"] for ref in refs}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: a ref has not the fields of its format ({error!r})") from error

    instances = join(parent(path), INSTANCES)
    images = {
        image["id"]: image
        for image in stream_json(instances, "images.item", options)
        if image["id"] in image_ids
    }
    anns = {
        ann["id"]: ann for ann in stream_json(instances, "annotations.item", options) if ann["id"] in wanted
    }
    categories = {
        category["id"]: category["name"] for category in stream_json(instances, "categories.item", options)
    }
    folder = ""
    for ref in refs:
        image = _entry(images, ref["image_id"], "image", instances)
        folder = folder or _image_folder(config, image["file_name"], parent(path))
        found = [_entry(anns, i, "annotation", instances) for i in _ann_ids(ref)]
        found = [ann for ann in found if not ann.get("iscrowd")]
        yield from _sentences(ref, image, found, categories, ImageRef(join(folder, image["file_name"])))


def _sentences(
    ref: dict[str, Any],
    image: dict[str, Any],
    anns: list[dict[str, Any]],
    categories: dict[int, str],
    where: ImageRef,
) -> Iterator[Record]:
    names = sorted({categories[ann["category_id"]] for ann in anns if ann["category_id"] in categories})
    count = "no target" if not anns else "one target" if len(anns) == 1 else "several targets"
    segmentation = Segmentation.from_coco(ann["segmentation"] for ann in anns) if anns else None
    for sentence in ref["sentences"]:
        yield Record(
            key=f"{ref['ref_id']}-{sentence['sent_id']}",
            image=where,
            phrase=sentence["sent"],
            split=ref["split"],
            has_target=bool(anns),
            segmentation=segmentation,
            box=union_box(ann["bbox"] for ann in anns),
            width=image["width"],
            height=image["height"],
            ids={
                "ref_id": ref["ref_id"],
                "sent_id": sentence["sent_id"],
                "image_id": ref["image_id"],
                "ann_ids": [ann["id"] for ann in anns],
            },
            subsets=(count, *(f"category:{name}" for name in names)),
        )


def _names(split: str) -> set[str]:
    """Every name under which REFER counts a ref's split.

    RefCLEF's refs are of `testA`, `testAB`, `testABC`, ...: each counts under each of its letters, and
    `test` is all of them (REFER's `getRefIds`, github.com/lichengunc/refer).
    """
    letters = split.removeprefix("test")
    if not split.startswith("test") or not letters.isupper():
        return {split}
    return {split, "test", *(f"test{letter}" for letter in letters)}


def _ann_ids(ref: dict[str, Any]) -> list[int]:
    ids = ref["ann_id"] if isinstance(ref["ann_id"], (list, tuple)) else [ref["ann_id"]]
    return [ann_id for ann_id in ids if ann_id != -1]


def _entry(index: dict[int, dict[str, Any]], key: int, kind: str, path: str) -> dict[str, Any]:
    try:
        return index[key]
    except KeyError:
        raise DataError(
            f"{path} has no {kind} {key}, which a ref names: the two files do not belong together"
        ) from None


def _image_folder(config: DataConfig, name: str, folder: str) -> str:
    root = config.images
    if root is not None:
        roots = [root, join(root, "train2014"), join(root, "saiapr_tc-12")]
    else:
        beside = [join(folder, "images"), join(parent(folder), "images"), folder]
        inside = ["", "train2014", "mscoco/images/train2014", "saiapr_tc-12"]
        roots = [join(place, inner) if inner else place for place in beside for inner in inside]
    where = COCO_IMAGES if name.startswith("COCO") else REFCLEF_IMAGES
    return find_image_folder(name, roots, where, config.options)
