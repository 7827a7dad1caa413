"""Losses of SSP-SAM as published, those of its towers' pre-training, and box arithmetic.

N phrases, M the side of the loss square. Published weights: 4 dice + 4 focal + 5 L1 + 2 (1 - GIoU).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 |p t| + 1) / (|p| + |t| + 1) on sigmoids, summed over phrases and divided by N.

    Args: logits (N, M, M) float; targets (N, M, M), 0..1.
    """
    p, t = logits.sigmoid().flatten(1), targets.flatten(1)
    ratio = (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)
    return (1 - ratio).sum() / max(len(logits), 1)


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (arXiv 1708.02002), mean over pixels and phrases. Shapes as in `dice_loss`."""
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    right = p * targets + (1 - p) * (1 - targets)
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return (weight * (1 - right) ** gamma * cross_entropy).mean()


def box_l1_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """|difference| summed over coordinates, divided by N. Boxes (N, 4) cxcywh relative."""
    return (boxes - targets).abs().sum() / max(len(boxes), 1)


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - GIoU (arXiv 1902.09630), mean over phrases. Boxes (N, 4) cxcywh relative."""
    return (1 - generalized_iou(to_corners(boxes), to_corners(targets))).sum() / max(len(boxes), 1)


def to_corners(boxes: Tensor) -> Tensor:
    """(..., 4) cxcywh to xyxy."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """Pairwise by row: (N, 4) and (N, 4) xyxy to (N,) in -1..1. Two empty boxes give 0."""
    tiny = torch.finfo(first.dtype).eps
    area = lambda box: (box[:, 2:] - box[:, :2]).clamp_min(0).prod(-1)  # noqa: E731
    low, high = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    inside = (high - low).clamp_min(0).prod(-1)
    union = area(first) + area(second) - inside
    low, high = torch.minimum(first[:, :2], second[:, :2]), torch.maximum(first[:, 2:], second[:, 2:])
    hull = (high - low).clamp_min(0).prod(-1)
    return inside / union.clamp_min(tiny) - (hull - union) / hull.clamp_min(tiny)


def corners_of(masks: Tensor) -> Tensor:
    """(N, M, M) bool to (N, 2, 2) int64: (x, y) of the first pixel, and of that behind the last."""
    side = masks.shape[-1]
    steps = torch.arange(side, device=masks.device)
    hits = [masks.any(dim=over) for over in (1, 2)]  # columns give x, rows give y
    low = [torch.where(hit, steps, side).amin(1) for hit in hits]
    high = [torch.where(hit, steps + 1, 0).amax(1) for hit in hits]
    return torch.stack([torch.stack(low, 1), torch.stack(high, 1)], dim=1)


def boxes_of(masks: Tensor) -> Tensor:
    """(N, M, M) bool to (N, 4) float32 cxcywh relative; an empty mask has [0, 0, 0, 0]."""
    low, high = corners_of(masks).unbind(1)
    box = torch.cat([low + high, 2 * (high - low)], dim=1) / (2 * masks.shape[-1])
    return torch.where(masks.flatten(1).any(1)[:, None], box, 0.0)


def mask_iou(first: Tensor, second: Tensor) -> Tensor:
    """(N, M, M) bool each to (N,) float32; two empty masks agree: 1."""
    inside = (first & second).flatten(1).sum(1).float()
    union = (first | second).flatten(1).sum(1).float()
    return torch.where(union > 0, inside / union.clamp_min(1), 1.0)


def gate_loss(gate: Tensor, mentioned: Tensor) -> Tensor:
    """Cross-entropy of the SSP encoder's gate with where the phrase's things are. Not published.

    Args:
        gate: (N, G, G), clamped to 0..1.
        mentioned: (N, G, G), fraction of the patch that shows an object the phrase names;
            patches between a tenth and four tenths are left out.
    """
    wanted = (mentioned >= 0.4).to(gate.dtype)
    counted = ((mentioned < 0.1) | (mentioned >= 0.4)).to(gate.dtype)
    # A positive patch is an eighth as frequent as a negative one.
    weight = counted * (1 + 3 * wanted)
    p = gate.clamp(1e-4, 1 - 1e-4)
    loss = -(wanted * p.log() + (1 - wanted) * (1 - p).log())
    return (loss * weight).sum() / weight.sum().clamp_min(1)
