"""The contact sheet: one PNG with the sections' tiles, to look at without a browser."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from pipeline.dataset.numerals import number
from pipeline.dataset.truth import Agreement
from pipeline.report.numbers import Numbers
from pipeline.report.tiles import Line, Section, Tile
from sspsam.drawing.labels import font_for, shortened

_COLUMNS = 6
_ROWS = 2  # of tiles a section
_WIDTH, _HEIGHT = 280, 210  # of a picture, pixels
_LINES = 3  # phrases under a picture
_GAP = 16
_LINE = 20
_PAPER, _SURFACE, _INK, _FAINT = (243, 244, 247), (255, 255, 255), (23, 26, 33), (91, 99, 115)
_BEHIND = (20, 23, 28)


def draw_sheet(
    url: str,
    numbers: Numbers,
    agreement: Agreement | None,
    sections: Sequence[Section],
    font: Path | None = None,
) -> bytes:
    """PNG of the sections that have tiles, up to 12 tiles each.

    font: TrueType file for phrases that Pillow's own font (Latin, Greek, Cyrillic) cannot show.
    """
    shown = [(section, section.tiles[: _COLUMNS * _ROWS]) for section in sections if section.tiles]
    lines = [min(_LINES, max(len(tile.lines) for tile in tiles)) for _, tiles in shown]
    heights = [
        52 + -(-len(tiles) // _COLUMNS) * (_tile_height(count) + _GAP)
        for (_, tiles), count in zip(shown, lines, strict=True)
    ]
    width = _COLUMNS * (_WIDTH + _GAP) + _GAP
    sheet = Image.new("RGB", (width, 96 + sum(heights)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    title = font_for(26, font)
    pen.text((_GAP, 16), shortened(url, title, width - 2 * _GAP), _INK, title)
    pen.text((_GAP, 54), _summary(numbers, agreement), _FAINT, font_for(17, font))
    top = 88
    for (section, tiles), height, count in zip(shown, heights, lines, strict=True):
        pen.text((_GAP, top + 14), section.title, _INK, font_for(20, font))
        for place, tile in enumerate(tiles):
            left = _GAP + place % _COLUMNS * (_WIDTH + _GAP)
            down = 48 + place // _COLUMNS * (_tile_height(count) + _GAP)
            _draw_tile(sheet, tile, (left, top + down), count, font)
        top += height
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _summary(numbers: Numbers, agreement: Agreement | None) -> str:
    parts = [
        f"{numbers.images:,} images",
        f"{numbers.masks:,} masks",
        f"{numbers.empty:,} phrases without a target",
        f"{numbers.statuses['error']:,} errors",
    ]
    if agreement is not None:
        parts.append(f"mean IoU {number(agreement.mean_iou, 3)}")
        parts.append(f"no-target accuracy {number(agreement.no_target_accuracy, 3)}")
    return "   ".join(parts)


def _tile_height(lines: int) -> int:
    return _HEIGHT + lines * _LINE + 14


def _draw_tile(sheet: Image.Image, tile: Tile, place: tuple[int, int], lines: int, font: Path | None) -> None:
    left, top = place
    pen = ImageDraw.Draw(sheet)
    bottom = top + _tile_height(lines)
    pen.rounded_rectangle((left, top, left + _WIDTH, bottom), 6, fill=_SURFACE)
    pen.rectangle((left, top, left + _WIDTH, top + _HEIGHT), fill=_BEHIND)
    small = font_for(13, font)
    pictures = [one for one in (tile.picture, tile.truth) if one is not None]
    for i, picture in enumerate(pictures):
        part = _WIDTH // len(pictures)
        fitted = _fitted(picture, part, _HEIGHT)
        offset = ((part - fitted.width) // 2 + i * part, (_HEIGHT - fitted.height) // 2)
        sheet.paste(fitted, (left + offset[0], top + offset[1]))
    if not pictures:
        text = shortened(tile.fault or "no picture", small, _WIDTH - 20)
        pen.text((left + 10, top + _HEIGHT // 2), text, _PAPER, small)
    for i, line in enumerate(tile.lines[:_LINES]):
        more = len(tile.lines) - _LINES if i == _LINES - 1 else 0
        _draw_line(pen, line, more, (left + 8, top + _HEIGHT + 8 + i * _LINE), font)


def _draw_line(
    pen: ImageDraw.ImageDraw, line: Line, more: int, place: tuple[int, int], font: Path | None
) -> None:
    left, top = place
    small, faint = font_for(14, font), font_for(12, font)
    fill = line.colour if line.has_target else None
    pen.rounded_rectangle((left, top + 4, left + 9, top + 13), 2, fill=fill, outline=line.colour, width=2)
    value = line.value + (f"  +{more} more" if more > 0 else "")
    room = _WIDTH - 16
    end = left + room
    pen.text((end, top + 1), value, _FAINT, faint, anchor="ra")
    pen.text((left + 16, top), shortened(line.phrase, small, room - 24 - faint.getlength(value)), _INK, small)


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)
