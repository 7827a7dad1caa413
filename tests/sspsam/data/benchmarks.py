"""Makes small benchmarks in every format that `sspsam.data` reads, written from the formats' published
descriptions, with exact truth kept beside them.

The pictures show a red square at the left, a blue disk at the right and a green triangle below, of
sizes that differ by picture. Images are numbered from 1; images 1 to 4 are split train, 5 to 7 val.

    made = make_benchmarks(tmp_path)
    made.refer, made.grefcoco, made.phrasecut, made.authors, made.images
    made.mask(5, "red square")       # boolean (height, width)
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

COLOURS = {"red square": (214, 48, 49), "blue disk": (52, 98, 219), "green triangle": (46, 158, 84)}
SHAPES = tuple(COLOURS)
IMAGES = range(1, 8)
SIZE = (96, 72)  # width, height


def split_of(image: int) -> str:
    return "train" if image < 5 else "val"


def polygon(image: int, shape: str) -> list[float]:
    """Flat [x0, y0, ...] outline of a shape in an image."""
    grow = image
    if shape == "red square":
        return [8.0, 10.0, 22.0 + grow, 10.0, 22.0 + grow, 24.0 + grow, 8.0, 24.0 + grow]
    if shape == "blue disk":
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        points = np.stack([70 + (9 + grow) * np.cos(angles), 22 + (9 + grow) * np.sin(angles)], axis=1)
        return [round(float(value), 2) for value in points.reshape(-1)]
    return [40.0, 46.0, 60.0 + grow, 68.0, 26.0, 68.0]


def file_name(image: int) -> str:
    return f"COCO_train2014_{image:012d}.jpg"


def draw(image: int) -> Image.Image:
    picture = Image.new("RGB", SIZE, (235, 230, 220))
    pen = ImageDraw.Draw(picture)
    for shape in SHAPES:
        pen.polygon(polygon(image, shape), fill=COLOURS[shape])
    return picture


@dataclass(frozen=True)
class MadeBenchmarks:
    root: Path

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def refer(self) -> Path:
        return self.root / "refcoco"

    @property
    def grefcoco(self) -> Path:
        return self.root / "grefcoco"

    @property
    def phrasecut(self) -> Path:
        return self.root / "VGPhraseCut_v0"

    def authors(self, name: str = "refcoco") -> Path:
        return self.root / "data_seg" / "anns" / f"{name}.json"

    def mask(self, image: int, *shapes: str) -> np.ndarray:
        """Boolean (height, width), drawn by pycocotools; the union of the shapes."""
        width, height = SIZE
        if not shapes:
            return np.zeros((height, width), bool)
        parts = coco_mask.frPyObjects([polygon(image, shape) for shape in shapes], height, width)
        return coco_mask.decode(coco_mask.merge(parts)).astype(bool)


def ann_id(image: int, shape: str) -> int:
    return 100 * image + SHAPES.index(shape)


def box(image: int, shape: str) -> list[float]:
    points = np.array(polygon(image, shape)).reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    return [*map(float, low), *map(float, high - low)]


def instances() -> dict[str, Any]:
    width, height = SIZE
    return {
        "images": [{"id": i, "file_name": file_name(i), "width": width, "height": height} for i in IMAGES],
        "annotations": [
            {
                "id": ann_id(i, shape),
                "image_id": i,
                "category_id": SHAPES.index(shape) + 1,
                "bbox": box(i, shape),
                "area": 1.0,
                "iscrowd": 0,
                "segmentation": [polygon(i, shape)],
            }
            for i in IMAGES
            for shape in SHAPES
        ],
        "categories": [
            {"id": n + 1, "name": shape, "supercategory": "thing"} for n, shape in enumerate(SHAPES)
        ],
    }


def sentence(number: int, text: str) -> dict[str, Any]:
    return {"sent_id": number, "raw": text.title(), "sent": text, "tokens": text.split()}


def refer_refs() -> list[dict[str, Any]]:
    """A ref a shape, of two sentences each."""
    refs = []
    for i in IMAGES:
        for n, shape in enumerate(SHAPES):
            ref = 10 * i + n
            refs.append(
                {
                    "ref_id": ref,
                    "ann_id": ann_id(i, shape),
                    "image_id": i,
                    "category_id": n + 1,
                    "split": split_of(i),
                    "file_name": f"COCO_train2014_{i:012d}_{ann_id(i, shape)}.jpg",
                    "sent_ids": [2 * ref, 2 * ref + 1],
                    "sentences": [sentence(2 * ref, shape), sentence(2 * ref + 1, f"the {shape}")],
                }
            )
    return refs


def gref_refs() -> list[dict[str, Any]]:
    """Per image: one target, two targets, no target."""
    refs = []
    for i in IMAGES:
        cases = [
            ([ann_id(i, "red square")], "the red square on the left"),
            ([ann_id(i, "red square"), ann_id(i, "blue disk")], "square and disk"),
            ([-1], "a purple elephant"),
        ]
        for n, (ids, text) in enumerate(cases):
            ref = 10 * i + n
            refs.append(
                {
                    "ref_id": ref,
                    "ann_id": ids,
                    "image_id": i,
                    "category_id": [-1] if ids == [-1] else [a % 100 + 1 for a in ids],
                    "split": split_of(i),
                    "sentences": [sentence(ref, text)],
                }
            )
    return refs


def phrasecut_tasks(split: str) -> list[dict[str, Any]]:
    tasks = []
    for i in IMAGES:
        if split_of(i) != split:
            continue
        for n, shape in enumerate(SHAPES):
            colour, name = shape.split()
            points = np.array(polygon(i, shape)).reshape(-1, 2).tolist()
            related = [["left of", "disk"]] if name == "square" else []
            tasks.append(
                {
                    "task_id": f"{i}__{n}",
                    "image_id": i,
                    "ann_ids": [ann_id(i, shape)],
                    "instance_boxes": [box(i, shape)],
                    "Polygons": [[points]],
                    "phrase": shape,
                    "phrase_structure": {
                        "name": name,
                        "attributes": [colour],
                        "relation_ids": [],
                        "relation_descriptions": related,
                        "type": "relation" if related else "attribute",
                    },
                }
            )
    return tasks


def make_benchmarks(root: Path) -> MadeBenchmarks:
    """Write all formats under `root`."""
    made = MadeBenchmarks(root)
    coco = made.images / "train2014"
    vg = made.phrasecut / "images"
    for folder in (coco, vg, made.refer, made.grefcoco):
        folder.mkdir(parents=True)
    width, height = SIZE
    for i in IMAGES:
        draw(i).save(coco / file_name(i), quality=95)
        draw(i).save(vg / f"{i}.jpg", quality=95)

    (made.refer / "refs(unc).p").write_bytes(pickle.dumps(refer_refs(), protocol=0))
    (made.refer / "instances.json").write_text(json.dumps(instances()))
    (made.grefcoco / "grefs(unc).json").write_text(json.dumps(gref_refs()))
    (made.grefcoco / "instances.json").write_text(json.dumps(instances()))

    for split in ("train", "val"):
        tasks = json.dumps(phrasecut_tasks(split))
        (made.phrasecut / f"refer_{split}.json").write_text(tasks)
    infos = [
        {"image_id": i, "width": width, "height": height, "split": split_of(i), "url": f"x/{i}.jpg"}
        for i in IMAGES
    ]
    (made.phrasecut / "image_data_split.json").write_text(json.dumps(infos))
    counts = {
        "cat": [["square", 30], ["disk", 20]] + [[f"other{n}", 1] for n in range(30)],
        "att": [["red", 9], ["blue", 8]],
        "rel": [["left of", 3]],
    }
    (made.phrasecut / "name_att_rel_count.json").write_text(json.dumps(counts))
    _make_authors(made)
    return made


def _make_authors(made: MadeBenchmarks) -> None:
    anns: dict[str, dict[str, list[dict[str, Any]]]] = {
        name: {"train": [], "val": []} for name in ("refcoco", "grefcoco", "merge")
    }
    for i in IMAGES:
        split = split_of(i)
        for n, shape in enumerate(SHAPES):
            mask_id = 10 * i + n
            x, y, w, h = box(i, shape)
            common = {"iid": i, "cat_id": n, "mask_id": mask_id}
            _save_mask(made, "refcoco", mask_id, made.mask(i, shape))
            # Train entries keep all sentences of a referent, the others are one entry a sentence.
            texts = [[shape, f"the {shape}"]] if split == "train" else [[shape], [f"the {shape}"]]
            for refs in texts:
                anns["refcoco"][split].append({**common, "bbox": [x, y, w, h], "refs": refs})
            merged = {"iid": f"{i}.jpg", "bbox": [x, y, x + w, y + h], "data_source": "coco"}
            anns["merge"][split].append({**merged, "refs": [shape]})
        for n, shapes in enumerate([("red square", "blue disk"), ()]):
            mask_id = 10 * i + n
            _save_mask(made, "grefcoco", mask_id, made.mask(i, *shapes))
            corners = np.array([box(i, shape) for shape in shapes]).reshape(-1, 4)
            merged_box = [0, 0, 0, 0]
            if len(corners):
                low = corners[:, :2].min(axis=0)
                high = (corners[:, :2] + corners[:, 2:]).max(axis=0)
                merged_box = [*low.tolist(), *high.tolist()]
            refs = ["square and disk"] if shapes else ["a purple elephant"]
            anns["grefcoco"][split].append(
                {"iid": i, "bbox": merged_box, "cat_id": [n], "refs": refs, "mask_id": mask_id}
            )
    for name, content in anns.items():
        path = made.authors(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def _save_mask(made: MadeBenchmarks, name: str, mask_id: int, mask: np.ndarray) -> None:
    folder = made.root / "data_seg" / "masks" / name
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{mask_id}.npy", mask.astype(np.uint8))
