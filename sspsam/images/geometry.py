"""Where a pixel of the original image lies in the two squares that the model sees, and back.

Frames, all with the origin at the top left and pixel i covering [i, i + 1):

- original: the image as decoded, EXIF orientation applied, `width` x `height` pixels;
- CLIP square: `size` x `size`, the resized image in the centre of zeros (letterbox);
- SAM square: `size` x `size`, the resized image in the top left corner, zeros to the right and below;
- score square: the SAM square at another resolution (`SSPSAMConfig.score_size`, 512 as published).

Rounding and placing follow the authors' code to the pixel, because published weights saw exactly that.
Boxes are float tensors (N, 4): `cxcywh` relative to the CLIP square, or `xyxy`/`xywh` in pixels of the
original. Sides that would round to 0 become 1 px.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from sspsam.errors import ZeroSizeError

if TYPE_CHECKING:
    from sspsam.model_config import SSPSAMConfig


@dataclass(frozen=True)
class ClipFrame:
    """The letterboxed CLIP square of one image. All fields in pixels."""

    width: int
    height: int
    size: int
    resized_width: int
    resized_height: int
    left: int
    top: int

    @classmethod
    def fit(cls, width: int, height: int, size: int) -> ClipFrame:
        """Place an image of `width` x `height` in the square of side `size`."""
        _check_sides(width, height)
        ratio = size / max(width, height)
        # Python's round (half to even), and the 0.1, are the authors'.
        resized_width = min(size, max(1, round(width * ratio)))
        resized_height = min(size, max(1, round(height * ratio)))
        left = max(0, round((size - resized_width) / 2 - 0.1))
        top = max(0, round((size - resized_height) / 2 - 0.1))
        return cls(width, height, size, resized_width, resized_height, left, top)

    def boxes_to_original(self, boxes: torch.Tensor) -> torch.Tensor:
        """(N, 4) cxcywh relative to the CLIP square -> (N, 4) xyxy in the original, clamped to it."""
        shift, scale, limit = self._per_axis(boxes)
        corners = (cxcywh_to_xyxy(boxes) * self.size - shift).clamp_min(0) / scale
        return torch.minimum(corners, limit)

    def boxes_from_original(self, boxes: torch.Tensor) -> torch.Tensor:
        """(N, 4) xyxy in the original -> (N, 4) cxcywh relative to the CLIP square."""
        shift, scale, _ = self._per_axis(boxes)
        return xyxy_to_cxcywh((boxes * scale + shift) / self.size)

    def grid_to_original(self, grid: torch.Tensor, size: tuple[int, int] | None = None) -> torch.Tensor:
        """(N, G, G) values of the patches -> (N, height, width) over the original, bilinear.

        The padding is cut away. `size` (height, width) asks for another resolution of the image.
        """
        square = resize(grid, (self.size, self.size))
        bottom, right = self.top + self.resized_height, self.left + self.resized_width
        inside = square[:, self.top : bottom, self.left : right]
        return resize(inside, size or (self.height, self.width))

    def _per_axis(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shift = like.new_tensor([self.left, self.top] * 2)
        scale = like.new_tensor([self.resized_width / self.width, self.resized_height / self.height])
        return shift, scale.repeat(2), like.new_tensor([self.width, self.height] * 2)


@dataclass(frozen=True)
class SamFrame:
    """The SAM square of one image, padded at the right and bottom. All fields in pixels."""

    width: int
    height: int
    size: int
    resized_width: int
    resized_height: int

    @classmethod
    def fit(cls, width: int, height: int, size: int) -> SamFrame:
        """Place an image of `width` x `height` in the square of side `size`."""
        _check_sides(width, height)
        scale = size / max(width, height)
        resized_width = max(1, int(width * scale + 0.5))
        resized_height = max(1, int(height * scale + 0.5))
        return cls(width, height, size, resized_width, resized_height)

    def transposed(self) -> SamFrame:
        """The frame of the transposed image: what column-major consumers (COCO RLE) work in."""
        return SamFrame(self.height, self.width, self.size, self.resized_height, self.resized_width)

    def logits_to_original(self, logits: torch.Tensor) -> torch.Tensor:
        """(N, L, L) mask logits over the padded square -> (N, height, width) over the original.

        SAM's own post-processing (`Sam.postprocess_masks`): bilinear to `size`, padding cropped,
        bilinear to the original. The mask is where the result is > 0.
        """
        return self.square_to_original(resize(logits, (self.size, self.size)))

    def square_to_original(self, square: torch.Tensor) -> torch.Tensor:
        """(N, size, size) values over the padded square -> (N, height, width) over the original."""
        inside = square[:, : self.resized_height, : self.resized_width]
        return resize(inside, (self.height, self.width))

    def masks_to_square(self, masks: torch.Tensor, score_size: int) -> torch.Tensor:
        """(N, height, width) masks -> (N, score_size, score_size) bool, the authors' training target.

        Bilinear to the resized image (as PIL does: antialiased when it shrinks), > 0, padded, nearest
        to `score_size`; this dilates an object by about half a pixel of the original.
        """
        size = (self.resized_height, self.resized_width)
        resized = F.interpolate(
            masks.float()[:, None], size=size, mode="bilinear", align_corners=False, antialias=True
        )
        resized = resized[:, 0] > 0
        padding = (0, self.size - self.resized_width, 0, self.size - self.resized_height)
        square = F.pad(resized.float(), padding)[:, None]
        return F.interpolate(square, size=(score_size, score_size), mode="nearest")[:, 0] > 0

    def inside(self, score_size: int) -> tuple[int, int]:
        """(rows, columns) of the score square whose centres lie on the image, at least 1 each."""
        rows, columns = (
            min(score_size, max(1, round(side * score_size / self.size)))
            for side in (self.resized_height, self.resized_width)
        )
        return rows, columns


@dataclass(frozen=True)
class Geometry:
    """One image's size (pixels, after EXIF orientation) and its place in both squares."""

    width: int
    height: int
    clip: ClipFrame
    sam: SamFrame

    @classmethod
    def of(cls, width: int, height: int, config: SSPSAMConfig) -> Geometry:
        """Geometry of an image of `width` x `height` for a model of this `config`.

        Raises `ZeroSizeError` if a side is below 1 px.
        """
        return cls.fit(width, height, config.clip.image_size, config.sam.image_size)

    @classmethod
    def fit(cls, width: int, height: int, clip_size: int, sam_size: int) -> Geometry:
        """The same from the sides of the two squares."""
        return cls(
            width,
            height,
            ClipFrame.fit(width, height, clip_size),
            SamFrame.fit(width, height, sam_size),
        )

    def patch_overlap(self, grid: int, score_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """How much of each row and column of patches each row and column of the score square covers.

        Returns `rows` (grid, score_size) and `columns` (grid, score_size), float32 shares of a patch
        side, so that for a mask `m` (score_size, score_size) in {0, 1} the share of every patch
        that lies under it is `rows @ m @ columns.T`, exactly. Padding overlaps nothing.
        """
        spans = torch.tensor(self.spans(score_size), dtype=torch.float64)
        rows, columns = patch_overlaps(spans, self.clip.size, grid, score_size)
        return rows, columns

    def spans(self, score_size: int) -> list[tuple[float, float, float]]:
        """Of the image, by axis (y, x): first pixel and side in the CLIP square, side in the score square."""
        clip, sam = self.clip, self.sam
        return [
            (clip.top, clip.resized_height, sam.resized_height * score_size / sam.size),
            (clip.left, clip.resized_width, sam.resized_width * score_size / sam.size),
        ]


def logits_to_square(logits: torch.Tensor, image_size: int, score_size: int) -> torch.Tensor:
    """(N, L, L) mask logits -> (N, score_size, score_size): the square that is scored and trained on.

    Bilinear to `image_size`, then to `score_size`, neither with aligned corners, as the authors do.
    """
    return resize(resize(logits, (image_size, image_size)), (score_size, score_size))


def resize(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, h, w) -> (N, *size), bilinear, corners not aligned, no antialiasing."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def cxcywh_to_xyxy(boxes: torch.Tensor) -> torch.Tensor:
    """(..., 4) centre, width, height -> two corners, in the same units."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def xyxy_to_cxcywh(boxes: torch.Tensor) -> torch.Tensor:
    """(..., 4) two corners -> centre, width, height, in the same units."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def xyxy_to_xywh(boxes: torch.Tensor) -> torch.Tensor:
    """(..., 4) two corners -> top left corner, width, height (COCO), in the same units."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)


def xywh_to_xyxy(boxes: torch.Tensor) -> torch.Tensor:
    """(..., 4) top left corner, width, height (COCO) -> two corners, in the same units."""
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)


def box_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(N, 4) and (N, 4) xyxy -> (N,) intersection over union, pair by pair; 0 for two empty boxes."""
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp_min(0)
    intersection = overlap.prod(dim=1)
    areas = [(box[:, 2:] - box[:, :2]).clamp_min(0).prod(dim=1) for box in (a, b)]
    union = areas[0] + areas[1] - intersection
    return torch.where(union > 0, intersection / union.clamp_min(torch.finfo(a.dtype).tiny), 0)


def patch_overlaps(spans: torch.Tensor, square: int, grid: int, score_size: int) -> torch.Tensor:
    """(..., grid, score_size) float32: share of a patch's side under each score pixel, along one axis.

    Args:
        spans: (..., 3), as `Geometry.spans` has them, in the precision to compute with. Score pixels beyond
            the third are padding.
        square: side of the CLIP square.
    """
    start, clip_side, scored_side = (one[..., None] for one in spans.unbind(-1))
    steps = torch.arange(score_size + 1, dtype=spans.dtype, device=spans.device)
    edges = start + torch.minimum(steps, scored_side) * (clip_side / scored_side)
    patches = torch.arange(grid + 1, dtype=spans.dtype, device=spans.device) * (square / grid)
    high = torch.minimum(edges[..., None, 1:], patches[1:, None])
    low = torch.maximum(edges[..., None, :-1], patches[:-1, None])
    return ((high - low).clamp_min(0) * (grid / square)).float()


def _check_sides(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ZeroSizeError(f"image of {width} x {height} px: both sides must be at least 1 px")
