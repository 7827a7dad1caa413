"""SSP-SAM: CLIP, the SSP encoder and SAM as one module."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sspsam.checkpoint import RANDOM_PREFIX, fingerprint, random_config, read_weights, write_weights
from sspsam.errors import ArchitectureError, ConfigError
from sspsam.language.tokenizer import Tokenizer
from sspsam.model_config import SSPSAMConfig
from sspsam.modeling.clip import CLIPTowers
from sspsam.modeling.precision import full_precision, image_tower_autocast
from sspsam.modeling.sam import SAM
from sspsam.modeling.ssp_encoder import SemanticSpatialPrompt, SSPEncoder, TextFeatures

if TYPE_CHECKING:
    from sspsam.images.geometry import Geometry
    from sspsam.images.preprocess import ResizedImage, WholeImage


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
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: torch.device | str | None = None,
        sha256: str | None = None,
    ) -> SSPSAM:
        """A model with trained weights, in evaluation mode, float32, on `device`.

        Args:
            source: a bundled name (`bundled_models`); `random:PRESET` for random weights of seed 0 (a
                warning says so); a folder or a `.safetensors` file of `save_pretrained`; an authors'
                `.pth` (both spellings, sizes inferred from shapes); `hf://org/repo/path`; or any fsspec
                URL of one of these. Remote files are cached.
            device: CUDA, else MPS, else the CPU if left out.
            sha256: hex digest that the weights file must have.

        Raises:
            UnknownModelError: there is nothing of that name; the message lists what there is.
            ChecksumError: the file's sha256 is another.
            ArchitectureError: tensors are missing, extra or misshapen; the message lists them.
            CheckpointError: the file is damaged, or would run code when unpickled.
            ConfigError: `device` names no device, or the file's config describes no model.
        """
        source = str(source)
        where = default_device() if device is None else _device(device)
        if source.startswith(RANDOM_PREFIX):
            warnings.warn(
                f"{source} has RANDOM WEIGHTS: its masks mean nothing. It is for trying things out.",
                UserWarning,
                stacklevel=2,
            )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = cls(random_config(source))
            model.source = {"name": source, "sha256": fingerprint(source)}
            return model.to(where).eval()
        weights = read_weights(source, sha256=sha256)
        # First without memory: a config may name any sizes, and only those of the tensors are built.
        with torch.device("meta"):
            check_tensors(cls(weights.config, weights.tokenizer), weights.tensors, source)
        with torch.random.fork_rng(devices=[]):
            model = cls(weights.config, weights.tokenizer)
        load_strict(model, weights.tensors, source)
        model.source = weights.source
        return model.to(where).eval()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json, model.safetensors and the tokenizer's merges file into `folder`.

        Args:
            folder: made if it does not exist.
            dtype: type of the stored floating-point tensors; the model's own if left out.
        """
        write_weights(folder, self.config, self.state_dict(), self.tokenizer, dtype)

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

    def received(self, images: Sequence[ResizedImage | WholeImage]) -> list[ResizedImage]:
        """B images on the model's device, resized there if they came whole."""
        from sspsam.images.preprocess import received

        return received(images, self.device)

    def squares(self, images: Sequence[ResizedImage]) -> tuple[Tensor, Tensor]:
        """B resized images as `encode_image` takes them, normalised and padded on the model's device."""
        from sspsam.images.preprocess import squares

        return squares(images, self.device)

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


def default_device() -> torch.device:
    """CUDA, else MPS, else CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _device(name: torch.device | str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"no device {str(name)!r}; give cpu, cuda, cuda:N or mps") from error


def load_strict(model: SSPSAM, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load all tensors of a model. Raises ArchitectureError, which lists those that do not fit."""
    check_tensors(model, tensors, source)
    model.load_state_dict(dict(tensors))


def check_tensors(model: SSPSAM, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raises ArchitectureError, which lists the tensors that do not fit the model (of any device)."""
    own = model.state_dict()
    problems = [
        f"misshapen {name}: {tuple(tensors[name].shape)} in the file, {tuple(own[name].shape)} here"
        for name in sorted(own.keys() & tensors.keys())
        if own[name].shape != tensors[name].shape
    ]
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    problems += [f"missing {name} {tuple(own[name].shape)}" for name in missing]
    problems += [f"extra {name} {tuple(tensors[name].shape)}" for name in extra]
    if problems:
        shown = "\n  ".join(problems[:40])
        more = f"\n  and {len(problems) - 40} more" if len(problems) > 40 else ""
        raise ArchitectureError(f"{source} is not a checkpoint of this model:\n  {shown}{more}")
