"""The start of training from nothing."""

from __future__ import annotations

import torch

from sspsam import SSPSAM
from sspsam.training.initialise import smooth_positions
from sspsam.training.stages import encoder_tokens, select_loss


def test_neighbouring_patches_start_alike_and_distant_ones_do_not(small_model: SSPSAM) -> None:
    encoder = small_model.ssp_encoder
    before = encoder.positions.detach().clone()
    smooth_positions(encoder)
    side = encoder.grid
    learned = len(before) - side * side
    assert torch.equal(encoder.positions[:learned], before[:learned])  # box and prompt tokens
    patches = encoder.positions[learned:].detach().view(side, side, -1)
    assert abs(float(patches.square().mean()) - 1) < 0.1
    assert len(patches.flatten(0, 1).unique(dim=0)) == side * side
    apart = lambda a, b: float((patches[a] - patches[b]).square().mean())  # noqa: E731
    assert torch.equal(patches[0, 0, : patches.shape[2] // 2], patches[1, 0, : patches.shape[2] // 2])
    if side > 2:
        assert apart((0, 0), (0, 1)) < apart((0, 0), (0, side - 1))


def test_the_choice_of_patches_is_learned_from_every_layer(small_model: SSPSAM) -> None:
    config = small_model.config
    grid, prompts = config.clip.grid, config.ssp.prompts
    tokens = torch.randn(2, 1 + prompts + grid * grid, config.sam.embed_dim)
    with encoder_tokens(small_model) as layers:
        out = tokens
        for layer in small_model.ssp_encoder.layers:
            out = layer(out, small_model.ssp_encoder.positions)
    assert len(layers) == config.ssp.layers
    assert layers[-1] is out
    small_model.ssp_encoder.layers[0](tokens, small_model.ssp_encoder.positions)
    assert len(layers) == config.ssp.layers  # outside the block nothing is collected
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :4, :4] = True  # the first of the four patches of the first phrase
    right = torch.full((2, 4), -9.0)
    right[0, 0] = 9.0
    perfect = torch.zeros(2, 1 + prompts + 4, config.sam.embed_dim)
    perfect[:, -4:, 0] = right
    assert float(select_loss([perfect], masks, 2)) < 0.01
    assert float(select_loss([-perfect], masks, 2)) > 5
