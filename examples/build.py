"""Builds examples/shards and examples/truth from held-out scenes. Run once, by hand.

    python -m examples.build

Four tars as img2dataset writes them and one Parquet file, 20 images each, JPEG. A caption is kept only if
the parser finds phrases in it whose meaning in that scene is known exactly; those are the truth.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pycocotools import mask as coco_mask

from examples.score import phrase_key
from pipeline.phrases import Phrase, noun_phrases
from sspsam.scenes import Scene, SceneConfig, ScenePhrase, scenes
from sspsam.scenes.scene_captions import caption
from sspsam.schema import ANNOTATION_SCHEMA

EXAMPLES = Path(__file__).parent
KNOWN_SHARDS = EXAMPLES.parent / "sspsam" / "assets" / "drawn_shards.json"
PER_SHARD = 20
TARS = 4
SIDE = 320  # pixels
_FIRST = 10_000  # scene index: far from those that `sspsam evaluate` takes
_TRIES = 30  # captions a scene


@dataclass(frozen=True)
class Example:
    scene: Scene
    caption: str
    phrases: list[tuple[Phrase, ScenePhrase]]  # what the parser finds, and what it means


def examples() -> Iterator[Example]:
    for scene in scenes("heldout", _FIRST, 400, phrases=48, config=SceneConfig(size=SIDE)):
        known = {phrase_key(phrase.text): phrase for phrase in scene.phrases}
        for attempt in range(_TRIES):
            random = Random(f"{scene.key}/{attempt}")
            offered = random.sample(scene.phrases, min(10, len(scene.phrases)))
            sentence = caption(offered, random)
            found = noun_phrases([sentence])[0]
            meant = [known.get(phrase_key(phrase.text)) for phrase in found]
            if found and all(meant):
                pairs = [(a, b) for a, b in zip(found, meant, strict=True) if b is not None]
                yield Example(scene, sentence, pairs)
                break


def jpeg(scene: Scene) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(scene.image).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def truth_row(example: Example, key: str, shard: str, index: int) -> dict[str, Any]:
    """One row of the annotation schema with exact masks."""
    annotations = []
    for phrase, meant in example.phrases:
        mask = example.scene.mask(meant)
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        counts = {"size": [SIDE, SIDE], "counts": rle["counts"].decode("ascii")}
        annotations.append(
            {
                "phrase": phrase.text,
                "start": phrase.start,
                "end": phrase.end,
                "has_target": bool(meant.targets),
                "segmentation": counts,
                "bbox": [float(side) for side in coco_mask.toBbox(rle)],
                "area": int(mask.sum()),
            }
        )
    return {
        "key": key,
        "shard": shard,
        "index": index,
        "status": "ok",
        "width": SIDE,
        "height": SIDE,
        "caption": example.caption,
        "annotations": annotations,
    }


def write_shard(name: str, chosen: list[Example], as_parquet: bool) -> dict[str, dict[str, tuple[str, int]]]:
    """One shard and its truth; returns each phrase's kind and how many objects it means, by key."""
    shards, truth = EXAMPLES / "shards", EXAMPLES / "truth" / "annotations" / name
    shards.mkdir(exist_ok=True)
    truth.mkdir(parents=True)
    keys = [f"{name}-{i:03d}" for i in range(len(chosen))]
    if as_parquet:
        table = pa.table(
            {
                "key": keys,
                "image": pa.array([{"bytes": jpeg(e.scene), "path": None} for e in chosen]),
                "caption": [e.caption for e in chosen],
            }
        )
        pq.write_table(table, shards / f"{name}.parquet")
    else:
        with tarfile.open(shards / f"{name}.tar", "w") as archive:
            for key, example in zip(keys, chosen, strict=True):
                about = json.dumps({"caption": example.caption, "key": key}).encode()
                for suffix, content in (
                    ("jpg", jpeg(example.scene)),
                    ("txt", example.caption.encode()),
                    ("json", about),
                ):
                    member = tarfile.TarInfo(f"{key}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    rows = [truth_row(e, k, name, i) for i, (e, k) in enumerate(zip(chosen, keys, strict=True))]
    pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), truth / "00000.parquet")
    return {
        key: {phrase_key(p.text): (meant.kind, len(meant.targets)) for p, meant in example.phrases}
        for key, example in zip(keys, chosen, strict=True)
    }


def main() -> int:
    for folder in ("shards", "truth"):
        shutil.rmtree(EXAMPLES / folder, ignore_errors=True)
    source = examples()
    kinds: dict[str, dict[str, tuple[str, int]]] = {}
    for number in range(TARS + 1):
        chosen = [next(source) for _ in range(PER_SHARD)]
        as_parquet = number == TARS
        name = "scenes-parquet" if as_parquet else f"scenes-{number:02d}"
        kinds |= write_shard(name, chosen, as_parquet)
    (EXAMPLES / "truth" / "kinds.json").write_text(json.dumps(kinds))
    made = sorted((EXAMPLES / "shards").iterdir())
    known = {hashlib.sha256(shard.read_bytes()).hexdigest(): shard.stat().st_size for shard in made}
    KNOWN_SHARDS.write_text(json.dumps(known, indent=1) + "\n")
    size = sum(f.stat().st_size for f in EXAMPLES.glob("*/**/*") if f.is_file())
    print(f"{len(kinds)} images, {sum(map(len, kinds.values()))} phrases, {size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
