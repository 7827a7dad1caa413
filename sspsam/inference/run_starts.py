"""Where masks change, found on the device that drew them: RLE without copying or scanning pixels.

A mask of 4000 x 3000 px is 12 MB and takes a core some 5 ms to scan; where its runs start is some
thousands of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sspsam.inference.rle_threads import encode_columns, encode_counts
from sspsam.inference.transfers import to_host

#: Run starts a column of a mask, on average, for which there is room: an object has two.
_STARTS_A_COLUMN = 16


@dataclass(frozen=True)
class RunStarts:
    """N masks (N, width, height) bool by where their runs start, on the CPU once `transfers.copied` says so.

    `at`: (room,) int64, ascending, pixels from the first mask's first on, columns first; -1 behind the last.
    Masks of noise may have more starts than there is room: they are scanned, which is why they are kept.
    """

    at: Tensor
    masks: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of the device's memory that are held."""
        return self.masks.nbytes

    def encode(self) -> list[dict[str, Any]]:
        """N RLEs, `counts` in bytes."""
        number, width, height = self.masks.shape
        starts = self.at.numpy()
        if starts[-1] >= 0:  # no room was left, and perhaps there was too little
            return encode_columns(self.masks.cpu().numpy())
        starts = starts[: np.count_nonzero(starts >= 0)]
        pixels = width * height
        ends = np.searchsorted(starts, pixels * np.arange(number + 1))
        counts = []
        for i in range(number):
            own = starts[ends[i] : ends[i + 1]] - i * pixels
            counts.append(np.diff(own, prepend=0, append=pixels).astype(np.uint32))
        return encode_counts(counts, width, height)


def run_starts(masks: Tensor) -> RunStarts:
    """`RunStarts` of (N, width, height) bool, N at least 1, on their way to the host. Waits for nothing."""
    number, width, _ = masks.shape
    flat = masks.flatten(1)
    starts = torch.empty_like(flat)
    starts[:, 0] = flat[:, 0]  # the first run is of zeros, and has none if the mask starts with a one
    torch.ne(flat[:, 1:], flat[:, :-1], out=starts[:, 1:])
    room = number * width * _STARTS_A_COLUMN + 1
    at = torch.nonzero_static(starts.view(-1), size=room, fill_value=-1)
    return RunStarts(to_host(at[:, 0]), masks)
