"""SSP-SAM: masks for referring expressions, one image or millions.

    >>> from sspsam import Segmenter, SSPSAM
    >>> segmenter = Segmenter(SSPSAM.from_pretrained("tiny"))
    >>> segmenter.segment([image], [["the dog chasing the frisbee"]])[0][0].rle

Names are imported when first used, so that processes which only read or list shards never load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sspsam.drawing.overlays import draw_explanation, draw_overlay
    from sspsam.errors import SSPSAMError
    from sspsam.images.decoding import decode_image
    from sspsam.images.geometry import Geometry
    from sspsam.images.load_image import load_image
    from sspsam.inference.masks import Mask, decode_rle
    from sspsam.inference.results import ImageResult, PhraseMaps, SegmenterConfig
    from sspsam.inference.segmenter import Segmenter
    from sspsam.language.tokenizer import Tokenizer
    from sspsam.model_config import CLIPConfig, SAMConfig, SSPConfig, SSPSAMConfig
    from sspsam.modeling.model import SSPSAM, ImageFeatures, SSPSAMOutput
    from sspsam.modeling.ssp_encoder import SemanticSpatialPrompt, TextFeatures

_HOMES = {
    "sspsam.model_config": ("CLIPConfig", "SAMConfig", "SSPConfig", "SSPSAMConfig"),
    "sspsam.errors": ("SSPSAMError",),
    "sspsam.images.geometry": ("Geometry",),
    "sspsam.drawing.overlays": ("draw_explanation", "draw_overlay"),
    "sspsam.images.load_image": ("load_image",),
    "sspsam.images.decoding": ("decode_image",),
    "sspsam.inference.masks": ("Mask", "decode_rle"),
    "sspsam.modeling.model": ("SSPSAM", "ImageFeatures", "SSPSAMOutput"),
    "sspsam.modeling.ssp_encoder": ("SemanticSpatialPrompt", "TextFeatures"),
    "sspsam.inference.results": ("ImageResult", "PhraseMaps", "SegmenterConfig"),
    "sspsam.inference.segmenter": ("Segmenter",),
    "sspsam.language.tokenizer": ("Tokenizer",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "SSPSAM",
    "CLIPConfig",
    "Geometry",
    "ImageFeatures",
    "ImageResult",
    "Mask",
    "PhraseMaps",
    "SAMConfig",
    "SSPConfig",
    "SSPSAMConfig",
    "SSPSAMError",
    "SSPSAMOutput",
    "Segmenter",
    "SegmenterConfig",
    "SemanticSpatialPrompt",
    "TextFeatures",
    "Tokenizer",
    "decode_image",
    "decode_rle",
    "draw_explanation",
    "draw_overlay",
    "load_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sspsam' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
