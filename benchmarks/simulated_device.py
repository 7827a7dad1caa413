"""A device that sleeps for as long as its work would take: what feeds it can be measured without one."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from benchmarks.measuring import made_up_logits
from sspsam import SSPSAM, Segmenter, SegmenterConfig, SSPSAMConfig
from sspsam.images.geometry import Geometry
from sspsam.inference import phrase_batches
from sspsam.inference.masks import DrawnMasks
from sspsam.inference.run_starts import RunStarts, run_starts
from sspsam.inference.segmenter import RESIZED_ON_CUDA
from sspsam.inference.square_scores import SquareScores
from sspsam.modeling.model import ImageFeatures
from sspsam.modeling.ssp_encoder import SemanticSpatialPrompt


class SimulatedDevice:
    """In the place of a Segmenter's model: the published sizes, the bundled text tower, towers that sleep."""

    def __init__(self, images_per_second: float) -> None:
        self._inner = SSPSAM.from_pretrained("tiny", device="cpu")
        self._seconds = 1 / images_per_second if images_per_second else 0.0
        self.config = SSPSAMConfig.preset("b16-224")
        self.device = self._inner.device
        self._logits = made_up_logits(self.config.sam.image_size // 4)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def received(self, images: Sequence[Any]) -> Sequence[Any]:
        return images

    def squares(self, images: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty(len(images), 0), torch.empty(len(images), 0)

    def encode_image(self, clip_pixels: torch.Tensor, sam_pixels: torch.Tensor) -> ImageFeatures:
        time.sleep(self._seconds * len(clip_pixels))
        patches = 1 + self.config.clip.grid**2
        tokens = torch.ones(len(clip_pixels), patches, self._inner.config.clip.embed_dim)
        return ImageFeatures(tokens, torch.zeros(len(clip_pixels), 1, 1, 1))

    def prompt(self, features: Any, text: Any, image_index: torch.Tensor) -> SemanticSpatialPrompt:
        nothing = torch.zeros(len(image_index), 1, 1)
        boxes = torch.full((len(image_index), 4), 0.5)
        return SemanticSpatialPrompt(nothing, boxes, text.word_attention, nothing, nothing)

    def decode(
        self, embedding: Any, prompts: Any, image_index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._logits[torch.arange(len(image_index)) % len(self._logits)], torch.ones(len(image_index))


@dataclass(frozen=True)
class LoadSimulated:
    """Makes a replica's Segmenter over a simulated device."""

    images_per_second: float  # 0: it takes no time
    decode: Literal["exact", "reduced"] = "exact"
    drawn: bool = False

    def __call__(self) -> Segmenter:
        torch.set_num_threads(1)
        if self.drawn:
            phrase_batches.score_squares = made_up_scores
            phrase_batches.draw_masks = made_up_masks
        device: Any = SimulatedDevice(self.images_per_second)
        return Segmenter(device, SegmenterConfig(decode=self.decode, device_resize_pixels=RESIZED_ON_CUDA))


def made_up_scores(config: SSPSAMConfig, logits: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
    """In the place of `score_squares`: of the same shapes but for the squares, which nobody looks at."""
    number = len(logits)
    return logits, logits, torch.full((number,), 1000), torch.full((3, number), 0.9)


def made_up_masks(scores: SquareScores, members: slice, geometry: Geometry, _: bool) -> DrawnMasks:
    """In the place of `draw_masks`: what CUDA hands over, drawn once."""
    number = len(range(*members.indices(len(scores.logits))))
    said = scores.signals[:, members]
    return DrawnMasks(_found(geometry, number), scores.target_pixels[members], *said, None)


@functools.cache
def _found(geometry: Geometry, number: int) -> RunStarts:
    logits = made_up_logits(256)[:number]
    return run_starts(geometry.sam.transposed().square_to_original(logits) > 0)
