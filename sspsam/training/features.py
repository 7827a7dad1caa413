"""Outputs of the frozen image towers, computed once a scene of a pool and kept in half precision."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sspsam.modeling.model import SSPSAM
from sspsam.training.scene_batches import ScenePool, pixels


class FeatureCache:
    """Features of every scene of a pool, float16 on the CPU.

    Args:
        clip: keep CLIP's tokens; a stage that trains CLIP's image tower does without.
        masks: keep SAM's embeddings; stage "boxes" does without.
    """

    _CHUNK = 32  # scenes encoded at a time

    def __init__(
        self, model: SSPSAM, pool: ScenePool, count: int, clip: bool = True, masks: bool = True
    ) -> None:
        self._device = model.device
        tokens: list[Tensor] = []
        embeddings: list[Tensor] = []
        with torch.no_grad():
            for start in range(0, count, self._CHUNK):
                rows = np.arange(start, min(start + self._CHUNK, count), dtype=np.int64)
                inputs = pixels(pool.take(rows, self._device).images, model.config)
                if clip:
                    tokens.append(model.encode_clip(inputs[0]).half().cpu())
                if masks:
                    embeddings.append(model.encode_sam(inputs[1]).half().cpu())
        self._clip = torch.cat(tokens) if clip else None
        self._sam = torch.cat(embeddings) if masks else None

    def clip_tokens(self, scenes: NDArray[np.int64]) -> Tensor | None:
        """(B, 1 + G*G, E) float32; None if this cache was made without."""
        return self._of(scenes, self._clip)

    def sam_embedding(self, scenes: NDArray[np.int64]) -> Tensor | None:
        """(B, C, H, W) float32; None if this cache was made without."""
        return self._of(scenes, self._sam)

    def _of(self, scenes: NDArray[np.int64], kept: Tensor | None) -> Tensor | None:
        return None if kept is None else kept[torch.from_numpy(scenes)].to(self._device).float()
