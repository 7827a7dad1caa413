"""Does fine-tuning forget "nothing there"? From the bundled model on scenes of an unseen style, end to end.

    python -m benchmarks.forgetting [--recipe finetune] [--device cuda] [--threads 2] [--try "epochs=4"] ...

Draws scenes of the style `twemoji` with their true masks and without their absent phrases as an annotation
dataset, trains on it with a recipe in this process (no Ray), and scores the model before and
after on other scenes of the style, and on held-out ones of the styles it knows: mIoU over the phrases with a
target, N-acc over those without. Each `--try` is one training with settings of `TrainConfig` other than the
recipe's. Prints a line each; the goal is mIoU 0.72 with N-acc 0.90 on the style.

A training takes 2 minutes on a GPU, 20 on one of two busy cores. Needs what the package itself needs.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from sspsam import SSPSAM, Segmenter
from sspsam.data import DataConfig
from sspsam.scenes import scenes
from sspsam.scenes.scene import Scene
from sspsam.schema import ANNOTATION_SCHEMA
from sspsam.training.recipes import RECIPES, run_stages
from sspsam.training.record_batches import RecordOptions
from sspsam.training.train_config import TrainConfig
from sspsam.training.training_data import RecordData

STYLE = "heldout-style"
_ROWS = 50  # of a file


def write_rows(folder: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rows of `embedded_row` as an annotation dataset."""
    (folder / "annotations").mkdir(parents=True)
    numbered = (row | {"index": number} for number, row in enumerate(rows))
    while some := list(islice(numbered, _ROWS)):
        table = pa.Table.from_pylist(some, schema=ANNOTATION_SCHEMA)
        pq.write_table(table, folder / "annotations" / f"{some[0]['index']:06d}.parquet")
    (folder / "_import.json").write_text(json.dumps({"version": 1, "complete": True, "format": "scenes"}))


def _row(scene: Scene, absent: bool) -> dict[str, Any]:
    phrases = [phrase for phrase in scene.phrases if phrase.targets or absent]
    return embedded_row(scene, [(phrase.text, scene.mask(phrase)) for phrase in phrases])


def embedded_row(
    scene: Scene, labels: Sequence[tuple[str, np.ndarray]], shard: str = "scenes"
) -> dict[str, Any]:
    """A row of the annotation schema with the picture and (S, S) bool masks, empty for what is not there."""
    picture = io.BytesIO()
    Image.fromarray(scene.image).save(picture, "PNG")
    height, width = scene.labels.shape
    annotations = []
    for text, mask in labels:
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        annotations.append(
            {
                "phrase": text,
                "has_target": bool(mask.any()),
                "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
                "bbox": coco_mask.toBbox(rle).tolist(),
                "area": int(coco_mask.area(rle)),
            }
        )
    return {
        "key": scene.key,
        "shard": shard,
        "status": "ok",
        "width": width,
        "height": height,
        "annotations": annotations,
        "image": {"bytes": picture.getvalue(), "path": None},
    }


def score(model: SSPSAM, split: str, count: int) -> dict[str, float]:
    """mIoU over phrases with a target, N-acc over those without, T-acc, of the first scenes of a split."""
    segmenter = Segmenter(model.eval())
    found: dict[str, list[float]] = {"mIoU": [], "N-acc": [], "T-acc": []}
    for scene in scenes(split, 0, count):
        phrases = [phrase.text for phrase in scene.phrases]
        for phrase, mask in zip(scene.phrases, segmenter.segment([scene.image], [phrases])[0], strict=True):
            if not phrase.targets:
                found["N-acc"].append(float(not mask.has_target))
                continue
            drawn, true = mask.decode() & mask.has_target, scene.mask(phrase)
            found["mIoU"].append(float((drawn & true).sum() / (drawn | true).sum()))
            found["T-acc"].append(float(mask.has_target))
    return {name: float(np.mean(values)) for name, values in found.items()}


def settings(words: str) -> dict[str, Any]:
    """ "absent_share=0.3 keep=best" as settings of TrainConfig."""
    pairs = (word.partition("=") for word in words.split())
    kinds = get_type_hints(TrainConfig)
    return {name: value if kinds[name] is str else json.loads(value) for name, _, value in pairs}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--recipe", default="finetune-towers", help="%(default)s, or finetune with 4 epochs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--scenes", type=int, default=600, help="to train on")
    parser.add_argument("--scored", type=int, default=150, help="scenes of each kind")
    parser.add_argument("--own-absent", action="store_true", help="keep the scenes' own absent phrases")
    parser.add_argument("--try", action="append", dest="tries", metavar="'NAME=VALUE ...'")
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = RECIPES[options.recipe][0]
    if options.recipe == "finetune":
        recipe = replace(recipe, epochs=4)
    load = partial(SSPSAM.from_pretrained, device=options.device)
    _tell("before", load(options.model), options.scored)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        drawn = scenes(STYLE, options.scored, options.scenes)
        write_rows(data, (_row(scene, options.own_absent) for scene in drawn))
        for number, words in enumerate(options.tries or [""]):
            started = time.monotonic()
            run_stages(
                (replace(recipe, **settings(words)),),
                Path(folder) / f"run-{number}",
                data=RecordData(
                    DataConfig(str(data), "annotations", split="all"),
                    options=RecordOptions(flip=0.5, translate=True),
                ),
                source=options.model,
                device=options.device,
                say=partial(print, flush=True),
            )
            minutes = (time.monotonic() - started) / 60
            trained = load(str(Path(folder) / f"run-{number}" / "model"))
            _tell(
                f"{words or 'as the recipe'}: {minutes:.1f} min on {options.device},", trained, options.scored
            )
    return 0


def _tell(what: str, model: SSPSAM, count: int) -> None:
    found = {
        name: score(model, split, count) for name, split in (("twemoji", STYLE), ("held-out", "heldout"))
    }
    told = [f"{name} {' '.join(f'{k} {v:.3f}' for k, v in found[name].items())}" for name in found]
    print(f"forgetting: {what} {'; '.join(told)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
