"""Labels on a picture: readable on any background, beside what they name, not on each other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from sspsam.drawing.palette import Colour
from sspsam.errors import ConfigError

Rectangle: TypeAlias = "tuple[float, float, float, float]"  # left, top, right, bottom in pixels

_ABSENT_COLOUR = (70, 74, 82)


@lru_cache(maxsize=64)
def font_for(size: int, path: Path | None) -> ImageFont.FreeTypeFont:
    """Pillow's bundled font, or the TrueType file at `path`, in pixels.

    Raises:
        ConfigError: `path` is no font.
    """
    try:
        font = ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
    except OSError as error:
        raise ConfigError(f"{path} is no TrueType or OpenType font (--font): {error}") from error
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ConfigError("this Pillow was built without FreeType; reinstall it to draw labels")
    return font


def text_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width of the text and height of a line, pixels."""
    ascent, descent = font.getmetrics()
    return int(font.getlength(text) + 0.999), ascent + descent


def shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text on one line, cut with "..." where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text[:400]) <= width and len(text) <= 400:
        return text
    lengths = range(1, min(len(text), 400) + 1)
    fitting = bisect_right(lengths, width, key=lambda length: font.getlength(text[:length] + "..."))
    return text[:fitting].rstrip() + "..."


@dataclass(frozen=True)
class _Label:
    text: str
    box: Rectangle
    colour: Colour
    anchor: tuple[float, float] | None  # of the line to what is named, if it is far away


class LabelSheet:
    """Collects the labels of one picture, finds their places, draws them last.

    Args:
        picture: drawn on by `draw`.
        base: the picture's size as one number, pixels; the font goes by it.
        font: TrueType file, or None for Pillow's own.
    """

    def __init__(self, picture: Image.Image, base: float, font: Path | None) -> None:
        self._picture = picture
        self._width, self._height = picture.size
        size = round(min(max(13.0, base * 0.024), max(9.0, self._height / 4)))
        self._font = font_for(size, font)
        self._pad = max(2, round(size * 0.28))
        self._labels: list[_Label] = []

    def list_absent(self, phrases: Sequence[str]) -> None:
        """Phrases without target, from the bottom left corner up, to half of the height."""
        line = text_size("x", self._font)[1] + 2 * self._pad + 2
        room = max(1, int(self._height / 2 / line))
        shown = list(phrases[:room])
        if len(phrases) > room:
            shown[-1] = f"{phrases[room - 1]} and {len(phrases) - room} more"
        for i, phrase in enumerate(reversed(shown)):
            text, width, height = self._fitted(f"no target: {phrase}", "")
            top = self._height - (i + 1) * (height + 2) - self._pad
            box = (self._pad, top, self._pad + width, top + height)
            self._labels.append(_Label(text, box, _ABSENT_COLOUR, None))

    def place(self, text: str, suffix: str, target: Rectangle, colour: Colour) -> None:
        """Find a place for a label near `target`; `suffix` is kept when the text is cut."""
        shown, width, height = self._fitted(text, suffix)
        box = min(self._near(target, width, height), key=self._overlap)
        anchor = None
        if self._overlap(box) > 0:
            free = self._anywhere(target, width, height)
            if free is not None:
                box, anchor = free, _centre(target)
        self._labels.append(_Label(shown, box, colour, anchor))

    def draw(self) -> None:
        """Draw all labels on the picture."""
        pen = ImageDraw.Draw(self._picture)
        thick = max(1, self._pad // 3)
        for label in self._labels:
            if label.anchor is not None:
                pen.line((*_centre(label.box), *label.anchor), fill=label.colour, width=thick)
        for label in self._labels:
            left, top, right, bottom = label.box
            pen.rounded_rectangle(
                label.box, radius=self._pad, fill=label.colour, outline=(255, 255, 255), width=thick
            )
            red, green, blue = label.colour
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 125
            ink = (255, 255, 255) if dark else (16, 18, 22)
            middle = (left + right) / 2, (top + bottom) / 2
            pen.text(middle, label.text, ink, self._font, anchor="mm")

    def _fitted(self, text: str, suffix: str) -> tuple[str, float, float]:
        room = self._width - 4 * self._pad - self._font.getlength(suffix)
        shown = shortened(text, self._font, max(room, 0)) + suffix
        width, height = text_size(shown, self._font)
        return shown, width + 2 * self._pad, height + self._pad

    def _near(self, target: Rectangle, width: float, height: float) -> Iterator[Rectangle]:
        left, top, right, bottom = target
        middle, centre = (left + right - width) / 2, (top + bottom - height) / 2
        gap = self._pad
        places = [
            (left, top - height - gap),
            (middle, top - height - gap),
            (left + gap, top + gap),
            (middle, centre),
            (left, bottom + gap),
            (middle, bottom + gap),
            (right + gap, centre),
            (left - width - gap, centre),
            (left + gap, bottom - height - gap),
            (right - width, top - height - gap),
        ]
        for left, top in places:
            x = min(max(left, 0), max(0, self._width - width))
            y = min(max(top, 0), max(0, self._height - height))
            yield x, y, x + width, y + height

    def _anywhere(self, target: Rectangle, width: float, height: float) -> Rectangle | None:
        """The free place nearest to the target, on a grid."""
        x, y = _centre(target)
        boxes = []
        steps_x, steps_y = max(1, int(self._width / max(8, width / 3))), int(self._height / height)
        for row in range(max(1, steps_y)):
            for column in range(steps_x):
                left = min(column * width / 3, max(0, self._width - width))
                box = (left, row * height, left + width, row * height + height)
                if box[3] <= self._height and self._overlap(box) == 0:
                    distance = (left + width / 2 - x) ** 2 + (box[1] + height / 2 - y) ** 2
                    boxes.append((distance, box))
        return min(boxes, key=lambda found: found[0])[1] if boxes else None

    def _overlap(self, box: Rectangle) -> float:
        return sum(_shared(box, label.box) for label in self._labels)


def _centre(box: Rectangle) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _shared(a: Rectangle, b: Rectangle) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)
