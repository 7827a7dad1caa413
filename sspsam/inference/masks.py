"""Masks: from the decoder's logits to COCO RLE, with the quality signals that people filter by.

Everything that scans pixels works in batches on the logits' device; CUDA also finds where the masks' runs
start. RLE is pycocotools'. Arrays are column-major (N, width, height) throughout, as COCO's runs are:
handing pycocotools row-major arrays costs it four times as long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from pycocotools import mask as coco_mask

from sspsam.images.geometry import Geometry, box_iou, xywh_to_xyxy, xyxy_to_xywh
from sspsam.inference.rle_threads import encode_columns
from sspsam.inference.run_starts import RunStarts, run_starts
from sspsam.inference.square_scores import SquareScores
from sspsam.inference.transfers import to_host

#: COCO's compressed RLE: {"size": [height, width], "counts": str}.
RLE: TypeAlias = "dict[str, Any]"
#: x, y, width, height in pixels of the original image; x, y is the top left corner (COCO).
Box: TypeAlias = "tuple[float, float, float, float]"


@dataclass(frozen=True)
class Mask:
    """What the model drew for one phrase. Signals are None where they are not defined.

    `rle` holds what was drawn even if `has_target` is false, so that the threshold can be changed
    later. `score`, `stability` and `clip_score` need a positive pixel in the score square on the image,
    `box_agreement` one in the original image. `predicted_iou` is None only for a phrase that was not
    run because there is nothing in it (see `sspsam.language.phrase_text`).
    """

    phrase: str  # as it was given
    rle: RLE  # of the original image
    area: int  # pixels of the original image
    bbox: Box  # of the mask; zeros if it is empty
    predicted_box: Box | None  # of the box head; None for a model that has no boxes
    has_target: bool  # enough target_pixels, and a pixel in the original image
    # Positive pixels in the score square, padding included (the authors' count); None for other models.
    target_pixels: int | None
    score: float | None  # mean foreground probability over the mask, 0.5..1
    predicted_iou: float | None  # SAM's own estimate of the mask's IoU, about 0..1
    stability: float | None  # IoU of the masks at logits > 1 and > -1, 0..1
    box_agreement: float | None  # IoU of bbox and predicted_box, 0..1
    clip_score: float | None  # cosine of the sentence and the patches under the mask, -1..1
    truncated: bool  # the phrase had more tokens than the text tower takes
    square_rle: RLE | None = None  # of the score square, if requested
    #: Signals of `SegmenterConfig.verify` by name, see `sspsam.inference.verification`; empty for "none".
    verification: Mapping[str, float | None] = field(default_factory=dict)

    def decode(self) -> np.ndarray:
        """(height, width) bool, over the original image."""
        return decode_rle(self.rle)


@dataclass(frozen=True)
class DrawnMasks:
    """N masks of one image before they are encoded, on the CPU once `transfers.copied` says so.

    K is the score square's side.
    """

    masks: np.ndarray | RunStarts  # (N, width, height) bool, over the original image
    target_pixels: torch.Tensor  # (N,) int64
    score: torch.Tensor  # (N,) float32, NaN where undefined, like the next two
    stability: torch.Tensor  # (N,)
    clip_score: torch.Tensor  # (N,)
    square: np.ndarray | None  # (N, K, K) bool, columns first


def draw_masks(scores: SquareScores, members: slice, geometry: Geometry, keep_square: bool) -> DrawnMasks:
    """Masks of one image over its pixels, drawn on the device of the logits, on their way to the host.

    Args:
        scores: of phrases of any images; its `target_pixels` and `signals` are on the host, or on their way.
        members: the N phrases.
        geometry: of the image.
        keep_square: hand back the masks in the score square too.
    """
    masks = geometry.sam.transposed().square_to_original(scores.logits[members]) > 0
    # What is on the CPU already is scanned faster by pycocotools.
    drawn = run_starts(masks) if masks.device.type == "cuda" else to_host(masks).numpy()
    score, stability, clip_score = scores.signals[:, members]
    return DrawnMasks(
        masks=drawn,
        target_pixels=scores.target_pixels[members],
        score=score,
        stability=stability,
        clip_score=clip_score,
        square=to_host(scores.drawn[members]).numpy() if keep_square else None,
    )


def finish_masks(
    drawn: DrawnMasks,
    phrases: Sequence[str],
    truncated: Sequence[bool],
    predicted_iou: torch.Tensor,
    boxes: torch.Tensor,
    min_target_pixels: int,
) -> list[Mask]:
    """Encode N drawn masks. Runs on the CPU, in a thread.

    Args:
        drawn: of the N phrases.
        phrases, truncated: N each.
        predicted_iou: (N,) on the CPU.
        boxes: (N, 4) xyxy in the original image, of the box head, on the CPU.
        min_target_pixels: fewer mean "no target".
    """
    rles = drawn.masks.encode() if isinstance(drawn.masks, RunStarts) else encode_rle(drawn.masks)
    areas = [int(area) for area in coco_mask.area(rles)]
    found = torch.from_numpy(coco_mask.toBbox(rles)).float().view(-1, 4)
    agreement = box_iou(xywh_to_xyxy(found), boxes)
    squares = None if drawn.square is None else encode_rle(drawn.square)
    predicted = xyxy_to_xywh(boxes).tolist()
    return [
        Mask(
            phrase=phrases[i],
            rle=_as_text(rles[i]),
            area=areas[i],
            bbox=_box(found[i].tolist()),
            predicted_box=_box(predicted[i]),
            has_target=areas[i] > 0 and int(drawn.target_pixels[i]) >= max(1, min_target_pixels),
            target_pixels=int(drawn.target_pixels[i]),
            score=_defined(drawn.score[i]),
            predicted_iou=_defined(predicted_iou[i]),
            stability=_defined(drawn.stability[i]),
            box_agreement=_defined(agreement[i]) if areas[i] else None,
            clip_score=_defined(drawn.clip_score[i]),
            truncated=truncated[i],
            square_rle=None if squares is None else _as_text(squares[i]),
        )
        for i in range(len(rles))
    ]


def flagged_mask(phrase: str, width: int, height: int) -> Mask:
    """The mask of a phrase that was not run: empty, no target, every signal None."""
    empty = coco_mask.frPyObjects({"size": [height, width], "counts": [height * width]}, 0, 0)
    nowhere = (0.0, 0.0, 0.0, 0.0)
    return Mask(
        phrase=phrase,
        rle=_as_text(empty),
        area=0,
        bbox=nowhere,
        predicted_box=nowhere,
        has_target=False,
        target_pixels=0,
        score=None,
        predicted_iou=None,
        stability=None,
        box_agreement=None,
        clip_score=None,
        truncated=False,
    )


def encode_rle(masks: np.ndarray) -> list[RLE]:
    """(N, width, height) bool or uint8 of 0 and 1 -> N RLEs of height x width, `counts` in bytes."""
    return encode_columns(masks) if len(masks) else []


def decode_rle(rle: RLE) -> np.ndarray:
    """{"size": [height, width], "counts": str or bytes} -> (height, width) bool.

    For RLE that this package made: pycocotools trusts its input. `sspsam.rle` checks what others made.
    """
    counts = rle["counts"]
    counts = counts.encode("ascii") if isinstance(counts, str) else counts
    return coco_mask.decode({"size": list(rle["size"]), "counts": counts}).astype(bool)


def _as_text(rle: RLE) -> RLE:
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _box(values: list[float]) -> Box:
    x, y, width, height = values
    return x, y, width, height


def _defined(value: torch.Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
