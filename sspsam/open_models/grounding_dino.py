"""Boxes for phrases by Grounding DINO or MM Grounding DINO, on transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sspsam.open_models import weights

#: model_type of config.json -> class of transformers.
KINDS = {
    "grounding-dino": "GroundingDinoForObjectDetection",
    "mm-grounding-dino": "MMGroundingDinoForObjectDetection",
}


class GroundingDino:
    """All boxes of one phrase at a time.

    Each phrase is a prompt of its own, so that its boxes do not depend on the other phrases; the image
    backbone runs once an image all the same.

    Args:
        folder: in transformers' layout.
        device: where it computes.
        phrases_per_batch: phrases of one pass behind the backbone.
    """

    def __init__(self, folder: Path, device: torch.device, phrases_per_batch: int) -> None:
        import transformers
        from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
            GroundingDinoImageProcessorPil,
        )

        kind = KINDS[weights.model_type(folder, KINDS)]
        self.device = device
        self.model = weights.load(getattr(transformers, kind), folder, device)
        self._backbone = _OnceAnImage(self.model.model.backbone)
        self.model.model.backbone = self._backbone
        self._tokenizer = weights.tokenizer(folder)
        self._processor = GroundingDinoImageProcessorPil(**weights.image_settings(folder))
        self._most_tokens = int(self.model.config.max_text_len)
        self._batch = phrases_per_batch

    def find(
        self, image: np.ndarray, phrases: Sequence[str], threshold: float
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, bool]]:
        """For each phrase its boxes (K, 4) xyxy in pixels, their scores (K,), and whether it was cut.

        A score is the greatest of a query's over the phrase's tokens (Grounding DINO, arXiv 2303.05499).
        """
        pixels = self._processor(image, return_tensors="pt").to(self.device)
        height, width = image.shape[:2]
        sides = torch.tensor([width, height] * 2, device=self.device)
        self._backbone.forget()
        for start in range(0, len(phrases), self._batch):
            # The prompt format of both models: lower case, a full stop at the end and nowhere else.
            prompts = [
                f"{p.lower().replace('.', ' ').strip()}." for p in phrases[start : start + self._batch]
            ]
            lengths = [len(ids) for ids in self._tokenizer(prompts)["input_ids"]]
            options = {"padding": True, "truncation": True, "max_length": self._most_tokens}
            tokens = self._tokenizer(prompts, **options, return_tensors="pt").to(self.device)
            found = self.model(
                pixel_values=pixels["pixel_values"].expand(len(prompts), -1, -1, -1),
                pixel_mask=pixels["pixel_mask"].expand(len(prompts), -1, -1),
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
            )
            scores = found.logits.sigmoid().amax(dim=-1)
            centre, extent = found.pred_boxes.split(2, dim=-1)
            boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=-1) * sides
            for row, length in enumerate(lengths):
                kept = scores[row] > threshold
                yield boxes[row][kept], scores[row][kept], length > self._most_tokens


class _OnceAnImage(torch.nn.Module):
    """A backbone for batches of one image over and over: runs on the first, repeats what it gives."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.position_embedding = backbone.position_embedding  # the model asks its backbone for it
        self._kept: Any = None

    def forget(self) -> None:
        """The next batch is of another image."""
        self._kept = None

    def forward(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor) -> tuple[list[Any], list[Any]]:
        if self._kept is None:
            self._kept = self.backbone(pixel_values[:1], pixel_mask[:1])
        count = len(pixel_values)
        maps, positions = self._kept
        repeated = [tuple(part.expand(count, *part.shape[1:]) for part in level) for level in maps]
        return repeated, [one.expand(count, *one.shape[1:]) for one in positions]
