"""The rules of docs/curation.md as plainly as can be: one image and one mask at a time, masks as pixels.

What `curate` writes is compared with this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from pipeline.curate import CurateConfig
from pipeline.dataset.vocabulary import normalise, stable_hash

Row = dict[str, Any]

#: The verdicts of the fixture `made`, by (number of the good image, position of the phrase or None).
VERDICTS = {(0, None): "reject", (2, None): "flag", (3, 0): "reject", (4, -2): "accept"}


def plainly(rows: list[Row], config: CurateConfig, where: Callable[[Row, Row], bool]) -> list[Row]:
    """The rows that stay, of `rows`; `where(row, mask)` says what the predicates say."""
    good = [row for row in rows if row["status"] == "ok"]
    images: list[tuple[Row, list[Row]]] = []
    for number, row in enumerate(good):
        of_image = VERDICTS.get((number, None)) if config.reviews != "ignore" else None
        if of_image == "reject" or (of_image == "flag" and config.drop_flagged):
            continue
        masks = []
        for position, annotation in enumerate(row["annotations"]):
            places = ((number, position), (number, position - len(row["annotations"])))
            verdict = next((VERDICTS[place] for place in places if place in VERDICTS), None)
            accepted = config.reviews != "ignore" and verdict == "accept"
            one = {**annotation, "aliases": [], "accepted": accepted}
            if config.min_target_pixels is not None:
                one["has_target"] = one["target_pixels"] >= config.min_target_pixels
            rejected = config.reviews != "ignore" and verdict == "reject"
            broken = number == 7 and position == 0
            unwanted = rejected or broken or not (one["has_target"] or config.keep_no_target)
            unwanted = unwanted or (config.reviews == "accepted" and not accepted)
            if not unwanted and where(row, one):
                masks.append(one)
        if config.merge_iou is not None:
            masks = _merged(masks, config.merge_iou)
        if masks or config.keep_empty:
            images.append((row, masks))
    if config.phash_distance is not None:
        images = _apart(images, config.phash_distance)
    if config.max_per_phrase is not None:
        images = _capped(images, config)
    return [{**row, "annotations": masks} for row, masks in images if masks or config.keep_empty]


def decoded(one: Row) -> np.ndarray:
    rle = one["segmentation"]
    return np.asarray(coco_mask.decode({**rle, "counts": rle["counts"].encode()}), dtype=bool)


def _merged(masks: list[Row], threshold: float) -> list[Row]:
    kept: list[Row] = []
    for one in sorted(masks, key=lambda mask: (not mask["accepted"], -(mask["score"] or -1.0))):
        for other in kept if one["has_target"] else []:
            first, second = decoded(one), decoded(other)
            if other["has_target"] and (first & second).sum() >= threshold * (first | second).sum():
                other["aliases"].append(one["phrase"])
                break
        else:
            kept.append(one)
    return [one for one in masks if any(one is other for other in kept)]


def _apart(images: list[tuple[Row, list[Row]]], distance: int) -> list[tuple[Row, list[Row]]]:
    kept: list[Row] = []
    for row, _ in sorted(images, key=lambda pair: -pair[0]["width"] * pair[0]["height"]):
        near = [
            other
            for other in kept
            if None not in (row["phash"], other["phash"])
            and ((row["phash"] ^ other["phash"]) & (2**64 - 1)).bit_count() <= distance
        ]
        if not near:
            kept.append(row)
    return [(row, masks) for row, masks in images if any(row is other for other in kept)]


def _capped(images: list[tuple[Row, list[Row]]], config: CurateConfig) -> list[tuple[Row, list[Row]]]:
    def rank(pair: tuple[Row, Row]) -> tuple[Any, ...]:
        row, mask = pair
        hashed = stable_hash(f"{row['key']}\0{mask['phrase']}", config.seed)
        return (not mask["accepted"], hashed if config.cap_order == "hash" else -(mask["score"] or -1.0))

    counts: Counter[Any] = Counter()
    chosen = set()
    for _, mask in sorted(((row, mask) for row, masks in images for mask in masks), key=rank):
        counts[normalise(mask["phrase"]), mask["has_target"]] += 1
        if counts[normalise(mask["phrase"]), mask["has_target"]] <= (config.max_per_phrase or 0):
            chosen.add(id(mask))
    return [(row, [mask for mask in masks if id(mask) in chosen]) for row, masks in images]
