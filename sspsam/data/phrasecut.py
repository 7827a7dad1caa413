"""PhraseCut (VGPhraseCut_v0; arXiv 2008.01187): `refer_<split>.json` and `image_data_split.json`.

The subsets are those that the dataset's evaluator reports, under the same names, as far as they
follow from its files. Ranks (c20, a100, ...) need `name_att_rel_count.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sspsam.data.benchmark_files import (
    exists,
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

HOME = (
    "https://people.cs.umass.edu/~chenyun/phrasecut/ (download_dataset.py of "
    "https://github.com/ChenyunWu/PhraseCutDataset)"
)
IMAGES = "Visual Genome's images, parts 1 and 2: https://visualgenome.org, or download_dataset.py"


def read_phrasecut(config: DataConfig) -> Iterator[Record]:
    """Records of a PhraseCut folder, a record a task, streamed.

    Raises:
        DataError: a file is missing or not in the format, or there is no such split.
    """
    options = config.options
    folder = config.dataset
    if folder.endswith(".json"):
        folder = parent(folder)
    names = listing(folder, options)
    known = [
        name[len("refer_") : -len(".json")]
        for name in names
        if name.startswith("refer_") and not name.startswith("refer_input_")
    ]
    if not known:
        named = join(folder, f"refer_{config.split.split(',')[0]}.json")
        require({named: "the phrases of the split"}, HOME, options)
    splits = pick_splits(config.split, known, folder)
    infos = _image_infos(folder, names, options)
    ranks = _ranks(folder, options)
    root = config.images or join(folder, "images")
    nested = "VG_100K" in listing(root, options)  # as Visual Genome unpacks: two folders
    checked = False
    for split in splits:
        path = join(folder, f"refer_{split}.json")
        for task in stream_json(path, "item", options):
            try:
                info = infos.get(task["image_id"], {})
                name = f"{task['image_id']}.jpg"
                if nested and "url" in info:
                    name = join(*info["url"].split("/")[-2:])
                if not checked:
                    find_image_folder(name, [root], IMAGES, options)
                    checked = True
                yield _record(task, split, ImageRef(join(root, name)), info, ranks)
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{path}: task {task.get('task_id') if isinstance(task, dict) else task!r} has "
                    f"not the fields of PhraseCut ({error!r}); refer_input_*.json has no truth"
                ) from error


def _record(
    task: dict[str, Any],
    split: str,
    image: ImageRef,
    info: dict[str, Any],
    ranks: dict[str, dict[str, int]],
) -> Record:
    polygons = [polygon for instance in task["Polygons"] for polygon in instance]
    return Record(
        key=str(task["task_id"]),
        image=image,
        phrase=task["phrase"],
        split=split,
        has_target=True,
        segmentation=Segmentation.from_polygons(polygons, "phrasecut"),
        box=union_box(task["instance_boxes"]),
        width=info.get("width"),
        height=info.get("height"),
        ids={
            "task_id": task["task_id"],
            "image_id": task["image_id"],
            "ann_ids": list(task["ann_ids"]),
        },
        subsets=tuple(_subsets(task, ranks)),
    )


def _subsets(task: dict[str, Any], ranks: dict[str, dict[str, int]]) -> Iterator[str]:
    """Subset names of `utils/subset.py` of the dataset; size subsets follow from the mask later.

    Not given: t_stuff, t_obj and the kinds of attributes (a_color, ...), which stand in word lists
    of that file, and c_coco and d_cocotv, which need COCO's.
    """
    structure = task["phrase_structure"]
    attributes, relations = structure["attributes"], structure["relation_descriptions"]
    name, kind, instances = structure["name"], structure.get("type"), len(task["instance_boxes"])
    yield "i_single" if instances == 1 else "i_multi" if instances < 5 else "i_many"
    conditions = {
        "p_name": kind == "name",
        "p_att": bool(attributes),
        "p_att+": kind == "attribute",
        "p_rel": bool(relations),
        "p_rel+": kind == "relation",
        "p_verbose": kind == "verbose",
        "p_attm": len(attributes) > 1,
        "p_relm": len(relations) > 1,
        "p_att_rel": bool(attributes and relations),
    }
    yield from (subset for subset, holds in conditions.items() if holds)
    if ranks:
        yield from _bands("c", ranks["cat"].get(name, 501), (20, 100, 500))
        best = min([ranks["att"].get(attribute, 201) for attribute in attributes], default=201)
        yield from _bands("a", best, (20, 100, 200))
    yield f"category:{name}"
    yield from (f"attribute:{attribute}" for attribute in dict.fromkeys(attributes))
    yield from (f"relation:{relation[0]}" for relation in dict.fromkeys(map(tuple, relations)))


def _bands(letter: str, rank: int, ends: tuple[int, int, int]) -> Iterator[str]:
    """The cumulative and the separate bands of a frequency rank counted from 0."""
    first, second, third = ends
    bands = {
        f"{letter}{first}": rank < first,
        f"{letter}{first + 1}-{second}": first <= rank < second,
        f"{letter}{second + 1}-{third}": second <= rank < third,
        f"{letter}{third}+": rank >= third,
        f"{letter}{second}": rank < second,
        f"{letter}{third}": rank < third,
    }
    yield from (band for band, holds in bands.items() if holds)


def _image_infos(folder: str, names: list[str], options: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """image_id -> width, height, url; empty without the file: sizes then come from the images."""
    found = [name for name in names if name.startswith("image_data_split")]
    if not found:
        return {}
    entries = stream_json(join(folder, found[0]), "item", options)
    fields = ("width", "height", "url")
    return {entry["image_id"]: {name: entry[name] for name in fields if name in entry} for entry in entries}


def _ranks(folder: str, options: dict[str, Any]) -> dict[str, dict[str, int]]:
    """{"cat": name -> rank from 0, "att": attribute -> rank}; empty without the file."""
    path = join(folder, "name_att_rel_count.json")
    if not exists(path, options):
        return {}
    counts = json.loads(read_bytes(path, options))
    return {
        kind: {entry[0]: rank for rank, entry in reversed(list(enumerate(counts[kind])))}
        for kind in ("cat", "att")
    }
