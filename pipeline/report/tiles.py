"""Which images the report shows, and their drawing: contours over the image, phrases beside it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from pipeline.dataset.image_rows import Rows
from pipeline.dataset.phrase_index import Index
from pipeline.dataset.pictures import Pictures
from pipeline.dataset.truth import Truth
from sspsam.drawing.overlays import PALETTE, draw_overlay
from sspsam.errors import DataError, SSPSAMError
from sspsam.inference.masks import Mask, decode_rle, encode_rle
from sspsam.rle import check_rle

#: Longest side of a drawn image, pixels.
SIDE = 512

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Line:
    """One phrase under a tile. `value` is what stands at its end."""

    phrase: str
    colour: Colour
    value: str
    has_target: bool


@dataclass(frozen=True)
class Tile:
    """One image with the masks that a section is about. A picture that cannot be made is `fault`."""

    key: str
    shard: str
    caption: str
    lines: tuple[Line, ...]
    picture: Image.Image | None
    truth: Image.Image | None
    fault: str | None


@dataclass(frozen=True)
class Section:
    """Tiles under a heading."""

    name: str
    title: str
    about: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Choice:
    """An image, the positions of its masks to show, and the IoU of the first where it is known."""

    image: int
    positions: tuple[int, ...]
    iou: float | None = None


def by_score(index: Index, limit: int, end: Literal["max", "min"]) -> list[Choice]:
    """The masks of the highest or the lowest score, one an image."""
    rows = index.query(
        f"select image_id, arg_{end}(position, score), {end}(score) as value from masks"
        " where has_target and isfinite(score) group by image_id"
        f" order by value {'desc' if end == 'max' else 'asc'}, hash(image_id) limit {limit}"
    )
    return [Choice(image, (position,)) for image, position, _ in rows]


def worst_by_truth(index: Index, limit: int) -> list[Choice]:
    """The phrases of the lowest IoU with their true mask, one an image."""
    rows = index.query(
        "select image_id, arg_min(position, iou), min(iou) as value from truth"
        f" group by image_id order by value, hash(image_id) limit {limit}"
    )
    return [Choice(image, (position,), iou) for image, position, iou in rows]


def empty(index: Index, limit: int, seed: int) -> list[Choice]:
    """Images with phrases that have no target: those phrases, of a random sample."""
    rows = index.query(
        "select image_id, list(position order by position) from masks where not has_target"
        f" group by image_id order by hash(image_id, {seed}) limit {limit}"
    )
    return [Choice(image, tuple(positions)) for image, positions in rows]


def anything(index: Index, limit: int, seed: int) -> list[Choice]:
    """All masks of a random sample of images."""
    rows = index.query(
        "select image_id, list(position order by position) from masks where image_id in (select id"
        f" from images where status = 'ok' and masks > 0 order by hash(id, {seed + 1}) limit {limit})"
        f" group by image_id order by hash(image_id, {seed + 1})"
    )
    return [Choice(image, tuple(positions)) for image, positions in rows]


def draw_tiles(
    choices: Sequence[Choice], rows: Rows, pictures: Pictures, truth: Truth | None, threads: int
) -> tuple[Tile, ...]:
    """A tile for each choice, drawn `threads` at a time; with the true masks beside, if known."""
    images = [choice.image for choice in choices]
    true = truth.rows(images) if truth is not None else {}
    columns = ("key", "shard", "caption", "width", "height", "annotations")
    whole = rows.read(images, columns)
    with ThreadPoolExecutor(threads) as pool:
        jobs = pool.map(
            lambda pair: _tile(pair[0], pair[1], pictures, true.get(pair[0].image)),
            zip(choices, whole, strict=True),
        )
        return tuple(jobs)


def _tile(choice: Choice, row: dict[str, Any], pictures: Pictures, true: dict[str, Any] | None) -> Tile:
    shown = [(position, row["annotations"][position]) for position in choice.positions]
    lines = tuple(_line(position, annotation, choice.iou) for position, annotation in shown)
    picture = truth = fault = None
    try:
        picture = _drawn(pictures, row, shown)
        if true is not None:
            phrases = {annotation["phrase"] for _, annotation in shown}
            expected = [
                (choice.positions[0], annotation)
                for annotation in true["annotations"] or []
                if annotation["phrase"] in phrases
            ]
            truth = _drawn(pictures, row, expected)
    except (SSPSAMError, OSError) as error:
        fault = str(error)
    return Tile(row["key"], row["shard"], row["caption"] or "", lines, picture, truth, fault)


def _line(position: int, annotation: dict[str, Any], iou: float | None) -> Line:
    score = annotation["score"]
    parts = [] if iou is None else [f"IoU {iou:.2f}"]
    if not annotation["has_target"]:
        parts.append("no target")
    elif score is not None:
        parts.append(f"score {score:.2f}" if parts else f"{score:.2f}")
    colour = PALETTE[position % len(PALETTE)]
    return Line(annotation["phrase"], colour, " · ".join(parts), bool(annotation["has_target"]))


def _drawn(
    pictures: Pictures, row: dict[str, Any], annotations: Sequence[tuple[int, dict[str, Any]]]
) -> Image.Image:
    """The image, its longest side SIDE pixels, under the masks at those positions.

    Masks are scaled with the image first, so that a photo of 50 megapixels costs no more than needed.
    """
    image = pictures.image(row["id"], SIDE)
    # draw_overlay colours by place: masks that are not shown leave theirs empty.
    masks = [_no_mask(image)] * (max((position for position, _ in annotations), default=-1) + 1)
    for position, annotation in annotations:
        if annotation["has_target"]:
            masks[position] = _scaled(row, annotation, image)
    drawn = draw_overlay(image, masks, labels=False)
    drawn.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return drawn


def _scaled(row: dict[str, Any], annotation: dict[str, Any], image: Image.Image) -> Mask:
    rle = annotation["segmentation"] or {}
    try:
        check_rle(rle)
    except DataError as error:
        raise DataError(f"{row['key']}, {annotation['phrase']!r}: {error}") from error
    if list(rle["size"]) != [row["height"], row["width"]]:
        raise DataError(
            f"{row['key']}: the mask of {annotation['phrase']!r} is {rle['size']} (height, width),"
            f" the image {[row['height'], row['width']]}"
        )
    whole = Image.fromarray(decode_rle(rle).astype(np.uint8) * 255)
    small = np.asarray(whole.resize(image.size, Image.Resampling.BOX))
    mask = small >= 128
    if not mask.any():
        mask = small > 0  # thinner than a pixel here, but there
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return _no_mask(image)
    box = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
    return _mask(encode_rle(mask.T[None])[0], int(mask.sum()), box, has_target=True)


def _no_mask(image: Image.Image) -> Mask:
    nothing = np.zeros((1, image.width, image.height), dtype=bool)
    return _mask(encode_rle(nothing)[0], 0, (0, 0, 0, 0), has_target=False)


def _mask(rle: dict[str, Any], area: int, box: tuple[Any, ...], *, has_target: bool) -> Mask:
    """As much of a Mask as drawing needs."""
    x, y, width, height = (float(side) for side in box)
    return Mask(
        phrase="",
        rle=rle,
        area=area,
        bbox=(x, y, width, height),
        predicted_box=(x, y, width, height),
        has_target=has_target,
        target_pixels=area,
        score=None,
        predicted_iou=None,
        stability=None,
        box_agreement=None,
        clip_score=None,
        truncated=False,
    )
