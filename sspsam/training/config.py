"""What a training run does: one frozen dataclass, a unit on every field."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from sspsam.errors import ConfigError

#: Stage -> parameters that train, by prefix. Everything else is frozen.
STAGES: Final[dict[str, tuple[str, ...]]] = {
    # Patches aligned with the words of what they show: what CLIP was pre-trained for.
    "align": ("clip.",),
    # Masks from points and boxes: what SAM was pre-trained for.
    "points": ("sam.",),
    # The published stages: boxes first, then masks.
    "boxes": ("ssp_encoder.", "clip.text", "clip.text_projection"),
    "masks": ("ssp_encoder.", "clip.text", "clip.text_projection", "sam.mask_decoder."),
}


@dataclass(frozen=True)
class TrainConfig:
    """One stage of training."""

    stage: str = "masks"  # one of STAGES
    steps: int = 1000  # optimiser steps
    images: int = 16  # a step and rank, images
    phrases: int = 6  # an image, phrases (align, boxes, masks) or prompts (points)
    accumulate: int = 1  # micro-batches a step; each has `images` images
    seed: int = 0
    learning_rate: float = 1e-3  # peak
    decoder_rate: float = 1.0  # of the mask decoder in stage "masks", times learning_rate
    decoder_frozen: float = 0.0  # fraction of the steps before the mask decoder trains
    final_rate: float = 0.01  # at the end of the cosine, times learning_rate
    warmup: int = 100  # steps
    weight_decay: float = 1e-2
    clip_norm: float = 1.0  # of the gradient
    ema_decay: float = 0.998  # a step
    precision: str = "float32"  # of the image towers: float32 or bfloat16
    dice_weight: float = 4.0
    focal_weight: float = 4.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    gate_weight: float = 0.0  # auxiliary loss on the gate; 0 in the published recipe
    iou_weight: float = 0.0  # mean squared error of SAM's IoU head
    pool: int = 0  # scenes drawn ahead and used again and again; 0 draws new ones for ever
    cache_features: bool = False  # run the frozen image towers once a pool scene
    checkpoint_every: int = 200  # steps
    validate_every: int = 500  # steps
    validation_scenes: int = 48

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ConfigError(f"--stage {self.stage!r}: there are {', '.join(STAGES)}")
        for name in ("steps", "images", "phrases", "accumulate", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1")
        if self.precision not in ("float32", "bfloat16"):
            raise ConfigError(f"--precision {self.precision!r}: float32 or bfloat16")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"--ema-decay must be in [0, 1), not {self.ema_decay}")
        if self.cache_features and not self.pool:
            raise ConfigError("--cache-features needs --pool: new scenes have nothing to reuse")
        if self.cache_features and self.stage in ("align", "points"):
            raise ConfigError(f"--cache-features: stage {self.stage} trains an image tower")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
