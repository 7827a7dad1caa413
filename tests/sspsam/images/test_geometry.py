"""Boxes and masks return to the original frame within half a pixel, whatever the aspect and size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sspsam.errors import ZeroSizeError
from sspsam.images.geometry import (
    Geometry,
    box_iou,
    cxcywh_to_xyxy,
    logits_to_square,
    patch_overlaps,
    xywh_to_xyxy,
    xyxy_to_cxcywh,
    xyxy_to_xywh,
)
from sspsam.modeling.segment_anything import modeling as stock

SQUARES = st.sampled_from([(224, 1024, 256), (336, 1024, 256), (64, 128, 32), (96, 160, 40)])


@st.composite
def sizes(draw: st.DrawFn, greatest: int = 9000) -> tuple[int, int]:
    """(width, height), 1 px up, aspect from 1:20 to 20:1."""
    long = draw(st.integers(1, greatest))
    short = draw(st.integers(max(1, -(-long // 20)), long))
    return (long, short) if draw(st.booleans()) else (short, long)


@settings(max_examples=300, deadline=None)
@given(sizes(), SQUARES, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_come_back(size, squares, shares) -> None:
    width, height = size
    frame = Geometry.fit(width, height, *squares[:2]).clip
    assert 1 <= frame.resized_width <= frame.size
    assert 1 <= frame.resized_height <= frame.size
    assert frame.left + frame.resized_width <= frame.size
    assert frame.top + frame.resized_height <= frame.size
    (x0, x1), (y0, y1) = sorted(shares[:2]), sorted(shares[2:])
    box = torch.tensor([[x0 * width, y0 * height, x1 * width, y1 * height]])
    relative = frame.boxes_from_original(box)
    assert (relative >= -1e-6).all()
    assert (relative <= 1 + 1e-6).all()
    assert (frame.boxes_to_original(relative) - box).abs().max() < 0.5
    # Whatever the box head says, the box lies on the image.
    wild = frame.boxes_to_original(torch.tensor([[0.5, 0.5, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]]))
    assert wild[0].tolist() == pytest.approx([0, 0, width, height], rel=1e-5)
    assert (wild >= 0).all()


@settings(max_examples=100, deadline=None)
@given(sizes(2500), SQUARES, st.floats(0.05, 0.95), st.booleans())
def test_masks_come_back(size, squares, share, vertical) -> None:
    """A straight edge, written as logits the way the model does, is found again where it was."""
    width, height = size
    _, square, cells = squares
    frame = Geometry.fit(width, height, *squares[:2]).sam
    side = width if vertical else height
    resized = frame.resized_width if vertical else frame.resized_height
    edge = share * side
    assume(abs(edge % 1 - 0.5) > 1e-3)  # through the centres of pixels, whose logits are 0 but for rounding
    # A bilinear resize repeats the outermost half logit: an edge that close to the border may move by it.
    margin = square / cells * side / resized
    centres = (torch.arange(cells) + 0.5) * (square / cells) * (side / resized)
    logits = (edge - centres).expand(cells, cells)
    logits = logits if vertical else logits.T
    mask = frame.logits_to_original(logits[None])[0] > 0
    assert mask.shape == (height, width)
    line = mask[0] if vertical else mask[:, 0]
    assert (mask == (line if vertical else line[:, None])).all()
    allowed = 0.5 if margin < edge < side - margin else max(0.5, margin)
    assert abs(int(line.sum()) - edge) <= allowed + 1e-3
    transposed = frame.transposed().logits_to_original(logits.T[None])[0]
    assert torch.allclose(transposed.T, frame.logits_to_original(logits[None])[0], atol=1e-2)


@settings(max_examples=60, deadline=None)
@given(sizes(600), SQUARES)
def test_training_targets_come_back(size, squares) -> None:
    """A mask turned into the authors' target and read back covers the object and half a pixel more."""
    width, height = size
    frame = Geometry.fit(width, height, *squares[:2]).sam
    mask = torch.zeros(1, height, width)
    mask[:, height // 4 : height // 4 + max(1, height // 2), : max(1, width // 2)] = 1
    target = frame.masks_to_square(mask, squares[1] // 2)
    assert target.shape == (1, squares[1] // 2, squares[1] // 2)
    rows, columns = frame.inside(squares[1] // 2)
    assert 1 <= rows <= squares[1] // 2
    assert 1 <= columns <= squares[1] // 2
    per_pixel = (frame.resized_width / width) * (frame.resized_height / height) / 4
    if min(width, height) * per_pixel**0.5 >= 8:
        object_size = (max(1, width // 2) + 2 / per_pixel**0.5 + 1) * (
            max(1, height // 2) + 2 / per_pixel**0.5 + 2
        )
        assert mask.sum() * 0.5 <= target.sum() / per_pixel <= object_size


@settings(max_examples=60, deadline=None)
@given(sizes(3000), SQUARES, st.integers(4, 24))
def test_patch_overlap_is_exact(size, squares, grid) -> None:
    """The patches' shares under a full mask add up to the image's share of the CLIP square."""
    geometry = Geometry.fit(*size, *squares[:2])
    score = squares[1] // 2
    rows, columns = geometry.patch_overlap(grid, score)
    single = patch_overlaps(torch.tensor(geometry.spans(score)), geometry.clip.size, grid, score)  # as on MPS
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, torch.stack([rows, columns]), rtol=0, atol=1e-4)
    shares = rows @ torch.ones(score, score) @ columns.T
    clip = geometry.clip
    expected = clip.resized_width * clip.resized_height * (grid / clip.size) ** 2
    assert shares.shape == (grid, grid)
    assert shares.max() <= 1 + 1e-5
    assert float(shares.sum()) == pytest.approx(expected, rel=1e-4)
    image = geometry.clip.grid_to_original(torch.ones(2, grid, grid)) if size[0] < 300 else None
    assert image is None or (image.shape == (2, size[1], size[0]) and bool((image > 0.999).all()))


@pytest.mark.parametrize("size", [(640, 427), (300, 500), (97, 1500), (1, 1)])
def test_masks_equal_stock_sam(size) -> None:
    width, height = size
    frame = Geometry.fit(width, height, 224, 1024).sam
    logits = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    ours = frame.logits_to_original(logits)

    class Stock:  # postprocess_masks asks only for the encoder's image size
        class image_encoder:  # noqa: N801
            img_size = 1024

    theirs = stock.Sam.postprocess_masks(
        Stock(), logits[:, None], (frame.resized_height, frame.resized_width), (height, width)
    )[:, 0]
    assert torch.equal(ours, theirs)
    square = logits_to_square(logits, 1024, 512)
    assert square.shape == (2, 512, 512)


def test_box_forms_and_errors() -> None:
    boxes = torch.tensor([[1.0, 2.0, 5.0, 10.0], [3.0, 3.0, 3.0, 3.0]])
    assert torch.equal(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)
    assert torch.equal(xywh_to_xyxy(xyxy_to_xywh(boxes)), boxes)
    assert box_iou(boxes, boxes).tolist() == [1, 0]
    assert box_iou(boxes[:1], torch.tensor([[3.0, 2.0, 7.0, 10.0]])).item() == pytest.approx(1 / 3)
    for size in [(0, 5), (5, 0)]:
        with pytest.raises(ZeroSizeError, match="at least 1 px"):
            Geometry.fit(*size, 224, 1024)
