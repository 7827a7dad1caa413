"""Pixels are the authors' to the bit (parity fixture), at any size of image and model."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sspsam.images.decoding import MAX_PIXELS, decode_reduced
from sspsam.images.preprocess import preprocess, received, resize_decoded, squares, whole_image
from sspsam.model_config import SSPSAMConfig

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"


def parity_image(size: tuple[int, int], seed: int) -> np.ndarray:
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32)
    red, green = np.sin(x / (17 + seed) + y / 31), np.cos(x / 23 - y / (11 + seed))
    channels = [(red + 1) / 2, (green + 1) / 2, ((x + y) % 97) / 97]
    return (np.stack(channels, -1) * 255).astype(np.uint8)


def test_pixels_equal_the_authors() -> None:
    arrays = np.load(PARITY / "dev_b16.npz")
    made = json.loads((PARITY / "dev_b16.json").read_text())
    config = SSPSAMConfig.preset("b16-224")
    for i, (size, seed) in enumerate(zip(made["sizes"], made["image_seeds"], strict=True)):
        clip_pixels, sam_pixels, geometry = preprocess(parity_image(size, seed), config)
        assert np.array_equal(clip_pixels[:, ::8, ::8], arrays["clip_pixels"][i])
        assert np.array_equal(sam_pixels[:, ::32, ::32], arrays["sam_pixels"][i])
        assert (geometry.width, geometry.height) == tuple(size)


@pytest.mark.parametrize("size", [(1, 1), (1, 20), (400, 20), (3000, 150), (1, 5000)])
@pytest.mark.parametrize("preset", ["tiny", "l14-336"])
def test_any_size(size: tuple[int, int], preset: str) -> None:
    config = SSPSAMConfig.preset(preset)
    image = np.full((size[1], size[0], 3), 255, np.uint8)
    clip_pixels, sam_pixels, geometry = preprocess(image, config)
    assert clip_pixels.shape == (3, config.clip.image_size, config.clip.image_size)
    assert sam_pixels.shape == (3, config.sam.image_size, config.sam.image_size)
    clip, sam = geometry.clip, geometry.sam
    placed = clip_pixels[0] != 0
    assert placed.sum() == clip.resized_width * clip.resized_height
    assert placed[clip.top, clip.left]
    assert (sam_pixels[0] != 0).sum() == sam.resized_width * sam.resized_height
    assert max(sam.resized_width, sam.resized_height) == config.sam.image_size


def test_the_device_makes_the_same_pixels() -> None:
    config = SSPSAMConfig.preset("b16-224")
    images = [parity_image(size, 3) for size in ((70, 50), (33, 400), (1300, 700), (1, 5))]
    expected = [preprocess(image, config) for image in images]
    device = torch.device("cpu")
    for take in (resize_decoded, whole_image):
        sent = [take(decode_reduced(image, MAX_PIXELS, None), config) for image in images]
        found = squares(received(sent, device), device)
        for pixels, wanted in zip(found, zip(*(one[:2] for one in expected), strict=True), strict=True):
            assert torch.equal(pixels, torch.stack(wanted))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_lies_where_the_whole_one_does(orientation: int) -> None:
    """Smooth pictures of odd sides, so that half a pixel of shift would show."""
    config = SSPSAMConfig.preset("tiny")
    y, x = np.mgrid[0:1363, 0:2045].astype(np.float32)
    smooth = np.stack([255 * x / 2045, 255 * y / 1363, 127 + 120 * np.sin(x / 150 + y / 90)], -1)
    exif, sink = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(smooth.astype(np.uint8)).save(sink, "JPEG", quality=95, exif=exif)
    side = config.sam.image_size
    whole, reduced = (decode_reduced(sink.getvalue(), MAX_PIXELS, limit) for limit in (None, side))
    assert (reduced.width, reduced.height) == (whole.width, whole.height) == whole.rgb.size
    assert side <= max(reduced.rgb.size) < 2 * side + 8
    a, b = (resize_decoded(one, config) for one in (whole, reduced))
    (there,) = received([whole_image(reduced, config)], torch.device("cpu"))
    assert torch.equal(there.sam, b.sam)
    assert torch.equal(there.clip, b.clip)
    assert a.geometry == b.geometry
    assert (a.sam.float() - b.sam.float()).abs().max() <= 4
    assert (a.sam.float() - b.sam.float()).mean(dim=(0, 1)).abs().max() < 0.3
