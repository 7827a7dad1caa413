"""What a Segmenter takes and gives: its settings, the result of one image, the maps of one phrase."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Literal

import torch

from sspsam.errors import ConfigError, SSPSAMError
from sspsam.images.decoding import MAX_PIXELS
from sspsam.images.geometry import Geometry
from sspsam.inference.masks import Mask
from sspsam.schema import VERIFICATION_SIGNALS

DECODE = ("exact", "reduced")


@dataclass(frozen=True)
class SegmenterConfig:
    """How a Segmenter uses the machine. Batches start at these sizes and halve when memory runs out."""

    images_per_batch: int = 8  # images of one pass through the image towers
    phrases_per_batch: int = 32  # phrases of one pass through SSP encoder and mask decoder
    upsample_mib: int = 512  # MiB of full-size logits, and of masks that wait for RLE
    threads: int = min(8, os.cpu_count() or 1)  # threads that decode images and encode RLE
    cached_phrases: int = 512  # phrases whose text features are kept
    max_pixels: int = MAX_PIXELS  # pixels of an image; larger ones are refused
    min_target_pixels: int | None = None  # pixels of the score square; None: the model's own
    decode: Literal["exact", "reduced"] = "exact"  # reduced: a JPEG at the least DCT scale that suffices
    device_resize_pixels: int | None = None  # above it threads resize an image; None: 4 Mi on CUDA, else 0
    verify: Literal["none", "fast", "full"] = "none"  # signals that check each mask, see `verification`
    compiled: bool = False  # SAM's image encoder is compiled for batches of `images_per_batch`
    square_masks: bool = False  # also hand back the masks in the score square

    def __post_init__(self) -> None:
        if self.decode not in DECODE:
            raise ConfigError(f"SegmenterConfig.decode is {self.decode!r}, not one of {DECODE}")
        if self.verify not in (levels := tuple(VERIFICATION_SIGNALS)):
            raise ConfigError(f"SegmenterConfig.verify is {self.verify!r}, not one of {levels}")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("square_masks", "decode", "verify", "compiled"):
                continue
            if item.name in ("min_target_pixels", "device_resize_pixels") and value is None:
                continue
            least = 0 if item.name in ("cached_phrases", "min_target_pixels", "device_resize_pixels") else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"SegmenterConfig.{item.name} must be a whole number of at least {least}, not {value!r}"
                )


@dataclass(frozen=True)
class ImageResult:
    """What came of one image. With an `error`, `masks` is empty and what is not known is None."""

    width: int | None  # pixels, after EXIF orientation
    height: int | None
    masks: list[Mask]  # one a phrase, in the order given
    error: SSPSAMError | None
    phash: int | None  # 64-bit difference hash, signed


@dataclass(frozen=True)
class PhraseMaps:
    """What explains one mask: where the phrase is like the image, what was let through, which words."""

    phrase: str
    geometry: Geometry  # `geometry.clip.grid_to_original` lays the two maps over the image
    similarity: torch.Tensor  # (G, G) float32 over the CLIP square, 0..1
    gate: torch.Tensor  # (G, G) float32 over the CLIP square, 0..gate_scale
    words: list[str]  # the phrase's tokens as text, without start and end
    word_attention: list[float]  # one a word; with start and end they add up to 1
