"""Horizontal flipping of a labelled image: its boxes, and "left" and "right" in its phrases."""

from __future__ import annotations

from sspsam.language.sides import can_mirror, swap_left_right

__all__ = ["can_mirror", "mirror_box", "swap_left_right"]


def mirror_box(box: tuple[float, float, float, float], width: int) -> tuple[float, float, float, float]:
    """(x, y, width, height) in pixels of an image `width` pixels wide, mirrored."""
    x, y, w, h = box
    return width - x - w, y, w, h
