"""The maps that explain a mask: where the image is similar to the phrase, what the gate lets through,
and how much each word counts. Only CLIP and the SSP encoder run, not SAM."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from pipeline.dataset.pictures import Pictures
from pipeline.view.view_config import ViewConfig
from sspsam.errors import ConfigError, EmptyPhraseError

if TYPE_CHECKING:
    from torch import Tensor

    from sspsam import SSPSAM


class Attention:
    """Holds the model of --model, if given. It is loaded at start, so that a wrong one ends the command
    instead of failing in the browser."""

    def __init__(self, config: ViewConfig, pictures: Pictures) -> None:
        """Raises CheckpointError if the model cannot be loaded."""
        self._pictures = pictures
        self._lock = threading.Lock()
        self._model: SSPSAM | None = None
        if config.model is not None:
            from sspsam import SSPSAM

            self._model = SSPSAM.from_pretrained(config.model, device=config.device)

    @property
    def available(self) -> bool:
        """Whether a model is loaded."""
        return self._model is not None

    def maps(self, image: int, phrase: str) -> dict[str, Any]:
        """The maps of `phrase` over the image with this id.

        Returns {"maps": [{"name", "low", "high", "values" (G rows of G numbers, 0..1 between low and
        high)}], "crop": [left, top, width, height], "words": [{"token", "weight"}]}. Maps lie over
        the letterboxed CLIP square; `crop` is the image's part of it, relative to its side.
        Raises ConfigError without a model, EmptyPhraseError, or what decoding the image raises.
        """
        if self._model is None:
            raise ConfigError("no model is loaded: start `sspsam view` with --model")
        if not phrase.strip():
            raise EmptyPhraseError("give a phrase: there is nothing to attend to in an empty one")
        import torch

        from sspsam.modeling.model import ImageFeatures

        model = self._model
        with self._lock, torch.inference_mode():
            clip_pixels, _, geometry = model.preprocess(self._pictures.encoded(image))
            tokens = model.encode_clip(clip_pixels[None].to(model.device))
            text = model.encode_text(model.tokenize([phrase]).to(model.device))
            features = ImageFeatures(tokens, sam_embedding=tokens.new_empty(0))
            first = torch.zeros(1, dtype=torch.int64, device=model.device)
            prompt = model.prompt(features, text, first)
        frame = geometry.clip
        pixels = (frame.left, frame.top, frame.resized_width, frame.resized_height)
        weights = prompt.word_attention[0].tolist()
        words = zip(model.tokenizer.words(phrase), weights, strict=False)
        return {
            "maps": [
                _scaled("similarity", prompt.similarity[0]),
                _scaled("gate", prompt.gate[0]),
            ],
            "crop": [value / frame.size for value in pixels],
            "words": [{"token": token, "weight": weight} for token, weight in words],
        }


def _scaled(name: str, grid: Tensor) -> dict[str, Any]:
    low, high = float(grid.min()), float(grid.max())
    values = ((grid - low) / ((high - low) or 1.0)).round(decimals=3).tolist()
    return {"name": name, "low": low, "high": high, "values": values}
