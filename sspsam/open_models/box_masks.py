"""Masks for boxes by SAM, SAM-HQ or SAM 2, on transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sspsam.open_models import weights

#: model_type of config.json -> class of transformers.
KINDS = {"sam": "SamModel", "sam_hq": "SamHQModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}

#: Boxes of one pass through the mask decoder.
_BOXES = 32


@dataclass(frozen=True)
class EncodedImage:
    """An image behind the encoder, and where it lies in the model's square of `side` pixels.

    `inside`: (height, width) that the image takes at the top left; the rest is padding.
    """

    embeddings: dict[str, Any]
    size: tuple[int, int]  # (height, width) of the image, pixels
    inside: tuple[int, int]
    side: int


class BoxMasks:
    """Masks of one image's boxes.

    Args:
        folder: in transformers' layout.
        device: where it computes.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        import transformers
        from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

        self._kind = weights.model_type(folder, KINDS)
        self.device = device
        self.model = weights.load(getattr(transformers, KINDS[self._kind]), folder, device)
        self._settings = weights.image_settings(folder)
        # SAM 2 stretches an image to its square; SAM and SAM-HQ fit its longest side and pad.
        self._fits = self._kind in ("sam", "sam_hq")
        self._processor = SamImageProcessorPil(**self._settings) if self._fits else None

    def encode(self, image: np.ndarray) -> EncodedImage:
        """(H, W, 3) uint8 -> what all its boxes share."""
        size = image.shape[:2]
        if self._processor is None:
            pixels = weights.stretched(image, self._settings, self.device)
            inside = tuple(pixels.shape[-2:])
        else:
            found = self._processor(image, return_tensors="pt")
            pixels, inside = found["pixel_values"].to(self.device), found["reshaped_input_sizes"][0].tolist()
        given = self.model.get_image_embeddings(pixels)
        names = ("image_embeddings", "intermediate_embeddings")
        embeddings = dict(zip(names, given if self._kind == "sam_hq" else (given,), strict=False))
        return EncodedImage(embeddings, size, (inside[0], inside[1]), pixels.shape[-1])

    def masks(self, image: EncodedImage, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, h, w) float32 logits over the model's square, and (N,) predicted IoU.

        Args:
            image: from `encode`.
            boxes: (N, 4) xyxy in pixels of the image.
        """
        (height, width), (rows, columns) = image.size, image.inside
        scale = torch.tensor([columns / width, rows / height] * 2, device=self.device)
        parts = [
            self.model(**image.embeddings, input_boxes=some[None], multimask_output=False)
            for some in (boxes * scale).split(_BOXES)
        ]
        logits = torch.cat([part.pred_masks[0, :, 0] for part in parts]).float()
        return logits, torch.cat([part.iou_scores[0, :, 0] for part in parts]).float()

    def shown(self, image: EncodedImage, logits: torch.Tensor) -> tuple[int, int]:
        """Rows and columns of (N, h, w) logits that show the image and not its padding."""
        rows, columns = (max(1, round(n * logits.shape[-1] / image.side)) for n in image.inside)
        return rows, columns

    def to_image(self, image: EncodedImage, logits: torch.Tensor) -> torch.Tensor:
        """(h, w) logits of the square -> (height, width) bool, as transformers' post_process_masks."""
        square = logits[None, None]
        if self._fits:
            square = F.interpolate(square, (image.side, image.side), mode="bilinear", align_corners=False)
            square = square[..., : image.inside[0], : image.inside[1]]
        full = F.interpolate(square, image.size, mode="bilinear", align_corners=False)
        return full[0, 0] > 0
