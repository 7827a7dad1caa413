"""Ground truth in COCO's instances format as an annotation dataset.

Neither the file nor its masks are held: both passes stream the JSON, and the instances are brought together
by image in a DuckDB that spills to disk.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pycocotools import mask as coco_mask

from pipeline.dataset.data_card import write_made_card
from pipeline.dataset.destination import Destination
from pipeline.dataset.image_bytes import in_batches, safe_name
from pipeline.import_.coco_instances import read_categories, read_images, read_instances
from pipeline.import_.import_config import ImportConfig
from sspsam.schema import ANNOTATION_SCHEMA
from sspsam.storage.local_paths import absolute

MANIFEST = "_import.json"

_ROWS_A_FILE = 1000

_INSTANCES_A_BATCH = 4096

_SPOOL = pa.schema(
    [("place", pa.int64()), ("phrase", pa.string()), ("counts", pa.string()), ("number", pa.int64())]
)


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
    names = read_categories(source, options)
    images = read_images(source, config, options, names)
    output = Destination(str(destination), MANIFEST, options)
    output.begin(overwrite=overwrite, sources=[])
    counts: Counter[str] = Counter(images=len(images))
    with tempfile.TemporaryDirectory(prefix="import-") as scratch:
        with duckdb.connect(f"{scratch}/instances.duckdb") as spool:
            skipped = Path(scratch) / "skipped.jsonl"
            spool.execute(
                "CREATE TABLE instances (place BIGINT, phrase VARCHAR, counts VARCHAR, number BIGINT)"
            )
            instances = read_instances(source, config, options, names, images, skipped, counts)
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
