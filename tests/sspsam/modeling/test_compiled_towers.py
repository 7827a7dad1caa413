"""Compiled towers against eager ones, and the ways of relative attention against each other."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from sspsam import SSPSAM, Segmenter, SegmenterConfig
from sspsam.modeling.compiled_towers import CompiledTowers
from sspsam.modeling.precision import fast_float32
from sspsam.modeling.relative_attention import offset_table, relative_attention, relative_biases, ways
from sspsam.modeling.sam import _relative
from sspsam.scenes import scenes


@pytest.fixture(scope="module")
def model() -> SSPSAM:
    return SSPSAM.from_pretrained("tiny", device="cpu")


def test_offsets_hold_the_biases() -> None:
    """One product with the table holds what two products of gathered tables give."""
    height, width, depth = 5, 7, 8
    tables = torch.randn(2 * height - 1, depth), torch.randn(2 * width - 1, depth)
    grid = torch.randn(2, 3, height, width, depth)
    products = grid.flatten(2, 3) @ offset_table(*tables)
    rel_h, rel_w = relative_biases(products, height, width)
    down, across = _relative(tables[0], height, grid), _relative(tables[1], width, grid)
    wanted_h = torch.einsum("nmhwc,hkc->nmhwk", grid, down).flatten(2, 3)
    wanted_w = torch.einsum("nmhwc,wkc->nmhwk", grid, across).flatten(2, 3)
    torch.testing.assert_close(rel_h, wanted_h)
    torch.testing.assert_close(rel_w, wanted_w)


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile wants a C++ compiler on a CPU"
)


@needs_compiler
@torch.inference_mode()
def test_compiled_towers_equal_eager(model: SSPSAM) -> None:
    """In float32, through inductor, padded to the slots; a batch of another size is not compiled again."""
    side = model.config.sam.image_size
    clip = torch.randn(2, 3, model.config.clip.image_size, model.config.clip.image_size)
    sam = torch.randn(2, 3, side, side)
    towers = CompiledTowers(model, 3)
    wanted = model.encode_image(clip, sam)
    got = towers(clip, sam)
    assert [len(one) for one in got] == [3, 3]
    torch.testing.assert_close(got[0][:2], wanted.clip_tokens, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got[1][:2], wanted.sam_embedding, atol=1e-4, rtol=1e-4)
    again = towers(clip[:1], sam[:1])
    torch.testing.assert_close(again[1][:1], wanted.sam_embedding[:1], atol=1e-4, rtol=1e-4)


@needs_compiler
def test_a_compiled_segmenter_draws_the_same_masks(model: SSPSAM) -> None:
    made = list(scenes("heldout", 0, 3))
    images, phrases = [one.image for one in made], [[p.text for p in one.phrases] for one in made]
    eager = Segmenter(model).segment(images, phrases)
    compiled = Segmenter(model, SegmenterConfig(images_per_batch=3, compiled=True))
    compiled.warm_up()
    assert compiled.timings["images"] == 0
    for ours, theirs in zip(compiled.segment(images, phrases), eager, strict=True):
        assert min(map(iou, ours, theirs)) >= 0.999


def iou(a: object, b: object) -> float:
    first, second = a.decode(), b.decode()  # type: ignore[attr-defined]
    union = np.logical_or(first, second).sum()
    return 1.0 if union == 0 else float(np.logical_and(first, second).sum() / union)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("side", "heads", "depth"), [(14, 16, 80), (64, 16, 80), (14, 12, 64), (64, 12, 64), (7, 4, 32)]
)
@torch.inference_mode()
def test_every_way_on_cuda_equals_float32(side: int, heads: int, depth: int) -> None:
    torch.manual_seed(0)
    device = torch.device("cuda")
    tables = [0.1 * torch.randn(2 * side - 1, depth, device=device) for _ in range(2)]
    table = offset_table(*tables)
    qkv = torch.randn(3, side * side, 3, heads, depth, device=device)
    exact = relative_attention(qkv.cpu(), table.cpu(), side, side)
    half, rounded = qkv.bfloat16(), table.bfloat16()
    queries = half[:, :, 0].reshape(-1, heads, depth).transpose(0, 1)
    products = torch.bmm(queries, rounded.expand(heads, -1, -1)).view(heads, 3, side * side, -1)
    found = ways(device, torch.bfloat16, depth)
    assert {"biased", "augmented", "triton"} == set(found)
    for name, way in found.items():
        got = way(half, products, side, side).float().cpu()
        assert float((got - exact).norm() / exact.norm()) < 0.01, name


@pytest.mark.gpu
def test_a_replica_on_cuda_draws_the_masks_of_a_cpu(model: SSPSAM) -> None:
    made = list(scenes("heldout", 0, 20))
    images, phrases = [one.image for one in made], [[p.text for p in one.phrases] for one in made]
    exact = Segmenter(model).segment(images, phrases)
    fast_float32()
    try:
        on_cuda = SSPSAM.from_pretrained("tiny", device="cuda")
        segmenter = Segmenter(on_cuda, SegmenterConfig(images_per_batch=8, compiled=True))
        segmenter.warm_up()
        results = segmenter.segment(images, phrases)
    finally:
        fast_float32(False)
    ious = [
        iou(a, b)
        for ours, theirs in zip(results, exact, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert float(np.mean(ious)) >= 0.995, ious
