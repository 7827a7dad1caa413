"""SAM 3 by its text prompts ("concepts"), on transformers' `Sam3Model`: `--model sam3:SOURCE`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from sspsam.open_models import weights
from sspsam.open_models.instances import united
from sspsam.open_models.protocol import Drawing

#: Tokens of a text prompt, start and end included, as transformers' Sam3Processor pads them.
_TOKENS = 32
_CACHED_PHRASES = 4096


class Sam3:
    """Every instance of the concept that a phrase names, as one mask.

    The image goes through the vision encoder once and each distinct phrase once through the text encoder.
    An instance is kept if its score, the query's times that of the concept's presence in the image, is
    above `threshold`; the best one is `score`. SAM 3 has no estimate of IoU and no CLIP score.

    Args:
        source: folder, or org/repo[@revision] of the Hugging Face hub.
        device: torch's name; None takes the best there is.
        threshold: least score of an instance, 0..1.
        mask_threshold: least probability of a pixel of an instance, 0..1.
        phrases_per_batch: phrases of one pass behind the encoders.
    """

    #: Least and most of the options, checked before anything is loaded.
    LIMITS: ClassVar = {"threshold": (0, 1), "mask_threshold": (0, 1), "phrases_per_batch": (1, 4096)}

    def __init__(
        self,
        source: str,
        device: str | None = None,
        *,
        threshold: float = 0.5,
        mask_threshold: float = 0.5,
        phrases_per_batch: int = 8,
    ) -> None:
        from transformers import Sam3Model

        folder = weights.local_folder(source)
        self.device = weights.best_device(device)
        self.model = weights.load(Sam3Model, folder, self.device)
        self._tokenizer = weights.tokenizer(folder)
        self._settings = weights.image_settings(folder)
        self._threshold, self._mask_threshold = threshold, mask_threshold
        self._batch = int(phrases_per_batch)
        self._texts: dict[str, tuple[torch.Tensor, torch.Tensor, bool]] = {}

    @staticmethod
    def digest(source: str, **options: float) -> str:
        """sha256 of the folder; options stand in the manifest by themselves."""
        return weights.folder_digest((source, ("sam3", "sam3_video")))

    def draw(self, image: np.ndarray, phrases: Sequence[str]) -> list[Drawing]:
        """One drawing a phrase; see `OpenModel.draw`."""
        vision = self.model.get_vision_features(weights.stretched(image, self._settings, self.device))
        drawings: list[Drawing] = []
        for start in range(0, len(phrases), self._batch):
            drawings += self._draw(image.shape[:2], vision, phrases[start : start + self._batch])
        return drawings

    def _draw(
        self, size: tuple[int, int], vision: SimpleNamespace, phrases: Sequence[str]
    ) -> Iterator[Drawing]:
        texts = self._encode(phrases)
        repeated = SimpleNamespace(
            hidden_states=None,
            attentions=None,
            **{
                name: tuple(level.expand(len(phrases), -1, -1, -1) for level in getattr(vision, name))
                for name in ("fpn_hidden_states", "fpn_position_encoding")
            },
        )
        found = self.model(
            vision_embeds=repeated,
            text_embeds=SimpleNamespace(pooler_output=torch.stack([features for features, _, _ in texts])),
            attention_mask=torch.stack([mask for _, mask, _ in texts]),
        )
        scores = found.pred_logits.sigmoid() * found.presence_logits.sigmoid()
        sides = torch.tensor([size[1], size[0]] * 2, device=self.device)
        for row, (_, _, truncated) in enumerate(texts):
            kept = scores[row] > self._threshold
            yield united(
                size,
                found.pred_masks[row][kept].float(),
                scores[row][kept],
                found.pred_boxes[row][kept] * sides,
                lambda logits: self._to_image(logits, size),
                truncated=truncated,
            )

    def _to_image(self, logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """(h, w) logits -> (height, width) bool, as transformers' post_process_instance_segmentation."""
        full = F.interpolate(logits.sigmoid()[None, None], size, mode="bilinear", align_corners=False)
        return full[0, 0] > self._mask_threshold

    def _encode(self, phrases: Sequence[str]) -> list[tuple[torch.Tensor, torch.Tensor, bool]]:
        """(T, C) features, (T,) attention mask, whether it was cut; of each phrase."""
        if len(self._texts) > _CACHED_PHRASES:
            self._texts.clear()
        new = list(dict.fromkeys(phrase for phrase in phrases if phrase not in self._texts))
        if new:
            options = {"padding": "max_length", "max_length": _TOKENS, "truncation": True}
            tokens = self._tokenizer(new, **options, return_tensors="pt").to(self.device)
            mask = tokens["attention_mask"]
            features = self.model.get_text_features(tokens["input_ids"], mask).pooler_output
            lengths = [len(ids) for ids in self._tokenizer(new)["input_ids"]]
            for at, phrase in enumerate(new):
                self._texts[phrase] = features[at], mask[at], lengths[at] > _TOKENS
        return [self._texts[phrase] for phrase in phrases]
