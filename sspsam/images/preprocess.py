"""An image as the two tensors that the model takes, made the way the published weights saw them.

Both are PIL's bilinear resize of the long side, then mean and deviation in float32 in the order of the
authors' code, so that equal pixels give equal bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from sspsam.images.decoding import MAX_PIXELS, Decoded, ImageInput, decode_image
from sspsam.images.device_resize import Part, resize_bilinear
from sspsam.images.geometry import ClipFrame, Geometry, SamFrame

if TYPE_CHECKING:
    from sspsam.model_config import SSPSAMConfig

#: CLIP's channel means and deviations, on 0..1 (openai/CLIP).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
#: SAM's, on 0..255 (segment-anything, `Sam.__init__`).
SAM_MEAN = (123.675, 116.28, 103.53)
SAM_STD = (58.395, 57.12, 57.375)


_Constants: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]  # scale, mean, deviation: (3 or 1, 1, 1)


def _constants(scale: float, *channels: tuple[float, ...]) -> _Constants:
    mean, deviation = (np.asarray(values, np.float32).reshape(3, 1, 1) for values in channels)
    return np.full((1, 1, 1), scale, np.float32), mean, deviation


_CLIP = _constants(255, CLIP_MEAN, CLIP_STD)
_SAM = _constants(1, SAM_MEAN, SAM_STD)


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
    return _square(image, geometry.clip, _CLIP)


def sam_square(image: Image.Image, geometry: Geometry) -> torch.Tensor:
    """`sam_pixels` of `preprocess`, for a decoded image."""
    return _square(image, geometry.sam, _SAM)


@dataclass(frozen=True)
class ResizedImage:
    """One image resized for the two squares: (height, width, 3) uint8 each."""

    clip: torch.Tensor
    sam: torch.Tensor
    geometry: Geometry


@dataclass(frozen=True)
class WholeImage:
    """One image that the device resizes: (height, width, 3) uint8, and where in them it lies."""

    pixels: torch.Tensor
    part: Part
    geometry: Geometry


def resize_decoded(image: Decoded, config: SSPSAMConfig, pinned: bool = False) -> ResizedImage:
    """The part of `preprocess_rgb` that threads do; `received` and `squares` are the rest.

    Args:
        pinned: in page-locked memory, which CUDA copies without waiting. torch keeps such memory and
            hands it out again once its copy is done.
    """
    geometry = Geometry.of(image.width, image.height, config)
    clip, sam = (
        _travelling(_resized(image.rgb, frame, image.box), pinned) for frame in (geometry.clip, geometry.sam)
    )
    return ResizedImage(clip, sam, geometry)


def whole_image(image: Decoded, config: SSPSAMConfig, pinned: bool = False) -> WholeImage:
    """`resize_decoded` for a device that resizes faster than a core does: the same bytes come of it."""
    geometry = Geometry.of(image.width, image.height, config)
    return WholeImage(_travelling(np.asarray(image.rgb), pinned), image.box, geometry)


def to_send(
    image: Decoded, config: SSPSAMConfig, most: int, pinned: bool = False
) -> ResizedImage | WholeImage:
    """`whole_image` if the decoded image has at most `most` pixels, else `resize_decoded`."""
    take = whole_image if image.rgb.width * image.rgb.height <= most else resize_decoded
    return take(image, config, pinned)


def received(images: Sequence[ResizedImage | WholeImage], device: torch.device) -> list[ResizedImage]:
    """B images on `device`, those that came whole resized there. Waits for nothing."""

    def sent(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(device, non_blocking=True)

    there = []
    for image in images:
        if isinstance(image, WholeImage):
            pixels, part, frames = sent(image.pixels), image.part, (image.geometry.clip, image.geometry.sam)
            clip, sam = (resize_bilinear(pixels, f.resized_width, f.resized_height, part) for f in frames)
        else:
            clip, sam = sent(image.clip), sent(image.sam)
        there.append(ResizedImage(clip, sam, image.geometry))
    return there


def squares(images: Sequence[ResizedImage], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """B images -> `clip_pixels` (B, 3, S, S) and `sam_pixels` (B, 3, M, M) of `preprocess`, made on `device`.

    The same operations in float32, so the same bits. Waits for nothing.
    """
    clip = _on_device([(one.clip, one.geometry.clip) for one in images], _CLIP, device)
    return clip, _on_device([(one.sam, one.geometry.sam) for one in images], _SAM, device)


def _on_device(
    images: Sequence[tuple[torch.Tensor, ClipFrame | SamFrame]], constants: _Constants, device: torch.device
) -> torch.Tensor:
    # Tensors, because CUDA divides by a Python number by multiplying with its reciprocal.
    of = [torch.from_numpy(constant).to(device, non_blocking=True) for constant in constants]
    side = images[0][1].size
    batch = torch.zeros(len(images), 3, side, side, device=device)
    for square, (pixels, frame) in zip(batch, images, strict=True):
        planes = pixels.to(device, non_blocking=True).permute(2, 0, 1)
        # Whole planes first: a CPU takes three times as long to normalise what strides by three.
        small = planes.to(torch.float32, memory_format=torch.contiguous_format)
        _inside(square, frame).copy_(_normalised(small, *of))
    return batch


def _square(image: Image.Image, frame: ClipFrame | SamFrame, constants: _Constants) -> torch.Tensor:
    # numpy rather than torch: it runs in decoding threads, where torch would start a pool for each.
    square = np.zeros((3, frame.size, frame.size), np.float32)
    small = np.ascontiguousarray(_resized(image, frame).transpose(2, 0, 1), dtype=np.float32)
    _inside(square, frame)[:] = _normalised(small, *constants)
    return torch.from_numpy(square)


def _travelling(pixels: np.ndarray, pinned: bool) -> torch.Tensor:
    """A copy of (height, width, 3) uint8 to send from."""
    sent = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=pinned)
    sent.numpy()[:] = pixels
    return sent


def _resized(
    image: Image.Image, frame: ClipFrame | SamFrame, box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """(height, width, 3) uint8 of the whole image, or of a part of it."""
    size = frame.resized_width, frame.resized_height
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box))


def _inside(square: Any, frame: ClipFrame | SamFrame) -> Any:
    """The part of a (3, S, S) square that shows the image."""
    top, left = (frame.top, frame.left) if isinstance(frame, ClipFrame) else (0, 0)
    return square[:, top : top + frame.resized_height, left : left + frame.resized_width]


def _normalised(pixels: Any, scale: Any, mean: Any, deviation: Any) -> Any:
    """numpy or torch, float32; the order of operations is the authors'."""
    return (pixels / scale - mean) / deviation
