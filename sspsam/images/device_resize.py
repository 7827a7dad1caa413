"""Pillow's bilinear resize, bit for bit, as integer tensor operations that any device can run.

Pillow weighs bytes with integers of 22 bits along one axis, rounds to bytes, then along the other
(python-pillow/Pillow, `src/libImaging/Resample.c`). Integers add up to the same on every device.
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

#: Left, top, right, bottom of the part that is resized, in pixels of the image.
Part = tuple[float, float, float, float]

_BITS = 22  # of a weight's fraction; with the 8 of a byte they leave two of an int32


def resize_bilinear(pixels: Tensor, width: int, height: int, part: Part) -> Tensor:
    """(H, W, 3) uint8 to (height, width, 3) uint8, on the device of `pixels`, without waiting for it.

    Equal to `PIL.Image.Image.resize((width, height), BILINEAR, box=part)` of the Pillow that is installed.
    Takes some 50 bytes of the device's memory for each pixel of the larger of image and result.
    """
    rows, columns = pixels.shape[0] - height, pixels.shape[1] - width
    passes = [(1, width, part[0], part[2]), (0, height, part[1], part[3])]
    if rows > max(0, 2 * columns) and _starts_with_rows():
        passes.reverse()
    for axis, size, low, high in passes:
        pixels = _weighted(pixels, axis, size, low, high)
    return pixels


@cache
def _starts_with_rows() -> bool:
    """Whether Pillow resizes rows first where most of an image's rows go: 13 does, older ones do not."""
    tall = torch.from_numpy((np.add.outer(np.arange(60) ** 2, np.arange(27) ** 3) % 251).astype(np.uint8))
    pixels = tall.view(60, 9, 3)
    by_pillow = np.asarray(Image.fromarray(pixels.numpy()).resize((7, 11), Image.Resampling.BILINEAR))
    rows_first = _weighted(_weighted(pixels, 0, 11, 0, 60), 1, 7, 0, 9)
    return np.array_equal(by_pillow, rows_first.numpy())


def _weighted(pixels: Tensor, axis: int, size: int, low: float, high: float) -> Tensor:
    """Resized along one axis, rounded to bytes."""
    if pixels.shape[axis] == size == high and low == 0:
        return pixels
    index, weights = _taps(pixels.shape[axis], size, low, high, pixels.device)
    seen = pixels.index_select(axis, index).unflatten(axis, weights.shape)
    shape = [1] * seen.dim()
    shape[axis : axis + 2] = weights.shape
    total = (seen * weights.view(shape)).sum(dim=axis + 1, dtype=torch.int32)
    # Weights are positive and add up to one: nothing to clip.
    return ((total + (1 << (_BITS - 1))) >> _BITS).to(torch.uint8)


@lru_cache(maxsize=256)
def _taps(inputs: int, size: int, low: float, high: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which pixels make each of `size` pixels, (size * K,) int32, and their weights, (size, K) int32.

    `precompute_coeffs` and `normalize_coeffs_8bpc` of Pillow, in the same order of float64 operations.
    """
    begin = float(np.float32(low))
    scale = float(np.float32(high) - np.float32(low)) / size
    support = max(scale, 1.0)  # the triangle's half width is 1 px of the coarser of the two
    centre = begin + (np.arange(size) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), inputs) - first
    steps = np.arange(count.max())
    distance = np.abs((steps + first[:, None] - centre[:, None] + 0.5) * (1.0 / support))
    weights = np.where((distance < 1.0) & (steps < count[:, None]), 1.0 - distance, 0.0)
    total = np.cumsum(weights, axis=1)[:, -1:]  # one after the other, as a loop adds
    fixed = (0.5 + weights / total * (1 << _BITS)).astype(np.int32)
    index = np.minimum(first[:, None] + steps, inputs - 1).astype(np.int32)
    # CUDA stages ordinary memory before it returns; without `non_blocking` it would wait for all its work.
    index_there = torch.from_numpy(index.ravel()).to(device, non_blocking=True)
    return index_there, torch.from_numpy(fixed).to(device, non_blocking=True)
