"""Verification signals: masks stay what they are, and the signals are what their definitions say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sspsam import SSPSAM, Segmenter
from sspsam.errors import ConfigError
from sspsam.images.decoding import decode_reduced
from sspsam.images.preprocess import resize_decoded
from sspsam.inference.changed_views import VIEWS, cut_outs
from sspsam.inference.results import SegmenterConfig
from sspsam.inference.verification import shared_regions
from sspsam.scenes import scenes
from sspsam.schema import VERIFICATION_SIGNALS


def test_masks_stay_and_signals_are_told_for_every_level() -> None:
    made = list(scenes("validation", 0, 3))
    images = [one.image[: 200 + 20 * i, : 256 - 30 * i] for i, one in enumerate(made)]
    phrases = [[*(phrase.text for phrase in one.phrases), ""] for one in made]
    model = SSPSAM.from_pretrained("tiny", device="cpu")
    plain = Segmenter(model).segment_images(images, phrases)
    assert all(mask.verification == {} for result in plain for mask in result.masks)
    told = {}
    for level in ("fast", "full"):
        found = Segmenter(model, SegmenterConfig(verify=level, phrases_per_batch=5)).segment_images(
            images, phrases
        )
        told[level] = [mask.verification for result in found for mask in result.masks]
        usual = Segmenter(model, SegmenterConfig(phrases_per_batch=5)).segment_images(images, phrases)
        for one, other in zip(found, usual, strict=True):
            assert [replace(mask, verification={}) for mask in one.masks] == other.masks
    masks = [mask for result in plain for mask in result.masks]
    for mask, fast, full in zip(masks, told["fast"], told["full"], strict=True):
        if mask.predicted_iou is None:  # it was not run
            assert fast == full == {}
            continue
        assert set(fast) == set(VERIFICATION_SIGNALS["fast"])
        assert set(full) == set(VERIFICATION_SIGNALS["full"])
        assert all(
            full[name] == pytest.approx(value, abs=1e-5) for name, value in fast.items() if value is not None
        )
        for name, value in full.items():
            if name in (
                "edge_iou",
                "edge_contrast",
                "rival_margin",
                "rival_iou",
                "shared_region",
                "clip_margin",
            ):
                assert mask.area == 0 or value is not None
            else:
                assert value is not None
            low = -2 if "margin" in name else 0
            high = 20 if name == "edge_contrast" else 1 + 1e-5
            assert value is None or low <= value <= high
    (alone,) = Segmenter(model, SegmenterConfig(verify="full")).segment(
        images[:1], [["the man right behind her"]]
    )
    assert alone[0].verification["flip_iou"] is None  # this cannot be said of the mirrored image
    assert alone[0].verification["views_iou"] is not None
    drawn = [full for mask, full in zip(masks, told["full"], strict=True) if mask.has_target]
    assert np.mean([full["flip_iou"] for full in drawn]) > 0.6  # laid back to where it was
    assert np.mean([full["scale_iou"] for full in drawn]) > 0.5
    assert np.mean([full["paraphrase_iou"] for full in drawn]) > 0.7
    with pytest.raises(ConfigError, match="verify is 'most'"):
        SegmenterConfig(verify="most")  # type: ignore[arg-type]


def test_views_are_laid_back_to_where_the_image_was() -> None:
    """A drawing of the picture itself, changed and laid back, is the picture."""
    rows, columns = np.mgrid[0:120, 0:180]
    disc = ((rows - 40) ** 2 + (columns - 120) ** 2 < 30**2).astype(np.uint8) * 255
    config = SSPSAM.from_pretrained("tiny", device="cpu").config
    resized = resize_decoded(decode_reduced(np.stack([disc] * 3, axis=-1), 10**6, None), config)
    frame = resized.geometry.sam
    extents = torch.tensor([[frame.resized_width / frame.size, frame.resized_height / frame.size]])

    def square(sam: torch.Tensor) -> torch.Tensor:
        drawn = torch.zeros(1, frame.size, frame.size)
        drawn[0, : sam.shape[0], : sam.shape[1]] = sam[..., 0] > 127
        return drawn

    own = square(resized.sam)
    for view in VIEWS:
        back = view.back(square(view.of(resized).sam), extents)
        both, either = torch.minimum(own, back).sum(), torch.maximum(own, back).sum()
        assert both / either > 0.95, view.signal


def test_cut_outs_show_what_the_mask_covers_and_nothing_else() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:32, 8:24] = (200, 40, 40)
    image[40:60, 40:60] = 255
    model = SSPSAM.from_pretrained("tiny", device="cpu")
    _, sam, _ = model.preprocess(image)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 16:32, 8:24] = True
    cut = cut_outs(sam[None], [0, 0], masks, 50)
    inside, edge = cut[0, :, 8:42, 8:42], cut[0, :, :2]
    assert torch.allclose(inside, inside[:, :1, :1].expand_as(inside), atol=0.05)
    assert inside[0, 0, 0] > 1
    assert inside[1, 0, 0] < 0
    assert not edge.any()
    assert not cut[1].any()


def test_shared_regions() -> None:
    masks = torch.zeros(4, 8, 8)
    masks[0, :4] = masks[1, :2] = 1.0
    masks[3, :, :4] = 1.0
    found = shared_regions(masks, [3, 1]).tolist()
    assert found[:2] == [0.5, 0.5]
    assert math.isnan(found[2])  # empty
    assert math.isnan(found[3])  # alone
