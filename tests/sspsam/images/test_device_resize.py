"""What a device makes of an image is what Pillow makes of it, to the bit."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sspsam.images.device_resize import resize_bilinear

SIDES = st.tuples(*[st.integers(1, 90)] * 2)
#: What decoding at a reduced scale cuts off at each edge, pixels.
MARGINS = st.tuples(*[st.sampled_from([0.0, 0.125, 0.25, 0.5])] * 4)


@settings(max_examples=300, deadline=None)
@given(sides=SIDES, size=SIDES, margins=MARGINS, seed=st.integers(0, 2**32 - 1), flat=st.booleans())
def test_equal_to_pillow(
    sides: tuple[int, int], size: tuple[int, int], margins: tuple[float, ...], seed: int, flat: bool
) -> None:
    (width, height), (left, top, right, bottom) = sides, margins
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), seed % 256, np.uint8)
    if not flat:
        pixels = rng.choice(np.array([0, 1, 254, 255, *range(256)], np.uint8), (height, width, 3))
    part = (left, top, max(left + 0.25, width - right), max(top + 0.25, height - bottom))
    expected = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, part))
    found = resize_bilinear(torch.from_numpy(pixels), *size, part)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), expected)


def test_long_sides() -> None:
    """Thousands of taps, whose float64 weights must add up in Pillow's order."""
    rng = np.random.default_rng(1)
    for width, height in ((5000, 2), (3, 7001), (1280, 853), (853, 1280), (640, 2000)):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        for size in ((224, 1), (149, 224), (64, 43)):
            expected = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
            found = resize_bilinear(torch.from_numpy(pixels), *size, (0, 0, width, height))
            assert np.array_equal(found.numpy(), expected)
