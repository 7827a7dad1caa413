"""Overlays of masks on their image, and pictures of the maps that explain them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from sspsam.drawing.labels import LabelSheet, font_for, shortened, text_size
from sspsam.drawing.palette import PALETTE, Colour
from sspsam.inference.masks import Mask

if TYPE_CHECKING:
    from sspsam.inference.results import PhraseMaps

#: Images whose long side is shorter are enlarged by a whole factor, so that labels can be read.
_SMALLEST_CANVAS = 512
_FILL = 0.38
# Ten stops of matplotlib's "viridis" (CC0).
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (72, 40, 120),
        (62, 74, 137),
        (49, 104, 142),
        (38, 130, 142),
        (31, 158, 137),
        (53, 183, 121),
        (110, 206, 88),
        (181, 222, 43),
        (253, 231, 37),
    ],
    dtype=np.float32,
)
_TILE = 384  # pixels, long side of a picture in the explanation
_GAP = 20
_INK, _FAINT, _PAPER = (32, 33, 36), (110, 114, 120), (255, 255, 255)


def draw_overlay(
    image: Image.Image,
    masks: Sequence[Mask],
    *,
    labels: bool = True,
    colours: Sequence[Colour] = PALETTE,
    font: Path | None = None,
) -> Image.Image:
    """The image under its masks: translucent fill, contour, and a label with phrase and score.

    Args:
        image: RGB and upright (`decode_image`), of the masks' size.
        masks: colours go by their order; those without a target are listed at the bottom.
        labels: whether to write phrases.
        colours: of the masks, in turn.
        font: TrueType file for phrases that Pillow's own font (Latin, Greek, Cyrillic) cannot show.

    Returns:
        RGB of the image's size, or a whole multiple of it if the long side is below 512 px.
    """
    factor = max(1, math.ceil(_SMALLEST_CANVAS / max(image.size)))
    size = (image.width * factor, image.height * factor)
    canvas = np.array(image.resize(size, Image.Resampling.BICUBIC), dtype=np.uint8)
    base = math.sqrt(canvas.shape[0] * canvas.shape[1])
    thickness = max(2.0, base * 0.0035)
    painted = zip(masks, cycle(colours), strict=False)
    shown = [(mask, colour) for mask, colour in painted if mask.has_target]
    for mask, colour in sorted(shown, key=lambda pair: -pair[0].area):
        _paint(canvas, mask, colour, factor, thickness)
    picture = Image.fromarray(canvas)
    if labels:
        sheet = LabelSheet(picture, base, font)
        absent = [mask.phrase for mask in masks if not mask.has_target]
        sheet.list_absent(absent)
        for mask, colour in sorted(shown, key=lambda pair: pair[0].area):
            x, y, width, height = (value * factor for value in mask.bbox)
            score = "" if mask.score is None else f"  {mask.score:.2f}"
            sheet.place(mask.phrase, score, (x, y, x + width, y + height), colour)
        sheet.draw()
    return picture


def draw_explanation(
    image: Image.Image,
    masks: Sequence[Mask],
    maps: Sequence[PhraseMaps],
    *,
    font: Path | None = None,
) -> Image.Image:
    """One row a phrase: its mask, where the image is like it, what was let through, which words.

    Args:
        image: RGB and upright, of the masks' size.
        masks, maps: of the same phrases (`Segmenter.segment`, `Segmenter.explain`).
        font: as for `draw_overlay`.
    """
    rows = [
        _explained(image, mask, found, PALETTE[i % len(PALETTE)], font)
        for i, (mask, found) in enumerate(zip(masks, maps, strict=True))
    ]
    width = max((row.width for row in rows), default=1)
    panel = Image.new("RGB", (width, max(1, sum(row.height for row in rows))), _PAPER)
    top = 0
    for row in rows:
        panel.paste(row, (0, top))
        top += row.height
    return panel


def heat_map(values: np.ndarray) -> np.ndarray:
    """(H, W) floats -> (H, W, 3) uint8, viridis from the least to the greatest value."""
    low, high = float(values.min()), float(values.max())
    place = (values - low) / ((high - low) or 1.0) * (len(_VIRIDIS) - 1)
    lower = np.clip(place.astype(np.int64), 0, len(_VIRIDIS) - 2)
    share = (place - lower)[..., None]
    colours = _VIRIDIS[lower] * (1 - share) + _VIRIDIS[lower + 1] * share
    return np.rint(colours).clip(0, 255).astype(np.uint8)


def _paint(canvas: np.ndarray, mask: Mask, colour: Colour, factor: int, thickness: float) -> None:
    """Fill and outline one mask in place; only the surroundings of its box are touched."""
    pad = math.ceil(3 * thickness)
    x, y, width, height = (int(value) * factor for value in mask.bbox)
    rows = slice(max(0, y - pad), min(canvas.shape[0], y + height + pad))
    columns = slice(max(0, x - pad), min(canvas.shape[1], x + width + pad))
    drawn = mask.decode()
    if factor > 1:
        drawn = drawn.repeat(factor, 0).repeat(factor, 1)
    inside = drawn[rows, columns]
    shape = Image.fromarray(inside.astype(np.uint8) * 255)
    blurred = np.asarray(shape.filter(ImageFilter.GaussianBlur(thickness)), np.float32) / 255
    # Near a straight edge a Gaussian blur of deviation s rises by 1 / (s * sqrt(2 pi)) a pixel:
    # that gives the distance to it, and so an outline with smooth sides.
    distance = np.abs(blurred - 0.5) * thickness * math.sqrt(2 * math.pi)
    line = np.clip(thickness / 2 + 0.5 - distance, 0, 1)[..., None]
    halo = np.clip(thickness * 0.5 + 1.0 + 0.5 - distance, 0, 1)[..., None]
    if not (line > 0.5).any():  # a speck, blurred away
        line = halo = inside[..., None].astype(np.float32)
    part = canvas[rows, columns].astype(np.float32)
    ink = np.array(colour, np.float32)
    part += (ink - part) * (inside[..., None] * np.float32(_FILL))
    part += (np.float32(255) - part) * (halo * np.float32(0.65))
    part += (ink - part) * line
    canvas[rows, columns] = np.rint(part).clip(0, 255)


def _explained(
    image: Image.Image, mask: Mask, maps: PhraseMaps, colour: Colour, font: Path | None
) -> Image.Image:
    scale = _TILE / max(image.size)
    size = (max(48, round(image.width * scale)), max(48, round(image.height * scale)))
    overlay = draw_overlay(image, [mask], labels=False, colours=[colour])
    plain = image.resize(size, Image.Resampling.LANCZOS).convert("L").convert("RGB")
    tiles = [("mask", _signals(mask), overlay.resize(size, Image.Resampling.LANCZOS))]
    for name, grid in (("similarity", maps.similarity), ("gate", maps.gate)):
        values = maps.geometry.clip.grid_to_original(grid[None], (size[1], size[0]))[0]
        blended = Image.blend(plain, Image.fromarray(heat_map(values.numpy())), 0.65)
        tiles.append((name, f"{_range(values)}", blended))
    title, small = font_for(24, font), font_for(14, font)
    width = 3 * max(size[0], 300) + 4 * _GAP
    words = _word_lines(maps, small, width - 2 * _GAP)
    tile_top = _GAP + 34
    height = tile_top + size[1] + 48 + _CHIP_LINE * len(words) + _GAP
    row = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(row)
    pen.rounded_rectangle((_GAP, _GAP + 2, _GAP + 18, _GAP + 20), 4, fill=colour)
    pen.text((_GAP + 28, _GAP - 4), shortened(maps.phrase, title, width - 80), _INK, title)
    for i, (name, note, tile) in enumerate(tiles):
        left = _GAP + i * (max(size[0], 300) + _GAP)
        row.paste(tile, (left, tile_top))
        pen.text((left, tile_top + size[1] + 5), name, _INK, small)
        pen.text((left, tile_top + size[1] + 23), note, _FAINT, font_for(12, font))
    top = tile_top + size[1] + 48
    for chips in words:
        for left, chip_width, text, attention, share in chips:
            _chip(pen, (_GAP + left, top, chip_width), text, attention, share, small)
        top += _CHIP_LINE
    pen.line((0, height - 1, width, height - 1), (225, 227, 230))
    return row


def _signals(mask: Mask) -> str:
    if not mask.has_target:
        return "no target" + ("" if mask.target_pixels is None else f" ({mask.target_pixels} px)")
    names = ("score", "predicted_iou", "stability", "box_agreement", "clip_score")
    known = ((name, getattr(mask, name)) for name in names)
    short = {"predicted_iou": "iou", "box_agreement": "box", "clip_score": "clip"}
    return "  ".join(f"{short.get(n, n)} {value:.2f}" for n, value in known if value is not None)


def _range(values: torch.Tensor) -> str:
    return f"dark {float(values.min()):.3f}, bright {float(values.max()):.3f}"


_Chip: TypeAlias = "tuple[int, int, str, float, float]"
_CHIP_LINE = 50  # pixels


def _word_lines(maps: PhraseMaps, font: ImageFont.FreeTypeFont, width: int) -> list[list[_Chip]]:
    """Word attention as lines of (left, width, word, attention, share of the greatest)."""
    greatest = max(maps.word_attention, default=1.0) or 1.0
    lines: list[list[_Chip]] = [[]]
    left = 0
    for word, attention in zip(maps.words, maps.word_attention, strict=True):
        text = shortened(word, font, width - 20)
        chip = max(44, text_size(text, font)[0] + 16)
        if left + chip > width and lines[-1]:
            lines.append([])
            left = 0
        lines[-1].append((left, chip, text, attention, attention / greatest))
        left += chip + 6
    return lines


def _chip(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int, int],
    text: str,
    attention: float,
    share: float,
    font: ImageFont.FreeTypeFont,
) -> None:
    left, top, width = place
    colour = tuple(round(255 - (255 - c) * (0.06 + 0.94 * share)) for c in (49, 104, 142))
    ink = _PAPER if share > 0.55 else _INK
    pen.rounded_rectangle((left, top, left + width, top + 26), 6, fill=colour)
    pen.text((left + width / 2, top + 13), text, ink, font, anchor="mm")
    note = font_for(11, None)
    pen.text((left + width / 2, top + 35), f"{attention:.3f}", _FAINT, note, anchor="mm")
