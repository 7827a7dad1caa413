"""Masks and signals against plain definitions, RLE against pycocotools' plain use."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sspsam.images.geometry import Geometry, logits_to_square
from sspsam.inference.masks import (
    DrawnMasks,
    Mask,
    decode_rle,
    draw_masks,
    encode_rle,
    finish_masks,
    flagged_mask,
)
from sspsam.inference.run_starts import run_starts
from sspsam.inference.square_scores import SquareScores, places, score_squares
from sspsam.model_config import SSPSAMConfig

CLIP, SAM, LOGITS, SCORE, GRID = 112, 256, 64, 128, 7
_TINY = SSPSAMConfig.preset("tiny")
CONFIG = replace(
    _TINY,
    clip=replace(_TINY.clip, image_size=CLIP, patch_size=CLIP // GRID),
    sam=replace(_TINY.sam, image_size=SAM),
    score_size=SCORE,
)


def blobs(number: int, seed: int) -> torch.Tensor:
    """(N, L, L) logits of smooth blobs, some of them only in the padding or nowhere."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.randn(number, 1, 5, 5, generator=generator) * 4
    logits = F.interpolate(rough, size=(LOGITS, LOGITS), mode="bicubic")[:, 0]
    logits[0] = -5.0
    return logits


def finished(drawn: DrawnMasks, *told: Any) -> list[Mask]:
    """`finish_masks`, which makes the same of pixels and of run starts, as CUDA hands them over."""
    assert isinstance(drawn.masks, np.ndarray)
    masks = finish_masks(drawn, *told)
    assert finish_masks(replace(drawn, masks=run_starts(torch.from_numpy(drawn.masks))), *told) == masks
    return masks


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 1000))
def test_signals_equal_their_definitions(width: int, height: int, seed: int) -> None:
    geometry = Geometry.fit(width, height, CLIP, SAM)
    logits = blobs(4, seed)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, 1 + GRID * GRID, 16, generator=generator)
    sentences = torch.randn(4, 16, generator=generator)
    boxes = torch.tensor([[0.0, 0.0, width / 2, height / 2]]).repeat(4, 1)
    others = torch.tensor([1, 1, 1, 1, 0])  # with a phrase of another image in the batch
    where = places([Geometry.fit(height, 2 * width, CLIP, SAM), geometry], SCORE, 3, torch.device("cpu"))
    more = (torch.cat([one, one[:1]]) for one in (logits, sentences))
    scores = SquareScores(*score_squares(CONFIG, next(more), where, tokens, next(more), others))
    drawn = draw_masks(scores, slice(4), geometry, keep_square=True)
    iou = torch.tensor([0.1, 0.2, 0.3, math.nan])
    masks = finished(drawn, list("abcd"), [False, True, False, False], iou, boxes, 50)

    exact = geometry.sam.logits_to_original(logits)
    square = logits_to_square(logits, SAM, SCORE)
    rows, columns = geometry.sam.inside(SCORE)
    for i, mask in enumerate(masks):
        unsure = exact[i].abs() < 1e-4  # summed in another order: the sign may differ here
        pixels = mask.decode()
        assert pixels.shape == (height, width)
        assert bool(((torch.from_numpy(pixels) == (exact[i] > 0)) | unsure).all())
        assert mask.rle["size"] == [height, width]
        plain = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
        assert mask.rle["counts"] == plain["counts"].decode()
        assert mask.area == pixels.sum() == coco_mask.area(plain)
        ys, xs = np.nonzero(pixels)
        if mask.area:
            extent = (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
            assert mask.bbox == extent
            x, y, w, h = mask.bbox
            shared = max(0, min(x + w, width / 2) - x) * max(0, min(y + h, height / 2) - y)
            union = w * h + width * height / 4 - shared
            assert mask.box_agreement == pytest.approx(shared / union, abs=1e-5)
        else:
            assert mask.bbox == (0, 0, 0, 0)
            assert mask.box_agreement is None
        assert mask.square_rle is not None
        in_square = decode_rle(mask.square_rle)
        assert mask.target_pixels == in_square.sum()
        assert abs(mask.target_pixels - int((square[i] > 0).sum())) <= 2
        assert mask.has_target == (mask.area > 0 and mask.target_pixels >= 50)
        inside = square[i, :rows, :columns]
        positive = inside > 0
        if not positive.any():
            assert (mask.score, mask.stability, mask.clip_score) == (None, None, None)
            continue
        assert mask.score == pytest.approx(float(inside[positive].sigmoid().mean()), abs=1e-3)
        assert mask.stability == pytest.approx(float((inside > 1).sum() / (inside > -1).sum()), abs=1e-3)
        assert mask.clip_score == pytest.approx(
            plain_clip_score(in_square, geometry, tokens[1, 1:], sentences[i]), abs=5e-3
        )
    assert [mask.truncated for mask in masks] == [False, True, False, False]
    assert masks[3].predicted_iou is None


def plain_clip_score(
    square: np.ndarray, geometry: Geometry, patches: torch.Tensor, sentence: torch.Tensor
) -> float:
    """By spreading the square's pixels over the CLIP square at eight times its resolution."""
    fine = 8
    clip, sam = geometry.clip, geometry.sam
    cover = np.zeros((CLIP * fine, CLIP * fine))
    y = (np.arange(clip.resized_height * fine) + 0.5) / fine
    x = (np.arange(clip.resized_width * fine) + 0.5) / fine
    to_square = SCORE / SAM
    rows = (y * sam.resized_height / clip.resized_height * to_square).astype(int)
    columns = (x * sam.resized_width / clip.resized_width * to_square).astype(int)
    part = square[np.ix_(rows.clip(0, SCORE - 1), columns.clip(0, SCORE - 1))]
    top, left = clip.top * fine, clip.left * fine
    cover[top : top + part.shape[0], left : left + part.shape[1]] = part
    share = cover.reshape(GRID, CLIP * fine // GRID, GRID, -1).mean(axis=(1, 3)).ravel()
    pooled = torch.from_numpy(share).float() @ F.normalize(patches, dim=-1)
    return float(F.cosine_similarity(pooled, sentence, dim=0))


def test_rle_round_trip_and_flagged_masks() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((5, 31, 17)) > 0.5  # (N, width, height)
    rles = encode_rle(masks)
    for mask, rle in zip(masks, rles, strict=True):
        assert np.array_equal(decode_rle(rle), mask.T)
        text = {"size": rle["size"], "counts": rle["counts"].decode()}
        assert np.array_equal(decode_rle(text), mask.T)
    assert encode_rle(np.zeros((0, 3, 3), bool)) == []
    flagged = flagged_mask("...", 31, 17)
    assert flagged.decode().shape == (17, 31)
    assert not flagged.decode().any()
    assert not flagged.has_target
    assert flagged.predicted_iou is None
