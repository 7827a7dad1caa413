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
    from sspsam.config import CLIPConfig, SAMConfig, SSPConfig, SSPSAMConfig
    from sspsam.drawing import draw_explanation, draw_overlay
    from sspsam.errors import SSPSAMError
    from sspsam.geometry import Geometry
    from sspsam.image_refs import load_image
    from sspsam.images import decode_image
    from sspsam.masks import Mask, decode_rle
    from sspsam.modeling.model import SSPSAM, ImageFeatures, SSPSAMOutput
    from sspsam.modeling.ssp_encoder import SemanticSpatialPrompt, TextFeatures
    from sspsam.segmenter import ImageResult, PhraseMaps, Segmenter, SegmenterConfig
    from sspsam.tokenizer import Tokenizer

_HOMES = {
    "sspsam.config": ("CLIPConfig", "SAMConfig", "SSPConfig", "SSPSAMConfig"),
    "sspsam.errors": ("SSPSAMError",),
    "sspsam.geometry": ("Geometry",),
    "sspsam.drawing": ("draw_explanation", "draw_overlay"),
    "sspsam.image_refs": ("load_image",),
    "sspsam.images": ("decode_image",),
    "sspsam.masks": ("Mask", "decode_rle"),
    "sspsam.modeling.model": ("SSPSAM", "ImageFeatures", "SSPSAMOutput"),
    "sspsam.modeling.ssp_encoder": ("SemanticSpatialPrompt", "TextFeatures"),
    "sspsam.segmenter": ("ImageResult", "PhraseMaps", "Segmenter", "SegmenterConfig"),
    "sspsam.tokenizer": ("Tokenizer",),
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
