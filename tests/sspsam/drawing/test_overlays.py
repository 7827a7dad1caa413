"""Overlays and explanations on images from 50 to 8000 px: what must be seen is seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sspsam.drawing.labels import LabelSheet, font_for, shortened
from sspsam.drawing.overlays import PALETTE, draw_explanation, draw_overlay, heat_map
from sspsam.errors import ConfigError
from sspsam.images.geometry import Geometry
from sspsam.inference.masks import Mask, encode_rle, flagged_mask
from sspsam.inference.results import PhraseMaps


def drawn(phrase: str, pixels: np.ndarray) -> Mask:
    (rle,) = encode_rle(np.ascontiguousarray(pixels.T)[None])
    ys, xs = np.nonzero(pixels)
    box = tuple(float(v) for v in (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1))
    rle = {"size": rle["size"], "counts": rle["counts"].decode()}
    return Mask(phrase, rle, int(pixels.sum()), box, box, True, 99, 0.9, 0.8, 0.7, 0.6, 0.2, False)


@pytest.mark.parametrize("size", [(50, 40), (640, 480), (120, 2400), (8000, 500)])
def test_overlay_shows_masks_where_they_are(size: tuple[int, int]) -> None:
    width, height = size
    image = Image.new("RGB", size, (128, 128, 128))
    y, x = np.mgrid[0:height, 0:width]
    left = (x < width * 0.3) & (y > height * 0.6) & (y < height * 0.9)
    right = (x > width * 0.8) & (y > height * 0.6) & (y < height * 0.9)
    masks = [drawn("the left one", left), drawn("right", right)]
    picture = draw_overlay(image, masks, labels=False)
    factor = picture.width // width
    assert picture.size == (width * factor, height * factor)
    assert factor == 1 or max(picture.size) >= 512
    pixels = np.asarray(picture, np.int16)

    def at(share_x: float, share_y: float) -> np.ndarray:
        return pixels[int(share_y * picture.height), int(share_x * picture.width)]

    for place, colour in [((0.12, 0.75), PALETTE[0]), ((0.92, 0.75), PALETTE[1])]:
        expected = 128 + (np.array(colour) - 128) * 0.38
        assert np.abs(at(*place) - expected).max() <= 2
    assert (at(0.5, 0.2) == 128).all()
    edge = pixels[int(0.6 * picture.height) - 12 : int(0.6 * picture.height) + 12]
    strong = np.abs(edge[:, int(0.12 * picture.width)] - np.array(PALETTE[0])).max(axis=1)
    assert strong.min() <= 40  # the contour has the full colour
    absent = flagged_mask("a purple cow", width, height)
    labelled = np.asarray(draw_overlay(image, [*masks, absent]), np.int16)
    assert (np.abs(labelled - pixels).max(axis=2) > 30).sum() > 300
    assert np.array_equal(np.asarray(image), np.full((height, width, 3), 128))


def test_a_speck_is_visible_and_an_empty_mask_is_not() -> None:
    image = Image.new("RGB", (600, 600))
    speck = np.zeros((600, 600), bool)
    speck[300, 300] = True
    pixels = np.asarray(draw_overlay(image, [drawn("speck", speck)], labels=False))
    assert pixels[300, 300].max() > 200
    empty = flagged_mask("nothing", 600, 600)
    assert not np.asarray(draw_overlay(image, [empty], labels=False)).any()
    assert draw_overlay(image, []).size == (600, 600)


@pytest.mark.parametrize("size", [(640, 480), (512, 60), (60, 512)])
def test_labels_do_not_overlap_and_stay_inside(size: tuple[int, int]) -> None:
    width, height = size
    picture = Image.new("RGB", size)
    sheet = LabelSheet(picture, (width * height) ** 0.5, None)
    sheet.list_absent(["a unicorn"])
    number = 14 if min(size) > 100 else 3
    for i in range(number):  # all of them want the same place
        sheet.place(f"phrase {i}", "  0.91", (20, 20, 50, 40), PALETTE[i % 12])
    boxes = [label.box for label in sheet._labels]
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert top >= 0
        assert right <= width + 1
        assert bottom <= height + 1
        for other in boxes[:i]:
            apart = right <= other[0] or left >= other[2] or bottom <= other[1] or top >= other[3]
            assert apart
    sheet.draw()
    assert np.asarray(picture).any()


def test_long_and_foreign_labels() -> None:
    font = font_for(16, None)
    cut = shortened("a very long phrase " * 500, font, 200)
    assert cut.endswith("...")
    assert font.getlength(cut) <= 200
    assert shortened("short\nline", font, 200) == "short line"
    image = Image.new("RGB", (300, 200))
    mask = drawn("\U0001f436 狗 " * 300, np.ones((200, 300), bool))
    assert draw_overlay(image, [mask] * 30).size == (600, 400)
    with pytest.raises(ConfigError, match="--font"):
        draw_overlay(image, [mask], font=__import__("pathlib").Path(__file__))


def test_explanation_has_a_row_a_phrase() -> None:
    for width, height in [(640, 480), (90, 900)]:
        image = Image.new("RGB", (width, height), (200, 200, 200))
        geometry = Geometry.fit(width, height, 112, 256)
        grid = torch.linspace(0, 1, 49).view(7, 7)
        words = ["the", "left", "-", "most", "dog", "."] * 8
        maps = [
            PhraseMaps("the left-most dog", geometry, grid, grid * 0.1 + 0.5, words, [0.02] * 48),
            PhraseMaps("cat", geometry, grid, torch.ones(7, 7), ["cat", "."], [0.5, 0.4]),
        ]
        y, _ = np.mgrid[0:height, 0:width]
        masks = [drawn("the left-most dog", y < height / 2), flagged_mask("cat", width, height)]
        both = draw_explanation(image, masks, maps)
        first = draw_explanation(image, masks[:1], maps[:1])
        assert both.height > first.height > 384 * height / max(width, height)
        pixels = np.asarray(first)
        assert (np.abs(pixels.astype(int) - pixels[..., :1]).max(axis=2) > 60).sum() > 20_000
    assert draw_explanation(image, [], []).size == (1, 1)


def test_heat_map_runs_from_dark_to_bright() -> None:
    colours = heat_map(np.linspace(-3, 5, 50)[None])
    assert colours.shape == (1, 50, 3)
    assert colours[0, 0].tolist() == [68, 1, 84]
    assert colours[0, -1].tolist() == [253, 231, 37]
    brightness = colours[0].astype(int) @ [299, 587, 114]
    assert (np.diff(brightness) > 0).all()
    assert (heat_map(np.ones((3, 3))) == [68, 1, 84]).all()
