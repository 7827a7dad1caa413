"""Initialisation of the SSP encoder's patch positions as 2-D sinusoids."""

from __future__ import annotations

import math

import torch

from sspsam.modeling.ssp_encoder import SSPEncoder


@torch.no_grad()
def smooth_positions(encoder: SSPEncoder) -> None:
    """Start the SSP encoder's patch positions as 2-D sinusoids of unit variance.

    Positions enter queries and keys only, so where something is can be told only by attending to its
    place. With independent random positions each of the G*G places has to be learned by itself; with
    smooth ones, what is learned of a place holds for its neighbours. They train like any parameter.
    """
    side, width = encoder.grid, encoder.positions.shape[1]
    waves = width // 4  # a sine and a cosine along x, and along y
    cycles = 0.25 * (2.0 * side) ** (torch.arange(waves) / max(waves - 1, 1))  # a quarter to side / 2
    steps = (torch.arange(side) + 0.5) / side
    angles = 2 * math.pi * steps[:, None] * cycles
    axis = math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)
    x, y = axis[None].expand(side, side, -1), axis[:, None].expand(side, side, -1)
    patches = torch.cat([x, y], dim=-1).flatten(0, 1)
    encoder.positions[-side * side :, : patches.shape[1]] = patches.to(encoder.positions)
