"""Turning a labelled picture over: the picture, its masks and boxes, and the words that say a side."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

#: "left" and "right" as words, and as the first part of leftmost, right-hand, leftside, rightward ...
_SIDE = re.compile(
    r"(?<![a-z])(left|right)(?=(?:[- ]?(?:most|hand(?:ed)?|side|wards?))?(?![a-z]))", re.IGNORECASE
)
_OTHER = {"left": "right", "right": "left"}


def swap_left_right(phrase: str) -> str:
    """The phrase for the mirrored picture: left and right change places, capitals stay.

    Whole words only: "bright" stays "bright" (the authors' code makes it "bleft").
    """

    def other(match: re.Match[str]) -> str:
        word = match.group(1)
        swapped = _OTHER[word.lower()]
        if word.isupper():
            return swapped.upper()
        return swapped.capitalize() if word[0].isupper() else swapped

    return _SIDE.sub(other, phrase)


def mirror_image(image: Image.Image) -> Image.Image:
    """The picture, turned over left to right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def mirror_masks(masks: np.ndarray) -> np.ndarray:
    """(..., height, width) -> the same shape, turned over left to right."""
    return np.ascontiguousarray(masks[..., ::-1])


def mirror_box(box: tuple[float, float, float, float], width: int) -> tuple[float, float, float, float]:
    """(x, y, width, height) in pixels of an image `width` pixels wide, mirrored."""
    x, y, w, h = box
    return width - x - w, y, w, h
