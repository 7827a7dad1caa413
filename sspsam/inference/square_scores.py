"""Quality signals of masks from their logits in the score square, for all phrases of a batch at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from sspsam.images.geometry import Geometry, patch_overlaps, resize
from sspsam.inference.transfers import to_device

if TYPE_CHECKING:
    from sspsam.model_config import SSPSAMConfig

#: Offset of SAM's stability score, logits (segment-anything, `calculate_stability_score`).
STABILITY_OFFSET = 1.0


@dataclass(frozen=True)
class SquareScores:
    """Of N phrases. Maps have columns first, as COCO's runs do; K is the score square's side."""

    logits: Tensor  # (N, S, S) float32 over SAM's padded square
    drawn: Tensor  # (N, K, K) bool over the score square
    target_pixels: Tensor  # (N,) int64: positive pixels of the score square, padding included
    signals: Tensor  # (3, N) float32: score, stability, clip_score; NaN where undefined


def places(geometries: Sequence[Geometry], score_size: int, rows: int, device: torch.device) -> Tensor:
    """Of B images by axis (y, x): `Geometry.spans`, and the side of `SamFrame.inside`.

    Returns (rows, 2, 4) on `device`, float64, or float32 on MPS, which has no other. Rows from B on, of
    images that are not there, repeat the last.
    """
    found = [
        [(*span, side) for span, side in zip(one.spans(score_size), one.sam.inside(score_size), strict=True)]
        for one in geometries
    ]
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return to_device(torch.tensor(found + found[-1:] * (rows - len(found)), dtype=dtype), device)


def score_squares(
    config: SSPSAMConfig,
    mask_logits: Tensor,
    image_places: Tensor,
    clip_tokens: Tensor,
    sentences: Tensor,
    slots: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fields of `SquareScores`, all on one device, without waiting for it.

    Args:
        mask_logits: (N, L, L) float32 over the padded SAM square.
        image_places: (B, 2, 4), see `places`.
        clip_tokens: (B, 1 + G*G, E), not normalised.
        sentences: (N, E).
        slots: (N,) int64, each phrase's image.
    """
    side = config.score_size
    padded = resize(mask_logits.transpose(1, 2), (config.sam.image_size, config.sam.image_size))
    square = resize(padded, (side, side))
    steps = torch.arange(side, device=square.device)
    shown = steps < image_places[slots, :, 3:]  # (N, 2, K)
    inside = shown[:, 1, :, None] & shown[:, 0, None, :]
    drawn = square > 0
    positive = drawn & inside
    pixels = positive.sum(dim=(1, 2))
    probability = (square.sigmoid() * positive).sum(dim=(1, 2)) / pixels
    wide = ((square > -STABILITY_OFFSET) & inside).sum(dim=(1, 2))
    stability = ((square > STABILITY_OFFSET) & inside).sum(dim=(1, 2)) / wide
    clip_score = _clip_score(config, drawn, image_places, clip_tokens, sentences, slots)
    signals = torch.stack([probability, stability, clip_score]).masked_fill(pixels == 0, math.nan)
    return padded, drawn, drawn.sum(dim=(1, 2)), signals


def _clip_score(
    config: SSPSAMConfig,
    drawn: Tensor,
    image_places: Tensor,
    clip_tokens: Tensor,
    sentences: Tensor,
    slots: Tensor,
) -> Tensor:
    """(N,) cosine of each sentence and the mean of the unit patch tokens, weighted by their cover."""
    clip = config.clip
    overlaps = patch_overlaps(image_places[..., :3], clip.image_size, clip.grid, config.score_size)
    rows, columns = overlaps[slots].unbind(1)
    cover = columns @ drawn.float() @ rows.transpose(1, 2)  # `drawn` has columns first
    patches = F.normalize(clip_tokens[:, 1:].float(), dim=-1)[slots]
    pooled = (cover.transpose(1, 2).flatten(1)[:, None] @ patches)[:, 0]
    return F.cosine_similarity(pooled, sentences.float(), dim=-1)
