"""The reliability diagram: predicted probability against the share that is right, one panel a probability."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw

from sspsam.drawing.labels import font_for

_SIDE, _GAP, _TOP = 360, 64, 96  # pixels: of a panel, around it, above it
_PAPER, _SURFACE, _INK, _FAINT = (243, 244, 247), (255, 255, 255), (23, 26, 33), (91, 99, 115)
_LINE, _GRID = (37, 99, 235), (222, 225, 231)
_TITLES = {
    ("target", "p_correct"): "a mask has an IoU of 0.5",
    ("target", "p_correct_75"): "a mask has an IoU of 0.75",
    ("no_target", "p_correct"): "nothing is there",
}


def draw_reliability(judged: Mapping[str, Any]) -> bytes:
    """PNG of what `calibrate` says under `judged`: a dot for each bin of equally many phrases."""
    panels = [
        (title, judged[part][name]) for (part, name), title in _TITLES.items() if name in judged.get(part, {})
    ]
    width = _GAP + len(panels) * (_SIDE + _GAP)
    sheet = Image.new("RGB", (width, _TOP + _SIDE + _GAP + 8), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, 14), "Reliability, cross-validated over images", _INK, font_for(22, None))
    for place, (title, numbers) in enumerate(panels):
        _panel(pen, _GAP + place * (_SIDE + _GAP), title, numbers)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _panel(pen: ImageDraw.ImageDraw, left: int, title: str, numbers: Mapping[str, Any]) -> None:
    small, bottom = font_for(14, None), _TOP + _SIDE
    pen.rectangle((left, _TOP, left + _SIDE, bottom), fill=_SURFACE, outline=_GRID)
    pen.text((left, _TOP - 46), title, _INK, font_for(17, None))
    told = f"{numbers['phrases']:,} phrases, ECE {numbers['ece']:.3f}, Brier {numbers['brier']:.3f}"
    pen.text((left, _TOP - 22), told, _FAINT, small)
    for tenths in range(0, 11, 2):
        at = _SIDE * tenths / 10
        pen.line((left, bottom - at, left + _SIDE, bottom - at), _GRID)
        pen.line((left + at, _TOP, left + at, bottom), _GRID)
        pen.text((left + at, bottom + 6), f"{tenths / 10:.1f}", _FAINT, small, anchor="mt")
        pen.text((left - 6, bottom - at), f"{tenths / 10:.1f}", _FAINT, small, anchor="rm")
    pen.text((left + _SIDE / 2, bottom + 26), "predicted probability", _FAINT, small, anchor="mt")
    pen.line((left, bottom, left + _SIDE, _TOP), _FAINT)
    _dots(pen, left, numbers["reliability"])


def _dots(pen: ImageDraw.ImageDraw, left: int, bins: Sequence[Mapping[str, float]]) -> None:
    places = [
        (left + _SIDE * one["predicted"], _TOP + _SIDE * (1 - one["observed"]), one["count"]) for one in bins
    ]
    pen.line([place[:2] for place in places], _LINE, 2)
    most = max(count for *_, count in places)
    for x, y, count in places:
        radius = 2 + 4 * (count / most) ** 0.5
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_LINE)
