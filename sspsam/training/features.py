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
        masks: keep SAM's embeddings too; stage "boxes" does without.
    """

    _CHUNK = 32  # scenes encoded at a time

    def __init__(self, model: SSPSAM, pool: ScenePool, count: int, masks: bool = True) -> None:
        self._device = model.device
        clip: list[Tensor] = []
        sam: list[Tensor] = []
        with torch.no_grad():
            for start in range(0, count, self._CHUNK):
                rows = np.arange(start, min(start + self._CHUNK, count), dtype=np.int64)
                inputs = pixels(pool.take(rows, self._device).images, model.config)
                clip.append(model.encode_clip(inputs[0]).half().cpu())
                if masks:
                    sam.append(model.encode_sam(inputs[1]).half().cpu())
        self._clip = torch.cat(clip)
        self._sam = torch.cat(sam) if masks else None

    def clip_tokens(self, scenes: NDArray[np.int64]) -> Tensor:
        """(B, 1 + G*G, E) float32."""
        return self._clip[torch.from_numpy(scenes)].to(self._device).float()

    def sam_embedding(self, scenes: NDArray[np.int64]) -> Tensor:
        """(B, C, H, W) float32."""
        if self._sam is None:
            raise RuntimeError("this cache was made without SAM's embeddings")
        return self._sam[torch.from_numpy(scenes)].to(self._device).float()
