"""The result of one image while it is being made, and the phrases that are asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sspsam.errors import SSPSAMError
from sspsam.images.geometry import Geometry
from sspsam.inference.masks import Mask


@dataclass
class Draft:
    """The result of one image while it is being made."""

    geometry: Geometry
    masks: list[Mask]  # prefilled, so that a phrase that is not run has its flagged mask
    error: SSPSAMError | None = None
    signals: dict[int, dict[str, float | None]] = field(default_factory=dict)  # of `verify`, by position


@dataclass(frozen=True)
class Task:
    """One phrase of one image of a batch."""

    slot: int  # of the image in the batch
    position: int  # of the phrase in the caller's list
    phrase: str  # as given
    row: int  # in the batch's encoded phrases
