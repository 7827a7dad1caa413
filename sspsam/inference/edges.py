"""Whether a mask ends where the image does: signals that come of the pixels and not of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F

from sspsam.images.preprocess import SAM_MEAN, SAM_STD

#: Sides of the windows as fractions of the square: of the guided filter, and of the band around a contour.
_WINDOW: Final = 13 / 256
_BAND: Final = 9 / 256
#: Regularisation of the guided filter, for pixels of 0..1.
_EPSILON: Final = 1e-3
#: Pixels: edges are looked at in squares of this side, or of SAM's if that is smaller.
_SIDE: Final = 256


class Edges:
    """The edges of B images.

    Args:
        images: (B, 3, S, S) in 0..1, one colour where the square shows no image.
    """

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images
        side = images.shape[-1]
        self.size = (side, side)
        self._window, self._band = (max(3, round(share * side) | 1) for share in (_WINDOW, _BAND))
        steps = [
            F.pad((images.diff(dim=dim)).abs().amax(dim=1), pad)
            for dim, pad in ((2, (0, 0, 1, 0)), (3, (1, 0)))
        ]
        self._steps = torch.maximum(*steps)
        self._means = _box(images, self._window)
        squares = _box((images[:, :, None] * images[:, None]).flatten(1, 2), self._window).unflatten(
            1, (3, 3)
        )
        covariance = squares - self._means[:, :, None] * self._means[:, None]
        noise = _EPSILON * torch.eye(3, device=images.device)[..., None, None]
        self._inverse = _inverse(covariance + noise)

    @classmethod
    def of(cls, sam_squares: torch.Tensor) -> Edges:
        """Of (B, 3, M, M) squares as SAM sees them, at a side of at most 256."""
        deviation, mean = torch.tensor([SAM_STD, SAM_MEAN], device=sam_squares.device)[:, :, None, None]
        images = (sam_squares * deviation + mean) / 255
        side = min(_SIDE, images.shape[-1])
        return cls(F.interpolate(images, (side, side), mode="area"))

    def agreement(self, slots: Sequence[int], masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two signals of N masks, (N,) each; what they are for an empty mask means nothing.

        The first is the IoU of a mask and itself redrawn along the image's edges by a guided filter, with
        colours (He et al., "Guided Image Filtering", TPAMI 2013). The second is how much steeper the image is
        on the contour than around it.

        Args:
            slots: the image of each, N.
            masks: (N, S, S) bool.
        """
        redrawn, contrast = [], []
        for slot, mask in zip(slots, masks, strict=True):
            filtered = self._filtered(slot, mask.float()) > 0.5
            redrawn.append((filtered & mask).sum() / (filtered | mask).sum())
            contrast.append(self._contrast(slot, mask.float()))
        return torch.stack(redrawn), torch.stack(contrast)

    def _filtered(self, slot: int, mask: torch.Tensor) -> torch.Tensor:
        image, means = self._images[slot], self._means[slot]
        boxes = _box(torch.cat([mask[None], image * mask])[None], self._window)[0]
        slopes = torch.einsum("ijhw,jhw->ihw", self._inverse[slot], boxes[1:] - means * boxes[0])
        offset = boxes[0] - (slopes * means).sum(dim=0)
        smooth = _box(torch.cat([offset[None], slopes])[None], self._window)[0]
        return smooth[0] + (smooth[1:] * image).sum(dim=0)

    def _contrast(self, slot: int, mask: torch.Tensor) -> torch.Tensor:
        steps = self._steps[slot]
        contour = (_highest(mask, 3) > 0) & (-_highest(-mask, 3) < 1)
        band = _highest(contour.float(), self._band) > 0
        return (_highest(steps, 3) * contour).sum() / contour.sum() * band.sum() / (steps * band).sum()


def _box(values: torch.Tensor, window: int) -> torch.Tensor:
    """(B, C, S, S) means over windows, of what of each lies in the square."""
    half = window // 2
    values = F.avg_pool2d(values, (window, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(values, (1, window), 1, (0, half), count_include_pad=False)


def _highest(values: torch.Tensor, window: int) -> torch.Tensor:
    """(S, S) the highest of each window."""
    half = window // 2
    values = F.max_pool2d(values[None], (window, 1), 1, (half, 0))
    return F.max_pool2d(values, (1, window), 1, (0, half))[0]


def _inverse(matrices: torch.Tensor) -> torch.Tensor:
    """(B, 3, 3, S, S) symmetric matrices inverted by Cramer's rule: LAPACK takes a hundred times as long."""
    a, b, c = matrices.unbind(dim=1)
    adjugate = torch.stack([torch.linalg.cross(*pair, dim=1) for pair in ((b, c), (c, a), (a, b))], dim=1)
    return adjugate / (a * adjugate[:, 0]).sum(dim=1)[:, None, None]
