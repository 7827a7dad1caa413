"""An open model that kills its process on one picture; replicas load it by name."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import numpy as np

from examples.colour_model import ColourModel
from sspsam.open_models.protocol import Drawing

#: (width, height) of the pictures that kill, and of those that raise.
KILLER, RAISER = (57, 40), (58, 40)


class KillingColours(ColourModel):
    """ColourModel, but for those pictures."""

    def draw(self, image: np.ndarray, phrases: Sequence[str]) -> list[Drawing]:
        size = image.shape[1::-1]
        if size == KILLER:
            os.kill(os.getpid(), signal.SIGKILL)
        if size == RAISER:
            raise KeyError("no such picture")
        return super().draw(image, phrases)
