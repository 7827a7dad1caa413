"""RLE checks: what pycocotools writes passes and decodes the same; what is damaged never reaches it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sspsam.errors import DataError
from sspsam.rle import check_rle


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_runs_are_those_of_pycocotools(height: int, width: int, density: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    for counts in (rle["counts"], rle["counts"].decode("ascii")):
        runs = check_rle({"size": [height, width], "counts": counts})
        drawn = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
        assert (drawn == mask).all()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_counts_are_refused_or_harmless(changes: list[tuple[int, int]]) -> None:
    rle = coco_mask.encode(np.asfortranarray(np.eye(50, 40, dtype=np.uint8)))
    counts = bytearray(rle["counts"])
    for place, value in changes:
        counts[place % len(counts)] = value
    damaged = {"size": [50, 40], "counts": bytes(counts)}
    try:
        check_rle(damaged)
    except DataError:
        return
    assert coco_mask.decode(damaged).shape == (50, 40)
    assert 0 <= coco_mask.iou([damaged], [rle], [0])[0][0] <= 1


@pytest.mark.parametrize(
    ("size", "counts", "says"),
    [
        ([2, 3], "6", None),
        ([2, 3], "7", "does not fit its size of 3 x 2"),
        ([2, 3], "5", "does not fit"),
        ([2, 3], "", "ends early"),
        ([2, 3], "ooooooooo", "ends early"),
        ([2, 3], "ooooooooo0", "longer than any"),
        ([2, 3], "é", "other characters"),
        ([2], "6", "holds no RLE"),
        (None, "6", "holds no RLE"),
        ([2, 3], None, "holds no RLE"),
    ],
)
def test_messages(size: list[int] | None, counts: str | None, says: str | None) -> None:
    rle = {"size": size, "counts": counts}
    if says is None:
        check_rle(rle)
    else:
        with pytest.raises(DataError, match=says):
            check_rle(rle)
