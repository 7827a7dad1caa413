"""Every width, depth and size of SSP-SAM, and the layouts that have names.

Nothing else in the package holds a number of the architecture: where the papers say 1024 pixels,
77 tokens, 128 prompts or 50 pixels, the code reads the field below.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from sspsam.errors import ConfigError

#: Above these a config is damaged or meant to fill the memory.
_MOST, _MOST_LAYERS = 2**20, 512


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _check(config: Any, prefix: str, **parts: str) -> None:
    """Each field is of its type, every whole number positive and no more than a model can have, and each
    field of `parts` a multiple of the field that it names."""
    for item in fields(config):
        value, name = getattr(config, item.name), f"{prefix}.{item.name}"
        if item.type == "int":
            most = _MOST_LAYERS if item.name.endswith(("layers", "depth")) else _MOST
            _require(type(value) is int and value > 0, f"{name} must be positive, not {value!r:.80}")
            _require(value <= most, f"{name} is {str(value)[:80]}; no known model has over {most}")
        elif item.type == "str":
            _require(isinstance(value, str), f"{name} must be text, not {value!r:.80}")
    for name, part in parts.items():
        whole, share = getattr(config, name), getattr(config, part)
        _require(whole % share == 0, f"{prefix}.{name} {whole} is no multiple of {prefix}.{part} {share}")


@dataclass(frozen=True)
class CLIPConfig:
    """The two CLIP towers (arXiv 2103.00020) and how deep CLIP Surgery (arXiv 2304.05653) goes."""

    image_size: int  # side of the letterboxed square, pixels
    patch_size: int  # side of a patch, pixels
    embed_dim: int  # E, joint width of image and text, channels
    vision_width: int  # channels
    vision_layers: int  # blocks
    vision_heads: int  # attention heads a block
    text_width: int  # channels
    text_layers: int  # blocks
    text_heads: int  # attention heads a block
    surgery_layers: int = 6  # last vision blocks that run two streams, blocks
    vocabulary: str = "clip"  # which bundled BPE merges: "clip" or "tiny"
    vocab_size: int = 49408  # tokens, start and end included
    context_length: int = 77  # T, tokens a phrase, start and end included

    def __post_init__(self) -> None:
        heads = {"vision_width": "vision_heads", "text_width": "text_heads"}
        _check(self, "clip", image_size="patch_size", **heads)
        _require(
            self.surgery_layers <= self.vision_layers,
            f"clip.surgery_layers {self.surgery_layers} exceeds clip.vision_layers {self.vision_layers}",
        )

    @property
    def grid(self) -> int:
        """G, patches along a side."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class SSPConfig:
    """The semantic-spatial prompt encoder."""

    width: int = 512  # of both adapters and of the GRU's states, channels
    heads: int = 8  # of the patch-to-word attention
    prompts: int = 128  # P, prompt tokens for SAM
    layers: int = 6  # transformer encoder layers
    encoder_heads: int = 8  # attention heads a layer
    feed_forward: int = 2048  # hidden width of a layer's feed-forward, channels

    def __post_init__(self) -> None:
        _check(self, "ssp", width="heads")


@dataclass(frozen=True)
class SAMConfig:
    """Segment Anything (arXiv 2304.02643): image encoder, prompt encoder, mask decoder."""

    encoder_width: int  # channels
    encoder_depth: int  # blocks
    encoder_heads: int  # attention heads a block
    global_blocks: tuple[int, ...]  # indices of the blocks that attend over the whole image
    image_size: int = 1024  # side of the padded square, pixels
    patch_size: int = 16  # side of a patch, pixels
    window: int = 14  # side of an attention window, patches
    embed_dim: int = 256  # of the image embedding, prompts and decoder, channels
    mask_channels: int = 16  # hidden channels of the mask prompt's convolutions
    decoder_depth: int = 2  # two-way blocks
    decoder_heads: int = 8  # attention heads a two-way block
    decoder_mlp: int = 2048  # hidden width of a two-way block's MLP, channels
    iou_hidden: int = 256  # hidden width of the IoU head, channels

    def __post_init__(self) -> None:
        object.__setattr__(self, "global_blocks", tuple(self.global_blocks))
        _check(self, "sam", image_size="patch_size", encoder_width="encoder_heads")
        _require(
            all(0 <= block < self.encoder_depth for block in self.global_blocks),
            f"sam.global_blocks {self.global_blocks} names a block outside 0..{self.encoder_depth - 1}",
        )
        _require(
            self.embed_dim % 8 == 0 and (self.embed_dim // 2) % self.decoder_heads == 0,
            f"sam.embed_dim {self.embed_dim} must be a multiple of 8 and its half one of "
            f"sam.decoder_heads {self.decoder_heads}",
        )

    @property
    def grid(self) -> int:
        """Side of the image embedding, patches."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class SSPSAMConfig:
    """Everything that fixes the shapes of a checkpoint and the rules of its output."""

    clip: CLIPConfig
    sam: SAMConfig
    ssp: SSPConfig = field(default_factory=SSPConfig)
    score_size: int = 512  # side of the square in which the authors score and count, pixels
    min_target_pixels: int = 50  # fewer positive pixels in that square mean "no target", pixels

    def __post_init__(self) -> None:
        _require(
            0 < self.score_size <= 2**14, f"score_size must be 1 to {2**14} pixels, not {self.score_size}"
        )
        _require(
            self.min_target_pixels >= 0,
            f"min_target_pixels must not be negative, not {self.min_target_pixels}",
        )

    @classmethod
    def preset(cls, name: str, sam: str | None = None) -> SSPSAMConfig:
        """A layout by name.

        Args:
            name: one of `PRESETS`.
            sam: one of `SAM_ENCODERS` to replace the preset's own image encoder; the published
                checkpoints use `vit_h`.

        Raises:
            ConfigError: no such name; the message lists those that exist.
        """
        _require(name in PRESETS, f"no preset {name!r}; there are {', '.join(PRESETS)}")
        config = PRESETS[name]
        if sam is None:
            return config
        _require(sam in SAM_ENCODERS, f"no SAM {sam!r}; there are {', '.join(SAM_ENCODERS)}")
        return replace(config, sam=SAM_ENCODERS[sam])

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, as `config.json` holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SSPSAMConfig:
        """The inverse of `to_dict`.

        Raises:
            ConfigError: a field is missing or unknown; the message names it.
        """
        parts = {"clip": CLIPConfig, "sam": SAMConfig, "ssp": SSPConfig}
        _require(isinstance(values, dict), f"config.json holds a {type(values).__name__}, not an object")
        try:
            built = {name: parts[name](**value) if name in parts else value for name, value in values.items()}
            return cls(**built)
        except TypeError as error:
            raise ConfigError(f"config.json does not describe an SSPSAMConfig: {error}") from error


SAM_ENCODERS = {
    "vit_b": SAMConfig(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": SAMConfig(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": SAMConfig(1280, 32, 16, (7, 15, 23, 31)),
}

_B16 = CLIPConfig(
    image_size=224,
    patch_size=16,
    embed_dim=512,
    vision_width=768,
    vision_layers=12,
    vision_heads=12,
    text_width=512,
    text_layers=12,
    text_heads=8,
)
_L14 = CLIPConfig(
    image_size=336,
    patch_size=14,
    embed_dim=768,
    vision_width=1024,
    vision_layers=24,
    vision_heads=16,
    text_width=768,
    text_layers=12,
    text_heads=12,
)
# Small enough to train on a CPU and to ship in the package; see weights/tiny/MODEL_CARD.md.
_TINY = SSPSAMConfig(
    clip=CLIPConfig(
        image_size=144,
        patch_size=16,
        embed_dim=128,
        vision_width=192,
        vision_layers=4,
        vision_heads=6,
        text_width=128,
        text_layers=2,
        text_heads=4,
        surgery_layers=1,
        vocabulary="tiny",
        vocab_size=1514,
        context_length=24,
    ),
    ssp=SSPConfig(width=128, heads=4, prompts=16, layers=3, encoder_heads=8, feed_forward=512),
    sam=SAMConfig(
        encoder_width=128,
        encoder_depth=4,
        encoder_heads=4,
        global_blocks=(2,),
        image_size=192,
        patch_size=16,
        window=6,
        embed_dim=128,
        mask_channels=8,
        decoder_heads=4,
        decoder_mlp=256,
        iou_hidden=128,
    ),
    score_size=96,
    min_target_pixels=24,
)

PRESETS = {
    "tiny": _TINY,
    "b16-224": SSPSAMConfig(clip=_B16, sam=SAM_ENCODERS["vit_h"]),
    "l14-336": SSPSAMConfig(clip=_L14, sam=SAM_ENCODERS["vit_h"]),
}
