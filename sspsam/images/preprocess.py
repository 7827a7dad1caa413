"""An image as the two tensors that the model takes, made the way the published weights saw them.

Both are PIL's bilinear resize of the long side, then mean and deviation in float32 in the order of the
authors' code, so that equal pixels give equal bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from sspsam.images.decoding import MAX_PIXELS, ImageInput, decode_image
from sspsam.images.geometry import Geometry

if TYPE_CHECKING:
    from sspsam.model_config import SSPSAMConfig

#: CLIP's channel means and deviations, on 0..1 (openai/CLIP).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
#: SAM's, on 0..255 (segment-anything, `Sam.__init__`).
SAM_MEAN = (123.675, 116.28, 103.53)
SAM_STD = (58.395, 57.12, 57.375)


def preprocess(
    image: ImageInput, config: SSPSAMConfig, max_pixels: int = MAX_PIXELS
) -> tuple[torch.Tensor, torch.Tensor, Geometry]:
    """Decode, resize, normalise, pad.

    Returns:
        clip_pixels: (3, S, S) float32, the image in the centre of zeros.
        sam_pixels: (3, M, M) float32, the image in the top left corner of zeros (M 1024 as published).
        geometry: the way back to the original image.

    Raises:
        ImageError: one of its kinds, see `decode_image`.
    """
    return preprocess_rgb(decode_image(image, max_pixels), config)


def preprocess_rgb(image: Image.Image, config: SSPSAMConfig) -> tuple[torch.Tensor, torch.Tensor, Geometry]:
    """`preprocess` for an image that is decoded, RGB and upright (see `decode_image`)."""
    geometry = Geometry.of(*image.size, config)
    return clip_square(image, geometry), sam_square(image, geometry), geometry


def clip_square(image: Image.Image, geometry: Geometry) -> torch.Tensor:
    """`clip_pixels` of `preprocess`, for a decoded image."""
    frame = geometry.clip
    pixels = np.zeros((3, frame.size, frame.size), np.float32)
    small = _resized(image, frame.resized_width, frame.resized_height)
    pixels[:, frame.top : frame.top + small.shape[1], frame.left : frame.left + small.shape[2]] = _normalised(
        small / np.float32(255), CLIP_MEAN, CLIP_STD
    )
    return torch.from_numpy(pixels)


def sam_square(image: Image.Image, geometry: Geometry) -> torch.Tensor:
    """`sam_pixels` of `preprocess`, for a decoded image."""
    frame = geometry.sam
    pixels = np.zeros((3, frame.size, frame.size), np.float32)
    large = _resized(image, frame.resized_width, frame.resized_height)
    pixels[:, : large.shape[1], : large.shape[2]] = _normalised(large, SAM_MEAN, SAM_STD)
    return torch.from_numpy(pixels)


def _resized(image: Image.Image, width: int, height: int) -> np.ndarray:
    """(3, height, width) float32 on 0..255."""
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    # numpy rather than torch: it runs in decoding threads, where torch would start a pool for each.
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1), dtype=np.float32)


def _normalised(pixels: np.ndarray, mean: tuple[float, ...], deviation: tuple[float, ...]) -> np.ndarray:
    shape = (3, 1, 1)
    centred = pixels - np.asarray(mean, np.float32).reshape(shape)
    return centred / np.asarray(deviation, np.float32).reshape(shape)
