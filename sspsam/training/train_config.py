"""What a training run does: one frozen dataclass, a unit on every field."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
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

#: CLIP's image tower, which stages "boxes" and "masks" leave frozen unless `vision_rate` is above 0.
VISION: Final = ("clip.vision.", "clip.visual_projection.")
PROMPT_STAGES: Final = ("boxes", "masks")


def _option(default: Any, text: str) -> Any:
    """A field with the line that `sspsam train --help` shows."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """One stage of training."""

    stage: str = _option("masks", f"what trains, and on what: {', '.join(STAGES)}")
    steps: int = _option(1000, "optimiser steps")
    epochs: int = _option(0, "passes over --data; replaces --steps if > 0")
    warmup_epochs: int = _option(0, "with --epochs, replaces --warmup, passes")
    images: int = _option(16, "images a step and process")
    phrases: int = _option(6, "phrases an image (prompts in stage points)")
    accumulate: int = _option(1, "micro-batches of IMAGES images a step")
    seed: int = _option(0, "of weights, scenes and phrases")
    learning_rate: float = _option(1e-3, "peak learning rate")
    decoder_rate: float = _option(1.0, "rate of the mask decoder in stage masks, times the peak")
    decoder_frozen: float = _option(0.0, "share of the steps before the mask decoder trains")
    final_rate: float = _option(0.01, "rate at the end of the cosine, times the peak")
    warmup: int = _option(100, "steps of linear warm-up")
    weight_decay: float = _option(1e-2, "AdamW's decay of matrices, a step, times the rate")
    clip_norm: float = _option(1.0, "largest norm of the gradient")
    lowest_rate: float = _option(
        0.0, "absolute rate that every group warms up from and ends at; replaces --final-rate if > 0"
    )
    beta2: float = _option(0.98, "AdamW's decay of the squared gradient, a step")
    decay_all: bool = _option(False, "decay biases, norms and tokens too, as published")
    text_tower: bool = _option(True, "stages boxes and masks train the text tower too")
    vision_rate: float = _option(
        0.0, "rate of CLIP's image tower in stages boxes and masks, times the peak; 0 freezes it"
    )
    ema_decay: float = _option(0.998, "decay of the averaged weights, a step")
    precision: str = _option("float32", "of the image towers: float32 or bfloat16")
    dice_weight: float = _option(4.0, "of the dice loss")
    focal_weight: float = _option(4.0, "of the focal loss")
    l1_weight: float = _option(5.0, "of the box's L1 loss")
    giou_weight: float = _option(2.0, "of the box's GIoU loss")
    gate_weight: float = _option(0.0, "of the auxiliary loss on the gate (not published)")
    select_weight: float = _option(0.0, "of the auxiliary loss on the encoder's patches (not published)")
    iou_weight: float = _option(0.0, "of the error of SAM's IoU head (not published)")
    pool: int = _option(0, "scenes drawn ahead and reused; 0 draws new ones for ever")
    cache_features: bool = _option(False, "run the frozen image towers once a pool scene")
    checkpoint_every: int = _option(200, "steps between checkpoints")
    validate_every: int = _option(500, "steps between validations")
    validation_scenes: int = _option(48, "scenes of a validation")

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
        if self.vision_rate < 0:
            raise ConfigError(f"--vision-rate must not be negative, not {self.vision_rate}")
        if self.cache_features and self.stage in ("align", "points"):
            raise ConfigError(f"--cache-features: stage {self.stage} trains an image tower")

    @property
    def trains_vision(self) -> bool:
        """Whether a stage that trains the SSP encoder trains CLIP's image tower with it."""
        return self.stage in PROMPT_STAGES and self.vision_rate > 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
