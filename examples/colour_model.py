"""A model of one's own, `--model examples.colour_model:ColourModel`: masks of colours that phrases name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sspsam.open_models.protocol import Drawing

_COLOURS = {
    "red": (214, 48, 49),
    "green": (46, 158, 84),
    "blue": (52, 98, 219),
    "yellow": (241, 196, 15),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}


class ColourModel:
    """The pixels whose colour is near one that the phrase names, such as "the red ball".

    A model with weights loads them in `__init__`, onto `device`, and gives itself a static method
    `digest(**options)`; without one, a change of this file makes another model of it.

    Args:
        device: torch's name of a device; not used here.
        tolerance: how far from a colour a pixel may be, 0..255 in each of red, green and blue.
    """

    def __init__(self, device: str | None = None, *, tolerance: int = 60) -> None:
        self.tolerance = tolerance

    def draw(self, image: np.ndarray, phrases: Sequence[str]) -> list[Drawing]:
        """One mask a phrase; see `sspsam.open_models.protocol.OpenModel`."""
        return [self._of(image.astype(np.int16), phrase) for phrase in phrases]

    def _of(self, image: np.ndarray, phrase: str) -> Drawing:
        colours = [_COLOURS[word] for word in phrase.lower().split() if word in _COLOURS]
        distance = np.full(image.shape[:2], 255)
        for colour in colours:
            distance = np.minimum(distance, np.abs(image - colour).max(axis=2))
        mask = distance <= self.tolerance
        # Signals that a model does not have are left out, and are null in the dataset.
        return Drawing(mask, score=1.0 - float(distance[mask].mean()) / 255 if mask.any() else None)
