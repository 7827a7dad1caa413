"""SSP-SAM: masks for referring expressions, one image or millions.

>>> from sspsam import SSPSAM
>>> model = SSPSAM.from_pretrained("tiny")
"""

from sspsam.config import CLIPConfig, SAMConfig, SSPConfig, SSPSAMConfig
from sspsam.errors import SSPSAMError
from sspsam.modeling.model import SSPSAM, ImageFeatures, SSPSAMOutput
from sspsam.modeling.ssp_encoder import SemanticSpatialPrompt, TextFeatures
from sspsam.tokenizer import Tokenizer

__all__ = [
    "SSPSAM",
    "CLIPConfig",
    "ImageFeatures",
    "SAMConfig",
    "SSPConfig",
    "SSPSAMConfig",
    "SSPSAMError",
    "SSPSAMOutput",
    "SemanticSpatialPrompt",
    "TextFeatures",
    "Tokenizer",
]
