"""Boxes of a detector, masks of a segmenter: `--model grounded-sam:DETECTOR+SEGMENTER`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from sspsam.open_models import box_masks, grounding_dino, weights
from sspsam.open_models.box_masks import BoxMasks
from sspsam.open_models.grounding_dino import GroundingDino
from sspsam.open_models.instances import united
from sspsam.open_models.protocol import Drawing


class GroundedSam:
    """The masks of all boxes that Grounding DINO finds for a phrase, as one (arXiv 2401.14159).

    Both see an image once, whatever the number of phrases, and all its boxes share one pass of the mask
    decoder. `score` is the best box's, `predicted_iou` the segmenter's, meant over the boxes, `box` the
    box around all of them. There is no CLIP score.

    Args:
        detector: Grounding DINO or MM Grounding DINO; a folder, or org/repo[@revision] of the hub.
        segmenter: SAM, SAM-HQ or SAM 2, the same way.
        device: torch's name; None takes the best there is.
        threshold: least score of a box, 0..1; the default is that of the Grounding DINO authors' example.
        phrases_per_batch: phrases of one pass behind the detector's backbone.
    """

    #: Least and most of the options, checked before anything is loaded.
    LIMITS: ClassVar = {"threshold": (0, 1), "phrases_per_batch": (1, 4096)}

    def __init__(
        self,
        detector: str,
        segmenter: str,
        device: str | None = None,
        *,
        threshold: float = 0.35,
        phrases_per_batch: int = 8,
    ) -> None:
        where = weights.best_device(device)
        self._detector = GroundingDino(weights.local_folder(detector), where, int(phrases_per_batch))
        self._segmenter = BoxMasks(weights.local_folder(segmenter), where)
        self._threshold = threshold

    @staticmethod
    def digest(detector: str, segmenter: str, **options: float) -> str:
        """sha256 over both folders; options stand in the manifest by themselves."""
        return weights.folder_digest((detector, grounding_dino.KINDS), (segmenter, box_masks.KINDS))

    def draw(self, image: np.ndarray, phrases: Sequence[str]) -> list[Drawing]:
        """One drawing a phrase; see `OpenModel.draw`."""
        found = list(self._detector.find(image, phrases, self._threshold))
        boxes = torch.cat([of_phrase for of_phrase, _, _ in found])
        size = image.shape[:2]
        if not len(boxes):  # then the segmenter need not look at the image
            return [Drawing(np.zeros(size, bool), truncated=cut) for _, _, cut in found]
        encoded = self._segmenter.encode(image)
        logits, iou = self._segmenter.masks(encoded, boxes)
        to_image = partial(self._segmenter.to_image, encoded)
        shown = self._segmenter.shown(encoded, logits)
        drawings, first = [], 0
        for of_phrase, scores, cut in found:
            part = slice(first, first + len(of_phrase))
            drawings.append(united(size, logits[part], scores, of_phrase, to_image, shown, iou[part], cut))
            first += len(of_phrase)
        return drawings
