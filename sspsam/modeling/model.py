"""SSP-SAM: CLIP, the SSP encoder and SAM as one module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sspsam.language.tokenizer import Tokenizer
from sspsam.model_config import SSPSAMConfig
from sspsam.modeling.clip import CLIPTowers
from sspsam.modeling.precision import full_precision, image_tower_autocast
from sspsam.modeling.sam import SAM
from sspsam.modeling.ssp_encoder import SemanticSpatialPrompt, SSPEncoder, TextFeatures

if TYPE_CHECKING:
    from sspsam.images.geometry import Geometry


@dataclass(frozen=True)
class ImageFeatures:
    """What the two image towers see; computed once an image, used with any phrase."""

    clip_tokens: Tensor  # (B, 1 + G*G, E) float32, class token first, not normalised
    sam_embedding: Tensor  # (B, 256, 64, 64) float32


@dataclass(frozen=True)
class SSPSAMOutput:
    """All outputs for N phrases. Shapes as in `SemanticSpatialPrompt`; L is SAM's logit side."""

    mask_logits: Tensor  # (N, L, L) over SAM's padded square; positive means mask
    predicted_iou: Tensor  # (N,), SAM's own estimate
    boxes: Tensor  # (N, 4)
    prompts: Tensor  # (N, P, C)
    word_attention: Tensor  # (N, T)
    similarity: Tensor  # (N, G, G)
    gate: Tensor  # (N, G, G)


class SSPSAM(nn.Module):
    """SSP-SAM with random weights; `from_pretrained` loads trained ones.

    Shapes in the docstrings are those of the published layouts; every size comes from `config`.
    B images, N phrases, each phrase belonging to the image that `image_index` names.

    Args:
        config: sizes of every part.
        tokenizer: phrases to token ids; the bundled one of `config.clip.vocabulary` if left out.
    """

    def __init__(self, config: SSPSAMConfig, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer or Tokenizer(config.clip.vocabulary, config.clip.context_length)
        self.clip = CLIPTowers(config.clip)
        self.ssp_encoder = SSPEncoder(config)
        self.sam = SAM(config.sam)
        #: Where the weights came from and their sha256; set by `from_pretrained`.
        self.source: dict[str, str] = {"name": "random", "sha256": ""}
        #: Overrides the image towers' precision; None lets the device decide (sspsam.modeling.precision).
        self.image_tower_dtype: torch.dtype | None = None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.ssp_encoder.box_token.device

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> SSPSAM:
        """A model with trained weights, in evaluation mode. See `sspsam.checkpoint.load_model`."""
        from sspsam.checkpoint import load_model

        return load_model(source, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, model.safetensors and the tokenizer's merges file into `folder`."""
        from sspsam.checkpoint import save_model

        save_model(self, folder)

    def encode_image(self, clip_pixels: Tensor, sam_pixels: Tensor) -> ImageFeatures:
        """Both image towers, once an image, in the device's tower precision.

        Args:
            clip_pixels: (B, 3, S, S) float32, as `preprocess` makes them.
            sam_pixels: (B, 3, 1024, 1024) float32, likewise.

        Returns:
            ImageFeatures with `clip_tokens` (B, 1 + G*G, E) and `sam_embedding`
            (B, 256, 64, 64), both float32.
        """
        return ImageFeatures(self.encode_clip(clip_pixels), self.encode_sam(sam_pixels))

    def encode_clip(self, clip_pixels: Tensor) -> Tensor:
        """CLIP's image tower alone: (B, 3, S, S) to (B, 1 + G*G, E) float32."""
        with image_tower_autocast(clip_pixels.device, self.image_tower_dtype):
            return self.clip.encode_image(clip_pixels).float()

    def encode_sam(self, sam_pixels: Tensor) -> Tensor:
        """SAM's image encoder alone: (B, 3, 1024, 1024) to (B, 256, 64, 64) float32."""
        with image_tower_autocast(sam_pixels.device, self.image_tower_dtype):
            return self.sam.image_encoder(sam_pixels).float()  # type: ignore[no-any-return]

    def encode_text(self, token_ids: Tensor) -> TextFeatures:
        """All of the text side, once a phrase: (N, 77) int64 ids to TextFeatures."""
        with full_precision(token_ids.device):
            words, sentence = self.clip.encode_text(token_ids)
            return self.ssp_encoder.encode_text(token_ids, words, sentence)

    def prompt(
        self, image_features: ImageFeatures, text_features: TextFeatures, image_index: Tensor
    ) -> SemanticSpatialPrompt:
        """Prompts of N phrases. `image_index` (N,) int64 names each phrase's image."""
        return self._prompt(image_features.clip_tokens, text_features, image_index)

    def _prompt(
        self, clip_tokens: Tensor, text_features: TextFeatures, image_index: Tensor
    ) -> SemanticSpatialPrompt:
        with full_precision(clip_tokens.device):
            return self.ssp_encoder(clip_tokens, text_features, image_index)  # type: ignore[no-any-return]

    def decode(self, sam_embedding: Tensor, prompts: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """SAM's mask decoder over all phrases of all images in one batch.

        Args:
            sam_embedding: (B, 256, 64, 64).
            prompts: (N, P, 256).
            image_index: (N,) int64.

        Returns:
            mask_logits (N, 256, 256) over the padded square; predicted_iou (N,).
        """
        with full_precision(sam_embedding.device):
            return self.sam.decode(sam_embedding, prompts, image_index)

    def forward(
        self,
        clip_pixels: Tensor,
        token_ids: Tensor,
        sam_embedding: Tensor,
        image_index: Tensor | None = None,
    ) -> SSPSAMOutput:
        """Masks over precomputed SAM embeddings, for training and evaluation.

        Args:
            clip_pixels: (B, 3, S, S).
            token_ids: (N, 77) int64.
            sam_embedding: (B, 256, 64, 64).
            image_index: (N,) int64; left out, phrase i belongs to image i (N = B).
        """
        if image_index is None:
            image_index = torch.arange(len(token_ids), device=token_ids.device)
        text = self.encode_text(token_ids)
        prompt = self._prompt(self.encode_clip(clip_pixels), text, image_index)
        mask_logits, predicted_iou = self.decode(sam_embedding, prompt.prompts, image_index)
        return SSPSAMOutput(
            mask_logits=mask_logits,
            predicted_iou=predicted_iou,
            boxes=prompt.boxes,
            prompts=prompt.prompts,
            word_attention=prompt.word_attention,
            similarity=prompt.similarity,
            gate=prompt.gate,
        )

    def preprocess(self, image: Any) -> tuple[Tensor, Tensor, Geometry]:
        """An image to both towers' inputs. See `sspsam.images.preprocess.preprocess`."""
        from sspsam.images.preprocess import preprocess

        return preprocess(image, self.config)

    def tokenize(self, phrases: Sequence[str]) -> Tensor:
        """N phrases to (N, 77) int64 token ids; too long a phrase keeps its first tokens."""
        return self.tokenizer(phrases)
