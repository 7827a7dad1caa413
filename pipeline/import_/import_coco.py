"""Ground truth in COCO's instances format as an annotation dataset.

Neither the file nor its masks are held: both passes stream the JSON, and the instances are brought together
by image in a DuckDB that spills to disk.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import duckdb
import fsspec
import pyarrow as pa
from pycocotools import mask as coco_mask

from pipeline.dataset.data_card import write_made_card
from pipeline.dataset.destination import Destination
from pipeline.dataset.image_bytes import in_batches, safe_name
from pipeline.dataset.segmentations import segmentation_problem
from pipeline.sources.settings import check_settings
from sspsam.data.json_depth import Nested
from sspsam.errors import ConfigError, DataError, one_line
from sspsam.rle import MOST_PIXELS, check_outline
from sspsam.schema import ANNOTATION_SCHEMA
from sspsam.storage.local_paths import absolute

MANIFEST = "_import.json"

_ROWS_A_FILE = 1000

_INSTANCES_A_BATCH = 4096

_SPOOL = pa.schema(
    [("place", pa.int64()), ("phrase", pa.string()), ("counts", pa.string()), ("number", pa.int64())]
)


@dataclass(frozen=True)
class ImportConfig:
    """What is taken as the phrase, and where the images are.

    Args:
        images: folder or URL that file names are relative to; not needed with URLs or `coco_url`
        phrase_field: field of an annotation that holds its phrase; if missing, the category's name
        instances: merge the instances of one phrase of an image into one mask, or keep one mask each
        negatives: field of an image that lists what is not in it, as category ids (LVIS) or phrases: they
            become phrases without a target
    """

    images: str | None = None
    phrase_field: str = "phrase"
    instances: Literal["merge", "separate"] = "merge"
    negatives: str = "neg_category_ids"

    def __post_init__(self) -> None:
        check_settings(self)


def import_coco(
    source: str,
    destination: str,
    config: ImportConfig | None = None,
    *,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `source` (instances JSON) as an annotation dataset to `destination`; return its `_import.json`.

    Rows are in the file's order; `key` and `shard` are the image's own where it has them (`sspsam export`
    writes them), else the file name without its ending and the JSON file's name. Polygons and both kinds of
    RLE are read; instances that cannot be (no such image, a polygon of two points) are left out, counted and
    listed in `_skipped.jsonl`. Quality signals are null. Raises ConfigError or DataError naming the file.
    """
    config = config or ImportConfig()
    options = dict(storage_options or {})
    started = time.monotonic()
    names = {one.get("id"): str(one.get("name") or "") for one in _items(source, "categories", options)}
    images = _images(source, config, options, names)
    output = Destination(str(destination), MANIFEST, options)
    output.begin(overwrite=overwrite, sources=[])
    counts: Counter[str] = Counter(images=len(images))
    with tempfile.TemporaryDirectory(prefix="import-") as scratch:
        with duckdb.connect(f"{scratch}/instances.duckdb") as spool:
            skipped = Path(scratch) / "skipped.jsonl"
            spool.execute(
                "CREATE TABLE instances (place BIGINT, phrase VARCHAR, counts VARCHAR, number BIGINT)"
            )
            instances = _instances(source, config, options, names, images, skipped, counts)
            for batch in in_batches(instances, _INSTANCES_A_BATCH):
                spool.register("batch", pa.Table.from_pylist(batch, _SPOOL))
                spool.execute("INSERT INTO instances SELECT * FROM batch")
            _write(output, spool, list(images.values()), config, counts)
        if skipped.exists():
            output.put_file("_skipped.jsonl", skipped)
    manifest = {
        "version": 1,
        "source": str(source),
        "format": "coco",
        "images_at": config.images and absolute(config.images),
        **{
            name: counts[name]
            for name in ("images", "instances", "instances_skipped", "phrases", "without_target")
        },
        "seconds": round(time.monotonic() - started, 3),
    }
    output.finish(manifest)
    if manifest["images"]:
        write_made_card(output.store, ("sspsam", "import", "--format", "coco", source, destination), manifest)
    return {"complete": True, **manifest}


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


def _images(
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


def _instances(
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


def _write(
    output: Destination,
    spool: duckdb.DuckDBPyConnection,
    images: list[dict[str, Any]],
    config: ImportConfig,
    counts: Counter[str],
) -> None:
    reader = spool.execute("SELECT place, phrase, counts FROM instances ORDER BY place, number")
    fetched = chain.from_iterable(iter(lambda: reader.fetchmany(_INSTANCES_A_BATCH), []))
    found = groupby(fetched, key=itemgetter(0))
    place, instances = next(found, (None, iter(())))
    for shard, of_shard in groupby(images, key=itemgetter("shard")):
        for number, part in enumerate(in_batches(of_shard, _ROWS_A_FILE)):
            rows = []
            for image in part:
                annotations = []
                if image["place"] == place:
                    annotations = list(_annotations(image, list(instances), config))
                    place, instances = next(found, (None, iter(())))
                there = {one["phrase"] for one in annotations}
                annotations += [_absent(image, text) for text in image["negatives"] if text not in there]
                counts["phrases"] += len(annotations)
                counts["without_target"] += sum(not one["has_target"] for one in annotations)
                status = "ok" if annotations else "no_phrase"
                rows.append({**image, "status": status, "annotations": annotations})
            name = f"annotations/{safe_name(shard)}/{number:05d}.parquet"
            output.store.put_table(name, pa.Table.from_pylist(rows, ANNOTATION_SCHEMA))


def _annotations(
    image: Mapping[str, Any], instances: list[tuple[int, str, str]], config: ImportConfig
) -> Iterator[dict[str, Any]]:
    """The phrases of one image in the order of their first instance."""
    size = [image["height"], image["width"]]
    groups: dict[Any, list[dict[str, Any]]] = {}
    for number, (_, phrase, counts) in enumerate(instances):
        name = phrase if config.instances == "merge" else (phrase, number)
        groups.setdefault(name, []).append({"size": size, "counts": counts.encode("ascii")})
    for name, rles in groups.items():
        phrase = name if isinstance(name, str) else name[0]
        yield _annotation(image, phrase, rles[0] if len(rles) == 1 else coco_mask.merge(rles))


def _absent(image: Mapping[str, Any], phrase: str) -> dict[str, Any]:
    height, width = image["height"], image["width"]
    nothing = {"size": [height, width], "counts": [height * width]}
    return _annotation(image, phrase, coco_mask.frPyObjects(nothing, height, width))


def _annotation(image: Mapping[str, Any], phrase: str, rle: Mapping[str, Any]) -> dict[str, Any]:
    """A phrase and its mask, without a target if the mask is empty."""
    area = int(coco_mask.area(rle))
    caption = image["caption"]
    start = caption.find(phrase) if caption else -1
    return {
        "phrase": phrase,
        "start": start if start >= 0 else None,
        "end": start + len(phrase) if start >= 0 else None,
        "has_target": area > 0,
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
        "bbox": coco_mask.toBbox(rle).tolist() if area else [0.0] * 4,
        "area": area,
        "truncated": False,
    }
