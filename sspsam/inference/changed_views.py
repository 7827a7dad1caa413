"""What `verify="full"` looks at: an image mirrored and shrunk, and what its masks cut out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F

from sspsam.images.preprocess import CLIP_MEAN, CLIP_STD, SAM_MEAN, SAM_STD, ResizedImage
from sspsam.language.sides import can_mirror, swap_left_right

#: Side of a shrunk image as a fraction of its own.
SHRUNK: Final = 0.9
#: Side of a cut-out as a multiple of the longer side of its mask's box.
_MARGIN: Final = 1.1


@dataclass(frozen=True)
class View:
    """A change of an image under which the mask of a phrase should stay what it is.

    `signal`: name of the agreement; `change`: of the image; `phrase`: what to ask of the changed image,
    None if that cannot be said; `place`: where a pixel of the image lies in the changed one, for columns and
    for rows: (x, width) to x, fractions of SAM's square.
    """

    signal: str
    change: Callable[[torch.Tensor], torch.Tensor]
    phrase: Callable[[str], str | None]
    place: tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], ...]

    def of(self, image: ResizedImage) -> ResizedImage:
        """The changed image, of the same size and place in both squares."""
        return replace(image, clip=self.change(image.clip), sam=self.change(image.sam))

    def back(self, values: torch.Tensor, extents: torch.Tensor) -> torch.Tensor:
        """(N, L, L) values over SAM's square of the changed image as values over that of the image.

        Args:
            extents: (N, 2) width and height of the images as fractions of the square.
        """
        side = values.shape[-1]
        centre = (torch.arange(side, device=values.device) + 0.5) / side
        x, y = (place(centre, extents[:, i : i + 1]) for i, place in enumerate(self.place))
        grid = torch.stack([x[:, None].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=-1)
        return F.grid_sample(values[:, None], 2 * grid - 1, align_corners=False)[:, 0]


def _mirrored(pixels: torch.Tensor) -> torch.Tensor:
    """(height, width, 3) uint8."""
    return pixels.flip(1)


def _mirrored_phrase(phrase: str) -> str | None:
    return swap_left_right(phrase) if can_mirror(phrase) else None


def _opposite(x: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
    return extent - x


def _same(x: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
    return x.expand(len(extent), -1)


def _shrunk(pixels: torch.Tensor, corner: tuple[int, int]) -> torch.Tensor:
    """(height, width, 3) uint8, the image in a corner (right, bottom; 0 or 1) of its mean colour."""
    planes = pixels.permute(2, 0, 1).float()
    height, width = planes.shape[1:]
    size = max(1, round(SHRUNK * height)), max(1, round(SHRUNK * width))
    left, top = corner[0] * (width - size[1]), corner[1] * (height - size[0])
    canvas = planes.mean(dim=(1, 2), keepdim=True).expand_as(planes).clone()
    small = F.interpolate(planes[None], size=size, mode="bilinear", antialias=True)[0]
    canvas[:, top : top + size[0], left : left + size[1]] = small
    return canvas.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)


def _in_corner(x: torch.Tensor, extent: torch.Tensor, corner: int) -> torch.Tensor:
    return SHRUNK * x + (1 - SHRUNK) * corner * extent


def _shrunk_into(*corner: int) -> View:
    places = tuple(partial(_in_corner, corner=side) for side in corner)
    return View("scale_iou", partial(_shrunk, corner=(corner[0], corner[1])), str, places)


#: Two corners, because each moves the contour by other parts of a pixel of the logits.
VIEWS: Final = (
    View("flip_iou", _mirrored, _mirrored_phrase, (_opposite, _same)),
    _shrunk_into(1, 0),
    _shrunk_into(0, 1),
)


def cut_outs(sam_squares: torch.Tensor, slots: Sequence[int], masks: torch.Tensor, size: int) -> torch.Tensor:
    """(N, 3, size, size) what N masks show, each filling a CLIP square, zeros around it.

    Args:
        sam_squares: (B, 3, M, M) of the images, normalised as SAM sees them.
        slots: the image of each mask.
        masks: (N, L, L) bool over SAM's square; an empty one gives zeros.
    """
    mean, deviation = (torch.tensor([CLIP_MEAN, CLIP_STD], device=masks.device) * 255)[:, :, None, None]
    sam_mean, sam_deviation = torch.tensor([SAM_MEAN, SAM_STD], device=masks.device)[:, :, None, None]
    side = masks.shape[-1]
    edges = []
    for along in (masks.any(dim=1), masks.any(dim=2)):  # columns, rows
        first = along.float().argmax(dim=1)
        edges.append((first / side, 1 - along.flip(1).float().argmax(dim=1) / side))
    longest = torch.stack([high - low for low, high in edges]).amax(dim=0) * _MARGIN
    steps = (torch.arange(size, device=masks.device) + 0.5) / size - 0.5
    x, y = ((low + high)[:, None] / 2 + longest[:, None] * steps for low, high in edges)
    grid = 2 * torch.stack([x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1) - 1
    inside = F.grid_sample(masks[:, None].float(), grid, align_corners=False) > 0.5
    pairs = zip(slots, grid, strict=True)
    seen = torch.cat(
        [F.grid_sample(sam_squares[i][None], one[None], align_corners=False) for i, one in pairs]
    )
    return ((seen * sam_deviation + sam_mean - mean) / deviation) * inside
