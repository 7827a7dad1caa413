"""COCO's instances format as a stream: categories, images as rows without annotations, instances as RLE."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from pycocotools import mask as coco_mask

from pipeline.dataset.segmentations import segmentation_problem
from pipeline.import_.import_config import ImportConfig
from sspsam.data.json_depth import Nested
from sspsam.errors import ConfigError, DataError, one_line
from sspsam.rle import MOST_PIXELS, check_outline
from sspsam.storage.local_paths import absolute


def read_categories(source: str, options: Mapping[str, Any]) -> dict[Any, str]:
    """The name of each category by its id."""
    return {one.get("id"): str(one.get("name") or "") for one in _items(source, "categories", options)}


def _items(source: str, name: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The items of one top-level list, without holding the rest."""
    import ijson

    found = False
    try:
        with fsspec.open(source, "rb", compression="infer", **options) as stream:
            for item in ijson.items(Nested(stream), f"{name}.item", use_float=True):
                if not isinstance(item, dict):
                    raise DataError(f"{source}: {item!r:.80} in {name!r} is not as COCO has it")
                found = True
                yield item
    except (OSError, ijson.JSONError) as error:
        raise DataError(f"{source}: cannot be read as JSON ({one_line(error)})") from error
    if not found and name == "images":
        raise DataError(f"{source}: no list 'images' with anything in it; is it COCO's instances format?")


def read_images(
    source: str, config: ImportConfig, options: Mapping[str, Any], names: Mapping[Any, str]
) -> dict[Any, dict[str, Any]]:
    """Rows without annotations by image id, grouped by shard, else in the file's order."""
    rows: dict[Any, dict[str, Any]] = {}
    keys: set[tuple[str, str]] = set()
    default = PurePosixPath(source).name.partition(".")[0]
    for one in _items(source, "images", options):
        try:
            name, width, height = str(one["file_name"]), int(one["width"]), int(one["height"])
            number = one["id"]
            if min(width, height) < 1 or width * height > MOST_PIXELS:
                raise ValueError(f"not {width} x {height}")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"{source}: image {one!r:.80} needs id, file_name, width and height ({error})"
            ) from error
        key = str(one.get("key") or PurePosixPath(name).with_suffix(""))
        shard = str(one.get("shard") or default)
        if (shard, key) in keys:
            key = name
        if (shard, key) in keys or number in rows:
            raise DataError(f"{source}: image id {number!r} ({name}) stands there twice")
        keys.add((shard, key))
        rows[number] = {
            "key": key,
            "shard": shard,
            "width": width,
            "height": height,
            "caption": one.get("caption"),
            "image_ref": _reference(one, name, config, source),
            "negatives": _negatives(one, config, source, names),
        }
    ordered = sorted(rows.items(), key=lambda pair: pair[1]["shard"])
    starts: Counter[str] = Counter()
    for place, (_, row) in enumerate(ordered):
        row["place"], row["index"] = place, starts[row["shard"]]
        starts[row["shard"]] += 1
    return dict(ordered)


def _negatives(
    one: Mapping[str, Any], config: ImportConfig, source: str, names: Mapping[Any, str]
) -> list[str]:
    """The phrases that the file says mean nothing in an image."""
    listed = one.get(config.negatives) or []
    unknown = [item for item in listed if not isinstance(item, str) and not names.get(item)]
    if unknown:
        raise DataError(
            f"{source}: image {one['id']!r}: {config.negatives} has {unknown[0]!r}, which is the id of no "
            "category; mend the file, or --negatives '' imports none"
        )
    return [item if isinstance(item, str) else names[item] for item in listed]


def _reference(one: Mapping[str, Any], name: str, config: ImportConfig, source: str) -> dict[str, Any]:
    if "://" in name:
        return {"url": name, "member": None}
    if config.images is not None:
        return {"url": absolute(config.images).rstrip("/"), "member": name}
    if one.get("coco_url"):
        return {"url": str(one["coco_url"]), "member": None}
    raise ConfigError(f"--images: give the folder that the file names of {source} ({name}) are relative to")


def read_instances(
    source: str,
    config: ImportConfig,
    options: Mapping[str, Any],
    names: Mapping[Any, str],
    images: Mapping[Any, Mapping[str, Any]],
    skipped: Path,
    counts: Counter[str],
) -> Iterator[dict[str, Any]]:
    """place of the image, phrase, RLE counts and number of each instance that can be read."""
    for one in _items(source, "annotations", options):
        counts["instances"] += 1
        image = images.get(one.get("image_id"))
        phrase = one.get(config.phrase_field) or names.get(one.get("category_id"))
        try:
            if image is None:
                raise ValueError(f"no image has the id {one.get('image_id')!r}")
            if not phrase:
                raise ValueError(
                    f"neither {config.phrase_field!r} nor a category of id {one.get('category_id')!r}"
                )
            rle = read_segmentation(one.get("segmentation"), image["height"], image["width"])
        except (DataError, ValueError, TypeError, OverflowError) as error:
            counts["instances_skipped"] += 1
            with skipped.open("a", encoding="utf-8") as lines:
                lines.write(f"{json.dumps({'annotation': one.get('id'), 'reason': str(error)})}\n")
            continue
        yield {
            "place": image["place"],
            "phrase": str(phrase),
            "counts": rle,
            "number": counts["instances"],
        }


def read_segmentation(value: Any, height: int, width: int) -> str:
    """Compressed RLE `counts` of a COCO segmentation: polygons, or RLE of either kind.

    Raises ValueError that says what is wrong.
    """
    if isinstance(value, list):
        if not value or any(not isinstance(part, list) or len(part) < 6 or len(part) % 2 for part in value):
            raise ValueError("its polygons need x y pairs of three points at least")
        if not all(isinstance(side, int | float) for part in value for side in part):
            raise ValueError("its polygons are not of numbers")
        check_outline(value)
        rle = coco_mask.merge(coco_mask.frPyObjects(value, height, width))
    elif isinstance(value, dict) and isinstance(value.get("counts"), list):
        runs = value["counts"]
        if not runs or not all(isinstance(run, int) for run in runs):
            raise ValueError("its RLE is not of whole numbers")
        if list(value.get("size", [])) != [height, width] or sum(runs) != height * width or min(runs) < 0:
            raise ValueError(
                f"its RLE of {sum(runs)} pixels does not fit {height} x {width} (height x width)"
            )
        rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    elif isinstance(value, dict) and isinstance(value.get("counts"), str):
        problem = segmentation_problem(value, height, width)
        if problem is not None:
            raise ValueError(problem)
        return str(value["counts"])
    else:
        raise ValueError("it has no segmentation")
    return str(rle["counts"].decode("ascii"))
