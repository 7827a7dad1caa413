"""Hostile benchmarks and ground truth, and RLE."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from jobs import import_, stats
from sspsam.data import DataConfig, read_records
from sspsam.rle import check_rle
from tests.fuzz.corpus import benchmarks
from tests.fuzz.mutations import spoil_bytes, spoil_text, spoil_tree
from tests.fuzz.verdicts import FindingError, command, judged
from tests.sspsam.data.benchmarks import instances, refer_refs


def benchmark(rng: random.Random, folder: Path) -> None:
    """REFER, gRefCOCO, PhraseCut and the authors' annotations: every record's mask is asked for."""
    given, form = benchmarks(), rng.choice(("refer", "grefcoco", "phrasecut", "authors"))
    source = {"refer": given.refer, "grefcoco": given.grefcoco, "phrasecut": given.phrasecut}.get(form)
    root = source or given.root / "data_seg"
    shutil.copytree(root, folder / "b", ignore=shutil.ignore_patterns("*.jpg"))
    files = sorted(path for path in (folder / "b").rglob("*") if path.suffix in (".p", ".json", ".npy"))
    spoiled = rng.choice(files)
    data = spoiled.read_bytes()
    if spoiled.suffix == ".p" and rng.random() < 0.5:
        data = pickle.dumps(spoil_tree(refer_refs(), rng), protocol=rng.choice((0, 2, 4)))
    elif spoiled.suffix == ".json" and rng.random() < 0.7:
        data = json.dumps(spoil_tree(json.loads(data), rng)).encode()
    else:
        data = (spoil_text if spoiled.suffix == ".json" else spoil_bytes)(data, rng)
    spoiled.write_bytes(data)
    dataset = folder / "b" / ("anns/refcoco.json" if form == "authors" else "")
    config = DataConfig(
        str(dataset), form, images=str(given.images if form != "phrasecut" else given.phrasecut / "images")
    )

    def use() -> None:
        for record in read_records(config):
            # A record travels to workers without its dataset: its key and image say which it is.
            judged(lambda record=record: record.rle(record.height or 72, record.width or 96), "record ")

    judged(use, str(folder), "no image ")  # which says where it was looked for


def coco(rng: random.Random, folder: Path) -> None:
    """COCO instances through `sspsam import`."""
    truth = instances()
    mask = np.zeros((72, 96), np.uint8, order="F")
    mask[9:20, 9:30] = 1
    rle = coco_mask.encode(mask)
    truth["annotations"][0]["segmentation"] = {"size": [72, 96], "counts": rle["counts"].decode()}
    truth["annotations"][1] |= {"segmentation": {"size": [72, 96], "counts": [1000, 12, 5900]}, "iscrowd": 1}
    data = json.dumps(spoil_tree(truth, rng) if rng.random() < 0.75 else truth).encode()
    source = folder / "instances.json"
    source.write_bytes(spoil_text(data, rng) if rng.random() < 0.3 else data)
    arguments = [str(source), str(folder / "out"), "--format", "coco", "--images", str(benchmarks().images)]
    separate = ["--instances", "separate"] if rng.random() < 0.5 else []
    if command(import_.main, [*arguments, *separate], "instances.json") != 2:
        command(stats.main, [str(folder / "out")], "out", codes=(0,))


def rle(rng: random.Random, _: Path) -> None:
    mask = np.asfortranarray(np.random.default_rng(rng.randrange(99)).random((9, 7)) < 0.5, dtype=np.uint8)
    size: Any = rng.choice(([9, 7], [7, 9], [0, 0], [2**31, 2**31], [9], [9, -7], [63, 1], (9, 7)))
    counts: Any = spoil_bytes(coco_mask.encode(mask)["counts"], rng)
    if rng.random() < 0.3:
        counts = counts.decode("latin-1")
    found = judged(lambda: check_rle({"size": size, "counts": counts}))
    if found is not None and len(found) < 10_000 and np.prod(size, dtype=float) < 1e6:
        decoded = coco_mask.decode(
            {"size": list(size), "counts": counts if isinstance(counts, bytes) else counts.encode()}
        )
        if decoded.sum() != found[1::2].sum():
            raise FindingError(f"{size} {counts!r} decodes to {decoded.sum()} pixels of {found[1::2].sum()}")
