"""The colours of masks, the same in overlays, the report and the viewer. Imports nothing heavy."""

from __future__ import annotations

from typing import TypeAlias

Colour: TypeAlias = "tuple[int, int, int]"

#: Mask colours in the order of the phrases; distinguishable on most photos and to most people.
PALETTE: tuple[Colour, ...] = (
    (255, 82, 82),
    (41, 182, 246),
    (255, 202, 40),
    (102, 187, 106),
    (186, 104, 255),
    (255, 138, 36),
    (38, 208, 190),
    (240, 98, 176),
    (158, 190, 30),
    (92, 120, 255),
    (200, 150, 110),
    (120, 220, 255),
)
