"""Checks of COCO RLE, many masks at once.

pycocotools trusts its input: it reads past the end where `counts` says less than `size` holds. So
every mask that comes from a file passes here before it is decoded or compared.

The encoding (pycocotools, `common/maskApi.c`, rleToString): each run length is written as 5-bit
groups, lowest first, as characters from '0' up; bit 5 says that more follow, bit 4 of the last
group is the sign. From the fourth run on, the difference to the run two before is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask


def segmentation_problems(segmentations: pa.StructArray, sizes: np.ndarray) -> dict[int, str]:
    """What is wrong with each broken mask, by its position; an empty dict if all are sound.

    segmentations: `segmentation` structs {size: [h, w], counts: str}.
    sizes: (N, 2) int, the image's (height, width) for each; -1 where unknown.
    """
    number = len(segmentations)
    if not number:
        return {}
    problems: dict[int, str] = {}
    counts = segmentations.field("counts")
    stated = _stated_sizes(segmentations.field("size"))
    absent = np.asarray(segmentations.is_null()) | np.asarray(counts.is_null())
    covered, broken = _pixels_covered(counts)
    for row in np.flatnonzero(absent | (stated < 0).any(axis=1)):
        problems[int(row)] = "has no segmentation"
    for row in np.flatnonzero((sizes >= 0).all(axis=1) & (stated != sizes).any(axis=1)):
        problems.setdefault(
            int(row),
            f"its segmentation is {stated[row, 0]} x {stated[row, 1]} (height x width),"
            f" its image {sizes[row, 0]} x {sizes[row, 1]}",
        )
    for row in np.flatnonzero(broken | (covered != stated.prod(axis=1))):
        problems.setdefault(
            int(row),
            f"its RLE covers {covered[row]} of {stated[row].prod()} pixels"
            if not broken[row]
            else "its RLE is not COCO's compressed string",
        )
    return problems


def coco_rles(segmentations: pa.StructArray) -> list[dict[str, Any]]:
    """The masks as pycocotools takes them: {"size": [h, w], "counts": bytes}."""
    return [
        {"size": one["size"], "counts": one["counts"].encode("ascii")} for one in segmentations.to_pylist()
    ]


def decode(segmentation: dict[str, Any]) -> np.ndarray:
    """Boolean (height, width) mask of one checked `segmentation`."""
    counts = segmentation["counts"]
    if isinstance(counts, str):
        counts = counts.encode("ascii")
    decoded = coco_mask.decode({"size": segmentation["size"], "counts": counts})
    return np.asarray(decoded, dtype=bool)


def encode(mask: np.ndarray) -> dict[str, Any]:
    """COCO RLE of a boolean (height, width) mask, `counts` as str."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _stated_sizes(sizes: pa.Array) -> np.ndarray:
    """(N, 2) int64 of the list column `size`; -1 where it is not two numbers."""
    flat = sizes.flatten()
    if len(flat) == 2 * len(sizes) and not sizes.null_count and not flat.null_count:
        lengths = sizes.value_lengths() if not pa.types.is_fixed_size_list(sizes.type) else None
        if lengths is None or np.all(np.asarray(lengths) == 2):
            return np.asarray(flat, dtype=np.int64).reshape(-1, 2)
    stated = np.full((len(sizes), 2), -1, dtype=np.int64)
    for row, pair in enumerate(sizes.to_pylist()):
        if pair is not None and len(pair) == 2 and None not in pair:
            stated[row] = pair
    return stated


def _pixels_covered(counts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Sum of each mask's run lengths (N,), and whether its string cannot be COCO's (N,)."""
    texts = [text.encode() if text is not None else b"" for text in counts.to_pylist()]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    symbols = np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.int64) - 48
    mask_of = np.repeat(np.arange(len(texts)), lengths)
    broken = np.zeros(len(texts), dtype=bool)
    outside = (symbols < 0) | (symbols > 63)
    broken[mask_of[outside]] = True
    ends = np.cumsum(lengths)
    filled = lengths > 0
    last_symbol = symbols[ends[filled] - 1]
    broken[np.flatnonzero(filled)[(last_symbol & 32) != 0]] = True  # ends inside a number
    broken |= ~filled
    good = ~broken[mask_of]
    symbols, mask_of = symbols[good], mask_of[good]
    covered = np.zeros(len(texts), dtype=np.int64)
    if not len(symbols):
        return covered, broken
    runs, mask_of_run, too_long = _run_lengths(symbols, mask_of)
    broken[mask_of_run[too_long | (runs < 0)]] = True
    np.add.at(covered, mask_of_run, np.where(too_long, 0, runs))
    return covered, broken


def _run_lengths(symbols: np.ndarray, mask_of: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run lengths, the mask of each, and whether the number has more digits than a run can have."""
    final = (symbols & 32) == 0
    number_of = np.concatenate([[0], np.cumsum(final)[:-1]])
    starts = np.flatnonzero(np.concatenate([[True], final[:-1]]))
    place = np.arange(len(symbols)) - starts[number_of]
    too_long = np.bincount(number_of) > 7
    shift = 5 * np.minimum(place, 7)
    values = np.add.reduceat((symbols & 31) << shift, starts)
    ends = np.flatnonzero(final)
    negative = (symbols[ends] & 16) != 0
    values = values - np.where(negative, np.int64(1) << (shift[ends] + 5), 0)
    mask_of_run = mask_of[starts]
    first = np.concatenate([[True], mask_of_run[1:] != mask_of_run[:-1]])
    first_run = np.flatnonzero(first)
    position = np.arange(len(values)) - first_run[np.cumsum(first) - 1]
    # Runs 1, 3, 5, ... and 2, 4, 6, ... are two chains of differences; run 0 stands alone.
    chain = mask_of_run * 3 + np.where(position == 0, 0, 1 + position % 2)
    order = np.argsort(chain, kind="stable")
    sums = np.cumsum(values[order])
    chain_starts = np.concatenate([[True], chain[order][1:] != chain[order][:-1]])
    before = np.where(chain_starts, sums - values[order], 0)
    base = before[np.maximum.accumulate(np.where(chain_starts, np.arange(len(sums)), 0))]
    runs = np.empty_like(values)
    runs[order] = sums - base
    return runs, mask_of_run, too_long
