"""The `segment-anything` package's model classes, with or without torchvision.

The package imports torchvision in its `__init__` for helpers that nothing here uses, while its
`modeling` needs torch alone. Where the package imports, it is used as it is; where it does not, a
bare module with the package's path stands in for the `__init__`.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType


def _package() -> ModuleType:
    try:
        return importlib.import_module("segment_anything")
    except ImportError:
        spec = PathFinder.find_spec("segment_anything")
        if spec is None:
            raise
        bare = module_from_spec(spec)  # not executed: only `__path__` is wanted
        sys.modules["segment_anything"] = bare
        return bare


_package()
modeling = importlib.import_module("segment_anything.modeling")
transformer = importlib.import_module("segment_anything.modeling.transformer")

ImageEncoderViT = modeling.ImageEncoderViT
MaskDecoder = modeling.MaskDecoder
PromptEncoder = modeling.PromptEncoder
TwoWayTransformer = modeling.TwoWayTransformer
