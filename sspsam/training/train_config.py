"""Settings of a training stage: one frozen dataclass, a unit on every field."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from sspsam.errors import ConfigError
from sspsam.training.absent import FEW, SHARE

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

    stage: str = _option("masks", f"training stage: {', '.join(STAGES)}")
    steps: int = _option(1000, "optimiser steps")
    epochs: int = _option(0, "passes over --data; overrides --steps if > 0")
    warmup_epochs: int = _option(0, "warm-up in passes over --data; with --epochs, overrides --warmup")
    images: int = _option(16, "images per micro-batch and process")
    phrases: int = _option(6, "phrases per image (prompts in stage points)")
    absent_share: float | None = _option(
        0.0,
        "with --data: share of phrases without a target, filled up with phrases of other images (default: "
        f"{SHARE:g} where less than {FEW:g} of the data's own have none, else 0; published recipes: 0)",
    )
    absent_near: float = _option(0.5, "share of near misses among the phrases of other images")
    accumulate: int = _option(1, "micro-batches per step (gradient accumulation)")
    seed: int = _option(0, "random seed of weights, scenes and phrases")
    learning_rate: float = _option(1e-3, "peak learning rate")
    decoder_rate: float = _option(1.0, "learning rate of the mask decoder in stage masks, factor of the peak")
    decoder_frozen: float = _option(0.0, "fraction of the steps in which the mask decoder stays frozen")
    final_rate: float = _option(0.01, "learning rate at the end of the cosine, factor of the peak")
    warmup: int = _option(100, "steps of linear warm-up")
    weight_decay: float = _option(1e-2, "weight decay of matrices (AdamW)")
    clip_norm: float = _option(1.0, "maximum gradient norm")
    lowest_rate: float = _option(
        0.0, "learning rate before warm-up and at the end, absolute; overrides --final-rate if > 0"
    )
    beta2: float = _option(0.98, "beta2 of AdamW")
    decay_all: bool = _option(False, "apply weight decay to biases, norms and tokens too, as published")
    text_tower: bool = _option(True, "train the text tower too in stages boxes and masks")
    vision_rate: float = _option(
        0.0,
        "learning rate of CLIP's image tower in stages boxes and masks, factor of the peak; 0: frozen",
    )
    attention_dropout: float = _option(
        0.0, "dropout in the patch-to-word attention (published recipes: 0.1, as the authors train)"
    )
    ema_decay: float = _option(0.998, "decay per step of the moving average of the weights")
    precision: str = _option("float32", "precision of the image towers: float32 or bfloat16")
    dice_weight: float = _option(4.0, "weight of the dice loss")
    focal_weight: float = _option(4.0, "weight of the focal loss")
    l1_weight: float = _option(5.0, "weight of the L1 loss of boxes")
    giou_weight: float = _option(2.0, "weight of the GIoU loss of boxes")
    gate_weight: float = _option(0.0, "weight of the auxiliary loss on the gate (not published)")
    select_weight: float = _option(0.0, "weight of the auxiliary loss on encoder patches (not published)")
    iou_weight: float = _option(0.0, "weight of the loss of SAM's IoU head (not published)")
    pool: int = _option(0, "number of scenes drawn in advance and reused; 0 draws new ones in every step")
    cache_features: bool = _option(False, "compute features of the frozen image towers once and reuse them")
    checkpoint_every: int = _option(200, "steps between checkpoints")
    validate_every: int = _option(500, "steps between validations")
    keep: str = _option("last", "weights that the stage hands on: last, or best of all validations")
    best_by: str | None = _option(
        None, "validation metric that says what is best (default: gIoU; box in stage boxes, miou in points)"
    )
    patience: int = _option(0, "end the stage after this many validations without a better one; 0: never")
    validation_scenes: int = _option(48, "scenes (with --data: images) per validation")

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ConfigError(f"--stage {self.stage!r}: there are {', '.join(STAGES)}")
        for name in ("steps", "images", "phrases", "accumulate", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1")
        if self.keep not in ("best", "last"):
            raise ConfigError(f"--keep {self.keep!r}: best or last")
        if self.patience < 0:
            raise ConfigError(f"--patience must not be negative, not {self.patience}")
        if self.precision not in ("float32", "bfloat16"):
            raise ConfigError(f"--precision {self.precision!r}: float32 or bfloat16")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"--ema-decay must be in [0, 1), not {self.ema_decay}")
        if self.absent_share is not None and not 0 <= self.absent_share < 1:
            raise ConfigError(f"--absent-share must be in [0, 1), not {self.absent_share}")
        if not 0 <= self.absent_near <= 1:
            raise ConfigError(f"--absent-near must be in 0..1, not {self.absent_near}")
        if not 0 <= self.attention_dropout < 1:
            raise ConfigError(f"--attention-dropout must be in [0, 1), not {self.attention_dropout}")
        if self.vision_rate < 0:
            raise ConfigError(f"--vision-rate must not be negative, not {self.vision_rate}")
        if self.cache_features and self.stage in ("align", "points"):
            raise ConfigError(f"--cache-features: stage {self.stage} trains an image tower")

    @property
    def measure(self) -> str:
        """The validation metric that says what is best; of `loss_...` less is better."""
        by_stage = {"align": "object_patches", "points": "miou", "boxes": "box", "masks": "gIoU"}
        return self.best_by or by_stage[self.stage]

    @property
    def trains_vision(self) -> bool:
        """Whether a stage that trains the SSP encoder trains CLIP's image tower with it."""
        return self.stage in PROMPT_STAGES and self.vision_rate > 0

    def decisive(self) -> dict[str, Any]:
        """The settings that change the result: validation is one where it chooses the weights."""
        free: tuple[str, ...] = ("checkpoint_every",)
        if self.keep == "last" and not self.patience:
            free += ("validate_every", "validation_scenes")
        return {name: value for name, value in asdict(self).items() if name not in free}
