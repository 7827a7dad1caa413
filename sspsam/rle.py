"""COCO's compressed RLE taken apart and checked, because pycocotools trusts what it is given.

Runs of 0 and 1 in turn, starting with 0, down the columns from the left. From the fourth on each is
stored as the difference to the run two before; 5 bits a character from "0", least first, bit 5 says
that more follow, bit 4 of the last is the sign (cocodataset/cocoapi, maskApi.c, rleToString).

pycocotools 2.0.11 decodes runs that do not cover the mask to whatever memory held before, and its
`iou` can loop endlessly on damaged ones: check RLE from a file that others may have written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sspsam.errors import DataError

_LONGEST = 7  # characters of one run: 35 bits
#: Pixels of an image: pycocotools counts them in 32 bits.
MOST_PIXELS = 2**31 - 1
#: Pixels of a mask's outline: pycocotools takes 80 bytes for each, without asking whether there are so many.
_LONGEST_OUTLINE = 4_000_000


def check_outline(rings: Iterable[Any]) -> None:
    """Raises DataError unless the polygons (x, y, x, y, ... in pixels) can be drawn in bounded memory."""
    points = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in rings]
    length = sum(float(np.abs(ring - np.roll(ring, 1, axis=0)).max(axis=1).sum()) for ring in points)
    if not length <= _LONGEST_OUTLINE:  # nor NaN
        raise DataError(f"its polygons are {length:.3g} pixels around: no outline of an object in an image")


def check_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """Run lengths (R,) int64 of {"size": [height, width], "counts": str or bytes}.

    Raises DataError, saying what is wrong, unless the runs cover height x width exactly: then pycocotools
    may have it.
    """
    size, counts = rle.get("size"), rle.get("counts")
    try:
        height, width = (int(side) for side in size or ())
    except (TypeError, ValueError, OverflowError):
        height = width = -1
    if not isinstance(counts, (str, bytes)) or min(height, width) < 0:
        raise DataError("the row holds no RLE (size and counts)")
    try:
        raw = counts.encode("ascii") if isinstance(counts, str) else bytes(counts)
    except UnicodeEncodeError as error:
        raise DataError("the RLE is damaged: it holds other characters than COCO's") from error
    digits = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((digits & 32) == 0)
    if not len(ends) or digits.min() < 0 or digits.max() > 63 or ends[-1] != len(digits) - 1:
        raise DataError("the RLE is damaged: it holds other characters than COCO's, or ends early")
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() >= _LONGEST:
        raise DataError("the RLE is damaged: a run is longer than any mask")
    place = np.arange(len(digits)) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((digits & 31) << (5 * place), starts)
    values -= np.where(digits[ends] & 16, np.int64(1) << (5 * (ends - starts + 1)), 0)
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    if runs.min() < 0 or runs.sum() != height * width:
        raise DataError(f"the RLE does not fit its size of {width} x {height} pixels")
    return runs
