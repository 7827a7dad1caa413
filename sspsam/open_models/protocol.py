"""What another model must offer to run in the same jobs as SSP-SAM: `OpenModel`, and what it draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sspsam.images.decoding import ImageInput
from sspsam.inference.masks import Box
from sspsam.inference.results import ImageResult


@dataclass(frozen=True)
class Drawing:
    """What a model drew for one phrase of one image. A signal that the model does not have stays None.

    Every signal is "higher is better". All instances that the phrase means are one mask.
    """

    mask: np.ndarray  # (height, width) bool, over the image as it was given
    has_target: bool | None = None  # None: whether the mask has a pixel
    score: float | None = None  # how sure the model is that the phrase means this mask, 0..1
    predicted_iou: float | None = None  # the model's estimate of the mask's IoU, 0..1
    stability: float | None = None  # IoU of the masks at a higher and a lower threshold, 0..1
    clip_score: float | None = None  # likeness of phrase and masked image, -1..1
    box: Box | None = None  # x, y, width, height in pixels, from elsewhere than the mask
    truncated: bool = False  # the phrase was too long and was cut


class OpenModel(Protocol):
    """A model that draws masks for phrases. `sspsam.open_models.open_segmenter` does the rest.

    A factory makes it: `factory(device=..., **options)`, or `factory(SOURCE, device=..., **options)` for
    the built-in ones, where `device` is torch's name of a device or None for the best there is, and
    `options` are those of --model-options. `factory.digest(...)`, if there, takes the same arguments less
    `device` and returns what tells one version of the model from another, without loading it; without it
    the file that the factory stands in is that.
    """

    def draw(self, image: np.ndarray, phrases: Sequence[str]) -> Sequence[Drawing]:
        """One drawing a phrase, in order.

        Runs under `torch.inference_mode`, from one thread at a time. Of the same image all phrases come
        in one call, so that what they share is computed once; when it runs out of memory the call is
        repeated with half as many.

        Args:
            image: (height, width, 3) uint8 RGB, upright; not to be written to.
            phrases: at least one; no blanks around or control characters inside.
        """
        ...


class PhraseSegmenter(Protocol):
    """What a replica needs: `sspsam.Segmenter` is one, and any `OpenModel` in an `OpenSegmenter`."""

    @property
    def timings(self) -> dict[str, float]:
        """Seconds and counts since the start; see `sspsam.inference.segmenter.TIMINGS`."""
        ...

    def segment_images(
        self, images: Sequence[ImageInput], phrases: Sequence[Sequence[str]]
    ) -> list[ImageResult]:
        """As `sspsam.Segmenter.segment_images`.

        An object whose `overlapping_calls` is true may be called again, from another thread, before the
        last call returned: a replica then hands it the next chunk early.
        """
        ...


class ModelFactory(Protocol):
    """Makes an `OpenModel`; see there."""

    def __call__(self, *sources: str, device: str | None, **options: Any) -> OpenModel: ...
