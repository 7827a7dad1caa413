"""What the segmentations of a record draw."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sspsam.data import Segmentation


def drawn(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    return coco_mask.decode(segmentation.rle(height, width)).astype(bool)


def test_phrasecut_draws_as_its_evaluator():
    # Two triangles by hand: vertices truncated, outline included; a line where there are two points.
    segmentation = Segmentation.from_polygons([[[1.9, 1.9], [4.2, 1.0], [1.0, 4.7]]], "phrasecut")
    expected = np.zeros((6, 6), bool)
    expected[1, 1:5] = expected[2, 1:4] = expected[3, 1:3] = expected[4, 1] = True
    np.testing.assert_array_equal(drawn(segmentation, 6, 6), expected)
    line = drawn(Segmentation.from_polygons([[[0, 0], [3, 0]]], "phrasecut"), 4, 4)
    assert line[0].all()
    assert line[1:].sum() == 0


@pytest.mark.parametrize(
    ("counts", "expected"),
    [({"size": [2, 3], "counts": [1, 2, 3]}, [[0, 1, 0], [1, 0, 0]]), (None, [[0, 0, 0], [0, 0, 0]])],
)
def test_coco_segmentations(counts, expected):
    """Uncompressed RLE, lists of RLE, empty polygons and polygons without area."""
    parts = [] if counts is None else [counts]
    for value in (parts, [parts]):
        segmentation = Segmentation.from_coco(value)
        np.testing.assert_array_equal(drawn(segmentation, 2, 3), np.array(expected, bool))
    flat = Segmentation.from_coco([[[0, 0, 1, 1], [0, 0, 1]], []])  # 4 numbers would be a box
    assert not drawn(flat, 2, 3).any()
