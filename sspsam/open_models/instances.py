"""Several instances that one phrase means as one drawing, with the signals that their logits give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sspsam.inference.square_scores import STABILITY_OFFSET
from sspsam.open_models.protocol import Drawing


def united(
    size: tuple[int, int],
    logits: torch.Tensor,
    scores: torch.Tensor,
    boxes: torch.Tensor,
    to_image: Callable[[torch.Tensor], torch.Tensor],
    inside: tuple[int, int] | None = None,
    predicted_iou: torch.Tensor | None = None,
    truncated: bool = False,
) -> Drawing:
    """The drawing of a phrase; no instance is no target.

    Args:
        size: (height, width) of the image.
        logits: (K, h, w) float32 of the K instances that the model keeps.
        scores: (K,) 0..1, how sure the model is of each.
        boxes: (K, 4) xyxy in pixels of the image.
        to_image: (h, w) logits -> (height, width) bool. Called for one instance at a time: full-size
            logits of many would not fit.
        inside: rows and columns of the logits that show the image; None if all do.
        predicted_iou: (K,) the model's estimate for each.
        truncated: the phrase was cut.
    """
    mask = torch.zeros(size, dtype=torch.bool, device=logits.device)
    if not len(logits):
        return Drawing(mask.cpu().numpy(), truncated=truncated)
    for one in logits:
        mask |= to_image(one)
    rows, columns = inside or logits.shape[-2:]
    together = logits[:, :rows, :columns].amax(dim=0)
    wide = (together > -STABILITY_OFFSET).sum()
    sides = torch.tensor([size[1], size[0]] * 2, device=boxes.device)
    left, top = boxes.clamp(min=torch.zeros_like(sides), max=sides)[:, :2].amin(dim=0).tolist()
    right, bottom = boxes.clamp(min=torch.zeros_like(sides), max=sides)[:, 2:].amax(dim=0).tolist()
    drawn: np.ndarray = mask.cpu().numpy()
    if not drawn.any():
        return Drawing(drawn, truncated=truncated)
    return Drawing(
        drawn,
        score=float(scores.amax()),
        predicted_iou=None if predicted_iou is None else float(predicted_iou.mean()),
        stability=float((together > STABILITY_OFFSET).sum() / wide) if wide else None,
        box=(left, top, right - left, bottom - top),
        truncated=truncated,
    )
