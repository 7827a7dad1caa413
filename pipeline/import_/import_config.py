"""The settings of `sspsam import`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.sources.settings import check_settings


@dataclass(frozen=True)
class ImportConfig:
    """What is taken as the phrase, and where the images are.

    Args:
        images: folder or URL that file names are relative to; not needed with URLs or `coco_url`
        phrase_field: field of an annotation that holds its phrase; if missing, the category's name
        instances: merge the instances of one phrase of an image into one mask, or keep one mask each
        negatives: field of an image that lists what is not in it, as category ids (LVIS) or phrases: they
            become phrases without a target
    """

    images: str | None = None
    phrase_field: str = "phrase"
    instances: Literal["merge", "separate"] = "merge"
    negatives: str = "neg_category_ids"

    def __post_init__(self) -> None:
        check_settings(self)
