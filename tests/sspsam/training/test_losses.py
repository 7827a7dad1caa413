"""Losses against references written from their formulas, pixel by pixel in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sspsam.training.losses import (
    box_l1_loss,
    boxes_of,
    dice_loss,
    focal_loss,
    gate_loss,
    giou_loss,
    mask_iou,
)


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Logits (5, 9, 9) and 0/1 targets; the last target is empty, the fourth full."""
    random = np.random.default_rng(3)
    targets = (random.random((5, 9, 9)) < 0.3).astype(np.float64)
    targets[3], targets[4] = 1.0, 0.0
    return random.normal(0, 3, (5, 9, 9)), targets


def test_mask_losses_equal_their_formulas(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, targets = drawn
    dice = focal = 0.0
    for image, truth in zip(logits, targets, strict=True):
        both = shown = wanted = 0.0
        for x, t in zip(image.ravel(), truth.ravel(), strict=True):
            p = 1 / (1 + np.exp(-x))
            both, shown, wanted = both + p * t, shown + p, wanted + t
            right, alpha = (p, 0.25) if t else (1 - p, 0.75)
            focal += -alpha * (1 - right) ** 2 * np.log(right)
        dice += 1 - (2 * both + 1) / (shown + wanted + 1)
    x = torch.tensor(logits, dtype=torch.float32)
    t = torch.tensor(targets, dtype=torch.float32)
    assert dice_loss(x, t).item() == pytest.approx(dice / len(logits), rel=1e-5)
    assert focal_loss(x, t).item() == pytest.approx(focal / logits.size, rel=1e-5)


def test_box_losses_equal_their_formulas() -> None:
    random = np.random.default_rng(4)
    boxes = random.uniform(0.1, 0.6, (6, 4))
    truth = random.uniform(0.1, 0.6, (6, 4))
    truth[5] = 0.0  # a phrase without a target
    l1 = giou = 0.0
    for (x, y, w, h), (u, v, a, b) in zip(boxes, truth, strict=True):
        l1 += abs(x - u) + abs(y - v) + abs(w - a) + abs(h - b)
        inside = max(0, min(x + w / 2, u + a / 2) - max(x - w / 2, u - a / 2))
        inside *= max(0, min(y + h / 2, v + b / 2) - max(y - h / 2, v - b / 2))
        union = w * h + a * b - inside
        hull = max(x + w / 2, u + a / 2) - min(x - w / 2, u - a / 2)
        hull *= max(y + h / 2, v + b / 2) - min(y - h / 2, v - b / 2)
        giou += 1 - (inside / union - (hull - union) / hull)
    mine = torch.tensor(boxes, dtype=torch.float32)
    theirs = torch.tensor(truth, dtype=torch.float32)
    assert box_l1_loss(mine, theirs).item() == pytest.approx(l1 / 6, rel=1e-5)
    assert giou_loss(mine, theirs).item() == pytest.approx(giou / 6, rel=1e-5)


def test_losses_have_finite_gradients_where_nothing_is_there() -> None:
    logits = torch.full((2, 4, 4), -60.0, requires_grad=True)
    boxes = torch.zeros(2, 4, requires_grad=True)
    empty = torch.zeros(2, 4, 4)
    total = dice_loss(logits, empty) + focal_loss(logits, empty)
    total = total + giou_loss(boxes, torch.zeros(2, 4)) + box_l1_loss(boxes, torch.zeros(2, 4))
    total.backward()
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(boxes.grad).all()


def test_gate_loss_ignores_patches_that_are_neither() -> None:
    mentioned = torch.tensor([[[0.0, 0.2], [0.39, 1.0]]])
    gate = torch.tensor([[[0.1, 0.9], [0.9, 0.8]]])
    changed = torch.tensor([[[0.1, 0.0], [0.3, 0.8]]])
    expected = -(np.log(0.9) + 4 * np.log(0.8)) / 5
    assert gate_loss(gate, mentioned).item() == pytest.approx(expected, rel=1e-5)
    assert gate_loss(changed, mentioned).item() == pytest.approx(expected, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_boxes_are_those_of_the_positive_pixels(seed: int, side: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random((3, side, side)) < random.random()
    for found, one in zip(boxes_of(torch.from_numpy(mask)).numpy(), mask, strict=True):
        if not one.any():
            assert not found.any()
            continue
        rows, columns = np.nonzero(one)
        x, y, w, h = found * side
        assert (x - w / 2, x + w / 2) == pytest.approx((columns.min(), columns.max() + 1), abs=1e-4)
        assert (y - h / 2, y + h / 2) == pytest.approx((rows.min(), rows.max() + 1), abs=1e-4)


def test_mask_iou_counts_pixels_and_agrees_on_nothing() -> None:
    first = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 0]], [[1, 0], [0, 0]]]).bool()
    second = torch.tensor([[[1, 0], [1, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]).bool()
    assert mask_iou(first, second).tolist() == pytest.approx([1 / 3, 1.0, 0.0])
