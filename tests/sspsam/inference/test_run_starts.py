"""Run starts found on the device that drew: the same bytes as pycocotools, which scans pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sspsam.inference.rle_threads import encode_columns
from sspsam.inference.run_starts import run_starts


def scanned(masks: torch.Tensor) -> list[dict[str, object]]:
    return encode_columns(masks.numpy().view(np.uint8))


@settings(max_examples=200, deadline=None)
@given(
    number=st.integers(1, 4),
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    block=st.integers(1, 9),
    density=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
@example(3, 60, 60, 1, 0.5, 0)  # noise: more starts than there is room
def test_the_same_bytes(number: int, width: int, height: int, block: int, density: float, seed: int) -> None:
    coarse = np.random.default_rng(seed).random((number, -(-width // block), -(-height // block))) < density
    fine = coarse.repeat(block, axis=1).repeat(block, axis=2)[:, :width, :height]
    masks = torch.from_numpy(np.ascontiguousarray(fine))
    assert run_starts(masks).encode() == scanned(masks)


def test_masks_are_scanned_only_without_room() -> None:
    masks = torch.zeros(2, 50, 40, dtype=torch.bool)
    masks[:, 10:20, 5:30] = True
    found = run_starts(masks)
    assert found.at.numel() < masks.numel()
    assert found.nbytes == masks.nbytes
    expected = scanned(masks)
    masks.zero_()
    assert found.encode() == expected  # without a look at the pixels
    noise = torch.rand(2, 50, 40) < 0.5
    found = run_starts(noise)
    assert found.at[-1] >= 0
    assert found.encode() == scanned(noise)


@pytest.mark.gpu
def test_on_cuda() -> None:
    masks = torch.rand(3, 70, 50, generator=torch.Generator().manual_seed(0)) < 0.03
    found = run_starts(masks.cuda())
    torch.cuda.synchronize()
    assert found.at[-1] < 0
    assert found.encode() == scanned(masks)
